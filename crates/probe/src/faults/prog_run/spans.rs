//! Spans: calls that return, and calls that are left.

use bytemuck::Zeroable;
use fastrand::Rng;
use libbpf_rs::{MapCore, MapFlags};

use super::load;
use crate::abi::maps::spans as maps;
use crate::abi::{FaultsConfig, FaultsSpan, FaultsSpanLosses, SPANS_DEPTH};
use crate::prog_run::resize;
use crate::system;
use crate::variant::Attached;

/// Functions, and marks after them.
const FUNCTIONS: u64 = 5;
const SPANS: u64 = 8;

fn half() -> Attached {
    load(FaultsConfig::zeroed(), |object| resize(object, maps::CELLS, SPANS as u32))
}

/// Of each span: calls that are finished, calls that were left, and the faults of those that are finished.
fn figures(half: &Attached) -> Vec<[u64; 3]> {
    let cells = half.handle(maps::CELLS).unwrap();
    let of_span = |span: u64| {
        let cpus = cells.lookup_percpu(&(span as u32).to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
        let cells = cpus
            .iter()
            .map(|cell| bytemuck::pod_read_unaligned::<FaultsSpan>(&cell[..size_of::<FaultsSpan>()]));
        cells.fold([0; 3], |sum, cell| [sum[0] + cell.calls, sum[1] + cell.unfinished, sum[2] + cell.minor])
    };
    (0..SPANS).map(of_span).collect()
}

/// Calls of each span: those that are finished, and those that were left.
fn calls(half: &Attached) -> Vec<[u64; 2]> {
    figures(half).iter().map(|&[ended, left, _]| [ended, left]).collect()
}

/// A program whose calls are known: it calls, returns, jumps out of several calls at once, and has marks that begin and
/// end.
struct Program<'a> {
    half: &'a Attached,
    random: Rng,
    /// The span of each call, and where its return address is.
    stack: Vec<(u64, u64)>,
    marks: Vec<u64>,
    places: u64,
    /// Of each span what begun, returned or ended.
    begun: Vec<u64>,
    ended: Vec<u64>,
}

impl Program<'_> {
    fn sp(&self) -> u64 {
        self.stack.last().map_or(0x7fff_0000, |&(_, sp)| sp)
    }

    fn call(&mut self) {
        // Few sizes of frames: after a jump, calls lie where others have lain.
        let (span, sp) = (self.random.u64(0..FUNCTIONS), self.sp() - 64 * self.random.u64(1..4));
        self.half.run("test_span_enter", &[span, sp, 0]);
        self.stack.push((span, sp));
        self.begun[span as usize] += 1;
    }

    fn does_return(&mut self) {
        if let Some((span, sp)) = self.stack.pop() {
            self.half.run("test_span_return", &[span, sp, 0]);
            self.ended[span as usize] += 1;
        }
    }

    fn jump(&mut self) {
        let depth = self.random.usize(0..=self.stack.len());
        self.stack.truncate(depth);
    }

    fn mark(&mut self) {
        let span = self.random.u64(FUNCTIONS..SPANS);
        self.places += 1;
        self.half.run("test_span_enter", &[span, self.sp(), self.places]);
        self.marks.push(span);
        self.begun[span as usize] += 1;
    }

    fn mark_ends(&mut self) {
        if let Some(span) = self.marks.pop() {
            self.half.run("test_span_return", &[span, self.sp(), 1]);
            self.ended[span as usize] += 1;
        }
    }
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn each_call_has_returned_or_was_left() {
    let half = half();
    let mut before = vec![[0; 2]; SPANS as usize];
    for seed in 0..200 {
        let mut program = Program {
            half: &half,
            random: Rng::with_seed(seed),
            stack: vec![],
            marks: vec![],
            places: 0,
            begun: vec![0; SPANS as usize],
            ended: vec![0; SPANS as usize],
        };
        for _ in 0..60 {
            match program.random.u32(0..20) {
                0..9 if program.stack.len() < 12 => program.call(),
                0..15 => program.does_return(),
                15 => program.jump(),
                16 | 17 if program.marks.len() < 8 => program.mark(),
                _ => program.mark_ends(),
            }
        }
        half.run("test_spans_left", &[]);
        let now = calls(&half);
        for (span, (now, before)) in now.iter().zip(&before).enumerate() {
            let (ended, left) = (program.ended[span], program.begun[span] - program.ended[span]);
            assert_eq!([now[0] - before[0], now[1] - before[1]], [ended, left], "span {span}, seed {seed}");
        }
        before = now;
    }
    let losses: FaultsSpanLosses = half.read(maps::LOSSES).unwrap();
    assert_eq!((losses.unmatched, losses.too_deep, losses.untracked), (0, 0, 0));
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn a_mark_that_begins_again_has_left_what_began_there() {
    let half = half();
    let (span, sp, place) = (6, 0x7fff_0000, 0x40_1000);
    for _ in 0..3 {
        half.run("test_span_enter", &[span, sp, place]);
    }
    // Deeper in the stack it is another call's: that of a recursion.
    half.run("test_span_enter", &[span, sp - 64, place]);
    assert_eq!(half.run("test_spans_left", &[]), 2);
    assert_eq!(calls(&half)[span as usize], [0, 4]);
}

/// Within a call of the same span its faults would be the outer one's, which never returns.
#[test]
#[ignore = "needs root: `make test` runs it"]
fn a_call_that_lies_where_one_was_left_is_not_within_it() {
    let half = half();
    for _ in 0..2 {
        half.run("test_span_enter", &[0, 0x7fff_0000, 0]);
    }
    system::fault_once().unwrap();
    half.run("test_span_return", &[0, 0x7fff_0000, 0]);
    let [ended, left, faults] = figures(&half)[0];
    assert_eq!((ended, left), (1, 1));
    assert!(faults >= 1, "{faults}");
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn calls_beyond_the_deepest_are_lost_and_no_others() {
    let half = half();
    let sp = |depth: u64| 0x7fff_0000 - 64 * depth;
    let deepest = SPANS_DEPTH as u64;
    for depth in 0..deepest + 3 {
        half.run("test_span_enter", &[depth % FUNCTIONS, sp(depth), 0]);
    }
    for depth in (0..deepest + 3).rev() {
        half.run("test_span_return", &[depth % FUNCTIONS, sp(depth), 0]);
    }
    let losses: FaultsSpanLosses = half.read(maps::LOSSES).unwrap();
    assert_eq!((losses.too_deep, losses.unmatched), (3, 3));
    let calls = calls(&half);
    assert_eq!(calls.iter().map(|[ended, _]| ended).sum::<u64>(), deepest);
    assert!(calls.iter().all(|&[_, left]| left == 0), "{calls:?}");
    assert_eq!(half.run("test_spans_left", &[]), 0);
}
