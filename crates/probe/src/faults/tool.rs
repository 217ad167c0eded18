//! Page faults as a [`Tool`]: events, rows at intervals, totals and losses.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use trapline_model::faults::{Fault, LOSSES, Losses, SETTINGS, Timing};
use trapline_model::{BatchSink, Block, Event, Header};

use super::from_abi::fault;
use super::options::{Events, Unwind};
use super::recording::Recorded;
use super::{Faults, Groups, Incoming, Settings, recipe, steps, unwind};
use crate::abi::FaultsLosses;
use crate::abi::maps::faults as maps;
use crate::run::{Counted, Tool};
use crate::{mounts, signals, system};

/// How long the kernel may take to free a thread that has ended, on a busy machine.
const FREED_WITHIN: Duration = Duration::from_millis(200);

/// Rows of threads that ended wait until there are as many, a fourth of what the BPF map holds, if nothing needs them before: to look
/// through it costs as much as hundreds of faults.
const ENDED_WAIT: u64 = 4096;

/// Faults that are not shown one by one wait for those that follow: the ring holds more than two processors can send in this time.
const GATHER: Duration = Duration::from_millis(5);

impl Tool for Faults {
    fn header(&self) -> Header {
        let Settings { timing, minor_latency, stacks, unwinds, events, by, memory_bytes } = self.settings;
        let recorded = self.recording.as_ref().map(Recorded::table);
        let shown = recorded.or(events.schema());
        let settings = trapline_model::faults::Settings {
            served_mounts: shown.and_then(|_| mounts::served()),
            causes_unknown: self.causes_unknown.clone(),
            minor_latency: (timing != Timing::None).then(|| minor_latency.to_string()),
            memory_mb: memory_bytes >> 20,
            stacks: stacks.map(|stacks| stacks.to_string()),
            unwind: stacks.map(|_| if unwinds { Unwind::Tables } else { Unwind::FramePointers }.to_string()),
            unwind_mb: unwinds.then_some(unwind::MEGABYTES),
            ..Default::default()
        };
        let settings = vec![SETTINGS.record(&settings), system::scope(self.filter.as_deref())];
        let rows = if self.parts.is_some() { by.split_schema() } else { by.schema() };
        let tables = (vec![rows], shown);
        system::header("faults", self.attached.variant, tables, settings).begun(self.control.began_ns)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.incoming {
            Incoming::None => self.groups.as_ref().and_then(Groups::fd),
            Incoming::Faults(ring, _) => Some(ring.fd()),
            Incoming::Steps(steps) => Some(steps.fd()),
        }
    }

    fn gathers_for(&self, came: bool) -> Duration {
        match &self.incoming {
            Incoming::Steps(_) if came => steps::GATHER,
            Incoming::Faults(..) if self.recording.is_some() && self.came > 0 => GATHER,
            _ => Duration::ZERO,
        }
    }

    fn drain(&mut self, events: &mut Vec<Event>) -> Result<()> {
        match &mut self.incoming {
            Incoming::None => {}
            Incoming::Faults(ring, code) => {
                self.batch.clear();
                ring.drain(&mut self.batch)?;
                self.came = self.batch.len();
                code.iter_mut().for_each(|code| code.follow());
                let event_of = match (&code, self.parts) {
                    (Some(_), _) => Fault::slow_event,
                    (None, Some(_)) => Fault::split_event,
                    (None, None) => Fault::event,
                };
                for event in &self.batch {
                    if self.read_until.is_some_and(|until| Instant::now() >= until) {
                        self.unread += event.count;
                        continue;
                    }
                    let file = match &mut self.files {
                        Some(files) => files.known(&event.file)?,
                        None => None,
                    };
                    let mut fault = fault(event, self.parts, file, &mut self.names);
                    fault.wait_ns = fault.wait_ns.filter(|_| self.sees_waits);
                    if let Some(code) = code
                        && let Some((image, ip)) = code.place(event)
                    {
                        fault.function = code.name(image, ip).map(|name| name.to_string().into());
                    }
                    match &mut self.recording {
                        Some(recording) => recording.add(fault, event.count, events),
                        None => {
                            events.extend(std::iter::repeat_n(event_of(&fault), event.count as usize));
                        }
                    }
                }
                code.iter_mut().for_each(|code| code.forget(|_| false));
                if let Some(recording) = &mut self.recording {
                    recording.write()?;
                }
            }
            Incoming::Steps(steps) => steps.drain(self.files.as_mut(), events)?,
        }
        let made = self.made()?;
        if let Some(files) = &mut self.files {
            if made.names != self.fetched.names {
                self.fetched.names = made.names;
                system::undisturbed(|| files.fetch_names())?;
            }
            if self.groups.is_none() && files.are_full() {
                // No name is in use for longer than an event takes.
                self.control.turn += 1;
                self.control.stale = self.control.turn;
                self.attached.write(maps::CONTROL, &self.control)?;
                system::wait_for_programs();
                files.forget(self.control.stale, &HashSet::new())?;
            }
        }
        // First: they have the names that go with groups.
        // At the end no other pass comes that would fetch them.
        let is_at_once = self.groups.is_some() || self.closed_ns.is_some();
        let ended = if is_at_once { 1 } else { ENDED_WAIT };
        if made.retired - self.fetched.retired >= ended {
            system::undisturbed(|| self.fetch_ended(self.epoch))?;
        }
        if let Some(groups) = &mut self.groups {
            groups.follow();
            groups.load_tables()?;
            if groups.want_reading(&self.attached, &self.control)? {
                system::undisturbed(|| self.read_groups(self.epoch))?;
            }
        }
        if let Some(groups) = &mut self.groups {
            groups.work(&mut self.ledger);
        }
        self.record_stacks()
    }

