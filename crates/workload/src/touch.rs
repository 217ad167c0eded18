//! Touches pages in a known order, at known times, from known threads and functions, and tells.
//!
//! A tracer of page accesses is checked against it. What is told is noted in memory that is there before the first
//! touch, and printed after the last, so that telling changes nothing.
#![allow(unsafe_code)]

mod code;
mod place;
mod reset;

use std::io::{self, Write};
use std::str::FromStr;
use std::sync::{Barrier, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::gettid;
use serde_json::json;

use self::code::{FUNCTIONS, Function};
use self::place::Place;
use self::reset::Resets;
use crate::crew::check_threads;
use crate::map::page_size;
use crate::pattern::{Pattern, Walk};
use crate::{Control, Unfit};

/// Touches that are told at most: their notes are held in memory.
const MOST: usize = 20_000_000;
/// What a thread needs of its stack for itself, bytes.
const OWN_STACK: usize = 256 << 10;

/// What is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum On {
    /// Private anonymous memory.
    #[default]
    Anon,
    /// A file, mapped shared.
    File,
    /// A file, mapped privately.
    Private,
    /// Shared anonymous memory.
    Shared,
    /// The threads' own stacks.
    Stack,
}

impl On {
    /// Every sort's name, as it is written on the command line.
    pub const NAMES: [&'static str; 5] = ["anon", "file", "private", "shared", "stack"];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl FromStr for On {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Anon, Self::File, Self::Private, Self::Shared, Self::Stack];
        let names = Self::NAMES.join(", ");
        all.into_iter()
            .find(|on| on.name() == text)
            .ok_or_else(|| format!("unknown memory {text:?}: one of {names}"))
    }
}

/// How it is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Written.
    #[default]
    Write,
    /// Read.
    Read,
    /// Pages with an even number are read, the others written.
    Both,
}

