//! What the kernel half counts, as the model has it.

use trapline_model::Hist;
use trapline_model::sgx::{Figures, Owner, Report};

use crate::abi::{self, SgxEnclave};
use crate::cgroup::Paths;

/// An enclave's figures in the words of the model; `epoch` is the interval that is about to be shown.
pub(super) fn report(row: &SgxEnclave, epoch: u64, names: &mut Paths) -> Report {
    let known = |value: u64| Some(value).filter(|&v| v != abi::SGX_UNKNOWN);
    let owned = row.start_ns != 0;
    Report {
        serial: row.serial,
        owner: Owner {
            pid: owned.then_some(row.pid),
            start_ns: owned.then_some(row.start_ns),
            comm: abi::comm(&row.comm),
            cgroup: owned.then(|| names.path(row.cgroup, row.pid).to_string()),
            guest: row.guest != 0,
            base: known(row.base),
            size: known(row.size),
        },
        figures: Figures {
            pages: row.pages,
            unaccounted: row.unaccounted,
            faults: row.faults,
            loads: row.loads,
            added: row.added,
            mapped: row.mapped,
            busy: row.busy,
            failed: row.failed,
            evictions: row.evictions,
            by_daemon: row.by_daemon,
            caused: row.caused,
            refaults: row.refaults,
            secs_loads: row.secs_loads,
            secs_evictions: row.secs_evictions,
            load_ns: row.load_ns,
            hist: Hist::new(&row.hist),
        },
        longest_ns: abi::recent(row.recent, epoch),
    }
}
