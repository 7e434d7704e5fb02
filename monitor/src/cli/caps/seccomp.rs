//! The seccomp profile of a container, with all that speaks against it.

use std::time::Duration;

use super::{span, whose};
use crate::capabilities::seccomp::{Profile, profile};
use crate::capabilities::{CallNames, CallsInfo, CapsInfo};
use crate::cli::rules::visible;

/// A profile, and what to know about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) profile: Profile,
    /// Sentences for whoever applies it.
    pub(super) notes: Vec<String>,
}

/// Works the profile out.
///
/// # Errors
/// Why there is no advice, and what to do about it.
pub(super) fn advise(info: &CapsInfo, least: Duration, accept_losses: bool) -> Result<Advice, String> {
    let id = visible(&info.id);
    let Some(calls) = &info.calls else {
        return Err(format!(
            "no profile: which system calls {id} makes was not noted; set `syscall_sets: true`, restart the daemon, then \
             the container"
        ));
    };
    if calls.observed_seconds < least.as_secs() {
        return Err(format!(
            "no profile: the system calls of {id} were noted for {}, and advice rests on at least {} (--min-observation)",
            span(calls.observed_seconds),
            span(least.as_secs())
        ));
    }
    let made = |table: &CallNames| !table.called.is_empty();
    if !made(&calls.x86_64) && !made(&calls.i386) {
        // No program lives without calls: whatever the time, nothing was noted.
        return Err(format!(
            "no profile: no system call of {id} was noted in {}; `ringfence doctor` says whether they can be seen here",
            span(calls.observed_seconds)
        ));
    }
    if !accept_losses {
        complete(&id, calls)?;
    }
    let (profile, nameless) = profile(calls);
    Ok(Advice { profile, notes: notes(info, calls, &nameless) })
}

/// Refuses if calls are missing that the container surely or perhaps made.
fn complete(id: &str, calls: &CallsInfo) -> Result<(), String> {
    let why = if !calls.start_seen {
        format!(
            "the start of {id} was not seen, and with this profile it could not start again; restart it under watch first"
        )
    } else if calls.lost > 0 {
        format!(
            "while {id} ran, {} calls could not be noted, perhaps its own; make it anew, so that it is another container to \
             watch",
            calls.lost
        )
    } else {
        return Ok(());
    };
    Err(format!("no profile: {why}, or use --accept-losses"))
}

fn notes(info: &CapsInfo, calls: &CallsInfo, nameless: &[String]) -> Vec<String> {
    let tables = [&calls.x86_64, &calls.i386];
    let called: usize = tables.iter().map(|table| table.called.len()).sum();
    let last_new = calls.last_new.as_deref().map(visible).unwrap_or_else(|| "never".to_owned());
    let mut notes = vec![format!(
        "rests on {} in which the calls of {}{} were noted: it made {called} different ones, the last new one at {last_new}",
        span(calls.observed_seconds),
        visible(&info.id),
        whose(info)
    )];
    let refused: Vec<String> = tables
        .iter()
        .flat_map(|table| table.refused.iter().chain(&table.refused_enosys))
        .map(|name| visible(name))
        .collect();
    if !refused.is_empty() {
        notes.push(format!(
            "refused by the filter that it had, and refused further on: {}",
            refused.join(" ")
        ));
    }
    let unusual: Vec<String> =
        tables.iter().flat_map(|table| &table.unusual).map(|name| visible(name)).collect();
    if !unusual.is_empty() {
        notes.push(format!(
            "made with arguments that Docker's default profile refuses, and allowed with all of them: {}",
            unusual.join(" ")
        ));
    }
    if !nameless.is_empty() {
        let numbers: Vec<String> = nameless.iter().map(|number| visible(number)).collect();
        notes.push(format!("made, but without a name here and so not allowed: {}", numbers.join(" ")));
    }
    if !calls.start_seen {
        notes.push("CAUTION: its start was not seen; it may not start again with this profile".to_owned());
    }
    if calls.refusals_unseen {
        notes.push(
            "CAUTION: calls that its filter refused could not be seen for want of a probe (`ringfence doctor` says why); this \
             profile answers ENOSYS to them, whatever that filter did"
                .to_owned(),
        );
    }
    if info.gaps > 0 {
        notes.push("what it did while no daemon watched is not in it".to_owned());
    }
    if calls.lost > 0 {
        notes.push(format!("CAUTION: {} calls could not be noted, perhaps its own", calls.lost));
    }
    notes.push(
        "what it does rarely (rotation, backup, failover, errors) counts only if it happened; another version of its \
         programs or of the runtime may need other calls"
            .to_owned(),
    );
    notes
}

#[cfg(test)]
#[path = "seccomp_tests.rs"]
mod tests;
