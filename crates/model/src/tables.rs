//! The registry: every table of every tool.

use std::sync::LazyLock;

use crate::table::Schema;
use crate::{access, diff, doctor, explain, faults, hosts, item, kvm, prefetch, sgx};

/// Every table of every tool. Ids are unique, and so are the names in a table.
pub static TABLES: LazyLock<Vec<&'static Schema>> = LazyLock::new(|| {
    let mut tables: Vec<&Schema> = faults::tables().collect();
    tables.extend(kvm::tables());
    tables.extend(sgx::tables());
    tables.extend(access::tables());
    tables.extend(diff::TABLES);
    tables.extend(prefetch::TABLES);
    tables.extend(explain::TABLES);
    tables.extend(doctor::TABLES);
    tables.extend(item::TABLES);
    tables.extend(hosts::tables());
    tables
});

/// The table of an id.
#[must_use]
pub fn table(id: &str) -> Option<&'static Schema> {
    TABLES.iter().find(|table| table.id() == id).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use super::*;
    use crate::item::lost;
    use crate::stage::Sum;
    use crate::{Block, Item, Kind, Record, Source, Type, Unit, Value};

    #[test]
    fn each_table_has_an_id_of_its_own_and_each_column_a_name() {
        let mut ids = HashSet::new();
        for table in TABLES.iter() {
            assert!(ids.insert(table.id()), "{table:?} is there twice");
            assert!(
                table.id().strip_prefix(table.tool()).is_some_and(|rest| rest.starts_with('.')),
                "{table:?}"
            );
            assert_eq!(super::table(table.id()), Some(*table));
            let mut names = HashSet::new();
            for field in table.iter() {
                assert!(names.insert(field.name), "{table:?} has two columns {}", field.name);
                let is_snake = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
                assert!(field.name.bytes().all(is_snake), "{table:?}: {}", field.name);
            }
            assert!(!names.is_empty(), "{table:?}");
        }
    }

    #[test]
    fn each_help_is_a_sentence_that_can_stand_alone() {
        for (table, field) in TABLES.iter().flat_map(|table| table.iter().map(move |field| (table, field))) {
            let help = field.help;
            let begins = help.starts_with(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit());
            assert!(begins && help.ends_with('.'), "{table:?}: {}: {help}", field.name);
            assert!(
                help.split(' ').count() >= 2 && !help.contains('\n'),
                "{table:?}: {}: {help}",
                field.name
            );
        }
    }

    /// Names are adjective and noun: what was lost, in the unit that is counted.
    #[test]
    fn each_loss_is_named_after_what_was_lost() {
        let losses = TABLES.iter().flat_map(|table| table.iter()).filter(|field| field.kind == Kind::Loss);
        for field in losses {
            assert!(field.name.contains('_') && field.name.ends_with('s'), "{field:?}");
            // One of them is a word, too: no other ending than these is in the names.
            let [one, many] = [1, 2].map(|n| lost(n, field.name)[2..].to_owned());
            let ends = ["access", "process"].iter().any(|word| one.ends_with(word));
            assert!(many == format!("{one}s") || ends && many == format!("{one}es"), "{one}, {many}");
            assert!(!["ie", "xe", "che", "she"].iter().any(|end| one.ends_with(end)), "{one}");
        }
    }

    #[test]
    fn each_sum_has_its_name_in_a_column_that_tables_show() {
        // A table without keys has one row, which is the sum.
        let with_keys = TABLES.iter().copied().filter(|table| !table.keys().is_empty());
        for (table, name) in with_keys.filter_map(|table| Some((table, table.total()?))) {
            let block = Block::new(table, 0, vec![Record::named(table, |_| Value::Null)]);
            let mut source = Sum::new(VecDeque::from([Item::Totals(block)]));
            let Ok(Some(Item::Totals(block))) = source.next() else { panic!("{table:?}") };
            let named = |record: &Record| record.values.contains(&Value::from(name));
            assert!(block.sum.as_ref().is_some_and(named), "{table:?}: {:?}", block.sum);
        }
    }

    #[test]
    fn names_types_and_units_agree() {
        for (table, field) in TABLES.iter().flat_map(|table| table.iter().map(move |field| (table, field))) {
            let what = format!("{table:?}: {field:?}");
            let is_ns = field.name.ends_with("_ns");
            assert_eq!(is_ns, field.unit == Unit::Nanoseconds && field.ty != Type::Hist, "{what}");
            assert!(!field.name.ends_with("_bytes") || field.unit == Unit::Bytes, "{what}");
            let counts = matches!(field.ty, Type::U64 | Type::I64 | Type::Hist);
            assert!(counts || field.unit == Unit::None, "{what}");
            assert!(counts || field.kind != Kind::Counter && field.kind != Kind::Gauge, "{what}");
            assert_eq!(field.ty == Type::Hist, field.name.ends_with("buckets"), "{what}");
        }
    }
}
