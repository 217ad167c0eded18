use std::collections::VecDeque;

use super::*;
use crate::batch::BatchSink;
use crate::faults::{Cause, SPLIT_EVENT};
use crate::field::{Record, Value};
use crate::item::Event;

const SECOND: u64 = 1_000_000_000;

/// A fault of process 7 of 1 ms, of which so much was spent on the lock.
fn fault(cause: &str, kind: &str, file: &str, offset: u64, lock_ns: u64) -> Record {
    Record::named(SPLIT_EVENT, |name| match name {
        "pid" | "tid" => 7_u64.into(),
        "comm" => "worker".into(),
        "process_comm" => "db".into(),
        "kind" => kind.into(),
        "latency_ns" => 1_000_000_u64.into(),
        "cause" => cause.into(),
        "file" => file.into(),
        "offset" => offset.into(),
        "lock_ns" => lock_ns.into(),
        "io_ns" if kind == "major" => (1_000_000 - lock_ns).into(),
        "io_ns" | "sleep_ns" | "reclaim_ns" | "throttled_ns" | "preempted_ns" => 0_u64.into(),
        _ => Value::Null,
    })
}

/// The rules that apply to a run of ten seconds, and what is said of it.
fn explained(items: impl IntoIterator<Item = Item>) -> (Vec<String>, Facts) {
    let end = Item::End(Facts { duration_ns: 10 * SECOND, ..Facts::default() });
    let items: VecDeque<Item> = items.into_iter().chain([end]).collect();
    let mut explain = Explain::new(items);
    let (mut names, mut facts) = (vec![], Facts::default());
    while let Ok(Some(item)) = explain.next() {
        match item {
            Item::Totals(block) => names = block.rows.iter().map(|row| text(row, "rule")).collect(),
            Item::End(end) => facts = end,
            _ => {}
        }
    }
    (names, facts)
}

fn text(row: &Record, name: &str) -> String {
    row.text(name).unwrap_or_default().to_owned()
}

fn events(records: impl IntoIterator<Item = Record>) -> Item {
    Item::Events(records.into_iter().map(|record| Event { time_ns: 0, record }).collect())
}

fn reads(offset: impl Fn(u64) -> u64, count: u64) -> Vec<String> {
    let faults = (0..count).map(|n| fault("file-read", "major", "/data", offset(n), 0));
    explained([events(faults)]).0
}

#[test]
fn reads_in_order_scattered_reads_and_pages_that_come_back_are_told_apart() {
    assert_eq!(reads(|n| n * 131_072, 2000), ["sequential-reads"]);
    assert_eq!(reads(|n| n * 7_919 % 100_003 * 4096, 2000), ["random-reads"]);
    // Few reads of 40 ms each, as of a disk that reads megabytes ahead, are as much.
    let slow = (0..17).map(|n| {
        let mut read = fault("file-read", "major", "/data", (n * 40_503 % 97) << 20, 0);
        set(&mut read, "latency_ns", 40_000_000_u64);
        set(&mut read, "io_ns", 40_000_000_u64);
        read
    });
    assert_eq!(explained([events(slow)]).0, ["random-reads"]);
    assert_eq!(reads(|n| n % 500 * 7_919 % 100_003 * 4096, 2000), ["thrash"]);
}

/// Reads at scattered offsets of some files, each of 1 ms.
fn scattered(files: &'static [&str], change: impl Fn(u64, &mut Record)) -> Item {
    events((0..2000).map(|n| {
        let file = files[n as usize % files.len()];
        let mut read = fault("file-read", "major", file, n * 7_919 % 100_003 * 4096, 0);
        change(n, &mut read);
        read
    }))
}

#[test]
fn reads_that_nothing_waited_for_are_no_wait_for_the_disk() {
    let awake = |_: u64, read: &mut Record| set(read, "io_ns", 0_u64);
    for files in [&["/sparse"][..], &["/a", "/b", "/c"]] {
        assert_eq!(explained([on_mounts(""), scattered(files, awake)]).0, [""; 0]);
        assert_eq!(explained([on_mounts("nfs4 /"), scattered(files, awake)]).0, [""; 0]);
    }
    // The cost is what was waited, by the parts of the time or by all sleeps.
    let few = |n: u64, read: &mut Record| {
        set(read, "io_ns", if n.is_multiple_of(2) { 600_000_u64 } else { 0 });
        set(read, "sleep_ns", if n.is_multiple_of(2) { 100_000_u64 } else { 0 });
    };
    let without_parts = |n: u64, read: &mut Record| {
        few(n, read);
        ["io_ns", "sleep_ns"].into_iter().for_each(|part| set(read, part, Value::Null));
        set(read, "wait_ns", if n.is_multiple_of(2) { 700_000_u64 } else { 0 });
    };
    for faults in [scattered(&["/data"], few), scattered(&["/data"], without_parts)] {
        let finding = first([faults]);
        assert_eq!((finding.number("cost_ns"), finding.number("count")), (Some(700_000_000), Some(1000)));
        assert_eq!(text(&finding, "confidence"), "certain");
        let evidence = text(&finding, "evidence");
        assert!(evidence.contains("; 1,000 of them waited, 700 us each; "), "{evidence}");
    }
}

