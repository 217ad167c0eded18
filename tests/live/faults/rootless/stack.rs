//! Without any privilege: faults by the chain of calls that they came from.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;

use crate::faults::rootless::{Level, make_files, nobody};
use crate::faults::stack::{OnDemand, assert_truth, chains, of_chain};
use crate::run::{Place, Said, as_nobody, faults, fixture, in_full, place, runs, scratch, sum, trapline, u};

/// A command that has ended when its stacks are named; rows with what has no stack add up to what wait4 says.
pub fn a_command(variant: &'static str) {
    let _level = Level::of("2");
    let options = ["--by", "stack"];
    let waiting = [fixture("wait4"), fixture("chains")].concat();
    for _ in 0..runs().div_ceil(20) {
        let as_root = Said::by(faults(variant, &options).arg("--").args(&waiting));
        assert_eq!(as_root.header["kernel_mode"], "seen");
        for (said, sees_kernel) in [(nobody(&options, &waiting), false), (as_root, true)] {
            assert_eq!(said.header["stacks"], "all");
            assert_truth(&said, &said.truth, sees_kernel);
            let all = sum(&said.totals, |_| true);
            assert_eq!(u(&said.end["events"]), all.0 + all.1);
            // Those of the process that waited are in those rows, too.
            let told = said.truth.iter().find(|t| t["what"] == "wait4").unwrap();
            assert!(all.0 >= u(&told["major"]) && all.1 > u(&told["minor"]), "{told}: {all:?}");
            assert!(said.totals.iter().all(|t| t["total_ns"].is_null() && t["max_ns"].is_null()));
        }
    }
}

/// Only what it does meanwhile: all rows together are what getrusage counted.
pub fn a_running_process(variant: &'static str) {
    let _level = Level::of("2");
    for uid in [65534, 0] {
        let words = fixture("chains-on-demand");
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).uid(uid).gid(uid);
        let chains = OnDemand::of(&mut command);
        let name = if uid == 0 { variant } else { "auto" };
        let tracer = |pid: &str| {
            let mut command = faults(name, &["--by", "stack", "-i", "50ms", "-p", pid]);
            command.uid(uid).gid(uid);
            command
        };
        let said = chains.traced(tracer, uid == 0);
        assert_eq!(said.header["variant"], "rootless");
    }
}

/// So many processes that those which have ended are named and forgotten meanwhile: nothing of them is.
pub fn many_short_ones(variant: &'static str) {
    // More than those of whom nothing need be forgotten yet.
    let many = if place() == Place::Vm { 40 } else { 100 };
    let _level = Level::of("2");
    let each = fixture("chains").iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let script = format!("for i in $(seq {many}); do {each}; done");
    let command = ["sh".into(), "-c".into(), script];
    let as_root = in_full().then(|| {
        let mut as_root = faults(variant, &["--by", "stack", "--ring-size", "64"]);
        let as_root = Said::by(as_root.arg("--").args(&command));
        assert_eq!((&as_root.end["dropped_records"], &as_root.end["lost_events"]), (&0.into(), &0.into()));
        (as_root, true)
    });
    for (said, sees_kernel) in [(nobody(&["--by", "stack"], &command), false)].into_iter().chain(as_root) {
        // What little memory a user may lock cannot hold while we have no processor, is in no stack.
        let dropped = u(&said.end["dropped_records"]);
        let told = chains(&said.truth);
        assert_eq!(told.len() as u64, 5 * many);
        for (chain, ..) in &told[..5] {
            let of = |(other, ..): &&(String, _, _)| other == chain;
            let sums = told.iter().filter(of).fold((0, 0), |sum, (_, n, _)| (sum.0 + n.0, sum.1 + n.1));
            let there = if sees_kernel || !chain.ends_with("chain_reads") { sums } else { (0, 0) };
            let seen = of_chain(&said.totals, chain);
            let is_right = if dropped == 0 { seen == there } else { seen.0 <= there.0 && seen.1 <= there.1 };
            assert!(is_right, "{chain}: {seen:?} of {there:?}, {}", said.end);
        }
        // Each is there to be asked only until it has ended.
        let gone =
            |row: &Value| row["lines"].as_str().is_some_and(|lines| lines.contains("the process ended"));
        assert!(!said.totals.iter().any(gone), "{:#?}", said.totals);
        let all = sum(&said.totals, |_| true);
        assert_eq!(u(&said.end["events"]), all.0 + all.1);
    }
}

