//! Messages each time a process's count passes a multiple of a step, or the process is stalled, and what caused most of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use bytemuck::pod_read_unaligned;
use libbpf_rs::MapHandle;
use trapline_model::Event;
use trapline_model::faults::{InOrder, Most, Process, Step, StepOf};
use trapline_symbols::{Image, Scope};

use super::code::Code;
use super::files::Files;
use super::from_abi;
use crate::abi::{self, FaultsEvent, FaultsGroupKey, FaultsStep};
use crate::ring::Ring;

/// No reader of messages sees that they come together.
pub(super) const GATHER: Duration = Duration::from_millis(10);

/// So many processes are remembered; beyond that, those that have ended are forgotten.
const REMEMBERED: usize = 10_000;

/// What the ring holds.
#[derive(Debug)]
enum Sent {
    Step(Step),
    /// One that the next message of its process has to take into account.
    Fault(Box<FaultsEvent>),
}

/// The messages, in order.
#[derive(Debug)]
pub(super) struct Steps {
    ring: Ring<Sent>,
    of: StepOf,
    order: InOrder,
    causes: Option<Causes>,
}

impl Steps {
    /// `whose` address spaces are to be known if messages tell what caused most.
    pub(super) fn open(ring: &MapHandle, of: StepOf, whose: Option<Scope>) -> Result<Self> {
        let ring = Ring::of_many(ring, |bytes| {
            if bytes.len() < size_of::<FaultsEvent>() {
                bytes
                    .get(..size_of::<FaultsStep>())
                    .map(|b| Sent::Step(from_abi::step(&pod_read_unaligned(b))))
            } else {
                bytes.get(..size_of::<FaultsEvent>()).map(|b| Sent::Fault(Box::new(pod_read_unaligned(b))))
            }
        })?;
        let causes = whose.map(|whose| Causes::watch(of, whose)).transpose()?;
        Ok(Self { ring, of, order: InOrder::default(), causes })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.ring.fd()
    }

    /// Fetches messages.
    pub(super) fn drain(&mut self, files: Option<&mut Files>, events: &mut Vec<Event>) -> Result<()> {
        let mut sent = Vec::new();
        self.ring.drain(&mut sent)?;
        let mut batch = Vec::new();
        if let (Some(causes), Some(files)) = (&mut self.causes, files) {
            causes.code.follow();
            for sent in sent {
                match sent {
                    Sent::Fault(fault) => causes.add(&fault),
                    Sent::Step(step) => batch.push(Step { most: Some(causes.take(&step, files)?), ..step }),
                }
            }
            causes.forget();
        } else {
            batch.extend(sent.into_iter().filter_map(|sent| match sent {
                Sent::Step(step) => Some(step),
                Sent::Fault(_) => None,
            }));
        }
        // A stall has no number in a row of them.
        let batch = if matches!(self.of, StepOf::Within(_)) { batch } else { self.order.take(batch) };
        events.extend(batch.iter().flat_map(|step| step.events(self.of)));
        Ok(())
    }

    /// What is still held.
    pub(super) fn rest(&mut self, events: &mut Vec<Event>) {
        events.extend(self.order.rest().iter().flat_map(|step| step.events(self.of)));
    }
}

/// What the faults of each process since its last message were caused by.
#[derive(Debug)]
struct Causes {
    of: StepOf,
    tallies: HashMap<Process, Tally>,
    code: Code,
}

#[derive(Debug, Default)]
struct Tally {
    files: HashMap<[u64; 4], u64>,
    /// By where the thread was in user mode: in a system call, what called it.
    code: HashMap<(Image, u64), u64>,
}

impl Causes {
    fn watch(of: StepOf, whose: Scope) -> Result<Self> {
        Ok(Self { of, tallies: HashMap::new(), code: Code::watch(whose)? })
    }

    fn add(&mut self, fault: &FaultsEvent) {
        let weight = match self.of {
            StepOf::Faults(_) => fault.count,
            StepOf::Waits(_) => fault.count * u64::from(fault.wait_ns > 0),
            StepOf::Within(_) => fault.wait_ns,
            StepOf::Major(_) => fault.count * u64::from(fault.outcome == abi::MAJOR),
            StepOf::Stall(_) if fault.latency_ns == abi::NONE => 0,
            StepOf::Stall(_) => fault.latency_ns,
        };
        if weight == 0 || fault.outcome == abi::FAILED {
            return;
        }
        if self.tallies.len() >= REMEMBERED {
            self.tallies.retain(|process, _| Path::new("/proc").join(process.pid.to_string()).exists());
        }
        let process = Process { pid: fault.pid, start_ns: fault.process_start_ns };
        let tally = self.tallies.entry(process).or_default();
        if fault.file.word[0] != 0 {
            *tally.files.entry(fault.file.word).or_default() += weight;
        }
        if let Some(place) = self.code.place(fault) {
            *tally.code.entry(place).or_default() += weight;
        }
    }

    fn forget(&mut self) {
        let Self { tallies, code, .. } = self;
        code.forget(|asked| {
            tallies.values().any(|tally| tally.code.keys().any(|(image, _)| *image == asked))
        });
    }

    /// What is to be said in a message; the next one begins anew.
    fn take(&mut self, step: &Step, files: &mut Files) -> Result<Most> {
        let tally = self.tallies.remove(&step.process).unwrap_or_default();
        let mut functions: HashMap<Rc<str>, u64> = HashMap::new();
        for ((image, ip), weight) in tally.code {
            if let Some(name) = self.code.name(image, ip) {
                // The function that the processor was in: what was inlined into it is a detail of it.
                let whole = name.functions.as_ref().ok().and_then(|functions| functions.first());
                let code = whole.map_or_else(|| name.to_string(), |function| function.name.clone());
                *functions.entry(code.into()).or_default() += weight;
            }
        }
        let file = most(tally.files).map(|word| files.file(&FaultsGroupKey { word })).transpose()?;
        Ok(Most { file: file.map(|file| Rc::clone(&file.path)), code: most(functions) })
    }
}

/// That of the greatest weight; of several, always the same one.
fn most<K: Hash + Ord>(of: HashMap<K, u64>) -> Option<K> {
    of.into_iter().max_by(|(a, x), (b, y)| x.cmp(y).then_with(|| b.cmp(a))).map(|(key, _)| key)
}
