//! The tools of a screen, each in a thread of its own, which attaches what is wanted and passes its items on.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::geteuid;
use trapline_model::access::summary::{self, Summarized, View};
use trapline_model::faults::By;
use trapline_model::kvm::{self as kvm_model, Layout};
use trapline_model::stage::{Cumulative, Pace, Refresh, rows};
use trapline_model::{Facts, Item, Source, Value};
use trapline_probe::access::{self, Access, Prepared};
use trapline_probe::faults::{self, Events};
use trapline_probe::kvm::{self, Choice, Kvm};
use trapline_probe::run::{Frame, Run, Tool};
use trapline_probe::sgx::{self, Sgx};
use trapline_probe::{Filter, bpf_cost, name_errnos, refused};
use trapline_view::top::{Input, Want};

use super::faces::FACES;
use super::own::{OwnProcesses, have_ended};
use super::shown::{EndIfPanicked, Post};
use crate::cmd::run::{Borrowed, Items};

/// Memory for events until they are read.
const RING_BYTES: u32 = 8 << 20;
/// As `access` has it.
const EVERY: Duration = Duration::from_millis(1);
const WINDOW_NS: u64 = 100_000_000;
const ACCESS_ROWS: usize = 1000;

/// What all tools of a screen share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) filter: Filter,
    pub(super) memory_bytes: u64,
    pub(super) interval: Duration,
    pub(super) pace: Pace,
    pub(super) cumulative: Cumulative,
    /// The variant that attached to faults.
    pub(super) attached: Arc<OnceLock<String>>,
}

/// A tool that runs.
pub(super) struct Running {
    stop: UnixStream,
    thread: JoinHandle<()>,
    pub(super) refresh: Refresh,
}

impl Running {
    /// Has it stop, and waits until what it changed is as it was: `access` changes what it traces.
    pub(super) fn leave(mut self) {
        let _ = self.stop.write(&[0]);
        // Its panic was reported, and ends the screen.
        let _ = self.thread.join();
    }
}

