//! What stalled whom, and what to do about it: findings made of a run that has ended. It is a stage: faults, exits or enclaves
//! go in, findings come out. Nothing is said that the figures of the run do not carry.

mod access;
mod columns;
mod faults;
mod rules;
mod seen;
mod tables;
#[cfg(test)]
mod tests;
mod totals;
mod unjudged;
mod words;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::item::{Block, Facts, Header, Item, Source};
use crate::kept::covered_ns;
use crate::stage::pump;

pub use self::columns::Columns;
pub use self::rules::{LEAST_NS, RULES, Rule, Whole};
pub(crate) use self::tables::TABLES;
use self::tables::{FACTS, FINDINGS, Judged};
pub use self::tables::{FINDING, LAYOUT};
use self::unjudged::Unjudged;

/// How sure a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confidence {
    /// The figures say it.
    Certain,
    /// The figures fit nothing else that is common.
    Likely,
}

impl Confidence {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Likely => "likely",
        }
    }
}

/// A process in a finding, or several of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id, if it is one.
    pub pid: Option<u64>,
    /// Its name.
    pub comm: String,
}

/// What stands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule that found it.
    pub rule: &'static Rule,
    /// The process or processes, if it is about them.
    pub process: Option<Process>,
    /// The file, the exit or the enclave that it is about.
    pub subject: Option<String>,
    /// The time that it took, nanoseconds; several threads can have more than the run's. Nothing if it is not about time.
    pub cost_ns: Option<u64>,
    /// Its share, millionths: of the duration of the run, or of what the rule has it of.
    pub share_ppm: u64,
    /// The faults, exits or pages.
    pub count: u64,
    /// How sure it is.
    pub confidence: Confidence,
    /// In a sentence.
    pub text: String,
    /// The figures behind it.
    pub evidence: String,
}

impl Finding {
    /// Of so many, which cost so much of a whole.
    fn new(rule: &'static Rule, count: u64, cost: u64, whole: u64) -> Self {
        Self {
            rule,
            process: None,
            subject: None,
            cost_ns: (rule.of == Whole::Duration).then_some(cost),
            share_ppm: share_ppm(cost, whole).unwrap_or(0),
            count,
            confidence: Confidence::Certain,
            text: String::new(),
            evidence: String::new(),
        }
    }
}

/// A share of a whole, millionths.
fn share_ppm(part: u64, whole: u64) -> Option<u64> {
    (u128::from(part) * 1_000_000).checked_div(whole.into())?.try_into().ok()
}

/// Whether findings can be made of a run.
///
/// # Errors
/// Why not, and what to do.
pub fn check(header: &Header) -> Result<(), &'static str> {
    let has = |name: &str| header.events.is_some_and(|events| events.has(name));
    match &*header.tool {
        "faults" if matches!(&*header.variant, "rootless" | "counters" | "perf") => {
            Err("its variant times no faults, and findings are about time: use another variant")
        }
        "faults" if has("latency_ns") => Ok(()),
        "faults" => Err("it has no single faults: record with `trapline faults -v --split -o NAME.trapline`"),
        "kvm" | "sgx" => Ok(()),
        "access" if header.events.is_some() => Ok(()),
        _ => Err("findings are made of recordings of faults, kvm, sgx and access"),
    }
}

/// Makes findings of the items of a run, which are its totals.
#[derive(Debug)]
pub struct Explain<S> {
    source: S,
    faults: Rc<RefCell<faults::Evidence>>,
    totals: totals::Evidence,
    accesses: access::Evidence,
    header: Header,
    /// The last totals, without their rows.
    last: Option<Block>,
    ready: VecDeque<Item>,
}

impl<S: Source> Explain<S> {
    /// Of this source.
    #[must_use]
    pub fn new(source: S) -> Self {
        Self {
            source,
            faults: Rc::default(),
            totals: totals::Evidence::default(),
            accesses: access::Evidence::default(),
            header: Header::default(),
            last: None,
            ready: VecDeque::new(),
        }
    }

    /// The same with faults that are put there, and not among the items of the source.
    #[must_use]
    pub fn with(self, columns: &Columns) -> Self {
        Self { faults: Rc::clone(&columns.evidence), ..self }
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Header(mut header) => {
                self.header = header.clone();
                self.faults.borrow_mut().header(&header);
                self.totals.header(&header);
                self.accesses.header(&header);
                header.tool = "explain".into();
                header.tables = vec![FINDING];
                header.events = None;
                self.ready.push_back(Item::Header(header));
            }
            Item::Events(events) => events.iter().for_each(|event| match event.record.schema().tool() {
                "access" => self.accesses.event(event),
                _ => self.faults.borrow_mut().fault(&event.record),
            }),
            Item::Totals(block) => {
                self.faults.borrow_mut().totals(&block);
                self.totals.totals(&block);
                self.last = Some(Block { rows: vec![], ended: vec![], ..block });
            }
            Item::Facts(_) => self.ready.push_back(item),
            Item::Rows(_) | Item::Tick(_) => {}
            Item::End(end) => self.end(end),
        }
    }

    fn end(&mut self, mut end: Facts) {
        // Rates and shares are of the time that the figures are of.
        let of_events = self.header.tool == "faults";
        let covered_ns = covered_ns(&self.header, &end, self.last.as_ref(), of_events);
        let mut found = self.faults.borrow().findings(covered_ns);
        found.extend(self.totals.findings(covered_ns));
        found.extend(self.accesses.findings());
        let judged = self.judged(&found, &Facts { duration_ns: covered_ns, ..end.clone() });
        // They come out of maps, in no order.
        found.sort_by_key(|finding| Reverse((finding.cost_ns, finding.share_ppm)));
        let rows = found.iter().map(|finding| FINDINGS.record(finding)).collect();
        let block = Block::new(FINDING, self.header.start_ns + end.duration_ns, rows);
        end.more.push(FACTS.record(&judged));
        self.ready.extend([Item::Totals(block), Item::End(end)]);
    }

    fn judged(&self, found: &[Finding], end: &Facts) -> Judged {
        let mut unjudged = Unjudged::beside(found.iter().map(|finding| finding.rule));
        let faults = self.faults.borrow();
        faults.not_judged(end, &mut unjudged);
        self.totals.not_judged(end, &mut unjudged);
        self.accesses.not_judged(end, &mut unjudged);
        let rules = self.totals.rules().or(self.accesses.rules()).or(faults.rules()).unwrap_or(0);
        let of_faults = (faults.seen, Some(faults.all_ns));
        let (seen, all_ns) = self.totals.seen().or_else(|| self.accesses.seen()).unwrap_or(of_faults);
        Judged {
            findings: found.len() as u64,
            seen,
            all_ns,
            share_ppm: all_ns.and_then(|ns| share_ppm(ns, end.duration_ns)),
            verdict: match (found.len(), unjudged.len()) {
                (1.., _) => None,
                (0, 0) => Some("nothing stands out"),
                (0, missing) if missing < rules => {
                    Some("nothing stands out by the rules that could be judged")
                }
                (0, _) => Some("nothing could be judged"),
            },
            not_judged: unjudged.names(),
            because: unjudged.because(),
        }
    }
}

impl<S: Source> Source for Explain<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        pump(self, |stage| (&mut stage.source, &mut stage.ready), Self::take)
    }
}
