//! Whether the variant works here: tried on ourselves, with a fault that we take on purpose.

use std::process;

use anyhow::Context;
use trapline_model::doctor::Refusal;
use trapline_symbols::perf::{Record, Recording, Sampler, What};

use super::explain;
use crate::refusal::errno;
use crate::system;
use crate::variant::OpenError;

/// Any size is enough: there is one fault to be recorded.
const RING: usize = 64 << 10;

/// Why it does not, if it does not.
pub(crate) fn refusal() -> Option<Refusal> {
    match sees_ones_own() {
        Ok(true) => None,
        Ok(false) => Some(Refusal {
            errno: None,
            error: "perf events opened, but recorded no page fault of trapline's own".into(),
            remedy: "a sandbox may emulate the kernel; run outside of it".into(),
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
    system::raise_descriptors();
    let mut sampler = Sampler::new(RING, Recording::EACH, Recording::EACH)?;
    sampler.follow(0, false).context("cannot record page faults")?;
    let fault = system::fault_once().context("cannot cause a page fault")?;
    sampler.stop();
    let mut records = Vec::new();
    sampler.drain(&mut records);
    let is_ours = |record: &Record| {
        record.pid == process::id() && matches!(record.what, What::Faulted { addr, .. } if addr == fault)
    };
    Ok(records.iter().any(is_ours))
}
