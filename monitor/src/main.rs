//! The `ringfence` command.

use std::process::ExitCode;

use monitor::cli::{self, Entry};
use monitor::{daemon, doctor, host_names};

fn main() -> ExitCode {
    host_names::use_built_in_sources();
    cli::main(Entry {
        run: |settings| Ok(daemon::run(settings)?),
        record: |settings, plan| Ok(daemon::record(settings, plan)?),
        probe_checks: doctor::probe_checks,
        sight: |choice| Ok(doctor::sight(choice)?),
    })
}
