//! Inside of namespaces: the right figures, with the ids, paths and times that are seen there, or a refusal in words.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::faults::frame::cgroup_root;
use crate::faults::rootless::{Level, make_files};
use crate::run::{
    Beside, Said, all_or_first, doctor, faults, fixture, in_full, lines, one_line, parent_of_all, sum,
    trapline, u,
};
use crate::running::Worker;

const PID: &[&str] = &["--pid", "--fork", "--mount-proc"];
const TIME: &[&str] = &["--time", "--monotonic", "100000", "--boottime", "900000", "--fork"];
const BEFORE: &[&str] = &["--time", "--monotonic=-20", "--boottime=-30", "--fork"];
const ALL: &[&str] =
    &["--pid", "--mount-proc", "--cgroup", "--time", "--monotonic", "7", "--ipc", "--uts", "--fork"];
const USER: &[&str] = &["--user", "--map-root-user"];
const ALL_AND_USER: &[&str] =
    &["--user", "--map-root-user", "--pid", "--mount-proc", "--cgroup", "--time", "--fork"];

/// A command, run in new namespaces.
fn inside(namespaces: &[&str], command: &Command) -> Command {
    let mut all = Command::new("unshare");
    all.args(namespaces).arg("--").arg(command.get_program()).args(command.get_args());
    all.stdin(Stdio::null());
    all
}

/// Each thread and process is what it said of itself, under the numbers by which it knows itself.
pub fn a_command_equals_wait4(variant: &'static str) {
    let combinations = [ALL, PID, TIME, BEFORE, &["--cgroup"], &["--mount"]];
    for namespaces in all_or_first(combinations) {
        let said = Said::by(&mut inside(namespaces, faults(variant, &[]).arg("--").args(fixture("wait4"))));
        equals_truth(&said);
        assert!(said.truth.iter().any(|truth| truth["what"] == "thread"));
        for truth in said.truth.iter().filter(|truth| truth["what"] == "thread") {
            let counted = sum(&said.totals, |total| total["tid"] == truth["tid"]);
            assert_eq!(counted, (u(&truth["major"]), u(&truth["minor"])), "{truth} {namespaces:?}");
        }
    }
    // A thread that takes another's number over, and processes that have other numbers in a namespace of their own.
    let nested = ["unshare"].iter().chain(PID).chain(&["--", "sh", "-c", "ls -l /etc | sort | wc -l >&2"]);
    let nested = nested.map(|word| (*word).to_owned());
    for words in [fixture("exec-in-thread"), fixture("wait4").into_iter().chain(nested).collect()] {
        equals_truth(&Said::by(&mut inside(PID, faults(variant, &[]).arg("--").args(words))));
    }
}

/// What needs no privilege outside needs none in a user namespace, whose root has none.
pub fn root_in_a_user_namespace(variant: &'static str) {
    let _level = Level::of("2");
    make_files();
    for namespaces in all_or_first([ALL_AND_USER, USER, ALL]) {
        let said = Said::by(&mut inside(namespaces, faults(variant, &[]).arg("--").args(fixture("wait4"))));
        equals_truth(&said);
    }
    // It is the variant that works.
    let said = Said::by(&mut inside(USER, faults("auto", &[]).arg("--").args(fixture("wait4"))));
    assert_eq!(said.header["variant"], variant);
    equals_truth(&said);
}

pub fn equals_truth(said: &Said) {
    let truth = said.truth.iter().find(|truth| truth["what"] == "wait4").unwrap();
    let parent = parent_of_all(&said.totals);
    let counted = sum(&said.totals, |total| total["pid"] != *parent);
    assert_eq!(counted, (u(&truth["major"]), u(&truth["minor"])), "{truth} in {:#?}", said.totals);
    assert_eq!(said.end["lost_events"], 0);
}

/// A workload in a PID namespace, which has a number there that a process outside has, too.
pub struct Twin {
    pub outer: Worker,
    pub twin: Worker,
    pub pid: u32,
}

