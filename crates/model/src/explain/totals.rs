//! What the totals of kvm and sgx say.

use super::rules::{self, Rule};
use super::words::{percent, thousands, time};
use super::{Confidence, Finding};
use crate::field::Record;
use crate::item::Block;

/// Rules about exits and enclaves need columns that not every run has: these.
const NEEDS: &[(&str, &[(&Rule, &str)])] = &[
    (
        "kvm",
        &[
            (&rules::SLOW_VMM, "vmm_ns"),
            (&rules::HALT_POLLING, "kvm_ns"),
            (&rules::HOST_FAULTS, "fault_ns"),
            (&rules::MSR_STORM, "total_ns"),
            (&rules::NESTED, "l2_ns"),
        ],
    ),
    ("sgx", &[(&rules::SGX_THRASH, "refaults")]),
];

/// What the totals of a run say.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    rows: Vec<Record>,
    sum: Option<Record>,
    tool: &'static str,
}

impl Evidence {
    pub(super) fn totals(&mut self, block: &Block) {
        let tool = block.table.tool();
        if NEEDS.iter().any(|(of, _)| *of == tool) {
            self.tool = tool;
            self.rows.extend(block.rows.iter().cloned());
            self.sum = block.sum.clone().or_else(|| block.rows.first().cloned());
        }
    }

    /// How many events there are, and their time if it is known.
    pub(super) fn seen(&self) -> Option<(u64, Option<u64>)> {
        let sum = self.sum.as_ref()?;
        let (count, ns) = if self.tool == "kvm" { ("count", "total_ns") } else { ("faults", "load_ns") };
        Some((sum.number(count)?, sum.number(ns)))
    }

