//! Faults in a part, column by column.

use std::rc::Rc;

use arrow_array::Array;
use trapline_model::Value;
use trapline_model::faults::Values;

use super::columns::Read;

/// The texts of each column that were read last: those of many batches are the same.
#[derive(Default)]
pub(super) struct Lists(Vec<Rc<[Rc<str>]>>);

impl Lists {
    fn of(&mut self, column: usize, texts: &[Value]) -> Rc<[Rc<str>]> {
        let text =
            |value: &Value| if let Value::Str(text) = value { Rc::from(&**text) } else { Rc::from("") };
        let is = |(own, value): (&Rc<str>, &Value)| matches!(value, Value::Str(text) if **text == **own);
        if self.0.len() <= column {
            self.0.resize_with(column + 1, || Rc::from([]));
        }
        let last = &mut self.0[column];
        if last.len() != texts.len() || !last.iter().zip(texts).all(is) {
            *last = texts.iter().map(text).collect();
        }
        Rc::clone(last)
    }

    /// The rows `from..to` of the column at this place.
    pub(super) fn values(&mut self, at: usize, column: Option<&Read>, from: usize, to: usize) -> Values {
        match column {
            Some(Read::U64(numbers)) if numbers.null_count() == 0 => {
                Values::Numbers(numbers.values()[from..to].iter().copied().map(Some).collect())
            }
            Some(Read::U64(numbers)) if numbers.null_count() < numbers.len() => {
                let number = |row| numbers.is_valid(row).then(|| numbers.value(row));
                Values::Numbers((from..to).map(number).collect())
            }
            Some(Read::Str(keys, texts)) if keys.null_count() < keys.len() => {
                let code = |row| keys.is_valid(row).then(|| keys.value(row));
                Values::Words((from..to).map(code).collect(), self.of(at, texts))
            }
            // Unknown, or of a type that faults have not.
            _ => Values::Unknown,
        }
    }
}
