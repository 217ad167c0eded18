//! The working set: which pages are touched in each window of time.

use super::pages::Counts;
use super::schema::WORKING_SET;
use crate::field::Record;
use crate::item::Block;

const READ: u8 = 1;
const WRITTEN: u8 = 2;

/// Different pages, and how they were touched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) pages: u64,
    /// Pages that were not touched before.
    pub(super) new: u64,
    pub(super) read: u64,
    pub(super) written: u64,
    pub(super) counts: Counts,
}

impl Touched {
    /// As a record of [`WORKING_SET`], for a time that begins `at_ns` after the trace's.
    pub(super) fn record(&self, at_ns: u64, span_ns: u64) -> Record {
        WORKING_SET.record(&WindowRow { at_ns, span_ns, touched: *self })
    }
}

/// What a row says.
pub(super) struct WindowRow {
    pub(super) at_ns: u64,
    pub(super) span_ns: u64,
    pub(super) touched: Touched,
}

/// The window that is open, and those that have ended.
#[derive(Debug)]
pub(super) struct Windows {
    length_ns: u64,
    began_ns: u64,
    /// When the open window began.
    opened_ns: u64,
    /// Nothing was accessed and no window has ended yet.
    fresh: bool,
    /// Since when nothing is touched, if for a whole window or longer.
    idle_ns: Option<u64>,
    touched: Touched,
    /// Of each page, the number of the last window in which it was touched, and how it was.
    stamps: Vec<(u32, u8)>,
    number: u32,
    /// Windows that are to be shown.
    pub(super) ready: Vec<Block>,
}

impl Windows {
    pub(super) fn new(length_ns: u64) -> Self {
        Self {
            length_ns: length_ns.max(1),
            began_ns: 0,
            opened_ns: 0,
            fresh: true,
            idle_ns: None,
            touched: Touched::default(),
            stamps: vec![],
            number: 1,
            ready: vec![],
        }
    }

    /// The trace begins.
    pub(super) fn begin(&mut self, time_ns: u64) {
        (self.began_ns, self.opened_ns) = (time_ns, time_ns);
    }

    /// Takes an access. Tells whether it came too late for its window, and is in a later one.
    pub(super) fn take(&mut self, time_ns: u64, page: u32, new: bool, counts: Counts) -> bool {
        // What comes before the trace's beginning happened while it began.
        if self.fresh && time_ns < self.began_ns {
            self.begin(time_ns);
        }
        self.fresh = false;
        self.advance(time_ns);
        self.end_idleness();
        let index = page as usize;
        if index >= self.stamps.len() {
            self.stamps.resize(index + 1, (0, 0));
        }
        let stamp = &mut self.stamps[index];
        if stamp.0 != self.number {
            *stamp = (self.number, 0);
            self.touched.pages += 1;
        }
        if counts.reads > 0 && stamp.1 & READ == 0 {
            stamp.1 |= READ;
            self.touched.read += 1;
        }
        if counts.writes > 0 && stamp.1 & WRITTEN == 0 {
            stamp.1 |= WRITTEN;
            self.touched.written += 1;
        }
        self.touched.new += u64::from(new);
        self.touched.counts += counts;
        time_ns < self.opened_ns
    }

    /// Closes the windows that have ended by now.
    pub(super) fn advance(&mut self, time_ns: u64) {
        let ended = time_ns.saturating_sub(self.opened_ns) / self.length_ns;
        if ended == 0 {
            return;
        }
        self.fresh = false;
        let mut empty_from = self.opened_ns;
        if self.touched.counts.accesses > 0 {
            self.close(self.length_ns);
            empty_from += self.length_ns;
        }
        self.opened_ns += ended * self.length_ns;
        if empty_from < self.opened_ns {
            self.idle_ns.get_or_insert(empty_from);
        }
    }

    /// Closes the last window, which may be a short one.
    pub(super) fn end(&mut self, time_ns: u64) {
        self.advance(time_ns);
        if self.touched.counts.accesses > 0 {
            self.close(time_ns.saturating_sub(self.opened_ns));
        } else {
            self.idle_ns.get_or_insert(self.opened_ns);
            self.opened_ns = self.opened_ns.max(time_ns);
            self.end_idleness();
        }
    }

    fn close(&mut self, span_ns: u64) {
        let touched = std::mem::take(&mut self.touched);
        self.number = self.number.wrapping_add(1);
        self.show(&touched, self.opened_ns, span_ns);
    }

    /// A stretch in which nothing was touched is one row, however long.
    fn end_idleness(&mut self) {
        if let Some(from) = self.idle_ns.take()
            && self.opened_ns > from
        {
            self.show(&Touched::default(), from, self.opened_ns - from);
        }
    }

    fn show(&mut self, touched: &Touched, from_ns: u64, span_ns: u64) {
        let rows = vec![touched.record(from_ns - self.began_ns, span_ns)];
        self.ready.push(Block::new(&WORKING_SET, from_ns + span_ns, rows));
    }

    /// From the trace's beginning to this moment.
    pub(super) fn since_began(&self, time_ns: u64) -> u64 {
        time_ns.saturating_sub(self.began_ns)
    }
}
