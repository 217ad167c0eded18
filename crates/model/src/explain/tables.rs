//! The tables of findings, and how people read them.

use super::Finding;
use crate::field::Show::{Integer, Milliseconds, Path, Percent, Text};
use crate::field::{Kind, Unit};
use crate::layout::{Body, Events, Layout, Part, Section};
use crate::table::{Schema, Table, count, key, label, number};

const SHARE: (Unit, Kind) = (Unit::Count, Kind::Gauge);
const COST: (Unit, Kind) = (Unit::Nanoseconds, Kind::Gauge);
const OF: (Unit, Kind) = (Unit::None, Kind::Key);

#[rustfmt::skip]
pub(super) static FINDINGS: Table<Finding> = Table::new("explain.finding", "explain", &[&[
    key("rule", "The rule that found it.", |f: &Finding| f.rule.name.into()).shown("RULE", 18, Text),
    number("pid", OF, "The process; null where it is about none, or about several of one name.", |f: &Finding| f.process.as_ref().and_then(|p| p.pid).into()).shown("PID", 8, Integer).yields(3),
    key("comm", "The name of the process.", |f: &Finding| f.process.as_ref().map(|p| p.comm.as_str()).into()).shown("COMM", 15, Text),
    key("subject", "The file, kind of memory, exit or enclave that it is about.", |f: &Finding| f.subject.as_deref().into()).shown("SUBJECT", 30, Path).least(14),
    number("cost_ns", COST, "The time that it took in all threads together; null if it is not about time.", |f: &Finding| f.cost_ns.into()).shown("COST_MS", 10, Milliseconds(1)),
    number("share_ppm", SHARE, "That time as a share of the duration of the run, or what the rule is about as a share of the memory or the writes, millionths; several threads together can have more than all of the duration.", |f: &Finding| f.share_ppm.into()).shown("SHARE_%", 8, Percent(1)),
    count("count", "The faults, exits, accesses or pages that it is about.", |f: &Finding| f.count.into()).shown("COUNT", 9, Integer).yields(1),
    label("confidence", "The confidence of the finding: certain where the figures show it, likely where they fit nothing else that is common.", |f: &Finding| f.confidence.name().into()).shown("CONFIDENCE", 10, Text).yields(2),
    label("finding", "The finding in a sentence.", |f: &Finding| f.text.as_str().into()),
    label("evidence", "The figures behind it.", |f: &Finding| f.evidence.as_str().into()),
    label("advice", "What to do about it.", |f: &Finding| f.rule.advice.into()),
]]);

/// Findings.
pub const FINDING: &Schema = &FINDINGS;

/// What a reader should know of the findings as a whole.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) findings: u64,
    pub(super) seen: u64,
    pub(super) all_ns: Option<u64>,
    pub(super) share_ppm: Option<u64>,
    pub(super) verdict: Option<&'static str>,
    pub(super) not_judged: Option<String>,
    pub(super) because: Option<String>,
}

#[rustfmt::skip]
pub(super) static FACTS: Table<Judged> = Table::facts("explain.facts", "explain", &[&[
    count("findings", "The number of findings.", |j: &Judged| j.findings.into()),
    count("judged_events", "The faults, exits, enclave faults and accesses that findings were looked for in.", |j: &Judged| j.seen.into()),
    number("judged_ns", (Unit::Nanoseconds, Kind::Counter), "The time of these.", |j: &Judged| j.all_ns.into()),
    number("judged_ppm", SHARE, "That time as a share of the duration of the run, millionths; several threads together can have more than all of it.", |j: &Judged| j.share_ppm.into()),
    label("verdict", "That nothing was found, and whether all rules could be judged; null if something was found.", |j: &Judged| j.verdict.into()),
    label("not_judged", "The rules that found nothing and need figures which the run does not have; null if there are none.", |j: &Judged| j.not_judged.as_deref().into()),
    label("not_judged_because", "The same with the reason for each.", |j: &Judged| j.because.as_deref().into()),
]]);

/// All of them.
pub(crate) const TABLES: &[&Schema] = &[FINDING, &FACTS];

/// Findings in words.
pub static LAYOUT: Layout = Layout {
    id: "explain.words",
    opening: &[],
    events: Events::Line(""),
    sections: &[Section {
        table: "",
        rows: Part::NONE,
        totals: Part {
            body: Body::Paragraphs(&[
                "{number}. {finding} \\[{confidence}\\]",
                "{evidence}",
                "What to do: {advice}",
            ]),
            ..Part::NONE
        },
    }],
    closing: &[
        "[{verdict} in {judged_events} events[ that took {judged_ns:.1ms} ms, {judged_ppm:.1%} % of the duration]]",
        "[not judged: {not_judged_because}]",
        "{end}",
    ],
    mark: "",
};
