//! Where the types of a kernel or a module have their fields, read from their type information (BTF).
//!
//! libbpf relocates by name too, but where the kernel and a module both have a type of that name it takes the kernel's.

use std::fs;

use anyhow::{Context, Result, bail};

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;

/// The type information of the kernel, or of a module, whose strings continue the kernel's.
#[derive(Debug)]
pub(crate) struct Btf {
    types: Vec<u8>,
    base_strings: Vec<u8>,
    strings: Vec<u8>,
}

impl Btf {
    /// That of a loaded module, or of the kernel when none is named.
    ///
    /// # Errors
    /// When the kernel or the module has none, or it cannot be understood.
    pub(crate) fn of(module: Option<&str>) -> Result<Self> {
        let read = |name: &str| {
            let path = format!("/sys/kernel/btf/{name}");
            let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
            sections(&bytes).with_context(|| format!("cannot parse {path}"))
        };
        let (types, strings) = read("vmlinux")?;
        let Some(module) = module else { return Ok(Self { types, base_strings: strings, strings: vec![] }) };
        let base_strings = strings;
        let (types, strings) = read(module)?;
        Ok(Self { types, base_strings, strings })
    }

    fn string(&self, at: u32) -> &[u8] {
        let at = at as usize;
        let from = self
            .base_strings
            .get(at..)
            .filter(|rest| !rest.is_empty())
            .or_else(|| self.strings.get(at.checked_sub(self.base_strings.len())?..));
        let from = from.unwrap_or_default();
        &from[..from.iter().position(|&b| b == 0).unwrap_or(from.len())]
    }

    /// The offset in bytes of a structure's own field, if there are such a structure and field.
    pub(crate) fn offset(&self, structure: &str, field: &str) -> Option<u32> {
        let mut at = 0;
        while let (Some(name), Some(info)) = (self.word(at), self.word(at + 4)) {
            let (kind, n) = ((info >> 24) & 31, (info & 0xffff) as usize);
            at += 12;
            if (kind == STRUCT || kind == UNION) && self.string(name) == structure.as_bytes() {
                let member = (0..n).map(|i| at + i * 12).find(|&member| {
                    self.word(member).is_some_and(|name| self.string(name) == field.as_bytes())
                })?;
                let place = self.word(member + 8)?;
                // With the flag, the upper byte is the width of a bit field.
                let bits = if info >> 31 == 1 { place & 0x00ff_ffff } else { place };
                return Some(bits / 8);
            }
            at += tail(kind, n)?;
        }
        None
    }

    /// The value of a constant, if there are such an enumeration and name in it.
    pub(crate) fn value(&self, enumeration: &str, constant: &str) -> Option<u32> {
        let mut at = 0;
        while let (Some(name), Some(info)) = (self.word(at), self.word(at + 4)) {
            let (kind, n) = ((info >> 24) & 31, (info & 0xffff) as usize);
            at += 12;
            if kind == ENUM && self.string(name) == enumeration.as_bytes() {
                let named =
                    |&at: &usize| self.word(at).is_some_and(|n| self.string(n) == constant.as_bytes());
                return self.word((0..n).map(|i| at + i * 8).find(named)? + 4);
            }
            at += tail(kind, n)?;
        }
        None
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.types.get(at..at + 4)?;
        Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

/// How many bytes follow the common part of a type (include/uapi/linux/btf.h); nothing for a kind yet to be invented.
fn tail(kind: u32, n: usize) -> Option<usize> {
    Some(match kind {
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        // Pointers, forwards, typedefs, modifiers, functions, floats, type tags.
        2 | 7..=12 | 16 | 18 => 0,
        // Arrays.
        3 => 12,
        // Structures, unions, sections, wide enumerations.
        4 | 5 | 15 | 19 => n * 12,
        // Enumerations, prototypes.
        6 | 13 => n * 8,
        _ => return None,
    })
}

/// The types and the strings.
fn sections(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    let header = (|| Some((word(0)?, word(4)?, word(8)?, word(12)?, word(16)?, word(20)?)))();
    let Some((first, header, types, types_len, strings, strings_len)) = header else {
        bail!("it is truncated")
    };
    if first & 0xffff != usize::from(MAGIC) {
        bail!("it is not BTF");
    }
    let part = |from: usize, len: usize| bytes.get(header + from..header + from + len).map(<[u8]>::to_vec);
    part(types, types_len).zip(part(strings, strings_len)).context("it is truncated")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pointer, then `struct pair { char a; long field; }`, in a module whose base knows the name `field`.
    #[test]
    fn fields_are_found_by_name_across_both_string_tables() {
        let words: [u32; 12] = [0, 2 << 24, 1, 8, 4 << 24 | 2, 16, 13, 1, 0, 1, 1, 64];
        let types = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let btf = Btf { types, base_strings: b"\0field\0".to_vec(), strings: b"\0pair\0a\0".to_vec() };
        assert_eq!(btf.offset("pair", "field"), Some(8));
        assert_eq!(btf.offset("pair", "a"), Some(0));
        assert_eq!(btf.offset("pair", "b"), None);
        assert_eq!(btf.offset("field", "a"), None);
    }

    #[test]
    fn the_running_kernel_is_understood() {
        let btf = Btf::of(None).unwrap();
        assert!(btf.offset("task_struct", "comm").is_some_and(|at| at > 0));
        assert_eq!(btf.offset("list_head", "prev"), Some(8));
        assert_eq!(btf.value("pid_type", "PIDTYPE_PID"), Some(0));
        assert_eq!(btf.value("pid_type", "PIDTYPE_TGID"), Some(1));
        assert_eq!(btf.value("pid_type", "no_such_constant"), None);
        assert!(Btf::of(Some("no_such_module")).is_err());
    }
}
