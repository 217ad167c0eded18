//! Rules that a run cannot be judged by, and why: that they found nothing says nothing then.

use super::rules::Rule;

/// What was not judged, by reason.
#[derive(Debug, Default)]
pub(super) struct Unjudged {
    by_reason: Vec<(String, Vec<&'static Rule>)>,
    /// They have found something, so they had what they need.
    found: Vec<&'static Rule>,
}

impl Unjudged {
    /// Beside rules that have found something.
    pub(super) fn beside(found: impl Iterator<Item = &'static Rule>) -> Self {
        Self { by_reason: vec![], found: found.collect() }
    }

    /// Adds rules, with the reason. One that has a reason already keeps it.
    pub(super) fn add(
        &mut self,
        rules: impl IntoIterator<Item = &'static Rule>,
        why: impl FnOnce() -> String,
    ) {
        let is_new = |rule: &&'static Rule| {
            !self.found.contains(rule) && self.by_reason.iter().all(|(_, rules)| !rules.contains(rule))
        };
        let rules: Vec<_> = rules.into_iter().filter(is_new).collect();
        if rules.is_empty() {
            return;
        }
        let why = why();
        match self.by_reason.iter_mut().find(|(reason, _)| *reason == why) {
            Some((_, others)) => others.extend(rules),
            None => self.by_reason.push((why, rules)),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_reason.iter().map(|(_, rules)| rules.len()).sum()
    }

    /// Their names.
    pub(super) fn names(&self) -> Option<String> {
        let all: Vec<_> = self.by_reason.iter().map(|(_, rules)| names(rules)).collect();
        Some(all.join(", ")).filter(|names| !names.is_empty())
    }

    /// Their names with the reasons.
    pub(super) fn because(&self) -> Option<String> {
        let all = self.by_reason.iter().map(|(why, rules)| format!("{} ({why})", names(rules)));
        Some(all.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty())
    }
}

fn names(rules: &[&Rule]) -> String {
    rules.iter().map(|rule| rule.name).collect::<Vec<_>>().join(", ")
}

/// Why a rule was not judged that needs a column which the recording does not have.
pub(super) fn no_column(name: &str) -> String {
    format!("the recording has no column {name}")
}
