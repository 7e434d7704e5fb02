//! What `ringfence doctor` finds out by trying: which probes attach here, and what each missing one costs.

use crate::attach::{AttachError, AttachMode, Wanted, attach};
use crate::canary::{self, Trial};
use crate::config::{AttachChoice, DEFAULT_RING_BYTES};
use crate::coverage::Sight;
use crate::hierarchy::{Hierarchy, HierarchyChoice};
use crate::preflight::{Check, CheckState};

fn wanted(choice: AttachChoice, hierarchy: Option<&Hierarchy>) -> Wanted<'_> {
    Wanted { choice, strict: false, ring_bytes: DEFAULT_RING_BYTES, syscall_sets: false, hierarchy }
}

/// Attaches every probe for a moment and says what they see.
///
/// # Errors
/// As [`attach`].
pub fn sight(choice: AttachChoice) -> Result<Sight, AttachError> {
    let hierarchy = Hierarchy::find(HierarchyChoice::Auto).ok().flatten();
    let attached = attach(wanted(choice, hierarchy.as_ref()))?;
    Ok(Sight::new(attached.mode, &attached.probes, hierarchy.is_some()))
}

/// Attaches every probe for a moment and reports how it went; with `selftest` also whether each of them sees a test
/// call.
pub fn probe_checks(selftest: bool) -> Vec<Check> {
    // Before anything is attached: the trial's own calls are no tests.
    let trial = selftest.then(Trial::run);
    let hierarchy = Hierarchy::find(HierarchyChoice::Auto).ok().flatten();
    let attached = attach(wanted(AttachChoice::Auto, hierarchy.as_ref()));
    let mut attached = match attached {
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
    let tests = match trial {
        None => Vec::new(),
        Some(Ok(trial)) => canary::checks(trial, &mut attached),
        Some(Err(error)) => vec![Check::bad(
            "selftest",
            CheckState::Fail,
            format!("the test calls cannot be tried: {error}"),
            "free some memory or processes, and ask again",
        )],
    };
    [mode, probes].into_iter().chain(missing).chain(tests).collect()
}
