//! Rule files: YAML nodes to items, every key known or an error.

mod change;
mod exception;
mod grouping;
mod reader;
mod tests;
mod text;
mod threshold;
mod version;

use self::exception::Purpose;
use self::reader::ItemReader;
use super::ast::Span;
use super::diagnostic::{Diagnostic, Source, did_you_mean};
use super::priority::Priority;
use super::testing::RuleTest;
use super::threshold::Threshold;
use super::yaml::{self, Kind};

pub(crate) use self::change::{Changed, How, OVERRIDABLE, RuleChange};
pub(crate) use self::exception::{Comp, ExceptionItem, Group, Member, Row, Shape};
pub(crate) use self::grouping::GroupKeys;
pub(crate) use self::text::{Composer, Text};
pub use self::version::ENGINE_VERSION;

/// No file is searched further once this many things are wrong in it.
const MAX_WRONG: usize = 100;

/// An item of a rule file.
///
/// What is required and missing or wrong has been reported and is `None`: the rest of the item is checked all
/// the same, so that one run finds everything. Engine and plugin versions are checked for shape and not kept.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    List(ListItem, Effect),
    Macro(MacroItem, Effect),
    Rule(Box<RuleItem>),
    /// `override`, or the older `append: true`, of a rule.
    Change(Box<RuleChange>),
    /// The older way to enable or disable a rule: nothing but its name and `enabled`.
    Enable {
        name: Text,
        enabled: bool,
    },
}

/// What a list or a macro does to an earlier one of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Takes its place, if there is one.
    Define,
    /// Is put behind it; there must be one.
    Append,
}

/// `list`.
#[derive(Clone, Debug)]
pub(crate) struct ListItem {
    pub(crate) name: Text,
    pub(crate) items: Option<Vec<Text>>,
}

/// `macro`.
#[derive(Clone, Debug)]
pub(crate) struct MacroItem {
    pub(crate) name: Text,
    pub(crate) condition: Option<Text>,
}

/// `rule`.
#[derive(Clone, Debug)]
pub(crate) struct RuleItem {
    pub(crate) name: Text,
    pub(crate) id: Option<Text>,
    pub(crate) desc: Option<Text>,
    pub(crate) condition: Option<Text>,
    pub(crate) output: Option<Text>,
    pub(crate) priority: Option<Priority>,
    pub(crate) source: Option<Text>,
    pub(crate) maturity: Option<Text>,
    pub(crate) tags: Vec<Text>,
    pub(crate) attack: Vec<Text>,
    pub(crate) references: Vec<Text>,
    pub(crate) tests: Vec<RuleTest>,
    pub(crate) exceptions: Vec<ExceptionItem>,
    pub(crate) enabled: bool,
    pub(crate) warn_evttypes: bool,
    pub(crate) skip_if_unknown_filter: bool,
    pub(crate) threshold: Option<Threshold>,
    pub(crate) grouping: GroupKeys,
}

pub(crate) const LIST_KEYS: &[&str] = &["list", "items", "append", "override"];
pub(crate) const MACRO_KEYS: &[&str] = &["macro", "condition", "append", "override"];
pub(crate) const RULE_KEYS: &[&str] = &[
    "rule",
    "id",
    "desc",
    "condition",
    "output",
    "priority",
    "source",
    "enabled",
    "tags",
    "attack",
    "maturity",
    "references",
    "tests",
    "threshold",
    "group_by",
    "group_seconds",
    "exceptions",
    "append",
    "override",
    "warn_evttypes",
    "skip-if-unknown-filter",
    "capture",
    "capture_duration",
];

/// Reads the items of a file, in order; what is wrong is pushed to `diagnostics`.
pub(crate) fn read(source: &Source, diagnostics: &mut Vec<Diagnostic>) -> Vec<Item> {
    let documents = match yaml::parse(source.inner()) {
        Ok(documents) => documents,
        Err(error) => {
            let span = Span { start: error.offset, end: error.offset };
            diagnostics.push(Diagnostic::at(source, span, error.message));
            return Vec::new();
        }
    };
    let mut items = Vec::new();
    let before = diagnostics.len();
    for document in documents {
        if document.is_null() {
            continue;
        }
        let (span, kind) = (document.span, document.kind_name());
        let Kind::Sequence(nodes) = document.kind else {
            let message = format!("expected a sequence of items, found {kind}");
            let help = "each item begins with `- rule:`, `- macro:` or `- list:`";
            diagnostics.push(Diagnostic::at(source, span, message).help(help));
            // Whatever comes behind, this is no rule file.
            return items;
        };
        for node in nodes.into_iter().filter(|node| !node.is_null()) {
            let span = node.span;
            let reader = ItemReader::open(source, diagnostics, node, "an item");
            items.extend(reader.and_then(ItemReader::item));
            if diagnostics.len() - before > MAX_WRONG {
                diagnostics.truncate(before + MAX_WRONG);
                let message = format!(
                    "more than {MAX_WRONG} things are wrong up to here; the rest of the file was not read"
                );
                diagnostics.push(Diagnostic::at(source, Span { end: span.start + 1, ..span }, message));
                return items;
            }
        }
    }
    items
}

