//! The familiar forms, to the letter.

use std::collections::VecDeque;

use trapline_model::faults::Stack;
use trapline_model::kvm::{
    By, COUNT, Exit, HIST, HIST_EACH, Isa, LOSSES, Layout, Ledger, Level, Losses, Moment, Names, Report,
    SLOWER, Slow, Stats, TIME, Vcpu, VmmStack,
};
use trapline_model::layout;
use trapline_model::stage::rows;
use trapline_model::{BUCKETS, Extremes, Facts, Hist, SHOWN, Shown, Source, bucket};

use super::*;

fn stats(times: &[u64]) -> Stats {
    let mut counts = [0; BUCKETS];
    times.iter().for_each(|&ns| counts[bucket(ns)] += 1);
    let (count, ns) = (times.len() as u64, times.iter().sum());
    let mut extremes = Extremes::default();
    times.iter().for_each(|&ns| extremes.add(Extremes { max_ns: ns, min_ns: ns }));
    Stats { count, timed: count, ns, extremes, hist: Hist::new(&counts), ..Stats::default() }
}

fn vcpu() -> Vcpu {
    Vcpu { pid: 321, process_start_ns: 0, vm: Some("db\x1b".into()), tid: 322, number: 1 }
}

fn shown(form: &'static layout::Layout, exits: &[(Isa, u32, &[u64], &[u64])]) -> String {
    let layout = Layout { by: By::Reason, timed: *form != COUNT, buckets: true, split: false };
    let mut ledger = Ledger::new(layout, None, Names::default());
    for &(isa, code, l1, l2) in exits {
        let (exit, levels) = (Exit { isa, code }, [stats(l1), stats(l2)]);
        let report =
            Report { thread: 0, vcpu: vcpu(), exit, subject: None, levels, recent: [Extremes::default(); 2] };
        ledger.take(report, false);
    }
    let mut out = Vec::new();
    let mut items = rows(VecDeque::from([Item::Totals(ledger.block(0, true))]), false);
    let Ok(Some(totals)) = items.next() else { panic!("no totals") };
    Table::laid_out(&mut out, form, Screen::default(), TimeZone::UTC).take(&totals).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn counts_are_as_kvm_bpf_tools_shows_them() {
    let exits = [(Isa::Vmx, 12, &[1; 2787][..], &[1; 178][..]), (Isa::Vmx, 0, &[], &[1; 52])];
    insta::assert_snapshot!(shown(&COUNT, &exits));
}

#[test]
fn times_are_as_kvm_bpf_tools_shows_them_and_more() {
    let exits = [(Isa::Vmx, 31, &[2000, 4000][..], &[20_000][..]), (Isa::Vmx, 12, &[3_674_603], &[])];
    insta::assert_snapshot!(shown(&TIME, &exits));
}

#[test]
fn amd_numbers_are_hexadecimal_and_long_names_push() {
    let exits = [(Isa::Svm, 0x402, &[1][..], &[][..]), (Isa::Svm, 0x9f, &[1], &[])];
    insta::assert_snapshot!(shown(&COUNT, &exits));
}

#[test]
fn a_histogram_is_as_bcc_prints_it() {
    let exits = [(Isa::Vmx, 12, &[0, 5, 6, 6, 8][..], &[7][..])];
    insta::assert_snapshot!(shown(&HIST, &exits));
    let long = shown(&HIST_EACH, &[(Isa::Svm, 0x78, &[8_000_000_000], &[])]);
    assert!(long.starts_with("exit 0x78 hlt\n     value"), "{long}");
    assert!(long.contains("\n4294967296 -> 7516192767 : 0        |"), "{long}");
    assert!(long.contains("\n7516192768 -> ...        : 1        |****"), "{long}");
    assert_eq!(long.lines().count(), 37);
}

#[test]
fn a_slow_exit_is_a_line() {
    let mut out = Vec::new();
    let mut table = Table::laid_out(&mut out, &SLOWER, Screen::default(), TimeZone::UTC);
    let header = Header {
        tool: "kvm".into(),
        variant: "core".into(),
        version: "0".into(),
        settings: vec![SHOWN.record(&Shown { excludes: Some("HLT".into()), ..Shown::default() })],
        ..Header::default()
    };
    table.take(&Item::Header(header)).unwrap();
    let slow = |code, level| Slow {
        time_ns: 5,
        vcpu: vcpu(),
        exit: Exit { isa: Isa::Vmx, code },
        level,
        latency_ns: 2_631_024,
        rip: 0xffff_8000_0000_1234,
        stack: None,
    };
    let events = [slow(44, Level::L1), slow(1, Level::L2)].map(|slow| slow.event(&Names::default(), false));
    table.take(&Item::Events(events.to_vec())).unwrap();
    let mut calls = Stack::default();
    ["qemu", "_start", "main", "pread"].into_iter().for_each(|name| calls.push(name, ""));
    let stack = VmmStack { calls: calls.into(), at: Some(Moment::Asleep), away_ns: Some(2_000_000) };
    let with_stack =
        [None, Some(stack)].map(|stack| Slow { stack, ..slow(30, Level::L1) }.event(&Names::default(), true));
    table.take(&Item::Events(with_stack.to_vec())).unwrap();
    let end = Facts {
        duration_ns: 2_000_000_000,
        events: 2,
        lost_events: 1,
        sampled: 1,
        own_cpu_ns: Some(0),
        more: vec![LOSSES.record(&Losses { untimed_exits: Some(3), ..Losses::default() })],
    };
    table.take(&Item::End(end)).unwrap();
    insta::assert_snapshot!(String::from_utf8(out).unwrap());
}
