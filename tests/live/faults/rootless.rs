//! Without any privilege: one's own processes, by perf software events and what the kernel tells everybody.

#![allow(unsafe_code)]

pub mod stack;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fixture::{cold_file, filter};
use crate::run::{
    Beside, Place, Said, as_nobody, doctor, faults, fixture, in_full, lines, one_line, parent_of_all, place,
    runs, spawn, sum, trapline, u,
};
use crate::running::Worker;

const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// The kernel's own level of what users may have (2), as long as it is there: Debian's kernels begin with a level of
/// their own that lets users have nothing.
pub struct Level {
    before: String,
    _alone: MutexGuard<'static, ()>,
}

impl Level {
    pub fn of(level: &str) -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = fs::read_to_string(PARANOID).unwrap();
        if before.trim() != level {
            fs::write(PARANOID, level).unwrap();
        }
        Self { before, _alone: guard }
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        let _ = fs::write(PARANOID, self.before.trim());
    }
}

/// The files that nobody could not make.
pub fn make_files() {
    (0..3).for_each(|seed| drop(cold_file(&format!("kinds-{seed}"), 8)));
}

pub fn nobody(options: &[&str], fixture: &[String]) -> Said {
    // No variant is named: it is the one that works.
    let said = Said::run(faults("auto", options).arg("--").args(fixture), as_nobody);
    assert_eq!(
        (&said.header["variant"], &said.header["kernel_mode"]),
        (&"rootless".into(), &"counted only".into())
    );
    said
}

/// Rows with what could not be put into one add up to what wait4 says, though threads and processes came and went.
pub fn a_command_equals_wait4(variant: &'static str) {
    let _level = Level::of("2");
    make_files();
    let sh = ["sh", "-c", "for i in 1 2 3; do ls -l /etc | sort | wc -l >&2; done"].map(String::from);
    let commands = [fixture("wait4"), fixture("exec-in-thread"), [fixture("wait4"), sh.to_vec()].concat()];
    // Under emulation each command is told apart in one way.
    let vm: [&[&str]; 3] = [&["file"], &["thread"], &["thread"]];
    for (command, vm) in commands.into_iter().zip(vm) {
        let by = if in_full() { &["thread", "process", "file"] } else { vm };
        for by in by.iter().copied() {
            for _ in 0..runs().div_ceil(20) {
                let privileged = Said::by(faults(variant, &["--by", by]).arg("--").args(&command));
                assert_eq!(privileged.header["kernel_mode"], "seen");
                for said in [nobody(&["--by", by], &command), privileged] {
                    let truth = said.truth.iter().find(|t| t["what"] == "wait4").unwrap();
                    let told = (u(&truth["major"]), u(&truth["minor"]));
                    assert_eq!(u(&said.end["events"]), {
                        let all = sum(&said.totals, |_| true);
                        all.0 + all.1
                    });
                    assert!(said.totals.iter().all(|t| t["total_ns"].is_null() && t["max_ns"].is_null()));
                    if by == "file" {
                        // The command's own faults are in those rows, too.
                        let all = sum(&said.totals, |_| true);
                        assert!(all.0 >= told.0 && all.1 > told.1, "{truth}: {all:?}");
                        continue;
                    }
                    // All but the process that waited.
                    let parent = parent_of_all(&said.totals);
                    let counted = sum(&said.totals, |t| t["pid"] != *parent);
                    assert_eq!(counted, told, "{truth} in {:#?}", said.totals);
                }
            }
        }
    }
}

/// Where the kernel lets us see what is taken in kernel mode, a thread that ended has all its faults: these take none
/// on their behalf.
pub fn threads_are_exact(variant: &'static str) {
    let mut cold = fixture("cold");
    cold.push("8".into());
    for _ in 0..runs().div_ceil(10) {
        let said = Said::by(faults(variant, &[]).arg("--").args(&cold));
        assert_eq!(said.end["lost_events"], 0);
        let threads = || said.truth.iter().filter(|t| t["what"] == "thread");
        assert_eq!(threads().count(), 8);
        for truth in threads() {
            let counted = sum(&said.totals, |t| t["tid"] == truth["tid"]);
            assert_eq!(counted, (u(&truth["major"]), u(&truth["minor"])), "{truth}");
        }
    }
}

