//! Takes over what the process before left pinned, or attaches anew and pins that (docs/restart.md).

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;

use aya::maps::{IterableMap as _, Map, MapData};
use monitor_common::WIRE_VERSION;
use serde::{Deserialize, Serialize};

use super::explain::chain;
use super::replaced::Old;
use super::{Adopted, AttachError, AttachMode, Attached, ENROLMENT, OBJECT, Probe, Wanted, attach, cost_of};
use crate::bpf_files::{self, BpfFiles};
use crate::capabilities::{CAP_MARKS, CapMarksMap};
use crate::config::AttachChoice;
use crate::hierarchy::Hierarchy;
use crate::kernel_files;
use crate::pins::{CARRIED, Carried, LINK, PROGRAM, PinDir, PinError, SetName};

/// Version of what is pinned, and of what [`Manifest`] says.
const VERSION: u32 = 1;
/// The maps that the daemon itself uses. The programs hold on to all others.
const MAPS: [&str; 10] = [
    "EVENTS",
    "COUNTERS",
    "LOST",
    "CANARIES",
    "CAP_LEDGER",
    "CAP_UNCOUNTED",
    "CAP_BORROWED",
    "TASKS_UNKNOWN",
    "SYSCALL_SETS",
    "SYSCALLS_UNNOTED",
];

/// A map that no program uses: [`CapMarksMap`].
const MARKS: &str = "CAP_MARKS";
/// `BPF_F_NO_PREALLOC`: nearly always it is empty.
const NO_PREALLOC: u32 = 1;

/// What is pinned, in words.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    trampoline: bool,
    pub(super) wire: u16,
    probes: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    name: String,
    hook: String,
    missing: Option<String>,
}

/// How the programs came to their hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing was there.
    Anew,
    /// An earlier process attached them; so many starts before this one used them.
    Adopted(u64),
    /// What was there was of other programs or other settings.
    Replaced,
}

/// Where programs and maps are pinned.
#[derive(Debug)]
pub struct Pinned {
    dir: PinDir,
    set: SetName,
    carried: Arc<Carried>,
    begun: Begun,
}

impl Pinned {
    /// What goes from process to process.
    pub fn carried(&self) -> &Arc<Carried> {
        &self.carried
    }

    /// How the programs came to their hooks.
    pub fn begun(&self) -> Begun {
        self.begun
    }

    /// Removes the pins.
    pub(super) fn remove(self) {
        if let Err(error) = self.dir.remove(&self.set) {
            tracing::error!(%error, "pins stay: `ringfence unpin` removes them");
        }
    }
}

/// What a set of pins must agree on with who takes it over: programs, modes, all settings that shape maps or programs,
/// and what of the machine is written into the programs.
pub fn key(wanted: &Wanted<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (VERSION, WIRE_VERSION, &OBJECT.0).hash(&mut hasher);
    let choice = match wanted.choice {
        AttachChoice::Auto => 0,
        AttachChoice::Trampoline => 1,
        AttachChoice::Tracepoint => 2,
    };
    (choice, wanted.ring_bytes, wanted.syscall_sets).hash(&mut hasher);
    let controller = |hierarchy: &Hierarchy| hierarchy.controller.map(|controller| controller.name);
    wanted.hierarchy.map(|hierarchy| (hierarchy.number, controller(hierarchy))).hash(&mut hasher);
    kernel_files::whole_boot_id().hash(&mut hasher);
    kernel_files::host_namespace("mnt").hash(&mut hasher);
    hasher.finish()
}

pub(super) fn program_name(program: &str) -> String {
    format!("{PROGRAM}{program}")
}

fn link_name(program: &str) -> String {
    format!("{LINK}{program}")
}

/// As [`attach`], with pins in `dir`: what fits there is taken over, without a load or an attachment; what does not is
/// replaced, once the new programs are on their hooks.
///
/// # Errors
/// As [`attach`]; [`AttachError::Pins`].
pub fn attach_pinned(wanted: Wanted<'_>, dir: PinDir) -> Result<Attached, AttachError> {
    let key = key(&wanted);
    let mut earlier = dir.sets()?;
    if let Some(set) = earlier.iter().rposition(|set| set.key == key).map(|place| earlier.remove(place)) {
        match adopt(&dir, &set, wanted.hierarchy) {
            Ok(mut attached) => {
                remove(&dir, &earlier)?;
                let carried = attached.1;
                let begun = Begun::Adopted(carried.started());
                attached.0.pinned = Some(Pinned { dir, set, carried: Arc::new(carried), begun });
                return if wanted.strict { attached.0.be_whole() } else { Ok(attached.0) };
            }
            Err(reason) => {
                tracing::warn!(reason, "what is pinned cannot be taken over: attaching anew");
                earlier.push(set);
            }
        }
    }
    let old = earlier.iter().max().and_then(|set| match Old::open(&dir, set) {
        Ok(old) => Some(old),
        Err(reason) => {
            tracing::error!(
                reason,
                "what waits in the ring of an earlier version cannot be read: it is lost"
            );
            None
        }
    });
    let mut attached = attach(wanted)?;
    let number = earlier.iter().map(|set| set.number).max().map_or(0, |number| number.wrapping_add(1));
    let set = SetName { key, number };
    let carried = match pin(&mut attached, &dir, &set) {
        Ok(carried) => carried,
        Err(error) => {
            // The other error tells more.
            let _ = dir.remove(&set);
            return Err(error);
        }
    };
    let begun = if earlier.is_empty() { Begun::Anew } else { Begun::Replaced };
    match old {
        Some(old) => {
            let handed = old.hand_over(&mut attached, &carried, || remove(&dir, &earlier))?;
            let (records, pause_us) = (handed.records.len(), handed.pause.as_micros());
            tracing::info!(records, pause_us, "took the records over of what was replaced");
            attached.handed = handed.records;
        }
        None => remove(&dir, &earlier)?,
    }
    carried.started();
    attached.pinned = Some(Pinned { dir, set, carried: Arc::new(carried), begun });
    Ok(attached)
}