#[test]
fn waits_that_are_not_seen_are_not_certain() {
    let unseen = |_: u64, read: &mut Record| {
        ["io_ns", "sleep_ns", "wait_ns"].into_iter().for_each(|part| set(read, part, Value::Null));
    };
    for (files, mounts, rule) in [
        (&["/data"][..], "", "random-reads"),
        (&["/data"], "nfs4 /", "slow-file-system"),
        (&["/1", "/2", "/3", "/4", "/5", "/6"], "", "cold-files"),
    ] {
        let finding = first([on_mounts(mounts), scattered(files, unseen)]);
        assert_eq!([text(&finding, "rule"), text(&finding, "confidence")], [rule, "likely"]);
        let evidence = text(&finding, "evidence");
        assert!(evidence.contains("; how much of that was spent waiting is not known"), "{evidence}");
    }
}

#[test]
fn pages_that_come_back_cost_what_their_later_reads_cost_wherever_they_come_from() {
    let faults = |io_ns: u64| {
        events((0..2000).map(move |n| {
            let mut read = fault("file-read", "major", "/data", n % 500 * 7_919 % 100_003 * 4096, 0);
            set(&mut read, "io_ns", io_ns);
            read
        }))
    };
    for io_ns in [0, 900_000] {
        let finding = first([faults(io_ns)]);
        assert_eq!(text(&finding, "finding"), "db (7) reads pages of /data again and again: 1.5 s");
        let evidence = text(&finding, "evidence");
        assert!(
            evidence.starts_with("1,500 of 2,000 reads ") && evidence.ends_with("1.0 ms each"),
            "{evidence}"
        );
    }
}

#[test]
fn what_costs_little_is_no_finding() {
    // 4 % of the time; 99 faults.
    assert_eq!(reads(|n| n * 7_919 % 100_003 * 4096, 400), [""; 0]);
    let (found, facts) = explained([events((0..99).map(|_| fault("numa-hint", "minor", "anon", 0, 0)))]);
    assert_eq!(found, [""; 0]);
    assert_eq!((facts.get("judged_events"), facts.get("findings")), (Some(99), Some(0)));
}

#[test]
fn each_cause_has_its_rule_and_no_other() {
    for (cause, rule) in [
        ("swap-in", "swap-in"),
        ("zero-fill", "first-touch"),
        ("huge-page", "huge-page-clearing"),
        ("shmem", "shared-memory"),
        ("copy-on-write", "copy-on-write"),
        ("numa-hint", "numa-hints"),
        ("userfaultfd", "userfaultfd"),
        ("write-notify", "write-notify"),
    ] {
        let faults = (0..2000).map(|_| fault(cause, "minor", "anon", 0, 0));
        assert_eq!(explained([events(faults)]).0, [rule], "{cause}");
    }
    let faults = (0..2000).map(|_| fault("file-map", "minor", "/data", 0, 0));
    assert_eq!(explained([events(faults)]).0, [""; 0]);
}

/// The header of a run on a machine with these mounts.
fn on_mounts(served: &str) -> Item {
    let settings = crate::faults::Settings { served_mounts: Some(served.into()), ..Default::default() };
    Item::Header(Header {
        tool: "faults".into(),
        events: Some(SPLIT_EVENT),
        settings: vec![crate::faults::SETTINGS.record(&settings)],
        ..Header::default()
    })
}

#[test]
fn reads_of_a_served_file_are_about_its_file_system_alone() {
    let on = |file: &'static str| {
        let faults = (0..2000).map(|n| fault("file-read", "major", file, n * 7_919 % 100_003 * 4096, 0));
        let items = [on_mounts("nfs4 /srv\nfuse.sshfs /srv/a b"), events(faults)];
        assert_eq!(explained(items.clone()).1.value("not_judged"), Some(&Value::Null));
        (explained(items.clone()).0, text(&first(items), "evidence"))
    };
    let (found, evidence) = on("/srv/a b/data");
    assert_eq!(found, ["slow-file-system"]);
    assert!(evidence.ends_with("; fuse.sshfs is mounted at /srv/a b"), "{evidence}");
    assert!(on("/srv/data").1.ends_with("; nfs4 is mounted at /srv"));
    assert_eq!(on("/srv2/data").0, ["random-reads"]);
}

#[test]
fn reads_of_many_files_are_one_finding() {
    const FILES: [&str; 4] = ["/a", "/b", "/c", "/d"];
    let reads = |pid: fn(u64) -> u64, files: usize, each: u64| {
        let faults = (0..each * files as u64).map(move |n| {
            let mut read = fault("file-read", "major", FILES[n as usize % files], n << 20, 0);
            read.values[SPLIT_EVENT.position("pid").unwrap()] = pid(n).into();
            read
        });
        [on_mounts(""), events(faults)]
    };
    // None of them is 5 % of the duration.
    assert_eq!(explained(reads(|_| 7, 4, 400)).0, ["cold-files"]);
    let finding = first(reads(|_| 7, 4, 400));
    assert_eq!(text(&finding, "finding"), "db (7) waits for the disk at pages of 4 files: 1.6 s");
    assert_eq!(
        text(&finding, "evidence"),
        "1,600 faults read pages or waited for them, 1.0 ms each; 25 % of the time in /d"
    );
    // One file is not several, and what has a finding is not in another.
    assert_eq!(explained(reads(|_| 7, 1, 400)).0, [""; 0]);
    assert_eq!(explained(reads(|_| 7, 2, 2000)).0, ["random-reads"; 2]);
    // Of several processes of one name.
    let finding = first(reads(|n| 100 + n % 8, 4, 400));
    assert_eq!(text(&finding, "finding"), "db (8 processes) waits for the disk at pages of 4 files: 1.6 s");
}

