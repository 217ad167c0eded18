//! The kernel half that sees programs make a userfaultfd of their own, for [`trapline_reset::GiveWay`]. See
//! `bpf/access_own.bpf.h`.

use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenObject};
use trapline_reset::{GiveWay, Held, Watcher};
use trapline_symbols::perf;

use super::probes::OBJECT;
use crate::abi::maps::{access as maps, shared};
use crate::compiled::Compiled;
use crate::variant::{self, Attached, OpenError, Recipe, Variant};

const VARIANTS: &[Variant] = &[Variant {
    name: "own",
    ways: &[&["own_made", "own_made_by_device", "own_registers"], &["own_called"]],
}];

/// Attaches, and starts a thread on each processor.
///
/// # Errors
/// When that is not allowed.
pub(crate) fn begin() -> Result<GiveWay, OpenError> {
    let attached = variant::open(&Own, None)?;
    let held = attached.handle(maps::HELD)?;
    let asks = attached.handle(maps::ASKS)?;
    let buffers = perf::outputs()?;
    for (cpu, buffer) in &buffers {
        let key = (*cpu as u32).to_ne_bytes();
        let fd = buffer.event().as_raw_fd().to_ne_bytes();
        asks.update(&key, &fd, MapFlags::ANY).context("cannot set a perf buffer")?;
    }
    Ok(GiveWay::begin(Box::new(attached), Box::new(HeldMap(held)), buffers)?)
}

/// The map that has them.
#[derive(Debug)]
struct HeldMap(MapHandle);

impl Held for HeldMap {
    fn insert(&self, pid: u32) -> Result<()> {
        self.0
            .update(&pid.to_ne_bytes(), &[1], MapFlags::ANY)
            .context("too many processes have a userfaultfd of trapline")
    }

    fn remove(&self, pid: u32) {
        // One that is not in it needs nothing.
        let _ = self.0.delete(&pid.to_ne_bytes());
    }
}

impl Watcher for Attached {
    fn late(&self) -> u64 {
        self.read(maps::LATE).unwrap_or(0)
    }
}

/// The programs that see a userfaultfd made.
pub(super) struct Own;

impl Recipe for Own {
    fn object(&self) -> Compiled {
        OBJECT
    }

    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn configure(&self, object: &mut OpenObject) -> Result<()> {
        // What is for the lives of processes is not needed here.
        for mut map in object.maps_mut() {
            if [shared::PIDS, maps::TARGETS].iter().any(|name| map.name() == name.0) {
                map.set_max_entries(1)?;
            }
        }
        Ok(())
    }
}
