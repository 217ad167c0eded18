//! What stands out in faults, in words.

use std::collections::HashMap;

use super::{AGAIN_PERCENT, CAUSES, Evidence, Own, PARTS, Reads, SCATTERED_PERCENT, Served, Sum};
use crate::explain::rules::{self, Rule};
use crate::explain::words::{counted, percent, thousands, time};
use crate::explain::{Confidence, Finding, Process};
use crate::faults::Cause;

/// The last part of evidence where waits are not seen.
const UNSEEN: &str = "; how much of that was spent waiting is not known";

const PART_WORDS: [&str; PARTS.len()] = [
    "waits for the lock of its address space",
    "frees memory in its faults before it gets a page",
    "is slowed down because its cgroup is above memory.high",
];

impl Evidence {
    /// What stands out in a run of this duration.
    pub(in crate::explain) fn findings(&self, duration_ns: u64) -> Vec<Finding> {
        let mut found = Vec::new();
        for (pid, own) in &self.processes {
            let of = Of { whose: Whose::Process(*pid), own, all: self, duration_ns };
            let reads: Vec<Finding> =
                own.reads.iter().filter_map(|(file, reads)| of.reads(file, reads)).collect();
            found.extend(of.cold_files(&reads));
            found.extend(reads);
            found.extend(of.causes_and_parts());
        }
        for (comm, (processes, own)) in self.programs() {
            let of = Of { whose: Whose::Program(processes), own: &own, all: self, duration_ns };
            // What one of them has alone is its own finding.
            let of_them = |said: &&Finding| said.process.as_ref().is_some_and(|of| of.comm == comm);
            let said: Vec<Finding> = found.iter().filter(of_them).cloned().collect();
            let is_said = |finding: &Finding| said.iter().any(|said| said.rule == finding.rule);
            let more: Vec<Finding> = of
                .causes_and_parts()
                .chain(of.cold_files(&said))
                .filter(|finding| !is_said(finding))
                .collect();
            found.extend(more);
        }
        found
    }

    /// Processes with the same name, if there are several: their number, and what they did together.
    fn programs(&self) -> HashMap<&str, (usize, Own)> {
        let mut programs: HashMap<&str, (usize, Own)> = HashMap::new();
        for own in self.processes.values() {
            let (processes, all) = programs.entry(&own.comm).or_default();
            all.comm.clone_from(&own.comm);
            *processes += 1;
            all.add(own);
        }
        programs.retain(|_, (processes, _)| *processes > 1);
        programs
    }
}

#[derive(Debug, Clone, Copy)]
enum Whose {
    Process(u64),
    /// So many processes of one name.
    Program(usize),
}

/// Whose faults, and the run.
#[derive(Debug, Clone, Copy)]
struct Of<'a> {
    whose: Whose,
    own: &'a Own,
    all: &'a Evidence,
    duration_ns: u64,
}

