//! Faults of a live run, which come in columns: a record for each would cost more than all else that is done with it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use super::faults::Evidence;
use super::seen::{NUMBERS, Places, Seen, TEXTS};
use crate::batch::{Batch, BatchSink, Plain};

/// Takes faults for [`Explain`](super::Explain), which has them without being given their events.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    pub(super) evidence: Rc<RefCell<Evidence>>,
    numbers: [Vec<Option<u64>>; NUMBERS],
    texts: [Vec<Option<u32>>; TEXTS],
    words: Words,
}

impl BatchSink for Columns {
    fn take(&mut self, faults: &dyn Batch) -> io::Result<()> {
        let (places, rows) = (Places::new(faults.table()), 0..faults.len());
        for (column, at) in self.numbers.iter_mut().zip(places.numbers) {
            column.clear();
            if let Some(at) = at {
                faults.values(at, rows.clone(), &mut |value| {
                    column.push(if let Plain::U64(n) = value { Some(n) } else { None });
                });
            }
            column.resize(rows.len(), None);
        }
        self.words.clear();
        for (column, at) in self.texts.iter_mut().zip(places.texts) {
            column.clear();
            let words = &mut self.words;
            if let Some(at) = at {
                faults.values(at, rows.clone(), &mut |value| {
                    column.push(if let Plain::Str(text) = value { Some(words.place(text)) } else { None });
                });
            }
            column.resize(rows.len(), None);
        }
        let mut evidence = self.evidence.borrow_mut();
        for row in rows {
            let mut seen = Seen::default();
            let (numbers, texts) = seen.places();
            for ((_, number), column) in numbers.into_iter().zip(&self.numbers) {
                *number = column[row];
            }
            for ((_, text), column) in texts.into_iter().zip(&self.texts) {
                *text = column[row].map(|place| &*self.words.all[place as usize]);
            }
            evidence.add(&seen);
        }
        Ok(())
    }
}

/// The different texts of a batch.
#[derive(Debug, Clone, Default)]
struct Words {
    places: HashMap<Rc<str>, u32>,
    all: Vec<Rc<str>>,
    /// The place of the last one: most are followed by the same.
    last: usize,
}

impl Words {
    fn place(&mut self, text: &str) -> u32 {
        if self.all.get(self.last).is_none_or(|last| **last != *text) {
            self.last = match self.places.get(text) {
                Some(place) => *place as usize,
                None => {
                    let word: Rc<str> = text.into();
                    self.places.insert(Rc::clone(&word), self.all.len() as u32);
                    self.all.push(word);
                    self.all.len() - 1
                }
            };
        }
        self.last as u32
    }

    fn clear(&mut self) {
        self.places.clear();
        self.all.clear();
        self.last = 0;
    }
}
