//! The familiar forms, to the letter.

use trapline_model::kvm::{By, Exit, Isa, Layout, Ledger, Level, Names, Report, Slow, Stats, Vcpu};
use trapline_model::{BUCKETS, End, Hist, bucket};

use super::*;

fn stats(times: &[u64]) -> Stats {
    let mut counts = [0; BUCKETS];
    times.iter().for_each(|&ns| counts[bucket(ns)] += 1);
    let (count, ns) = (times.len() as u64, times.iter().sum());
    let max_ns = times.iter().copied().max().unwrap_or(0);
    Stats { count, timed: count, ns, max_ns, hist: Hist::new(&counts), ..Stats::default() }
}

fn vcpu() -> Vcpu {
    Vcpu { pid: 321, process_start_ns: 0, vm: Some("db\x1b".into()), tid: 322, number: 1 }
}

fn shown(form: KvmForm, exits: &[(Isa, u32, &[u64], &[u64])]) -> String {
    let layout = Layout { by: By::Reason, timed: form != KvmForm::Count, buckets: true, split: false };
    let mut ledger = Ledger::new(layout, None, Names::default());
    for &(isa, code, l1, l2) in exits {
        let (exit, levels) = (Exit { isa, code }, [stats(l1), stats(l2)]);
        let report = Report { vcpu: vcpu(), exit, subject: None, levels, recent_max_ns: [0, 0] };
        ledger.take(report, false);
    }
    let mut out = Vec::new();
    KvmTable::new(&mut out, form, TimeZone::UTC).take(&Item::Totals(ledger.totals(0))).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn counts_are_as_kvm_bpf_tools_shows_them() {
    let exits = [(Isa::Vmx, 12, &[1; 2787][..], &[1; 178][..]), (Isa::Vmx, 0, &[], &[1; 52])];
    insta::assert_snapshot!(shown(KvmForm::Count, &exits), @r"
        Exit reason           Total       L1       L2
      0 EXCEPTION_NMI            52        0       52
     12 HLT                    2965     2787      178
        Total                  3017     2787      230
    ");
}

#[test]
fn times_are_as_kvm_bpf_tools_shows_them_and_more() {
    let exits = [(Isa::Vmx, 31, &[2000, 4000][..], &[20_000][..]), (Isa::Vmx, 12, &[3_674_603], &[])];
    insta::assert_snapshot!(shown(KvmForm::Time, &exits), @r"
        Exit reason           Total (Avg Time)       L1 (Avg Time)       L2 (Avg Time)       P50       P90       P99        Max
     12 HLT                       1 ( 3674603)        1 ( 3674603)        0 (       0)   3674603   3674603   3674603    3674603
     31 MSR_READ                  3 (    8666)        2 (    3000)        1 (   20000)      3839     18431     18431      20000
        Total (Avg Time)          4 (  925150)        3 ( 1226867)        1 (   20000)      3839   3674603   3674603    3674603
    ");
}

#[test]
fn amd_numbers_are_hexadecimal_and_long_names_push() {
    let exits = [(Isa::Svm, 0x402, &[1][..], &[][..]), (Isa::Svm, 0x9f, &[1], &[])];
    insta::assert_snapshot!(shown(KvmForm::Count, &exits), @r"
          Exit reason                  Total       L1       L2
     0x9f svm 0x9f                         1        1        0
    0x402 avic_unaccelerated_access        1        1        0
          Total                            2        2        0
    ");
}

#[test]
fn a_histogram_is_as_bcc_prints_it() {
    let exits = [(Isa::Vmx, 12, &[0, 5, 6, 6, 8][..], &[7][..])];
    insta::assert_snapshot!(shown(KvmForm::Hist { each: false }, &exits), @r"
         value               : count     distribution
             0 -> 1          : 1        |**********                              |
             2 -> 3          : 0        |                                        |
             4 -> 7          : 4        |****************************************|
             8 -> 15         : 1        |**********                              |
    ");
    let long = shown(KvmForm::Hist { each: true }, &[(Isa::Svm, 0x78, &[8_000_000_000], &[])]);
    assert!(long.starts_with("exit 0x78 hlt\n     value"), "{long}");
    assert!(long.contains("\n4294967296 -> 7516192767 : 0        |"), "{long}");
    assert!(long.contains("\n7516192768 -> ...        : 1        |****"), "{long}");
    assert_eq!(long.lines().count(), 37);
}

#[test]
fn a_slow_exit_is_a_line() {
    let mut out = Vec::new();
    let mut table = KvmTable::new(&mut out, KvmForm::Slower { excludes: vec!["HLT".into()] }, TimeZone::UTC);
    let header = Header {
        tool: "kvm".into(),
        variant: "core".into(),
        version: "0".into(),
        host: String::new(),
        kernel: String::new(),
        start_unix_ns: 0,
        start_ns: 0,
        settings: vec![],
    };
    table.take(&Item::Header(header)).unwrap();
    let slow = |code, level| Slow {
        time_ns: 5,
        vcpu: vcpu(),
        exit: Exit { isa: Isa::Vmx, code },
        level,
        latency_ns: 2_631_024,
        rip: 0xffff_8000_0000_1234,
    };
    let events = [slow(44, Level::L1), slow(1, Level::L2)].map(|slow| slow.event(&Names::default()));
    table.take(&Item::Events(events.to_vec())).unwrap();
    let end = End {
        duration_ns: 2_000_000_000,
        events: 2,
        lost: 1,
        sampled: 1,
        self_ns: 0,
        losses: vec![("untimed".into(), 3)],
    };
    table.take(&Item::End(end)).unwrap();
    insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
    Excludes: HLT
    Tracing... Hit Ctrl-C to end.
     44 APIC_ACCESS         2631024 (L1)  pid 321 vcpu 1 rip 0xffff800000001234 vm db\x1b
      1 EXTERNAL_INTERRUPT  2631024 (L2)  pid 321 vcpu 1 rip 0xffff800000001234 vm db\x1b
    2.000 s, 2 events, 1 lost, sampled 1:1, 0.0 ms of our own processor time, 3 untimed
    ");
}