#[test]
fn waits_for_the_lock_are_one_and_what_was_not_measured_is_named() {
    let (found, facts) =
        explained([events((0..500).map(|_| fault("file-map", "minor", "/data", 0, 900_000)))]);
    assert_eq!(found, ["lock-waits"]);
    // A first touch that waits for the lock is no slow first touch: that would claim the same time twice.
    let (found, _) = explained([events((0..2000).map(|_| fault("zero-fill", "minor", "anon", 0, 900_000)))]);
    assert_eq!(found, ["lock-waits"]);
    assert_eq!(facts.value("not_judged"), Some(&Value::word("slow-file-system")));
    let whole = (0..500).map(|_| {
        Record::named(crate::faults::EVENT, |name| match name {
            "pid" | "tid" | "latency_ns" => 7_u64.into(),
            _ => Value::Null,
        })
    });
    let (_, facts) = explained([events(whole)]);
    let missing = facts.value("not_judged");
    assert!(
        matches!(missing, Some(Value::Str(names)) if names.starts_with("lock-waits, reclaim, throttled, swap-in")),
        "{missing:?}"
    );
}

/// What is said of the rules that a run could not be judged by, where it has no finding.
fn unjudged(items: impl IntoIterator<Item = Item>, end: Facts) -> (String, String) {
    let end = Item::End(Facts { duration_ns: 10 * SECOND, ..end });
    let mut explain = Explain::new(items.into_iter().chain([end]).collect::<VecDeque<_>>());
    while let Ok(Some(item)) = explain.next() {
        match item {
            Item::Totals(block) => assert_eq!(block.rows, []),
            Item::End(end) => {
                let text = |name| match end.value(name) {
                    Some(Value::Str(text)) => text.to_string(),
                    _ => String::new(),
                };
                let (names, because) = (text("not_judged"), text("not_judged_because"));
                // The same rules in both.
                let listed = |list: &str| -> Vec<&str> {
                    let words: Vec<_> = list.split([',', ' ']).collect();
                    RULES.iter().map(|rule| rule.name).filter(|name| words.contains(name)).collect()
                };
                assert_eq!(names.split(", ").filter(|name| !name.is_empty()).count(), listed(&names).len());
                assert!(listed(&names).iter().all(|name| because.contains(name)), "{names}: {because}");
                return (text("verdict"), because);
            }
            _ => {}
        }
    }
    panic!("no end")
}

const BY_SOME: &str = "nothing stands out by the rules that could be judged";
const READS: &str = "random-reads, sequential-reads, thrash, cold-files, slow-file-system";
const CAUSES: &str = "swap-in, first-touch, huge-page-clearing, shared-memory, copy-on-write, numa-hints, userfaultfd, write-notify";
const PARTS: &str = "lock-waits, reclaim, throttled";

/// Faults of a healthy run, each changed a little.
fn healthy(change: impl Fn(u64, &mut Record)) -> [Item; 2] {
    let faults = (0..2000).map(|n| {
        let mut fault = fault("zero-fill", "minor", "[anon]", 0, 0);
        fault.values[SPLIT_EVENT.position("latency_ns").unwrap()] = 1000_u64.into();
        change(n, &mut fault);
        fault
    });
    [on_mounts(""), events(faults)]
}

fn set(fault: &mut Record, name: &str, value: impl Into<Value>) {
    let at = fault.schema().position(name).unwrap();
    fault.values[at] = value.into();
}

#[test]
fn faults_in_columns_say_what_their_records_say() {
    let faults = |n: u64| {
        let tid = 7 + (n % 2) as u32;
        let thread = crate::faults::Thread { pid: tid, tid, start_ns: 1 };
        let mut fault = crate::faults::Fault::new(n, thread, "db".into(), crate::faults::Outcome::Major);
        fault.latency_ns = Some(1_000_000 + n);
        fault.part_ns[0] = Some(n % 3 * 100_000);
        (fault.part_ns[1], fault.part_ns[5]) = (Some(n % 5 * 200_000), Some(n % 7 * 10_000));
        fault.cause = Some(if n.is_multiple_of(2) { Cause::FileRead } else { Cause::ZeroFill });
        fault.file = n.is_multiple_of(2).then(|| {
            let path = format!("/data/{}", n % 4).into();
            Rc::new(crate::faults::File { path, device: None, inode: None, generation: 0 })
        });
        fault.offset = fault.file.is_some().then_some(n * 7_919 % 100_003 * 4096);
        fault
    };
    let faults: Vec<_> = (0..8000).map(faults).collect();
    let said = |explain: &mut Explain<VecDeque<Item>>| {
        let mut items = vec![];
        while let Ok(Some(item)) = explain.next() {
            items.push(item);
        }
        items
    };
    let end = Item::End(Facts { duration_ns: 10 * SECOND, ..Facts::default() });
    let records = Item::Events(faults.iter().map(crate::faults::Fault::split_event).collect());
    let of_records = said(&mut Explain::new([on_mounts(""), records, end.clone()].into()));
    let mut columns = Columns::default();
    // In several batches.
    for some in faults.chunks(999) {
        columns.take(&crate::faults::FaultRows::new(some, true, false)).unwrap();
    }
    let of_columns = said(&mut Explain::new([on_mounts(""), end].into()).with(&columns));
    assert!(matches!(&of_records[1], Item::Totals(block) if block.rows.len() > 3), "{of_records:?}");
    assert_eq!(of_columns, of_records);
}

