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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::abi::maps::{self, MapName};
    use crate::variant::Recipe;

    /// The names of programs, by object.
    type Named = BTreeMap<&'static str, BTreeSet<String>>;

    /// Adds what recipes name.
    fn add<'a>(named: &mut Named, recipes: impl IntoIterator<Item = &'a dyn Recipe>) {
        for recipe in recipes {
            let ways = recipe.variants().iter().flat_map(|variant| variant.ways).copied();
            let names = ways.flat_map(|way| way.iter().copied().chain(recipe.optional(way)));
            let names = names.chain(recipe.always()).map(str::to_owned);
            let readers = recipe.readers().into_iter().map(MapName::reader);
            named.entry(recipe.object().name).or_default().extend(names.chain(readers));
        }
    }

    fn assert_has(object: Compiled, programs: Option<&BTreeSet<String>>, lists: &[&[MapName<'_>]]) {
        let opened = object.open().unwrap();
        let there: BTreeSet<_> = opened.progs().map(|p| p.name().to_string_lossy().into_owned()).collect();
        assert_eq!(Some(&there), programs, "programs of {}", object.name);
        let there: BTreeSet<_> = opened.maps().map(|m| m.name().to_string_lossy().into_owned()).collect();
        for name in lists.concat() {
            assert!(there.contains(name.0), "{} has no {name}", object.name);
        }
    }

    /// To open an object takes no privilege.
    #[test]
    fn objects_have_the_programs_and_maps_that_are_named_and_no_other_program() {
        let mut named = Named::new();
        let faults = crate::faults::recipes();
        add(&mut named, faults.iter().map(|recipe| recipe as &dyn Recipe));
        for (object, programs) in &mut named {
            // Only where the kernel may leave it out.
            assert!(object.starts_with("faults_"));
            programs.insert("thread_ends_too".into());
        }
        add(&mut named, [&crate::faults::Search::nowhere() as &dyn Recipe]);
        let kvm = crate::kvm::recipes();
        add(&mut named, kvm.iter().map(|recipe| recipe as &dyn Recipe));
        add(&mut named, [&crate::sgx::recipe() as &dyn Recipe]);
        let (lives, own) = crate::access::recipes();
        add(&mut named, [&lives as &dyn Recipe, &own]);
        // It is the only one.
        named.insert("namespaces", ["own_namespaces".to_owned()].into());
        for &object in crate::faults::OBJECTS {
            let lists: &[&[MapName<'_>]] = match object.name {
                "faults_walk" => &[maps::walk::ALL],
                "faults_count" | "faults_named" => &[maps::shared::ALL, maps::faults::ALL, maps::spans::ALL],
                "faults_stack" | "faults_all" => &[maps::shared::ALL, maps::faults::ALL, maps::unwind::ALL],
                _ => &[maps::shared::ALL, maps::faults::ALL],
            };
            assert_has(object, named.get(object.name), lists);
        }
        for (object, lists) in [
            (crate::kvm::OBJECTS[0], &[maps::shared::ALL, maps::kvm::ALL][..]),
            (crate::kvm::OBJECTS[1], &[maps::shared::ALL, maps::kvm::ALL, maps::kvm_stacks::ALL]),
            (crate::sgx::OBJECT, &[maps::shared::ALL, maps::sgx::ALL]),
            (crate::access::OBJECT, &[maps::shared::ALL, maps::access::ALL]),
            (crate::namespaces::OBJECT, &[maps::namespaces::ALL]),
        ] {
            assert_has(object, named.get(object.name), lists);
        }
    }
}
