//! `ringfence doctor`: the checks as a table.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::cli::rules::visible;
use crate::preflight::{Check, CheckState};

/// Whether any check failed.
pub(super) fn is_wrong(checks: &[Check]) -> bool {
    checks.iter().any(|check| check.state == CheckState::Fail)
}

/// One line per check, the remedy below it where there is one, and a summary.
pub(super) fn table(checks: &[Check], color: bool) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let style = match (color, check.state) {
            (false, _) => Style::new(),
            (true, CheckState::Ok) => AnsiColor::Green.on_default(),
            (true, CheckState::Warn) => AnsiColor::Yellow.on_default(),
            (true, CheckState::Fail) => AnsiColor::Red.on_default().bold(),
        };
        let (state, name) = (check.state.name(), check.name);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{style}{state:4}{style:#}  {name:width$}  {}", visible(&check.detail));
        if !check.remedy.is_empty() {
            let _ = writeln!(text, "{:4}  {:width$}  remedy: {}", "", "", visible(&check.remedy));
        }
    }
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let (warn, fail) = (count(CheckState::Warn), count(CheckState::Fail));
    let _ = match (fail, warn) {
        (0, 0) => writeln!(text, "all is well"),
        (0, _) => writeln!(text, "Ringfence can run, with {warn} reservation(s)"),
        _ => writeln!(text, "Ringfence cannot run here: {fail} check(s) failed"),
    };
    text
}
