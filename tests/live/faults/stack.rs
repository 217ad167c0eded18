//! `--by stack`: every fault goes to the chain of calls that it came from.

pub mod chains;
pub mod underfoot;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

pub use self::underfoot::{
    a_program_that_is_truncated, functions_of_interpreters, lacks_interpreters,
    perf_maps_in_other_namespaces, perf_maps_that_are_written_anew,
};
use crate::run::{
    Beside, Place, Said, Source, faults, fixture, in_full, one_line, place, preempts, runs, scratch, sum,
    trapline, u, version,
};
use crate::running::Worker;

/// The rows whose stack has these user functions innermost.
pub fn of_chain(records: &[Value], chain: &str) -> (u64, u64) {
    sum(records, |record| {
        let frames = record["stack"].as_str().unwrap_or_default().split(';');
        let user: Vec<&str> = frames.filter(|frame| !frame.ends_with("_[k]")).collect();
        user.join(";").ends_with(chain)
    })
}

/// What a fixture said of its chains: how each ends, its faults, and how many pages it touched.
pub fn chains(truth: &[Value]) -> Vec<(String, (u64, u64), u64)> {
    let told = truth.iter().filter(|truth| truth["what"] == "chain");
    told.map(|t| (t["chain"].as_str().unwrap().to_owned(), (u(&t["major"]), u(&t["minor"])), u(&t["pages"])))
        .collect()
}

/// The program whose chains are gone through when it is asked to; it dies with this.
pub struct OnDemand(Worker);

impl OnDemand {
    pub fn of(command: &mut Command) -> Self {
        Self(Worker::by(command))
    }

    /// As whoever the test is.
    pub fn start() -> Self {
        Self(Worker::start(&fixture("chains-on-demand")))
    }

    pub fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// Goes through all chains, and gives what it says of the five and then of its thread.
    pub fn ask(&mut self) -> Vec<Value> {
        self.answers("", 6)
    }

    /// How many faults its thread has had, major and minor. While it does nothing there may come some: a page that another
    /// processor knows as it was before faults once more.
    pub fn faults(&mut self) -> (u64, u64) {
        let told = &self.answers("thread", 1)[0];
        (u(&told["major"]), u(&told["minor"]))
    }

    /// What is said by a tracer of its pid while it goes through its chains: all rows together are what getrusage counted.
    pub fn traced(mut self, tracer: impl FnOnce(&str) -> Command, sees_kernel: bool) -> Said {
        self.ask();
        let before = self.faults();
        let tracer = Beside::start(tracer(&self.pid()));
        let truth = self.ask();
        // Names are looked for while it runs: under emulation that takes seconds.
        std::thread::sleep(Duration::from_millis(if place() == Place::Vm { 6000 } else { 120 }));
        let said = tracer.interrupt();
        let now = self.faults();
        let told = sum(&said.totals, |_| true);
        assert_eq!(told, (now.0 - before.0, now.1 - before.1), "{truth:?} {:#?} {}", said.totals, said.end);
        assert_eq!(sum(&said.rows, |_| true), told);
        assert_truth(&said, &truth, sees_kernel);
        said
    }

    fn answers(&mut self, question: &str, lines: usize) -> Vec<Value> {
        self.0.tell(question);
        (0..lines).map(|_| serde_json::from_str(&self.0.line()).unwrap()).collect()
    }
}

