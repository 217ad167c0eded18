//! Exits of virtual machines: filters, many vCPUs, guests that come, go and die, a machine that changes.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::faults::diff::compared;
use crate::faults::replay::{count, is_whole, page};
use crate::kvm::{ALL_KINDS, CPUID, HLT, IO, assert_truth, guest, load, of, run, sum, watched};
use crate::run::{Beside, Said, lines, scratch, trapline, u};
use crate::running::{Running, Worker, until};

fn start(arguments: &[&str]) -> Running {
    let words = guest(arguments);
    Running::start(Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()))
}

fn truth(guest: Running) -> Value {
    let output = guest.output();
    assert!(output.status.success(), "{output:?}");
    lines(&output.stdout).remove(0)
}

pub fn filters(_: &'static str) {
    // By name and by process, from outside, beside another guest; long enough for their names to be read.
    let kinds = [ALL_KINDS, &["--nested", "30", "--pause", "30ms"]].concat();
    let by_vm = Beside::start(run("count", "auto", &["--by", "vm"]));
    let guests = ["red", "blue"].map(|name| start(&[&kinds[..], &["--name", name]].concat()));
    let pids = guests.each_ref().map(|guest| u64::from(guest.id()));
    let by_process = Beside::start(run("count", "auto", &["-p", &pids[1].to_string()]));
    let truths = guests.map(truth);
    let said = by_process.wait();
    assert!(of(&said.totals, HLT, "count") <= u(&truths[1]["hlt"]));
    let rows = by_vm.interrupt().totals;
    assert_eq!(rows.len(), 2, "{rows:#?}");
    for (pid, name) in pids.iter().zip(["red", "blue"]) {
        let row = rows.iter().find(|row| u(&row["pid"]) == *pid).unwrap();
        assert_eq!(row["vm"], name);
        assert!(u(&row["count"]) > 300 && u(&row["l2_count"]) >= 60, "{row}");
    }
    // The VM of a name among the descendants of a command.
    let words = |name| guest(&[&kinds[..], &["--name", name]].concat()).join(" ");
    let both = format!("{} & {} & wait", words("red"), words("blue"));
    let by_name = Said::by(&mut run("count", "auto", &["--vm", "red", "--", "sh", "-c", &both]));
    let (truth, rows): (Vec<Value>, Vec<Value>) =
        by_name.totals.into_iter().partition(|total| total["workload"] == "guest");
    assert_truth(&rows, &truth[0]);
    assert_eq!((truth.len(), u(&by_name.end["other_vm_exits"]) > 300), (2, true));
    // A guest of several vCPUs: by vCPU, one of them, one level.
    let three = [&kinds[..], &["--vcpus", "3"]].concat();
    let (by_vcpu, _) = watched("count", "auto", &["--by", "vcpu"], &three);
    let numbers: Vec<u64> = by_vcpu.totals.iter().map(|row| u(&row["vcpu"])).collect();
    assert_eq!(numbers, [0, 1, 2]);
    let (by_both, all) = watched("count", "auto", &["--by", "vm,reason"], &three);
    assert_eq!(of(&by_both.totals, IO, "count"), u(&all["io"]));
    assert!(
        by_both.totals.iter().all(|row| row["pid"] == by_both.totals[0]["pid"] && row["name"].is_string())
    );
    let (one, _) = watched("time", "auto", &["--vcpu", "1"], &three);
    assert_eq!(of(&one.totals, IO, "count") * 3, u(&all["io"]));
    for (level, other) in [("l1", "l2_count"), ("l2", "l1_count")] {
        let (said, truth) = watched("time", "auto", &["--level", level], &three);
        assert_eq!(sum(&said.totals, other), 0);
        let name = if level == "l1" { "cpuid" } else { "l2_cpuid" };
        assert_eq!(of(&said.totals, CPUID, "count"), u(&truth[name]));
        let split: u64 = said.totals.iter().map(|row| u(&row[&*format!("{level}_ns")])).sum();
        assert_eq!(split, sum(&said.totals, "total_ns"));
    }
    // Chosen reasons.
    let (said, truth) = watched("hist", "auto", &["IO_INSTRUCTION", "io", "HLT"], &three);
    let names: Vec<&str> = said.totals.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["hlt", "io"]);
    assert_eq!(sum(&said.totals, "count"), u(&truth["hlt"]) + u(&truth["io"]));
    // A process that runs no guest, and never will.
    let idle = Worker::by(&mut Command::new("cat"));
    let trapline = Beside::start(run("count", "auto", &["-p", &idle.id().to_string()]));
    idle.end();
    assert!(trapline.wait().totals.is_empty());
}

