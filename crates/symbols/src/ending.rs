//! Whether a signal has asked for the end: what takes long should stop then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Whether one has come, and whether that means the end: a command decides about its own, until it has ended.
static CAME: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static ENDS: AtomicBool = AtomicBool::new(false);

/// Whether a signal has asked for the end: what takes long should stop.
pub fn is_asked_to_end() -> bool {
    ENDS.load(Ordering::Relaxed) && CAME.get().is_some_and(|came| came.load(Ordering::Relaxed))
}

/// From here on a signal can only mean that the end should come sooner.
pub fn end_by_any() {
    ENDS.store(true, Ordering::Relaxed);
}

/// What is to be set when one of the signals comes that somebody ends us by.
pub fn came() -> &'static Arc<AtomicBool> {
    CAME.get_or_init(Arc::default)
}
