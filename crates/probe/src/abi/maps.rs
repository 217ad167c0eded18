//! The maps and data sections of the kernel half that user space opens, by name.
//!
//! A test finds each in the compiled objects. A tool can name no other: that is what [`MapName`] is for.

use std::fmt;

/// A map's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapName<'a>(pub(crate) &'a str);

impl MapName<'_> {
    /// The program that goes through the map for [`Elements`](crate::elements::Elements).
    pub(crate) fn reader(self) -> String {
        format!("{self}_read")
    }
}

impl fmt::Display for MapName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

macro_rules! maps {
    ($($(#[$doc:meta])* $tool:ident { $($name:ident = $map:literal,)* })*) => {
        $($(#[$doc])* pub(crate) mod $tool {
            use super::MapName;

            $(pub(crate) const $name: MapName<'static> = MapName($map);)*

            #[cfg(test)]
            pub(crate) const ALL: &[MapName<'_>] = &[$($name,)*];
        })*
    };
}

maps! {
    /// In every object that filters tasks.
    shared {
        FILTER = ".rodata.filter",
        PIDS = "pids",
        WANTED_NAMES = "wanted_names",
        WANTED_USERS = "wanted_users",
    }

    /// In every object of faults.
    faults {
        CONFIG = ".rodata.config",
        WALK = ".rodata.walk",
        CHAIN_KEYS = ".rodata.chain_keys",
        CONTROL = ".data.control",
        UNATTRIBUTED = ".data.unattributed",
        LOSSES = ".bss.losses",
        MADE = ".bss.made",
        ALIVE = ".bss.alive",
        EVENTS = "events",
        RETIRED = "retired",
        GROUPS = "groups",
        RELEASED = "released",
        USERS = "users",
        RING_USERS = "ring_users",
        STALLS = "stalls",
        CHAINS = "chains",
        NAMES = "names",
        NAMED = "named",
    }

    /// In those of them that unwind.
    unwind {
        ROWS = "unwind_rows",
        TABLES = "unwind_tables",
        MISSES = "unwind_misses",
    }

    /// In those of them that have spans.
    spans {
        LOSSES = ".bss.spans",
        CELLS = "span_cells",
    }

    /// In the search for the way through page tables.
    walk {
        ASK = ".rodata.walk_ask",
    }

    kvm {
        CONFIG = ".rodata.config",
        CONTROL = ".data.control",
        LOSSES = ".bss.losses",
        EVENTS = "events",
        REASONS = "reasons",
        EXITS = "exits",
        VCPU_THREADS = "vcpu_threads",
    }

    kvm_stacks {
        STACKS = "stacks",
    }

    sgx {
        CONFIG = ".rodata.config",
        LAYOUT = ".rodata.layout",
        CONTROL = ".data.control",
        LOSSES = ".bss.losses",
        ENCLAVES = "enclaves",
        ENDED = "ended",
        CHUNKS = "chunks",
    }

    access {
        CONFIG = ".rodata.config",
        LOST = ".bss.lost",
        LATE = ".bss.late",
        TARGETS = "targets",
        LIVES = "lives",
        HELD = "held",
        ASKS = "asks",
    }

    namespaces {
        DIRECTORY = ".rodata.directory",
    }
}