    /// The rules that lack figures.
    pub(super) fn not_judged(&self) -> Vec<&'static Rule> {
        let Some(sum) = &self.sum else { return vec![] };
        let of = NEEDS.iter().filter(|(tool, _)| *tool == self.tool).flat_map(|(_, rules)| *rules);
        of.filter(|(_, column)| sum.number(column).is_none()).map(|(rule, _)| *rule).collect()
    }

    pub(super) fn findings(&self, duration_ns: u64) -> Vec<Finding> {
        if self.tool == "kvm" { self.exits(duration_ns) } else { self.enclaves(duration_ns) }
    }

    fn exits(&self, duration_ns: u64) -> Vec<Finding> {
        let mut found = Vec::new();
        for row in &self.rows {
            let (exit, subject) = (row.text(EXIT), subject(row));
            let number = |name| row.number(name).unwrap_or(0);
            let (count, all_ns) = (number("count"), number("total_ns"));
            let is = |what| exit.is_some_and(|exit| exit.to_ascii_uppercase().contains(what));
            let exits = match (exit, &subject) {
                (Some(exit), _) => format!("{exit} exits"),
                (None, Some(whose)) => format!("exits of {whose}"),
                (None, None) => "exits".into(),
            };
            let mut add = |rule: &'static Rule, count, ns, confidence, text, evidence| {
                let subject = subject.clone();
                if rule.is_met(count, ns, duration_ns) {
                    let finding = Finding::new(rule, count, ns, duration_ns);
                    found.push(Finding { subject, confidence, text, evidence, ..finding });
                }
            };
            let (vmm_ns, to_vmm) = (number("vmm_ns"), number("to_vmm"));
            add(
                &rules::SLOW_VMM,
                to_vmm,
                vmm_ns,
                Confidence::Certain,
                format!("{exits} wait for the program that runs the guest: {}", time(vmm_ns)),
                format!(
                    "{} of {} exits went to it, {} each; {} of their handling time",
                    thousands(to_vmm),
                    thousands(count),
                    time(vmm_ns.checked_div(to_vmm).unwrap_or(0)),
                    percent(vmm_ns, all_ns)
                ),
            );
            if is("HLT") {
                let kvm_ns = number("kvm_ns");
                add(
                    &rules::HALT_POLLING,
                    count,
                    kvm_ns,
                    Confidence::Likely,
                    format!("KVM is at work for {} while vCPUs are halted: it polls", time(kvm_ns)),
                    format!(
                        "{} {exits}: {} at work, {} asleep",
                        thousands(count),
                        time(kvm_ns),
                        time(number("blocked_ns"))
                    ),
                );
            }
            if is("MSR") {
                add(
                    &rules::MSR_STORM,
                    count,
                    all_ns,
                    Confidence::Certain,
                    format!("the guest exits for accesses to model-specific registers: {}", time(all_ns)),
                    format!(
                        "{} {exits}, {} a second",
                        thousands(count),
                        thousands(per_second(count, duration_ns))
                    ),
                );
            }
        }
        let Some(sum) = &self.sum else { return found };
        let number = |name| sum.number(name).unwrap_or(0);
        let faults = number("host_major") + number("host_minor");
        if rules::HOST_FAULTS.is_met(faults, number("fault_ns"), duration_ns) {
            let ns = number("fault_ns");
            found.push(Finding {
                confidence: Confidence::Certain,
                text: format!("the host handles page faults on the guest's behalf: {}", time(ns)),
                evidence: format!(
                    "{} faults, {} of them major; {} of the handling time of all exits",
                    thousands(faults),
                    thousands(number("host_major")),
                    percent(ns, number("total_ns"))
                ),
                ..Finding::new(&rules::HOST_FAULTS, faults, ns, duration_ns)
            });
        }
        found.extend(self.nesting(sum, duration_ns));
        found
    }

    /// What a guest inside the guest costs: its own exits, and those of L1 to run it.
    fn nesting(&self, sum: &Record, duration_ns: u64) -> Option<Finding> {
        let number = |row: &Record, name| row.number(name).unwrap_or(0);
        let runs = self.rows.iter().filter(|row| row.text(EXIT).is_some_and(runs_a_guest));
        let (l2_count, l2_ns, all_ns) =
            (number(sum, "l2_count"), number(sum, "l2_ns"), number(sum, "total_ns"));
        let of_l1 = |row: &Record, all, l2| number(row, all).saturating_sub(number(row, l2));
        let (count, ns) = runs.fold((0, 0), |(count, ns), row| {
            (count + of_l1(row, "count", "l2_count"), ns + of_l1(row, "total_ns", "l2_ns"))
        });
        let all = l2_ns + ns;
        let applies =
            l2_count > 0 && rules::NESTED.is_met(l2_count + count, all, duration_ns) && all * 2 >= all_ns;
        applies.then(|| Finding {
            confidence: Confidence::Certain,
            text: format!("a guest inside the guest costs most of the time of exits: {}", time(all)),
            evidence: format!(
                "{} exits of L2 and {} of L1 to run it, {} of the handling time; {} of L2's were passed on to L1",
                thousands(l2_count),
                thousands(count),
                percent(all, all_ns),
                sum.number("l2_reflected").map_or("an unknown number".into(), thousands)
            ),
            ..Finding::new(&rules::NESTED, l2_count + count, all, duration_ns)
        })
    }

    fn enclaves(&self, duration_ns: u64) -> Vec<Finding> {
        let mut found = Vec::new();
        for row in &self.rows {
            let number = |name| row.number(name).unwrap_or(0);
            let (loads, again, ns) = (number("loads"), number("refaults"), number("load_ns"));
            if again * 5 >= loads && rules::SGX_THRASH.is_met(again, ns, duration_ns) {
                let subject = subject(row);
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

/// What a row is about: an exit by its name, else an enclave, a process or a guest by all that it has.
fn subject(row: &Record) -> Option<String> {
    let who = ["comm", "vm", "cgroup"].into_iter().find_map(|name| row.text(name));
    let process = match (who, row.number("pid")) {
        (Some(who), Some(pid)) => Some(format!("{who} ({pid})")),
        (None, Some(pid)) => Some(format!("process {pid}")),
        (who, None) => who.map(str::to_owned),
    };
    let whose = match (row.number("enclave"), &process) {
        (Some(number), Some(process)) => Some(format!("enclave {number} of {process}")),
        (Some(number), None) => Some(format!("enclave {number}")),
        (None, _) => process,
    };
    row.text(EXIT).map(str::to_owned).or(whose)
}

/// The column that has an exit's name.
const EXIT: &str = "name";

/// Whether a hypervisor's instructions cause that exit: VMX's and SVM's, but for the call of a hypervisor.
fn runs_a_guest(exit: &str) -> bool {
    let exit = exit.to_ascii_lowercase();
    (exit.starts_with("vm") && exit != "vmcall" && exit != "vmmcall")
        || ["stgi", "clgi", "skinit", "invlpga", "invept", "invvpid"].contains(&exit.as_str())
}
