//! Whoever is traced does what it would have done: same output, same status, whatever becomes of the tracer.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::access::{access, touched, tracer};
use crate::run::{Place, Said, fixture, place, scratch, spawn, trapline, u};
use crate::running::{Running, Worker, state, until};

/// Programs, and how many rounds of resets there are at the least while they run.
fn programs() -> Vec<(Vec<String>, u64)> {
    let least = if place() == Place::Vm { 3 } else { 21 };
    let mut turmoil = fixture("turmoil");
    turmoil.push(if place() == Place::Vm { "1" } else { "12" }.into());
    let mut programs = vec![(turmoil, least)];
    let shell = |script: &str| ["sh", "-c", script].map(String::from).to_vec();
    let times = if place() == Place::Vm { "1" } else { "1 2 3 4 5 6" };
    // Each lives for some milliseconds, in which it also waits for a processor to be taken under control.
    programs.push((shell(&format!("for i in {times}; do ls -l /etc | sort | cksum; done; exit 7")), 1));
    for (program, script) in [
        (
            "sqlite3",
            "sqlite3 :memory: 'create table t(a,b); with recursive c(x) as (select 1 union all select x+1 from c where \
             x<40000) insert into t select x, x*7919%10007 from c; select sum(a*b), count(distinct b) from t; select \
             * from t order by b, a limit 5'",
        ),
        (
            "python3",
            "exec python3 -c 'import hashlib; d = {i: hashlib.sha256(b\"%d\" % i).hexdigest() for i in range(20000)}; \
             print(hashlib.md5(\"\".join(sorted(d.values())).encode()).hexdigest())'",
        ),
    ] {
        let there =
            Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
        if place() == Place::Here && there.unwrap().success() {
            programs.push((shell(script), least));
        }
    }
    programs
}

pub fn the_results_are_the_same(engine: &'static str) {
    for (program, least) in programs() {
        let alone = Command::new(&program[0]).args(&program[1..]).stdin(Stdio::null()).output().unwrap();
        let (mut tracer, file) = access(engine, &[]);
        let traced = tracer.arg("--").args(&program).output().unwrap();
        let said = file.lines();
        let error = String::from_utf8_lossy(&traced.stderr);
        assert_eq!(traced.status.code(), alone.status.code(), "{program:?}: {error}");
        assert_eq!(
            String::from_utf8_lossy(&traced.stdout),
            String::from_utf8_lossy(&alone.stdout),
            "{program:?}"
        );
        let count = |kind: &str| said.iter().filter(|line| line["event"] == kind).count();
        assert!(count("access") > 200 && count("start") > 0 && count("end") > 0, "{program:?}");
        // The kernel comes by when it thinks that it is time.
        let end = said.last().unwrap();
        assert!(matches!(engine, "none" | "numa") || u(&end["rounds"]) >= least, "{program:?}: {end}");
    }
}

/// A process that prints a line each time it has gone over its memory, all equal.
fn steady() -> Running {
    let mut words = fixture("steady");
    words.push("400".into());
    spawn(&words)
}

/// A mapping that is divided when the tracer comes, and then is not any more, can be moved as one.
pub fn a_mapping_stays_one(engine: &'static str) {
    let mut words = fixture("divided");
    // The kernel takes no memory in this mode that allows nothing.
    words.push(if engine == "rwp" { libc::PROT_READ } else { libc::PROT_NONE }.to_string());
    let mut target = Worker::start(&words);
    assert_eq!(target.line(), "divided");
    let tracer = tracer(engine, &["-p", &target.id().to_string()]).begun();
    target.tell("");
    assert_eq!(target.end().trim(), (64 * 4096 * 5).to_string());
    tracer.wait();
}

/// The tracer is killed at every sort of moment; the target goes on to its end, and nothing is held.
pub fn a_killed_tracer_leaves_nothing(engine: &'static str) {
    let target = steady();
    let pid = target.id();
    let times = if place() == Place::Vm { 4 } else { 25 };
    for i in 0..times {
        let tracer = tracer(engine, &["-p", &pid.to_string()]);
        // From before it has begun to well into its rounds.
        std::thread::sleep(Duration::from_millis(if place() == Place::Vm { 700 } else { 15 } * (i + 1)));
        tracer.kill();
    }
    // What was being injected comes to its end by itself.
    let free = || {
        let held = |fd: std::fs::DirEntry| {
            std::fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("userfault"))
        };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
        let under = smaps.lines().any(|l| l.starts_with("VmFlags:") && l.split(' ').any(|f| f == "uw"));
        !std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().any(|fd| held(fd.unwrap()))
            && status.contains("TracerPid:\t0")
            && !under
    };
    until("nothing is held of the target", free);
    // And the next tracer works.
    let (mut tracer, file) =
        access(engine, &["-p", &pid.to_string(), "-d", if place() == Place::Vm { "3s" } else { "300ms" }]);
    assert!(tracer.status().unwrap().success());
    assert!(file.lines().iter().filter(|line| line["event"] == "access").count() > 20);
    target.send(Signal::SIGTERM);
    let text = String::from_utf8(target.output().stdout).unwrap();
    let first = text.lines().next().unwrap();
    assert!(text.lines().count() > 10 && text.lines().all(|line| line == first), "{text}");
}

