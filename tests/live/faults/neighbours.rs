//! Programs of an ordinary user's that do what they can against root's tracer, beside one that does nothing but its work:
//! that one's figures and names are what they are without them.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use object::{Object, ObjectSection};
use serde_json::Value;

use crate::faults::fair::flooded;
use crate::faults::stack::{OnDemand, chains, of_chain};
use crate::run::{Said, Source, faults, fixture, sum, u};
use crate::running::{Recording, Running, Tracer};

pub const PROGRAM: Source = Source {
    compiler: "cc",
    file: "faults/neighbours/hostile.c",
    options: &["-g", "-gz=zlib", "-O1", "-fno-omit-frame-pointer"],
};

/// Whose they are, and whose the other one is. Root's own processes may be any number, on a machine that builds or tests.
const NOBODY: u32 = 65534;
const SOMEBODY: u32 = 54_321;

/// How long names may be looked for beside all of them, on a machine of two processors.
const NAMED_WITHIN: Duration = Duration::from_secs(90);

/// From the interrupt to the end of the process, as its parent sees it: looking for names takes 0.25 s of it, and all the rest is
/// work of trapline's, before all ordinary threads. That is a second on a machine that is free otherwise; three traplines
/// that were built without optimization share two processors here with whatever else runs on the machine.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// The files that they have, each of its kind.
struct Files(PathBuf);

