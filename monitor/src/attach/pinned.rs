//! Takes over what the process before left pinned, or attaches anew and pins that (docs/restart.md).

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;

use aya::maps::{IterableMap as _, Map, MapData};
use monitor_common::WIRE_VERSION;
use serde::{Deserialize, Serialize};

use super::explain::chain;
use super::replaced;
use super::{Adopted, AttachError, AttachMode, Attached, ENROLMENT, OBJECT, Probe, Wanted, attach, cost_of};
use crate::bpf_files::{self, BpfFiles};
use crate::capabilities::{CAP_MARKS, CapMarksMap};
use crate::config::AttachChoice;
use crate::hierarchy::Hierarchy;
use crate::kernel_files;
use crate::pins::{self, CARRIED, Carried, LINK, PROGRAM, PinDir, SetName};

/// Version of what is pinned, and of what [`Manifest`] says.
const VERSION: u32 = 1;
/// The maps that the daemon itself uses. The programs hold on to all others.
const MAPS: [&str; 10] = [
    EVENTS,
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

/// The ring.
pub(super) const EVENTS: &str = "EVENTS";
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
    fate: Fate,
    /// What was replaced: its names stay until its records were told of.
    earlier: (Vec<SetName>, Vec<Carried>),
}

/// What becomes of pins that are dropped: of a start that failed, or one that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// They were of no use to anybody before, so they go.
    Go,
    /// What watched before goes on watching, and whoever reads the log is told.
    StayAndSay,
    /// They are for the next process.
    Stay,
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

    /// The start has come to its end: from here on the pins are there for the next process.
    pub(super) fn settle(&mut self) {
        self.fate = Fate::Stay;
    }

    /// Removes what is left of the sets that were replaced: their records were told of. What cannot be removed is without
    /// links, and no reason to watch less.
    pub(super) fn forget_earlier(&mut self) {
        let (sets, carried) = std::mem::take(&mut self.earlier);
        carried.iter().for_each(Carried::hand_over);
        for error in sets.iter().filter_map(|set| self.dir.remove(set).err()) {
            tracing::error!(%error, "maps of programs that were replaced stay pinned: the next start removes them");
        }
    }

    /// Removes the pins.
    pub(super) fn remove(mut self) {
        self.fate = Fate::Stay;
        self.clear();
    }

    fn clear(&self) {
        if let Err(error) = self.dir.remove(&self.set) {
            tracing::error!(%error, "pins stay: `ringfence unpin` removes them");
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        match self.fate {
            Fate::Go => self.clear(),
            Fate::StayAndSay => tracing::error!(
                "the start failed, and probes stay on their hooks as they were before: a start that succeeds takes them over, \
                 `ringfence unpin` takes them off"
            ),
            Fate::Stay => {}
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
    let mut fresh = None;
    // The newest is the one that watches. What is older was left by a process that was killed while it was replaced.
    if let Some(set) = earlier.pop_if(|set| set.key == key) {
        let adopted = adopt(&dir, &set, &wanted).and_then(|adopted| {
            if adopted.0.gaps() > 0 {
                // What was refused once may be allowed by now.
                fresh = attach(wanted).ok();
            }
            let fewer = fresh.as_ref().is_some_and(|fresh| fresh.gaps() < adopted.0.gaps());
            if fewer { Err("more probes can be attached now".to_owned()) } else { Ok(adopted) }
        });
        match adopted {
            Ok((mut attached, carried)) => {
                let begun = Begun::Adopted(carried.started());
                let carried = Arc::new(carried);
                let fate = Fate::StayAndSay;
                let handed = replaced::take_remains(&dir, &earlier, &mut attached, &carried);
                attached.handed = handed.records;
                let earlier = (earlier, handed.old);
                attached.pinned = Some(Pinned { dir, set, carried, begun, fate, earlier });
                return if wanted.strict { attached.be_whole() } else { Ok(attached) };
            }
            Err(reason) => {
                tracing::warn!(reason, "what is pinned cannot be taken over: attaching anew");
                earlier.push(set);
            }
        }
    }
    let old = replaced::newest(&dir, &earlier);
    let mut attached = match fresh {
        Some(fresh) => fresh,
        None => attach(wanted)?,
    };
    let number = earlier.last().map_or(0, |set| set.number.wrapping_add(1));
    let set = SetName { key, number };
    let carried = match pin(&mut attached, &dir, &set) {
        Ok(carried) => Arc::new(carried),
        Err(error) => {
            // The other error tells more.
            let _ = dir.remove(&set);
            return Err(error);
        }
    };
    let begun = if earlier.is_empty() { Begun::Anew } else { Begun::Replaced };
    // Whatever fails now, what was there before is whole, and this is not.
    let mut pinned = Pinned { dir, set, carried, begun, fate: Fate::Go, earlier: Default::default() };
    let (dir, carried) = (&pinned.dir, &pinned.carried);
    // A process that is killed here leaves the old programs on their hooks, or new pins that are whole and an old ring that
    // the next process reads.
    let switch = || {
        earlier.iter().try_for_each(|set| dir.unhook(set))?;
        dir.finish(&pinned.set)
    };
    let mut left = Vec::new();
    match old {
        Some(old) => {
            let handed = old.hand_over(&mut attached, carried, switch)?;
            let (records, pause_us) = (handed.records.len(), handed.pause.as_micros());
            tracing::info!(records, pause_us, "took the records over of what was replaced");
            attached.handed = handed.records;
            left = handed.old;
        }
        None => switch()?,
    }
    carried.started();
    if begun == Begun::Replaced {
        pinned.fate = Fate::StayAndSay;
        // Also if nothing of the old ones can be read.
        pinned.carried.set_replaced(pinned.carried.replaced().max(1));
    }
    pinned.earlier = (earlier, left);
    attached.pinned = Some(pinned);
    Ok(attached)
}

/// The program by which a thread becomes a canary, of the newest set of pins.
pub fn enrolment_of(dir: &PinDir) -> Option<OwnedFd> {
    let newest = dir.sets().ok()?.pop()?;
    dir.get(&newest, &program_name(ENROLMENT)).ok()
}

/// Gives everything that was just attached a name, in a set that is not whole yet.
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
    Ok(carried)
}

pub(super) fn map_of(fd: OwnedFd) -> Result<Map, String> {
    let data = MapData::from_fd(fd).map_err(|error| chain(&error))?;
    Map::from_map_data(data).map_err(|error| chain(&error))
}

/// Takes a whole set over; or says why it is not what it should be.
fn adopt(dir: &PinDir, set: &SetName, wanted: &Wanted<'_>) -> Result<(Attached, Carried), String> {
    let get = |name: &str| dir.get(set, name).map_err(|error| format!("{name}: {error}"));
    let carried = Carried::adopt(get(CARRIED)?).map_err(|error| format!("{CARRIED}: {error}"))?;
    if carried.is_spoilt() {
        return Err(
            "when it was last looked at, its programs did not see, or its ring was not read".to_owned()
        );
    }
    let manifest: Manifest = serde_json::from_str(&carried.text()).map_err(|error| error.to_string())?;
    let ring = get(EVENTS)?;
    if !pins::is_sound(ring.as_fd(), wanted.ring_bytes).map_err(|error| format!("{EVENTS}: {error}"))? {
        return Err("its ring's positions are no such".to_owned());
    }
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
        hierarchy: wanted.hierarchy.cloned(),
    };
    Ok((attached, carried))
}
