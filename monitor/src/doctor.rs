//! What `ringfence doctor` finds out by trying: which probes attach here, and what each missing one costs.

use crate::attach::{AttachMode, attach};
use crate::config::{AttachChoice, DEFAULT_RING_BYTES};
use crate::preflight::{Check, CheckState};

/// Attaches every probe for a moment and reports how it went.
pub fn probe_checks() -> Vec<Check> {
    let attached = match attach(AttachChoice::Auto, false, DEFAULT_RING_BYTES) {
        Ok(attached) => attached,
        Err(error) => {
            let remedy = "see the checks above; `ringfence run` ends with the same message";
            return vec![Check::bad("probes", CheckState::Fail, error.to_string(), remedy)];
        }
    };
    let mode = match attached.mode {
        AttachMode::Trampoline => {
            Check::ok("attach mode", "trampoline: calls that are not watched pay nothing")
        }
        AttachMode::Tracepoint => Check::bad(
            "attach mode",
            CheckState::Warn,
            "tracepoint: this machine refuses trampolines, so every call of every process pays for the hook at its end",
            "nothing is missed; a kernel that allows fexit programs makes it cheaper",
        ),
    };
    let missing: Vec<Check> = attached
        .probes
        .iter()
        .filter_map(|probe| {
            let reason = probe.missing.as_ref()?;
            let detail = format!("{} is missing ({reason}): {}", probe.hook, probe.cost);
            Some(Check::bad(
                "probe",
                CheckState::Warn,
                detail,
                "coverage is degraded; `--strict` refuses to run so",
            ))
        })
        .collect();
    let count = attached.probes.len() - missing.len();
    let probes = Check::ok("probes", format!("{count} of {} attach", attached.probes.len()));
    [mode, probes].into_iter().chain(missing).collect()
}
