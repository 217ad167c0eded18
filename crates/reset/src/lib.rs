//! Makes the next access to each page of a process fault, round after round, without its cooperation.
//!
//! An engine is a way to reset page-table entries: userfaultfd, which a thread of the target is made to open (`inject.rs`,
//! `stopped.rs`), the kernel's NUMA balancing, soft-dirty bits. `target_memory.rs` has one process under an engine, `rounds.rs`
//! the thread that resets them all. What sees the faults is not here, nor is BPF: the programs that see a target make a
//! userfaultfd of its own are behind [`Held`] and [`Watcher`].

mod boosted;
mod budget;
mod engine;
mod hold;
mod inject;
mod injector;
pub mod knobs;
mod lock;
mod mapped;
mod numa;
mod own;
mod pages;
mod patience;
mod rounds;
mod scan;
mod stopped;
mod stretch;
mod target_memory;
mod trial;
mod uffd;

pub use self::budget::Budget;
pub use self::engine::{Choice, ENGINES, Engine, engines};
pub use self::injector::Injector;
pub use self::lock::{Denied, Lock};
pub use self::mapped::unreadable;
pub use self::numa::Balance;
pub use self::own::{GiveWay, Given, Held, Watcher};
pub use self::pages::{PAGE, Pages};
pub use self::rounds::{Figures, Notice, Order, Reached, Rounds};
pub use self::target_memory::TargetMemory;
