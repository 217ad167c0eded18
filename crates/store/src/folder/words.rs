//! A column of texts.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow_array::builder::{StringBuilder, UInt32Builder};
use arrow_array::{ArrayRef, DictionaryArray};
use trapline_model::Value;

/// Texts, of which many are the same: each is there once, and rows have its number.
#[derive(Default)]
pub(super) struct Words {
    keys: UInt32Builder,
    texts: StringBuilder,
    known: HashMap<Box<str>, u32>,
    /// Most rows have the text of the row before.
    last: (String, Option<u32>),
}

impl Words {
    /// Appends one, and gives about how many bytes it took.
    pub(super) fn push(&mut self, text: &str) -> usize {
        let (last, key) = &mut self.last;
        if let Some(key) = key
            && last == text
        {
            self.keys.append_value(*key);
            return 8;
        }
        let known = self.known.get(text).copied();
        let number = known.unwrap_or(self.known.len() as u32);
        last.clear();
        last.push_str(text);
        *key = Some(number);
        self.keys.append_value(number);
        if known.is_some() {
            return 8;
        }
        self.known.insert(text.into(), number);
        self.texts.append_value(text);
        8 + 2 * text.len()
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

/// Texts that were read are held while the process lives, as long as all of them are not longer than this, bytes: millions of
/// rows have the same few.
const HELD: usize = 4 << 20;

/// The texts that are held, and how long they are.
static TEXTS: LazyLock<Mutex<(HashSet<&'static str>, usize)>> = LazyLock::new(Mutex::default);

/// A text that was read as a value, of which a copy costs nothing if it is held.
pub(super) fn held(text: &str) -> Value {
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let (known, bytes) = &mut *texts;
    if let Some(text) = known.get(text) {
        return Value::word(text);
    }
    if *bytes + text.len() > HELD {
        return text.into();
    }
    *bytes += text.len();
    let text: &'static str = Box::leak(text.into());
    known.insert(text);
    Value::word(text)
}
