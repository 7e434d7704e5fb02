//! What `group_by` and `group_seconds` of a rule say. The grouping itself is done in [`crate::grouping`].

use std::fmt;

use super::threshold::NamedField;

/// The longest that alerts are held together, in seconds: a day.
pub const MAX_GROUP_SECONDS: u32 = 24 * 60 * 60;

/// By what alerts are grouped unless a rule or the configuration says otherwise: who did it, and with what program.
pub const GROUP_BY: [&str; 2] = ["container.id", "proc.exepath"];

/// Alerts of a rule that are alike are told once per period, with their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// Those are alike that have the same values here; all if there is none.
    pub by: Vec<NamedField>,
    /// Length of a period; from 1 to [`MAX_GROUP_SECONDS`].
    pub seconds: u32,
}

impl Grouping {
    /// Length of a period in nanoseconds.
    pub fn period_ns(&self) -> u64 {
        u64::from(self.seconds) * 1_000_000_000
    }
}

impl fmt::Display for Grouping {
    /// In words: `once in 60s by container.id, proc.exepath`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "once in {}s", self.seconds)?;
        for (i, by) in self.by.iter().enumerate() {
            f.write_str(if i == 0 { " by " } else { ", " })?;
            f.write_str(&by.name)?;
        }
        Ok(())
    }
}

/// How rules are grouped that do not say so themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDefault {
    /// See [`Grouping::by`].
    pub by: Vec<NamedField>,
    /// See [`Grouping::seconds`]; 0 for not at all.
    pub seconds: u32,
}

impl Default for GroupDefault {
    fn default() -> Self {
        let by = GROUP_BY.iter().filter_map(|name| NamedField::parse(name).ok()).collect();
        GroupDefault { by, seconds: 0 }
    }
}

impl GroupDefault {
    /// What holds for a rule that says so much.
    pub(crate) fn of(&self, by: Option<&Vec<NamedField>>, seconds: Option<u32>) -> Option<Grouping> {
        let seconds = seconds.unwrap_or(self.seconds);
        (seconds > 0).then(|| Grouping { by: by.unwrap_or(&self.by).clone(), seconds })
    }
}

/// Checks a length of periods.
///
/// # Errors
/// A sentence that says what fits.
pub fn check_group_seconds(seconds: u64) -> Result<u32, String> {
    match u32::try_from(seconds) {
        Ok(short) if short <= MAX_GROUP_SECONDS => Ok(short),
        _ => Err(format!(
            "{seconds} seconds: alerts are grouped for 1 to {MAX_GROUP_SECONDS}, or 0 for not at all"
        )),
    }
}

#[cfg(test)]
mod tests {
    use crate::rules::{GroupDefault, LoadOptions, NamedField, RuleSet};

    fn load(keys: &str, seconds: u32) -> Result<Option<String>, String> {
        let text = format!(
            "- rule: r\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: DEBUG\n{keys}"
        );
        let options = LoadOptions {
            group: GroupDefault { seconds, ..GroupDefault::default() },
            ..LoadOptions::default()
        };
        RuleSet::from_sources_with(&[("g.yaml", &text)], &options)
            .map(|set| set.rules()[0].grouping.as_ref().map(ToString::to_string))
            .map_err(|error| error.diagnostics()[0].message().to_owned())
    }

    #[test]
    fn a_rule_says_more_than_the_configuration() {
        let said = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(load("", 0), Ok(None));
        assert_eq!(load("", 60), said("once in 60s by container.id, proc.exepath"));
        assert_eq!(load("  group_seconds: 0\n", 60), Ok(None));
        assert_eq!(load("  group_by: [proc.name]\n", 0), Ok(None));
        assert_eq!(load("  group_by: [proc.name]\n", 60), said("once in 60s by proc.name"));
        assert_eq!(load("  group_by: []\n  group_seconds: 5\n", 0), said("once in 5s"));
        assert_eq!(
            load("  group_by: 'proc.aname[2]'\n  group_seconds: 5\n", 0),
            said("once in 5s by proc.aname[2]")
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (keys, message) in [
            ("  group_by: [proc.nam]\n", "proc.nam"),
            ("  group_by: [proc.name, proc.name]\n", "stands twice in `group_by`"),
            ("  group_by: {a: b}\n", "`group_by` must name a field"),
            ("  group_seconds: 86401\n", "86401 seconds"),
            ("  group_seconds: 5m\n", "`5m` is not a whole number"),
        ] {
            assert!(load(keys, 0).unwrap_err().contains(message), "{keys}");
        }
        assert!(NamedField::parse("proc.name ").is_err() && NamedField::parse("lower(proc.name)").is_err());
    }
}
