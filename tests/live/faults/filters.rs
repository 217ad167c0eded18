//! Whose events are counted: several processes, names and users, descendants, cgroups of both versions, units.

#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::io::BufRead;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::faults::frame::cgroup_root;
use crate::fixture::{PAGE, in_child, map, touch, touch_fresh};
use crate::run::{Beside, Said, faults, fixture, one_line, sum, u};
use crate::running::Worker;

/// Two of three processes, in one option and in two: their counts are their rusage.
pub fn several_processes(variant: &'static str) {
    let mut workers = [(); 3].map(|()| Worker::start(&fixture("on-demand")));
    let before = workers.each_mut().map(|worker| (worker.touch(10), worker.touch(500)).1);
    let [a, b, _] = workers.each_ref().map(|worker| worker.id().to_string());
    let list = format!("{a},{b}");
    let runs = [vec!["-p", list.as_str()], vec!["-p", a.as_str(), "-p", b.as_str()]];
    let beside = runs.map(|options| Beside::start(faults(variant, &options)));
    let after = workers.each_mut().map(|worker| worker.touch(700));
    for trapline in beside {
        let said = trapline.interrupt();
        assert_eq!(said.totals.len(), 2, "{:?}", said.totals);
        for (worker, (before, after)) in workers.iter().zip(before.iter().zip(after)).take(2) {
            let did = sum(&said.totals, |total| u(&total["pid"]) == u64::from(worker.id()));
            assert_eq!(did, (after.0 - before.0, after.1 - before.1));
        }
        assert_eq!(said.header["filter"], format!("pid {list}"));
    }
}

/// Exactly what was done under one of the names, of which one is not UTF-8.
pub fn several_names(variant: &'static str) {
    let mut command = faults(variant, &["--comm", "wanted", "--comm"]);
    command.arg(OsStr::from_bytes(b"w\xffx")).arg("--").args(fixture("rename"));
    let said = Said::by(&mut command);
    assert_eq!(sum(&said.totals, |_| true), (0, 2600), "{:?}", said.totals);
    assert!(said.header["filter"].as_str().unwrap().starts_with("comm wanted,w\u{fffd}x"), "{}", said.header);
}

/// The user IDs of the fixture: nobody's on any machine.
const USERS: [libc::uid_t; 3] = [0, 3_999_999_998, 3_999_999_999];

/// Touches 100 pages as root, 200 and 400 as others, 800 as root again; from the start and in a thread that is made then.
pub fn users() {
    let memory = [100, 200, 400, 800].map(|pages| map(pages * PAGE, 0));
    for (memory, uid) in memory.iter().zip([USERS[0], USERS[1], USERS[2], USERS[0]]) {
        // SAFETY: numbers. The effective and the saved ID stay root's.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, uid, -1, -1) }, 0);
        touch(memory);
    }
}

/// What a process does while it is a user's: by number, of one and of several.
pub fn of_users(variant: &'static str) {
    for (users, minor) in [("3999999998", 200), ("3999999998,3999999999", 600)] {
        let said = Said::by(faults(variant, &["--user", users]).arg("--").args(fixture("users")));
        assert_eq!(sum(&said.totals, |_| true), (0, minor), "{users}: {:?}", said.totals);
        let filter = said.header["filter"].as_str().unwrap();
        assert!(filter.starts_with(&format!("user {users}")), "{filter}");
    }
    // By name, together with a process: all that it does; and of another user's, nothing.
    let mut worker = Worker::start(&fixture("on-demand"));
    let before = (worker.touch(10), worker.touch(500)).1;
    let pid = worker.id().to_string();
    let [root, other] =
        ["root", "3999999998"].map(|user| Beside::start(faults(variant, &["-p", &pid, "--user", user])));
    let after = worker.touch(300);
    assert_eq!(sum(&root.interrupt().totals, |_| true), (after.0 - before.0, after.1 - before.1));
    assert_eq!(sum(&other.interrupt().totals, |_| true), (0, 0));
}

