//! `trapline top`: everything live on one screen, or a recording.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::tz::TimeZone;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use trapline_model::stage::Pace;
use trapline_probe::terminal::{Ends, with_mouse};
use trapline_probe::{name_errnos, toggle_bpf_statistics};
use trapline_view::top::{Begin, Command, Input, Look, State};

use self::attach::{Running, Shared, start};
use self::faces::{FACES, FAULTS};
use self::play::{Player, has_single_events};
use self::shown::{EndIfPanicked, Post, Shown};
use crate::args;
use crate::cmd::recording;
use crate::sink::{has_no_color, is_dumb};
use crate::status::{Usage, refuse};
use crate::terminal::{Screen, lock};
use crate::values;

mod attach;
mod faces;
mod own;
mod play;
mod shown;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline top                          an overview of all tools that work here
  trapline top faults -p 1234 --split   the page faults of a process, with what their time was spent on
  trapline top kvm --by vm              the exits of virtual machines, by VM
  trapline top run.trapline             a recording, with time: arrows, space, + and -
Keys: ? shows them.")]
pub(crate) struct Args {
    /// Show this tool: faults, kvm, sgx or access (with -p); or play this recording [default: an overview of all tools]
    #[arg(value_name = "TOOL|FILE")]
    what: Option<PathBuf>,

    /// Redraw with new rows every TIME, as in 500ms, 2s or 1m; + and - change it
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = values::interval)]
    interval: Duration,

    /// Group the rows of the tool by WHAT at first: faults by process, thread, comm, cgroup, file, cause, function
    /// or stack, kvm by reason, vm, vcpu, vm,reason, userspace, msr, port,
    /// mmio or rip, sgx by enclave, process or cgroup
    #[arg(long, value_name = "WHAT", requires = "what")]
    by: Option<String>,

    /// Show what the time was spent on, as a bar
    #[arg(long)]
    split: bool,

    #[command(flatten)]
    memory: args::Memory,

    #[command(flatten)]
    whose: args::Whose,
}

impl Args {
    /// The place of the tool that is named, if one is.
    fn tool(&self) -> Option<usize> {
        let what = self.what.as_deref()?;
        FACES.iter().position(|face| Path::new(face.tool) == what)
    }

    /// The recording that is named, if one is.
    fn recording(&self) -> Option<&Path> {
        self.what.as_deref().filter(|_| self.tool().is_none())
    }

    /// Refuses what has no effect.
    ///
    /// # Errors
    /// What, and what to do.
    pub(crate) fn check(&self) -> Result<()> {
        self.whose.check()?;
        let played = self.recording().is_some();
        let face = self.tool().map_or(&FAULTS, |tool| FACES[tool]);
        if let Some(by) = &self.by
            && !face.groups.iter().any(|group| group.name == by)
        {
            let names: Vec<&str> = face.groups.iter().map(|group| group.name).collect();
            let what =
                if names.is_empty() { "leave out --by".into() } else { format!("use {}", names.join(", ")) };
            return Err(Usage::error(format!("{} has no rows by `{by}`: {what}", face.tool)));
        }
        refuse(&[
            (played && self.split, "a recording has what was recorded: leave out --split"),
            (
                played && !self.whose.is_empty(),
                "filters are for what runs now, not for a recording: leave them out",
            ),
            (self.split && face.parts.is_empty(), "this tool has no parts of its time: leave out --split"),
        ])
    }
}

/// Runs until the end and gives the exit status.
///
/// # Errors
/// When standard output is no terminal, or a recording cannot be read.
pub(crate) fn run(args: &Args) -> Result<u8> {
    args.check()?;
    refuse(&[
        (
            !io::stdout().is_terminal() || !io::stdin().is_terminal(),
            "top needs a terminal, as standard input and output: for files and pipes there is `trapline faults --format jsonl`, for a recording `trapline replay`",
        ),
        (is_dumb(), "top needs a terminal with a cursor that moves, not TERM=dumb: use `trapline faults`"),
    ])?;
    let (orders, ordered) = channel();
    let state = state(args)?;
    let ends = Ends::catch()?;
    with_mouse();
    let shown = Arc::new(Mutex::new(Shown::new(state, orders)));
    let screen = Screen::begin(&shown).context("cannot draw on the terminal")?;
    let waker = Arc::new(screen.waker().context("cannot draw on the terminal")?);
    let post = Post { shown: Arc::downgrade(&shown), waker };
    lock(&shown).begin();
    let thread = std::thread::Builder::new().name("orders".into());
    let thread = match args.recording() {
        Some(path) => {
            let player = Player::new(path, args.interval, ordered, post);
            thread.spawn(move || player.run())
        }
        None => {
            let shared = Shared {
                filter: args.whose.alone()?,
                memory_bytes: args.memory.memory,
                interval: args.interval,
                pace: Pace::default(),
                cumulative: false.into(),
                attached: Arc::default(),
            };
            thread.spawn(move || obey(&ordered, &shared, &post))
        }
    };
    let thread = thread.context("cannot start a thread")?;
    let waited = wait(&ends, &screen);
    let left = screen.leave().context("cannot draw on the terminal");
    // Then nobody gives orders any more.
    drop(shown);
    let _ = thread.join();
    waited.and(left)?;
    if shown::has_panicked() { bail!("a thread has panicked, which is a defect of trapline") } else { Ok(0) }
}

