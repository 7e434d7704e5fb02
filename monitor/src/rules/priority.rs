//! How urgent a rule's alerts are.

use std::fmt;

use super::ast::words;

words! {
    /// Falco's priorities. The order is by weight: `Debug` is least, `Emergency` greatest.
    #[derive(PartialOrd, Ord)]
    Priority {
        /// For those who look for faults in the rules themselves.
        Debug = "Debug",
        /// Worth knowing; nothing to do.
        Informational = "Informational",
        /// Normal, but worth a look.
        Notice = "Notice",
        /// Not normal.
        Warning = "Warning",
        /// Wrong.
        Error = "Error",
        /// A wall was passed, or nearly.
        Critical = "Critical",
        /// To be acted on at once.
        Alert = "Alert",
        /// The system cannot be relied on any more.
        Emergency = "Emergency",
    }
}

impl Priority {
    /// The word in Falco's JSON.
    pub const fn as_str(self) -> &'static str {
        self.word()
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no priority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown priority `{0}`")]
pub struct UnknownPriority(pub String);

impl std::str::FromStr for Priority {
    type Err = UnknownPriority;

    /// Reads the word in any letter case; `INFO` is short for `INFORMATIONAL`.
    fn from_str(word: &str) -> Result<Self, UnknownPriority> {
        if word.eq_ignore_ascii_case("info") {
            return Ok(Priority::Informational);
        }
        let found = Priority::ALL.iter().find(|priority| priority.as_str().eq_ignore_ascii_case(word));
        found.copied().ok_or_else(|| UnknownPriority(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_any_case_and_ordered_by_weight() {
        assert_eq!("CRITICAL".parse(), Ok(Priority::Critical));
        assert_eq!("info".parse(), Ok(Priority::Informational));
        assert_eq!("InFoRmational".parse(), Ok(Priority::Informational));
        assert_eq!("warn".parse::<Priority>(), Err(UnknownPriority("warn".to_owned())));
        assert!(Priority::Emergency > Priority::Alert && Priority::Informational < Priority::Notice);
        for priority in Priority::ALL {
            assert_eq!(priority.as_str().parse(), Ok(*priority));
        }
    }
}
