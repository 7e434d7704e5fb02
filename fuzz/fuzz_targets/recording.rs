//! Any bytes as a recording, and as the content of a block of one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use monitor::recording::{read_any, read_content};

fuzz_target!(|bytes: &[u8]| {
    read_any(bytes);
    read_content(bytes);
});
