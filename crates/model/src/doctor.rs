//! What `doctor` says of each variant of each tool.

use crate::field::{Kind, Record, Unit, Value};
use crate::table::{Schema, Table, key, label, number};

#[rustfmt::skip]
static VARIANT: Table<Variant> = Table::new("doctor.variant", "doctor", &[&[
    key("tool", "The command.", |v| v.tool.into()),
    key("variant", "The probe variant, best first.", |v| v.variant.into()),
    label("attaches", "Whether the variant attaches, yes or no: it was loaded and attached, not guessed.", |v| Value::word(yes(v.refusal.is_none()))),
    label("errno", "The kernel's error.", |v| v.refusal.as_ref().and_then(|r| r.errno.as_deref()).into()),
    label("error", "What the kernel refused.", |v| v.refusal.as_ref().map(|r| r.error.as_str()).into()),
    label("remedy", "What to do about the refusal.", |v| v.refusal.as_ref().map(|r| r.remedy.as_str()).into()),
]]);

#[rustfmt::skip]
static PROGRAM: Table<Program> = Table::new("doctor.program", "doctor", &[&[
    key("tool", "The command.", |p| p.tool.into()),
    key("object", "The part of the kernel half that the program is in: a file of bpf/, without `.bpf.c`.", |p| p.object.into()),
    key("program", "The BPF program, by the name of its function.", |p| p.program.as_str().into()),
    number("insns", (Unit::Count, Kind::Gauge), "The instructions that the verifier processed.", |p| p.insns.as_ref().ok().copied().into()),
    label("errno", "The kernel's error, if the program was not loaded.", |p| p.insns.as_ref().err().and_then(|r| r.errno.as_deref()).into()),
    label("error", "What the kernel refused.", |p| p.insns.as_ref().err().map(|r| r.error.as_str()).into()),
]]);

/// All of them.
pub(crate) const TABLES: &[&Schema] = &[&VARIANT, &PROGRAM, &SETTINGS];

/// Variants.
pub const VARIANTS: &Schema = &VARIANT;

/// BPF programs.
pub const PROGRAMS: &Schema = &PROGRAM;

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// The machine, as far as it decides what attaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// The lockdown mode; nothing if the kernel does not say.
    pub lockdown: Option<String>,
    /// Whether the kernel describes its types.
    pub btf: bool,
    /// Whether we may load and attach programs at all.
    pub privileged: bool,
    /// The effective capabilities that matter, by name.
    pub capabilities: Vec<&'static str>,
    /// Which of the kernel's own file systems are mounted, of those that help.
    pub mounted: Vec<&'static str>,
    /// Tools about something that this machine does not have, and what it lacks.
    pub lacks: Vec<(&'static str, String)>,
    /// Namespaces that are not the machine's initial ones, and what each costs.
    pub namespaces: Vec<(&'static str, &'static str)>,
    /// Settings that a tracer, running or killed, has changed: names, and what they were.
    pub changed: Vec<(&'static str, u64)>,
}

#[rustfmt::skip]
static SETTINGS: Table<Machine> = Table::settings("doctor.settings", "doctor", &[&[
    label("lockdown", "The lockdown mode of the kernel, if the kernel shows it.", |m| m.lockdown.as_deref().into()),
    label("btf", "Whether the kernel describes its types, yes or no.", |m| Value::word(yes(m.btf))),
    label("privileged", "Whether we may load and attach BPF programs at all, yes or no.", |m| Value::word(yes(m.privileged))),
    label("capabilities", "The effective capabilities that matter.", |m| m.capabilities.join(" ").into()),
    label("mounted", "The kernel's own file systems that are mounted, of those that help.", |m| m.mounted.join(" ").into()),
    label("kvm", "What the machine lacks for kvm.", |m| m.lack("kvm").into()),
    label("sgx", "What the machine lacks for sgx.", |m| m.lack("sgx").into()),
    label("namespaces", "The namespaces that are not the machine's initial ones, and what each costs.", |m| Some(m.namespaces_words()).filter(|words| !words.is_empty()).into()),
    label("changed", "The settings that a tracer has changed, and what they were.", |m| Some(m.changed_words()).filter(|words| !words.is_empty()).into()),
]]);

impl Machine {
    /// What a header says beside host and kernel.
    #[must_use]
    pub fn settings(&self) -> Record {
        SETTINGS.record(self)
    }

    /// What it lacks for a tool.
    fn lack(&self, tool: &str) -> Option<&str> {
        self.lacks.iter().find(|(lacking, _)| *lacking == tool).map(|(_, lack)| lack.as_str())
    }

    /// The namespaces, in words.
    #[must_use]
    pub fn namespaces_words(&self) -> String {
        let words: Vec<String> =
            self.namespaces.iter().map(|(name, cost)| format!("{name}: {cost}")).collect();
        words.join("; ")
    }

    /// The settings that are changed, in words.
    #[must_use]
    pub fn changed_words(&self) -> String {
        let words: Vec<String> = self.changed.iter().map(|(name, was)| format!("{name} was {was}")).collect();
        words.join(", ")
    }
}

/// One variant of one tool, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// The command.
    pub tool: &'static str,
    /// The variant.
    pub variant: &'static str,
    /// Why it cannot be used here; nothing if it attaches.
    pub refusal: Option<Refusal>,
    /// What it sees of one's own processes is all that it sees: where nothing else attaches, the tool works in part.
    pub own_only: bool,
}

/// One program of one tool, loaded for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The command.
    pub tool: &'static str,
    /// What of the kernel half it is in.
    pub object: &'static str,
    /// The program.
    pub program: String,
    /// The instructions that the verifier went through, or why it was not loaded.
    pub insns: Result<u64, Refusal>,
}

impl Program {
    /// As a row.
    #[must_use]
    pub fn record(&self) -> Record {
        PROGRAM.record(self)
    }
}

/// Why a variant cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the kernel's error, `EPERM`; nothing if it was not the kernel that refused.
    pub errno: Option<String>,
    /// What was refused.
    pub error: String,
    /// What to do about it.
    pub remedy: String,
}

impl Variant {
    /// As a row.
    #[must_use]
    pub fn record(&self) -> Record {
        VARIANT.record(self)
    }
}
