//! Any bytes as a condition.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| monitor::rules::fuzz::condition(bytes));