impl Twin {
    pub fn new() -> Self {
        let outer = Worker::start(&fixture("on-demand"));
        let pid = outer.id();
        let number =
            "echo $0 >/proc/sys/kernel/ns_last_pid; \"$@\" <&3 & echo $! $$; exec 3<&-; wait; exec sleep 600";
        let script = format!("exec 3<&0; {number}");
        let mut words = ["unshare"].map(str::to_owned).to_vec();
        words.extend(PID.iter().map(ToString::to_string));
        words.extend(["--kill-child", "--", "sh", "-c", &script].map(str::to_owned));
        words.push((pid - 1).to_string());
        words.extend(fixture("on-demand"));
        let mut twin = Worker::start(&words);
        assert_eq!(twin.line(), format!("{pid} 1"), "the number is taken there");
        Self { outer, twin, pid }
    }

    /// Runs something in its namespaces.
    pub fn beside(&self, command: &Command) -> Command {
        let unshare = self.twin.id();
        let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
        let mut all = Command::new("nsenter");
        all.args(["--target", children.trim(), "--pid", "--mount", "--"]);
        all.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        all
    }
}

/// A number is that of the process that has it in our PID namespace, whoever has it outside.
pub fn a_number_is_of_our_own_namespace(variant: &'static str) {
    for filter in ["-p", "-t"] {
        let mut twin = Twin::new();
        // By thread it does not end by itself.
        let options = ["-d", if filter == "-t" { "2s" } else { "60s" }];
        let traced =
            Beside::start(twin.beside(faults(variant, &[filter, &twin.pid.to_string()]).args(options)));
        let before = twin.twin.touch(300);
        let after = twin.twin.touch(4000);
        twin.outer.touch(20_000);
        if filter == "-p" {
            twin.twin.close();
        }
        let said = traced.wait();
        let (_, minor) = sum(&said.totals, |_| true);
        // Its end takes some, too, if it was waited for.
        let least = after.1 - before.1 + 300;
        assert!((least..least + 200).contains(&minor), "{least}: {:?}", said.totals);
        assert!(said.totals.iter().all(|total| total["pid"] == twin.pid), "{:?}", said.totals);
    }
}

/// All of a machine is, in a PID namespace, what is in that.
pub fn without_a_filter_it_is_the_namespace(variant: &'static str) {
    let mut twin = Twin::new();
    let traced = Beside::start(twin.beside(faults(variant, &["--by", "process"]).args(["-d", "2s"])));
    twin.twin.touch(4000);
    twin.outer.touch(20_000);
    let said = traced.wait();
    let (_, minor) = sum(&said.totals, |_| true);
    assert!((4000..20_000).contains(&minor), "{:?}", said.totals);
    assert!(said.totals.iter().any(|total| total["pid"] == twin.pid));
    // The shell, the workload, and trapline with nsenter's children: small numbers, but for the twin's and what follows.
    let least = u64::from(twin.pid);
    let strange = |pid: u64| pid != 1 && !(least..least + 20).contains(&pid);
    assert!(!said.totals.iter().any(|total| strange(u(&total["pid"]))), "{:?}", said.totals);
    assert_eq!(said.header["processes"], "of this PID namespace");
}

/// A cgroup below the namespace's root is as deep as it is, and called as /proc/PID/cgroup calls it.
pub fn cgroups(variant: &'static str) {
    let dir = cgroup_root().join(format!("trapline-namespace-{}", std::process::id()));
    let inner = dir.join("inner");
    std::fs::create_dir_all(&inner).unwrap();
    let run = |options: &[&str], inside: &Path| {
        let mut words = fixture("touch");
        words.push("2000".into());
        let script = "echo $$ >$0/cgroup.procs; inner=$1; shift; \
                      exec unshare --cgroup sh -c 'echo $$ >$0/cgroup.procs; exec \"$@\"' $inner \"$@\"";
        let traced = faults(variant, options);
        let output = Command::new("sh")
            .args(["-c", script])
            .args([&dir, inside])
            .arg(traced.get_program())
            .args(traced.get_args())
            .arg("--")
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Said::of(&output)
    };
    let is_right = |said: &Said| (2000..4000).contains(&sum(&said.totals, |_| true).1);
    for path in ["/inner", inner.to_str().unwrap()] {
        let said = run(&["--cgroup", path], &inner);
        assert!(is_right(&said), "{path}: {:?}", said.totals);
    }
    for (place, path) in [(inner.as_path(), "/inner"), (&dir, "/"), (&cgroup_root(), "/..")] {
        let said = run(&["--by", "cgroup"], place);
        assert!(is_right(&said) && said.totals.len() == 1, "{:?}", said.totals);
        assert_eq!(said.totals[0]["cgroup"], path);
    }
    std::fs::remove_dir(inner).unwrap();
    std::fs::remove_dir(dir).unwrap();
}