    fn record(&mut self, events: Option<Box<dyn BatchSink>>) {
        let Settings { events: of, by, .. } = self.settings;
        self.recording = events.map(|sink| Recorded::new(sink, of, self.parts.is_some(), by.has_stacks()));
        if let Some(groups) = self.groups.as_mut().filter(|_| self.recording.is_some()) {
            groups.record();
        }
    }

    fn has_work(&self) -> bool {
        self.groups.as_ref().is_some_and(Groups::have_work)
    }

    fn snapshot(&mut self, all: bool) -> Result<Option<Block>> {
        if self.missed.is_none() {
            self.read(false)?;
            if let Some(groups) = &mut self.groups {
                groups.name_rows(&mut self.ledger);
            }
        }
        Ok(Some(self.rows(all)))
    }

    fn facts(&mut self) -> Result<Counted> {
        let losses: FaultsLosses = self.attached.read(maps::LOSSES)?;
        let unlisted = losses.unattributed_major + losses.unattributed_minor;
        let missed = self.missed.map_or_else(|| self.attached.missed(|_| true), Ok)?;
        let mut more = Losses {
            unlisted_faults: Some(unlisted),
            untracked_threads: Some(losses.untracked),
            uncounted_faults: Some(losses.uncounted),
            unpaired_faults: Some(losses.unpaired),
            unattributed_faults: Some(losses.unattributed),
            over_quota_faults: Some(losses.over_quota),
            unexplained_faults: Some(losses.unexplained),
            missed_programs: Some(missed),
            folded_rows: self.ledger.folded(),
            ..Losses::default()
        };
        if let Some(spans) = &self.spans {
            spans.losses(&self.attached, self.missed.is_some(), &mut more)?;
        }
        if let Some(groups) = &self.groups {
            groups.losses(&mut more);
        }
        let each_has_a_line =
            matches!(self.settings.events, Events::Faults | Events::Slower(0) | Events::Recorded { .. });
        Ok(Counted {
            events: match (each_has_a_line, &self.recording) {
                (false, _) => Some(self.ledger.counted() + unlisted),
                (true, recording) => recording.as_ref().map(|recording| recording.count),
            },
            lost_events: losses.events + self.unread,
            sampled: match self.settings.timing {
                Timing::All(weight) => weight.into(),
                Timing::None | Timing::Major => 1,
            },
            more: LOSSES.record(&more),
        })
    }

    fn detach(&mut self, events: &mut Vec<Event>) -> Result<()> {
        self.missed = Some(self.attached.missed(|_| true)?);
        if let Some(spans) = &mut self.spans {
            spans.detach();
        }
        // While faults are still seen: the pass closes each thread, so that what is counted is timed, too, however long
        // it takes to detach; and what the variant could not see is what is left then.
        self.read(true)?;
        self.closed_ns = Some(system::monotonic_ns());
        self.attached.events.clear();
        if self.attached.missed(|name| recipe::ENDS.contains(&name))? > 0 {
            // A thread whose end was skipped is heard of once more when the kernel frees it, some milliseconds later.
            std::thread::sleep(FREED_WITHIN);
        }
        // The threads' ends stay attached until here: a last fault in exit_mm is in one of the two.
        self.attached.rest.clear();
        self.read_until = signals::read_until();
        self.drain(events)?;
        self.read_groups(self.epoch)?;
        if let Some(groups) = &mut self.groups {
            groups.finish(signals::end_by(), &mut self.ledger);
        }
        self.record_stacks()?;
        if let Incoming::Steps(steps) = &mut self.incoming {
            steps.rest(events);
        }
        Ok(())
    }

    fn totals(&mut self) -> Block {
        self.rows(true)
    }
}