/// Counts are exact whichever stacks are taken.
pub fn a_part_of_them(variant: &'static str) {
    let _level = Level::of("2");
    make_files();
    let cold = [fixture("kinds"), vec!["3".into()]].concat();
    for (stacks, command) in [("major", &cold), ("1:4", &fixture("chains"))] {
        let options = ["--by", "stack", "--stacks", stacks];
        let as_root = Said::by(faults(variant, &options).arg("--").args(command));
        for said in [as_root, nobody(&options, command)] {
            assert_eq!(said.header["stacks"], stacks);
            let all = sum(&said.totals, |_| true);
            assert_eq!(u(&said.end["events"]), all.0 + all.1);
            assert_eq!((&said.end["lost_events"], &said.end["dropped_records"]), (&0.into(), &0.into()));
            let untaken = sum(&said.totals, |row| row["stack"].is_null());
            let unseen = sum(&said.totals, |row| row["stack"] == "(not attributed)");
            let taken = (all.0 - untaken.0 - unseen.0, all.1 - untaken.1 - unseen.1);
            if stacks == "major" {
                assert_eq!((untaken.0, taken.1), (0, 0), "{:#?}", said.totals);
                assert!(taken.0 >= 3 * 8, "a file read page by page: {taken:?}");
            } else {
                // One of four in a row, of the one thread on each processor, from where each begins.
                let seen = taken.1 + untaken.1;
                let processors = std::thread::available_parallelism().unwrap().get() as u64;
                assert!(
                    seen > 600 && (seen / 4 - processors..=seen / 4).contains(&taken.1),
                    "{taken:?} of {seen}"
                );
            }
        }
    }
}

/// Stacks that were copied and are walked by tables: no fault is in another chain, and what the rings had no space for is counted.
pub fn copied_stacks(variant: &'static str) {
    let _level = Level::of("2");
    let said = nobody(&["--by", "stack"], &fixture("chains"));
    assert_eq!((&said.header["unwind"], &said.end["partial_stacks"]), (&"fp".into(), &Value::Null));
    let options = ["--by", "stack", "--unwind", "tables"];
    for said in [
        nobody(&options, &fixture("chains")),
        Said::by(faults(variant, &options).arg("--").args(fixture("chains"))),
    ] {
        assert_eq!(said.header["unwind"], "tables");
        let dropped = u(&said.end["dropped_records"]);
        for (chain, faults, _) in chains(&said.truth) {
            // Kernel mode is the privileged one's alone.
            let (_, minor) = of_chain(&said.totals, &chain);
            let is_seen = !chain.ends_with("chain_reads") || said.header["kernel_mode"] == "seen";
            let there = if is_seen { faults.1 } else { 0 };
            let is_right = minor == there || minor < there && there - minor <= dropped;
            assert!(is_right, "{chain}: {minor} of {there} in {:#?} {}", said.totals, said.end);
        }
        let all = sum(&said.totals, |_| true);
        assert_eq!(u(&said.end["events"]), all.0 + all.1);
    }
}

/// Written for the tools that make flame graphs, or as one.
pub fn flame_graphs(variant: &'static str) {
    let _level = Level::of("2");
    for (uid, sees_kernel) in [(0, true), (65534, false)] {
        let written = |name: &str| {
            let path = scratch().join(format!("rootless-{uid}-{name}"));
            File::create(&path).unwrap().set_permissions(Permissions::from_mode(0o666)).unwrap();
            let mut command = trapline();
            command.args([
                "faults",
                "--by",
                "stack",
                "--variant",
                variant,
                "-o",
                path.to_str().unwrap(),
                "--",
            ]);
            command.args(fixture("chains"));
            let output = if uid == 0 { command.output().unwrap() } else { as_nobody(&mut command) };
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let written = fs::read_to_string(&path).unwrap();
            fs::remove_file(path).unwrap();
            (written, crate::run::lines(&output.stdout))
        };
        let (folded, truth) = written("chains.folded");
        for (chain, faults, _) in chains(&truth) {
            let is_kernels = chain.ends_with("chain_reads");
            let ends = if is_kernels { format!("{chain};") } else { chain.clone() };
            let is = |stack: &str| if is_kernels { stack.contains(&ends) } else { stack.ends_with(&ends) };
            let lines = folded.lines().filter_map(|line| line.rsplit_once(' '));
            let n: u64 = lines.filter(|(stack, _)| is(stack)).map(|(_, n)| n.parse::<u64>().unwrap()).sum();
            assert_eq!(n, if is_kernels && !sees_kernel { 0 } else { faults.1 }, "{chain} in {folded}");
        }
        if !in_full() {
            continue;
        }
        let (svg, _) = written("chains.svg");
        assert!(svg.contains("chain_middle (") && svg.contains("trapline faults by rootless"), "{svg}");
        assert_eq!(svg.contains("_[k]") || svg.contains("do_syscall_64 ("), sees_kernel);
    }
}
