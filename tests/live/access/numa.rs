//! The engine that has the kernel's own NUMA balancing reset page tables: what it sees, and that its settings, which
//! are the machine's, are put back whatever happens.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::access::{Judged, TOUCH, access, judge, traced, tracer};
use crate::run::{Place, Said, place, scratch, trapline, u};
use crate::running::{Running, Worker};

const SWITCH: &str = "/proc/sys/kernel/numa_balancing";

/// All settings that can be read here.
fn settings() -> Vec<(PathBuf, String)> {
    let dir = Path::new("/sys/kernel/debug/sched/numa_balancing");
    let names = ["scan_delay_ms", "scan_period_max_ms", "scan_period_min_ms", "scan_size_mb"];
    let paths = names.iter().map(|name| dir.join(name)).chain([PathBuf::from(SWITCH)]);
    paths.filter_map(|path| Some((path.clone(), std::fs::read_to_string(path).ok()?))).collect()
}

/// The kernel comes by when it thinks that it is time, and then takes all of a small mapping away at once. A touch is seen
/// if it came by since the page was last touched: of a round with a visit in the pause before it all are, and of one in
/// which it comes by, those from then on; those before then are seen in the next round.
pub fn a_round_is_seen_whole_or_not_at_all(engine: &'static str) {
    // Here the settings are locked, and the kernel comes by each second or more.
    let locked = settings().len() == 1;
    let (pause, rounds) = if locked { ("4s", "3") } else { ("300ms", "10") };
    let disk = format!("TMPDIR={}", scratch().display());
    let own = [&["env", &disk], &TOUCH[..], &["--delay", "1s", "--warm"]].concat();
    for on in ["anon", "private", "stack", "file"].into_iter().take(if locked { 1 } else { 4 }) {
        let touch =
            ["--busy", "--on", on, "--pages", "64", "--rounds", rounds, "--access", "both", "--pause", pause];
        let run = traced(engine, &[], &[&own[..], &touch].concat());
        let judged = judge(&run, |_, _| true);
        println!(
            "{engine} {on}: {} of {} seen; resets each {} ms",
            judged.seen,
            judged.due,
            u(&run.end["period_ns"]) / 1_000_000
        );
        assert!(judged.wrong.is_empty(), "{on}: {:#?}", judged.wrong);
        assert_eq!(run.end["lost_events"], 0);
        if on == "file" {
            // Its pages are to be written to the disk: the kernel leaves them where they are, and that is said.
            let note = run.events.iter().rfind(|e| e["event"] == "engine").unwrap()["note"].as_str().unwrap();
            assert!(note.contains("does not see"), "{note}");
            continue;
        }
        let whole = whole_rounds(on, &run, &judged);
        assert!(whole >= if locked { 1 } else { 2 }, "{on}: {whole} rounds of {rounds} were seen");
    }
}

/// How many rounds were seen whole; of the others, what a visit in that round or in the one before makes seen.
fn whole_rounds(on: &str, run: &Said, judged: &Judged) -> usize {
    // Seen or not, by round, in the order of the touches.
    let mut by_round: BTreeMap<u64, Vec<bool>> = BTreeMap::new();
    for (at, touch) in run.truths("touch").enumerate() {
        by_round.entry(u(&touch["round"])).or_default().push(judged.touches.contains(&at));
    }
    let mut before: Option<&[bool]> = None;
    for (round, of) in &by_round {
        let left_over = of.iter().position(|seen| !*seen).unwrap_or(0);
        let was_visited = before.is_none_or(|before| before[left_over..].iter().all(|seen| *seen));
        assert!(left_over == 0 || was_visited, "{on}, round {round}: {of:?} after {before:?}");
        let unseen = of[left_over..].iter().position(|seen| *seen).unwrap_or(of.len() - left_over);
        assert!(of[left_over + unseen..].iter().all(|seen| *seen), "{on}, round {round}: {of:?}");
        before = Some(of);
    }
    by_round.values().filter(|of| of.iter().all(|seen| *seen)).count()
}

/// Memory that can be shared is seen on some kernels and not on others: the header says which, by name and size, and it is so.
pub fn shared_memory_is_seen_or_said_to_be_out_of_sight(engine: &'static str) {
    const BYTES: u64 = 1 << 20;
    let locked = settings().len() == 1;
    // A file in memory, mapped for the process alone, has the same rules.
    for (on, named) in [("shared", "[shmem]"), ("private", "/dev/shm/trapline-touch-")] {
        let mut target = Command::new("env");
        target.arg("TMPDIR=/dev/shm").args(TOUCH).args(["--warm", "--busy"]);
        target.args(["--on", on, "--pages", "256", "--rounds", "10", "--pause", "300ms", "--delay", "2s"]);
        let mut target = Worker::by(&mut target);
        // Its pages are there when it says where they are.
        let region = target.line();
        let tracer = tracer(engine, &["-p", &target.id().to_string()]);
        let truth = region + "\n" + &target.end();
        let run = Said::recorded(tracer.wait(), truth.as_bytes());
        let (judged, sight) = (judge(&run, |_, _| true), run.header["sight"].as_str().unwrap());
        println!("{engine} {on}: {} of {} seen; it {sight}", judged.seen, judged.due);
        assert!(judged.wrong.is_empty(), "{on}: {:#?}", judged.wrong);
        let (sees, misses) = sight.split_once("does not see").unwrap();
        let is_missed = misses.split(", ").any(|one| one.contains(named) && one.ends_with(" 1.0 MB"));
        if locked {
            assert!(sees.contains("may or may not see 1.0 MB") && !is_missed, "{sight}");
        } else if is_missed {
            assert_eq!(judged.seen, 0, "{on}: {sight}");
            assert!(u(&run.end["unwatched_bytes"]) >= BYTES && u(&run.end["rounds"]) > 3, "{}", run.end);
        } else {
            let whole = whole_rounds(on, &run, &judged);
            assert!(!misses.contains(named) && whole >= 2, "{on}: {whole} rounds were seen; it {sight}");
        }
    }
}

