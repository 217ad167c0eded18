//! From an exit's number to its name and back.

use std::fmt;

use super::tables::{ALIASES, ARM64, RISCV, SVM, VMX};
use crate::likeness::distance;

/// What kind of virtualization an exit belongs to; its numbers mean nothing without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Intel's.
    Vmx,
    /// AMD's.
    Svm,
    /// Arm's.
    Arm64,
    /// RISC-V's.
    Riscv,
    /// Another one, by the number that the tracepoint gives.
    Other(u32),
}

/// Above these bits of a VMX exit reason are flags, not part of its number.
const VMX_BASIC: u32 = 0xffff;
const VMX_FLAGS: &[(u32, &str)] =
    &[(31, "FAILED_VMENTRY"), (27, "SGX_ENCLAVE_MODE"), (26, "BUS_LOCK_DETECTED"), (25, "PREVIOUS_TD_EXIT")];

impl Isa {
    /// From the number in the tracepoints of x86.
    #[must_use]
    pub fn of_x86(number: u32) -> Self {
        match number {
            1 => Self::Vmx,
            2 => Self::Svm,
            other => Self::Other(other),
        }
    }

    fn table(self) -> &'static [(u32, &'static str)] {
        match self {
            Self::Vmx => VMX,
            Self::Svm => SVM,
            Self::Arm64 => ARM64,
            Self::Riscv => RISCV,
            Self::Other(_) => &[],
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vmx => f.write_str("vmx"),
            Self::Svm => f.write_str("svm"),
            Self::Arm64 => f.write_str("arm64"),
            Self::Riscv => f.write_str("riscv"),
            Self::Other(number) => write!(f, "isa{number}"),
        }
    }
}

/// Why a vCPU left its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Exit {
    /// What the number belongs to.
    pub isa: Isa,
    /// As the tracepoint gives it: on VMX with its flags.
    pub code: u32,
}

impl Exit {
    /// The number without flags.
    #[must_use]
    pub fn reason(self) -> u32 {
        if self.isa == Isa::Vmx { self.code & VMX_BASIC } else { self.code }
    }

    /// The number as manuals write it: decimal for VMX, hexadecimal elsewhere.
    #[must_use]
    pub fn number(self) -> String {
        let reason = self.reason();
        if self.isa == Isa::Vmx { reason.to_string() } else { format!("{reason:#x}") }
    }
}

/// A name that no exit has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSuchExit {
    /// What was asked for.
    pub name: String,
    /// The name that is most like it.
    pub nearest: String,
}

impl fmt::Display for NoSuchExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no exit is called `{}`; did you mean `{}`?", self.name, self.nearest)
    }
}

impl std::error::Error for NoSuchExit {}

/// The names of exits: the tables, and beyond them what the running kernel's own tracepoint says.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Those that are not in the tables.
    of_kernel: Vec<(Exit, String)>,
}

impl Names {
    /// With the names in a `format` file of the tracepoint kvm_exit of x86.
    #[must_use]
    pub fn with_format(format: &str) -> Self {
        let mut of_kernel = Vec::new();
        // `isa == 1 ? __print_symbolic(VMX) : __print_symbolic(SVM)`, then `__print_flags`.
        let tables = format.split("__print_symbolic").skip(1);
        for (isa, text) in [Isa::Vmx, Isa::Svm].into_iter().zip(tables) {
            let text = text.split("__print_flags").next().unwrap_or(text);
            for (code, name) in pairs(text) {
                if !isa.table().iter().any(|&(known, _)| known == code) {
                    of_kernel.push((Exit { isa, code }, name));
                }
            }
        }
        Self { of_kernel }
    }

    /// The name of an exit with its flags: `EPT_VIOLATION BUS_LOCK_DETECTED`. One that nobody has named is shown by its isa
    /// and number: `svm 0x9f`.
    #[must_use]
    pub fn name(&self, exit: Exit) -> String {
        let reason = exit.reason();
        let known = exit.isa.table().iter().find(|&&(code, _)| code == reason).map(|&(_, name)| name);
        let basic = Exit { code: reason, ..exit };
        let of_kernel = || self.of_kernel.iter().find(|(of, _)| *of == basic).map(|(_, name)| name.as_str());
        let mut name = match known.or_else(of_kernel) {
            Some(name) => name.to_owned(),
            None => format!("{} {}", exit.isa, exit.number()),
        };
        if exit.isa == Isa::Vmx {
            for bit in (16..32).rev().filter(|bit| exit.code & (1 << bit) != 0) {
                match VMX_FLAGS.iter().find(|&&(of, _)| of == bit) {
                    Some((_, flag)) => name.push_str(&format!(" {flag}")),
                    None => name.push_str(&format!(" BIT_{bit}")),
                }
            }
        }
        name
    }

    /// The exits that a number (`12`, `0x78`) or a name means: a number one of each isa, a name those that are called so in
    /// the kernel's spelling or the reference tools'. Case, and whether words are joined by `_`, `-` or a space, are the same.
    ///
    /// # Errors
    /// [`NoSuchExit`] when nothing has that name; it says which name is nearest.
    pub fn find(&self, text: &str) -> Result<Vec<Exit>, NoSuchExit> {
        if let Some(code) = number(text) {
            let isas = [Isa::Vmx, Isa::Svm, Isa::Arm64, Isa::Riscv];
            return Ok(isas.into_iter().map(|isa| Exit { isa, code }).collect());
        }
        let wanted = plain(text);
        let all = self.all();
        let found: Vec<Exit> =
            all.iter().filter(|(_, name)| plain(name) == wanted).map(|&(exit, _)| exit).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let nearest = all.iter().min_by_key(|(_, name)| distance(&plain(name), &wanted));
        Err(NoSuchExit {
            name: text.to_owned(),
            nearest: nearest.map_or_else(String::new, |(_, name)| (*name).to_owned()),
        })
    }

