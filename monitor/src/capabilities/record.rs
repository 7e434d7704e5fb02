//! A container's record in a file: JSON, with a version. What is read may be damaged or made up: it is checked whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use monitor_common::capability::CAP_SLOTS;
use serde::{Deserialize, Serialize};

use super::calls::{Calls, CallsForm};
use super::granted::Sets;
use super::run::{Heard, KNOWN_FLAGS, Lost, Run, Tally, Who};
use super::table::Kept;

/// Version of the form.
const VERSION: u32 = 1;
/// Bytes of a record, at most: more than all rows that there can be take.
pub(super) const MAX_BYTES: u64 = 512 << 10;
/// Bytes of a container's key, at most.
pub(super) const MAX_KEY: usize = 4096;
/// Bytes of any name in a record, at most.
const MAX_NAME: usize = 1024;

/// The form. Each number is as in [`Run`]; times are boot times of the boot that is named, in nanoseconds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u32,
    boot: String,
    /// Unix time of the boot's beginning, as it was when this was written.
    unix_offset_ns: i64,
    running: bool,
    key: String,
    cgroup: u64,
    who: Who,
    own_user_ns: Option<bool>,
    sets: Option<Sets>,
    sets_from_exec: bool,
    start_seen: bool,
    since: u64,
    until: u64,
    observed: u64,
    gaps: u32,
    restarts: u32,
    lost: Lost,
    rows: Vec<FormRow>,
    #[serde(default)]
    below: u64,
    #[serde(default)]
    required: u64,
    /// Whoever wrote no such thing looked at nothing.
    #[serde(default = "yes")]
    unlooked: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calls: Option<CallsForm>,
}

const fn yes() -> bool {
    true
}

/// A row: capability, flags, count, first, last, number and ABI of the last call.
type FormRow = (u16, u16, u64, u64, u64, u32, u32);

/// Why a record is refused; continues "NAME is refused: ".
pub(super) type Reason = String;

/// The record's text.
///
/// # Errors
/// [`Reason`]: it could not be read again.
pub(super) fn encode(kept: &Kept) -> Result<Vec<u8>, Reason> {
    let run = &kept.run;
    let row = |((cap, flags), tally): (&(u16, u16), &Tally)| {
        (*cap, *flags, tally.count, tally.first, tally.last, tally.nr, tally.abi)
    };
    let form = Form {
        version: VERSION,
        boot: kept.boot.to_string(),
        unix_offset_ns: kept.offset,
        running: kept.running,
        key: run.key.to_string(),
        cgroup: run.cgroup,
        who: run.who.clone(),
        own_user_ns: run.own_user_ns,
        sets: run.sets,
        sets_from_exec: run.sets_from_exec,
        start_seen: run.start_seen,
        since: run.since,
        until: run.until,
        observed: run.observed,
        gaps: run.gaps,
        restarts: run.restarts,
        lost: run.lost,
        rows: run.rows.iter().map(row).collect(),
        below: run.below,
        required: run.required,
        unlooked: run.unlooked || run.pending,
        calls: run.calls.as_ref().map(Calls::to_form),
    };
    check(&form)?;
    let mut text = serde_json::to_vec(&form).map_err(|error| error.to_string())?;
    text.push(b'\n');
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("it has {} bytes", text.len()));
    }
    Ok(text)
}

/// Reads a record and checks everything in it.
///
/// # Errors
/// [`Reason`].
pub(super) fn decode(text: &[u8]) -> Result<Kept, Reason> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    // Another version may have another form, so it is asked for first.
    let Versioned { version } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if version != VERSION {
        return Err(format!("it is of version {version}; this Ringfence knows version {VERSION}"));
    }
    let form: Form = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    check(&form)?;
    let mut rows = BTreeMap::new();
    for (cap, flags, count, first, last, nr, abi) in form.rows {
        if rows.insert((cap, flags), Tally { count, first, last, nr, abi }).is_some() {
            return Err(format!("two rows of capability {cap} with flags {flags:#x}"));
        }
    }
    let run = Run {
        key: Arc::from(form.key),
        cgroup: form.cgroup,
        who: form.who,
        own_user_ns: form.own_user_ns,
        sets: form.sets,
        sets_from_exec: form.sets_from_exec,
        start_seen: form.start_seen,
        since: form.since,
        until: form.until,
        observed: form.observed,
        gaps: form.gaps,
        restarts: form.restarts,
        rows,
        below: form.below,
        required: form.required,
        unlooked: form.unlooked,
        pending: false,
        lost: form.lost,
        heard: Heard::default(),
        calls: form.calls.map(Calls::from_form).transpose()?,
        dirty: false,
    };
    let boot = Arc::from(form.boot);
    Ok(Kept { boot, offset: form.unix_offset_ns, running: form.running, run, written: true })
}

/// What holds for every record.
fn check(form: &Form) -> Result<(), Reason> {
    if !is_boot(&form.boot) {
        return Err("its boot is no boot id".to_owned());
    }
    if form.key.is_empty() || form.key.len() > MAX_KEY {
        return Err(format!("its key has {} bytes", form.key.len()));
    }
    let who = &form.who;
    let names = [&who.name, &who.image, &who.service, &who.pod, &who.pod_namespace, &who.pod_container];
    let longest = names.into_iter().flatten().chain([&who.id, &who.runtime]).map(String::len).max();
    if longest.is_some_and(|longest| longest > MAX_NAME) {
        return Err("a name in it is too long".to_owned());
    }
    if form.since > form.until {
        return Err("it ends before it begins".to_owned());
    }
    for (cap, flags, count, first, last, ..) in &form.rows {
        if u32::from(*cap) >= CAP_SLOTS || flags & !KNOWN_FLAGS != 0 || *count == 0 || first > last {
            return Err(format!("a row of capability {cap} cannot be: flags {flags:#x}, {count} checks"));
        }
    }
    Ok(())
}

/// A boot's id without its dashes: 32 lower hexadecimal digits.
pub(super) fn is_boot(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The name of a record's file.
pub(super) fn file_name(boot: &str, cgroup: u64) -> String {
    format!("{boot}-{cgroup:016x}.json")
}

/// True for what [`file_name`] gives.
pub(super) fn is_file_name(name: &str) -> bool {
    let parts = name.strip_suffix(".json").and_then(|stem| stem.split_once('-'));
    parts.is_some_and(|(boot, cgroup)| {
        is_boot(boot) && cgroup.len() == 16 && cgroup.bytes().all(|b| b.is_ascii_hexdigit())
    })
}
