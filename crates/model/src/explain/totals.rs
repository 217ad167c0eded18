//! What the totals of kvm and sgx say.

use super::rules::{self, Rule};
use super::unjudged::{Unjudged, no_column};
use super::words::{percent, thousands, time};
use super::{Confidence, Finding, Process};
use crate::field::{Record, Value};
use crate::item::{Block, Facts, Header};
use crate::table::Schema;

/// A rule, and the columns that it needs.
type Needs = (&'static Rule, &'static [&'static str]);

/// Rules about exits and enclaves need columns that not every run has: these.
const NEEDS: &[(&str, &[Needs])] = &[
    (
        "kvm",
        &[
            (&rules::SLOW_VMM, &["vmm_ns", "to_vmm"]),
            (&rules::HALT_POLLING, &["kvm_ns", EXIT]),
            (&rules::HOST_FAULTS, &["fault_ns"]),
            (&rules::MSR_STORM, &["total_ns", EXIT]),
            (&rules::NESTED, &["l2_ns", "total_ns", EXIT]),
        ],
    ),
    ("sgx", &[(&rules::SGX_THRASH, &["refaults", "load_ns"])]),
];

/// What such a run may have lost: what is lost, and whether any of it matters or as much as a rule needs.
const LOSSES: &[(&str, &str, &str, bool)] = &[
    ("kvm", "uncounted_exits", "exits that are not counted", false),
    ("kvm", "untimed_exits", "exits that are not timed", false),
    ("kvm", "missed_programs", "exits that are not counted or not timed", false),
    ("sgx", "unread_enclaves", "enclaves that ended before they were read", true),
    ("sgx", "unmarked_evictions", "evictions for which a refault may be missing", false),
    ("sgx", "missed_programs", "loads and evictions that were not seen", false),
];

/// What the totals of a run say.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    rows: Vec<Record>,
    sum: Option<Record>,
    tool: &'static str,
    /// What the totals of the run are of.
    table: Option<&'static Schema>,
}

impl Evidence {
    /// Takes what the header says of the run.
    pub(super) fn header(&mut self, header: &Header) {
        let table = header.tables.first().copied();
        self.know(table.filter(|table| *table.tool() == *header.tool));
    }

    fn know(&mut self, table: Option<&'static Schema>) {
        let tool = NEEDS.iter().find(|(of, _)| table.is_some_and(|table| table.tool() == *of));
        if let Some((tool, _)) = tool {
            (self.tool, self.table) = (tool, table);
        }
    }

    pub(super) fn totals(&mut self, block: &Block) {
        if NEEDS.iter().any(|(of, _)| *of == block.table.tool()) {
            self.know(Some(block.table));
            self.rows.extend(block.rows.iter().cloned());
            self.sum = block.sum.clone().or_else(|| block.rows.first().cloned()).or(self.sum.take());
        }
    }

    /// How many events there are, and their time if it is known.
    pub(super) fn seen(&self) -> Option<(u64, Option<u64>)> {
        let sum = self.sum.as_ref()?;
        let (count, ns) = if self.tool == "kvm" { ("count", "total_ns") } else { ("faults", "load_ns") };
        Some((sum.number(count)?, sum.number(ns)))
    }

    /// The rules for such a run.
    fn needs(&self) -> &'static [Needs] {
        NEEDS.iter().find(|(tool, _)| *tool == self.tool).map_or(&[], |(_, rules)| rules)
    }

    /// How many rules there are for such a run, if it is one.
    pub(super) fn rules(&self) -> Option<usize> {
        self.table.map(|_| self.needs().len())
    }

    /// The rules that lack figures.
    pub(super) fn not_judged(&self, end: &Facts, unjudged: &mut Unjudged) {
        let Some(table) = self.table else { return };
        for (rule, columns) in self.needs() {
            for column in *columns {
                if table.position(column).is_none() {
                    unjudged.add([*rule], || no_column(column));
                } else if !self.rows.is_empty()
                    && self.rows.iter().all(|row| row.get(column).is_none_or(|value| *value == Value::Null))
                {
                    unjudged.add([*rule], || format!("{column} is not known"));
                }
            }
        }
        let rules = || self.needs().iter().map(|(rule, _)| *rule);
        let own = LOSSES.iter().filter(|(tool, ..)| *tool == self.tool);
        let own = own.map(|(_, name, what, any)| (end.get(name).unwrap_or(0), *what, *any));
        for (count, what, any) in own.chain([(end.lost_events, "events lost", false)]) {
            let matters =
                |rule: &&Rule| count > 0 && (any || self.rows.is_empty() || count >= rule.least_count);
            unjudged.add(rules().filter(matters), || format!("{} {what}", thousands(count)));
        }
    }

    pub(super) fn findings(&self, duration_ns: u64) -> Vec<Finding> {
        if self.tool == "kvm" { self.exits(duration_ns) } else { self.enclaves(duration_ns) }
    }

    fn exits(&self, duration_ns: u64) -> Vec<Finding> {
        let mut found: Vec<Finding> =
            self.rows.iter().flat_map(|row| Exits::of(row, duration_ns).findings()).collect();
        // What is about all exits of a guest is in several rows, if they are by reason, too.
        let mut guests: Vec<(Subject, Vec<&Record>)> = Vec::new();
        for row in &self.rows {
            let guest = Subject::guest(row);
            match guests.iter_mut().find(|(of, _)| *of == guest) {
                Some((_, rows)) => rows.push(row),
                None => guests.push((guest, vec![row])),
            }
        }
        for (guest, rows) in guests {
            found.extend(host_faults(&guest, &rows, duration_ns));
            found.extend(nesting(&guest, &rows, duration_ns));
        }
        found
    }

    fn enclaves(&self, duration_ns: u64) -> Vec<Finding> {
        let mut found = Vec::new();
        for row in &self.rows {
            let number = |name| row.number(name).unwrap_or(0);
            let (loads, again, ns) = (number("loads"), number("refaults"), number("load_ns"));
            if again * 5 >= loads && rules::SGX_THRASH.is_met(again, ns, duration_ns) {
                let subject = enclave(row);
                let of = subject.as_deref().unwrap_or("enclaves");
                found.push(Finding {
                    confidence: Confidence::Certain,
                    text: format!(
                        "pages of {of} are loaded back that were evicted just before: {}",
                        time(ns)
                    ),
                    subject: subject.clone(),
                    evidence: format!(
                        "{} of {} loads are of pages that were evicted in the same interval; {} evictions",
                        thousands(again),
                        thousands(loads),
                        thousands(number("evictions"))
                    ),
                    ..Finding::new(&rules::SGX_THRASH, again, ns, duration_ns)
                });
            }
        }
        found
    }
}