#[test]
fn a_run_that_has_all_is_judged_by_all_rules() {
    let all = ("nothing stands out".to_owned(), String::new());
    assert_eq!(unjudged(healthy(|_, _| {}), Facts::default()), all);
    // Nor does a run without faults leave anything open.
    assert_eq!(unjudged([on_mounts("")], Facts::default()), all);
}

#[test]
fn faults_without_causes_are_not_judged_by_causes() {
    // Not one of them.
    let (verdict, why) = unjudged(healthy(|_, fault| set(fault, "cause", "unknown")), Facts::default());
    assert_eq!(verdict, BY_SOME);
    assert_eq!(why, format!("{CAUSES} (the cause of no fault is known)"));
    assert_eq!(unjudged(healthy(|_, fault| set(fault, "cause", Value::Null)), Facts::default()).1, why);
    // The run says why, and some need no look at page tables.
    let mut items = healthy(|n, fault| set(fault, "cause", if n < 5 { "bad-address" } else { "unknown" }));
    let settings = crate::faults::Settings {
        served_mounts: Some(String::new()),
        causes_unknown: Some("/proc/self/pagemap hides page frames".into()),
        ..Default::default()
    };
    let Item::Header(header) = &mut items[0] else { panic!() };
    header.settings = vec![crate::faults::SETTINGS.record(&settings)];
    let (_, why) = unjudged(items, Facts::default());
    let of_pagemap = "the causes of faults could not be found: /proc/self/pagemap hides page frames";
    assert_eq!(why, format!("{CAUSES} ({of_pagemap})"));
    // Some of them, which are long: 3 % of the duration.
    let some = |n: u64, fault: &mut Record| {
        if n < 300 {
            set(fault, "cause", "unknown");
            set(fault, "latency_ns", 1_000_000_u64);
        }
    };
    let why = unjudged(healthy(some), Facts::default()).1;
    assert_eq!(why, "swap-in, numa-hints (the cause of 300 of 2,000 faults, 300 ms is not known)");
    // Short ones leave nothing open.
    let short = healthy(|n, fault| {
        if n < 300 {
            set(fault, "cause", "unknown")
        }
    });
    assert_eq!(unjudged(short, Facts::default()).1, "");
}

#[test]
fn reads_of_files_that_are_not_known_are_not_judged() {
    let read = |file: Value, offset: Value| {
        healthy(move |n, fault| {
            if n < 1500 {
                set(fault, "kind", "major");
                set(fault, "cause", "file-read");
                set(fault, "latency_ns", 1_000_000_u64);
                set(fault, "io_ns", 1_000_000_u64);
                set(fault, "file", file.clone());
                set(fault, "offset", offset.clone());
            }
        })
    };
    let of = |file, offset| unjudged(read(file, offset), Facts::default()).1;
    let why = format!("{READS} (the file of 1,500 of 2,000 faults, 1.5 s is not known)");
    assert_eq!(of(Value::Null, Value::Null), why);
    assert_eq!(of("(other files of db [7])".into(), 0_u64.into()), why);
    // Files whose names were too long, or found no space, are files.
    for file in ["…/b/c", "[inode 8:3 42]"] {
        assert_eq!(explained(read(file.into(), 0_u64.into())).0, ["thrash"], "{file}");
    }
    let unknown = healthy(|_, fault| {
        set(fault, "kind", Value::Null);
        set(fault, "latency_ns", 1_000_000_u64);
        set(fault, "cause", "file-map");
    });
    let why = unjudged(unknown, Facts::default()).1;
    assert_eq!(why, format!("{READS} (whether 2,000 of 2,000 faults, 2.0 s read from disk is not known)"));
    // Memory is not.
    assert_eq!(of("[anon]".into(), Value::Null), "");
    // Of a file, but not where.
    let found = explained(read("/data".into(), Value::Null));
    assert_eq!(found.0, ["sequential-reads"]);
    assert!(
        matches!(found.1.value("not_judged"), Some(Value::Str(names)) if &**names == "random-reads, thrash")
    );
}

#[test]
fn parts_that_were_not_measured_are_not_judged() {
    let whole = events((0..2000).map(|_| {
        Record::named(crate::faults::EVENT, |name| match name {
            "pid" | "tid" => 7_u64.into(),
            "latency_ns" => 1000_u64.into(),
            "kind" => "minor".into(),
            "cause" => "zero-fill".into(),
            _ => Value::Null,
        })
    }));
    let mut whole = [on_mounts(""), whole];
    if let Item::Header(header) = &mut whole[0] {
        header.events = Some(crate::faults::EVENT);
    }
    let why = unjudged(whole, Facts::default()).1;
    assert_eq!(why, format!("{PARTS} (recorded without --split)"));
    let unseen = healthy(|_, fault| set(fault, "reclaim_ns", Value::Null));
    let why = unjudged(unseen, Facts::default()).1;
    assert_eq!(why, "reclaim (the variant does not see that part of the time)");
}