impl ItemReader<'_> {
    fn item(mut self) -> Option<Item> {
        if self.has("rule") {
            self.keys(RULE_KEYS);
            self.rule()
        } else if self.has("macro") {
            self.keys(MACRO_KEYS);
            let name = self.name("macro");
            let condition = self.required("condition");
            let effect = self.effect("condition");
            Some(Item::Macro(MacroItem { name: name?, condition }, effect?))
        } else if self.has("list") {
            self.keys(LIST_KEYS);
            let name = self.name("list");
            let items = self.items();
            let effect = self.effect("items");
            Some(Item::List(ListItem { name: name?, items }, effect?))
        } else {
            self.other();
            None
        }
    }

    /// An item that is neither rule nor macro nor list.
    fn other(&mut self) {
        if let Some(value) = self.take("required_engine_version") {
            self.keys(&[]);
            version::engine(self, &value);
        } else if let Some(value) = self.take("required_plugin_versions") {
            self.keys(&[]);
            version::plugins(self, value);
        } else {
            let known = ["rule", "macro", "list", "required_engine_version", "required_plugin_versions"];
            let keys = self.entries.iter().filter_map(|(key, _)| key.text());
            let help = keys.clone().find_map(|key| did_you_mean(key, known));
            let help = help.unwrap_or_else(|| "an item begins with `rule`, `macro` or `list`".to_owned());
            let message = "this item is neither a rule nor a macro nor a list";
            let wrong = match self.entries.first() {
                Some((key, _)) => Diagnostic::at(self.source, key.span, message),
                None => self.start.wrong(message),
            };
            self.diagnostics.push(wrong.help(help));
        }
    }

    fn rule(&mut self) -> Option<Item> {
        if let Some(changed) = self.change() {
            return changed;
        }
        self.captures();
        let name = self.name("rule");
        let condition = self.required("condition");
        let output = self.required("output");
        let desc = self.required("desc");
        let priority = self.required("priority").and_then(|text| self.priority(&text));
        let (id, source, maturity) = (self.text("id"), self.text("source"), self.text("maturity"));
        let (tags, attack, references) = (self.texts("tags"), self.texts("attack"), self.texts("references"));
        let tests = self.take("tests");
        let tests = tests.map_or_else(Vec::new, |node| tests::read(self.source, &node, self.diagnostics));
        let exceptions = self.take("exceptions");
        let exceptions =
            exceptions.map(|node| exception::read(self, node, Purpose::Define)).unwrap_or_default();
        let enabled = self.flag("enabled", true);
        let warn_evttypes = self.flag("warn_evttypes", true);
        let skip_if_unknown_filter = self.flag("skip-if-unknown-filter", false);
        let threshold = self.take("threshold").and_then(|node| threshold::read(self, &node));
        let grouping = self.grouping();
        Some(Item::Rule(Box::new(RuleItem {
            name: name?,
            id,
            desc,
            condition,
            output,
            priority,
            source,
            maturity,
            tags,
            attack,
            references,
            tests,
            exceptions,
            enabled,
            warn_evttypes,
            skip_if_unknown_filter,
            threshold,
            grouping,
        })))
    }

    fn priority(&mut self, text: &Text) -> Option<Priority> {
        match text.as_str().parse() {
            Ok(priority) => Some(priority),
            Err(error) => {
                let words = Priority::ALL.iter().rev().map(|priority| priority.as_str().to_ascii_uppercase());
                let words: Vec<String> = words.collect();
                let upper = text.as_str().to_ascii_uppercase();
                let near = did_you_mean(&upper, words.iter().map(String::as_str));
                let help = near.unwrap_or_else(|| format!("the priorities are {}", words.join(", ")));
                self.diagnostics.push(text.wrong(format!("{error}")).help(help));
                None
            }
        }
    }

    /// The name of a rule, macro or list. Falco warns of names that no condition can use, and so do we.
    fn name(&mut self, key: &str) -> Option<Text> {
        let name = self.required(key)?;
        let text = name.as_str();
        let help = match key {
            "macro" if !is_macro_name(text) => {
                "a macro's name has letters, digits and `_`, begins with a letter, and is not `and`, `or`, `not`"
            }
            "list" if text.contains(|c: char| c.is_whitespace() || "()\"'=,".contains(c)) => {
                "a list's name has no blanks, quotes, parentheses, commas or `=`"
            }
            _ => return Some(name),
        };
        let message = format!("no condition can use a {key} of the name `{text}`");
        self.diagnostics.push(name.wrong(message).help(help).warning());
        Some(name)
    }

    fn items(&mut self) -> Option<Vec<Text>> {
        if !self.has("items") {
            return self.required("items").map(|_| Vec::new());
        }
        Some(self.texts("items"))
    }

    /// Keys that ask Falco to record system calls around an alert.
    fn captures(&mut self) {
        if let Some(key) = self.key_node("capture").cloned()
            && self.some_flag("capture") == Some(true)
        {
            self.warn(&key, "`capture` has no effect", "ringfence makes no capture files");
        }
        self.capture_duration();
    }

    fn capture_duration(&mut self) {
        let Some(node) = self.take("capture_duration") else { return };
        if node.text().is_none_or(|text| text.parse::<u32>().is_err()) {
            self.wrong(&node, "`capture_duration` must be a whole number of milliseconds");
        }
    }
}

fn is_macro_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !matches!(text, "and" | "or" | "not")
}
