//! Unwind tables of `.eh_frame`: the rules of each function, as the compiler wrote them, for the kernel half to follow.

use addr2line::gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, FrameDescriptionEntry, LittleEndian, Operation,
    Register, RegisterRule, UnwindContext, UnwindExpression, UnwindSection, UnwindTableRow, X86_64,
};
use object::{Architecture, Object, ObjectSection, ObjectSegment, SegmentFlags, elf};

use crate::unwind::{AT_FRAME, Kind, ROWS, Row, Rule};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Of a common entry, bytes: it is gone through again for each function.
const COMMON: usize = 4096;
/// Instructions at the place where a program begins, which nobody calls and compilers do not describe, bytes.
const ENTRY: u64 = 128;
/// Operations of an expression that is looked at.
const OPERATIONS: usize = 10;
/// Where the kernel puts registers for a signal's handler, from the stack pointer in its trampoline: `struct rt_sigframe`.
const SIGNAL_RBP: i64 = 120;
const SIGNAL_RSP: i64 = 160;
const SIGNAL_RIP: i64 = 168;

/// A part of the file that is mapped to be executed.
struct Code {
    address: u64,
    offset: u64,
    len: u64,
}

/// The rows of an executable or library, in the order of offsets in the file.
pub(super) fn rows(elf: &object::File<'_>) -> Result<Vec<Row>, String> {
    if elf.architecture() != Architecture::X86_64 {
        return Err("unwind tables are made for x86-64 only".into());
    }
    let section = elf.section_by_name(".eh_frame").ok_or("it has no .eh_frame")?;
    let data = section.data().map_err(|_| "its .eh_frame is malformed")?;
    let code = code(elf);
    let address = |name: &str| elf.section_by_name(name).map_or(0, |section| section.address());
    let bases = BaseAddresses::default()
        .set_eh_frame(section.address())
        .set_text(address(".text"))
        .set_got(address(".got"));
    let (mut rows, mut starts) = of_section(data, &bases, &code)?;
    let offset = |address: u64| offset_of(&code, address);
    if let Some(entry) = offset(elf.entry()) {
        starts.sort_unstable();
        let next = starts.get(starts.partition_point(|start| *start <= entry)).copied().unwrap_or(u64::MAX);
        let end = next.min(entry.saturating_add(ENTRY));
        rows.push((entry, NEW, Rule::of(Kind::Start).packed()));
        rows.push((end, END, Rule::of(Kind::Unknown).packed()));
    }
    for name in [".init", ".fini"] {
        let Some(section) = elf.section_by_name(name) else { continue };
        let (Some(start), Ok(code)) = (offset(section.address()), section.data()) else { continue };
        rows.extend(of_crti(start, code));
    }
    merged(rows)
}

/// What an `.eh_frame` says of all functions, and where they begin.
fn of_section(data: &[u8], bases: &BaseAddresses, code: &[Code]) -> Result<(Vec<Change>, Vec<u64>), String> {
    let offset = |address: u64| offset_of(code, address);
    let frames = EhFrame::new(data, LittleEndian);
    let (mut rows, mut starts) = (Vec::new(), Vec::new());
    let mut context = UnwindContext::new();
    let mut entries = frames.entries(bases);
    // From where it is malformed on nothing is known.
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let Ok(function) = partial.parse(EhFrame::cie_from_offset) else { continue };
        let Some(start) = offset(function.initial_address()) else { continue };
        let Some(end) = start.checked_add(function.len()).filter(|end| *end > start) else { continue };
        if function.cie().entry_len() > COMMON {
            continue;
        }
        starts.push(start);
        of_function(&function, &frames, bases, &mut context, (start, end), &mut rows);
        if rows.len() > 2 * ROWS {
            return Err(format!("it has more than {ROWS} unwind rows"));
        }
    }
    Ok((rows, starts))
}

/// An `.eh_frame` at the address that its seeds are linked for, behind a megabyte of code.
#[cfg(any(test, fuzzing))]
pub fn eh_frame(bytes: &[u8]) {
    let bases = BaseAddresses::default().set_eh_frame(0x20_0000).set_text(0x1000);
    let code = [Code { address: 0x1000, offset: 0x1000, len: 1 << 20 }];
    if let Ok(rows) = of_section(bytes, &bases, &code).and_then(|(rows, _)| merged(rows)) {
        assert!(crate::unwind::are_sound(&rows));
    }
}

