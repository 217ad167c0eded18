//! What keys change while rows come. Clones of a control are the same control.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The column that rows are sorted by, if there is one. Clones are the same choice, which can change while rows come.
#[derive(Debug, Clone)]
pub struct SortKey(Arc<AtomicUsize>);

impl SortKey {
    /// The place of the column in its table.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        Some(self.0.load(Ordering::Relaxed)).filter(|column| *column != usize::MAX)
    }

    /// Sorts what comes by this column.
    pub fn set(&self, column: usize) {
        self.0.store(column, Ordering::Relaxed);
    }
}

impl From<Option<usize>> for SortKey {
    fn from(column: Option<usize>) -> Self {
        Self(Arc::new(column.unwrap_or(usize::MAX).into()))
    }
}

/// Whether rows are since the start, and not of an interval. Clones are the same switch, which can be turned while rows come.
#[derive(Debug, Clone, Default)]
pub struct Cumulative(Arc<AtomicBool>);

impl Cumulative {
    /// Whether they are.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Turns it.
    pub fn turn(&self) {
        self.0.fetch_xor(true, Ordering::Relaxed);
    }
}

impl From<bool> for Cumulative {
    fn from(is_on: bool) -> Self {
        Self(Arc::new(is_on.into()))
    }
}

/// Whether an interval is to end now. Clones are the same request.
#[derive(Debug, Clone, Default)]
pub struct Refresh(Arc<AtomicBool>);

impl Refresh {
    /// Requests it.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was requested; it is no longer.
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// The length of intervals, where it is not that of the beginning. Clones are the same choice.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<AtomicU64>);

impl Pace {
    /// The length, if one was set.
    #[must_use]
    pub fn get(&self) -> Option<Duration> {
        Some(self.0.load(Ordering::Relaxed)).filter(|ns| *ns > 0).map(Duration::from_nanos)
    }

    /// Sets it.
    pub fn set(&self, interval: Duration) {
        self.0.store(interval.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// What keys change while rows come. Clones are the same controls.
#[derive(Debug, Clone)]
pub struct Controls {
    /// The order of rows.
    pub sort: SortKey,
    /// The time that they are of.
    pub cumulative: Cumulative,
    /// Rows before the next interval ends.
    pub refresh: Refresh,
}
