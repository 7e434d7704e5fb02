//! Automation of Ringfence's repository.
fn main() {}
