use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use super::*;

/// A file that perf 6.1 wrote.
fn seed(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/perf_data");
    std::fs::read(folder.join(name)).unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<Item>, RecordingError> {
    let mut faults = PerfData::open(Cursor::new(bytes), "x", None, 5_000_000_000)?;
    let mut items = vec![];
    while let Some(item) = faults.next()? {
        items.push(item);
    }
    Ok(items)
}

/// The kinds of the events with their number; the totals; the end.
fn summed(items: &[Item]) -> (BTreeMap<String, u64>, Vec<Record>, Facts) {
    let (mut kinds, mut totals, mut last) = (BTreeMap::new(), vec![], Facts::default());
    for item in items {
        match item {
            Item::Events(events) => events.iter().for_each(|event| {
                *kinds.entry(format!("{:?}", event.record.get("kind").unwrap())).or_default() += 1;
            }),
            Item::Totals(block) => totals.extend(block.sum.iter().chain(&block.rows).cloned()),
            Item::End(end) => last = end.clone(),
            _ => {}
        }
    }
    (kinds, totals, last)
}

/// `perf script` prints 50 lines for the file, all of `minor-faults`.
#[test]
fn events_and_rows_are_those_that_perf_shows() {
    let items = read(&seed("kinds")).unwrap();
    let Item::Header(header) = &items[0] else { panic!("{items:?}") };
    assert_eq!((header.variant.as_ref(), header.host.as_str()), ("perf", "vm"));
    assert!(header.version.starts_with("6.1.") && header.kernel.starts_with("6.18."), "{header:?}");
    let (kinds, totals, end) = summed(&items);
    let minor = kinds["Str(\"minor\")"];
    assert_eq!((minor, kinds.len(), end.events, end.sampled), (MINOR, 1, MINOR, 1));
    let figures = |row: &Record| ["major", "minor", "total_ns"].map(|field| row.number(field));
    assert_eq!(totals.iter().map(figures).collect::<Vec<_>>(), [[Some(0), Some(MINOR), None]; 2]);
    assert_eq!(totals[1].get("comm"), Some(&"true".into()));
    assert!(totals[1].number("pid").is_some_and(|pid| totals[1].number("tid") == Some(pid)));
    let Some(Item::Events(events)) = items.get(1) else { panic!("{items:?}") };
    assert!(events.iter().all(|event| event.record.number("addr").is_some()));
    assert_eq!(
        (header.start_ns, header.start_unix_ns),
        (events[0].time_ns, 5_000_000_000 - end.duration_ns.cast_signed())
    );
}

const MINOR: u64 = 50;

/// An exception and the accounting of its fault are one event.
#[test]
fn what_the_kernel_reports_twice_is_one_fault() {
    let (kinds, totals, end) = summed(&read(&seed("all")).unwrap());
    assert_eq!(kinds.values().sum::<u64>(), end.events);
    let minor = kinds["Str(\"minor\")"];
    assert_eq!(totals[0].number("minor"), Some(minor));
    // Faults inside the kernel on the thread's behalf have no exception; those that end in a signal, no accounting.
    assert!(minor == 49 && kinds.get("Null").copied().unwrap_or(0) < 5, "{kinds:?}");
}

/// Exceptions have their access; the kernel does not account for each.
#[test]
fn exceptions_have_addresses_and_accesses() {
    let items = read(&seed("exceptions")).unwrap();
    let (kinds, _, end) = summed(&items);
    assert_eq!(kinds, BTreeMap::from([("Null".to_owned(), end.events)]));
    let events =
        items.iter().find_map(|item| if let Item::Events(events) = item { Some(events) } else { None });
    let first = &events.unwrap()[0].record;
    // As `perf script` prints it: address=0x7f8452d4ab70 ip=0x7f8452d4ab70 error_code=0x14.
    assert_eq!(first.get("rw"), Some(&"X".into()));
    assert_eq!(["addr", "ip"].map(|field| first.number(field)), [Some(0x7f84_52d4_ab70); 2]);
    assert_eq!((end.events, events.unwrap()[1].record.get("rw")), (47, Some(&"W".into())));
}

/// Without their kind, faults are in no figure of a row: what is not known is not 0.
#[test]
fn kinds_that_perf_did_not_record_are_unknown() {
    let (kinds, totals, end) = summed(&read(&seed("sampled")).unwrap());
    assert_eq!(kinds.keys().collect::<Vec<_>>(), ["Null"]);
    assert_eq!(
        ["major", "minor"].map(|field| totals[0].get(field).cloned()),
        [Some(Value::Null), Some(Value::Null)]
    );
    assert!(end.sampled > 1, "{end:?}");
}

/// What was not recorded would be 0 in other rows.
#[test]
fn only_single_faults_of_known_kinds_are_grouped() {
    let why = |name: &str| PerfData::open(Cursor::new(seed(name)), "x", None, 0).unwrap().ungroupable();
    assert_eq!((why("kinds"), why("all")), (None, None));
    assert_eq!(why("exceptions"), Some("it does not have both major-faults and minor-faults"));
    assert!(why("sampled").is_some());
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    for name in ["kinds", "sampled"] {
        let bytes = seed(name);
        for length in 0..bytes.len() {
            let error = read(&bytes[..length]).unwrap_err().to_string();
            assert!(error.starts_with("cannot read x: it is "), "{name} {length}: {error}");
        }
    }
}

/// What is written with `perf record -z`, to a pipe, or by a perf that was killed.
#[test]
fn what_cannot_be_read_is_named() {
    let bytes = seed("kinds");
    let changed = |at: usize, with: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        read(&bytes).unwrap_err().to_string()
    };
    assert!(changed(0, b"PERFFILE").contains("no perf.data file"));
    assert!(changed(8, &16u64.to_le_bytes()).contains("perf wrote it to a pipe"));
    assert!(changed(48, &0u64.to_le_bytes()).contains("still recording"));
    let data = usize::try_from(u64::from_le_bytes(*bytes[40..].first_chunk().unwrap())).unwrap();
    assert!(changed(data, &81u32.to_le_bytes()).contains("record without -z"));
    assert!(changed(data, &71u32.to_le_bytes()).contains("branches"));
    let other = PerfData::open(Cursor::new(&bytes), "x", Some("access"), 0).unwrap_err().to_string();
    assert!(other.contains("page faults by perf, not of `access`"), "{other}");
}