fn per_second(count: u64, duration_ns: u64) -> u64 {
    let all = u128::from(count) * 1_000_000_000;
    u64::try_from(all.checked_div(duration_ns.into()).unwrap_or(0)).unwrap_or(u64::MAX)
}

/// What a row of enclaves is about: an enclave, a process or a guest.
fn enclave(row: &Record) -> Option<String> {
    let process = named(row, &["comm", "vm", "cgroup"]);
    match (row.number("enclave"), &process) {
        (Some(number), Some(process)) => Some(format!("enclave {number} of {process}")),
        (Some(number), None) => Some(format!("enclave {number}")),
        (None, _) => process,
    }
}

/// A process or a guest, by the first of these names that it has, and its id.
fn named(row: &Record, names: &[&str]) -> Option<String> {
    match (names.iter().find_map(|name| row.text(name)), row.number("pid")) {
        (Some(who), Some(pid)) => Some(format!("{who} ({pid})")),
        (None, Some(pid)) => Some(format!("process {pid}")),
        (who, None) => who.map(str::to_owned),
    }
}

/// What a row of exits is about.
#[derive(Debug, PartialEq)]
struct Subject {
    process: Option<Process>,
    /// The guest, and the vCPU if the rows are by vCPU.
    whose: Option<String>,
}

