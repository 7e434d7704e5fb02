//! What there is to say about the rules in force, for whoever asks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::rules::RuleSet;
use crate::telling::unix_now;

/// Diagnostics that are shown; there may be thousands.
const MOST_DIAGNOSTICS: usize = 5;
/// Bytes of a diagnostic; a longer one is cut.
const MOST_BYTES: usize = 300;

/// The rules in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesState {
    /// Names of the files, in order.
    pub files: Vec<String>,
    /// Rules that are matched.
    pub enabled: usize,
    /// All rules.
    pub total: usize,
    /// Their number, from 1.
    pub generation: u64,
    /// Since when they are in force: nanoseconds since 1970.
    pub loaded_ns: i64,
}

impl RulesState {
    /// That of a set that has just been loaded.
    pub fn of(rules: &RuleSet, generation: u64) -> Self {
        RulesState {
            files: rules.sources().names().map(str::to_owned).collect(),
            enabled: rules.rules().iter().filter(|rule| rule.enabled).count(),
            total: rules.rules().len(),
            generation,
            loaded_ns: unix_now(),
        }
    }
}

/// Rules that were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When: nanoseconds since 1970.
    pub at_ns: i64,
    /// The first things that are wrong, long texts cut.
    pub diagnostics: Vec<String>,
    /// How many things are wrong.
    pub findings: u64,
    /// The files are still wrong.
    pub stands: bool,
}

impl Refused {
    pub(super) fn new(wrong: &[String]) -> Self {
        Refused {
            at_ns: unix_now(),
            diagnostics: wrong.iter().take(MOST_DIAGNOSTICS).map(|text| bounded(text)).collect(),
            findings: wrong.len() as u64,
            stands: true,
        }
    }
}

/// One line of bounded length.
fn bounded(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() <= MOST_BYTES {
        return line;
    }
    let end = line.floor_char_boundary(MOST_BYTES);
    format!("{}…", line.get(..end).unwrap_or_default())
}

/// Whether changes of files are noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watching {
    /// The configuration says no.
    Off,
    /// All files are watched.
    On,
    /// Not all: why.
    Partly(String),
    /// Not at all: why.
    Impossible(String),
}

#[derive(Debug)]
struct State {
    rules: RulesState,
    refused: Option<Refused>,
    watching: Watching,
}

/// What there is to say. No part of the event path takes its lock.
#[derive(Debug)]
pub struct RulesBoard(Mutex<State>);

impl RulesBoard {
    /// The rules that the daemon starts with.
    pub fn new(rules: RulesState, watched: bool) -> Self {
        let watching = if watched { Watching::On } else { Watching::Off };
        RulesBoard(Mutex::new(State { rules, refused: None, watching }))
    }

    /// The rules in force, the last that were refused, and whether files are watched.
    pub fn read(&self) -> (RulesState, Option<Refused>, Watching) {
        let state = self.lock();
        (state.rules.clone(), state.refused.clone(), state.watching.clone())
    }

    pub(super) fn in_force(&self, rules: RulesState) {
        self.lock().rules = rules;
    }

    pub(super) fn refused(&self, refused: Refused) {
        self.lock().refused = Some(refused);
    }

    pub(super) fn accepted(&self) {
        if let Some(refused) = &mut self.lock().refused {
            refused.stands = false;
        }
    }

    /// Gives whether this is news.
    pub(super) fn watching(&self, watching: Watching) -> bool {
        let mut state = self.lock();
        let news = state.watching != watching;
        state.watching = watching;
        news
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagnostics_are_bounded_lines() {
        let many: Vec<String> = (0..2000).map(|n| format!("{n}:\n {}", "é".repeat(1000))).collect();
        let refused = Refused::new(&many);
        assert_eq!((refused.findings, refused.diagnostics.len()), (2000, MOST_DIAGNOSTICS));
        for text in &refused.diagnostics {
            assert!(text.len() <= MOST_BYTES + '…'.len_utf8() && text.ends_with('…') && !text.contains('\n'));
        }
    }
}
