//! Loads the BPF programs and puts them on their hooks; says what is missing and what that costs.
//!
//! Two modes (see ARCHITECTURE.md): `trampoline` hooks the watched calls themselves, so no other call pays
//! anything; `tracepoint` hooks the end of every call, for machines that refuse trampolines. The programs
//! behind both are the same.

mod attached;
mod explain;
mod hooks;
mod ledger;
mod maps;
mod pinned;
mod replaced;
mod syscall_sets;

use std::os::fd::OwnedFd;
use std::path::Path;

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupDevice, FEntry, FExit, Program, ProgramError, TracePoint,
};
use aya::{Btf, Ebpf, EbpfLoader};
use monitor_common::control::{MISSING, Offsets};
use monitor_common::syscall_set::SYSCALL_SETS;

use explain::chain;
use hooks::{FREED, Hook, LIFE_CYCLE, RETURNS, cost_of, function_of};
pub use hooks::{hooked_functions, hooked_tracepoints, hooked_wrappers, watched_by};
pub use maps::MapFile;
pub use pinned::{Begun, Pinned, attach_pinned, enrolment_of, key};
pub use syscall_sets::{SET_WORDS, SyscallSetMap, UnnotedMap};

use crate::btf::{BtfError, KernelTypes};
use crate::config::AttachChoice;
use crate::hierarchy::{Hierarchy, v2_root};
use crate::kernel_files;
use crate::pins::PinError;
use crate::preflight::KernelVersion;

/// The compiled programs. Aligned, because the ELF reader casts its headers.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("RINGFENCE_BPF_OBJECT")));

/// How the programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// `fexit` on the watched calls and on seccomp.
    Trampoline,
    /// `tp_btf/sys_exit`.
    Tracepoint,
}

impl AttachMode {
    /// Both.
    pub const ALL: [AttachMode; 2] = [AttachMode::Trampoline, AttachMode::Tracepoint];

    /// The word in messages, metrics and options.
    pub const fn name(self) -> &'static str {
        match self {
            AttachMode::Trampoline => "trampoline",
            AttachMode::Tracepoint => "tracepoint",
        }
    }
}

/// Why the programs cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// See [`BtfError`].
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The build left the programs out.
    #[error(
        "this build of ringfence contains no BPF programs (RINGFENCE_SKIP_BPF was set): build it again without"
    )]
    NoObject,
    /// The maps or the object as a whole were refused.
    #[error(
        "the kernel refused the BPF maps: {0}. Ringfence needs CAP_BPF and CAP_PERFMON (or root), in a container a seccomp profile that lets bpf(2) through, and before 5.11 a sufficient memlock limit (ulimit -l)"
    )]
    Load(String),
    /// The trampoline mode was demanded and this machine refuses it.
    #[error("this machine refuses trampolines ({0}): use --attach auto or --attach tracepoint")]
    NoTrampolines(String),
    /// Not one probe on the watched calls could be attached.
    #[error("no probe could be attached: {0}")]
    Nothing(String),
    /// See [`PinError`].
    #[error(transparent)]
    Pins(#[from] PinError),
    /// Something that was attached cannot be pinned.
    #[error("cannot be pinned: {0}; --no-pin does without")]
    Unpinnable(String),
    /// `--strict` was given and something is missing.
    #[error("--strict: {} probes are missing: {}", .0.len(), .0.join("; "))]
    Strict(Vec<String>),
}

/// One probe, and how its attachment went.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Name of the program.
    pub name: String,
    /// Where it sits, as `fexit/__x64_sys_setns`.
    pub hook: String,
    /// Why it is missing; `None` if it is attached.
    pub missing: Option<String>,
    /// What cannot be seen without it.
    pub cost: &'static str,
    /// The kernel's id of its program; `None` if it is not attached.
    pub program: Option<u32>,
}

/// The programs in force.
pub struct Attached {
    /// Keeps programs and links alive that this process loaded: dropped, it detaches everything that is not pinned.
    ebpf: Option<Ebpf>,
    /// Maps, programs and links that were taken over, by their names.
    adopted: Vec<(String, Adopted)>,
    /// Where they are pinned, if they are.
    pinned: Option<Pinned>,
    /// What comes before the records that wait in the ring.
    handed: Vec<Vec<u8>>,
    /// How the watched calls are hooked.
    pub mode: AttachMode,
    /// Every probe of the mode, the missing ones too.
    pub probes: Vec<Probe>,
    /// The hierarchy by which the programs know cgroups.
    pub hierarchy: Option<Hierarchy>,
}

