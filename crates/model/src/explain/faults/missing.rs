//! Which rules lack figures of faults.

use super::{CAUSES, Evidence, MOST_PAGES, PARTS, Sum};
use crate::explain::rules::{self, Rule};
use crate::explain::unjudged::Unjudged;
use crate::explain::words::{counted, thousands, time};
use crate::faults::SLOW_EVENT;
use crate::item::Facts;

/// Rules about reads of files, and those of them that need the order of reads.
const READS: &[&Rule] = &[
    &rules::RANDOM_READS,
    &rules::SEQUENTIAL_READS,
    &rules::THRASH,
    &rules::COLD_FILES,
    &rules::SLOW_FILE_SYSTEM,
];
const ORDERS: &[&Rule] = &[&rules::RANDOM_READS, &rules::SEQUENTIAL_READS, &rules::THRASH];

fn rules_of_faults() -> impl Iterator<Item = &'static Rule> {
    let causes = CAUSES.iter().map(|(rule, ..)| *rule);
    READS.iter().copied().chain(causes).chain(PARTS.iter().map(|(_, rule)| *rule))
}

/// What rules needed and did not get.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// Why the run has no causes, if it says so.
    pub(super) causes: Option<String>,
    /// Faults whose cause is not known.
    pub(super) cause: Sum,
    /// Faults of which it is not known whether they are reads.
    pub(super) kind: Sum,
    /// Reads of which it is not known of what, and those of which it is not known where in the file.
    pub(super) file: Sum,
    pub(super) offset: Sum,
    /// Faults without a time or a thread, and the longest of the others.
    pub(super) untimed: u64,
    /// Faults without an address, which were only counted.
    pub(super) counted: u64,
    pub(super) longest_ns: u64,
    /// Faults for which there were too many processes or files, and reads for which there were too many pages.
    pub(super) crowded: u64,
    pub(super) pages: u64,
}

impl Evidence {
    /// How many rules there are for the faults of a run, if it is one of faults.
    pub(in crate::explain) fn rules(&self) -> Option<usize> {
        self.places.map(|_| rules_of_faults().count())
    }

    /// The rules that lack figures.
    pub(in crate::explain) fn not_judged(&self, end: &Facts, unjudged: &mut Unjudged) {
        let Some(places) = self.places else { return };
        let (missing, causes) = (&self.missing, || CAUSES.iter().map(|(rule, ..)| *rule));
        if *places.schema == *SLOW_EVENT {
            unjudged
                .add(rules_of_faults(), || "only faults that took longer than a limit were recorded".into());
        }
        for ((name, rule), knows) in PARTS.iter().zip(self.knows) {
            if places.schema.position(name).is_none() || self.is_whole {
                unjudged.add([*rule], || "recorded without --split".into());
            } else if self.seen > 0 && !knows {
                unjudged.add([*rule], || "the variant does not see that part of the time".into());
            }
        }
        if let Some(why) = &missing.causes {
            unjudged.add(causes(), || format!("the causes of faults could not be found: {why}"));
        }
        if self.seen > 0 && !self.knows_cause {
            unjudged.add(causes(), || "the cause of no fault is known".into());
        }
        if self.served.is_none() {
            unjudged.add([&rules::SLOW_FILE_SYSTEM], || "which file systems are served is not known".into());
        }
        let could = |sum: Sum| {
            let is_met = move |rule: &&Rule| rule.is_met(sum.count, sum.ns, end.duration_ns);
            (is_met, format!("{} of {}, {}", thousands(sum.count), counted(self.seen, "fault"), time(sum.ns)))
        };
        let (is_met, of) = could(missing.cause);
        unjudged.add(causes().filter(is_met), || format!("the cause of {of} is not known"));
        let (is_met, of) = could(missing.kind);
        unjudged.add(READS.iter().copied().filter(is_met), || {
            format!("whether {of} read from disk is not known")
        });
        let (is_met, of) = could(missing.file);
        unjudged.add(READS.iter().copied().filter(is_met), || format!("the file of {of} is not known"));
        let (is_met, of) = could(missing.offset);
        unjudged.add(ORDERS.iter().copied().filter(is_met), || {
            format!("the place in the file of {of} is not known")
        });
        if missing.pages >= rules::THRASH.least_count {
            unjudged.add([&rules::THRASH], || {
                format!("{} of pages beyond {MOST_PAGES} are not compared", counted(missing.pages, "read"))
            });
        }
        // Those that the kernel has in place of the program, while it loads it or maps pages ahead, are only counted: nobody waits in them.
        let untimed = if self.seen == 0 { missing.counted } else { 0 } + missing.untimed;
        let lost = [
            (missing.crowded, "of too many processes and files to keep apart: "),
            (untimed, "without a time or a thread: "),
            (end.lost_events, "lost: "),
            (end.get("missed_programs").unwrap_or(0), "not seen: "),
        ];
        for (count, why) in lost {
            // As if each had been as long as the longest that was seen.
            let ns = count.saturating_mul(missing.longest_ns);
            let could_be =
                |rule: &&Rule| count > 0 && (self.seen == 0 || rule.is_met(count, ns, end.duration_ns));
            unjudged.add(rules_of_faults().filter(could_be), || format!("{why}{}", counted(count, "fault")));
        }
        if let Some(threads @ 1..) = end.get("untracked_threads") {
            unjudged.add(rules_of_faults(), || format!("{} not traced", counted(threads, "thread")));
        }
    }
}