impl Access {
    /// Every way's name, as it is written on the command line.
    pub const NAMES: [&'static str; 3] = ["write", "read", "both"];

    fn writes(self, page: usize) -> bool {
        match self {
            Self::Write => true,
            Self::Read => false,
            Self::Both => page % 2 == 1,
        }
    }
}

impl FromStr for Access {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "write" => Ok(Self::Write),
            "read" => Ok(Self::Read),
            "both" => Ok(Self::Both),
            _ => Err(format!("unknown access {text:?}: one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// What to touch, and when.
#[derive(Debug, Clone)]
pub struct Options {
    /// The memory.
    pub on: On,
    /// Pages; each thread has so many of its own, unless they are `together`.
    pub pages: usize,
    /// How often each thread goes over its pages.
    pub rounds: usize,
    /// In which order.
    pub pattern: Pattern,
    /// How.
    pub access: Access,
    /// Threads, 1 to [`crate::crew::MAX_THREADS`].
    pub threads: usize,
    /// All threads touch the same pages.
    pub together: bool,
    /// Touch every page once before, to have it in memory.
    pub warm: bool,
    /// Before the first round.
    pub delay: Duration,
    /// Between rounds.
    pub pause: Duration,
    /// Each thread begins so much later than the one before it.
    pub stagger: Duration,
    /// Begin each round when each of its pages has been reset since it was touched, by soft-dirty bits or userfaultfd.
    /// Threads that share pages take turns.
    pub after_resets: bool,
    /// Waiting is computing for that much processor time, not sleeping.
    pub busy: bool,
    /// Of random orders.
    pub seed: u64,
}

/// One touch, as it is noted: 16 bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Note {
    time_ns: u64,
    page: u32,
    round: u32,
}

/// Memory of all threads.
struct Common {
    place: Place,
    /// Who has it touches.
    turn: Mutex<()>,
}

/// What one thread did.
struct Told {
    thread: usize,
    tid: i32,
    start: usize,
    notes: Vec<Note>,
    checksum: u64,
}

/// Touches, and prints the truth as JSON lines: a `region` per thread before the first touch; then `function`s,
/// `touch`es in the order of each thread, and a `total`. Times are CLOCK_MONOTONIC right before the touch.
///
/// # Errors
/// When an option is out of its range, memory is refused, or `out` takes no more.
pub fn run(options: &Options, out: &mut (impl Write + Send), control: &Control) -> Result<()> {
    check_threads(options.threads)?;
    ensure!(
        options.pages > 0 && options.rounds > 0,
        Unfit::new("nothing to do: choose at least 1 page and 1 round")
    );
    let touches = options.pages.checked_mul(options.rounds).and_then(|n| n.checked_mul(options.threads));
    ensure!(
        touches.is_some_and(|n| n <= MOST) && u32::try_from(options.pages).is_ok(),
        Unfit::new(format!("too many touches to report: choose at most {MOST}"))
    );
    let common = match options.together {
        true => {
            let place = Place::map(options.on, options.pages).context("cannot map the pages")?;
            Some(Common { place, turn: Mutex::default() })
        }
        false => None,
    };
    ensure!(
        !(options.together && options.on == On::Stack),
        Unfit::new("threads do not share a stack: leave out --together")
    );
    let ready = Barrier::new(options.threads + 1);
    let regions: Vec<OnceLock<(i32, usize)>> = (0..options.threads).map(|_| OnceLock::new()).collect();
    let told = thread::scope(|scope| -> Result<Vec<Told>> {
        let mut workers = Vec::new();
        for (index, region) in regions.iter().enumerate() {
            let (common, ready) = (common.as_ref(), &ready);
            let stack = OWN_STACK * 2 + if options.on == On::Stack { options.pages * page_size() } else { 0 };
            let builder = thread::Builder::new().name(format!("touch-{index}")).stack_size(stack);
            // A thread that does not start would be waited for without end.
            let worker =
                builder.spawn_scoped(scope, move || touch(index, options, common, region, ready, control));
            workers.push(
                worker.with_context(|| format!("cannot start thread {}", index + 1)).unwrap_or_else(|e| {
                    eprintln!("trapline: {e:#}");
                    std::process::exit(1)
                }),
            );
        }
        ready.wait();
        let written = regions.iter().enumerate().try_for_each(|(index, region)| {
            let &(tid, start) = region.get().unwrap_or(&(0, 0));
            line(
                out,
                &json!({"type": "region", "pid": std::process::id(), "thread": index, "tid": tid,
                        "on": options.on.name(), "start": start, "bytes": options.pages * page_size()}),
            )
        });
        let written = written.and_then(|()| out.flush());
        ready.wait();
        let told = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
            .collect();
        written.context("cannot write to stdout")?;
        told
    })?;
    tell(&told, options, out).context("cannot write to stdout")
}

/// The life of a thread.
fn touch(
    index: usize,
    options: &Options,
    common: Option<&Common>,
    region: &OnceLock<(i32, usize)>,
    ready: &Barrier,
    control: &Control,
) -> Result<Told> {
    let own = match (common, options.on) {
        (Some(_), _) => Ok(None),
        (None, On::Stack) => Ok(Place::stack(options.pages, OWN_STACK)),
        (None, on) => Place::map(on, options.pages).map(Some),
    };
    let mut notes = vec![Note { time_ns: u64::MAX, page: 0, round: 0 }; options.pages * options.rounds];
    let shared = common.map(|common| &common.place);
    let place = own.as_ref().ok().and_then(Option::as_ref).or(shared);
    let start = place.map_or(0, |place| place.page(0) as usize);
    let functions = [Function::of(index, false), Function::of(index, true)];
    // SAFETY: place has this page, readable and writable, and its contents mean nothing to anybody.
    let one = |place: &Place, page, writes: bool, value| unsafe {
        functions[usize::from(writes)].touch(place.page(page), value)
    };
    if let Some(place) = place.filter(|_| options.warm) {
        (0..place.pages()).for_each(|page| _ = one(place, page, true, 0));
    }
    let tid = gettid().as_raw();
    let _ = region.set((tid, start));
    ready.wait();
    ready.wait();
    let place = match &own {
        Err(error) => return Err(anyhow!("cannot map {} pages: {error}", options.pages)),
        Ok(own) => own.as_ref().or(shared).context("there is no memory to touch")?,
    };
    let resets = options.after_resets.then(Resets::new).transpose();
    let mut resets = resets.context("cannot open /proc/self/pagemap")?;
    wait(options.delay + options.stagger * index as u32, options.busy);
    let mut walk = Walk::of_thread(options.pattern, place.pages(), 7, index, options.threads, options.seed);
    let mut made = 0;
    let mut checksum = 0u64;
    for round in 0..options.rounds {
        if round > 0 {
            wait(options.pause, options.busy);
        }
        let turn = common.filter(|_| options.after_resets).map(|common| &common.turn);
        let _turn = turn.map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(resets) = &mut resets {
            resets.wait(place, control)?;
        }
        if control.stopped() {
            break;
        }
        for page in walk.by_ref().take(place.pages()) {
            let writes = options.access.writes(page);
            notes[made] = Note { time_ns: now_ns(), page: page as u32, round: round as u32 };
            let value = one(place, page, writes, round as u8);
            checksum = checksum.wrapping_mul(31).wrapping_add(u64::from(value));
            made += 1;
        }
    }
    notes.truncate(made);
    Ok(Told { thread: index, tid, start, notes, checksum })
}

fn wait(time: Duration, busy: bool) {
    if !busy {
        return thread::sleep(time);
    }
    // Its own time, for on a busy machine that passes slowly.
    let own_ns = || clock_ns(ClockId::CLOCK_THREAD_CPUTIME_ID);
    let until = own_ns() + time.as_nanos() as u64;
    while own_ns() < until {
        std::hint::spin_loop();
    }
}

fn now_ns() -> u64 {
    clock_ns(ClockId::CLOCK_MONOTONIC)
}

fn clock_ns(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |t| t.num_nanoseconds() as u64)
}

fn tell(told: &[Told], options: &Options, out: &mut impl Write) -> io::Result<()> {
    for function in FUNCTIONS {
        let (start, end) = function.range();
        line(out, &json!({"type": "function", "name": function.name, "start": start, "end": end}))?;
    }
    for told in told {
        for note in &told.notes {
            let page = note.page as usize;
            let writes = options.access.writes(page);
            line(
                out,
                &json!({"type": "touch", "time_ns": note.time_ns, "tid": told.tid, "round": note.round,
                        "rw": if writes { "W" } else { "R" }, "addr": told.start + page * page_size(),
                        "function": Function::of(told.thread, writes).name}),
            )?;
        }
    }
    let touches: usize = told.iter().map(|told| told.notes.len()).sum();
    let checksum = told.iter().fold(0, |sum: u64, told| sum.wrapping_add(told.checksum));
    line(out, &json!({"type": "total", "workload": "touch", "touches": touches, "checksum": checksum}))?;
    out.flush()
}

fn line(out: &mut impl Write, value: &serde_json::Value) -> io::Result<()> {
    writeln!(out, "{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(options: &Options) -> Vec<serde_json::Value> {
        let mut out = Vec::new();
        run(options, &mut out, &Control::default()).unwrap();
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn every_touch_is_told_on_every_sort_of_memory() {
        for on in On::NAMES {
            let options = Options {
                on: on.parse().unwrap(),
                pages: 10,
                rounds: 3,
                pattern: Pattern::Seq,
                access: Access::Both,
                threads: 2,
                together: on == "shared",
                warm: on == "anon",
                delay: Duration::ZERO,
                pause: Duration::from_millis(1),
                stagger: Duration::from_millis(1),
                after_resets: false,
                busy: on == "file",
                seed: 1,
            };
            let lines = lines(&options);
            let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
            assert_eq!((of("region"), of("function"), of("touch"), of("total")), (2, 4, 60, 1), "{on}");
            let touches: Vec<_> = lines.iter().filter(|line| line["type"] == "touch").collect();
            let region = |tid: &serde_json::Value| {
                lines.iter().find(|l| l["type"] == "region" && l["tid"] == *tid).unwrap()
            };
            for touch in touches {
                let start = region(&touch["tid"])["start"].as_u64().unwrap();
                let page = (touch["addr"].as_u64().unwrap() - start) / page_size() as u64;
                assert!(page < 10);
                assert_eq!(touch["rw"], if page % 2 == 1 { "W" } else { "R" });
            }
        }
    }

    #[test]
    fn too_much_is_refused() {
        let options = Options {
            on: On::Anon,
            pages: 1 << 20,
            rounds: 1 << 20,
            pattern: Pattern::Seq,
            access: Access::Write,
            threads: 1,
            together: false,
            warm: false,
            delay: Duration::ZERO,
            pause: Duration::ZERO,
            stagger: Duration::ZERO,
            after_resets: false,
            busy: false,
            seed: 0,
        };
        assert!(run(&options, &mut Vec::new(), &Control::default()).is_err());
    }
}