/// The per-CPU ledger: seen, sent, lost, and lost without attribution.
pub type CounterMap = PerCpuArray<MapData, [u64; 4]>;
/// Lost records by cgroup and slot (the slot's number in the second word).
pub type LostMap = HashMap<MapData, [u64; 2], u64>;

/// The tasks whose records are canaries ([`monitor_common::control::CanaryTasks`]): start time and thread id of each.
pub type CanaryMap = Array<MapData, [u64; 4]>;

/// Something that another process loaded.
enum Adopted {
    Map(Box<Map>),
    /// A program or a link.
    Held(OwnedFd),
}

/// Why no probe on capability checks can be attached, now or later.
const NEVER: &str = "refused by this machine, and the kernel has no tracepoint (before 6.14)";

struct Plan {
    program: String,
    hook: Hook,
}

/// What is to be attached, and how.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'h> {
    /// In which mode.
    pub choice: AttachChoice,
    /// Any gap is an error.
    pub strict: bool,
    /// Size of the ring buffer: a power of two, whole pages.
    pub ring_bytes: u32,
    /// The calls of each cgroup are noted, for which each call of the machine pays; without, nothing of that is loaded.
    pub syscall_sets: bool,
    /// Cgroups are known by their directories in it; without one, no event has a cgroup.
    pub hierarchy: Option<&'h Hierarchy>,
}

/// The first kernel whose BTF tracepoints run preemptible (`__bpf_trace_run` holds back migration only): while a task
/// is preempted inside the program, the kernel skips it for all others on that CPU. Tracepoints of perf stay as
/// they were, but cost every call a little more.
const PREEMPTIBLE_TRACEPOINTS: KernelVersion = KernelVersion { major: 7, minor: 0 };

fn preemptible_tracepoints() -> bool {
    KernelVersion::running() >= Some(PREEMPTIBLE_TRACEPOINTS)
}

/// How capability checks are seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CapHook {
    /// `tp_btf/cap_capable`, since 6.14.
    Tracepoint,
    /// The same by perf's tracepoint, see [`PREEMPTIBLE_TRACEPOINTS`].
    Perf,
    /// `fexit/cap_capable`.
    Return,
    None,
}

/// Loads and attaches the programs; nothing is pinned.
///
/// What can be missing is reported in [`Attached::probes`] and the rest still runs, unless `strict`.
///
/// # Errors
/// [`AttachError`], if nothing useful would run, or on any gap with `strict`.
pub fn attach(wanted: Wanted<'_>) -> Result<Attached, AttachError> {
    let Wanted { choice, strict, ring_bytes, syscall_sets, hierarchy } = wanted;
    let types = KernelTypes::from_file(Path::new(KernelTypes::PATH))?;
    let btf = Btf::from_sys_fs().map_err(|e| AttachError::Load(e.to_string()))?;
    let place = hierarchy_settings(&types, hierarchy)?;
    let hierarchy = hierarchy.cloned();
    let loader = Loader { offsets: types.offsets()?, types, btf, ring_bytes, syscall_sets, hierarchy, place };
    let caps = match loader.types.has_tracepoint("cap_capable") {
        true if preemptible_tracepoints() => CapHook::Perf,
        true => CapHook::Tracepoint,
        false => CapHook::Return,
    };
    let attached = match choice {
        AttachChoice::Trampoline => loader.trampoline(true)?,
        AttachChoice::Tracepoint => loader.tracepoint(caps)?,
        AttachChoice::Auto => match loader.trampoline(true) {
            Err(AttachError::NoTrampolines(reason)) => {
                tracing::info!(reason, "trampolines are refused here: using tracepoints");
                loader.tracepoint(caps)?
            }
            other => other?,
        },
    };
    if strict { attached.be_whole() } else { Ok(attached) }
}

/// How the programs find a task's directory in the hierarchy: its number, and the controller's place.
fn hierarchy_settings(types: &KernelTypes, hierarchy: Option<&Hierarchy>) -> Result<[u32; 2], BtfError> {
    let Some(hierarchy) = hierarchy else { return Ok([MISSING; 2]) };
    let subsys = match hierarchy.controller {
        None => MISSING,
        Some(controller) => types
            .enum_value("cgroup_subsys_id", controller.enumerator)
            .ok_or(BtfError::NoController(controller.enumerator))?,
    };
    Ok([hierarchy.number, subsys])
}

struct Loader {
    types: KernelTypes,
    btf: Btf,
    offsets: [u32; Offsets::COUNT],
    ring_bytes: u32,
    syscall_sets: bool,
    hierarchy: Option<Hierarchy>,
    /// `hierarchy` and `hierarchy_subsys` of [`monitor_common::control::Settings`].
    place: [u32; 2],
}

