//! A mutex whose holder runs with the priority of whoever waits for it: a thread of real-time priority cannot wait for an
//! ordinary one that has no processor.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

/// The value, and the lock that guards it.
pub(crate) struct Boosted<T> {
    /// In a place of its own: a lock must not be moved.
    lock: Box<UnsafeCell<libc::pthread_mutex_t>>,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only by the holder of the lock; it goes from thread to thread.
unsafe impl<T: Send> Send for Boosted<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Boosted<T> {}

impl<T> Boosted<T> {
    pub(crate) fn new(value: T) -> Self {
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::zeroed();
        let lock = Box::new(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));
        // SAFETY: both are values of ours; without the protocol it is an ordinary lock, as it was initialized.
        unsafe {
            libc::pthread_mutexattr_init(attributes.as_mut_ptr());
            libc::pthread_mutexattr_setprotocol(attributes.as_mut_ptr(), libc::PTHREAD_PRIO_INHERIT);
            libc::pthread_mutex_init(lock.get(), attributes.as_ptr());
            libc::pthread_mutexattr_destroy(attributes.as_mut_ptr());
        }
        Self { lock, value: UnsafeCell::new(value) }
    }

    pub(crate) fn lock(&self) -> Held<'_, T> {
        // SAFETY: initialized in new(), and alive as long as self.
        unsafe { libc::pthread_mutex_lock(self.lock.get()) };
        Held(self)
    }
}

impl<T> Drop for Boosted<T> {
    fn drop(&mut self) {
        // SAFETY: nobody else has it any more, and so nobody holds it.
        unsafe { libc::pthread_mutex_destroy(self.lock.get()) };
    }
}

impl<T> fmt::Debug for Boosted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boosted").finish_non_exhaustive()
    }
}

/// The value, for as long as this lives.
pub(crate) struct Held<'a, T>(&'a Boosted<T>);

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this holds the lock.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this holds the lock, and is borrowed for itself alone.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        // SAFETY: locked by this thread, in lock().
        unsafe { libc::pthread_mutex_unlock(self.0.lock.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_at_a_time_has_the_value() {
        let value = Boosted::new(0u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| *value.lock() += 1));
            }
        });
        assert_eq!(*value.lock(), 40_000);
    }
}