/// The C library writes the beginning of these sections in assembly, without unwind information (crti.S).
fn of_crti(start: u64, code: &[u8]) -> Vec<Change> {
    const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
    const SUB_8_RSP: &[u8] = &[0x48, 0x83, 0xec, 0x08];
    const ADD_8_RSP_RET: &[u8] = &[0x48, 0x83, 0xc4, 0x08, 0xc3];
    let after = code.strip_prefix(ENDBR64).unwrap_or(code);
    if !after.starts_with(SUB_8_RSP) || !after.ends_with(ADD_8_RSP_RET) {
        return vec![];
    }
    let (inside, end) =
        (start + (code.len() - after.len() + SUB_8_RSP.len()) as u64, start + code.len() as u64);
    let above = |words| Rule { kind: Kind::Rsp, offset: words, frame: 0 }.packed();
    let unknown = Rule::of(Kind::Unknown).packed();
    vec![(start, NEW, above(1)), (inside, NEW, above(2)), (end - 1, NEW, above(1)), (end, END, unknown)]
}

/// An offset, whether a function begins or ends there, and a rule.
type Change = (u64, u8, u32);
/// Where two say something of the same place, the one that sorts last is right: what the compiler wrote.
const END: u8 = 0;
const NEW: u8 = 1;
const WRITTEN: u8 = 2;

/// The rows of one function, and the one behind it.
fn of_function<'a>(
    function: &FrameDescriptionEntry<Slice<'a>>,
    frames: &EhFrame<Slice<'a>>,
    bases: &BaseAddresses,
    context: &mut UnwindContext<usize>,
    (start, end): (u64, u64),
    rows: &mut Vec<Change>,
) {
    let unknown = Rule::of(Kind::Unknown).packed();
    rows.push((end, END, unknown));
    let before = rows.len();
    let Ok(mut table) = function.rows(frames, bases, context) else { return };
    let signal = function.is_signal_trampoline();
    let mut reached = start;
    loop {
        match table.next_row() {
            Ok(Some(row)) => {
                let within = row.start_address().wrapping_sub(function.initial_address());
                let at = start.saturating_add(within);
                if at < reached || at >= end || row.start_address() >= row.end_address() {
                    continue;
                }
                reached = at;
                let rule = rule(row, frames, function, signal).unwrap_or(Rule::of(Kind::Unknown));
                rows.push((at, WRITTEN, rule.packed()));
            }
            Ok(None) => return,
            // Where the malformed part begins is not known: nothing of the function is used.
            Err(_) => {
                rows.truncate(before);
                rows.push((start, WRITTEN, unknown));
                return;
            }
        }
    }
}

/// What the row says, as far as that can be packed; nothing if it cannot.
fn rule(
    row: &UnwindTableRow<usize>,
    frames: &EhFrame<Slice<'_>>,
    function: &FrameDescriptionEntry<Slice<'_>>,
    signal: bool,
) -> Option<Rule> {
    let register = |of: Register| row.register(of).unwrap_or(RegisterRule::Undefined);
    let expression = |of: &UnwindExpression<usize>| -> Option<Vec<Operation<Slice<'_>>>> {
        let mut operations = of.get(frames).ok()?.operations(function.cie().encoding());
        let mut all = Vec::new();
        while let Some(operation) = operations.next().ok()? {
            all.push(operation);
            if all.len() > OPERATIONS {
                return None;
            }
        }
        Some(all)
    };
    // Of a rule that is an expression of one register and an offset.
    let at = |rule: &RegisterRule<usize>, base: Register| match rule {
        RegisterRule::Expression(of) => match expression(of)?.as_slice() {
            [Operation::RegisterOffset { register, offset, .. }] if *register == base => Some(*offset),
            _ => None,
        },
        _ => None,
    };
    let (back, frame) = (register(X86_64::RA), register(X86_64::RBP));
    if signal {
        let CfaRule::Expression(of) = row.cfa() else { return None };
        let all_there = is_at(&expression(of)?, X86_64::RSP) == Some(SIGNAL_RSP)
            && at(&back, X86_64::RSP) == Some(SIGNAL_RIP)
            && at(&frame, X86_64::RSP) == Some(SIGNAL_RBP);
        return all_there.then_some(Rule::of(Kind::Signal));
    }
    match back {
        RegisterRule::Undefined => return Some(Rule::of(Kind::Start)),
        RegisterRule::Offset(-8) => {}
        _ => return None,
    }
    let frame = match &frame {
        RegisterRule::Undefined | RegisterRule::SameValue => 0,
        RegisterRule::Offset(offset) => words(*offset).filter(|words| (-2047..=2047).contains(words))?,
        other if at(other, X86_64::RBP) == Some(0) => AT_FRAME,
        _ => return None,
    };
    let (kind, offset) = match row.cfa() {
        CfaRule::RegisterAndOffset { register: X86_64::RSP, offset } => (Kind::Rsp, words(*offset)?),
        CfaRule::RegisterAndOffset { register: X86_64::RBP, offset } => (Kind::Rbp, words(*offset)?),
        CfaRule::RegisterAndOffset { .. } => return None,
        CfaRule::Expression(of) => {
            let operations = expression(of)?;
            if let Some(offset) = is_at(&operations, X86_64::RBP) {
                (Kind::AtRbp, words(offset)?)
            } else if let Some(offset) = is_at(&operations, X86_64::RSP) {
                (Kind::AtRsp, words(offset)?)
            } else if let [before @ .., Operation::PlusConstant { value: 8 }] = operations.as_slice() {
                (Kind::AtRspAbove, words(is_at(before, X86_64::RSP)?)?)
            } else {
                (Kind::Plt, linkage(&operations)?)
            }
        }
    };
    Some(Rule { kind, offset, frame })
}