/// Lines and counts agree; a file read page by page has a line for each of its pages.
pub fn every_fault_has_a_line(_: &'static str) {
    let _level = Level::of("2");
    make_files();
    let mut kinds = fixture("kinds");
    kinds.push("3".into());
    for _ in 0..runs().div_ceil(20) {
        let said = nobody(&["-v"], &kinds);
        let of = |kind: &str| said.events.iter().filter(|e| e["kind"] == kind).count() as u64;
        assert_eq!((of("major"), of("minor")), sum(&said.totals, |_| true));
        assert_eq!((u(&said.end["events"]), &said.end["lost_events"]), (said.events.len() as u64, &0.into()));
        assert!(said.events.iter().all(|e| e["latency_ns"].is_null() && e["cause"].is_null()));
        for seed in 0..3 {
            let name = format!("/kinds-{seed}");
            let there = |e: &&serde_json::Value| e["file"].as_str().is_some_and(|f| f.ends_with(&name));
            let lines: Vec<_> = said.events.iter().filter(there).collect();
            let pages: BTreeSet<u64> = lines.iter().map(|e| u(&e["offset"])).collect();
            assert_eq!(pages, (0..8).map(|page| page * 4096).collect(), "{name}");
            assert!(lines.iter().all(|e| u(&e["addr"]).is_multiple_of(4096) && u(&e["ip"]) > 0));
        }
    }
}

/// What a small ring cannot hold is counted, and lines and lost ones are all.
pub fn a_storm_overruns_the_ring(variant: &'static str) {
    // Each fault is a line, which takes long under emulation.
    let each = if place() == Place::Vm { "150" } else { "1000" };
    let storm = [fixture("storm"), vec!["4".into(), each.into()]].concat();
    let options = ["-v", "--ring-size", "1"];
    let _level = Level::of("2");
    for said in [nobody(&options, &storm), Said::by(faults(variant, &options).arg("--").args(&storm))] {
        let all = sum(&said.totals, |_| true);
        assert_eq!(said.events.len() as u64 + u(&said.end["lost_events"]), all.0 + all.1);
        assert!(!in_full() || u(&said.end["lost_events"]) > 0, "{}", said.end);
        // No thread has more than it says itself; what is not in its row is in the one without a thread.
        let (mut told, mut counted) = (0, 0);
        for truth in &said.truth {
            let row = sum(&said.totals, |t| t["tid"] == truth["tid"]);
            assert!(row.0 <= u(&truth["major"]) && row.1 <= u(&truth["minor"]), "{truth}: {row:?}");
            told += u(&truth["major"]) + u(&truth["minor"]);
            counted += row.0 + row.1;
        }
        let rest = sum(&said.totals, |t| t["pid"].is_null());
        assert_eq!(counted + rest.0 + rest.1, told);
    }
}

/// Only what it does meanwhile is counted.
pub fn a_running_process(_: &'static str) {
    let _level = Level::of("2");
    for by in ["thread", "process"] {
        let words = fixture("on-demand");
        let mut worker = Worker::by(Command::new(&words[0]).args(&words[1..]).uid(65534).gid(65534));
        worker.touch(10);
        let before = worker.touch(1000);
        let mut command = faults("auto", &["--by", by, "-i", "50", "-p", &worker.id().to_string()]);
        command.uid(65534).gid(65534);
        let trapline = Beside::start(command);
        worker.touch(300);
        let after = worker.touch(4000);
        let said = trapline.interrupt();
        assert_eq!(said.header["variant"], "rootless");
        assert_eq!(sum(&said.totals, |_| true), (after.0 - before.0, after.1 - before.1));
        assert_eq!(sum(&said.rows, |_| true), sum(&said.totals, |_| true));
        assert_eq!((said.totals.len(), u(&said.totals[0]["pid"])), (1, u64::from(worker.id())));
    }
}