pub fn a_recording_is_read_back_whole(_: &'static str) {
    let words = guest(&[ALL_KINDS, &["--nested", "30", "--pause", "20ms"]].concat());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    for how in [
        &["count"][..],
        &["time", "--split", "--by", "vcpu"],
        &["hist", "--split"],
        &["count", "--by", "msr"],
    ] {
        let text = is_whole(&[&["kvm"], how, &["-i", "50ms"]].concat(), &words);
        assert!(count(&text, "row") > 0 && count(&text, "total") > 0, "{text}");
    }
    let text = is_whole(&["kvm", "slower", "0"], &words);
    assert!(count(&text, "event") > 100, "{text}");
}

/// Exits by reason, level and time, also of a guest's guests, and what the time was spent on.
pub fn a_page_has_the_exits_of_the_guest(_: &'static str) {
    let guest = guest(&["--io", "50", "--cpuid", "70", "--hlt", "60", "--pause", "20ms", "--nested", "60"]);
    let (page, printed) = page(&["kvm", "hist", "--split", "-i", "100ms"], &guest);
    let truth = &printed[0];
    let sum = |measure: &str, names: [&str; 2]| {
        let words = page.0["dims"][0]["words"].as_array().unwrap();
        let is = |name: &&str| words.iter().any(|word| word == name);
        page.sum(measure, Some(("name", names.into_iter().find(is).unwrap())))
    };
    for (names, measure, name) in [
        (IO, "l1_count", "io"),
        (CPUID, "l1_count", "cpuid"),
        (HLT, "l1_count", "hlt"),
        (CPUID, "l2_count", "l2_cpuid"),
    ] {
        assert_eq!(sum(measure, names), u(&truth[name]), "{name} of {truth}");
    }
    let all = |measure: &str| page.sum(measure, None);
    assert_eq!(all("count"), all("l1_count") + all("l2_count"));
    // The guest halted for 60 times 20 ms.
    assert!(page.0["has_time"] == true && page.intervals() >= 6, "{} intervals", page.intervals());
    assert!(sum("total_ns", HLT) >= 1_200_000_000 && all("guest_ns") > 0);
    let parts = page.parts();
    assert!(parts > 0 && parts <= all("total_ns"), "{parts} of {}", all("total_ns"));
    assert!(page.0["cells"]["octave"].as_array().unwrap().iter().any(|octave| octave.as_i64() > Some(0)));
}

/// Two recordings of guests that differ in one kind of exit: so do the rows, also of histograms, and in an export.
pub fn differences_are_those_of_the_guests(_: &'static str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    for (what, extension) in [("count", "jsonl"), ("time", "trapline"), ("hist", "trapline")] {
        let path = |name: &str| folder.path().join(format!("{what}-{name}.{extension}"));
        let [before, after] = [("before", "100"), ("after", "350")].map(|(name, io)| {
            let path = path(name);
            let mut run = trapline();
            run.args(["kvm", what, "-o"]).arg(&path).arg("--").args(guest(&["--io", io, "--cpuid", "70"]));
            let output = run.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            (path, lines(&output.stdout).remove(0))
        });
        let options = ["--per", "1", "--figures", "count", "--format", "jsonl"];
        let rows = compared(&[&before.0, &after.0], &options);
        for (names, name) in [(IO, "io"), (CPUID, "cpuid")] {
            let of = |row: &&Value| row["type"] == "total" && names.iter().any(|name| row["name"] == *name);
            let row = rows.iter().find(of).unwrap_or_else(|| panic!("no {name}: {rows:#?}"));
            let [old, new] = [&before, &after].map(|(_, truth)| u(&truth[name]) * 1000);
            assert_eq!([u(&row["before"]), u(&row["after"])], [old, new], "{row}");
            assert_eq!(row["diff"].as_i64().unwrap(), (new - old).cast_signed(), "{row}");
        }
    }
}

pub fn intervals_add_up(_: &'static str) {
    let kinds =
        ["--io", "50", "--cpuid", "70", "--hlt", "100", "--pause", "10ms", "--nested", "300", "--vcpus", "2"];
    let (said, truth) = watched("hist", "auto", &["-i", "200ms", "--split"], &kinds);
    assert_truth(&said.totals, &truth);
    let times: std::collections::BTreeSet<u64> = said.rows.iter().map(|row| u(&row["time_ns"])).collect();
    assert!(times.len() >= 4, "{} intervals", times.len());
    for total in &said.totals {
        let rows = || said.rows.iter().filter(|row| row["reason"] == total["reason"]);
        for field in ["count", "l2_count", "total_ns", "guest_ns", "timed", "vmm_ns", "to_vmm"] {
            assert_eq!(rows().map(|row| u(&row[field])).sum::<u64>(), u(&total[field]), "{field} of {total}");
        }
        let buckets = |row: &Value| row["buckets"].as_array().unwrap().iter().map(|b| u(&b[2])).sum::<u64>();
        assert_eq!(rows().map(buckets).sum::<u64>(), buckets(total));
        assert_eq!(rows().filter_map(|row| row["max_ns"].as_u64()).max(), total["max_ns"].as_u64());
        assert_eq!(rows().filter_map(|row| row["min_ns"].as_u64()).min(), total["min_ns"].as_u64());
    }
    let (cumulative, _) = watched("time", "auto", &["-c", "-i", "200ms"], &kinds);
    for total in &cumulative.totals {
        let rows = cumulative.rows.iter().filter(|row| row["reason"] == total["reason"]);
        let counts: Vec<u64> = rows.map(|row| u(&row["count"])).collect();
        assert!(counts.is_sorted() && counts.last() == total["count"].as_u64().as_ref(), "{total}");
    }
}

