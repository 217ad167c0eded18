//! What was written comes back; what is damaged is said, and the rest comes back.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;

use trapline_model::{
    Block, Columns as _, Event, Facts, Header, Item, KEPT, Kind, Part, Record, Schema, Sink, Source, TABLES,
    Type, Value, recorded,
};

use super::*;

/// A record whose values tell their places, and which are as bad as they can be.
fn record(schema: &'static Schema, row: u64) -> Record {
    let value = |(at, field): (u64, &trapline_model::Field)| match (field.ty, (at + row) % 5) {
        (Type::U64, 0) if field.kind != Kind::Key => Value::Null,
        (Type::U64, 1) => u64::MAX.into(),
        (Type::U64, n) => (n * 1_000_003 + row).into(),
        (Type::I64, n) => (n as i64 - 2).into(),
        (Type::Bool, 0) | (Type::Str, 0) | (Type::Hist, 0) => Value::Null,
        (Type::Bool, n) => (n > 1).into(),
        (Type::Str, 1) => "".into(),
        (Type::Str, _) => format!("a;\"b\\\n\u{1b}[2J\u{202e}{row}").into(),
        (Type::Hist, 1) => Value::from(vec![]),
        (Type::Hist, n) => vec![(0, Some(1), 3), (4, Some(7), n), (7 << 30, None, row + 1)].into(),
    };
    Record::new(schema, (0..).zip(schema.iter()).map(value).collect())
}

/// The same with a single interval, for what is read again and again.
fn few_items() -> Vec<Item> {
    let mut items = items("sgx");
    let tick = items.iter().position(|item| matches!(item, Item::Tick(_))).unwrap();
    let totals = items.iter().position(|item| matches!(item, Item::Totals(_))).unwrap();
    items.drain(tick + 1..totals);
    items
}

/// A run of a tool with intervals, events and facts in all its tables.
fn items(tool: &'static str) -> Vec<Item> {
    let tables = recorded::tables(tool, Part::Rows);
    let settings = recorded::tables(tool, Part::Settings);
    let settings: Vec<Record> = settings.into_iter().map(|table| record(table, 3)).collect();
    let header = Header {
        tool: tool.into(),
        variant: "x".into(),
        version: "0".into(),
        host: "h\u{1b}".into(),
        kernel: "k".into(),
        start_unix_ns: 1_700_000_000_123_456_789,
        start_ns: 1_000_000_000,
        tables: tables.clone(),
        events: tables.first().copied(),
        settings: settings.into_iter().filter(|record| !record.schema().id().contains("summary")).collect(),
    };
    let facts = |n| {
        let more = recorded::tables(tool, Part::Facts).into_iter().map(|table| record(table, n)).collect();
        Facts { duration_ns: n, events: 5, lost_events: 1, sampled: 8, own_cpu_ns: Some(77), more }
    };
    let mut items = vec![Item::Header(header)];
    for time in 1..5 {
        let time_ns = 1_000_000_000 + time;
        for table in &tables {
            let event = |n| Event { time_ns: time_ns + n, record: record(*table, n) };
            // What these say is checked.
            if tool != "access" {
                items.push(Item::Events((0..time * 3).map(event).collect()));
            }
            let rows = (0..time - 1).map(|row| record(*table, row)).collect();
            let sum = (time % 2 == 0).then(|| record(*table, 9));
            items.push(Item::Rows(Block {
                sum,
                hidden: 3,
                since_ns: Some(time),
                ..Block::new(*table, time_ns, rows)
            }));
        }
        items.push(Item::Facts(facts(time)));
        items.push(Item::Tick(time_ns));
    }
    for table in tables {
        items.push(Item::Totals(Block::new(table, 7, vec![record(table, 1), record(table, 2)])));
    }
    items.push(Item::End(Facts { events: 0, more: vec![], ..facts(9) }));
    items
}

/// A folder in memory, if there is one: parts are written through to the disk.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Writes these items, and what was taken at each tick.
fn write(folder: &Path, items: &[Item], kept: Kept) {
    fs::create_dir(folder).unwrap();
    let mut recorder = Recorder::new(OwnedFd::from(File::open(folder).unwrap()), kept);
    for item in items {
        recorder.take(item).unwrap();
        if matches!(item, Item::Tick(_)) {
            recorder.settle();
        }
    }
}

/// What is read, and what is said at the end.
fn read(folder: &Path) -> (Vec<Item>, Option<String>) {
    let mut items = Vec::new();
    let mut recording = match FolderRecording::open(folder, "x", None) {
        Ok(recording) => recording,
        Err(error) => return (items, Some(error.to_string())),
    };
    loop {
        match recording.next() {
            Ok(Some(item)) => items.push(item),
            Ok(None) => return (items, None),
            Err(error) => {
                assert!(matches!(recording.next(), Ok(None)), "nothing comes after an error");
                return (items, Some(error.to_string()));
            }
        }
    }
}

