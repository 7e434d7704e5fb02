//! What fuzz targets call: any bytes, taken for a condition or a rule file, and what must hold of every outcome.
//!
//! A panic here is a finding, never an answer.

use super::{RuleSet, condition, syntax};

/// Parses a condition. One that is accepted prints to a text that parses to the same tree.
pub fn condition(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match condition::parse(&text) {
        Ok(tree) => {
            let printed = tree.to_string();
            match condition::parse(&printed) {
                // What is printed has parentheses that the text did without.
                Err(error) if error.message.starts_with("nested more than") => {}
                again => assert_eq!(again.as_ref(), Ok(&tree), "{printed}"),
            }
            assert!(syntax::tree(&text).is_ok(), "a tree without JSON");
        }
        Err(error) => {
            assert!(error.offset <= text.len(), "an error behind the end");
            let _json = syntax::error(&text, &error);
        }
    }
}

/// Loads a rule file; every mistake can be shown.
pub fn rule_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = RuleSet::from_sources(&[("fuzz.yaml", &text)]) {
        assert!(!error.diagnostics().is_empty(), "refused without a reason");
        let _shown = error.render(false);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_known_to_be_odd_is_no_finding() {
        for bytes in [&b""[..], b"\xff\xfe", b"a.b = '\\x5c'", b"not not (a)", b"a.b in ("] {
            super::condition(bytes);
            super::rule_file(bytes);
        }
        super::rule_file(b"- rule: x\n  condition: a.b = '\xff'\n");
    }
}
