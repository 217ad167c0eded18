//! What processes do while they are watched: births, programs, mappings, ends. Without it nobody could say what an
//! address meant in a process that has ended.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use anyhow::Result;
use trapline_model::faults::Process;

use super::{Image, Symbols};
use crate::order;
use crate::perf::{self, Buffer, Record, What};

/// For the records of a quarter of a second of one processor, bytes: a thousand programs begun in that time.
const BUFFER: usize = 1 << 20;

/// What perf calls every process that our PID namespace does not show.
const OUTSIDE: u32 = 0;

/// Whose lives matter.
#[derive(Debug)]
pub enum Scope {
    /// Everybody's.
    All,
    /// These processes'.
    These(HashSet<u32>),
    /// These, and their descendants'.
    Tree(HashSet<u32>),
}

/// One process, from one exec to the next.
#[derive(Debug)]
struct Life {
    since_ns: u64,
    image: Image,
    comm: String,
    ended: bool,
    /// Nothing of it is to come any more.
    over: bool,
}

/// Follows processes.
#[derive(Debug)]
pub struct Lives {
    whose: Scope,
    buffers: Vec<Buffer>,
    /// Records that may not be the next: another processor's may come that are older.
    waiting: Vec<Record>,
    /// Of each process, oldest first.
    lives: HashMap<u32, Vec<Life>>,
    /// Address spaces that are over, and of which something has no name yet.
    unnamed: Vec<Image>,
    lost: u64,
}

impl Lives {
    /// Nobody is followed; records are to be given one by one.
    pub fn told(whose: Scope) -> Self {
        Self { whose, buffers: vec![], waiting: vec![], lives: HashMap::new(), unnamed: vec![], lost: 0 }
    }

    /// Follows processes from now on.
    ///
    /// # Errors
    /// When that is not allowed.
    pub fn watch(whose: Scope) -> Result<Self> {
        Ok(Self { buffers: perf::watch_lives(BUFFER)?, ..Self::told(whose) })
    }

    /// Looks at the processes that are there already: before any of them can end.
    pub fn adopt(&mut self, symbols: &mut Symbols) {
        let pids: Vec<u32> = match &self.whose {
            Scope::These(pids) | Scope::Tree(pids) => pids.iter().copied().collect(),
            Scope::All => {
                let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
                entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
            }
        };
        for pid in pids {
            let image = Image::from(Process { pid, start_ns: 0 });
            let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
            let comm = String::from_utf8_lossy(&comm).trim_end_matches('\n').to_owned();
            symbols.know(image);
            if !matches!(self.whose, Scope::All) {
                symbols.expect(image);
            }
            self.lives
                .entry(pid)
                .or_insert_with(|| vec![Life { since_ns: 0, image, comm, ended: false, over: false }]);
        }
    }

    /// Takes what has happened up to now.
    pub fn drain(&mut self, symbols: &mut Symbols) {
        let buffers = &self.buffers;
        let ready = order::up_to_now(
            &mut self.waiting,
            |record: &Record| record.time_ns,
            |records| {
                buffers.iter().for_each(|buffer| buffer.drain(records));
            },
        );
        for record in ready {
            self.take(&record, symbols);
        }
    }

    /// Takes one record: not older than the one before.
    pub fn take(&mut self, record: &Record, symbols: &mut Symbols) {
        if let What::Lost(n) = record.what {
            self.lost += n;
        }
        if !self.matters(record) {
            return;
        }
        let (pid, leads) = (record.pid, record.pid == record.tid);
        match &record.what {
            What::Forked { parent } if *parent != pid => self.born(pid, *parent, record.time_ns, symbols),
            What::Named { comm, exec: true } => {
                let (process, execs) = self.last(pid).map_or_else(
                    || (Process { pid, start_ns: 0 }, 0),
                    |life| (life.image.process, life.image.execs),
                );
                if let Some(life) = self.last(pid) {
                    life.ended = true;
                    symbols.close(life.image);
                }
                let image = Image { process, execs: execs + 1 };
                symbols.begin(image);
                let life =
                    Life { since_ns: record.time_ns, image, comm: comm.clone(), ended: false, over: false };
                self.lives.entry(pid).or_default().push(life);
            }
            What::Named { comm, exec: false } if leads => {
                if let Some(life) = self.last(pid) {
                    life.comm.clone_from(comm);
                }
            }
            What::Mapped(mapping) if mapping.executable => {
                if let Some(image) = self.last(pid).map(|life| life.image) {
                    symbols.add(image, mapping);
                    if !matches!(self.whose, Scope::All) {
                        symbols.expect(image);
                    }
                }
            }
            What::Ended if leads => {
                if let Some(life) = self.last(pid) {
                    life.ended = true;
                }
            }
            What::Mapped(_)
            | What::Forked { .. }
            | What::Named { .. }
            | What::Ended
            | What::Faulted { .. }
            | What::Lost(_) => {}
        }
    }

