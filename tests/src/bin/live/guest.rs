//! What a guest's root must offer before attempts there mean anything: programs that start, modules that load.

use std::process::Command;

use libtest_mimic::{Failed, Trial};

/// Programs of the machine that `xtask/src/vm/contents.rs` puts in, with their libraries.
const PROGRAMS: &[&str] = &["capsh", "crun", "date", "dmesg", "hwclock", "nsenter", "setpriv", "unshare"];

pub(crate) fn trials() -> Vec<Trial> {
    let programs = PROGRAMS.iter().map(|program| {
        Trial::test(format!("guest::{program}_starts"), move || starts(program).map_err(Failed::from))
    });
    programs.chain([Trial::test("guest::msr_is_there", || msr_is_there().map_err(Failed::from))]).collect()
}

fn starts(program: &str) -> Result<(), String> {
    // capsh knows no --version; its --supports answers without a change to anything.
    let argument = if program == "capsh" { "--supports=cap_kill" } else { "--version" };
    let output =
        Command::new(program).arg(argument).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {argument}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// Every kernel of the matrix has the driver as a module, which the guest's first process loads.
fn msr_is_there() -> Result<(), String> {
    std::fs::metadata("/dev/cpu/0/msr").map(drop).map_err(|error| format!("/dev/cpu/0/msr: {error}"))
}
