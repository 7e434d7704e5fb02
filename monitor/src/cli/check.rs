//! `ringfence check`: everything that is wrong with configuration and rules, then a summary.

use std::path::PathBuf;

use crate::cli::ConfigArg;
use crate::cli::failure::render_config;
use crate::cli::rules_command::RuleFiles;
use crate::config::DEFAULT_RULES;
use crate::daemon::{output_names, try_outputs};
use crate::rules::{Diagnostic, Severity};

/// What `check` prints and whether anything is wrong.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) text: String,
    pub(super) wrong: bool,
}

pub(super) fn report(paths: Vec<PathBuf>, config: &ConfigArg, color: bool) -> Report {
    let reads_config = paths.is_empty() || config.is_given();
    let Report { mut text, wrong } = rules_report(paths, config, color);
    // What is wrong with the configuration itself has been said.
    let settings = reads_config.then(|| config.settings().ok()).flatten();
    let Some(settings) = settings.filter(|settings| !settings.outputs.is_empty()) else {
        return Report { text, wrong };
    };
    match try_outputs(&settings) {
        Ok(()) => {
            text += &format!("outputs: {}\n", output_names(&settings).join(", "));
            Report { text, wrong }
        }
        Err(error) => Report { text: format!("{text}outputs wrong: {error}\n"), wrong: true },
    }
}

fn rules_report(paths: Vec<PathBuf>, config: &ConfigArg, color: bool) -> Report {
    let files = match RuleFiles::find(paths.clone(), config) {
        Ok(found) => found,
        Err(error) if paths.is_empty() => {
            let text = render_config(&error, color) + "configuration wrong; rules not checked\n";
            return Report { text, wrong: true };
        }
        Err(error) => {
            // One run tells all. What the configuration would have selected or added is unknown.
            let rules = of_files(&RuleFiles::plain(paths), color).text;
            let text = render_config(&error, color)
                + &rules
                + "configuration wrong; the named rules were checked without it\n";
            return Report { text, wrong: true };
        }
    };
    if files.paths.is_empty() {
        let text = format!("no rules: neither {} holds a rule file\n", DEFAULT_RULES.join(" nor "));
        return Report { text, wrong: true };
    }
    of_files(&files, color)
}

fn of_files(files: &RuleFiles, color: bool) -> Report {
    match files.load() {
        Ok(set) => {
            let mut text = render(set.warnings(), color);
            let enabled = set.rules().iter().filter(|rule| rule.enabled).count();
            let total = set.rules().len();
            let warnings = count(set.warnings().len(), "warning");
            text += &format!("ok: {}, {enabled} enabled, {warnings}\n", count(total, "rule"));
            Report { text, wrong: false }
        }
        Err(error) => {
            let mut text = render(error.diagnostics(), color);
            let errors = error.diagnostics().iter().filter(|d| d.severity() == Severity::Error).count();
            let warnings = error.diagnostics().len() - errors;
            text += &format!("wrong: {}, {}\n", count(errors, "error"), count(warnings, "warning"));
            Report { text, wrong: true }
        }
    }
}

pub(super) fn render(diagnostics: &[Diagnostic], color: bool) -> String {
    diagnostics.iter().map(|diagnostic| diagnostic.render(color)).collect()
}

pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
