//! From an exit's number to its name and back.

use std::fmt;
use std::ops::RangeInclusive;

use super::numbers::{ALIASES, ARM64, RETURNS, RISCV, SVM, VMX};
use crate::edit_distance::edit_distance;

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

    /// The numbers that exits can have, named or not. What the running kernel names comes on top.
    fn ranges(self) -> &'static [RangeInclusive<u32>] {
        match self {
            // Basic exit reasons up to the last that Intel's manual has (volume 3, appendix C).
            Self::Vmx => &[0..=85],
            // AMD's manual, volume 2, appendix C; the GHCB specification, table 4; -1 and -2 there: invalid, busy.
            Self::Svm => &[0..=0x403, 0x8000_0000..=0x8000_ffff, 0xf000_0000..=u32::MAX],
            // An exception class has six bits.
            Self::Arm64 => &[0..=0x3f, 0x100..=0x103],
            Self::Riscv => &[0..=63, 0x8000_0000..=0x8000_003f],
            Self::Other(_) => &[0..=u32::MAX],
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

/// Where KVM could not run the guest, the error's number is below this bit.
pub const RETURN_ERROR: u32 = 0x10000;

/// Why KVM returned to its VMM.
pub(super) fn returned(why: u64) -> String {
    let name = RETURNS.iter().find(|(number, _)| u64::from(*number) == why).map(|(_, name)| *name);
    match (name, why.checked_sub(RETURN_ERROR.into())) {
        (Some(name), _) => name.to_owned(),
        // Errors of every architecture, asm-generic/errno-base.h.
        (None, Some(4)) => "EINTR".into(),
        (None, Some(11)) => "EAGAIN".into(),
        (None, Some(14)) => "EFAULT".into(),
        (None, Some(errno)) => format!("errno {errno}"),
        (None, None) => why.to_string(),
    }
}

/// What was asked for is no exit, or none of this machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoSuchExit {
    /// A name that no exit has.
    Name {
        /// The name.
        name: String,
        /// The name that is most like it.
        nearest: String,
    },
    /// A number that no exit can have.
    Number {
        /// The number as it was given.
        number: String,
        /// The kind of exits that was looked at, if only one was.
        isa: Option<Isa>,
        /// The exit that is nearest: its number and its name.
        nearest: String,
    },
    /// An exit of another kind of processor.
    Elsewhere {
        /// The name.
        name: String,
        /// What it belongs to.
        isa: Isa,
        /// What this machine has.
        here: Isa,
    },
}