#[test]
fn faults_that_were_lost_could_have_been_what_a_rule_looks_for() {
    let longest = |n: u64, fault: &mut Record| {
        if n == 0 {
            set(fault, "latency_ns", 2_000_000_u64);
        }
    };
    // 50 of 2 ms would be 1 % of the duration, 150 are 3 %: as much as these need.
    let lost = |lost_events| unjudged(healthy(longest), Facts { lost_events, ..Facts::default() });
    assert_eq!(lost(50).1, "");
    let (verdict, why) = lost(150);
    assert_eq!(verdict, BY_SOME);
    assert_eq!(why, "swap-in, numa-hints, lock-waits, reclaim, throttled (lost: 150 faults)");
    assert!(lost(1_000_000).1.starts_with(&format!("{READS}, {CAUSES}, {PARTS} (")));
    assert_eq!(lost(1_000_000).0, "nothing could be judged");
    // If all were lost, nothing is known of any.
    let all = unjudged([on_mounts("")], Facts { lost_events: 1, ..Facts::default() });
    let why = format!("{READS}, {CAUSES}, {PARTS} (lost: 1 fault)");
    assert_eq!(all, ("nothing could be judged".to_owned(), why));
    for column in ["latency_ns", "pid", "tid"] {
        let (verdict, why) = unjudged(healthy(|_, fault| set(fault, column, Value::Null)), Facts::default());
        assert_eq!(verdict, "nothing could be judged");
        assert!(why.ends_with("(without a time or a thread: 2,000 faults)"), "{why}");
    }
    // 1,900 of 2 ms would be 38 % of the duration; those without an address are of pages that the kernel mapped ahead.
    let without_times = |addr: Option<u64>| {
        let untimed = healthy(|n, fault| {
            longest(n, fault);
            if n >= 100 {
                set(fault, "latency_ns", Value::Null);
                set(fault, "addr", addr);
            }
        });
        unjudged(untimed, Facts::default()).1
    };
    assert_eq!(without_times(None), "");
    let why = without_times(Some(4096));
    assert!(why.ends_with("(without a time or a thread: 1,900 faults)"), "{why}");
    for (losses, why) in [
        (
            crate::faults::Losses { untracked_threads: Some(3), ..Default::default() },
            "(3 threads not traced)",
        ),
        (
            crate::faults::Losses { missed_programs: Some(1_000_000), ..Default::default() },
            "(not seen: 1,000,000 faults)",
        ),
    ] {
        let end = Facts { more: vec![crate::faults::LOSSES.record(&losses)], ..Facts::default() };
        let said = unjudged(healthy(longest), end);
        assert!(said.0 == "nothing could be judged" && said.1.ends_with(why), "{said:?}");
    }
    // A rule that has found something was judged.
    let faults = events((0..2000).map(|_| fault("zero-fill", "minor", "[anon]", 0, 0)));
    let mut explain = Explain::new(VecDeque::from([
        on_mounts(""),
        faults,
        Item::End(Facts { duration_ns: 10 * SECOND, lost_events: 1_000_000, ..Facts::default() }),
    ]));
    let mut ends = vec![];
    while let Ok(Some(item)) = explain.next() {
        if let Item::End(end) = item {
            ends.push(end);
        }
    }
    assert_eq!(ends[0].value("verdict"), Some(&Value::Null));
    let Some(Value::Str(names)) = ends[0].value("not_judged") else { panic!() };
    assert!(names.contains("swap-in") && !names.contains("first-touch"), "{names}");
}

#[test]
fn a_recording_of_slow_faults_alone_is_not_judged() {
    let header =
        Header { tool: "faults".into(), events: Some(crate::faults::SLOW_EVENT), ..Header::default() };
    let (verdict, why) = unjudged([Item::Header(header)], Facts::default());
    assert_eq!(verdict, "nothing could be judged");
    assert!(why.contains("only faults that took longer than a limit were recorded"), "{why}");
}

#[test]
fn exits_and_enclaves_without_figures_are_not_judged() {
    let header = |table: &str| {
        let tables = vec![crate::table(table).unwrap()];
        Item::Header(Header { tool: tables[0].tool().into(), tables, ..Header::default() })
    };
    let of = |table: &str, rows: usize, end| {
        let schema = crate::table(table).unwrap();
        let row = Record::named(schema, |name| match name {
            "name" => "CPUID".into(),
            "count" | "faults" | "loads" => 9_u64.into(),
            _ => Value::Null,
        });
        unjudged([header(table), Item::Totals(Block::new(schema, 0, vec![row; rows]))], end)
    };
    let (verdict, why) = of("kvm.count_reason", 1, Facts::default());
    assert_eq!(verdict, "nothing could be judged");
    for rule in ["slow-vmm", "halt-polling", "host-faults", "msr-storm", "nested"] {
        assert!(why.contains(rule), "{why}");
    }
    // By guest alone there is no name of an exit.
    let why = of("kvm.split_vm", 0, Facts::default()).1;
    assert_eq!(why, "halt-polling, msr-storm, nested (the recording has no column name)");
    assert_eq!(of("kvm.split_reason", 0, Facts::default()), ("nothing stands out".into(), String::new()));
    let why = of("kvm.split_reason", 0, Facts { lost_events: 1, ..Facts::default() }).1;
    assert_eq!(why, "slow-vmm, halt-polling, host-faults, msr-storm, nested (1 events lost)");
    let (verdict, why) = of("sgx.enclave", 1, Facts::default());
    assert_eq!((&*verdict, &*why), ("nothing could be judged", "epc-thrash (refaults is not known)"));
}

