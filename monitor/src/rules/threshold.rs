//! What a rule's `threshold` says. The counting itself is done in [`crate::threshold`].

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::ast::OperandKind;
use super::condition;
use super::operand::{Source, resolve_ours};
use crate::fields::FieldRef;

/// What `count` may be: of one event nothing is to be counted, and each key remembers up to `count` times or values.
pub const COUNTS: RangeInclusive<u32> = 2..=1_000;

/// What `within` may be. Longer than a day would outlast what is remembered: the counts end with the daemon.
pub const WITHIN: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);

/// At most this many fields has `by`.
pub const MAX_BY: usize = 8;

/// A field together with how the rule writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedField {
    /// As written.
    pub name: String,
    /// Which field it is.
    pub field: FieldRef,
}

impl NamedField {
    /// Reads a field as rules write it, such as `container.id` or `proc.aname[2]`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed = condition::parse_operand_prefix(text).ok().filter(|(_, taken)| *taken == text.len());
        let Some((OperandKind::Field(name), span)) = parsed.map(|(operand, _)| (operand.value, operand.span))
        else {
            return Err(format!("`{text}` is not a field, such as container.id or proc.aname[2]"));
        };
        match resolve_ours(&name, span).map(|typed| typed.source) {
            Ok(Source::Field(field)) => Ok(NamedField { name: text.to_owned(), field }),
            Ok(_) => Err(format!("`{text}` is not a field")),
            Err(problem) => Err(problem.message),
        }
    }
}

/// How many events it takes until a rule fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// How many events, or with `distinct` how many different values; within [`COUNTS`].
    pub count: u32,
    /// The time between the first and the last of them, at most; within [`WITHIN`].
    pub within: Duration,
    /// Events are counted apart by the values of these; of all together if there is none.
    pub by: Vec<NamedField>,
    /// Different values of this field are counted instead of events.
    pub distinct: Option<NamedField>,
}

impl Threshold {
    /// [`Threshold::within`] in nanoseconds.
    pub fn within_ns(&self) -> u64 {
        u64::try_from(self.within.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A duration within [`WITHIN`] as rules write it. The library's only word for a day is `1day`.
pub(crate) fn written(duration: Duration) -> String {
    if duration == *WITHIN.end() {
        "24h".to_owned()
    } else {
        humantime::format_duration(duration).to_string()
    }
}

impl fmt::Display for Threshold {
    /// In words: `5 events within 1m by container.id`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.distinct {
            Some(distinct) => write!(f, "{} different values of {}", self.count, distinct.name)?,
            None => write!(f, "{} events", self.count)?,
        }
        write!(f, " within {}", written(self.within))?;
        for (i, by) in self.by.iter().enumerate() {
            f.write_str(if i == 0 { " by " } else { ", " })?;
            f.write_str(&by.name)?;
        }
        Ok(())
    }
}
