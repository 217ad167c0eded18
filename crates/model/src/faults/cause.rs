//! What a fault was for. The kernel half gives facts; the one table of rules, [`RULES`], says what they mean.

/// What a fault was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Fresh anonymous memory, or the page of zeroes that stands for it while it is only read.
    ZeroFill,
    /// The first write to private memory that was shared until then, or that a file's page stood for.
    CopyOnWrite,
    /// A page of a file that was in the page cache.
    FileMap,
    /// A page of a file that had to be read.
    FileRead,
    /// A page of a file that was being read already: the thread slept until it was there.
    FileWait,
    /// A page that had been swapped out.
    SwapIn,
    /// Fresh anonymous memory, a whole huge page at once.
    HugePage,
    /// A page that the scheduler had hidden, to see who uses it.
    NumaHint,
    /// A page that a userfaultfd looks after.
    Userfaultfd,
    /// tmpfs, memfd, shared anonymous and System V memory.
    Shmem,
    /// The pool of huge pages.
    Hugetlb,
    /// A driver's memory, or the kernel's own that it shows to processes.
    Device,
    /// An address that the process may not use: it got a signal.
    BadAddress,
    /// The first write to a shared page since it was last written back: its file is told.
    WriteNotify,
    /// A page that was being moved to another place.
    Migration,
    /// The page was there by then: another thread had brought it.
    Spurious,
    /// Not known, or none of these.
    Unknown,
}

impl Cause {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::ZeroFill,
        Self::CopyOnWrite,
        Self::FileMap,
        Self::FileRead,
        Self::FileWait,
        Self::SwapIn,
        Self::HugePage,
        Self::NumaHint,
        Self::Userfaultfd,
        Self::Shmem,
        Self::Hugetlb,
        Self::Device,
        Self::BadAddress,
        Self::WriteNotify,
        Self::Migration,
        Self::Spurious,
        Self::Unknown,
    ];

    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZeroFill => "zero-fill",
            Self::CopyOnWrite => "copy-on-write",
            Self::FileMap => "file-map",
            Self::FileRead => "file-read",
            Self::FileWait => "file-wait",
            Self::SwapIn => "swap-in",
            Self::HugePage => "huge-page",
            Self::NumaHint => "numa-hint",
            Self::Userfaultfd => "userfaultfd",
            Self::Shmem => "shmem",
            Self::Hugetlb => "hugetlb",
            Self::Device => "device",
            Self::BadAddress => "bad-address",
            Self::WriteNotify => "write-notify",
            Self::Migration => "migration",
            Self::Spurious => "spurious",
            Self::Unknown => "unknown",
        }
    }

    /// What a fault of which this is known was for.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        RULES.iter().find(|rule| rule.fits(facts)).map_or(Self::Unknown, |rule| rule.cause)
    }
}

/// What the memory at an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Not known: there is no memory at that address, or the variant cannot see which.
    Unknown,
    /// Nothing but the process's own.
    Anonymous,
    /// A file's, by the page cache.
    File,
    /// A file's of tmpfs, with a name or without.
    Shmem,
    /// Of the pool of huge pages.
    Hugetlb,
    /// A driver's or the kernel's own.
    Device,
}

/// What the page table held when the fault began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// Not known.
    Unknown,
    /// Nothing.
    Absent,
    /// Where the page is on a swap device.
    Swapped,
    /// That the page is on its way to another place, or with a device.
    Moving,
    /// A page that no access is allowed to, in memory to which access is allowed.
    Hidden,
    /// A page that may be read and not written.
    ReadOnly,
    /// A page that allows the access.
    There,
}

/// Facts that hold or do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Also(pub u32);

impl Also {
    /// The access was a write.
    pub const WRITE: Self = Self(1);
    /// Writes to the memory are seen by others (MAP_SHARED).
    pub const SHARED: Self = Self(2);
    /// A userfaultfd is asked for pages of the memory that are missing.
    pub const MISSING: Self = Self(4);
    /// A userfaultfd looks after the memory in some way.
    pub const WATCHED: Self = Self(8);
    /// The page table's entry says that a userfaultfd protects the page.
    pub const GUARDED: Self = Self(16);
    /// The thread slept during the fault.
    pub const SLEPT: Self = Self(32);
    /// A huge page was put in.
    pub const HUGE: Self = Self(64);
    /// The kernel's accounting says major.
    pub const MAJOR: Self = Self(128);
    /// It was not completed: the process got a signal instead.
    pub const SIGNAL: Self = Self(256);
    /// The thread slept for I/O.
    pub const IO: Self = Self(512);

    const NONE: Self = Self(0);

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn holds(self, all: Self) -> bool {
        self.0 & all.0 == all.0
    }

    const fn meets(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
}

/// What is known of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What is mapped at the address.
    pub memory: Memory,
    /// What the page table held.
    pub page: Page,
    /// The rest.
    pub also: Also,
}