    fn matters(&mut self, record: &Record) -> bool {
        if record.pid == OUTSIDE {
            return false;
        }
        match &mut self.whose {
            Scope::All => true,
            Scope::These(pids) => pids.contains(&record.pid),
            Scope::Tree(pids) => {
                if let What::Forked { parent } = record.what
                    && pids.contains(&parent)
                {
                    pids.insert(record.pid);
                }
                pids.contains(&record.pid)
            }
        }
    }

    fn born(&mut self, pid: u32, parent: u32, time_ns: u64, symbols: &mut Symbols) {
        let image = Image::from(Process { pid, start_ns: time_ns });
        let comm = match self.last(parent) {
            Some(parent) => {
                symbols.inherit(image, parent.image);
                parent.comm.clone()
            }
            None => {
                symbols.know(image);
                String::new()
            }
        };
        let lives = self.lives.entry(pid).or_default();
        if let Some(life) = lives.last_mut() {
            // Another process had that number.
            life.ended = true;
            symbols.close(life.image);
        }
        lives.push(Life { since_ns: time_ns, image, comm, ended: false, over: false });
    }

    fn last(&mut self, pid: u32) -> Option<&mut Life> {
        self.lives.get_mut(&pid)?.last_mut()
    }

    /// What a process was at a moment: its address space, and its name.
    pub fn at(&self, pid: u32, time_ns: u64) -> Option<(Image, &str)> {
        let life = self.find(pid, time_ns)?;
        Some((life.image, &life.comm))
    }

    fn find(&self, pid: u32, time_ns: u64) -> Option<&Life> {
        let lives = self.lives.get(&pid)?;
        let after = lives.partition_point(|life| life.since_ns <= time_ns);
        lives.get(after.checked_sub(1)?)
    }

    /// Whether so many lives have ended, and are not forgotten, that the room they take is needed.
    pub fn is_full_of_ended(&self) -> bool {
        self.lives.values().flatten().filter(|life| life.ended).count() >= 32
    }

    /// Settles which lives are over: what they did has all been counted by now.
    pub fn settle(&mut self) {
        for (pid, lives) in &mut self.lives {
            // A process whose first thread has ended may go on.
            let goes_on = lives.last().is_some_and(|life| life.ended)
                && Path::new("/proc").join(pid.to_string()).exists();
            let last = lives.len().saturating_sub(1);
            for (index, life) in lives.iter_mut().enumerate() {
                life.over = life.ended && !(index == last && goes_on);
            }
        }
    }

    /// Whether what a process was at a moment was over when that was settled.
    pub fn is_over(&self, pid: u32, time_ns: u64) -> bool {
        self.find(pid, time_ns).is_some_and(|life| life.over)
    }

    /// Forgets what is over: nothing is to be asked about it any more, but about address spaces that have been asked for.
    pub fn forget(&mut self, symbols: &mut Symbols, is_asked: impl Fn(Image) -> bool) {
        let Self { lives, whose, unnamed, .. } = self;
        unnamed.retain(|image| {
            let stays = is_asked(*image);
            if !stays {
                symbols.forget(*image);
            }
            stays
        });
        lives.retain(|pid, lives| {
            for life in lives.iter().filter(|life| life.over) {
                if is_asked(life.image) {
                    unnamed.push(life.image);
                } else {
                    symbols.forget(life.image);
                }
            }
            lives.retain(|life| !life.over);
            if lives.is_empty()
                && let Scope::Tree(pids) = whose
            {
                // Its number may be given to a process that is no descendant.
                pids.remove(pid);
            }
            !lives.is_empty()
        });
    }

    /// How many records had no room: programs and mappings that may be missing.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::clock;

    fn record(time_ns: u64, pid: u32, what: What) -> Record {
        Record { time_ns, pid, tid: pid, what }
    }

    fn names(lives: &Lives, pid: u32, times: &[u64]) -> Vec<Option<String>> {
        times.iter().map(|&at| lives.at(pid, at).map(|(_, comm)| comm.to_owned())).collect()
    }