impl fmt::Display for NoSuchExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name, nearest } => {
                write!(f, "no exit has the name `{name}`; did you mean `{nearest}`?")
            }
            Self::Number { number, isa, nearest } => {
                let of = isa.map_or_else(String::new, |isa| format!(" of {isa}"));
                write!(f, "no exit{of} has the number {number}; the nearest is {nearest}")
            }
            Self::Elsewhere { name, isa, here } => write!(
                f,
                "`{name}` is an exit of {isa}, and this processor has {here}; `trapline kvm count` prints its exits"
            ),
        }
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

    /// The exits that a number (`12`, `0x78`) or a name means: a number one of each isa that can have it, or of `here` if the
    /// machine's is known; a name those that are called so in the kernel's spelling or the reference tools'. Case, and
    /// whether words are joined by `_`, `-` or a space, are the same.
    ///
    /// # Errors
    /// [`NoSuchExit`] when nothing has that name or can have that number; it says what is nearest.
    pub fn find(&self, text: &str, here: Option<Isa>) -> Result<Vec<Exit>, NoSuchExit> {
        if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return self.numbered(text, here);
        }
        let wanted = plain(text);
        let all = self.all();
        let found: Vec<Exit> =
            all.iter().filter(|(_, name)| plain(name) == wanted).map(|&(exit, _)| exit).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let nearest = all.iter().min_by_key(|(_, name)| edit_distance(&plain(name), &wanted));
        Err(NoSuchExit::Name {
            name: text.to_owned(),
            nearest: nearest.map_or_else(String::new, |(_, name)| (*name).to_owned()),
        })
    }

    fn numbered(&self, text: &str, here: Option<Isa>) -> Result<Vec<Exit>, NoSuchExit> {
        let isas = || {
            [Isa::Vmx, Isa::Svm, Isa::Arm64, Isa::Riscv]
                .into_iter()
                .filter(|&isa| here.is_none_or(|here| here == isa))
        };
        let code = number(text);
        let found: Vec<Exit> = code
            .into_iter()
            .flat_map(|code| isas().map(move |isa| Exit { isa, code }))
            .filter(|&exit| self.can_be(exit))
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let code = code.unwrap_or(u32::MAX - 1);
        let known = self.all().into_iter().filter(|(exit, _)| isas().any(|isa| isa == exit.isa));
        let nearest = known.min_by_key(|(exit, _)| exit.code.abs_diff(code));
        let nearest = nearest.map_or_else(String::new, |(exit, name)| format!("{} {name}", exit.number()));
        Err(NoSuchExit::Number { number: text.to_owned(), isa: here, nearest })
    }

    /// Whether an exit can have that number, be it named or not.
    fn can_be(&self, exit: Exit) -> bool {
        exit.isa.ranges().iter().any(|range| range.contains(&exit.code))
            || self.of_kernel.iter().any(|(of, _)| *of == exit)
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

/// A number in decimal, or in hexadecimal after `0x`; -1 as a processor gives it.
fn number(text: &str) -> Option<u32> {
    if text == "-1" {
        return Some(u32::MAX);
    }
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
        let terms = value.split('+').map(|term| number(term.trim()));
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
        assert_eq!(names.find("EXTERNAL_INT", None), Ok(vec![vmx(1)]));
        assert_eq!(names.find("external_interrupt", None), Ok(vec![vmx(1)]));
        assert_eq!(names.find("VMX_PREEMPT_TIMER", None), Ok(vec![vmx(52)]));
        assert_eq!(names.find("hlt", None), Ok(vec![vmx(12), svm(0x78)]));
        assert_eq!(names.find("pf_excp", None), Ok(vec![svm(0x4e)]));
        assert_eq!(names.find("Something-New", None), Ok(vec![vmx(99)]));
        assert!(names.find("12", None).unwrap().contains(&vmx(12)));
        assert!(names.find("0x78", None).unwrap().contains(&svm(0x78)));
    }

    #[test]
    fn a_wrong_name_gets_a_suggestion() {
        let nearest = |name: &str| match Names::default().find(name, None) {
            Err(NoSuchExit::Name { nearest, .. }) => nearest,
            other => panic!("{other:?}"),
        };
        assert_eq!(nearest("HTL"), "HLT");
        assert_eq!(nearest("EPT_VIOLATON"), "EPT_VIOLATION");
        assert_eq!(nearest("vmcal"), "VMCALL");
        let said = Names::default().find("cpiud", None).unwrap_err().to_string();
        assert_eq!(said, "no exit has the name `cpiud`; did you mean `CPUID`?");
    }

    #[test]
    fn numbers_that_no_exit_can_have_are_refused() {
        let names = Names::with_format(FORMAT);
        let find = |text: &str, isa| names.find(text, Some(isa)).map_err(|no| no.to_string());
        // Named, not named, and beyond what there is.
        assert_eq!(find("0x78", Isa::Svm), Ok(vec![svm(0x78)]));
        assert_eq!(find("0x9f", Isa::Svm), Ok(vec![svm(0x9f)]));
        assert_eq!(find("0x999", Isa::Svm), Ok(vec![svm(0x999)]), "the running kernel names it");
        assert_eq!(find("-1", Isa::Svm), find("0xffffffff", Isa::Svm));
        assert_eq!(find("35", Isa::Vmx), Ok(vec![vmx(35)]));
        assert_eq!(find("99", Isa::Vmx), Ok(vec![vmx(99)]), "the running kernel names it");
        assert_eq!(
            find("0x404", Isa::Svm),
            Err("no exit of svm has the number 0x404; the nearest is 0x403 vmgexit".into())
        );
        assert!(find("0xfffff", Isa::Svm).is_err() && find("0x400", Isa::Vmx).is_err());
        assert!(find("0x1ffffffff", Isa::Svm).is_err() && find("12x", Isa::Vmx).is_err());
        // Where the machine's kind is not known, whatever one of them can have.
        assert_eq!(names.find("0x400", None), Ok(vec![svm(0x400)]));
        assert!(Names::default().find("0x999", None).is_err());
    }

    #[test]
    fn every_named_exit_is_within_the_ranges() {
        for (exit, name) in Names::default().all() {
            assert!(exit.isa.ranges().iter().any(|range| range.contains(&exit.code)), "{name}");
        }
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