impl Loader {
    /// `doors`: each change of credentials is seen.
    fn trampoline(&self, doors: bool) -> Result<Attached, AttachError> {
        // The function tells more than the tracepoint: whether the kernel only looks. But where programs can be preempted
        // so many of its runs would be skipped that no container's counts were ever whole.
        let caps = if preemptible_tracepoints() { CapHook::Perf } else { CapHook::Return };
        let mut attached = self.load(AttachMode::Trampoline, caps, doors)?;
        // The first of its kind tells whether the machine allows the kind.
        let args = self.types.function_args("__seccomp_filter").unwrap_or(2);
        let seccomp = Plan {
            program: format!("seccomp_filter_{args}"),
            hook: Hook::Return("__seccomp_filter".to_owned()),
        };
        self.put(&mut attached, seccomp);
        if let Some(Probe { missing: Some(reason), .. }) = attached.probes.last() {
            return Err(AttachError::NoTrampolines(reason.clone()));
        }
        let committed =
            Plan { program: "credentials_committed".to_owned(), hook: Hook::Entry("commit_creds") };
        self.put(&mut attached, committed);
        if doors && attached.probes.last().is_some_and(|probe| probe.missing.is_some()) {
            // The programs must know that growth proves nothing: load them again, told so.
            drop(attached);
            return self.trampoline(false);
        }
        self.put_common(&mut attached, caps);
        let switch =
            Plan { program: "nsproxy_switched".to_owned(), hook: Hook::Entry("switch_task_namespaces") };
        self.put(&mut attached, switch);
        for (program, _) in RETURNS {
            let hook = Hook::Return(function_of(program));
            self.put(&mut attached, Plan { program: (*program).to_owned(), hook });
        }
        Ok(attached)
    }

    fn tracepoint(&self, caps: CapHook) -> Result<Attached, AttachError> {
        let mut attached = self.load(AttachMode::Tracepoint, caps, true)?;
        self.put_common(&mut attached, caps);
        let unseen = |probe: &Probe| probe.name.starts_with("cap_capable") && probe.missing.is_some();
        if caps != CapHook::None && attached.probes.iter().any(unseen) {
            // The programs must know that nobody sees capability checks: load them again, told so.
            drop(attached);
            return self.tracepoint(CapHook::None);
        }
        let (program, hook) = if preemptible_tracepoints() {
            ("sys_exit_perf", Hook::Perf("raw_syscalls", "sys_exit"))
        } else {
            ("sys_exit", Hook::Tracepoint("sys_exit"))
        };
        self.put(&mut attached, Plan { program: program.to_owned(), hook });
        match attached.probes.last() {
            Some(Probe { missing: Some(reason), .. }) => Err(AttachError::Nothing(reason.clone())),
            _ => Ok(attached),
        }
    }

    /// Loads the object with the settings that fit kernel and mode; attaches nothing yet.
    fn load(&self, mode: AttachMode, caps: CapHook, doors: bool) -> Result<Attached, AttachError> {
        if OBJECT.0.is_empty() {
            return Err(AttachError::NoObject);
        }
        let has_pt_regs = u64::from(self.types.has_function("bpf_task_pt_regs"));
        let trampoline = u64::from(mode == AttachMode::Trampoline);
        let caps_hooked = u64::from(caps != CapHook::None);
        let inode = |path| kernel_files::proc_inode(path).unwrap_or(0);
        let typed = |wrapper: String| self.types.first_argument_is_complete(&wrapper);
        let wrappers_typed = u64::from(hooked_wrappers().all(typed));
        tracing::info!(
            task_pt_regs = has_pt_regs != 0,
            typed_wrappers = wrappers_typed != 0,
            "resolved from BTF"
        );
        let [hierarchy, subsys] = self.place.map(u64::from);
        // The layout of monitor_common::control::Settings: four u32, two u64, four u32.
        let settings: [u64; 6] = [
            has_pt_regs | trampoline << 32,
            caps_hooked | wrappers_typed << 32,
            inode(kernel_files::PROC_KMSG),
            inode(kernel_files::PROC_KCORE),
            hierarchy | subsys << 32,
            u64::from(doors) | u64::from(kernel_files::host_namespace("mnt").unwrap_or(0)) << 32,
        ];
        let ebpf = EbpfLoader::new()
            .btf(Some(&self.btf))
            .override_global("OFFSETS", &self.offsets[..], true)
            .override_global("SETTINGS", &settings[..], true)
            .map_max_entries("EVENTS", self.ring_bytes)
            .map_max_entries("SYSCALL_SETS", if self.syscall_sets { SYSCALL_SETS } else { 1 })
            .load(&OBJECT.0)
            .map_err(|e| AttachError::Load(chain(&e)))?;
        Ok(Attached {
            ebpf: Some(ebpf),
            adopted: Vec::new(),
            pinned: None,
            handed: Vec::new(),
            mode,
            probes: Vec::new(),
            hierarchy: self.hierarchy.clone(),
        })
    }

