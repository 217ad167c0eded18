//! The ring through which the kernel half sends events.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use anyhow::{Context, Result};
use bytemuck::{AnyBitPattern, pod_read_unaligned};
use libbpf_rs::{MapCore as _, MapHandle, RingBuffer, RingBufferBuilder};

/// Before each record in the ring, and what its length is rounded up to.
const HEAD: usize = 8;

/// Events of the kernel half, each turned into any number of `E` as it is read.
pub(crate) struct Ring<E> {
    buffer: RingBuffer<'static>,
    read: Rc<RefCell<Vec<E>>>,
    /// No more records than this wait at once.
    most: usize,
}

impl<E: 'static> Ring<E> {
    /// Over a ring buffer map whose records are `T`.
    pub(crate) fn new<T, I>(map: &MapHandle, turn: impl Fn(&T) -> I + 'static) -> Result<Self>
    where
        T: AnyBitPattern,
        I: IntoIterator<Item = E>,
    {
        Self::with(map, size_of::<T>(), move |bytes, into| {
            // Records are T; shorter ones there are not.
            if let Some(bytes) = bytes.get(..size_of::<T>()) {
                into.extend(turn(&pod_read_unaligned(bytes)));
            }
        })
    }

    /// Over a ring buffer map whose records are of several sorts: their lengths tell which.
    pub(crate) fn of_many<I>(map: &MapHandle, turn: impl Fn(&[u8]) -> I + 'static) -> Result<Self>
    where
        I: IntoIterator<Item = E>,
    {
        Self::with(map, HEAD, move |bytes, into| into.extend(turn(bytes)))
    }

    fn with(map: &MapHandle, shortest: usize, take: impl Fn(&[u8], &mut Vec<E>) + 'static) -> Result<Self> {
        let most = map.max_entries() as usize / (HEAD + shortest.next_multiple_of(HEAD));
        let read = Rc::new(RefCell::new(Vec::new()));
        let into = Rc::clone(&read);
        let mut builder = RingBufferBuilder::new();
        builder.add(map, move |bytes| {
            take(bytes, &mut into.borrow_mut());
            0
        })?;
        Ok(Self { buffer: builder.build().context("cannot map the ring buffer")?, read, most })
    }

    /// Moves what waits in the ring to the end of `events`. What comes meanwhile is left once that is as much as the ring
    /// holds: who sends as fast as this reads would not let it come back, and `events` would grow without end.
    pub(crate) fn drain(&self, events: &mut Vec<E>) -> Result<()> {
        let read = self.buffer.consume_raw_n(self.most);
        if read < 0 {
            return Err(io::Error::from_raw_os_error(-read)).context("cannot read the events");
        }
        let read = &mut *self.read.borrow_mut();
        if events.is_empty() {
            // Nothing is copied, and both keep their memory.
            std::mem::swap(events, read);
        } else {
            events.append(read);
        }
        Ok(())
    }

    /// Becomes readable when something waits.
    #[allow(unsafe_code)]
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to the buffer, which lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.buffer.epoll_fd()) }
    }
}

impl<E> fmt::Debug for Ring<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("read", &self.read.borrow().len()).finish_non_exhaustive()
    }
}