    #[test]
    fn births_programs_ends_and_numbers_used_again() {
        let mut symbols = Symbols::new();
        let mut lives = Lives::told(Scope::Tree([7].into()));
        let exec = |comm: &str| What::Named { comm: comm.into(), exec: true };
        // Beyond any number that a process can have.
        let (root, child) = (7, u32::MAX >> 2);
        for record in [
            record(10, root, exec("shell")),
            record(20, child, What::Forked { parent: root }),
            record(30, child, exec("tool")),
            record(35, child, What::Named { comm: "renamed".into(), exec: false }),
            record(40, child, What::Ended),
            record(50, child, What::Forked { parent: root }),
            record(60, child + 1, What::Forked { parent: 1 }),
            record(70, root, What::Lost(3)),
        ] {
            lives.take(&record, &mut symbols);
        }
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            names(&lives, child, &[19, 20, 29, 30, 49, 50, 99]),
            [
                None,
                some("shell"),
                some("shell"),
                some("renamed"),
                some("renamed"),
                some("shell"),
                some("shell")
            ]
        );
        assert_eq!(lives.at(child + 1, 99), None, "it is not of the tree");
        assert_eq!(lives.lost(), 3);
        assert!(!lives.is_over(child, 45));
        lives.settle();
        assert!(lives.is_over(child, 45) && !lives.is_over(child, 50));
        lives.forget(&mut symbols, |_| false);
        assert_eq!(names(&lives, child, &[45, 99]), [None, some("shell")]);
        // Its number goes to a process that is no descendant.
        lives.take(&record(110, child, What::Ended), &mut symbols);
        lives.settle();
        lives.forget(&mut symbols, |_| false);
        lives.take(&record(120, child, What::Forked { parent: 1 }), &mut symbols);
        assert_eq!(names(&lives, child, &[130]), [None]);
    }

    #[test]
    fn processes_outside_of_our_pid_namespace_are_nobody() {
        let mut symbols = Symbols::new();
        let mut lives = Lives::told(Scope::All);
        for pid in [OUTSIDE, u32::MAX >> 2] {
            lives.take(&record(10, pid, What::Named { comm: "tool".into(), exec: true }), &mut symbols);
        }
        assert_eq!(names(&lives, OUTSIDE, &[20]), [None]);
        assert_eq!(names(&lives, u32::MAX >> 2, &[20]), [Some("tool".to_owned())]);
    }

    /// What a short process mapped is known when it has long ended.
    #[test]
    #[ignore = "needs root: `make test` runs it"]
    fn a_process_that_came_and_went() {
        let own = std::process::id();
        let mut lives = Lives::watch(Scope::Tree([own].into())).unwrap();
        let mut symbols = Symbols::new();
        lives.adopt(&mut symbols);
        let mut child = Command::new("/bin/true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        lives.drain(&mut symbols);
        let (image, comm) = lives.at(pid, clock::monotonic_ns()).expect("it was seen");
        assert_eq!((comm, image.execs), ("true", 1));
        let mapped = symbols.spaces[&image].modules();
        assert!(mapped.iter().any(|name| name.ends_with("/true")), "{mapped:?}");
        assert!(mapped.iter().any(|name| name.contains("libc")), "{mapped:?}");
        assert_eq!(lives.lost(), 0);
    }

    /// Which had another root directory, so that no path of ours leads to what it ran.
    #[test]
    #[ignore = "needs root: `make test` runs it"]
    fn a_process_with_another_root_that_came_and_went() {
        let own = std::process::id();
        let mut lives = Lives::watch(Scope::Tree([own].into())).unwrap();
        let mut symbols = Symbols::new();
        lives.adopt(&mut symbols);
        let root = tempfile::tempdir().unwrap();
        let source = root.path().join("only_here.c");
        fs::write(&source, "int only_here(void) { return 0; } int main(void) { return only_here(); }")
            .unwrap();
        let program = root.path().join("only-here");
        let made = Command::new("cc").args(["-static", "-o"]).args([&program, &source]).status().unwrap();
        assert!(made.success());
        let mut child = Command::new("chroot").arg(root.path()).arg("/only-here").spawn().unwrap();
        let pid = child.id();
        assert!(child.wait().unwrap().success(), "it runs");
        lives.drain(&mut symbols);
        let (image, comm) = lives.at(pid, clock::monotonic_ns()).expect("it was seen");
        assert_eq!(comm, "only-here");
        let code = symbols.spaces[&image].code_of("only-here").expect("it is mapped");
        let why = code.err().map(|why| why.to_string());
        // ext2, ext3 and ext4 share their number.
        let is_ext = nix::sys::statfs::statfs(root.path()).unwrap().filesystem_type()
            == nix::sys::statfs::EXT4_SUPER_MAGIC;
        let expected = (!is_ext).then_some("cannot read the file: the process ended before it was opened");
        assert!(why.is_none() || why.as_deref() == expected, "{why:?}");
    }
}