    /// What both modes have.
    fn put_common(&self, attached: &mut Attached, caps: CapHook) {
        for (program, tracepoint, _) in LIFE_CYCLE.iter().chain(&[FREED]) {
            self.put(attached, Plan { program: (*program).to_owned(), hook: Hook::Tracepoint(tracepoint) });
        }
        match caps {
            CapHook::Perf => self.put(
                attached,
                Plan {
                    program: "cap_capable_perf".to_owned(),
                    hook: Hook::Perf("capability", "cap_capable"),
                },
            ),
            CapHook::Tracepoint => self.put(
                attached,
                Plan { program: "cap_capable_tp".to_owned(), hook: Hook::Tracepoint("cap_capable") },
            ),
            CapHook::Return => {
                for function in ["cap_capable", "security_capset"] {
                    let hook = Hook::Return(function.to_owned());
                    self.put(attached, Plan { program: function.to_owned(), hook });
                }
            }
            CapHook::None => attached.probes.push(Probe {
                name: "cap_capable".to_owned(),
                hook: "fexit/cap_capable".to_owned(),
                missing: Some(NEVER.to_owned()),
                cost: cost_of("cap_capable"),
                program: None,
            }),
        }
        self.put(attached, Plan { program: "device_asked".to_owned(), hook: Hook::DeviceCgroup });
        if self.syscall_sets {
            self.put_syscall_sets(attached);
        }
    }
    fn put(&self, attached: &mut Attached, plan: Plan) {
        let ebpf = attached.ebpf.as_mut().ok_or_else(|| "no object is loaded".to_owned());
        let result = ebpf.and_then(|ebpf| self.try_put(ebpf, &plan));
        let hook = match &plan.hook {
            Hook::Tracepoint(name) => format!("tp_btf/{name}"),
            Hook::Return(name) => format!("fexit/{name}"),
            Hook::Entry(name) => format!("fentry/{name}"),
            Hook::Perf(category, name) => format!("tracepoint/{category}/{name}"),
            Hook::DeviceCgroup => "cgroup/device".to_owned(),
        };
        if let Err(error) = &result {
            tracing::debug!(hook, error, "probe not attached");
        }
        let (program, missing) = match result {
            Ok(program) => (Some(program), None),
            Err(reason) => (None, Some(reason)),
        };
        let cost = cost_of(&plan.program);
        attached.probes.push(Probe { name: plan.program, hook, missing, cost, program });
    }

    /// Attaches a program and gives its id.
    fn try_put(&self, ebpf: &mut Ebpf, plan: &Plan) -> Result<u32, String> {
        let program = ebpf.program_mut(&plan.program).ok_or("not in the object file")?;
        let explain = |e: ProgramError| chain(&e);
        self.hook_up(program, plan)?;
        program.info().map(|info| info.id()).map_err(explain)
    }

    fn hook_up(&self, program: &mut Program, plan: &Plan) -> Result<(), String> {
        let explain = |e: ProgramError| chain(&e);
        match &plan.hook {
            Hook::Tracepoint(name) => {
                let program: &mut BtfTracePoint = program.try_into().map_err(explain)?;
                program.load(name, &self.btf).map_err(explain)?;
                program.attach().map_err(explain)?;
            }
            Hook::Return(name) => {
                let program: &mut FExit = program.try_into().map_err(explain)?;
                program.load(name, &self.btf).map_err(explain)?;
                program.attach().map_err(explain)?;
            }
            Hook::Entry(name) => {
                let program: &mut FEntry = program.try_into().map_err(explain)?;
                program.load(name, &self.btf).map_err(explain)?;
                program.attach().map_err(explain)?;
            }
            Hook::Perf(category, name) => {
                let program: &mut TracePoint = program.try_into().map_err(explain)?;
                program.load().map_err(explain)?;
                program.attach(category, name).map_err(explain)?;
            }
            Hook::DeviceCgroup => {
                let root = v2_root().map_err(|e| format!("the cgroup v2 root cannot be opened: {e}"))?;
                let program: &mut CgroupDevice = program.try_into().map_err(explain)?;
                program.load().map_err(explain)?;
                // A link is always one of several (the kernel sets BPF_F_ALLOW_MULTI for it).
                program.attach(root, CgroupAttachMode::Single).map_err(explain)?;
            }
        }
        Ok(())
    }
}

/// The program by which a thread becomes a canary.
const ENROLMENT: &str = "enrol_canary";
