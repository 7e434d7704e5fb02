//! Cases of the rule loader, by what they are about. Files of one case are parted by a line of `=====`.

pub(crate) mod different;
pub(crate) mod exceptions;
pub(crate) mod keys;
pub(crate) mod overriding;
pub(crate) mod versions;

/// Files and what becomes of them.
pub(crate) struct Case {
    /// The behaviour.
    pub(crate) name: &'static str,
    /// The files, in order.
    pub(crate) files: &'static str,
    /// What becomes of them.
    pub(crate) outcome: Outcome,
    /// What each warning says.
    pub(crate) warnings: &'static [&'static str],
}

/// What becomes of files.
pub(crate) enum Outcome {
    /// The rules, each as `name: condition`, with a minus in front if it is not enabled.
    Loads(&'static [&'static str]),
    /// What each error says, with its place.
    Refused(&'static [&'static str]),
}

impl Outcome {
    pub(crate) fn errors(&self) -> &'static [&'static str] {
        match self {
            Outcome::Loads(_) => &[],
            Outcome::Refused(errors) => errors,
        }
    }
}

/// A case whose files load.
pub(crate) const fn loads(
    name: &'static str,
    files: &'static str,
    rules: &'static [&'static str],
    warnings: &'static [&'static str],
) -> Case {
    Case { name, files, outcome: Outcome::Loads(rules), warnings }
}

/// A case whose files are refused.
pub(crate) const fn refused(
    name: &'static str,
    files: &'static str,
    errors: &'static [&'static str],
    warnings: &'static [&'static str],
) -> Case {
    Case { name, files, outcome: Outcome::Refused(errors), warnings }
}

/// A file with one rule of this condition, in line 3 from column 14.
pub(crate) fn condition(condition: &str) -> String {
    format!("- rule: R\n  desc: d\n  condition: {condition}\n  output: o\n  priority: INFO\n")
}