    fn all(&self) -> Vec<(Exit, &str)> {
        let tables =
            [(Isa::Vmx, VMX), (Isa::Vmx, ALIASES), (Isa::Svm, SVM), (Isa::Arm64, ARM64), (Isa::Riscv, RISCV)];
        let of_tables = tables
            .into_iter()
            .flat_map(|(isa, table)| table.iter().map(move |&(code, name)| (Exit { isa, code }, name)));
        of_tables.chain(self.of_kernel.iter().map(|(exit, name)| (*exit, name.as_str()))).collect()
    }
}

/// A number in decimal, or in hexadecimal after `0x`.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The `{ NUMBER, "NAME" }` of a `format` file; a number may be a sum.
fn pairs(text: &str) -> impl Iterator<Item = (u32, String)> {
    text.split('{').skip(1).filter_map(|pair| {
        let (value, name) = pair.split('}').next()?.split_once(',')?;
        let name = name.trim().strip_prefix('"')?.strip_suffix('"')?;
        let terms = value.split('+').map(|term| match term.trim() {
            "-1" => Some(u32::MAX),
            term => number(term),
        });
        Some((terms.sum::<Option<u32>>()?, name.to_owned()))
    })
}

fn plain(name: &str) -> String {
    name.chars().map(|c| if matches!(c, ' ' | '-') { '_' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = r#"print fmt: "vcpu %u reason %s%s%s", REC->vcpu_id, (REC->isa == 1) ?
        __print_symbolic(REC->exit_reason & 0xffff, { 12, "HLT" }, { 99, "SOMETHING_NEW" }) :
        __print_symbolic(REC->exit_reason, { 0x040 + 14, "PF excp" }, { 0x999, "new_code" }, { -1, "invalid" }),
        (REC->isa == 1) ? __print_flags(REC->exit_reason & ~0xffff, " ", { 0x80000000, "FAILED_VMENTRY" }) : "" "#;

    fn vmx(code: u32) -> Exit {
        Exit { isa: Isa::Vmx, code }
    }

    fn svm(code: u32) -> Exit {
        Exit { isa: Isa::Svm, code }
    }

    #[test]
    fn the_tables_then_the_kernel_then_the_number() {
        let names = Names::with_format(FORMAT);
        assert_eq!(names.name(vmx(12)), "HLT");
        assert_eq!(names.name(vmx(99)), "SOMETHING_NEW");
        assert_eq!(names.name(svm(0x40 + 14)), "PF excp");
        assert_eq!(names.name(svm(0x999)), "new_code");
        assert_eq!(names.name(svm(u32::MAX)), "invalid_guest_state");
        assert_eq!(names.name(vmx(98)), "vmx 98");
        assert_eq!(names.name(svm(0x9f)), "svm 0x9f");
        assert_eq!(names.name(Exit { isa: Isa::Other(7), code: 3 }), "isa7 0x3");
        assert_eq!(names.name(Exit { isa: Isa::Arm64, code: 0x24 }), "DABT_LOW");
        assert_eq!(names.name(Exit { isa: Isa::Riscv, code: 21 }), "LOAD_GUEST_PAGE_FAULT");
    }

    #[test]
    fn flags_are_shown_and_are_no_part_of_the_number() {
        let exit = vmx(0x8400_0021);
        assert_eq!((exit.reason(), exit.number()), (33, "33".into()));
        assert_eq!(Names::default().name(exit), "INVALID_STATE FAILED_VMENTRY BUS_LOCK_DETECTED");
        assert_eq!(Names::default().name(vmx(1 << 20 | 12)), "HLT BIT_20");
        assert_eq!(svm(0x8000_0001).reason(), 0x8000_0001);
    }

    #[test]
    fn names_are_found_in_every_spelling() {
        let names = Names::with_format(FORMAT);
        assert_eq!(names.find("EXTERNAL_INT"), Ok(vec![vmx(1)]));
        assert_eq!(names.find("external_interrupt"), Ok(vec![vmx(1)]));
        assert_eq!(names.find("VMX_PREEMPT_TIMER"), Ok(vec![vmx(52)]));
        assert_eq!(names.find("hlt"), Ok(vec![vmx(12), svm(0x78)]));
        assert_eq!(names.find("pf_excp"), Ok(vec![svm(0x4e)]));
        assert_eq!(names.find("Something-New"), Ok(vec![vmx(99)]));
        assert!(names.find("12").unwrap().contains(&vmx(12)));
        assert!(names.find("0x78").unwrap().contains(&svm(0x78)));
    }

    #[test]
    fn a_wrong_name_gets_a_suggestion() {
        let nearest = |name: &str| Names::default().find(name).unwrap_err().nearest;
        assert_eq!(nearest("HTL"), "HLT");
        assert_eq!(nearest("EPT_VIOLATON"), "EPT_VIOLATION");
        assert_eq!(nearest("vmcal"), "VMCALL");
        let said = Names::default().find("cpiud").unwrap_err().to_string();
        assert_eq!(said, "no exit is called `cpiud`; did you mean `CPUID`?");
    }

    #[test]
    fn no_number_and_no_name_is_twice_in_a_table() {
        for table in [VMX, SVM, ARM64, RISCV, ALIASES] {
            for (i, (code, name)) in table.iter().enumerate() {
                assert!(!table[..i].iter().any(|(c, n)| c == code || n == name), "{code} {name}");
            }
        }
    }
}