#[test]
fn every_item_of_every_tool_comes_back() {
    let folder = folder();
    let tools: HashSet<&str> = TABLES.iter().map(|table| table.tool()).collect();
    for tool in tools.into_iter().filter(|tool| !["trapline", "doctor", "diff", "prefetch"].contains(tool)) {
        let (items, path) = (items(tool), folder.path().join(tool));
        write(&path, &items, Kept::All);
        let (read, error) = read(&path);
        assert_eq!(error, None, "{tool}");
        assert_eq!(read.len(), items.len(), "{tool}");
        for (read, item) in read.iter().zip(&items) {
            assert_eq!(read, item, "{tool}");
        }
    }
}

/// Whether each of these items is one of the run, in its order: nothing is made up.
fn are_of(read: &[Item], items: &[Item]) -> bool {
    // What was discarded of the run, the recording alone knows.
    let without_kept = |item: &Item| match item {
        Item::Header(header) => {
            let mut header = header.clone();
            header.settings.retain(|record| record.schema().id() != KEPT.id());
            Item::Header(header)
        }
        item => item.clone(),
    };
    let mut rest = items.iter().map(without_kept);
    read.iter().map(without_kept).all(|item| matches!(item, Item::End(_)) || rest.any(|other| other == item))
}

/// What the header says was kept.
fn kept(items: &[Item]) -> Option<(u64, u64)> {
    let Some(Item::Header(header)) = items.first() else { return None };
    header.kept().and_then(|kept| Some((kept.since_ns()?, kept.time_ns()?)))
}

#[test]
fn what_is_intact_is_read_and_what_is_not_is_said() {
    let folder = folder();
    // Two writes, of which the second has the totals.
    let (whole, path) = (few_items(), folder.path().join("x"));
    write(&path, &whole, Kept::All);
    let files: Vec<_> = fs::read_dir(&path).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() > 8, "{files:?}");
    let mut tried = 0;
    for (n, file) in files.iter().enumerate() {
        let content = fs::read(file).unwrap();
        let mut check = |changed: Option<&[u8]>, what: &str| {
            match changed {
                Some(changed) => fs::write(file, changed).unwrap(),
                None => fs::remove_file(file).unwrap(),
            }
            let (items, error) = read(&path);
            assert!(error.is_some(), "{} is {what}, and nobody says it", file.display());
            assert!(are_of(&items, &whole), "{} is {what}: {items:?}", file.display());
            let name = file.file_name().unwrap().to_str().unwrap();
            if !name.starts_with("header") && !name.starts_with("items") && !name.starts_with("parts") {
                assert!(items.len() + 4 > whole.len(), "{name} is {what}: {} items are left", items.len());
            }
            tried += 1;
        };
        check(None, "missing");
        check(Some(b""), "empty");
        for at in (n % 499..content.len()).step_by(499) {
            check(Some(&content[..at]), "truncated");
            let mut flipped = content.clone();
            flipped[at] ^= 1 << (at % 8);
            check(Some(&flipped), "flipped");
        }
        fs::write(file, content).unwrap();
    }
    assert!(tried > 60, "{tried}");
    assert_eq!(read(&path).1, None);
}

#[test]
fn each_moment_of_writing_is_a_recording() {
    let folder = folder();
    let (whole, path) = (items("kvm"), folder.path().join("x"));
    fs::create_dir(&path).unwrap();
    assert!(read(&path).1.unwrap().contains("the folder is empty"));
    let mut recorder = Recorder::new(OwnedFd::from(File::open(&path).unwrap()), Kept::All);
    let mut seen = 0;
    for item in &whole {
        recorder.take(item).unwrap();
        if matches!(item, Item::Tick(_)) {
            recorder.settle();
            let (items, error) = read(&path);
            assert!(
                error.as_deref().is_some_and(|error| error.contains("cut off at 2023-11-14T22:13:20.123456")),
                "{error:?}"
            );
            assert!(items.len() > seen && are_of(&items, &whole));
            // The losses known last are there, and marked as such.
            let Some(Item::End(facts)) = items.last() else { panic!("{items:?}") };
            assert_eq!((facts.lost_events, facts.value("cut_off")), (1, Some(&true.into())));
            // A copy is cut off, too.
            let copied = folder.path().join(format!("copy-{seen}"));
            write(&copied, &items, Kept::All);
            assert!(read(&copied).1.is_some_and(|error| error.contains("cut off")));
            seen = items.len();
        }
    }
    assert_eq!(read(&path), (whole, None));
}