/// Every fault is where it was caused, and nothing is anywhere else; those taken in kernel mode may be out of sight.
pub fn assert_truth(said: &Said, truth: &[Value], sees_kernel: bool) {
    let truth = chains(truth);
    assert_eq!(truth.len(), 5);
    for (chain, faults, pages) in &truth {
        let seen = if sees_kernel || !chain.ends_with("chain_reads") { *faults } else { (0, 0) };
        let found = of_chain(&said.totals, chain);
        let is_whole = found.0 == seen.0 && said.is_but_for_missed(found.1, seen.1, 1);
        assert!(is_whole, "{chain}: {found:?} of {seen:?} in {:#?} {}", said.totals, said.end);
        assert_eq!(faults.0 + faults.1, *pages, "{chain}");
        if seen != *faults {
            let rest = sum(&said.totals, |row| row["stack"] == "(not attributed)");
            assert!(rest.1 >= faults.1, "{chain} in {:#?}", said.totals);
        }
    }
    // Those of the chain that reads are the kernel's, and say so.
    let reads = of_chain(&said.totals, "chain_reads");
    let in_kernel =
        sum(&said.totals, |row| row["stack"].as_str().unwrap_or_default().contains("chain_reads;"));
    assert_eq!(reads, in_kernel, "{:#?}", said.totals);
    let kernel = said.totals.iter().filter_map(|row| row["stack"].as_str()?.split_once("chain_reads;"));
    for (_, frames) in kernel {
        assert!(frames.split(';').all(|frame| frame.ends_with("_[k]")), "{frames}");
        assert!(
            frames.contains("sys") && !frames.contains("page_fault") && !frames.contains("bpf_"),
            "{frames}"
        );
    }
    assert_eq!((&said.end["unattributed_faults"], &said.end["lost_stacks"]), (&0.into(), &0.into()));
    // What is deeper than the kernel walks is said to be so.
    assert!(said.is_but_for_missed(u(&said.end["truncated_stacks"]).min(44), 44, 1), "{}", said.end);
    let is_cut = |stack: &str| stack.contains(";[deeper];chain_deep;") && stack.ends_with("chain_leaf");
    let cut = sum(&said.totals, |row| row["stack"].as_str().is_some_and(is_cut)).1;
    assert!(said.is_but_for_missed(cut, 44, 1), "{cut}, {}", said.end);
}

/// From 7.0 on programs are preempted, and one that would interrupt itself is skipped. Where the processor is emulated a walk by
/// tables takes so long that half of them were; that the kernel takes it is tested with one thread.
fn by_stack(variant: &str) -> Command {
    let unwind = if preempts() && !in_full() { "fp" } else { "auto" };
    faults(variant, &["--by", "stack", "--unwind", unwind])
}

/// A command that has ended when its stacks are named.
pub fn a_command(variant: &'static str) {
    for _ in 0..runs().div_ceil(10) {
        let said = Said::by(by_stack(variant).arg("--").args(fixture("chains")));
        assert_truth(&said, &said.truth, true);
        let all = sum(&said.totals, |_| true);
        assert_eq!(u(&said.end["events"]), all.0 + all.1);
        // The name comes first.
        assert!(said.totals.iter().filter_map(|t| t["stack"].as_str()).all(|s| !s.starts_with("chain")));
    }
}

/// A process that was there before: all rows together are what getrusage counted.
pub fn a_running_process(variant: &'static str) {
    let chains = OnDemand::start();
    chains.traced(|pid| faults(variant, &["--by", "stack", "-i", "50ms", "-p", pid]), true);
}

/// Counts are exact whichever stacks are taken.
pub fn a_part_of_them(variant: &'static str) {
    for stacks in ["major", "1:4"] {
        let said = Said::by(by_stack(variant).args(["--stacks", stacks, "--"]).args(fixture("chains")));
        assert_eq!(said.header["stacks"], stacks);
        let all = sum(&said.totals, |_| true);
        assert_eq!(u(&said.end["events"]), all.0 + all.1);
        let untaken = sum(&said.totals, |row| row["stack"].is_null());
        let unseen = sum(&said.totals, |row| row["stack"] == "(not attributed)");
        let minor_taken = all.1 - untaken.1 - unseen.1;
        if stacks == "major" {
            assert_eq!((untaken.0, minor_taken), (0, 0));
        } else {
            // By chance, of more than 700: the bounds are ten standard deviations away.
            assert!(
                all.1 > 700 && (all.1 / 12..all.1 / 2).contains(&minor_taken),
                "{minor_taken} of {all:?}"
            );
        }
    }
}