impl Subject {
    fn guest(row: &Record) -> Self {
        let guest = named(row, &["vm"]);
        let whose = match (row.number("vcpu"), guest) {
            (Some(vcpu), Some(guest)) => Some(format!("vCPU {vcpu} of {guest}")),
            (_, guest) => guest,
        };
        let process = row
            .number("pid")
            .map(|pid| Process { pid: Some(pid), comm: row.text("vm").unwrap_or_default().to_owned() });
        Self { process, whose }
    }

    /// `what` of this guest.
    fn of(&self, what: &str) -> String {
        self.whose.as_ref().map_or(what.to_owned(), |whose| format!("{what} of {whose}"))
    }

    /// Of a guest, if it is known which.
    fn guest_or(&self, unknown: &str) -> String {
        self.whose.clone().unwrap_or_else(|| unknown.to_owned())
    }

    fn finding(&self, rule: &'static Rule, count: u64, ns: u64, duration_ns: u64) -> Option<Finding> {
        rule.is_met(count, ns, duration_ns).then(|| Finding {
            process: self.process.clone(),
            subject: self.whose.clone(),
            ..Finding::new(rule, count, ns, duration_ns)
        })
    }
}

/// One row: the exits of a reason, a guest, a vCPU, or several of these.
struct Exits<'a> {
    row: &'a Record,
    guest: Subject,
    exit: Option<&'a str>,
    /// In words.
    what: String,
    duration_ns: u64,
}

impl<'a> Exits<'a> {
    fn of(row: &'a Record, duration_ns: u64) -> Self {
        let guest = Subject::guest(row);
        let exit = row.text(EXIT);
        let at = ["msr", "port", "mmio", "rip"].iter().find_map(|name| Some((name, row.number(name)?)));
        let what = match (exit, at) {
            (Some(exit), Some((name, at))) => format!("{exit} exits ({name} {at:#x})"),
            (Some(exit), None) => format!("{exit} exits"),
            (None, _) => "exits".into(),
        };
        Self { row, exit, what: guest.of(&what), guest, duration_ns }
    }

    fn number(&self, name: &str) -> u64 {
        self.row.number(name).unwrap_or(0)
    }

    fn is(&self, what: &str) -> bool {
        self.exit.is_some_and(|exit| exit.to_ascii_uppercase().contains(what))
    }

    fn finding(&self, rule: &'static Rule, count: u64, ns: u64) -> Option<Finding> {
        let finding = self.guest.finding(rule, count, ns, self.duration_ns)?;
        let subject = self.exit.map(|exit| self.guest.of(exit)).or(finding.subject.clone());
        Some(Finding { subject, ..finding })
    }

    fn findings(&self) -> impl Iterator<Item = Finding> + use<> {
        let halted = || self.is("HLT").then(|| self.halt_polling()).flatten();
        let msr = || self.is("MSR").then(|| self.msr_storm()).flatten();
        [self.slow_vmm(), halted(), msr()].into_iter().flatten()
    }

    fn slow_vmm(&self) -> Option<Finding> {
        let (vmm_ns, to_vmm) = (self.number("vmm_ns"), self.number("to_vmm"));
        Some(Finding {
            text: format!("{} wait for the program that runs the guest: {}", self.what, time(vmm_ns)),
            evidence: format!(
                "{} of {} exits went to it, {} each; {} of their handling time",
                thousands(to_vmm),
                thousands(self.number("count")),
                time(vmm_ns.checked_div(to_vmm).unwrap_or(0)),
                percent(vmm_ns, self.number("total_ns"))
            ),
            ..self.finding(&rules::SLOW_VMM, to_vmm, vmm_ns)?
        })
    }