/// A fault that meets all the conditions was for this.
#[derive(Debug)]
struct Rule {
    cause: Cause,
    /// The memory is one of these; any, if there are none.
    memory: &'static [Memory],
    /// The page was one of these; any, if there are none.
    page: &'static [Page],
    /// All of these hold.
    with: Also,
    /// None of these holds.
    without: Also,
}

impl Rule {
    fn fits(&self, facts: &Facts) -> bool {
        (self.memory.is_empty() || self.memory.contains(&facts.memory))
            && (self.page.is_empty() || self.page.contains(&facts.page))
            && facts.also.holds(self.with)
            && !facts.also.meets(self.without)
    }
}

const fn rule(
    cause: Cause,
    memory: &'static [Memory],
    page: &'static [Page],
    with: Also,
    without: Also,
) -> Rule {
    Rule { cause, memory, page, with, without }
}

const ANON: &[Memory] = &[Memory::Anonymous];
const FILE: &[Memory] = &[Memory::File];
const SHMEM: &[Memory] = &[Memory::Shmem];
const FILES: &[Memory] = &[Memory::File, Memory::Shmem];
const CACHED: &[Memory] = &[Memory::Shmem, Memory::Hugetlb];
const KNOWN: &[Memory] = &[Memory::Anonymous, Memory::File, Memory::Shmem];
const ABSENT: &[Page] = &[Page::Absent];

