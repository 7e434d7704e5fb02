//! Items that change earlier ones: `override`, the older `append: true`, and `enabled` alone.

use super::exception::{self, ExceptionItem, Purpose};
use super::reader::ItemReader;
use super::text::Text;
use super::{Effect, GroupKeys, Item, RULE_KEYS, tests, threshold};
use crate::rules::diagnostic::{Diagnostic, did_you_mean};
use crate::rules::priority::Priority;
use crate::rules::testing::RuleTest;
use crate::rules::threshold::Threshold;
use crate::rules::yaml::Kind;

/// How a key of a rule is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Append,
    Replace,
}

impl How {
    fn word(self) -> &'static str {
        match self {
            How::Append => "append",
            How::Replace => "replace",
        }
    }
}

/// A new value for a key, and what becomes of the old one.
#[derive(Clone, Debug)]
pub(crate) struct Changed<T> {
    pub(crate) how: How,
    pub(crate) value: T,
}

/// What an item changes of an earlier rule. What is `None` stays as it is.
#[derive(Clone, Debug)]
pub(crate) struct RuleChange {
    pub(crate) name: Text,
    /// Not changed, but compared.
    pub(crate) source: Option<Text>,
    pub(crate) condition: Option<Changed<Text>>,
    pub(crate) output: Option<Changed<Text>>,
    pub(crate) desc: Option<Changed<Text>>,
    pub(crate) tags: Option<Changed<Vec<Text>>>,
    pub(crate) attack: Option<Changed<Vec<Text>>>,
    pub(crate) references: Option<Changed<Vec<Text>>>,
    pub(crate) exceptions: Option<Changed<Vec<ExceptionItem>>>,
    pub(crate) tests: Option<Changed<Vec<RuleTest>>>,
    pub(crate) threshold: Option<Threshold>,
    pub(crate) grouping: GroupKeys,
    pub(crate) priority: Option<Priority>,
    pub(crate) maturity: Option<Text>,
    pub(crate) enabled: Option<bool>,
    pub(crate) warn_evttypes: Option<bool>,
    pub(crate) skip_if_unknown_filter: Option<bool>,
}

/// The keys of a rule that `override` may name, and whether they can be appended to.
pub(crate) const OVERRIDABLE: &[(&str, bool)] = &[
    ("condition", true),
    ("output", true),
    ("desc", true),
    ("tags", true),
    ("exceptions", true),
    ("tests", true),
    ("threshold", false),
    ("group_by", false),
    ("group_seconds", false),
    ("attack", true),
    ("references", true),
    ("priority", false),
    ("maturity", false),
    ("enabled", false),
    ("warn_evttypes", false),
    ("skip-if-unknown-filter", false),
    ("capture", false),
    ("capture_duration", false),
];

/// The keys that a rule which is not a change must have; one that has none of them only enables or disables.
const OWN_KEYS: &[&str] = &["condition", "output", "desc", "priority"];