pub fn what_cannot_be_is_said(_: &'static str) {
    let level = Level::of("2");
    one_line(&as_nobody(&mut faults("auto", &["-d", "100ms"])), 3, "name them with -p PID");
    let other = spawn(&fixture("on-demand"));
    let pid = other.id().to_string();
    for variant in ["auto", "rootless"] {
        let why = "belongs to uid 0";
        one_line(&as_nobody(&mut faults(variant, &["-d", "100ms", "-p", &pid])), 3, why);
    }
    drop(other);
    for (options, why) in [
        (&["-d", "100ms"][..], "your own processes only"),
        (&["--by", "stack", "--weight", "time", "--", "true"], "--weight needs a flame graph"),
        (&["--by", "stack", "--stacks", "1:4", "-v", "--", "true"], "records every fault"),
        (&["--by", "cause", "--", "true"], "does not see the causes of faults"),
        (&["--log-step", "5", "--", "true"], "does not count in the kernel"),
        (&["--comm", "true", "--", "true"], "it filters by process only"),
    ] {
        one_line(&faults("rootless", options).output().unwrap(), 2, why);
    }
    let weighed = as_nobody(
        trapline().args(["faults", "--by", "stack", "--weight", "time", "--format", "folded", "--", "true"]),
    );
    one_line(&weighed, 3, "--weight count");
    // No option is named that was not given.
    for (words, why) in [
        ("explain -- true", "rootless: it does not time faults, and findings are about time;"),
        ("faults --split -- true", "rootless: it does not time faults; leave out --split;"),
        ("faults --slower 1ms -- true", "rootless: it does not time faults; leave out --slower;"),
    ] {
        one_line(&as_nobody(trapline().args(words.split(' '))), 3, why);
    }
    drop(level);
    if place() == Place::Vm {
        // Debian's own level. A kernel that does not have it goes on as with 2.
        let _level = Level::of("3");
        let output = as_nobody(faults("auto", &["-d", "100ms"]).args(["--", "true"]));
        if !output.status.success() {
            one_line(&output, 3, "kernel.perf_event_paranoid is 3");
        }
    }
}

/// What the doctor says of it is what happens: as anybody, and where something forbids perf's events.
pub fn the_doctor_has_tried_it(variant: &'static str) {
    let _level = Level::of("2");
    let row = |output: &Output| {
        let is = |row: &serde_json::Value| row["tool"] == "faults" && row["variant"] == variant;
        lines(&output.stdout).into_iter().find(is).unwrap()
    };
    let asked = || {
        let mut command = trapline();
        command.args(["doctor", "--format", "jsonl"]);
        command
    };
    assert_eq!(row(doctor())["attaches"], "yes");
    if !in_full() {
        return;
    }
    assert_eq!(row(&as_nobody(&mut asked()))["attaches"], "yes");
    let all =
        [(libc::EPERM, "EPERM", "seccomp profile"), (libc::ENOSYS, "ENOSYS", "a container blocks them")];
    for (errno, name, remedy) in all {
        let row = row(&as_nobody(without_perf(&mut asked(), errno)));
        assert_eq!((&row["attaches"], &row["errno"]), (&"no".into(), &name.into()), "{row}");
        assert!(row["remedy"].as_str().unwrap().contains(remedy), "{row}");
        let mut command = faults(variant, &["--", "true"]);
        one_line(&as_nobody(without_perf(&mut command, errno)), 3, row["error"].as_str().unwrap());
    }
    let table = |output: Output| String::from_utf8(output.stdout).unwrap();
    // Where nothing else attaches it is used, and the tool does not work for all processes.
    let output = as_nobody(trapline().arg("doctor"));
    assert_eq!(output.status.code(), Some(3));
    let said = table(output);
    assert!(said.contains("faults   rootless     yes, used; own processes only\n"), "{said}");
    for (errno, name, _) in all {
        let said = table(as_nobody(without_perf(trapline().arg("doctor"), errno)));
        assert!(said.contains(&format!("faults   rootless     no   {name}\n")), "{said}");
    }
}

/// As a container does it that keeps perf's events from what runs in it.
fn without_perf(command: &mut Command, errno: i32) -> &mut Command {
    let forbid = move || filter(libc::SYS_perf_event_open, libc::SECCOMP_RET_ERRNO | errno as u32);
    // SAFETY: it makes system calls only, and takes no memory.
    unsafe { command.pre_exec(forbid) }
}