/// The first that fits decides; none: unknown.
#[rustfmt::skip]
const RULES: &[Rule] = &[
    rule(Cause::BadAddress, &[], &[], Also::SIGNAL, Also::NONE),
    // Protected by its page table entry: a write, or (7.3 and later) any access.
    rule(Cause::Userfaultfd, &[], &[Page::ReadOnly], Also::GUARDED.and(Also::WRITE), Also::NONE),
    rule(Cause::Userfaultfd, &[], &[Page::Hidden], Also::GUARDED, Also::NONE),
    rule(Cause::Userfaultfd, ANON, ABSENT, Also::MISSING, Also::NONE),
    // Of shared memory a page may be absent from this page table only; the userfaultfd's page is waited for.
    rule(Cause::Userfaultfd, CACHED, ABSENT, Also::WATCHED.and(Also::SLEPT), Also::NONE),
    rule(Cause::Hugetlb, &[Memory::Hugetlb], &[], Also::NONE, Also::NONE),
    rule(Cause::Device, &[Memory::Device], &[], Also::NONE, Also::NONE),
    rule(Cause::SwapIn, &[], &[Page::Swapped], Also::NONE, Also::NONE),
    // Where a page of tmpfs is on a swap device is not in the page table; it has no other device to be read from.
    rule(Cause::SwapIn, SHMEM, ABSENT, Also::MAJOR, Also::NONE),
    rule(Cause::Migration, &[], &[Page::Moving], Also::NONE, Also::NONE),
    rule(Cause::NumaHint, &[], &[Page::Hidden], Also::NONE, Also::NONE),
    rule(Cause::CopyOnWrite, KNOWN, &[Page::ReadOnly], Also::WRITE, Also::SHARED),
    rule(Cause::FileWait, FILE, ABSENT, Also::IO, Also::MAJOR),
    rule(Cause::CopyOnWrite, FILES, ABSENT, Also::WRITE, Also::SHARED.and(Also::MAJOR)),
    rule(Cause::WriteNotify, KNOWN, &[Page::ReadOnly], Also::WRITE.and(Also::SHARED), Also::NONE),
    rule(Cause::Spurious, &[], &[Page::There], Also::NONE, Also::NONE),
    rule(Cause::FileRead, FILE, ABSENT, Also::MAJOR, Also::NONE),
    rule(Cause::FileMap, FILE, ABSENT, Also::NONE, Also::NONE),
    rule(Cause::Shmem, SHMEM, ABSENT, Also::NONE, Also::NONE),
    rule(Cause::HugePage, ANON, ABSENT, Also::HUGE, Also::NONE),
    rule(Cause::ZeroFill, ANON, ABSENT, Also::NONE, Also::NONE),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(memory: Memory, page: Page, also: &[Also]) -> &'static str {
        let also = also.iter().fold(Also::NONE, |all, one| all.and(*one));
        Cause::of(&Facts { memory, page, also }).name()
    }

    #[test]
    fn one_fact_more_is_another_cause() {
        use {Also as A, Memory as M, Page as P};
        assert_eq!(cause(M::Anonymous, P::Absent, &[A::WRITE]), "zero-fill");
        assert_eq!(cause(M::Anonymous, P::Absent, &[]), "zero-fill");
        assert_eq!(cause(M::Anonymous, P::Absent, &[A::WRITE, A::HUGE]), "huge-page");
        assert_eq!(cause(M::Anonymous, P::Absent, &[A::WRITE, A::MISSING, A::WATCHED]), "userfaultfd");
        assert_eq!(cause(M::Anonymous, P::Absent, &[A::WRITE, A::WATCHED]), "zero-fill");
        assert_eq!(cause(M::Anonymous, P::ReadOnly, &[A::WRITE]), "copy-on-write");
        assert_eq!(cause(M::Anonymous, P::ReadOnly, &[A::WRITE, A::GUARDED, A::WATCHED]), "userfaultfd");
        assert_eq!(cause(M::Anonymous, P::Hidden, &[]), "numa-hint");
        assert_eq!(cause(M::Anonymous, P::Hidden, &[A::GUARDED, A::WATCHED]), "userfaultfd");
        assert_eq!(cause(M::Anonymous, P::Swapped, &[A::MAJOR]), "swap-in");
        assert_eq!(cause(M::Anonymous, P::Swapped, &[A::WRITE]), "swap-in");
        assert_eq!(cause(M::Anonymous, P::Moving, &[]), "migration");
        assert_eq!(cause(M::Anonymous, P::There, &[]), "spurious");
        assert_eq!(cause(M::File, P::Absent, &[]), "file-map");
        assert_eq!(cause(M::File, P::Absent, &[A::MAJOR]), "file-read");
        assert_eq!(cause(M::File, P::Absent, &[A::SLEPT]), "file-map");
        assert_eq!(cause(M::File, P::Absent, &[A::SLEPT, A::IO]), "file-wait");
        assert_eq!(cause(M::File, P::Absent, &[A::SLEPT, A::IO, A::MAJOR]), "file-read");
        assert_eq!(cause(M::File, P::ReadOnly, &[A::WRITE, A::SHARED, A::IO]), "write-notify");
        assert_eq!(cause(M::File, P::Absent, &[A::WRITE]), "copy-on-write");
        assert_eq!(cause(M::File, P::Absent, &[A::WRITE, A::MAJOR]), "file-read");
        assert_eq!(cause(M::File, P::Absent, &[A::WRITE, A::SHARED]), "file-map");
        assert_eq!(cause(M::File, P::ReadOnly, &[A::WRITE]), "copy-on-write");
        assert_eq!(cause(M::File, P::ReadOnly, &[A::WRITE, A::SHARED]), "write-notify");
        assert_eq!(cause(M::Shmem, P::Absent, &[A::WRITE, A::SHARED]), "shmem");
        assert_eq!(cause(M::Shmem, P::Absent, &[A::WRITE]), "copy-on-write");
        assert_eq!(cause(M::Shmem, P::Absent, &[A::SHARED, A::MAJOR]), "swap-in");
        assert_eq!(cause(M::Shmem, P::Absent, &[A::SHARED, A::WATCHED]), "shmem");
        assert_eq!(cause(M::Shmem, P::Absent, &[A::SHARED, A::WATCHED, A::SLEPT, A::MAJOR]), "userfaultfd");
        assert_eq!(cause(M::Hugetlb, P::Absent, &[A::WRITE]), "hugetlb");
        assert_eq!(cause(M::Hugetlb, P::Unknown, &[]), "hugetlb");
        assert_eq!(cause(M::Device, P::Absent, &[A::MAJOR]), "device");
        assert_eq!(cause(M::Unknown, P::Unknown, &[A::SIGNAL]), "bad-address");
    }

    /// What is not known is not guessed: without the page table, or without the memory, there is little to say.
    #[test]
    fn what_is_not_known_is_not_guessed() {
        for memory in [Memory::Unknown, Memory::Anonymous, Memory::File, Memory::Shmem] {
            for also in 0..Also::SIGNAL.0 {
                assert_eq!(
                    Cause::of(&Facts { memory, page: Page::Unknown, also: Also(also) }),
                    Cause::Unknown
                );
            }
        }
        for page in [Page::Unknown, Page::Absent] {
            for also in 0..Also::SIGNAL.0 {
                let facts = Facts { memory: Memory::Unknown, page, also: Also(also) };
                assert_eq!(Cause::of(&facts), Cause::Unknown);
            }
        }
    }

    /// Each rule decides about something that those above it leave; and each cause has its name in the docs.
    #[test]
    fn every_rule_decides_and_every_cause_is_documented() {
        use {Memory as M, Page as P};
        let memories = [M::Unknown, M::Anonymous, M::File, M::Shmem, M::Hugetlb, M::Device];
        let pages = [P::Unknown, P::Absent, P::Swapped, P::Moving, P::Hidden, P::ReadOnly, P::There];
        let mut decided = vec![false; RULES.len()];
        for memory in memories {
            for page in pages {
                for also in 0..Also::IO.0 * 2 {
                    let facts = Facts { memory, page, also: Also(also) };
                    if let Some(at) = RULES.iter().position(|rule| rule.fits(&facts)) {
                        decided[at] = true;
                    }
                }
            }
        }
        assert!(decided.iter().all(|d| *d), "{decided:?}");
        let docs = include_str!("../../../../docs/faults.md");
        for cause in Cause::ALL {
            assert!(docs.contains(&format!("| `{}` |", cause.name())), "{} is not documented", cause.name());
        }
    }
}
