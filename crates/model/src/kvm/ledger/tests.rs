use super::*;
use crate::hist::{BUCKETS, bucket};
use crate::kvm::Isa;
use crate::stage::Stages;

const LAYOUT: Layout = Layout { by: By::Reason, timed: true, buckets: true, split: true };

fn stats(times: &[u64]) -> Stats {
    let mut counts = [0; BUCKETS];
    times.iter().for_each(|&ns| counts[bucket(ns)] += 1);
    let (count, ns) = (times.len() as u64, times.iter().sum());
    let mut extremes = Extremes::default();
    times.iter().for_each(|&ns| extremes.add(Extremes { max_ns: ns, min_ns: ns }));
    Stats { count, timed: count, ns, extremes, hist: Hist::new(&counts), ..Stats::default() }
}

fn report(tid: u32, code: u32, levels: [Stats; 2]) -> Report {
    let vcpu = Vcpu { pid: 7, process_start_ns: 70, vm: Some("db".into()), tid, number: tid - 8 };
    let recent = levels.each_ref().map(|level| level.extremes);
    Report { thread: tid, vcpu, exit: Exit { isa: Isa::Vmx, code }, subject: None, levels, recent }
}

fn ledger(by: By, level: Option<Level>) -> Ledger {
    let layout = Layout { by, ..LAYOUT };
    Ledger::new(layout, level, Names::default())
}

fn get(row: &Record, name: &str) -> u64 {
    match row.get(name) {
        Some(&Value::U64(n)) => n,
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn threads_are_added_and_a_dead_one_is_not_forgotten() {
    let mut ledger = ledger(By::Reason, None);
    let mut stages = Stages::new();
    ledger.take(report(8, 12, [stats(&[100, 300]), stats(&[])]), false);
    ledger.take(report(9, 12, [stats(&[]), stats(&[50])]), false);
    let first = stages.interval(ledger.block(1, false));
    assert_eq!((get(&first.rows[0], "count"), get(&first.rows[0], "l2_count")), (3, 1));
    ledger.take(report(8, 12, [stats(&[100, 300, 40]), stats(&[])]), true);
    ledger.take(report(9, 12, [stats(&[]), stats(&[50])]), false);
    let second = stages.interval(ledger.block(2, false));
    assert_eq!((get(&second.rows[0], "count"), get(&second.rows[0], "total_ns")), (1, 40));
    let totals = Stages::new().totals(ledger.block(3, true));
    assert_eq!((get(&totals.rows[0], "count"), get(&totals.rows[0], "max_ns")), (4, 300));
}

#[test]
fn a_row_is_a_vm_or_a_vcpu_or_a_reason() {
    let rows = |by| {
        let mut ledger = ledger(by, None);
        ledger.take(report(8, 12, [stats(&[1]), stats(&[])]), false);
        ledger.take(report(8, 0x8000_0021, [stats(&[1]), stats(&[])]), false);
        ledger.take(report(9, 12, [stats(&[2, 3]), stats(&[4])]), false);
        Stages::new().totals(ledger.block(0, true)).rows
    };
    assert_eq!(rows(By::Vm).len(), 1);
    assert_eq!(rows(By::Vm)[0].get("vm"), Some(&"db".into()));
    let counts = |by| rows(by).iter().map(|row| get(row, "count")).collect::<Vec<_>>();
    assert_eq!((counts(By::Vm), counts(By::Vcpu), counts(By::Reason)), (vec![5], vec![2, 3], vec![4, 1]));
    assert_eq!(rows(By::Reason)[1].get("name"), Some(&"INVALID_STATE FAILED_VMENTRY".into()));
}

#[test]
fn exits_without_a_subject_have_a_row_and_rows_add_up() {
    let mut ledger = ledger(By::Msr, None);
    let mut take = |code, subject, times: &[u64]| {
        ledger.take(Report { subject, ..report(8, code, [stats(times), stats(&[])]) }, false);
    };
    take(31, None, &[1, 2, 3]);
    take(31, Some((0x1b, false)), &[4]);
    take(31, Some((0x10, true)), &[5, 6]);
    take(12, None, &[7]);
    let totals = Stages::new().totals(ledger.block(0, true));
    let rows: Vec<_> =
        totals.rows.iter().map(|row| (row.get("msr"), row.get("rw"), get(row, "count"))).collect();
    let (null, r, w) = (Value::Null, "R".into(), "W".into());
    let (low, high) = (0x10u64.into(), 0x1bu64.into());
    let expected = [
        (Some(&low), Some(&w), 2),
        (Some(&high), Some(&r), 1),
        (Some(&null), Some(&null), 1),
        (Some(&null), Some(&null), 3),
    ];
    assert_eq!(rows, expected);
    assert_eq!(totals.sum.map(|sum| get(&sum, "count")), Some(7));
}

#[test]
fn one_level_alone() {
    for (level, count) in [(Level::L1, 2), (Level::L2, 1)] {
        let mut ledger = ledger(By::Reason, Some(level));
        ledger.take(report(8, 12, [stats(&[1, 2]), stats(&[3])]), false);
        assert_eq!(
            (get(&Stages::new().totals(ledger.block(0, true)).rows[0], "count"), ledger.counted()),
            (count, (count, count))
        );
    }
}

/// An exit is counted before it is known to be one of L2: what was shown once is made up for later.
#[test]
fn an_exit_that_changes_its_level_is_made_up_for() {
    let mut ledger = ledger(By::Reason, None);
    let mut stages = Stages::new();
    let mut shown = [0, 0];
    let steps = [([6, 0], [6, 0]), ([5, 1], [6, 1]), ([9, 1], [9, 1])];
    for ([l1, l2], expected) in steps {
        let stats = [l1, l2].map(|count| Stats { count, ..Stats::default() });
        ledger.take(report(8, 12, stats), false);
        for row in &stages.interval(ledger.block(0, false)).rows {
            shown[0] += get(row, "l1_count");
            shown[1] += get(row, "l2_count");
        }
        assert_eq!(shown, expected);
    }
}

/// VMs come and go for ever: rows and the folded one add up to all there was.
#[test]
fn what_has_ended_is_folded_and_sums_stay_exact() {
    let mut ledger = ledger(By::Vcpu, None).bounded(100_000);
    let mut stages = Stages::new();
    for n in 0..2000 {
        ledger.take(report(8 + n, 12, [stats(&[100, 300]), stats(&[50])]), true);
        stages.interval(ledger.block(1, false));
    }
    let totals = Stages::new().totals(ledger.block(2, true));
    assert_eq!((get(totals.sum.as_ref().unwrap(), "count"), ledger.counted()), (6000, (6000, 6000)));
    assert!(ledger.folded() > 0);
    assert_eq!(totals.rows.len() as u64 + ledger.folded(), 2001);
    let folded = totals.rows.last().unwrap();
    assert_eq!(folded.get("vm"), Some(&"(folded)".into()));
    assert_eq!(get(folded, "count"), ledger.folded() * 3);
}