/// Flame graphs hold every fault, and are written for their tools.
pub fn flame_graphs(_: &'static str) {
    let written = |name: &str, options: &[&str]| {
        let path = scratch().join(name);
        let mut command = trapline();
        command.args(["faults", "--by", "stack", "-o", path.to_str().unwrap()]);
        let output = command.args(options).arg("--").args(fixture("chains")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let truth = String::from_utf8(output.stdout).unwrap();
        (std::fs::read_to_string(path).unwrap(), truth, said)
    };
    let (folded, truth, said) = written("chains.folded", &[]);
    // The format has no place for what was lost, so standard error says it.
    assert!(said.contains("trapline: used "), "{said}");
    let lost = |name: &str| {
        let of =
            |line: &str| line.split_once(&format!(" {name}. "))?.0.rsplit(' ').next()?.parse::<u64>().ok();
        said.lines().find_map(of).unwrap_or(0)
    };
    let truth: Vec<Value> = truth.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (chain, faults, _) in chains(&truth).into_iter().filter(|(chain, ..)| !chain.ends_with("reads")) {
        let lines = folded.lines().filter_map(|line| line.rsplit_once(' '));
        let n: u64 = lines.filter(|(s, _)| s.ends_with(&chain)).map(|(_, n)| n.parse::<u64>().unwrap()).sum();
        assert!(
            n <= faults.1 && faults.1 - n <= lost("missed programs"),
            "{chain}: {n} of {} in {folded}",
            faults.1
        );
    }
    if !in_full() {
        return;
    }
    let (svg, ..) = written("chains.svg", &["--weight", "time"]);
    for text in ["Time in page faults", "chain_middle (", "do_syscall_64 ("] {
        assert!(svg.contains(text), "{text} in {svg}");
    }
}

pub const NARROW: Source =
    Source { compiler: "gcc", file: "faults/stack/narrow.S", options: &["-m32", "-nostdlib", "-static"] };

/// 32-bit code, whose frames are half as wide.
pub fn narrow_code(variant: &'static str) {
    let program = NARROW.program();
    let said = Said::by(faults(variant, &["--by", "stack"]).arg("--").arg(program));
    let found = of_chain(&said.totals, "_start;narrow_outer;narrow_leaf");
    assert!(found.0 == 0 && said.is_but_for_missed(found.1, 64, 1), "{:#?}", said.totals);
}

/// A thread whose return addresses a uprobe has replaced, in the very function that faults.
pub fn return_addresses_replaced(variant: &'static str) {
    let mut process = OnDemand::start();
    let options = ["-p", &process.pid(), "--span", &format!("{}:chain_leaf", fixture("")[0])];
    let spans = Beside::start(faults(variant, &options));
    process.ask();
    let mut stacks =
        Beside::start(faults(variant, &["-p", &process.pid(), "--by", "stack", "-c", "-i", "1s"]));
    let truth = process.ask();
    stacks.until_all_is_named(&crate::faults::fair::comm());
    let said = stacks.interrupt();
    let calls = u(&spans.interrupt().totals[0]["calls"]);
    // Four chains of the five end there, each warmed up and then gone through, twice.
    assert_eq!(calls, 16);
    let leaves: Vec<_> = chains(&truth).into_iter().filter(|(chain, ..)| chain.ends_with("leaf")).collect();
    // From 6.11 kernels put the addresses back (fixup_uretprobe_trampoline_entries); before, no caller is known.
    let shown = if version() < (6, 11) {
        vec![("[unknown];chain_leaf".to_owned(), leaves.iter().map(|(_, faults, _)| faults.1).sum())]
    } else {
        leaves.into_iter().map(|(chain, faults, _)| (chain, faults.1)).collect()
    };
    for (chain, faults) in shown {
        let found = of_chain(&said.totals, &chain);
        assert!(said.is_but_for_missed(found.1, faults, 1), "{chain}: {found:?} in {:#?}", said.totals);
    }
}

/// What cannot be is said in one line.
pub fn refusals(_: &'static str) {
    let said = |options: &[&str]| {
        let mut command = trapline();
        command.args(["faults", "-d", "100ms"]).args(options).output().unwrap()
    };
    let path = scratch().join("refused.svg");
    one_line(&said(&["-o", path.to_str().unwrap()]), 2, "--by stack");
    assert!(!path.exists());
    assert_eq!(said(&["--by", "stack", "--stacks", "minor"]).status.code(), Some(2));
    one_line(&said(&["--by", "stack", "--variant", "counters"]), 2, "sees no single fault");
}