    fn halt_polling(&self) -> Option<Finding> {
        let (count, kvm_ns) = (self.number("count"), self.number("kvm_ns"));
        let vcpus = self.guest.of("vCPUs");
        Some(Finding {
            confidence: Confidence::Likely,
            text: format!("KVM is at work for {} while {vcpus} are halted: it polls", time(kvm_ns)),
            evidence: format!(
                "{} {}: {} at work, {} asleep",
                thousands(count),
                self.what,
                time(kvm_ns),
                time(self.number("blocked_ns"))
            ),
            ..self.finding(&rules::HALT_POLLING, count, kvm_ns)?
        })
    }

    fn msr_storm(&self) -> Option<Finding> {
        let (count, all_ns) = (self.number("count"), self.number("total_ns"));
        Some(Finding {
            text: format!(
                "{} exits for accesses to model-specific registers: {}",
                self.guest.guest_or("the guest"),
                time(all_ns)
            ),
            evidence: format!(
                "{} {}, {} a second",
                thousands(count),
                self.what,
                thousands(per_second(count, self.duration_ns))
            ),
            ..self.finding(&rules::MSR_STORM, count, all_ns)?
        })
    }
}

fn sum(rows: &[&Record], name: &str) -> u64 {
    rows.iter().filter_map(|row| row.number(name)).sum()
}

/// What the host's page faults cost a guest.
fn host_faults(guest: &Subject, rows: &[&Record], duration_ns: u64) -> Option<Finding> {
    let (major, ns) = (sum(rows, "host_major"), sum(rows, "fault_ns"));
    let faults = major + sum(rows, "host_minor");
    let behalf =
        guest.whose.as_ref().map_or("on the guest's behalf".into(), |of| format!("on behalf of {of}"));
    Some(Finding {
        text: format!("the host handles page faults {behalf}: {}", time(ns)),
        evidence: format!(
            "{} faults, {} of them major; {} of the handling time of all exits",
            thousands(faults),
            thousands(major),
            percent(ns, sum(rows, "total_ns"))
        ),
        ..guest.finding(&rules::HOST_FAULTS, faults, ns, duration_ns)?
    })
}

/// What a guest inside the guest costs: its own exits, and those of L1 to run it.
fn nesting(guest: &Subject, rows: &[&Record], duration_ns: u64) -> Option<Finding> {
    let runs: Vec<&Record> =
        rows.iter().copied().filter(|row| row.text(EXIT).is_some_and(runs_a_guest)).collect();
    let (l2_count, l2_ns, all_ns) = (sum(rows, "l2_count"), sum(rows, "l2_ns"), sum(rows, "total_ns"));
    let count = sum(&runs, "count").saturating_sub(sum(&runs, "l2_count"));
    let all = l2_ns + sum(&runs, "total_ns").saturating_sub(sum(&runs, "l2_ns"));
    let finding = guest.finding(&rules::NESTED, l2_count + count, all, duration_ns)?;
    let reflected = rows.iter().any(|row| row.number("l2_reflected").is_some());
    (l2_count > 0 && all * 2 >= all_ns).then(|| Finding {
        text: format!(
            "a guest inside {} costs most of the time of exits: {}",
            guest.guest_or("the guest"),
            time(all)
        ),
        evidence: format!(
            "{} exits of L2 and {} of L1 to run it, {} of the handling time; {} of L2's were passed on to L1",
            thousands(l2_count),
            thousands(count),
            percent(all, all_ns),
            if reflected { thousands(sum(rows, "l2_reflected")) } else { "an unknown number".into() }
        ),
        ..finding
    })
}

/// The column that has an exit's name.
const EXIT: &str = "name";

/// Whether a hypervisor's instructions cause that exit: VMX's and SVM's, but for the call of a hypervisor.
fn runs_a_guest(exit: &str) -> bool {
    let exit = exit.to_ascii_lowercase();
    (exit.starts_with("vm") && exit != "vmcall" && exit != "vmmcall")
        || ["stgi", "clgi", "skinit", "invlpga", "invept", "invvpid"].contains(&exit.as_str())
}
