//! Unit tests of the kernel half: programs of `bpf/test_*.bpf.c`, which call the functions that decide figures, run by
//! BPF_PROG_RUN with inputs that a test chooses. Those of a tool are its `prog_run.rs`.

use bytemuck::Pod;
use fastrand::Rng;
use libbpf_rs::{Link, OpenObject, ProgramInput};

use crate::abi::maps::MapName;
use crate::compiled::Compiled;
use crate::variant::Attached;

/// Arguments that a program of a raw tracepoint gets at most.
const ARGUMENTS: usize = 12;

/// Loads the programs of an object whose names begin with `test_`. Nothing is attached.
pub(crate) fn load(object: Compiled, configure: impl FnOnce(&mut OpenObject)) -> Attached {
    let mut object = object.open().unwrap();
    for mut program in object.progs_mut() {
        program.set_autoload(program.name().to_string_lossy().starts_with("test_"));
    }
    configure(&mut object);
    let nothing: fn() -> Vec<Link> = Vec::new;
    Attached { variant: "none", events: nothing(), rest: nothing(), object: object.load().unwrap() }
}

/// Sets what a section holds when the object is loaded.
pub(crate) fn set(object: &mut OpenObject, section: MapName<'_>, value: &impl Pod) {
    let mut map = object.maps_mut().find(|map| map.name() == section.0).unwrap();
    map.set_initial_value(bytemuck::bytes_of(value)).unwrap();
}

/// Sets how many elements a map holds.
pub(crate) fn resize(object: &mut OpenObject, name: MapName<'_>, elements: u32) {
    object.maps_mut().find(|map| map.name() == name.0).unwrap().set_max_entries(elements).unwrap();
}

impl Attached {
    /// Runs a program in this thread. Gives what it returns.
    pub(crate) fn run(&self, program: &str, arguments: &[u64]) -> u32 {
        let mut context = [0u64; ARGUMENTS];
        context[..arguments.len()].copy_from_slice(arguments);
        let program = self.object.progs_mut().find(|it| it.name() == program).unwrap();
        let input =
            ProgramInput { context_in: Some(bytemuck::bytes_of_mut(&mut context)), ..Default::default() };
        program.test_run(input).unwrap().return_value
    }
}

/// A number of any magnitude, below 2^`bits`.
pub(crate) fn of_any_magnitude(random: &mut Rng, bits: u32) -> u64 {
    random.u64(..) >> random.u32(64 - bits..64)
}