pub fn sixty_four_vcpus(variant: &'static str) {
    let (said, truth) =
        watched("time", variant, &["--split"], &[ALL_KINDS, &["--nested", "20", "--vcpus", "64"]].concat());
    assert_truth(&said.totals, &truth);
    assert_eq!((u(&said.end["untimed_exits"]), u(&said.end["uncounted_exits"])), (64, 0));
    assert!(said.totals.iter().all(|row| row["max_ns"].as_u64().unwrap_or(0) <= u(&said.end["duration_ns"])));
    assert!(sum(&said.totals, "preempted_ns") > 0, "64 threads and few processors: some had to wait");
}

/// Guests that begin and end while we look, one after the other and side by side.
pub fn guests_come_and_go(_: &'static str) {
    let trapline = Beside::start(run("time", "auto", &["-i", "50ms"]));
    let mut truths = Vec::new();
    for _ in 0..4 {
        let guests: Vec<_> = (0..3).map(|_| start(&[ALL_KINDS, &["--nested", "10"]].concat())).collect();
        truths.extend(guests.into_iter().map(truth));
    }
    let said = trapline.interrupt();
    let all = |name: &str| truths.iter().map(|truth| u(&truth[name])).sum::<u64>();
    for (names, name, level) in
        [(IO, "io", "l1_count"), (HLT, "hlt", "count"), (CPUID, "l2_cpuid", "l2_count")]
    {
        assert_eq!(of(&said.totals, names, level), all(name));
        assert_eq!(of(&said.rows, names, level), all(name));
    }
    assert_eq!((u(&said.end["untimed_exits"]), u(&said.end["uncounted_exits"])), (12, 0));
}

/// Waits until a thread of the process sleeps by clock_nanosleep: the VMM in its pause.
fn wait_for_pause(pid: u32) {
    let sleeps = || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let mut calls = threads.filter_map(|thread| fs::read_to_string(thread.path().join("syscall")).ok());
        calls.any(|call| call.split(' ').next() == Some("230"))
    };
    until("the pause", sleeps);
}

/// Killed between exit and entry: that exit is counted and never timed, and nobody who comes later gets its time.
pub fn a_vcpu_dies_in_its_exit(_: &'static str) {
    let trapline = Beside::start(run("time", "auto", &["--split"]));
    for _ in 0..5 {
        let victim = start(&["--hlt", "1", "--pause", "30s"]);
        wait_for_pause(victim.id());
    }
    let after = truth(start(ALL_KINDS));
    let said = trapline.interrupt();
    assert_eq!(of(&said.totals, HLT, "count"), u(&after["hlt"]) + 5);
    assert_eq!(of(&said.totals, HLT, "timed"), u(&after["hlt"]));
    assert!(
        said.totals.iter().all(|row| row["max_ns"].as_u64().unwrap_or(0) < 5_000_000_000),
        "{:#?}",
        said.totals
    );
    assert_eq!(u(&said.end["untimed_exits"]), 5 + 1);
}

pub fn a_processor_goes_offline(_: &'static str) {
    let online = "/sys/devices/system/cpu/cpu1/online";
    let trapline = Beside::start(run("time", "auto", &["--split"]));
    let guest = start(&["--io", "3000", "--nested", "500", "--hlt", "100", "--pause", "5ms", "--vcpus", "4"]);
    for state in ["0", "1", "0", "1"] {
        // The guest goes on meanwhile.
        std::thread::sleep(Duration::from_millis(150));
        fs::write(online, state).unwrap();
    }
    let truth = truth(guest);
    let said = trapline.interrupt();
    assert_truth(&said.totals, &truth);
    for row in &said.totals {
        let phases = ["kvm_ns", "vmm_ns", "blocked_ns", "preempted_ns", "fault_ns"];
        assert_eq!(phases.iter().map(|phase| u(&row[phase])).sum::<u64>(), u(&row["total_ns"]), "{row}");
        assert!(row["max_ns"].as_u64().unwrap_or(0) <= u(&said.end["duration_ns"]), "{row}");
    }
    assert_eq!(u(&said.end["untimed_exits"]), 4);
}