#[test]
fn a_part_of_another_program_is_refused() {
    let folder = folder();
    let (whole, path) = (few_items(), folder.path().join("x"));
    write(&path, &whole, Kept::All);
    let mut single = Vec::new();
    let mut sink = SingleTable::new(&mut single, recorded::tables("sgx", Part::Rows)[0]);
    whole.iter().for_each(|item| sink.take(item).unwrap());
    drop(sink);
    let manifest = manifest::name(1);
    let mut parts = manifest::Manifest::read(&fs::read(path.join(&manifest)).unwrap()).unwrap();
    assert!(single.starts_with(b"PAR1") && single.ends_with(b"PAR1"));
    for content in [b"PAR1PAR1".as_slice(), b"{}", &single] {
        for at in 0..parts.parts.len() {
            let name = parts.parts[at].name.clone();
            let before = fs::read(path.join(&name)).unwrap();
            fs::write(path.join(&name), content).unwrap();
            parts.parts[at] = manifest::Part::new(name.clone(), content);
            fs::write(path.join(&manifest), seal(&parts.write())).unwrap();
            let (items, error) = read(&path);
            assert!(error.is_some_and(|error| error.contains(&name)) && are_of(&items, &whole));
            parts.parts[at] = manifest::Part::new(name.clone(), &before);
            fs::write(path.join(&name), before).unwrap();
        }
    }
}

/// Another program that rewrites a file compresses it as it likes: the message has its name and the codec.
#[test]
fn a_part_that_is_compressed_otherwise_is_named() {
    use parquet::basic::Compression;
    use parquet::file::metadata::{
        FileMetaData, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter,
    };
    let folder = folder();
    let (whole, path) = (few_items(), folder.path().join("x"));
    write(&path, &whole, Kept::All);
    let manifest = manifest::name(1);
    let mut parts = manifest::Manifest::read(&fs::read(path.join(&manifest)).unwrap()).unwrap();
    let name = parts.parts[0].name.clone();
    // The same, but that its footer is by another program and has another codec.
    let before = fs::read(path.join(&name)).unwrap();
    let own = ParquetMetaDataReader::new().parse_and_finish(&bytes::Bytes::from(before.clone())).unwrap();
    let of = own.file_metadata();
    let by = FileMetaData::new(
        of.version(),
        of.num_rows(),
        Some("parquet-cpp-arrow version 21".into()),
        of.key_value_metadata().cloned(),
        of.schema_descr_ptr(),
        None,
    );
    let row_groups = own.row_groups().iter().map(|group| {
        let columns = group.columns().iter().map(|column| {
            column.clone().into_builder().set_compression(Compression::SNAPPY).build().unwrap()
        });
        group.clone().into_builder().set_column_metadata(columns.collect()).build().unwrap()
    });
    let other = ParquetMetaData::new(by, row_groups.collect());
    let footer = u32::from_le_bytes(*before[..before.len() - 4].last_chunk().unwrap()) as usize;
    let mut rewritten = before[..before.len() - 8 - footer].to_vec();
    ParquetMetaDataWriter::new(&mut rewritten, &other).finish().unwrap();
    let named = |error: Option<String>| {
        let error = error.unwrap();
        for word in [&name, "parquet-cpp-arrow version 21", "SNAPPY", "compressed with zstd"] {
            assert!(error.contains(word), "{word}: {error}");
        }
    };
    fs::write(path.join(&name), &rewritten).unwrap();
    let (items, error) = read(&path);
    assert!(are_of(&items, &whole));
    named(error);
    // Also if it is listed as it is now.
    parts.parts[0] = manifest::Part::new(name.clone(), &rewritten);
    fs::write(path.join(&manifest), seal(&parts.write())).unwrap();
    named(read(&path).1);
}