/// The program by which a thread becomes a canary, of the newest set of pins.
pub fn enrolment_of(dir: &PinDir) -> Option<OwnedFd> {
    let newest = dir.sets().ok()?.pop()?;
    dir.get(&newest, &program_name(ENROLMENT)).ok()
}

fn remove(dir: &PinDir, sets: &[SetName]) -> Result<(), PinError> {
    sets.iter().try_for_each(|set| dir.remove(set))
}

/// Gives everything that was just attached a name.
fn pin(attached: &mut Attached, dir: &PinDir, set: &SetName) -> Result<Carried, AttachError> {
    let failed = |error: String| AttachError::Unpinnable(error);
    dir.begin(set)?;
    let put = |name: &str, fd: u32| {
        dir.pin(set, name, fd).map_err(|error| AttachError::Unpinnable(format!("{name}: {error}")))
    };
    let enrolment = attached.enrolment().map_err(failed)?;
    put(&program_name(ENROLMENT), enrolment.as_raw_fd() as u32)?;
    let files = BpfFiles::read();
    for probe in &attached.probes {
        let Some(program) = probe.program else { continue };
        let (Some(link), Some(file)) = (files.link(program), files.program(program)) else {
            return Err(failed(format!("{}: this kernel makes no link for it", probe.hook)));
        };
        put(&program_name(&probe.name), file.number())?;
        put(&link_name(&probe.name), link.number())?;
    }
    for name in MAPS {
        let map = attached.ebpf.as_ref().and_then(|ebpf| ebpf.map(name));
        let map = map.ok_or_else(|| failed(format!("{name}: not in the object file")))?;
        map.pin(dir.place(set, name)).map_err(|error| failed(format!("{name}: {}", chain(&error))))?;
    }
    let entry = |probe: &Probe| Entry {
        name: probe.name.clone(),
        hook: probe.hook.clone(),
        missing: probe.missing.clone(),
    };
    let manifest = Manifest {
        trampoline: attached.mode == AttachMode::Trampoline,
        wire: WIRE_VERSION,
        probes: attached.probes.iter().map(entry).collect(),
    };
    let text = serde_json::to_string(&manifest).map_err(|error| failed(error.to_string()))?;
    let carried = Carried::make(&text).map_err(|error| failed(error.to_string()))?;
    let marks = CapMarksMap::create(CAP_MARKS, NO_PREALLOC).map_err(|error| failed(chain(&error)))?;
    let fd = marks.map().fd().as_fd().try_clone_to_owned().map_err(|error| failed(error.to_string()))?;
    put(MARKS, fd.as_raw_fd() as u32)?;
    attached.adopted.push((MARKS.to_owned(), Adopted::Map(Box::new(map_of(fd).map_err(failed)?))));
    put(CARRIED, carried.fd().as_raw_fd() as u32)?;
    dir.finish(set)?;
    Ok(carried)
}

pub(super) fn map_of(fd: OwnedFd) -> Result<Map, String> {
    let data = MapData::from_fd(fd).map_err(|error| chain(&error))?;
    Map::from_map_data(data).map_err(|error| chain(&error))
}

/// Takes a whole set over; or says why it is not what it should be.
fn adopt(dir: &PinDir, set: &SetName, hierarchy: Option<&Hierarchy>) -> Result<(Attached, Carried), String> {
    let get = |name: &str| dir.get(set, name).map_err(|error| format!("{name}: {error}"));
    let carried = Carried::adopt(get(CARRIED)?).map_err(|error| format!("{CARRIED}: {error}"))?;
    let manifest: Manifest = serde_json::from_str(&carried.text()).map_err(|error| error.to_string())?;
    let mut adopted = Vec::new();
    for name in MAPS.into_iter().chain([MARKS]) {
        let map = map_of(get(name)?).map_err(|error| format!("{name}: {error}"))?;
        adopted.push((name.to_owned(), Adopted::Map(Box::new(map))));
    }
    let enrolment = program_name(ENROLMENT);
    let fd = get(&enrolment)?;
    adopted.push((enrolment, Adopted::Held(fd)));
    let mut probes = Vec::new();
    for Entry { name, hook, missing } in manifest.probes {
        let mut program = None;
        if missing.is_none() {
            let (file, link) = (program_name(&name), link_name(&name));
            let (file_fd, link_fd) = (get(&file)?, get(&link)?);
            program = bpf_files::program_of(file_fd.as_fd());
            if program.is_none() || bpf_files::attached_by(link_fd.as_fd()) != program {
                return Err(format!("{hook}: its program is not on it any more"));
            }
            adopted.push((file, Adopted::Held(file_fd)));
            adopted.push((link, Adopted::Held(link_fd)));
        }
        probes.push(Probe { cost: cost_of(&name), name, hook, missing, program });
    }
    let known: HashSet<&str> = adopted.iter().map(|(name, _)| name.as_str()).chain([CARRIED]).collect();
    let names = dir.names(set).map_err(|error| error.to_string())?;
    if let Some(other) = names.iter().find(|name| !known.contains(name.as_str())) {
        return Err(format!("{other} is not Ringfence's"));
    }
    let mode = if manifest.trampoline { AttachMode::Trampoline } else { AttachMode::Tracepoint };
    let attached = Attached {
        ebpf: None,
        adopted,
        pinned: None,
        handed: Vec::new(),
        mode,
        probes,
        hierarchy: hierarchy.cloned(),
    };
    Ok((attached, carried))
}
