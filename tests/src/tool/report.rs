//! A tool's report, as a script reads it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What every tool writes with `--output json`. Read without the tools' own types: a field that changes its name is a failed test.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `nodemend/v1`.
    pub api_version: String,
    /// `VethReport`, `IpamReport`.
    pub kind: String,
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// Whether anything was changed.
    pub changed: bool,
    /// How many objects got which verdict.
    pub summary: BTreeMap<String, usize>,
    /// Why nothing was done.
    pub refused: Option<String>,
    /// Every object.
    pub items: Vec<Item>,
    /// What the tool says beyond the objects.
    #[serde(flatten)]
    pub details: BTreeMap<String, Value>,
}

/// One object of a report.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// The line that names it.
    pub title: String,
    /// `live`, `foreign`, `undecided`, `orphan`.
    pub verdict: String,
    /// Why it is kept.
    pub reason: Option<String>,
    /// What is known of it.
    pub subject: Value,
    /// Who said what.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// What a repair would do.
    pub action: Option<String>,
    /// What was done.
    pub outcome: Option<Value>,
}

/// What one source said of an object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Evidence {
    /// Who was asked.
    pub source: String,
    /// `inUse`, `absent`, `unknown`.
    pub claim: String,
    /// The sentence.
    #[serde(default)]
    pub detail: String,
}

impl Report {
    /// How many objects got this verdict; the report's own count.
    pub fn count(&self, verdict: &str) -> usize {
        let key = if verdict == "orphan" { "orphans" } else { verdict };
        self.summary.get(key).copied().unwrap_or_default()
    }

    /// The names of the objects with this verdict, sorted.
    pub fn with(&self, verdict: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .items
            .iter()
            .filter(|item| item.verdict == verdict)
            .map(Item::name)
            .collect();
        names.sort();
        names
    }

    /// The object of that name: a link, or an address.
    pub fn item(&self, name: impl ToString) -> Option<&Item> {
        let name = name.to_string();
        self.items.iter().find(|item| item.name() == name)
    }

    /// Each object's name with its verdict, sorted.
    pub fn verdicts(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self
            .items
            .iter()
            .map(|item| (item.name(), item.verdict.clone()))
            .collect();
        all.sort();
        all
    }
}

impl Item {
    /// A link's name, a reservation's address, or the first word of the title.
    pub fn name(&self) -> String {
        let known = ["name", "file"]
            .iter()
            .find_map(|key| self.subject.get(key).and_then(Value::as_str));
        known
            .or_else(|| self.title.split_whitespace().next())
            .unwrap_or_default()
            .to_owned()
    }

    /// What the first source whose name begins like this said.
    pub fn said_by(&self, source: &str) -> Option<&Evidence> {
        self.evidence
            .iter()
            .find(|evidence| evidence.source.starts_with(source))
    }

    /// Whether a source whose name begins like this knows it.
    pub fn is_known_to(&self, source: &str) -> bool {
        self.evidence
            .iter()
            .any(|evidence| evidence.source.starts_with(source) && evidence.claim == "inUse")
    }

    /// The reason, or nothing.
    pub fn because(&self) -> &str {
        self.reason.as_deref().unwrap_or_default()
    }

    /// `mended`, `alreadyGone`, `refused`, `failed`, `notTried`; nothing if nothing was tried.
    pub fn outcome(&self) -> &str {
        let state = self.outcome.as_ref().and_then(|outcome| outcome.get("state"));
        state.and_then(Value::as_str).unwrap_or_default()
    }
}
