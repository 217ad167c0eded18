//! What is in a map: gone through by a program where the kernel allows such programs, else by system calls.
//!
//! While a system call is at an element, no program of a perf event, a kprobe or a classic tracepoint runs on its processor
//! (`bpf_disable_instrumentation()`): what a thread does that preempts it there goes unseen. So system calls are the second
//! choice, and no ordinary thread may preempt them, if we are allowed to ask for that.

use std::io::Read;

use anyhow::{Context, Result};
use libbpf_rs::{Iter, Link, MapCore, MapFlags, MapHandle};

use crate::abi::maps::MapName;
use crate::system;
use crate::variant::Attached;

/// A map, to be read again and again.
#[derive(Debug)]
pub(crate) struct Elements {
    map: MapHandle,
    /// It writes each element's key and value, and deletes those that are to be taken out.
    program: Option<Link>,
}

impl Elements {
    /// Of a map, which may be among the recipe's `readers`.
    ///
    /// # Errors
    /// When there is no such map.
    pub(crate) fn open(attached: &Attached, map: MapName<'_>) -> Result<Self> {
        let loaded = attached.has(&map.reader());
        let program = if loaded { Some(attached.map_iterator(map)?) } else { None };
        Ok(Self { map: attached.handle(map)?, program })
    }

    pub(crate) fn key_size(&self) -> usize {
        self.map.key_size() as usize
    }

    /// Each element's key and value, one element behind the other.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_into(&mut bytes)?;
        Ok(bytes)
    }

    /// The same, into memory that was used before.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub(crate) fn read_into(&self, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.clear();
        if let Some(program) = &self.program {
            Iter::new(program)?.read_to_end(bytes)?;
            return Ok(());
        }
        system::undisturbed(|| {
            // Not in batches: libbpf-rs takes one that the kernel cut short for the last.
            for key in self.map.keys() {
                // One that was deleted meanwhile has no value.
                if let Some(value) = self.map.lookup(&key, MapFlags::ANY)? {
                    bytes.extend(key.iter().chain(&value));
                }
            }
            Ok(())
        })
    }

    /// Deletes an element.
    ///
    /// # Errors
    /// When there is none of that key.
    pub(crate) fn remove(&self, key: &[u8]) -> Result<()> {
        Ok(system::undisturbed(|| self.map.delete(key))?)
    }

    /// Deletes the elements with such keys.
    ///
    /// # Errors
    /// When one is gone already, which is only if somebody else empties our map.
    pub(crate) fn remove_all(&self, which: impl Fn(&[u8]) -> bool) -> Result<()> {
        system::undisturbed(|| {
            // All of them first: after a key that was deleted comes the first one again.
            let keys: Vec<_> = self.map.keys().filter(|key| which(key)).collect();
            keys.into_iter().try_for_each(|key| Ok(self.map.delete(&key)?))
        })
    }

    /// What is ready, taken out of the map. The program knows by itself which are.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub(crate) fn take(&self, is_ready: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let key_size = self.key_size();
        let size = key_size + self.map.value_size() as usize;
        let mut all = Vec::new();
        // Until nothing is left: going through a map while elements are deleted may pass over some.
        loop {
            let before = all.len();
            let read = self.read()?;
            if self.program.is_some() {
                all.extend(read);
            } else {
                for record in read.chunks_exact(size) {
                    let (key, value) = record.split_at(key_size);
                    if is_ready(value) {
                        self.remove(key).context("cannot delete the elements that were read")?;
                        all.extend(record);
                    }
                }
            }
            if all.len() == before {
                return Ok(all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use libbpf_rs::{MapType, libbpf_sys::bpf_map_create_opts};

    use super::*;

    #[test]
    #[ignore = "needs root: `make test` runs it"]
    fn by_system_calls() {
        let opts = bpf_map_create_opts { sz: size_of::<bpf_map_create_opts>() as u64, ..Default::default() };
        let map = MapHandle::create(MapType::Hash, Some("elements"), 8, 8, 5000, &opts).unwrap();
        let elements = Elements { map, program: None };
        for n in 0..1000u64 {
            elements.map.update(&n.to_ne_bytes(), &(n + 1).to_ne_bytes(), MapFlags::ANY).unwrap();
        }
        let numbers = |bytes: Vec<u8>| {
            let words = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
            let words: Vec<u64> = words.collect();
            let mut pairs: Vec<_> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            pairs.sort_unstable();
            pairs
        };
        let all: Vec<_> = (0..1000).map(|n| (n, n + 1)).collect();
        assert_eq!(numbers(elements.read().unwrap()), all);
        let is_even = |value: &[u8]| value[0].is_multiple_of(2);
        let (even, odd): (Vec<_>, Vec<_>) = all.iter().partition(|(_, value)| value % 2 == 0);
        assert_eq!(numbers(elements.take(is_even).unwrap()), even);
        assert_eq!(numbers(elements.read().unwrap()), odd);
        elements.remove_all(|key| key[0] != 1).unwrap();
        let left = odd.iter().copied().filter(|(key, _)| key % 256 == 1);
        assert_eq!(numbers(elements.read().unwrap()), left.collect::<Vec<_>>());
    }
}