impl Files {
    fn prepare() -> Self {
        let files = Self(std::env::temp_dir().join(format!("trapline-neighbours-{}", std::process::id())));
        fs::create_dir_all(&files.0).unwrap();
        let program = PROGRAM.program();
        for name in ["program", "link", "size", "lines", "lease", "truncated"] {
            fs::copy(&program, files.path(name)).unwrap();
        }
        let debug = files.path("link.debug");
        fs::write(&debug, "x").unwrap();
        let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
        link.push(&debug);
        let linked = Command::new("objcopy").arg("--strip-debug").arg(link).arg(files.path("link")).status();
        assert!(linked.unwrap().success());
        fs::remove_file(&debug).unwrap();
        nix::unistd::mkfifo(&debug, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
        // Elf64_Chdr: ch_type, ch_reserved, ch_size.
        files.change("size", ".debug_info", |bytes| {
            bytes[8..16].copy_from_slice(&(u64::MAX / 2).to_le_bytes())
        });
        files.change("lines", ".debug_line", |bytes| {
            bytes.iter_mut().skip(32).step_by(7).for_each(|b| *b ^= 0xff)
        });
        for entry in fs::read_dir(&files.0).unwrap() {
            chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        chown(&files.0, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::set_permissions(&files.0, PermissionsExt::from_mode(0o755)).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn change(&self, name: &str, section: &str, change: impl FnOnce(&mut [u8])) {
        let bytes = fs::read(self.path(name)).unwrap();
        let (at, len) = {
            let elf = object::File::parse(&*bytes).unwrap();
            elf.section_by_name(section).unwrap().file_range().unwrap()
        };
        let mut section = bytes[at as usize..(at + len) as usize].to_vec();
        change(&mut section);
        let file = fs::OpenOptions::new().write(true).open(self.path(name)).unwrap();
        file.write_all_at(&section, at).unwrap();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One of them; it ends with this.
struct Hostile(Running);

impl Hostile {
    fn start(program: &Path, kind: &str, file: &Path) -> Self {
        let mut command = Command::new(program);
        command.arg(kind).arg(file).uid(NOBODY).gid(NOBODY).stdin(Stdio::null());
        Self(Running::start(command.current_dir("/")))
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        let status = self.0.try_wait().unwrap();
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_file(format!("/tmp/perf-{}.map", self.0.id()));
        if !std::thread::panicking() {
            assert!(status.is_none(), "it ended by itself: {status:?}");
        }
    }
}

fn tracer(files: &Files, variant: &str, by: &str, more: &[&str]) -> Tracer {
    let file = files.path(by).with_extension("jsonl");
    let mut command = faults(variant, &["--by", by, "-o", file.to_str().unwrap()]);
    command.args(more);
    Tracer::start(command, Recording(file)).begun()
}

/// Counts by thread, by file and by stack, and the names, are exact; and an interrupt is followed at once.
pub fn of_another_users(variant: &'static str) {
    let files = Files::prepare();
    let program = files.path("program");
    let kinds = [
        ("prepared", "link"),
        ("prepared", "size"),
        ("prepared", "lines"),
        ("lease", "lease"),
        ("truncates", "truncated"),
        ("memfds", "program"),
        ("device-for-a-map", "program"),
        ("sparse-map", "program"),
        ("map-of-short-lines", "program"),
        ("stacks", "program"),
        ("programs", "program"),
        ("burn", "program"),
    ];
    let words = fixture("chains-on-demand");
    let mut good = Command::new(&words[0]);
    let mut good = OnDemand::of(good.args(&words[1..]).uid(SOMEBODY).gid(SOMEBODY));
    good.ask();
    let before = good.faults();
    let by_thread = tracer(&files, variant, "thread", &[]);
    let by_file = tracer(&files, variant, "file", &[]);
    let mut by_stack = tracer(&files, variant, "stack", &["-i", "500ms"]);
    let hostile = kinds.map(|(kind, file)| Hostile::start(&program, kind, &files.path(file)));
    // Names are there when they have been looked up once, each chain's in its turn: what comes later has them at once.
    let mut truth: Vec<Value> = good.ask();
    let began = Instant::now();
    let mut unnamed = chains(&truth);
    while !unnamed.is_empty() {
        assert!(began.elapsed() < NAMED_WITHIN, "not named within {NAMED_WITHIN:?}: {unnamed:?}");
        truth.extend(good.ask());
        let shown = by_stack.said().len();
        by_stack.until("another interval", |said| said.len() > shown);
        let said = by_stack.said();
        unnamed.retain(|(chain, ..)| of_chain(&said, chain) == (0, 0));
    }
    let named_after = began.elapsed();
    let few = flooded("good", 0x20, 0);
    truth.extend(good.ask());
    let ended = [("stack", by_stack), ("file", by_file), ("thread", by_thread)].map(|(by, beside)| {
        let began = Instant::now();
        let said = beside.interrupt();
        (by, began.elapsed(), Said::of_lines(said, "(see above)"))
    });
    let now = good.faults();
    drop(hostile);
    println!(
        "names after {named_after:.1?}; ends: {:.1?}",
        ended.each_ref().map(|(by, took, _)| (*by, *took))
    );
    let [(_, _, stacks), (_, _, by_files), (_, _, threads)] = &ended;
    for (chain, _, _) in chains(&truth[..6]) {
        let all: Vec<_> = chains(&truth).into_iter().filter(|(of, ..)| *of == chain).collect();
        let minor: u64 = all.iter().map(|(_, faults, _)| faults.1).sum();
        let found = of_chain(&stacks.totals, &chain);
        assert!(stacks.is_but_for_missed(found.1, minor, 1), "{chain}: {found:?} of {minor}; {}", stacks.end);
    }
    let file = |row: &Value| row["file"].as_str().is_some_and(|file| file.starts_with("[shmem] memfd:good-"));
    let found = sum(&by_files.totals, file).1;
    assert!(by_files.is_but_for_missed(found, u(&few["written"]), 1), "{found} of {few}; {}", by_files.end);
    assert_eq!(by_files.totals.iter().filter(|row| file(row)).count(), 0x20, "{}", by_files.end);
    let tid: u64 = good.pid().parse().unwrap();
    let own = sum(&threads.totals, |row| row["tid"] == tid);
    assert_eq!(own, (now.0 - before.0, now.1 - before.1), "{}", threads.end);
    for (by, took, _) in &ended {
        assert!(*took < ENDS_WITHIN, "by {by}: {took:?} after the interrupt");
    }
}