/// A process that computes until it is killed, in 64 pages.
fn busy() -> Running {
    let arguments =
        ["workload", "touch", "--busy", "--pages", "64", "--rounds", "100000", "--pause", "5ms", "--warm"];
    Running::start(trapline().args(arguments).stdin(Stdio::null()).stdout(Stdio::null()))
}

fn end(mut child: Running) {
    assert_eq!(child.try_wait().unwrap(), None, "the target has ended");
}

/// What is changed is said, and put back: at the end, by the doctor after `kill -9` at any moment, and by the next start.
pub fn the_settings_are_put_back(engine: &'static str) {
    let before = settings();
    let target = busy();
    let pid = target.id().to_string();
    let start = |engine: &str| tracer(engine, &["-p", &pid]);
    let doctor = || {
        let output = trapline().args(["doctor", "--repair"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };

    // A good end.
    let tracing = start(engine).begun();
    assert_ne!(std::fs::read_to_string(SWITCH).unwrap().trim(), "0");
    let said = tracing.interrupt();
    assert_eq!(settings(), before);
    let changed = said[0]["changed"].as_str().unwrap();
    for (path, value) in &before {
        // One that was as it is wanted is not changed.
        let name = path.file_name().unwrap().to_str().unwrap();
        let already = name == "numa_balancing" && value.trim() != "0";
        assert!(already || changed.contains(name), "{name} is not in {changed}");
    }
    assert_eq!(doctor(), "nothing to restore\n");

    // Killed, at the start and well into it.
    let (times, step) = if place() == Place::Vm { (4, 500) } else { (8, 20) };
    for i in 0..times {
        let tracing = start(engine);
        std::thread::sleep(Duration::from_millis(step * i));
        tracing.kill();
        // It may have been killed before it changed anything, or after.
        let changed = settings() != before;
        assert_eq!(doctor().contains("back to"), changed);
        assert_eq!(settings(), before);
    }

    // And by the next start, of whatever engine.
    start(engine).begun().kill();
    assert_ne!(settings(), before);
    let plain = trapline().args(["doctor"]).output().unwrap();
    assert!(String::from_utf8_lossy(&plain.stdout).contains("doctor --repair"), "{plain:?}");
    let next = start("none").begun();
    assert_eq!(settings(), before);
    let said = next.interrupt();
    assert!(said[0]["changed"].as_str().unwrap().contains("kernel.numa_balancing back to"));
    end(target);
}

/// A second tracer says no and leaves the first one's settings alone; the doctor repairs nothing meanwhile.
pub fn one_at_a_time(engine: &'static str) {
    let before = settings();
    let target = busy();
    let tracing = tracer(engine, &["-p", &target.id().to_string()]).begun();
    for words in [&["access", "-p", "1", "-d", "1s"][..], &["doctor", "--repair"]] {
        let output = trapline().args(words).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains("already, by process"), "{error}");
        assert_ne!(std::fs::read_to_string(SWITCH).unwrap().trim(), "0");
    }
    tracing.interrupt();
    assert_eq!(settings(), before);
    end(target);
}

/// Where the kernel would go over nothing because the machine is divided into cpusets, that is said.
pub fn cpusets(engine: &'static str) {
    let event = "events/sched/sched_skip_cpuset_numa";
    let tracing = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"].map(Path::new);
    let has_rule = tracing.iter().any(|dir| dir.join(event).exists());
    let Some(set) = Cpuset::make() else {
        println!("no cpuset can be made here");
        return;
    };
    let target = busy();
    let (mut tracer, _file) = access(engine, &["-p", &target.id().to_string(), "-d", "300ms"]);
    let output = tracer.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), !has_rule, "{error}");
    if has_rule {
        assert!(error.contains("cpusets") && error.trim_end().lines().count() == 1, "{error}");
    }
    drop(set);
    end(target);
}

/// A child of the root cpuset, removed when dropped.
struct Cpuset {
    dir: PathBuf,
    mounted: Option<PathBuf>,
}

impl Cpuset {
    fn make() -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let of: HashMap<&str, &str> = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .filter(|words| words[2] == "cgroup2" || words[2] == "cgroup" && words[3].contains("cpuset"))
            .map(|words| (words[2], words[1]))
            .collect();
        let (root, mounted) = match (of.get("cgroup"), of.get("cgroup2")) {
            (Some(root), _) => (PathBuf::from(root), None),
            (None, Some(root)) => (PathBuf::from(root), None),
            (None, None) => {
                let root = scratch().join("cgroups");
                std::fs::create_dir_all(&root).unwrap();
                let mount = Command::new("mount").args(["-t", "cgroup2", "none"]).arg(&root).status();
                mount.unwrap().success().then_some(())?;
                (root.clone(), Some(root))
            }
        };
        let dir = root.join("trapline-test");
        let set = Self { dir, mounted };
        // The unified hierarchy must be told.
        if root.join("cgroup.subtree_control").exists() {
            std::fs::write(root.join("cgroup.subtree_control"), "+cpuset").ok()?;
        }
        std::fs::create_dir(&set.dir).ok()?;
        Some(set)
    }
}

impl Drop for Cpuset {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.dir);
        if let Some(root) = &self.mounted {
            let _ = std::fs::write(root.join("cgroup.subtree_control"), "-cpuset");
            let _ = Command::new("umount").arg(root).status();
        }
    }
}
