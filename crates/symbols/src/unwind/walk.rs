//! The way through the copy of a stack: the same as the kernel half's (`bpf/unwind.bpf.h`), for stacks that were copied because a
//! table was not there yet.

use super::{AT_FRAME, Kind};

/// A thread's registers and its stack, as they were at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Where the processor was.
    pub ip: u64,
    /// The stack pointer.
    pub sp: u64,
    /// The frame pointer.
    pub bp: u64,
    /// From the stack pointer on, as much as was copied.
    pub stack: Vec<u8>,
}

/// How the caller of an instruction is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// By the rule of a table, packed; 0 where the table has none.
    Rule(u32),
    /// By frame pointers: no file has it, or one without a table.
    Frame,
    /// By frame pointers, as there will be no table.
    Refused,
    /// Its table is being made.
    Late,
    /// It is no code.
    Nothing,
}

/// Why a chain has no more calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// The thread began there.
    Start,
    /// There are more than are walked.
    Deepest,
    /// The function has no unwind information.
    Undescribed,
    /// There is no table of a file, and frame pointers led nowhere.
    Late,
    /// There is no table of a file, and frame pointers led to an end.
    LateFrames,
    /// The stack goes on where it was not copied.
    Cut,
    /// The stack has no return address where it should.
    Corrupt,
}

/// Nothing is mapped in page 0.
const LEAST_FRAME: u64 = 0x1000;
/// Registers of `struct rt_sigframe`, from the stack pointer in the function that handlers return to.
const SIGNAL_RBP: u64 = 120;
const SIGNAL_RSP: u64 = 160;
const SIGNAL_RIP: u64 = 168;

impl Copy {
    fn word(&self, at: u64) -> Result<u64, Ends> {
        let from = at.checked_sub(self.sp).ok_or(Ends::Corrupt)?;
        let bytes = usize::try_from(from).ok().and_then(|from| self.stack.get(from..)?.first_chunk());
        bytes.map(|bytes| u64::from_ne_bytes(*bytes)).ok_or(Ends::Cut)
    }
}

struct Walk<'a> {
    copy: &'a Copy,
    ip: u64,
    sp: u64,
    bp: u64,
    /// `ip` is of an instruction that was interrupted, not of one behind a call.
    exact: bool,
    by_frame: bool,
    late: bool,
    ips: Vec<u64>,
}

/// The chain of calls: where the processor was, and where each call returns to, innermost first; so many at most. Nothing if a table
/// is being made.
pub fn walk(copy: &Copy, deepest: usize, mut find: impl FnMut(u64) -> Found) -> Option<(Vec<u64>, Ends)> {
    let Copy { ip, sp, bp, .. } = *copy;
    let (by_frame, late) = (false, false);
    let mut walk = Walk { copy, ip, sp, bp, exact: true, by_frame, late, ips: vec![ip] };
    let ends = loop {
        let found = find(walk.ip.wrapping_sub(u64::from(!walk.exact)));
        if found == Found::Late {
            return None;
        }
        if let Err(ends) = walk.step(found, deepest) {
            break ends;
        }
    };
    let ends = match ends {
        Ends::Start if walk.late => Ends::LateFrames,
        Ends::Undescribed | Ends::Corrupt if walk.late => Ends::Late,
        ends => ends,
    };
    Some((walk.ips, ends))
}