/// A target that is stopped, waits in a system call, or sleeps is traced and goes on where it was.
pub fn waiting_and_stopped_targets(engine: &'static str) {
    let mut target = Worker::by(Command::new("sh").args(["-c", "read line; echo got $line; exec sleep 0.3"]));
    let pid = target.id();
    let trace = || {
        tracer(engine, &["-p", &pid.to_string(), "-d", "200ms"]).wait();
    };
    until("it waits in read()", || state(pid) == 'S');
    trace();
    until("it waits in read() as before", || state(pid) == 'S');
    kill(Pid::from_raw(pid as i32), Signal::SIGSTOP).unwrap();
    until("it is stopped", || state(pid) == 'T');
    trace();
    until("it is stopped as before", || state(pid) == 'T');
    kill(Pid::from_raw(pid as i32), Signal::SIGCONT).unwrap();
    target.tell("a line");
    assert_eq!(target.end(), "got a line\n");
}

/// What cannot be traced is said, in one line; a second tracer is refused while there is a first.
pub fn what_cannot_be_is_said(engine: &'static str) {
    let refused = |arguments: &[&str], holds: &str| {
        let (mut tracer, _file) = access(engine, arguments);
        let output = tracer.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_some_and(|code| code != 0) && error.contains(holds), "{error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    };
    refused(&["-p", "2", "-d", "1s"], "kernel thread");
    refused(&["-p", "1073741823", "-d", "1s"], "there is no process 1073741823");
    // A command that was to be started is not waited for.
    refused(&["--variant", "nonesuch", "--", "true"], "there is no variant `nonesuch`");
    let process = steady();
    let target = process.id().to_string();
    let first = tracer(engine, &["-p", &target]).begun();
    refused(&["-p", &target, "-d", "1s"], &format!("already, by process {}", first.pid()));
}

/// The period is stretched until the faults cost no more than they may, and that is said.
pub fn a_budget_stretches_the_period(engine: &'static str) {
    // Emulation takes longer for a fault, and for telling of it.
    let rounds = if place() == Place::Vm { "80" } else { "1000" };
    let touch = ["--pages", "300", "--rounds", rounds, "--pause", "0.2", "--warm"];
    let free = touched(engine, &["--ring-size", "64"], &touch);
    let held = touched(engine, &["--ring-size", "64", "--max-overhead", "1%"], &touch);
    assert_eq!(held.header["max_overhead_percent"], 1);
    let of = |run: &Said, name: &str| u(&run.end[name]);
    // Not their mean period: until the first touch there is nothing to stretch it for.
    assert!(of(&held, "rounds") * 2 < of(&free, "rounds"), "{} {}", held.end, free.end);
    assert!(of(&held, "fault_ns") * 2 < of(&free, "fault_ns"), "{} {}", held.end, free.end);
}

/// Programs are followed by name as they are executed, and the list can be changed meanwhile.
pub fn programs_are_followed_by_name(engine: &'static str) {
    let program = |name: &str| {
        let path = scratch().join(name);
        std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        path
    };
    let (wanted, added, other) = (program("wanted-prog"), program("added-prog"), program("other-prog"));
    let run = |path: &std::path::Path| {
        let mut child = Command::new(path).args(["--fixture", "touch", "300"]).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        child.id()
    };
    let targets = |words: &[&str]| {
        let output = trapline().arg("targets").args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let following = tracer(engine, &["--exec", "wanted-prog"]).begun();
    let mut followed = vec![run(&wanted)];
    let mut ignored = vec![run(&added), run(&other)];
    targets(&["add", "added-prog"]);
    assert_eq!(targets(&["list"]), "added-prog\nwanted-prog\n");
    followed.extend([run(&added), run(&wanted)]);
    targets(&["clear", "added-prog"]);
    ignored.push(run(&added));
    let said = following.interrupt();
    for pid in followed {
        let of = |kind: &str| said.iter().filter(|l| l["event"] == kind && l["pid"] == pid).count();
        assert_eq!((of("start"), of("end")), (1, 1));
        assert!(of("access") > 300);
    }
    for pid in ignored {
        assert!(said.iter().all(|line| line["pid"] != pid));
    }
    // What the tracer put into the list it takes out again; if it is killed, the doctor does.
    assert_eq!(targets(&["list"]), "");
    targets(&["add", "mine-prog"]);
    tracer(engine, &["--exec", "wanted-prog"]).begun().kill();
    assert_eq!(targets(&["list"]), "mine-prog\nwanted-prog\n");
    let repair = trapline().args(["doctor", "--repair"]).output().unwrap();
    assert!(String::from_utf8_lossy(&repair.stdout).contains("wanted-prog"), "{repair:?}");
    assert_eq!(targets(&["list"]), "mine-prog\n");
    targets(&["clear"]);
    for path in [wanted, added, other] {
        std::fs::remove_file(path).unwrap();
    }
}

pub fn a_command_is_as_without_us(engine: &'static str) {
    let access = || {
        let mut command = trapline();
        command.args(["access", "--format", "jsonl", "--reset", engine]);
        command
    };
    // With that engine it has no huge pages: docs/access.md.
    let but_for: &[&str] = if engine == "numa" { &["THP_enabled:", " thp 0,"] } else { &[] };
    crate::command::is_the_same(&access, but_for);
}
