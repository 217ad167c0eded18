//! What `doctor` says of each variant of each tool.

use crate::field::{Kind, Record, Schema, Unit, Value, field};

/// The fields of a variant's row.
pub const VARIANT: &Schema = &[
    field("tool", Unit::None, Kind::Key, "the command"),
    field("variant", Unit::None, Kind::Key, "the probe variant, best first"),
    field("attaches", Unit::None, Kind::Label, "yes or no: it was loaded and attached, not guessed"),
    field("errno", Unit::None, Kind::Label, "the kernel's error"),
    field("error", Unit::None, Kind::Label, "what the kernel refused"),
    field("remedy", Unit::None, Kind::Label, "what to do about it"),
];

/// The fields of a program's row.
pub const PROGRAM: &Schema = &[
    field("tool", Unit::None, Kind::Key, "the command"),
    field("program", Unit::None, Kind::Key, "the program, by the name of its function"),
    field("insns", Unit::Count, Kind::Gauge, "instructions that the verifier went through"),
    field("errno", Unit::None, Kind::Label, "the kernel's error, if it was not loaded"),
    field("error", Unit::None, Kind::Label, "what the kernel refused"),
];

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

impl Machine {
    /// What a header tells beside host and kernel.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, Value)> {
        let yes = |is: bool| Value::from(if is { "yes" } else { "no" });
        let mut settings = vec![
            ("lockdown", self.lockdown.as_deref().into()),
            ("btf", yes(self.btf)),
            ("privileged", yes(self.privileged)),
            ("capabilities", self.capabilities.join(" ").as_str().into()),
            ("mounted", self.mounted.join(" ").as_str().into()),
        ];
        settings.extend(self.lacks.iter().map(|(tool, lack)| (*tool, lack.as_str().into())));
        if !self.namespaces.is_empty() {
            settings.push(("namespaces", self.namespaces_words().as_str().into()));
        }
        if !self.changed.is_empty() {
            settings.push(("changed", self.changed_words().as_str().into()));
        }
        settings
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
    /// The program.
    pub program: String,
    /// The instructions that the verifier went through, or why it was not loaded.
    pub insns: Result<u64, Refusal>,
}

impl Program {
    /// As a record of [`PROGRAM`].
    #[must_use]
    pub fn record(&self) -> Record {
        let refusal = self.insns.as_ref().err();
        Record::new(
            PROGRAM,
            vec![
                self.tool.into(),
                self.program.as_str().into(),
                self.insns.as_ref().ok().copied().into(),
                refusal.and_then(|r| r.errno.as_deref()).into(),
                refusal.map(|r| r.error.as_str()).into(),
            ],
        )
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
    /// As a record of [`VARIANT`].
    #[must_use]
    pub fn record(&self) -> Record {
        let refusal = self.refusal.as_ref();
        let of = |part: fn(&Refusal) -> &str| refusal.map(part).into();
        Record::new(
            VARIANT,
            vec![
                self.tool.into(),
                self.variant.into(),
                if refusal.is_none() { "yes" } else { "no" }.into(),
                refusal.and_then(|r| r.errno.as_deref()).into(),
                of(|r| &r.error),
                of(|r| &r.remedy),
            ],
        )
    }
}
