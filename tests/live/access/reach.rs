//! Whom the tracer reaches: sandboxed programs, other users' ones, those in containers, large ones, and such as end or
//! become another program while they are traced.

#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::access::{access, tracer};
use crate::run::{Place, fixture, place, u};
use crate::running::Worker;

/// How long a trace is.
fn how_long() -> &'static str {
    if place() == Place::Vm { "1s" } else { "400ms" }
}

/// How many pages a target goes over. Each is an event in each round, and under emulation it takes long to read them all.
fn pages() -> usize {
    if place() == Place::Vm { 40 } else { 300 }
}

/// Spawns a command and waits until it works: it writes a line each time it has gone over its memory.
fn working(command: &mut Command) -> Worker {
    let mut worker = Worker::by(command);
    worker.line();
    worker
}

fn command(words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

fn steady() -> Vec<String> {
    let mut words = fixture("steady");
    words.push(pages().to_string());
    words
}

/// Traces a process for a while: how that ended, and what was said.
fn trace(engine: &str, pid: u32) -> (Output, Vec<Value>) {
    let (mut tracer, file) = access(engine, &["-p", &pid.to_string(), "-d", how_long()]);
    let output = tracer.output().unwrap();
    (output, file.lines())
}

fn accesses(said: &[Value], pid: u32) -> usize {
    said.iter().filter(|line| line["event"] == "access" && line["pid"] == pid).count()
}

/// It goes on as if nothing had been, and ends when it is told to, with a good status.
fn goes_on(mut worker: Worker, pid: u32) {
    let sum = worker.line();
    assert!(!sum.is_empty(), "it has ended");
    kill(Pid::from_raw(pid as i32), Signal::SIGTERM).unwrap();
    let rest = worker.end();
    assert!(rest.lines().all(|other| other == sum), "{sum}, then {rest}");
}

/// As many as must be seen. The kernel's balancing comes by when a program computes, which these do little.
fn enough(engine: &str) -> usize {
    if engine == "numa" { 0 } else { 20 }
}

/// Lets the kernel kill this process at the system call that is injected.
pub fn confine() {
    crate::fixture::filter(libc::SYS_userfaultfd, libc::SECCOMP_RET_KILL_PROCESS).unwrap();
}

/// The same, and goes over its memory.
pub fn sandboxed(pages: usize) {
    confine();
    crate::access::turmoil::steady(pages);
}

/// A sandboxed program is traced all the same or left alone, with the reason; it is never killed by it.
pub fn a_sandboxed_program(engine: &'static str) {
    let mut words = fixture("sandboxed");
    words.push(pages().to_string());
    let child = working(&mut command(&words));
    let pid = child.id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
    let (output, said) = trace(engine, pid);
    let error = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        println!("{engine}: traced");
        assert!(accesses(&said, pid) >= enough(engine), "{said:?}");
    } else {
        println!("{engine}: {error}");
        assert!(error.contains("sandboxed (seccomp)") && error.trim_end().lines().count() == 1, "{error}");
    }
    goes_on(child, pid);
}

/// Another user's program, which may not be looked into by its like.
pub fn another_users(engine: &'static str) {
    // Where nobody can execute it.
    let program = Path::new("/tmp").join(format!("trapline-steady-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut words = steady();
    words[0] = program.display().to_string();
    let child = working(command(&words).uid(65534).gid(65534).current_dir("/"));
    let pid = child.id();
    let (output, said) = trace(engine, pid);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(accesses(&said, pid) >= enough(engine), "{:?}", said.last());
    goes_on(child, pid);
    std::fs::remove_file(program).unwrap();
}

/// A program that is process 1 of its own world, with its own files.
pub fn in_a_container(engine: &'static str) {
    let mut words = ["unshare", "--pid", "--mount", "--ipc", "--uts", "--fork", "--mount-proc"]
        .map(String::from)
        .to_vec();
    words.extend(steady());
    let child = working(&mut command(&words));
    let outer = child.id();
    let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
    let pid: u32 = children.trim().parse().unwrap();
    let (output, said) = trace(engine, pid);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(accesses(&said, pid) >= enough(engine), "{:?}", said.last());
    // What it does stands under the number that it has here, not under the 1 that it has there.
    assert!(said.iter().all(|line| line["event"].is_null() || line["pid"] == pid));
    goes_on(child, pid);
}

/// A target that becomes another program, and one that is killed: both are told, and the tracer ends well.
pub fn one_that_execs_and_is_killed(engine: &'static str) {
    let mut words =
        vec!["sh".to_owned(), "-c".to_owned(), "echo; read line; exec \"$@\"".to_owned(), "sh".to_owned()];
    words.extend(steady());
    let mut target = Worker::start(&words);
    target.line();
    let mut tracer = tracer(engine, &["-p", &target.id().to_string()]).begun();
    target.tell("");
    let count = |said: &[Value], kind: &str| said.iter().filter(|line| line["event"] == kind).count();
    tracer.until("a second start", |said| count(said, "start") == 2);
    tracer.until("accesses", |said| count(said, "access") > 100);
    drop(target);
    let said = tracer.wait();
    assert_eq!((count(&said, "start"), count(&said, "end")), (2, 1));
    assert!(u(&said.last().unwrap()["events"]) > 100);
}

/// Reads so many megabytes, of which the kernel gives each page the same memory, and goes over a few pages of them.
pub fn vast(megabytes: usize) {
    let memory = crate::fixture::map(megabytes << 20, libc::MAP_NORESERVE);
    let sum: u64 =
        (0..memory.len()).step_by(4096).map(|at| u64::from(crate::fixture::look(&memory, at))).sum();
    assert_eq!(sum, 0);
    crate::access::turmoil::steady(pages());
}

/// Four gigabytes of page tables (one under emulation): the period grows, and all goes on.
pub fn a_large_program(engine: &'static str) {
    let megabytes = if place() == Place::Vm { 1024 } else { 4096 };
    let mut words = fixture("vast");
    words.push(megabytes.to_string());
    let child = working(&mut command(&words));
    let pid = child.id();
    let (mut tracer, file) = access(engine, &["-p", &pid.to_string(), "-d", "3s"]);
    let output = tracer.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = file.lines();
    let sight = said[0]["sight"].as_str().unwrap();
    println!("{engine}: {}", sight.split(';').next().unwrap());
    assert!(sight.contains(" GB"), "{sight}");
    assert!(accesses(&said, pid) >= enough(engine), "{:?}", said.last());
    let end = said.last().unwrap();
    println!("{engine}: {} rounds, one each {} us", end["rounds"], u(&end["period_ns"]) / 1000);
    assert!(engine == "numa" || u(&end["rounds"]) > 2, "{end}");
    goes_on(child, pid);
}