impl Walk<'_> {
    /// From a function to its caller.
    fn step(&mut self, found: Found, deepest: usize) -> Result<(), Ends> {
        let rule = match found {
            Found::Rule(rule) => rule,
            Found::Nothing => {
                // The last return address was none.
                self.ips.pop();
                return Err(if self.by_frame { Ends::Undescribed } else { Ends::Corrupt });
            }
            _ => 0,
        };
        let kind = rule & 15;
        if kind == Kind::Start as u32 {
            return Err(Ends::Start);
        }
        if kind == Kind::Signal as u32
            && let [_, .., last] = self.ips.as_mut_slice()
        {
            // Handlers return to its first instruction: there was no call before that.
            *last = self.ip + 1;
        }
        if self.ips.len() >= deepest {
            return Err(Ends::Deepest);
        }
        (self.exact, self.by_frame) = (false, false);
        self.late |= found == Found::Refused;
        let back = if kind == Kind::Unknown as u32 {
            self.by_frame(matches!(found, Found::Rule(_)))?
        } else if kind == Kind::Signal as u32 {
            self.by_signal()?
        } else {
            self.by_rule(rule)?
        };
        if back == 0 {
            return Err(Ends::Start);
        }
        self.ip = back;
        self.ips.push(back.wrapping_add(u64::from(self.exact)));
        Ok(())
    }

    fn by_frame(&mut self, has_table: bool) -> Result<u64, Ends> {
        let at = self.bp;
        if at < LEAST_FRAME {
            return Err(if has_table || at > 1 { Ends::Undescribed } else { Ends::Start });
        }
        if at < self.sp || at & 7 != 0 {
            return Err(Ends::Undescribed);
        }
        let outside = |ends| if ends == Ends::Cut && !has_table { Ends::Cut } else { Ends::Undescribed };
        let (next, back) =
            (self.copy.word(at).map_err(outside)?, self.copy.word(at.wrapping_add(8)).map_err(outside)?);
        (self.sp, self.bp, self.by_frame) = (at.wrapping_add(16), next, true);
        Ok(back)
    }

    fn by_signal(&mut self) -> Result<u64, Ends> {
        let saved = |at| self.copy.word(self.sp.wrapping_add(at));
        let (bp, sp, ip) = (saved(SIGNAL_RBP)?, saved(SIGNAL_RSP)?, saved(SIGNAL_RIP)?);
        (self.bp, self.sp, self.exact) = (bp, sp, true);
        Ok(ip)
    }

    fn by_rule(&mut self, rule: u32) -> Result<u64, Ends> {
        let is = |kind: Kind| rule & 15 == kind as u32;
        let (words, frame) = (i64::from((rule >> 16) as u16 as i16), i64::from((rule << 16) as i32 >> 20));
        let offset = words * 8;
        let mut cfa = self.sp.wrapping_add_signed(offset);
        if is(Kind::Plt) {
            cfa = self.sp.wrapping_add(if (self.ip & 15) as i64 >= words { 16 } else { 8 });
        } else if is(Kind::Rbp) || is(Kind::AtRbp) {
            cfa = self.bp.wrapping_add_signed(offset);
        }
        if is(Kind::AtRsp) || is(Kind::AtRspAbove) || is(Kind::AtRbp) {
            cfa = self.copy.word(cfa)?.wrapping_add(if is(Kind::AtRspAbove) { 8 } else { 0 });
        }
        // Stacks grow down, and this way never goes back.
        if cfa <= self.sp {
            return Err(Ends::Corrupt);
        }
        let back = self.copy.word(cfa.wrapping_sub(8))?;
        if frame == i64::from(AT_FRAME) {
            self.bp = self.copy.word(self.bp)?;
        } else if frame != 0 {
            self.bp = self.copy.word(cfa.wrapping_add_signed(frame * 8))?;
        }
        self.sp = cfa;
        Ok(back)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rule;
    use super::*;

    const SP: u64 = 0x7000_0000;

    fn copy(bp: u64, words: &[u64]) -> Copy {
        let stack = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Copy { ip: 0x1000, sp: SP, bp, stack }
    }

    fn rule(kind: Kind, offset: i16, frame: i16) -> Found {
        Found::Rule(Rule { kind, offset, frame }.packed())
    }

    /// Code at 0x1000 has two words on its stack, that at 0x2000 a frame pointer, and threads begin at 0x3000.
    fn code(addr: u64) -> Found {
        match addr >> 12 {
            1 => rule(Kind::Rsp, 3, -3),
            2 => rule(Kind::Rbp, 2, -2),
            3 => rule(Kind::Start, 0, 0),
            4 => Found::Frame,
            5 => Found::Late,
            6 => Found::Refused,
            7 => Found::Rule(0),
            _ => Found::Nothing,
        }
    }

    #[test]
    fn rules_frames_and_ends() {
        let through = |words: &[u64]| walk(&copy(0, words), 127, code);
        let frame = SP + 32;
        // One word is the caller's frame pointer, in whose frame the next return address is.
        let whole = [frame, 0, 0x2005, 9, 0, 0x3007];
        assert_eq!(through(&whole), Some((vec![0x1000, 0x2005, 0x3007], Ends::Start)));
        assert_eq!(through(&whole[..5]), Some((vec![0x1000, 0x2005], Ends::Cut)));
        assert_eq!(walk(&copy(0, &whole), 2, code), Some((vec![0x1000, 0x2005], Ends::Deepest)));
        let by_frame = |code: u64, next| through(&[frame, 0, code, 9, next, 0x3007]);
        assert_eq!(by_frame(0x4005, 0), Some((vec![0x1000, 0x4005, 0x3007], Ends::Start)));
        assert_eq!(by_frame(0x6005, 0), Some((vec![0x1000, 0x6005, 0x3007], Ends::LateFrames)));
        assert_eq!(through(&[1, 0, 0x4005]), Some((vec![0x1000, 0x4005], Ends::Start)));
        assert_eq!(
            through(&[2, 0, 0x4005]),
            Some((vec![0x1000, 0x4005], Ends::Undescribed)),
            "no frame pointer"
        );
        assert_eq!(through(&[0, 0, 0x6005]), Some((vec![0x1000, 0x6005], Ends::LateFrames)));
        assert_eq!(through(&[SP - 8, 0, 0x6005]), Some((vec![0x1000, 0x6005], Ends::Late)));
        assert_eq!(through(&[0, 0, 0x7005]), Some((vec![0x1000, 0x7005], Ends::Undescribed)));
        assert_eq!(through(&[0, 0, 0x9005]), Some((vec![0x1000], Ends::Corrupt)));
        assert_eq!(through(&[SP - 8, 0, 0x2005, 9]), Some((vec![0x1000, 0x2005], Ends::Corrupt)));
        assert_eq!(by_frame(0x5005, 0), None, "its table is being made");
    }

    #[test]
    fn any_stack_and_any_rule_come_to_an_end() {
        let mut seed = 1_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 16
        };
        for _ in 0..20_000 {
            let words: Vec<u64> = (0..next() % 40).map(|_| SP.wrapping_add(next() % 400)).collect();
            let copy = copy(SP + next() % 400, &words);
            let walked = walk(&copy, 127, |_| Found::Rule(next() as u32 & 0x0003_fff7 | 0x1_0000));
            assert!(walked.is_some_and(|(ips, _)| ips.len() <= 127));
        }
    }
}