/// The screen at the beginning.
fn state(args: &Args) -> Result<State> {
    let look = Look { color: !has_no_color(), ascii: !has_utf_8() };
    let zone = TimeZone::system();
    if let Some(path) = args.recording() {
        let header = recording::open(path, None, None)?.header().clone();
        let Some(face) = FACES.into_iter().find(|face| header.tool == face.tool) else {
            bail!("top shows no recording of `{}`: use `trapline replay`", header.tool);
        };
        let state = State::new(vec![(face, Begin::Now)], look, args.interval, zone);
        let state = state.with_pane(0, args.by.as_deref());
        return Ok(state.playing(path.display().to_string(), !has_single_events(&header)));
    }
    let only = args.tool();
    let has_target = !args.whose.pids().is_empty();
    let tools = FACES.into_iter().enumerate().map(|(at, face)| {
        let begin = match (face.tool, only) {
            ("access", _) if !has_target => Begin::Never(
                "It slows down what it traces, so it needs a process: trapline top access -p PID".into(),
            ),
            ("access", _) => Begin::Shown,
            (_, Some(only)) if only != at => Begin::Shown,
            _ => Begin::Now,
        };
        (face, begin)
    });
    let state = State::new(tools.collect(), look, args.interval, zone);
    let state = state.of(args.whose.alone()?.words().unwrap_or_default());
    let state = match only {
        Some(tool) => state.with_pane(tool, args.by.as_deref()),
        None => state,
    };
    Ok(if args.split { state.split() } else { state })
}

/// Whether the terminal's text is UTF-8, by the variables that decide about it.
fn has_utf_8() -> bool {
    let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Waits for the end: a signal, also that of a key.
fn wait(ends: &Ends, screen: &Screen) -> Result<()> {
    loop {
        let mut fds = [PollFd::new(ends.fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(1000_u16)) {
            Ok(0) if !screen.is_done() => {}
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the end"),
        }
    }
}

/// Does what the screen asks for, until it ends.
fn obey(orders: &Receiver<Command>, shared: &Shared, post: &Post) {
    let _end = EndIfPanicked;
    let mut running: HashMap<usize, Running> = HashMap::new();
    let mut waiting: VecDeque<Command> = VecDeque::new();
    while let Some(command) = waiting.pop_front().or_else(|| orders.recv().ok()) {
        waiting.extend(orders.try_iter());
        let replaces = |later: &Command| {
            let tools = (&command, later);
            matches!(tools, (Command::Open { tool, .. }, Command::Open { tool: of, .. }) if tool == of)
        };
        // Keys come faster than probes are attached: only the last rows that are wanted matter.
        if waiting.iter().any(replaces) {
            continue;
        }
        match command {
            Command::Open { tool, run, want } => {
                running.remove(&tool).into_iter().for_each(Running::leave);
                match start(tool, run, want, shared, post.clone()) {
                    Ok(started) => drop(running.insert(tool, started)),
                    Err(error) => post.send(Input::Failed { tool, run, why: format!("{error:#}") }),
                }
            }
            Command::Refresh => running.values().for_each(|running| running.refresh.request()),
            Command::Cumulative(is_on) => {
                if shared.cumulative.is_on() != is_on {
                    shared.cumulative.turn();
                }
            }
            Command::Interval(interval) => shared.pace.set(interval),
            Command::Write(items) => post.write(&items),
            Command::Measure => post.send(Input::Said(match toggle_bpf_statistics() {
                Ok(true) => "the kernel measures BPF programs until B, or the end".into(),
                Ok(false) => "the kernel measures BPF programs no longer for us".into(),
                Err(error) => name_errnos(&format!("cannot have the kernel measure BPF programs: {error}")),
            })),
            Command::Quit => break,
            Command::Seek(_) | Command::StepTo(_) | Command::Step | Command::Play(_) | Command::Speed(_) => {}
        }
    }
    running.into_values().for_each(Running::leave);
}