#[test]
fn accesses_that_no_rule_can_be_judged_by_are_named() {
    let of = |items: Vec<Item>, end| unjudged(items, end);
    let few = || writes((0..10).map(|n| (7, n * 4096)));
    assert_eq!(of(vec![has_memory(64 << 20), few()], Facts::default()).1, "");
    let (verdict, why) = of(vec![few()], Facts::default());
    assert_eq!((&*verdict, &*why), (BY_SOME, "working-set (the size of the memory is not known)"));
    let lost = Facts { lost_events: 500, ..Facts::default() };
    assert_eq!(of(vec![has_memory(64 << 20), few()], lost).1, "false-sharing (500 events lost)");
    let Item::Events(mut firsts) = few() else { panic!() };
    firsts.iter_mut().for_each(|event| set(&mut event.record, "first", true));
    let (verdict, why) = of(vec![has_memory(64 << 20), Item::Events(firsts)], Facts::default());
    assert_eq!(verdict, "nothing could be judged");
    assert!(why.starts_with("working-set, false-sharing (no access after the first"), "{why}");
    let Item::Events(mut nowhere) = few() else { panic!() };
    nowhere.iter_mut().for_each(|event| set(&mut event.record, "addr", Value::Null));
    let why = of(vec![has_memory(64 << 20), Item::Events(nowhere)], Facts::default()).1;
    assert_eq!(why, "working-set, false-sharing (10 accesses without an address or a thread)");
}

/// Totals of exits of one reason, of a vCPU that has these figures.
fn exits(reason: &str, figures: &[(&str, u64)]) -> Item {
    let schema = crate::table("kvm.split_reason").unwrap();
    let row = Record::named(schema, |name| match name {
        "name" => reason.into(),
        name => figures.iter().find(|(of, _)| *of == name).map(|(_, n)| *n).into(),
    });
    Item::Totals(Block { sum: Some(row.clone()), ..Block::new(schema, 0, vec![row]) })
}

#[test]
fn exits_have_their_rules() {
    let all = [("count", 200_000), ("total_ns", 4 * SECOND)];
    for (reason, figures, rule) in [
        ("IO_INSTRUCTION", &[("to_vmm", 10_000), ("vmm_ns", 3 * SECOND)][..], "slow-vmm"),
        ("HLT", &[("kvm_ns", 3 * SECOND), ("blocked_ns", SECOND)], "halt-polling"),
        ("EPT_VIOLATION", &[("fault_ns", SECOND), ("host_minor", 50_000)], "host-faults"),
        ("MSR_WRITE", &[], "msr-storm"),
        ("VMCALL", &[("l2_count", 100_000), ("l2_ns", 3 * SECOND)], "nested"),
        ("vmrun", &[("l2_count", 1)], "nested"),
    ] {
        let figures = [&all[..], figures].concat();
        assert_eq!(explained([exits(reason, &figures)]).0, [rule], "{reason}");
    }
    // The last: nothing ran in a guest inside the guest.
    for reason in ["CPUID", "VMCALL", "vmrun"] {
        assert_eq!(explained([exits(reason, &all)]).0, [""; 0]);
    }
}

