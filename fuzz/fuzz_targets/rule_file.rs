//! Any bytes as a rule file.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| monitor::rules::fuzz::rule_file(bytes));