/// Attaches a tool in the background, and posts its items under this number.
///
/// # Errors
/// When there are no more threads or descriptors.
pub(super) fn start(tool: usize, run: u32, want: Want, shared: &Shared, post: Post) -> Result<Running> {
    let (stop, until) = UnixStream::pair().context("cannot make a pair of sockets")?;
    stop.set_nonblocking(true)?;
    let refresh = Refresh::default();
    let shared = shared.clone();
    let name = FACES.get(tool).map_or("", |face| face.tool);
    let own_refresh = refresh.clone();
    let work = move || {
        let _end = EndIfPanicked;
        let give = |item| {
            if matches!(item, Item::Header(_) | Item::Facts(_)) {
                post.send(Input::Cost { tool, run, ns: bpf_cost() });
            }
            post.send(Input::Item { tool, run, item });
        };
        let once = || {
            let frame = Frame {
                interval: Some(shared.interval),
                pace: shared.pace.clone(),
                cumulative: shared.cumulative.clone(),
                refresh: own_refresh.clone(),
                until: Some(until.try_clone()?.into()),
                ..Frame::default()
            };
            let (tool, own) = open(name, &want, &shared)?;
            pour(tool, own, frame, &want, &shared, give)
        };
        let done = loop {
            match once() {
                Ok(Ended::ForNew) => {}
                Ok(Ended::Done) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = done {
            let why = name_errnos(&format!("{:#}", refused(error)));
            post.send(Input::Failed { tool, run, why });
        }
    };
    let thread =
        std::thread::Builder::new().name(name.into()).spawn(work).context("cannot start a thread")?;
    Ok(Running { stop, thread, refresh })
}

/// Why a tool has ended.
enum Ended {
    Done,
    /// There are new processes to watch.
    ForNew,
}

/// All items of a tool, while there is one of the processes that it is to watch, and it watches all of one's own.
fn pour(
    tool: Box<dyn Tool>,
    mut own: Option<OwnProcesses>,
    frame: Frame,
    want: &Want,
    shared: &Shared,
    give: impl Fn(Item),
) -> Result<Ended> {
    let is_access = tool.header().tool == "access";
    let mut run = Run::new(vec![tool], frame, None)?;
    let mut items: Items<'_> = match is_access {
        true if want.events => Box::new(Borrowed(&mut run)),
        true => Box::new(Summarized::new(Borrowed(&mut run), summary(shared.cumulative.is_on()))),
        false => Box::new(rows(Borrowed(&mut run), shared.cumulative.clone())),
    };
    let watched = narrowed(&shared.filter, want);
    let mut facts = Facts::default();
    while let Some(item) = items.next()? {
        let is_tick = matches!(item, Item::Tick(_));
        if let Item::Facts(now) = &item {
            facts = now.clone();
        }
        give(item);
        if is_tick && own.as_mut().is_some_and(OwnProcesses::has_new) {
            return Ok(Ended::ForNew);
        }
        // The last rows stay on the screen.
        if is_tick && !watched.descendants && have_ended(&watched.pids) {
            give(Item::End(facts));
            return Ok(Ended::Done);
        }
    }
    Ok(Ended::Done)
}

/// The tables of accesses.
pub(super) fn summary(cumulative: bool) -> summary::Options {
    summary::Options {
        views: vec![View::Pages, View::Mappings, View::ReadsWrites, View::Sharing, View::WorkingSet],
        window_ns: WINDOW_NS,
        top: ACCESS_ROWS,
        intervals: true,
        cumulative,
        ..summary::Options::default()
    }
}

/// Attaches a tool; without privilege, to one's own processes, which it gives.
fn open(name: &str, want: &Want, shared: &Shared) -> Result<(Box<dyn Tool>, Option<OwnProcesses>)> {
    let filter = narrowed(&shared.filter, want);
    let tool: Box<dyn Tool> = match name {
        "kvm" => Box::new(Kvm::open(&exits(want, filter, shared), None)?),
        "sgx" => Box::new(Sgx::open(&enclaves(want, filter), None)?),
        "access" => {
            let options = accesses(&shared.filter, want);
            let prepared = Prepared::new(&options)?;
            Box::new(Access::open(&options, prepared, None)?)
        }
        _ => return faults_of(page_faults(want, filter, shared)?, &shared.attached),
    };
    Ok((tool, None))
}

fn faults_of(
    mut options: faults::Options,
    attached: &OnceLock<String>,
) -> Result<(Box<dyn Tool>, Option<OwnProcesses>)> {
    // To try those that were refused takes most of the time until there are other rows.
    options.variant = attached.get().cloned();
    if options.variant.is_some()
        && let Ok((tool, _)) = faults::open(&options, None)
    {
        return Ok((tool, None));
    }
    options.variant = None;
    if let Ok((tool, _)) = faults::open(&options, None) {
        let _ = attached.set(tool.header().variant.into_owned());
        return Ok((tool, None));
    }
    // Variants that time no faults have no histograms, and no parts of times.
    (options.hist, options.split) = (false, false);
    let error = match faults::open(&options, None) {
        Ok((tool, _)) => return Ok((tool, None)),
        Err(error) => error,
    };
    if options.filter.words().is_some() || geteuid().is_root() {
        return Err(error.into());
    }
    let mut open = || {
        let own = OwnProcesses::now();
        options.filter.pids = own.pids();
        faults::open(&options, None).map(|(tool, _)| (tool, Some(own)))
    };
    // One of them may have ended meanwhile.
    Ok(open().or_else(|_| open())?)
}

/// The filter, and within it what the rows above are of.
fn narrowed(filter: &Filter, want: &Want) -> Filter {
    let mut filter = filter.clone();
    for (name, key) in &want.keys {
        match (*name, key) {
            ("pid", Value::U64(pid)) => (filter.pids, filter.descendants) = (vec![*pid as u32], false),
            ("tid", Value::U64(tid)) => filter.tid = Some(*tid as u32),
            ("cgroup", Value::Str(path)) => {
                filter.cgroup = Some(Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')));
            }
            _ => {}
        }
    }
    filter
}

fn page_faults(want: &Want, filter: Filter, shared: &Shared) -> Result<faults::Options> {
    let by: By = want.group.parse().map_err(anyhow::Error::msg)?;
    let events = match (want.events, want.split) {
        (false, _) => Events::None,
        (true, false) => Events::Faults,
        (true, true) => Events::Slower(0),
    };
    Ok(faults::Options {
        // Single events come without the rows of several keys and of stacks.
        by: if want.events { By::Process } else { by },
        hist: true,
        split: want.split,
        events,
        ring_bytes: RING_BYTES,
        memory_bytes: shared.memory_bytes,
        ..faults::Options::new(filter)
    })
}

fn exits(want: &Want, filter: Filter, shared: &Shared) -> kvm::Options {
    use kvm_model::By;
    let by = match want.group {
        "vm" => By::Vm,
        "vcpu" => By::Vcpu,
        "msr" => By::Msr,
        "port" => By::Port,
        "mmio" => By::Mmio,
        "rip" => By::Rip,
        "userspace" => By::Userspace,
        "vm,reason" => By::VmReason,
        _ => By::Reason,
    };
    let number = |name: &str| {
        let key = want.keys.iter().find(|(of, _)| *of == name).map(|(_, key)| key);
        if let Some(Value::U64(n)) = key { Some(*n as u32) } else { None }
    };
    kvm::Options {
        filter: Filter { tid: filter.tid.filter(|_| number("vcpu").is_none()), ..filter },
        vm: None,
        vcpu: number("vcpu"),
        level: None,
        choice: Choice::All,
        layout: Layout { by, timed: true, buckets: true, split: want.split },
        slower: want.events.then_some(Duration::ZERO),
        stacks: false,
        variant: None,
        ring_bytes: RING_BYTES,
        memory_bytes: shared.memory_bytes,
    }
}

fn enclaves(want: &Want, filter: Filter) -> sgx::Options {
    use trapline_model::sgx::By;
    let by = match want.group {
        "process" => By::Process,
        "cgroup" => By::Cgroup,
        _ => By::Enclave,
    };
    sgx::Options { filter, variant: None, module: None, by, hist: true, memory_mib: 16 }
}

fn accesses(filter: &Filter, want: &Want) -> access::Options {
    let pids = narrowed(filter, want).pids;
    access::Options {
        whose: access::Whose::Processes { pids, children: filter.descendants },
        reset: None,
        every: EVERY,
        first_touch: true,
        symbols: false,
        variant: None,
        ring_bytes: 2 * RING_BYTES,
        max_overhead: None,
    }
}
