//! Any text as a condition: it parses or it does not, and what parses prints as a text that parses to the same tree.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use monitor::rules::condition::parse;

fuzz_target!(|text: &str| -> Corpus {
    let Ok(expr) = parse(text) else { return Corpus::Keep };
    let printed = expr.to_string();
    match parse(&printed) {
        Ok(again) => assert_eq!(again, expr, "{printed}"),
        // What is printed has more parentheses than what was read, so it may go beyond the bound of nesting; and a
        // text that ends in a backslash cannot be written in quotes.
        Err(error) => assert!(error.message.contains("nested") || text.contains('\\'), "{printed}: {error}"),
    }
    Corpus::Keep
});
