//! Any text as a rule file: it loads, or every mistake has a place in it and can be shown.

#![no_main]

use libfuzzer_sys::fuzz_target;
use monitor::rules::RuleSet;

fuzz_target!(|text: &str| {
    match RuleSet::from_sources(&[("fuzzed.yaml", text)]) {
        Ok(rules) => {
            for warning in rules.warnings() {
                let _ = warning.render(false);
            }
        }
        Err(error) => {
            assert!(!error.diagnostics().is_empty(), "refused without a reason");
            let _ = error.render(false);
        }
    }
});
