//! Whether the variant works here: tried on ourselves, with a fault that we take on purpose.

#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::process;

use anyhow::Context;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use trapline_model::doctor::Refusal;

use super::explain;
use crate::perf::{Record, Recording, Sampler, What};
use crate::variant::{OpenError, errno};

/// Any size is enough: there is one fault to be recorded.
const RING: usize = 64 << 10;

const PAGE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// Why it does not, if it does not.
pub(crate) fn refusal() -> Option<Refusal> {
    match sees_ones_own() {
        Ok(true) => None,
        Ok(false) => Some(Refusal {
            errno: None,
            error: "perf's events were opened, and did not see a fault of our own".into(),
            remedy: "a sandbox may emulate the kernel: run outside it".into(),
        }),
        Err(error) => {
            let errno = errno(&error).map(|errno| format!("{errno:?}"));
            match explain(error, None) {
                OpenError::Refused(refused) => refused.into_iter().next().map(|first| first.refusal),
                other => Some(Refusal {
                    errno,
                    error: other.to_string(),
                    remedy: "report this with the output of `trapline doctor`".into(),
                }),
            }
        }
    }
}

fn sees_ones_own() -> anyhow::Result<bool> {
    let mut sampler = Sampler::new(RING, Recording::EACH, Recording::EACH)?;
    sampler.follow(0, false).context("cannot record page faults of our own")?;
    let page = fault()?;
    sampler.stop();
    let mut records = Vec::new();
    sampler.drain(&mut records);
    let is_ours = |record: &Record| {
        record.pid == process::id()
            && matches!(record.what, What::Faulted { addr, .. } if addr & !(PAGE.get() as u64 - 1) == page)
    };
    Ok(records.iter().any(is_ours))
}

/// Takes a fault in a page of its own, and gives its address.
fn fault() -> anyhow::Result<u64> {
    // SAFETY: a new mapping at an address of the kernel's choice, which is written to as long as it is there, and of
    // which nobody else knows.
    unsafe {
        let page =
            mmap_anonymous(None, PAGE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)?;
        page.cast::<u8>().write_volatile(1);
        munmap(page, PAGE.get())?;
        Ok(page.as_ptr() as u64)
    }
}