fn there_is_a_vm(pid: u32) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|link| link.to_string_lossy().contains("kvm-vm"))
}

/// QEMU with its firmware: a name that somebody gave, and HLTs that really sleep in KVM.
pub fn a_real_vmm_by_its_name(_: &'static str) {
    let options = ["--vm", "named by us", "--split", "-i", "200ms", "-c"];
    let mut vmm = Command::new("qemu-system-x86_64");
    vmm.args(["-accel", "kvm", "-nodefaults", "-display", "none", "-m", "32", "-cpu", "host"])
        .args(["-name", "guest=named by us,debug-threads=on", "-no-user-config"])
        .stdin(Stdio::null());
    let mut vmm = Running::start(&mut vmm);
    until("a virtual machine", || there_is_a_vm(vmm.id()));
    let mut trapline = Beside::start(run("time", "auto", &options));
    let (mut much, mut slept) = (false, false);
    while !(much && slept) {
        let row = [trapline.next()];
        much |= of(&row, IO, "count") > 100;
        slept |= of(&row, HLT, "count") > 0 && of(&row, HLT, "blocked_ns") > 0;
        assert!(vmm.try_wait().unwrap().is_none(), "it ended by itself");
    }
    drop(vmm);
    let said = trapline.interrupt();
    assert_eq!(said.end["lost_events"], 0);
}

/// KVM ran the guest, and no exit showed: the end and standard error say so.
pub fn guests_that_fire_no_exit_are_no_silent_zero(_: &'static str) {
    let output = run("count", "auto", &["--"]).args(guest(&["--io", "3"])).output().unwrap();
    let said = lines(&output.stdout);
    let end = said.iter().find(|line| line["type"] == "end").unwrap();
    assert!(u(&end["unseen_returns"]) > 0 && end["events"] == 0, "{end}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("no exit was counted, but KVM returned"), "{error}");
}

/// Names, numbers and processes that mean nothing here are refused, or said.
pub fn what_means_nothing_is_said(_: &'static str) {
    let refused = |what: &str, arguments: &[&str], status: i32, holds: &str| {
        let output = run(what, "auto", arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.lines().count()), (Some(status), 1), "{error}");
        assert!(error.contains(holds) && output.stdout.is_empty(), "{error}");
    };
    refused("count", &["--vm", "nosuch"], 1, "`nosuch`; none is running");
    let there = start(&["--hlt", "1", "--pause", "30s", "--name", "red"]);
    wait_for_pause(there.id());
    refused("count", &["--vm", "nosuch"], 1, &format!("there are `red` (process {})", there.id()));
    refused("hist", &["0x999"], 2, "no exit of svm has the number 0x999");
    refused("hist", &["EPT_VIOLATION"], 2, "`EPT_VIOLATION` is an exit of vmx");
    refused("slower", &["--excludes", "0xfffff"], 2, "no exit of svm has the number 0xfffff");
    drop(there);
    // The command runs no VM of that name: its exits are left out, and that is said.
    let output = run("count", "auto", &["--vm", "red", "--"])
        .args(guest(&["--io", "3", "--name", "blue"]))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && error.contains("no exit of a VM with that name was counted, but "),
        "{error}"
    );
    let idle = Worker::by(&mut Command::new("cat"));
    let pid = idle.id().to_string();
    let output = run("count", "auto", &["-p", &pid, "-d", "100ms"]).output().unwrap();
    let warning = String::from_utf8_lossy(&output.stderr);
    assert!(warning.contains(&format!("process {pid} runs no virtual machine now")), "{warning}");
}

/// Without the modules it says what is missing, in one line; with them, that there is nothing to count yet.
pub fn without_kvm(_: &'static str) {
    let refused = |holds: &str| {
        let output = run("count", "auto", &["-d", "100ms"]).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.lines().count()), (Some(3), 1), "{error}");
        assert!(error.contains(holds), "{error}");
    };
    let remove = |module| assert!(Command::new("modprobe").args(["-r", module]).status().unwrap().success());
    remove("kvm_amd");
    refused("there is no /dev/kvm");
    Command::new("modprobe").args(["-r", "kvm"]).status().unwrap();
    refused("the kvm module is not loaded");
    load();
    let output = run("count", "auto", &["-d", "100ms"]).output().unwrap();
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && warning.contains("no virtual machine is running now"), "{warning}");
    watched("count", "auto", &[], &["--io", "1"]);
}

pub fn a_command_is_as_without_us(variant: &'static str) {
    crate::command::is_the_same(&|| run("count", variant, &[]), &[]);
}