/// Has a child; when it is told to, makes another one, in a thread, which has a child, too; says what `wait4` says of that;
/// then lets the first one work, and ends.
pub fn family() {
    let (mut told, tell) = std::io::pipe().unwrap();
    // SAFETY: this process has one thread at this point.
    let first = unsafe { libc::fork() };
    if first == 0 {
        drop(tell);
        std::io::Read::read(&mut told, &mut [0]).unwrap();
        touch_fresh(3000);
        // SAFETY: ends this process.
        unsafe { libc::_exit(0) };
    }
    let mut stdin = std::io::stdin().lock();
    let mut line = String::new();
    stdin.read_line(&mut line).unwrap();
    println!("{first}");
    stdin.read_line(&mut line).unwrap();
    let made = std::thread::spawn(|| {
        in_child(|| {
            in_child(|| touch_fresh(200));
            touch_fresh(300);
        })
    });
    let (pid, (major, minor)) = made.join().unwrap();
    println!(r#"{{"type":"truth","what":"children","pid":{pid},"major":{major},"minor":{minor}}}"#);
    drop(tell);
    // SAFETY: a child of this process, and no status is asked for.
    unsafe { libc::waitpid(first, std::ptr::null_mut(), 0) };
}

/// The descendants that are born from now on, of every thread, as `wait4` counts them; not a child that was there before.
pub fn descendants(variant: &'static str) {
    let mut family = Worker::start(&fixture("family"));
    family.tell("begin");
    let first: u64 = family.line().parse().unwrap();
    let pid = u64::from(family.id());
    let family_id = family.id().to_string();
    let options = ["-p", &family_id, "--children", "--by", "process", "-i", "50ms"];
    let mut trapline = Beside::start(faults(variant, &options));
    let alone = Beside::start(faults(variant, &["-p", &family_id]));
    // A pass over the threads comes to the child that was there before while it waits.
    while trapline.next()["type"] != "block" {}
    family.tell("go on");
    let truth: Value = serde_json::from_str(&family.line()).unwrap();
    // All of them end with it.
    let (said, alone) = (trapline.wait(), alone.wait());
    assert!(said.totals.iter().all(|total| u(&total["pid"]) != first), "{:?}", said.totals);
    let born = sum(&said.totals, |total| u(&total["pid"]) != pid);
    assert_eq!(born, (u(&truth["major"]), u(&truth["minor"])), "{:?}", said.totals);
    assert_eq!(said.totals.len(), 3, "{:?}", said.totals);
    assert!(alone.totals.iter().all(|total| u(&total["pid"]) == pid), "{:?}", alone.totals);
}

/// A cgroup of this test's own, and a process that works in it.
struct Grouped {
    dir: PathBuf,
    worker: Option<Worker>,
}

impl Grouped {
    fn new(root: &Path, name: &str) -> Self {
        let dir = root.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let worker = Worker::start(&fixture("on-demand"));
        std::fs::write(dir.join("cgroup.procs"), worker.id().to_string()).unwrap();
        Self { dir, worker: Some(worker) }
    }

    /// What is counted with these options is what the process in the cgroup does, and nobody else.
    fn is_what_is_counted(&mut self, variant: &str, options: &[&str]) {
        let mut other = Worker::start(&fixture("on-demand"));
        let worker = self.worker.as_mut().unwrap();
        let before = (worker.touch(10), worker.touch(500)).1;
        let trapline = Beside::start(faults(variant, options));
        let after = worker.touch(700);
        other.touch(5000);
        let said = trapline.interrupt();
        assert_eq!(
            sum(&said.totals, |_| true),
            (after.0 - before.0, after.1 - before.1),
            "{:?}",
            said.totals
        );
    }
}

impl Drop for Grouped {
    fn drop(&mut self) {
        // It is empty when its process has ended.
        self.worker.take();
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// A cgroup in the hierarchy of a v1 controller, and one below it.
pub fn old_cgroups(variant: &'static str) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let controllers = ["pids", "memory", "freezer"];
    let mounted = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| {
        words[2] == "cgroup" && words[3].split(',').any(|option| controllers.contains(&option))
    });
    let Some(mounted) = mounted else {
        println!("not tried: no v1 hierarchy is mounted");
        return;
    };
    let above = Path::new(mounted[1]).join(format!("trapline-test-{}-{variant}", std::process::id()));
    let mut grouped = Grouped::new(&above, "inner");
    for dir in [&above, &grouped.dir.clone()] {
        grouped.is_what_is_counted(variant, &["--cgroup", dir.to_str().unwrap()]);
    }
    drop(grouped);
    std::fs::remove_dir(above).unwrap();
    if let Some(named) = mounts.lines().find(|line| line.contains(" cgroup ") && line.contains("name=")) {
        let dir = named.split(' ').nth(1).unwrap();
        one_line(
            &faults(variant, &["--cgroup", dir]).output().unwrap(),
            1,
            "its hierarchy has no controller",
        );
    }
}

/// A unit's cgroup is found by its name; where there is none, that is said, with those that are called alike.
pub fn units(variant: &'static str) {
    let name = format!("trapline-test-{}-{variant}", std::process::id());
    let mut grouped = Grouped::new(&cgroup_root(), &format!("{name}.service"));
    grouped.is_what_is_counted(variant, &["--unit", &name]);
    grouped.is_what_is_counted(variant, &["--unit", &format!("{name}.service")]);
    drop(grouped);
    let output = faults(variant, &["--unit", &name]).output().unwrap();
    if Path::new("/run/systemd/system").exists() {
        one_line(&output, 1, "has no cgroup: it does not run, or has no processes");
    } else {
        one_line(&output, 3, "systemd does not run here");
    }
}