/// What a later version wrote is said to be of one; what this one knows of it is read.
#[test]
fn a_newer_schema_is_said() {
    let folder = folder();
    let (whole, path) = (few_items(), folder.path().join("x"));
    write(&path, &whole, Kept::All);
    let newer = |name: &str| {
        let before = fs::read(path.join(name)).unwrap();
        let line = String::from_utf8(before.clone()).unwrap();
        let (object, _) = line.rsplit_once(SEAL).unwrap();
        let at = object.find("\"schema\":").unwrap() + "\"schema\":".len();
        let changed = format!("{}9{}}}\n", &object[..at], &object[at + 1..]);
        fs::write(path.join(name), seal(&changed)).unwrap();
        let (items, error) = read(&path);
        fs::write(path.join(name), before).unwrap();
        (items, error.unwrap())
    };
    let (items, error) = newer(HEADER);
    assert!(items.is_empty() && error.contains("schema 9"), "{error}");
    let (items, error) = newer(&manifest::name(1));
    assert!(are_of(&items, &whole) && error.contains("schema 9"), "{error}");
    // A table that this version does not have is named, and the others are read.
    let file = fs::read_dir(&path).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let file =
        file.into_iter().find(|name| name.starts_with("events-sgx") && name.ends_with("1.parquet")).unwrap();
    let (known, later) = (path.join(&file), file.replace("events-sgx", "events-sgx.later"));
    fs::rename(known, path.join(&later)).unwrap();
    let name = path.join(manifest::name(1));
    let changed = fs::read_to_string(&name).unwrap().replace(&file, &later);
    fs::write(name, seal(&format!("{}}}", changed.rsplit_once(SEAL).unwrap().0))).unwrap();
    let (items, error) = read(&path);
    assert!(are_of(&items, &whole) && items.len() > 4, "{}", items.len());
    assert!(error.unwrap().contains("this version has no table"));
}

/// Parts that are not kept are no damage, and what is kept is read.
#[test]
fn the_last_parts_are_kept() {
    let folder = folder();
    let (whole, path) = (items("kvm"), folder.path().join("x"));
    write(&path, &whole, Kept::Bytes(1));
    let (items, error) = read(&path);
    assert_eq!(error, None);
    assert!(items.len() > 2 && items.len() < whole.len() / 2 && are_of(&items, &whole), "{}", items.len());
    assert_eq!(items.last(), whole.last());
    let Some(Item::Totals(totals)) = items.iter().find(|item| matches!(item, Item::Totals(_))) else {
        panic!()
    };
    assert_eq!(kept(&items), Some((totals.time_ns, 0)));
}

/// What was recorded around a message stays, and is read in its order; what lies between is no damage. What is missing of it is.
#[test]
fn what_is_around_a_message_is_kept() {
    let folder = folder();
    let whole = items("kvm");
    let message =
        recorded::tables("faults", Part::Rows).into_iter().find(|table| table.id() == "faults.step");
    let message = Item::Events(vec![Event { time_ns: 1, record: record(message.unwrap(), 3) }]);
    let Item::Events(events) = &message else { panic!() };
    let table = events[0].record.schema();
    // Gives the writes that are left, and the remark.
    let record = |path: &Path, is_sent: fn(u64) -> bool| {
        fs::create_dir(path).unwrap();
        let dir = OwnedFd::from(File::open(path).unwrap());
        let mut recorder = Recorder::new(dir, Kept::Bytes(1)).keeping_on(Some(table));
        let mut interval = 1;
        for item in &whole {
            if matches!(item, Item::Facts(_)) && is_sent(interval) {
                recorder.take(&message).unwrap();
            }
            recorder.take(item).unwrap();
            if matches!(item, Item::Tick(_)) {
                recorder.settle();
                interval += 1;
            }
        }
        let files = fs::read_dir(path).unwrap().map(|file| file.unwrap().file_name());
        let mut writes: Vec<u64> = files.filter_map(|name| manifest::number(name.to_str()?)).collect();
        writes.sort_unstable();
        (writes, recorder.remark())
    };
    let [none, one, all] = ["none", "one", "all"].map(|name| folder.path().join(name));
    assert_eq!(record(&none, |_| false), (vec![5], None));
    assert_eq!(record(&one, |interval| interval == 2), (vec![1, 2, 3, 5], None));
    let (writes, remark) = record(&all, |_| true);
    assert_eq!(writes, [2, 3, 4, 5]);
    assert!(remark.unwrap().contains("around 1 of 4 messages"));
    let (items, error) = read(&one);
    assert_eq!(error, None);
    let ticks = |items: &[Item]| {
        let time =
            |item: &Item| if let Item::Tick(time_ns) = item { Some(time_ns - 1_000_000_000) } else { None };
        items.iter().filter_map(time).collect::<Vec<_>>()
    };
    assert!(are_of(&items, &whole) && items.last() == whole.last());
    assert_eq!(ticks(&items), [1, 2, 3]);
    // Three writes that follow each other, and the last, whose time is that of the totals alone.
    let Some(Item::Totals(totals)) = items.iter().find(|item| matches!(item, Item::Totals(_))) else {
        panic!()
    };
    assert_eq!(kept(&items), Some((totals.time_ns, 2)));
    fs::remove_file(one.join(manifest::name(2))).unwrap();
    let (items, error) = read(&one);
    assert!(are_of(&items, &whole) && error.unwrap().contains("parts-000002.json is missing"));
    assert_eq!(ticks(&items), [1, 3]);
}
