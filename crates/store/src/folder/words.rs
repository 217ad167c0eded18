//! A column of texts.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{StringBuilder, UInt32Builder};
use arrow_array::{ArrayRef, DictionaryArray};

/// Texts, of which many are the same: each is there once, and rows have its number.
#[derive(Default)]
pub(super) struct Words {
    keys: UInt32Builder,
    texts: StringBuilder,
    known: HashMap<Box<str>, u32>,
    /// Most rows have the text of the row before.
    last: Option<(Box<str>, u32)>,
}

impl Words {
    /// Appends one, and gives about how many bytes it took.
    pub(super) fn push(&mut self, text: &str) -> usize {
        if let Some((last, key)) = &self.last
            && **last == *text
        {
            self.keys.append_value(*key);
            return 8;
        }
        let known = self.known.get(text).copied();
        let key = known.unwrap_or(self.known.len() as u32);
        if known.is_none() {
            self.known.insert(text.into(), key);
            self.texts.append_value(text);
        }
        self.keys.append_value(key);
        self.last = Some((text.into(), key));
        if known.is_none() { 8 + 2 * text.len() } else { 8 }
    }

    /// Appends one that is not known.
    pub(super) fn push_null(&mut self) {
        self.keys.append_null();
    }

    /// The column; nothing is left.
    pub(super) fn finish(&mut self) -> ArrayRef {
        let (keys, texts) = (self.keys.finish(), Arc::new(self.texts.finish()));
        // Each key is the number of a text.
        Arc::new(DictionaryArray::new(keys, texts))
    }
}