/// Times are those of the clock that is read there.
pub fn times(variant: &'static str) {
    for namespaces in [TIME, BEFORE] {
        let said = Said::by(&mut inside(
            namespaces,
            faults(variant, &["--log-step", "1000"]).arg("--").args(fixture("company")),
        ));
        let began = u(&said.header["start_ns"]);
        let mut last = began;
        for truth in said.truth.iter().filter(|truth| truth["what"] == "passed") {
            let passed = said.events.iter().find(|event| event["count"] == truth["count"]).unwrap();
            assert!((last..=u(&truth["now_ns"])).contains(&u(&passed["time_ns"])), "{truth}: {passed}");
            last = u(&truth["now_ns"]);
        }
        assert!(last > began);
        for total in &said.totals {
            // The command's process is there before its run begins.
            assert!((began - 10_000_000_000..last).contains(&u(&total["start_ns"])), "{began}: {total}");
            assert!(u(&total["time_ns"]) >= last, "{total}");
        }
    }
}

/// Functions have their names: what is known of them goes by time.
pub fn stacks(variant: &'static str) {
    let mut words = fixture("touch");
    words.push("500".into());
    let mut command = faults(variant, &["--by", "stack"]);
    let said = Said::by(&mut inside(ALL, command.arg("--").args(words)));
    // Built as a user builds it, the compiler has put one into the other.
    let is_named = |stack: &str| ["touch", "write_volatile"].iter().any(|name| stack.contains(name));
    let is_named = |total: &serde_json::Value| total["stack"].as_str().is_some_and(is_named);
    let (_, minor) = sum(&said.totals, is_named);
    let others: Vec<_> = said.totals.iter().filter(|total| !is_named(total)).collect();
    assert!(minor >= 500, "{minor}; {others:#?} {}", said.end);
}

/// Where numbers or privileges are not what they seem, that is said, with what to do.
pub fn what_cannot_be_is_said(_: &'static str) {
    let said = |namespaces: &[&str], command: &mut Command| inside(namespaces, command).output().unwrap();
    let refused = |output: &Output, holds: &str| one_line(output, 3, holds);
    // The numbers in /proc are others'.
    let all = faults("auto", &["--", "true"]);
    refused(&inside(&["--pid", "--fork"], &all).output().unwrap(), "--mount-proc");
    // The process is outside.
    let own = std::process::id().to_string();
    refused(&said(PID, &mut faults("auto", &["-p", &own])), "--pid=host");
    refused(&said(PID, &mut faults("auto", &["-t", &own])), "--pid=host");
    // The root of a user namespace is nobody.
    for variant in ["auto", "counters"] {
        refused(&said(USER, &mut faults(variant, &["-d", "100ms"])), "user namespace");
    }
    refused(&said(ALL_AND_USER, trapline().args(["access", "--", "true"])), "user namespace");
    // What is not mounted is named. Below a virtual machine's mounts are the directories of its host, which are not empty.
    if !in_full() {
        return;
    }
    let without = |what: &str, command: &Command| {
        let mut all = Command::new("unshare");
        all.args(["--mount", "sh", "-c", "umount -l $0 && exec \"$@\"", what]);
        all.arg(command.get_program()).args(command.get_args()).output().unwrap()
    };
    refused(&without("/proc", &all), "mount -t proc proc /proc");
    refused(&without("/sys", &faults("counters", &["-d", "100ms"])), "mount -t sysfs sysfs /sys");
    assert!(without("/sys", &faults("rootless", &["--", "true"])).status.success());
}

/// The doctor says in which namespaces it is, where they are not the machine's first ones.
pub fn the_doctor_names_them(_: &'static str) {
    assert!(lines(&doctor().stdout)[0]["namespaces"].is_null());
    for (namespaces, names) in [(ALL, &["pid:", "cgroup:", "time:"][..]), (USER, &["user:"])] {
        let output = inside(namespaces, trapline().args(["doctor", "--format", "jsonl"])).output().unwrap();
        let said = lines(&output.stdout)[0]["namespaces"].to_string();
        assert!(names.iter().all(|name| said.contains(name)), "{said}");
        assert_eq!(said.matches(": ").count(), names.len(), "{said}");
    }
}
