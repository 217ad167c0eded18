//! The kernel half, compiled: an object is a file of `bpf/`.

use libbpf_rs::{ObjectBuilder, OpenObject, Result};

/// An object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compiled {
    /// That of its file, `bpf/NAME.bpf.c`.
    pub(crate) name: &'static str,
    pub(crate) bytes: &'static [u8],
}

impl Compiled {
    /// Opens it, which takes no privilege.
    ///
    /// # Errors
    /// When libbpf cannot read it.
    pub(crate) fn open(self) -> Result<OpenObject> {
        ObjectBuilder::default().name(self.name)?.open_memory(self.bytes)
    }
}

/// The object of that name.
macro_rules! compiled {
    ($name:literal) => {
        $crate::compiled::Compiled {
            name: $name,
            bytes: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bpf.o")),
        }
    };
}