impl ItemReader<'_> {
    /// What a list or a macro does to an earlier one; `None` if it cannot be told.
    pub(super) fn effect(&mut self, content: &str) -> Option<Effect> {
        let older = self.older_append();
        let before = self.diagnostics.len();
        let named = self.overrides(&[(content, true)]);
        if self.diagnostics.len() > before {
            return None;
        }
        if older && self.refuse_both(&named) {
            return None;
        }
        let appended = older || named.iter().any(|(_, how)| *how == How::Append);
        Some(if appended { Effect::Append } else { Effect::Define })
    }

    fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|found| found.is_error()).count()
    }

    /// Whether `append: true` stands here.
    fn older_append(&mut self) -> bool {
        let key = self.key_node("append").cloned();
        let appends = self.flag("append", false);
        if let Some(key) = key.filter(|_| appends) {
            let help = "Falco will drop it; write `override:` with a line such as `condition: append`";
            self.warn(&key, "`append: true` is the older form of `override`", help);
        }
        appends
    }

    /// Reports `append: true` beside an `override`.
    fn refuse_both(&mut self, named: &[(String, How)]) -> bool {
        if named.is_empty() {
            return false;
        }
        let wrong = self.start.wrong("`append: true` and `override` stand in one item");
        self.diagnostics.push(wrong.help("leave out `append: true`"));
        true
    }

    /// What `override` names. Only what is right is returned.
    fn overrides(&mut self, allowed: &[(&str, bool)]) -> Vec<(String, How)> {
        let Some(node) = self.take("override") else { return Vec::new() };
        if node.is_null() {
            return Vec::new();
        }
        let (span, kind) = (node.span, node.kind_name());
        let Kind::Mapping(entries) = node.kind else {
            let message =
                format!("`override` must be a mapping of keys to `append` or `replace`, found {kind}");
            self.diagnostics.push(Diagnostic::at(self.source, span, message));
            return Vec::new();
        };
        let mut named: Vec<(String, How)> = Vec::new();
        for (key, value) in entries {
            let Some(name) = key.text() else {
                self.wrong(&key, "a key must be a text");
                continue;
            };
            let Some((_, can_append)) = allowed.iter().find(|(known, _)| *known == name) else {
                let names = allowed.iter().map(|(known, _)| *known);
                let list = names.clone().collect::<Vec<_>>().join(", ");
                let help = did_you_mean(name, names).unwrap_or_else(|| format!("these keys can be: {list}"));
                let wrong =
                    Diagnostic::at(self.source, key.span, format!("the key `{name}` cannot be overridden"));
                self.diagnostics.push(wrong.help(help));
                continue;
            };
            let how = match value.text() {
                Some("append") if *can_append => How::Append,
                Some("replace") => How::Replace,
                Some("append") => {
                    let message = format!("the key `{name}` cannot be appended to");
                    let wrong = Diagnostic::at(self.source, value.span, message);
                    self.diagnostics.push(wrong.help(format!("use `{name}: replace`")));
                    continue;
                }
                other => {
                    let help = did_you_mean(other.unwrap_or_default(), ["append", "replace"]);
                    let words = if *can_append { "`append` or `replace`" } else { "`replace`" };
                    let wrong = Diagnostic::at(self.source, value.span, format!("expected {words}"));
                    self.diagnostics.push(wrong.maybe_help(help));
                    continue;
                }
            };
            if named.iter().any(|(known, _)| known == name) {
                self.wrong(&key, format!("the key `{name}` stands twice in this item"));
                continue;
            }
            named.push((name.to_owned(), how));
        }
        named
    }

    /// Reads a rule item that changes an earlier rule. `None` if it defines one; `Some(None)` if it changes one
    /// and is wrong.
    pub(super) fn change(&mut self) -> Option<Option<Item>> {
        let older = self.older_append();
        let before = self.diagnostics.len();
        let named = self.overrides(OVERRIDABLE);
        let wrong = self.diagnostics.len() > before;
        if older && self.refuse_both(&named) {
            return Some(None);
        }
        if !named.is_empty() || wrong {
            return Some(self.overriding(&named, wrong));
        }
        if older {
            return Some(self.appending());
        }
        let enables = self.has("enabled") && !OWN_KEYS.iter().any(|key| self.has(key));
        enables.then(|| self.enabling())
    }

    fn overriding(&mut self, named: &[(String, How)], wrong: bool) -> Option<Item> {
        let how = |key: &str| named.iter().find(|(known, _)| known == key).map(|(_, how)| *how);
        let before = self.errors();
        for (key, how) in named {
            if !self.has(key) {
                let message = format!("`override` names `{key}`, which this item does not have");
                let help = format!("give the text to {} as `{key}:` beside `override`", how.word());
                let wrong = self.start.wrong(message).help(help);
                self.diagnostics.push(wrong);
            }
        }
        let fixed = ["rule", "source"];
        // If a line of `override` is wrong, it may be the one that is missing.
        let mut unnamed = Vec::new();
        for (node, _) in self.entries.iter().filter(|_| !wrong) {
            let key = node.text().unwrap_or_default();
            let named = how(key).is_some() || fixed.contains(&key) || !RULE_KEYS.contains(&key);
            if let (false, overridable) = (named, OVERRIDABLE.iter().find(|(known, _)| *known == key)) {
                let message = format!("`override` does not name `{key}`, which this item has");
                let found = Diagnostic::at(self.source, node.span, message);
                unnamed.push(match overridable {
                    Some((_, true)) => found.help(format!("add `{key}: append` or `{key}: replace` to it")),
                    Some((_, false)) => found.help(format!("add `{key}: replace` to it")),
                    None => found.help("this key cannot be overridden; leave it out"),
                });
            }
        }
        self.diagnostics.append(&mut unnamed);
        let change = self.parts(how)?;
        let good = !wrong && self.errors() == before;
        good.then(|| Item::Change(Box::new(change)))
    }

    /// The older form: the condition and the exceptions are appended to, and nothing else.
    fn appending(&mut self) -> Option<Item> {
        let appendable = ["condition", "exceptions"];
        let mut idle = Vec::new();
        for (node, _) in &self.entries {
            let key = node.text().unwrap_or_default();
            let kept = appendable.contains(&key) || ["rule", "source"].contains(&key);
            if !kept && RULE_KEYS.contains(&key) {
                let message = format!("`{key}` has no effect beside `append: true`");
                let found = Diagnostic::at(self.source, node.span, message);
                idle.push(found.help("use `override` to change it").warning());
            }
        }
        self.diagnostics.append(&mut idle);
        if !appendable.iter().any(|key| self.has(key)) {
            let wrong =
                self.start.wrong("nothing is appended: this item has no `condition` and no `exceptions`");
            self.diagnostics.push(wrong);
            return None;
        }
        let before = self.errors();
        let change = self.parts(|key| appendable.contains(&key).then_some(How::Append))?;
        let good = self.errors() == before;
        good.then(|| Item::Change(Box::new(change)))
    }

    /// The parts that `how` names.
    fn parts(&mut self, how: impl Fn(&str) -> Option<How>) -> Option<RuleChange> {
        let name = self.name("rule");
        // An empty source is none.
        let source = self.take("source").filter(|node| !node.is_null() && node.text() != Some(""));
        let source = source.and_then(|node| self.as_text("source", node));
        let text = |reader: &mut Self, key: &str| {
            let how = how(key)?;
            reader.text(key).map(|value| Changed { how, value })
        };
        let texts = |reader: &mut Self, key: &str| {
            let how = how(key)?;
            Some(Changed { how, value: reader.some_texts(key)? })
        };
        let flag = |reader: &mut Self, key: &str| how(key).and_then(|_| reader.some_flag(key));
        let condition = text(self, "condition");
        let (output, desc) = (text(self, "output"), text(self, "desc"));
        let (tags, attack) = (texts(self, "tags"), texts(self, "attack"));
        let references = texts(self, "references");
        let exceptions = how("exceptions").and_then(|how| {
            let purpose = if how == How::Append { Purpose::Append } else { Purpose::Define };
            let node = self.take("exceptions")?;
            Some(Changed { how, value: exception::read(self, node, purpose) })
        });
        let tests = how("tests").and_then(|how| {
            let node = self.take("tests")?;
            Some(Changed { how, value: tests::read(self.source, &node, self.diagnostics) })
        });
        let threshold = how("threshold").and_then(|_| self.take("threshold"));
        let threshold = threshold.and_then(|node| threshold::read(self, &node));
        let grouping = self.new_grouping(&how);
        let priority = text(self, "priority").and_then(|text| self.priority(&text.value));
        let maturity = text(self, "maturity").map(|text| text.value);
        let enabled = flag(self, "enabled");
        let warn_evttypes = flag(self, "warn_evttypes");
        let skip_if_unknown_filter = flag(self, "skip-if-unknown-filter");
        if how("capture").is_some() || how("capture_duration").is_some() {
            self.captures();
        }
        Some(RuleChange {
            name: name?,
            source,
            condition,
            output,
            desc,
            tags,
            attack,
            references,
            exceptions,
            tests,
            threshold,
            grouping,
            priority,
            maturity,
            enabled,
            warn_evttypes,
            skip_if_unknown_filter,
        })
    }

    /// Nothing but a name and `enabled`.
    fn enabling(&mut self) -> Option<Item> {
        let key = self.key_node("enabled").cloned();
        let name = self.name("rule");
        let enabled = self.some_flag("enabled");
        if let Some(key) = key {
            let help = "Falco will drop it; add `override: {enabled: replace}`";
            self.warn(&key, "`enabled` alone is the older form of `override`", help);
        }
        let mut idle = Vec::new();
        for (node, _) in &self.entries {
            let message = format!("`{}` has no effect here", node.text().unwrap_or_default());
            let found = Diagnostic::at(self.source, node.span, message);
            idle.push(found.help("a rule without a condition is only enabled or disabled").warning());
        }
        self.diagnostics.append(&mut idle);
        Some(Item::Enable { name: name?, enabled: enabled? })
    }
}
