//! The kernel's own functions, from /proc/kallsyms.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{self, Source};
use blazesym::symbolize::{Input, Reason, Symbolized, Symbolizer};

use super::{Function, Name, Why};

#[derive(Default)]
pub(super) struct Kernel {
    /// Read when first asked for: a list of some hundred thousand names.
    symbolizer: Option<Symbolizer>,
    names: HashMap<u64, Rc<Name>>,
}

impl Kernel {
    pub(super) fn name(&mut self, addr: u64) -> Rc<Name> {
        if let Some(name) = self.names.get(&addr) {
            return Rc::clone(name);
        }
        let symbolizer = self.symbolizer.get_or_insert_with(Symbolizer::new);
        let kallsyms = source::Kernel {
            kallsyms: MaybeDefault::Some(PathBuf::from("/proc/kallsyms")),
            vmlinux: MaybeDefault::None,
            ..source::Kernel::default()
        };
        let found = symbolizer.symbolize_single(&Source::Kernel(kallsyms), Input::AbsAddr(addr));
        let functions = match found {
            Ok(Symbolized::Sym(sym)) => Ok(vec![Function { name: sym.name.into_owned(), line: None }]),
            // The list has only zeros for addresses, and those are left out.
            Ok(Symbolized::Unknown(Reason::MissingSyms)) => Err(Why::Hidden),
            Ok(Symbolized::Unknown(_)) => Err(Why::NoSymbol),
            Err(error) => Err(Why::Unreadable(error.to_string())),
        };
        let name =
            Rc::new(Name { addr, functions, module: Some("[kernel]".into()), offset: None, build_id: None });
        self.names.insert(addr, Rc::clone(&name));
        name
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("names", &self.names.len()).finish_non_exhaustive()
    }
}