/// The offset of `*(register + offset)`.
fn is_at(operations: &[Operation<Slice<'_>>], base: Register) -> Option<i64> {
    match operations {
        [
            Operation::RegisterOffset { register, offset, .. },
            Operation::Deref { size: 8, space: false, .. },
        ] if *register == base => Some(*offset),
        _ => None,
    }
}

/// What linkers write for all entries of the procedure linkage table at once: `rsp + 8 + ((rip & 15) >= N) * 8`. N.
fn linkage(operations: &[Operation<Slice<'_>>]) -> Option<i16> {
    use Operation::{And, Ge, Plus, RegisterOffset, Shl, UnsignedConstant};
    match operations {
        [
            RegisterOffset { register: X86_64::RSP, offset: 8, .. },
            RegisterOffset { register: X86_64::RA, offset: 0, .. },
            UnsignedConstant { value: 15 },
            And,
            UnsignedConstant { value: from @ 0..16 },
            Ge,
            UnsignedConstant { value: 3 },
            Shl,
            Plus,
        ] => i16::try_from(*from).ok(),
        _ => None,
    }
}

fn words(bytes: i64) -> Option<i16> {
    if bytes % 8 == 0 { i16::try_from(bytes / 8).ok() } else { None }
}

/// In order, and without those that say what the one before says.
fn merged(mut changes: Vec<Change>) -> Result<Vec<Row>, String> {
    changes.sort_unstable();
    let mut rows: Vec<Row> = Vec::new();
    for (index, &(at, _, rule)) in changes.iter().enumerate() {
        if changes.get(index + 1).is_some_and(|(next, ..)| *next == at) {
            continue;
        }
        let at = u32::try_from(at).map_err(|_| "it is larger than 4 GiB")?;
        let before = rows.last().map_or(Rule::of(Kind::Unknown).packed(), |row| row.rule);
        if rule != before {
            rows.push(Row { at, rule });
        }
    }
    if rows.len() > ROWS {
        return Err(format!("it has more than {ROWS} unwind rows"));
    }
    Ok(rows)
}

fn code(elf: &object::File<'_>) -> Vec<Code> {
    let is_code = |flags: SegmentFlags| matches!(flags, SegmentFlags::Elf { p_flags, .. } if p_flags.0 & elf::PF_X.0 != 0);
    let code = elf.segments().filter(|segment| is_code(segment.flags())).map(|segment| {
        let (offset, len) = segment.file_range();
        Code { address: segment.address(), offset, len }
    });
    code.collect()
}

/// Where in the file the code of an address is.
fn offset_of(code: &[Code], address: u64) -> Option<u64> {
    code.iter().find_map(|code| {
        let within = address.checked_sub(code.address).filter(|within| *within < code.len)?;
        code.offset.checked_add(within)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::process::Command;

    use super::*;

    /// What binutils' own interpreter of the same section says of a place: columns by name.
    fn interpreted(path: &str) -> Vec<(u64, u64, HashMap<String, String>)> {
        let output =
            Command::new("readelf").args(["--debug-dump=frames-interp", "-wN", path]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let (mut all, mut columns, mut end, mut is_function) = (vec![], vec![], 0, false);
        let mut last: Option<usize> = None;
        for line in text.lines() {
            if line.contains(" FDE ") || line.contains(" CIE ") || line.contains(" ZERO ") {
                is_function = line.contains(" FDE ");
                last = None;
                if let Some((_, range)) = line.split_once("pc=") {
                    end = hex(range.split_once("..").unwrap().1.trim());
                }
            } else if line.trim_start().starts_with("LOC") {
                columns = line.split_whitespace().skip(1).map(str::to_owned).collect();
            } else if is_function && line.starts_with("0000") {
                let mut words = line.split_whitespace();
                let at = hex(words.next().unwrap());
                if let Some(last) = last {
                    let before: &mut (u64, u64, HashMap<String, String>) = &mut all[last];
                    before.1 = at;
                }
                last = Some(all.len());
                let words: Vec<_> = words.map(str::to_owned).collect();
                // Where a register is in another one, that is two words.
                let is_plain = words.len() == columns.len();
                let words = if is_plain { words } else { vec!["exp".into(); columns.len()] };
                all.push((at, end, columns.iter().cloned().zip(words).collect()));
            }
        }
        all
    }

    fn packed(columns: &HashMap<String, String>) -> Option<Rule> {
        if columns["ra"] == "u" {
            return Some(Rule::of(Kind::Start));
        }
        if columns["ra"] != "c-8" {
            return None;
        }
        let frame = match columns.get("rbp").map_or("u", String::as_str) {
            "u" | "s" => 0,
            saved => words(saved.strip_prefix('c')?.parse().ok()?)?,
        };
        let (register, offset) = columns["CFA"].split_at(3.min(columns["CFA"].len()));
        let kind = match register {
            "rsp" => Kind::Rsp,
            "rbp" => Kind::Rbp,
            _ => return None,
        };
        Some(Rule { kind, offset: words(offset.parse().ok()?)?, frame })
    }

    /// Those of this program too, which has been built as ours are.
    #[test]
    fn rows_are_those_of_readelf() {
        let own = std::env::current_exe().unwrap().to_string_lossy().into_owned();
        for path in ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2", &own] {
            let bytes = std::fs::read(path).unwrap();
            let elf = object::File::parse(&*bytes).unwrap();
            let (rows, code) = (rows(&elf).unwrap(), code(&elf));
            assert!(crate::unwind::are_sound(&rows));
            let rule_at = |at: u64| {
                let after = rows.partition_point(|row| u64::from(row.at) <= at);
                after.checked_sub(1).map_or(0, |index| rows[index].rule)
            };
            let (mut same, mut others) = (0_u32, 0_u32);
            for (from, to, columns) in interpreted(path) {
                let Some(expected) = packed(&columns) else {
                    others += 1;
                    continue;
                };
                for at in [from, to - 1] {
                    let rule = rule_at(offset_of(&code, at).unwrap());
                    assert_eq!(rule, expected.packed(), "{path}: {at:#x}: {columns:?}");
                }
                same += 1;
            }
            assert!(same > 500, "{path}: {same} rows are the same");
            assert!(others * 50 < same, "{path}: {others} rows of {same} were not compared");
        }
    }

    #[test]
    fn the_seeds_have_rules_of_all_kinds() {
        let bases = BaseAddresses::default().set_eh_frame(0x20_0000).set_text(0x1000);
        let code = [Code { address: 0x1000, offset: 0x1000, len: 1 << 20 }];
        let path = format!("{}/../../fuzz/seeds/eh_frame/optimized", env!("CARGO_MANIFEST_DIR"));
        let (rows, _) = of_section(&std::fs::read(path).unwrap(), &bases, &code).unwrap();
        for kind in [Kind::Rsp, Kind::Rbp, Kind::Signal, Kind::Plt, Kind::Start] {
            assert!(rows.iter().any(|(_, _, rule)| rule & 15 == kind as u32), "{kind:?}");
        }
    }

    #[test]
    fn the_signal_trampoline_the_plt_and_the_entry_have_their_rules() {
        let kinds = |path: &str| {
            let bytes = std::fs::read(path).unwrap();
            let elf = object::File::parse(&*bytes).unwrap();
            let rows = rows(&elf).unwrap();
            let count = |kind: Kind| rows.iter().filter(|row| row.rule & 15 == kind as u32).count();
            (count(Kind::Signal), count(Kind::Plt), count(Kind::Start))
        };
        let (signal, plt, start) = kinds("/lib/x86_64-linux-gnu/libc.so.6");
        assert_eq!((signal, plt), (1, 1));
        assert!(start >= 1, "where threads begin");
        let (_, _, start) = kinds("/lib64/ld-linux-x86-64.so.2");
        assert_eq!(start, 1, "where the program begins");
    }
}