#[test]
fn findings_about_guests_and_enclaves_name_them() {
    let rows = |table: &str, rows: &[&[(&'static str, Value)]]| {
        let schema = crate::table(table).unwrap();
        let row = |figures: &&[(&str, Value)]| {
            Record::named(schema, |name| {
                figures.iter().find(|(of, _)| *of == name).map_or(Value::Null, |(_, value)| value.clone())
            })
        };
        Item::Totals(Block::new(schema, 0, rows.iter().map(row).collect()))
    };
    let slow = |pid: u64| {
        [
            ("pid", pid.into()),
            ("vm", "db".into()),
            ("to_vmm", 10_000_u64.into()),
            ("vmm_ns", (3 * SECOND).into()),
        ]
    };
    let found = text(&first([rows("kvm.split_vm", &[&slow(8)])]), "finding");
    assert_eq!(found, "exits of db (8) wait for the program that runs the guest: 3.0 s");
    // Rows by guest and reason, of a table that has no row for others: all that is about all exits of a guest is its own.
    let of = |pid: u64, vm: &str, name: &str, more: &[(&'static str, u64)]| {
        let mut row = vec![
            ("pid", pid.into()),
            ("vm", vm.into()),
            ("name", name.into()),
            ("count", 200_000_u64.into()),
        ];
        row.push(("total_ns", (4 * SECOND).into()));
        row.extend(more.iter().map(|(name, n)| (*name, (*n).into())));
        row
    };
    let several = [
        of(8, "db", "io", &[("to_vmm", 10_000), ("vmm_ns", 3 * SECOND)]),
        of(8, "db", "npf", &[("fault_ns", SECOND), ("host_minor", 50_000)]),
        of(9, "web", "msr", &[]),
        of(9, "web", "hlt", &[("kvm_ns", 2 * SECOND)]),
        of(9, "web", "cpuid", &[("l2_count", 10_000), ("l2_ns", 9 * SECOND)]),
    ];
    let several: Vec<&[(&'static str, Value)]> = several.iter().map(Vec::as_slice).collect();
    let end = Item::End(Facts { duration_ns: 10 * SECOND, ..Facts::default() });
    let mut explain = Explain::new(VecDeque::from([rows("kvm.split_vm_reason", &several), end]));
    let Ok(Some(Item::Totals(block))) = explain.next() else { panic!("no findings") };
    let said: Vec<_> = block
        .rows
        .iter()
        .map(|row| (row.number("pid"), text(row, "subject"), text(row, "finding")))
        .collect();
    let is = |pid: u64, subject: &str, finding: &str| (Some(pid), subject.to_owned(), finding.to_owned());
    assert_eq!(
        said,
        [
            is(9, "web (9)", "a guest inside web (9) costs most of the time of exits: 9.0 s"),
            is(9, "msr of web (9)", "web (9) exits for accesses to model-specific registers: 4.0 s"),
            is(8, "io of db (8)", "io exits of db (8) wait for the program that runs the guest: 3.0 s"),
            is(9, "hlt of web (9)", "KVM is at work for 2.0 s while vCPUs of web (9) are halted: it polls"),
            is(8, "db (8)", "the host handles page faults on behalf of db (8): 1.0 s"),
        ]
    );
    let vcpu = [("vcpu", 3_u64.into())].into_iter().chain(slow(8)).collect::<Vec<_>>();
    let found = text(&first([rows("kvm.split_vcpu", &[&vcpu])]), "finding");
    assert_eq!(found, "exits of vCPU 3 of db (8) wait for the program that runs the guest: 3.0 s");
    let port =
        [("port", 0x3f8_u64.into()), ("name", "io".into())].into_iter().chain(slow(8)).collect::<Vec<_>>();
    let found = text(&first([rows("kvm.split_port", &[&port])]), "finding");
    assert_eq!(found, "io exits (port 0x3f8) wait for the program that runs the guest: 3.0 s");
    // The name of a guest is no exit's.
    let named = [
        ("pid", 8_u64.into()),
        ("vm", "vm-msr-hlt".into()),
        ("count", 200_000_u64.into()),
        ("total_ns", (4 * SECOND).into()),
        ("kvm_ns", (4 * SECOND).into()),
        ("l2_count", 1_u64.into()),
    ];
    assert_eq!(explained([rows("kvm.split_vm", &[&named])]).0, [""; 0]);
    let thrash = [
        ("pid", 8_u64.into()),
        ("comm", "sealed".into()),
        ("enclave", 2_u64.into()),
        ("loads", 5000_u64.into()),
        ("refaults", 5000_u64.into()),
        ("load_ns", (3 * SECOND).into()),
    ];
    let found = text(&first([rows("sgx.enclave", &[&thrash])]), "finding");
    assert_eq!(
        found,
        "pages of enclave 2 of sealed (8) are loaded back that were evicted just before: 3.0 s"
    );
}

/// Totals of threads of a process, with who forked whom.
fn threads(rows: &[(u64, Option<u64>, Option<u64>)]) -> Item {
    let schema = crate::table("faults.split_thread").unwrap();
    let row = |(pid, forks, by): &(u64, Option<u64>, Option<u64>)| {
        Record::named(schema, |name| match name {
            "pid" => (*pid).into(),
            "forks" => (*forks).into(),
            "forked_by" => (*by).into(),
            _ => Value::Null,
        })
    };
    Item::Totals(Block::new(schema, 0, rows.iter().map(row).collect()))
}

/// The first row of findings.
fn first(items: impl IntoIterator<Item = Item>) -> Record {
    let end = Item::End(Facts { duration_ns: 10 * SECOND, ..Facts::default() });
    let mut explain = Explain::new(items.into_iter().chain([end]).collect::<VecDeque<_>>());
    while let Ok(Some(item)) = explain.next() {
        if let Item::Totals(block) = item {
            return block.rows[0].clone();
        }
    }
    panic!("no findings")
}

#[test]
fn who_forked_and_how_often_is_evidence() {
    let copied = |totals: &[(u64, Option<u64>, Option<u64>)]| {
        let faults = events((0..2000).map(|_| fault("copy-on-write", "minor", "anon", 0, 0)));
        text(&first([faults, threads(totals)]), "evidence")
    };
    let all = "2,000 faults, 1.0 ms each, 100 % of the time of its faults; 100 % of that in anon";
    assert_eq!(copied(&[(7, Some(2), None), (7, Some(1), None)]), format!("{all}; it forked 3 times"));
    assert_eq!(copied(&[(7, Some(0), Some(6))]), format!("{all}; it was forked by (6)"));
    assert!(copied(&[(7, Some(0), None)]).ends_with("what it shares is from before"));
    assert_eq!(copied(&[(7, None, None)]), all);
}

/// Accesses, each a write of a thread to an address, as after a reset.
fn writes(of: impl Iterator<Item = (u64, u64)>) -> Item {
    let write = |(tid, addr): (u64, u64)| {
        Record::named(crate::access::EVENT, |name| match name {
            "event" => "access".into(),
            "pid" => 7_u64.into(),
            "tid" => tid.into(),
            "comm" => "db".into(),
            "rw" => "W".into(),
            "addr" => addr.into(),
            "first" => false.into(),
            _ => Value::Null,
        })
    };
    events(of.map(write))
}

fn has_memory(bytes: u64) -> Item {
    let settings = crate::access::Settings { memory_bytes: Some(bytes), ..Default::default() };
    let settings = vec![crate::access::SETTINGS.record(&settings)];
    Item::Header(Header {
        tool: "access".into(),
        events: Some(crate::access::EVENT),
        settings,
        ..Header::default()
    })
}

#[test]
fn pages_that_threads_share_without_a_line_in_common_are_shared_falsely() {
    let of = |lines: [u64; 2]| {
        let each = (0..2000).map(move |n| (7 + n % 2, 0x10000 + lines[(n % 2) as usize] * 64));
        explained([has_memory(64 << 20), writes(each)]).0
    };
    assert_eq!(of([0, 63]), ["false-sharing"]);
    assert_eq!(of([5, 5]), [""; 0]);
    // Each thread has pages of its own.
    let apart = (0..2000).map(|n| (7 + n % 2, 0x10000 + n % 2 * 4096));
    assert_eq!(explained([has_memory(64 << 20), writes(apart)]).0, [""; 0]);
}

#[test]
fn a_working_set_is_measured_by_the_memory_that_there_is() {
    let accesses = || writes((0..5000).map(|n| (7, n * 4096)));
    assert_eq!(explained([has_memory(24 << 20), accesses()]).0, ["working-set"]);
    assert_eq!(explained([has_memory(30 << 20), accesses()]).0, [""; 0]);
    // Without the memory nothing is said, and that is said.
    let (found, facts) = explained([accesses()]);
    assert_eq!((found, facts.value("not_judged")), (vec![], Some(&Value::word("working-set"))));
}

#[test]
fn processes_of_one_name_are_judged_together_if_none_is_alone() {
    let faults = |each: u64, processes: u64| {
        events((0..each * processes).map(move |n| {
            let mut of = fault("zero-fill", "minor", "[anon]", 0, 0);
            let at = SPLIT_EVENT.position("pid").unwrap();
            of.values[at] = (100 + n % processes).into();
            of
        }))
    };
    let finding = first([faults(300, 10)]);
    assert_eq!(
        text(&finding, "finding"),
        "db (10 processes) spends its time on the first use of fresh memory: 3.0 s"
    );
    assert_eq!((finding.number("pid"), text(&finding, "comm").as_str()), (None, "db"));
    assert_eq!(explained([faults(2000, 2)]).0, ["first-touch"; 2]);
}

#[test]
fn time_in_which_something_else_ran_is_not_the_faults() {
    let mut faults: Vec<Record> = (0..2000).map(|_| fault("zero-fill", "minor", "[anon]", 0, 0)).collect();
    let at = SPLIT_EVENT.position("preempted_ns").unwrap();
    faults.iter_mut().for_each(|fault| fault.values[at] = 900_000_u64.into());
    assert_eq!(explained([events(faults)]).0, [""; 0]);
}

#[test]
fn a_process_has_the_name_of_its_last_program() {
    let named = |name: &'static str| {
        move |_| {
            let mut of = fault("zero-fill", "minor", "[anon]", 0, 0);
            let at = SPLIT_EVENT.position("process_comm").unwrap();
            of.values[at] = name.into();
            of
        }
    };
    let faults = (0..10).map(named("time")).chain((0..2000).map(named("sqlite3")));
    let finding = text(&first([events(faults)]), "finding");
    assert!(finding.starts_with("sqlite3 (7) "), "{finding}");
}

#[test]
fn findings_are_sentences_with_figures() {
    let faults = (0..2000).map(|n| fault("file-read", "major", "/data", n * 7_919 % 100_003 * 4096, 0));
    let end = Item::End(Facts { duration_ns: 10 * SECOND, ..Facts::default() });
    let mut explain = Explain::new(VecDeque::from([events(faults), end]));
    let Ok(Some(Item::Totals(block))) = explain.next() else { panic!("no findings") };
    let row = &block.rows[0];
    assert_eq!(text(row, "finding"), "db (7) reads /data at scattered offsets and waits for the disk: 2.0 s");
    assert_eq!(
        text(row, "evidence"),
        "2,000 major faults, 100 % of them not within 1 MiB after the one before; 1.0 ms each; readahead saved at most 0 others"
    );
    assert_eq!((row.number("share_ppm"), text(row, "confidence").as_str()), (Some(200_000), "certain"));
}

#[test]
fn each_rule_has_a_name_of_its_own_and_says_what_it_is_about() {
    let names: std::collections::HashSet<_> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(names.len(), RULES.len());
    assert!(RULES.iter().all(|rule| rule.says.ends_with('.') && !rule.advice.ends_with('.')));
}

#[test]
fn recordings_without_single_faults_are_refused() {
    let of = |tool: &'static str, variant: &'static str| Header {
        tool: tool.into(),
        variant: variant.into(),
        events: Some(SPLIT_EVENT),
        ..Header::default()
    };
    assert_eq!(check(&of("faults", "fentry")), Ok(()));
    assert!(check(&Header { events: None, ..of("faults", "fentry") }).is_err());
    assert!(check(&of("faults", "rootless")).is_err() && check(&of("top", "auto")).is_err());
}