impl Of<'_> {
    fn name(&self) -> String {
        match self.whose {
            Whose::Process(pid) => format!("{} ({pid})", self.own.comm),
            Whose::Program(processes) => format!("{} ({processes} processes)", self.own.comm),
        }
    }

    fn causes_and_parts(&self) -> impl Iterator<Item = Finding> {
        let causes = CAUSES.iter().filter_map(|(rule, cause, words)| self.cause(rule, *cause, words));
        let parts = PARTS.iter().zip(self.own.parts).zip(PART_WORDS);
        causes.chain(parts.filter_map(|(((_, rule), sum), words)| self.part(rule, sum, words)))
    }

    fn finding(&self, rule: &'static Rule, (count, cost_ns): (u64, u64)) -> Option<Finding> {
        rule.is_met(count, cost_ns, self.duration_ns).then(|| Finding {
            process: Some(Process {
                pid: if let Whose::Process(pid) = self.whose { Some(pid) } else { None },
                comm: self.own.comm.clone(),
            }),
            ..Finding::new(rule, count, cost_ns, self.duration_ns)
        })
    }

    /// Who forked, and how often, as the last part of evidence.
    fn forks(&self) -> String {
        let by = self.own.forked_by.map(|by| {
            let name = self.all.processes.get(&by).map_or(String::new(), |own| format!("{} ", own.comm));
            format!("; it was forked by {name}({by})")
        });
        match (self.own.forks, by) {
            (Some(forks @ 1..), by) => {
                format!("; it forked {}{}", counted(forks, "time"), by.unwrap_or_default())
            }
            (_, Some(by)) => by,
            (Some(0), None) => "; it did not fork in this time: what it shares is from before".into(),
            (None, None) => String::new(),
        }
    }

    /// How it reads several files, those without the ones that have a finding of their own.
    fn cold_files(&self, said: &[Finding]) -> Option<Finding> {
        let is_said = |file: &str| said.iter().any(|said| said.subject.as_deref() == Some(file));
        let waits = |reads: &Reads| reads.all().count > 0;
        let files = || self.own.reads.iter().filter(|(file, reads)| !is_said(file) && waits(reads));
        let mut all = Sum::default();
        files().for_each(|(_, reads)| all.more(reads.all()));
        let (most, reads) = files().max_by_key(|(file, reads)| (reads.all().ns, *file))?;
        let finding =
            self.finding(&rules::COLD_FILES, (all.count, all.ns)).filter(|_| files().count() > 1)?;
        let are_seen = files().all(|(_, reads)| reads.unseen == 0);
        Some(Finding {
            confidence: if are_seen { finding.confidence } else { Confidence::Likely },
            subject: Some(most.to_string()),
            text: format!(
                "{} waits for the disk at pages of {} files: {}",
                self.name(),
                thousands(files().count() as u64),
                time(all.ns)
            ),
            evidence: format!(
                "{} read pages or waited for them, {} each; {} of the time in {most}{}",
                counted(all.count, "fault"),
                time(all.ns.checked_div(all.count)?),
                percent(reads.all().ns, all.ns),
                if are_seen { "" } else { UNSEEN },
            ),
            ..finding
        })
    }

    /// The served file system that a file is on, if it is on one.
    fn served(&self, file: &str) -> Option<&Served> {
        let is_below = |served: &&Served| {
            let below = file.strip_prefix(served.at.trim_end_matches('/'));
            below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        };
        self.all.served.iter().flatten().filter(is_below).max_by_key(|served| served.at.len())
    }

    /// How it reads a file.
    fn reads(&self, file: &str, reads: &Reads) -> Option<Finding> {
        let (read, all, again) = (reads.read, reads.all(), reads.again);
        let (name, took) = (self.name(), time(all.ns));
        let certain = if reads.unseen == 0 { Confidence::Certain } else { Confidence::Likely };
        let unseen = if reads.unseen == 0 { "" } else { UNSEEN };
        let about = |finding: Finding, confidence, text: String, evidence: String| Finding {
            subject: Some(file.to_owned()),
            confidence,
            text,
            evidence,
            ..finding
        };
        // Only those that are again: the first ones would be reads with more memory, too.
        if again.count > 0 && again.count * 100 >= read * AGAIN_PERCENT {
            return self.finding(&rules::THRASH, (again.count, again.ns)).map(|finding| {
                let text = format!("{name} reads pages of {file} again and again: {}", time(again.ns));
                let evidence = format!(
                    "{} of {} reads are of a page that this process had read before ({} different pages); {} each",
                    thousands(again.count),
                    thousands(read),
                    thousands(reads.pages.len() as u64),
                    time(again.ns / again.count),
                );
                about(finding, Confidence::Certain, text, evidence)
            });
        }
        let each = reads.each()?;
        if let Some(Served { kind, at }) = self.served(file) {
            return self.finding(&rules::SLOW_FILE_SYSTEM, (all.count, all.ns)).map(|finding| {
                let text =
                    format!("{name} waits for {file}, which is on a file system that is served: {took}");
                let evidence = format!(
                    "{}, {each}{}{unseen}; {kind} is mounted at {at}",
                    counted(read, "major fault"),
                    reads.others()
                );
                about(finding, certain, text, evidence)
            });
        }
        let far = (reads.far * 100).checked_div(reads.compared).unwrap_or(0);
        if far >= SCATTERED_PERCENT {
            return self.finding(&rules::RANDOM_READS, (reads.slept.count, all.ns)).map(|finding| {
                let text = format!("{name} reads {file} at scattered offsets and waits for the disk: {took}");
                let waited = if reads.waited.count == 0 { String::new() } else { reads.others() };
                // Uses within the pages that are mapped around a fault, 64 KiB, are no faults.
                let evidence = format!(
                    "{}, {far} % of them not within 1 MiB after the one before; {each}{waited}{unseen}; readahead saved at most {} others",
                    counted(read, "major fault"),
                    thousands(self.own.found_in_memory(file))
                );
                let confidence = if far >= 80 { certain } else { Confidence::Likely };
                about(finding, confidence, text, evidence)
            });
        }
        self.finding(&rules::SEQUENTIAL_READS, (all.count, all.ns)).map(|finding| {
            let text = format!("{name} reads {file} in order and waits for the disk: {took}");
            let evidence = format!(
                "{}, {} % of them within 1 MiB after the one before{}{unseen}",
                counted(read, "major fault"),
                100 - far,
                reads.others()
            );
            about(finding, Confidence::Likely, text, evidence)
        })
    }

    /// What its faults were for.
    fn cause(&self, rule: &'static Rule, cause: Cause, words: &str) -> Option<Finding> {
        let of = || self.own.causes.get(cause.name()).into_iter().flatten();
        let (count, ns) = of().fold((0, 0), |(count, ns), (_, sum)| (count + sum.count, ns + sum.ns));
        let finding = self.finding(rule, (count, ns))?;
        let (most, sum) = of().max_by_key(|(file, sum)| (sum.ns, *file))?;
        let subject = Some(most.to_string()).filter(|file| !file.is_empty());
        let place = subject
            .as_ref()
            .map_or(String::new(), |file| format!("; {} of that in {file}", percent(sum.ns, ns)));
        Some(Finding {
            confidence: Confidence::Certain,
            text: format!("{} {words}: {}", self.name(), time(ns)),
            evidence: format!(
                "{}, {} each, {} of the time of its faults{place}{}",
                counted(count, "fault"),
                time(ns.checked_div(count)?),
                percent(ns, self.own.all.ns),
                if *rule == rules::COPY_ON_WRITE { self.forks() } else { String::new() }
            ),
            subject,
            ..finding
        })
    }

    /// What their time was spent on.
    fn part(&self, rule: &'static Rule, sum: Sum, words: &str) -> Option<Finding> {
        let finding = self.finding(rule, (sum.count, sum.ns))?;
        Some(Finding {
            confidence: Confidence::Certain,
            text: format!("{} {words}: {}", self.name(), time(sum.ns)),
            evidence: format!(
                "{} of its {}, {} each, {} of the time of its faults{}",
                thousands(sum.count),
                counted(self.own.all.count, "fault"),
                time(sum.ns.checked_div(sum.count)?),
                percent(sum.ns, self.own.all.ns),
                if *rule == rules::LOCK_WAITS && self.own.forks > Some(0) {
                    self.forks()
                } else {
                    String::new()
                }
            ),
            ..finding
        })
    }
}
