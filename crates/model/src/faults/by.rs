//! What rows are grouped by.

use std::rc::Rc;
use std::str::FromStr;

use super::{Cause, Key, Report};

/// What a row is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A thread.
    Thread,
    /// A process: all its threads.
    Process,
    /// A name: all processes that have it.
    Comm,
    /// A cgroup: all threads that were last seen in it.
    Cgroup,
    /// A mapped file, or a kind of memory that is none.
    File,
    /// A span: see [`SpanLedger`](super::SpanLedger), which makes those rows.
    Span,
    /// What the faults were for.
    Cause,
    /// A call chain.
    Stack,
    /// The function in which a call chain ends.
    Function,
    /// Several of these at once.
    Several(Parts),
}

/// Groupings that can be had together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Whose the faults are; where it is not asked for, everybody's.
    pub whose: Option<Whose>,
    /// A mapped file, or a kind of memory.
    pub file: bool,
    /// What the faults were for.
    pub cause: bool,
}

/// Who takes faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// A thread.
    Thread,
    /// A process.
    Process,
    /// All processes of a name.
    Comm,
    /// A cgroup: where a thread is when it faults.
    Cgroup,
}

impl Whose {
    /// The key of a thread's report, and the name to show.
    fn key(self, report: &Report) -> (Key, Rc<str>) {
        match self {
            Self::Thread => (Key::Thread(report.thread), Rc::clone(&report.comm)),
            Self::Process => (Key::Process(report.process), Rc::clone(&report.process_comm)),
            Self::Comm => (Key::Comm(Rc::clone(&report.process_comm)), "".into()),
            Self::Cgroup => (Key::Cgroup(Rc::clone(&report.cgroup)), "".into()),
        }
    }
}

impl Parts {
    /// The row of these; what rows are not grouped by is left out.
    #[must_use]
    pub fn key(self, whose: Key, file: Key, cause: Cause) -> Key {
        let parts = [(self.whose.is_some(), whose), (self.file, file), (self.cause, Key::Cause(cause))];
        Key::Several(parts.into_iter().filter_map(|(is_part, key)| is_part.then_some(key)).collect())
    }
}

impl By {
    /// Whether every fault is put into its row as it happens; else rows are made of threads.
    #[must_use]
    pub fn each_fault(self) -> bool {
        match self {
            Self::Thread | Self::Process | Self::Comm | Self::Cgroup | Self::Span => false,
            Self::File | Self::Cause | Self::Stack | Self::Function | Self::Several(_) => true,
        }
    }

    /// Whether call chains are taken.
    #[must_use]
    pub fn has_stacks(self) -> bool {
        matches!(self, Self::Stack | Self::Function)
    }

    /// Which of the groupings that can be had together it is; none of them where rows are of something else.
    #[must_use]
    pub fn parts(self) -> Parts {
        let none = Parts { whose: None, file: false, cause: false };
        match self {
            Self::File => Parts { file: true, ..none },
            Self::Cause => Parts { cause: true, ..none },
            Self::Several(parts) => parts,
            _ => none,
        }
    }

    /// The name of the row into which those of what has ended are folded.
    pub(super) fn folded(self) -> &'static str {
        match self {
            // Spans have a ledger of their own; beside it, threads are counted.
            Self::Thread | Self::Span => "(folded threads)",
            Self::Process => "(folded processes)",
            Self::Comm => "(folded names)",
            Self::Cgroup => "(folded cgroups)",
            Self::File => "(folded files)",
            Self::Cause => "(folded causes)",
            Self::Stack => "(folded stacks)",
            Self::Function => "(folded functions)",
            Self::Several(_) => "(folded rows)",
        }
    }

    /// The row that a thread's report belongs to, and the name to show. Where each fault is put into a row of its own, the
    /// report has those that are in none.
    pub(super) fn key(self, report: &Report) -> (Key, Rc<str>) {
        match self {
            Self::Process => Whose::Process.key(report),
            Self::Comm => Whose::Comm.key(report),
            Self::Cgroup => Whose::Cgroup.key(report),
            Self::Several(parts) => {
                let (whose, name) = parts.whose.unwrap_or(Whose::Thread).key(report);
                (parts.key(whose, Key::Rest, Cause::Unknown), name)
            }
            Self::Thread | Self::Span | Self::File | Self::Cause | Self::Stack | Self::Function => {
                Whose::Thread.key(report)
            }
        }
    }
}

impl FromStr for By {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WORDS: &str = "use thread, process, comm, cgroup, file, cause, stack, function or span; of the first four, \
             one can stand beside file, cause or both: process,file";
        let mut parts = Parts { whose: None, file: false, cause: false };
        let (mut one, mut count) = (Err(WORDS), 0);
        for word in text.split(',') {
            let by = match word {
                "thread" => Self::Thread,
                "process" => Self::Process,
                "comm" => Self::Comm,
                "cgroup" => Self::Cgroup,
                "file" => Self::File,
                "cause" => Self::Cause,
                "stack" => Self::Stack,
                "function" => Self::Function,
                "span" => Self::Span,
                _ => return Err(WORDS),
            };
            let whose = match by {
                Self::Thread => Some(Whose::Thread),
                Self::Process => Some(Whose::Process),
                Self::Comm => Some(Whose::Comm),
                Self::Cgroup => Some(Whose::Cgroup),
                _ => None,
            };
            let again = match by {
                Self::File => std::mem::replace(&mut parts.file, true),
                Self::Cause => std::mem::replace(&mut parts.cause, true),
                _ => false,
            };
            if again {
                return Err("a grouping is named twice");
            }
            if whose.is_some() && parts.whose.is_some() {
                return Err("a fault is one thread's, so use one of thread, process, comm and cgroup");
            }
            parts.whose = parts.whose.or(whose);
            (one, count) = (Ok(by), count + 1);
            if count > 1 && (text.contains("stack") || text.contains("function") || text.contains("span")) {
                return Err(
                    "rows by stack, function or span cannot be divided further: filter with -p, --comm or --cgroup",
                );
            }
        }
        if count > 1 { Ok(Self::Several(parts)) } else { one }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groupings_are_read_in_any_order_and_what_cannot_be_is_refused_in_words() {
        let several = |whose, file, cause| Ok(By::Several(Parts { whose, file, cause }));
        assert_eq!("file".parse(), Ok(By::File));
        assert_eq!("comm".parse(), Ok(By::Comm));
        assert_eq!("process,file".parse(), several(Some(Whose::Process), true, false));
        assert_eq!("file,process".parse(), several(Some(Whose::Process), true, false));
        assert_eq!("file,cause".parse(), several(None, true, true));
        assert_eq!("cgroup,cause,file".parse(), several(Some(Whose::Cgroup), true, true));
        let refused = |text: &str, why: &str| {
            assert!(text.parse::<By>().is_err_and(|error| error.contains(why)), "{text}");
        };
        refused("", "use thread");
        refused("files", "use thread");
        refused("process,", "use thread");
        refused("process,thread", "one thread's");
        refused("comm,comm", "one thread's");
        refused("file,file", "twice");
        refused("process,stack", "-p");
        refused("stack,stack", "-p");
        refused("span,file", "-p");
    }
}
