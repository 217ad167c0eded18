//! Stages: sources over sources, which know tables and no tool.

use crate::item::{Item, Source};

/// Sorts the rows of each block by a column, if there is one; else they stay as they come.
#[derive(Debug)]
pub struct Sort<S> {
    source: S,
    column: Option<usize>,
}

impl<S: Source> Sort<S> {
    /// By the column at this place of the table: larger numbers first, texts in alphabetical order, the unknown last.
    pub fn new(source: S, column: Option<usize>) -> Self {
        Self { source, column }
    }
}

impl<S: Source> Source for Sort<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        let mut item = self.source.next()?;
        if let (Some(Item::Rows(block) | Item::Totals(block)), Some(column)) = (&mut item, self.column) {
            block.sort(column);
        }
        Ok(item)
    }
}

/// Keeps the first rows of each block.
#[derive(Debug)]
pub struct Top<S> {
    source: S,
    most: Option<usize>,
}

impl<S: Source> Top<S> {
    /// At most this many, if there is a limit.
    pub fn new(source: S, most: Option<usize>) -> Self {
        Self { source, most }
    }
}

impl<S: Source> Source for Top<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        let mut item = self.source.next()?;
        if let (Some(Item::Rows(block) | Item::Totals(block)), Some(most)) = (&mut item, self.most) {
            block.cut(most);
        }
        Ok(item)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use super::*;
    use crate::faults::By;
    use crate::{Block, Record, Value};

    struct Given(VecDeque<Item>);

    impl Source for Given {
        type Error = Infallible;

        fn next(&mut self) -> Result<Option<Item>, Infallible> {
            Ok(self.0.pop_front())
        }
    }

    #[test]
    fn rows_and_totals_are_sorted_and_cut_and_nothing_else_is_changed() {
        let schema = By::Process.schema();
        let row = |pid: u64, minor: u64| {
            Record::named(schema, |name| match name {
                "pid" => pid.into(),
                "minor" => minor.into(),
                _ => Value::Null,
            })
        };
        let block = Block::new(schema, 5, vec![row(1, 7), row(2, 9), row(3, 7), row(4, 8)]);
        let items = [Item::Tick(4), Item::Rows(block.clone()), Item::Totals(block)];
        let by = schema.iter().position(|field| field.name == "minor");
        let mut source = Top::new(Sort::new(Given(items.into()), by), Some(3));
        assert_eq!(source.next(), Ok(Some(Item::Tick(4))));
        for _ in 0..2 {
            let Ok(Some(Item::Rows(block) | Item::Totals(block))) = source.next() else { panic!("no rows") };
            assert_eq!(block.rows, [row(2, 9), row(4, 8), row(1, 7)]);
            assert_eq!(block.hidden, 1);
        }
        assert_eq!(source.next(), Ok(None));
    }
}
