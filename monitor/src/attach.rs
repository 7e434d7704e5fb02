//! Loads the BPF programs and puts them on their hooks; says what is missing and what that costs.
//!
//! Two modes (see ARCHITECTURE.md): `trampoline` hooks the watched calls themselves, so no other call pays
//! anything; `tracepoint` hooks the end of every call, for machines that refuse trampolines. The programs
//! behind both are the same.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, CgroupAttachMode, CgroupDevice, FExit, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use monitor_common::control::Offsets;

use crate::btf::{BtfError, KernelTypes};
use crate::config::AttachChoice;
use crate::kernel_files;

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
        "the kernel refused the BPF maps: {0}. Ringfence needs CAP_BPF and CAP_PERFMON (or root), and before 5.11 a sufficient memlock limit (ulimit -l)"
    )]
    Load(String),
    /// The trampoline mode was demanded and this machine refuses it.
    #[error("this machine refuses trampolines ({0}): use --attach auto or --attach tracepoint")]
    NoTrampolines(String),
    /// Not one probe on the watched calls could be attached.
    #[error("no probe could be attached: {0}")]
    Nothing(String),
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
}

/// The programs in force.
pub struct Attached {
    /// Keeps programs and links alive: dropping it detaches everything.
    ebpf: Ebpf,
    /// How the watched calls are hooked.
    pub mode: AttachMode,
    /// Every probe of the mode, the missing ones too.
    pub probes: Vec<Probe>,
}

/// The per-CPU ledger: seen, sent, lost.
pub type CounterMap = PerCpuArray<MapData, [u64; 3]>;
/// Lost records by cgroup and slot (the slot's number in the second word).
pub type LostMap = HashMap<MapData, [u64; 2], u64>;

/// How one program is attached.
enum Hook {
    /// `tp_btf`, by the tracepoint's name.
    Tracepoint(&'static str),
    /// `fexit`, by the function's name.
    Return(String),
    /// A cgroup device program at the root of the v2 hierarchy.
    DeviceCgroup,
}

struct Plan {
    program: String,
    hook: Hook,
    cost: &'static str,
}

const LIFE_CYCLE: &[(&str, &str, &str)] = &[
    (
        "process_exec",
        "sched_process_exec",
        "executables of short processes are read from /proc, if they still run",
    ),
    (
        "process_fork",
        "sched_process_fork",
        "ancestors of short processes are unknown; clone's namespaces are claims",
    ),
    ("process_exit", "sched_process_exit", "the process table keeps dead processes until it is full"),
    ("cgroup_mkdir", "cgroup_mkdir", "containers that live shorter than a second may have no id"),
    ("cgroup_rmdir", "cgroup_rmdir", "the container table keeps removed containers until it is full"),
    (
        "cgroup_attach",
        "cgroup_attach_task",
        "a runtime's set-up of a container counts as the container's own doing",
    ),
];

/// Programs of the trampoline mode; the function's name is the program's with `__` for `on_`.
const RETURNS: &[&str] = &[
    "on_x64_sys_capset",
    "on_x64_sys_setns",
    "on_x64_sys_unshare",
    "on_x64_sys_clone",
    "on_x64_sys_clone3",
    "on_x64_sys_settimeofday",
    "on_x64_sys_clock_settime",
    "on_x64_sys_adjtimex",
    "on_x64_sys_clock_adjtime",
    "on_x64_sys_syslog",
    "on_x64_sys_iopl",
    "on_x64_sys_ioperm",
    "on_x64_sys_open",
    "on_x64_sys_creat",
    "on_x64_sys_openat",
    "on_x64_sys_openat2",
    "on_x64_sys_open_by_handle_at",
    "on_ia32_sys_capset",
    "on_ia32_sys_setns",
    "on_ia32_sys_unshare",
    "on_ia32_compat_sys_ia32_clone",
    "on_ia32_sys_clone3",
    "on_ia32_compat_sys_settimeofday",
    "on_ia32_sys_stime32",
    "on_ia32_sys_clock_settime32",
    "on_ia32_sys_clock_settime",
    "on_ia32_sys_adjtimex_time32",
    "on_ia32_sys_clock_adjtime32",
    "on_ia32_sys_clock_adjtime",
    "on_ia32_sys_syslog",
    "on_ia32_sys_iopl",
    "on_ia32_sys_ioperm",
    "on_ia32_compat_sys_open",
    "on_ia32_sys_creat",
    "on_ia32_compat_sys_openat",
    "on_ia32_sys_openat2",
    "on_ia32_compat_sys_open_by_handle_at",
];

/// Names of the functions that the trampoline mode hooks, seccomp and capability checks included.
pub fn hooked_functions() -> impl Iterator<Item = String> {
    RETURNS
        .iter()
        .map(|program| function_of(program))
        .chain(["__seccomp_filter", "cap_capable", "security_capset"].map(str::to_owned))
}

/// Names of the tracepoints that every mode hooks.
pub fn hooked_tracepoints() -> impl Iterator<Item = &'static str> {
    LIFE_CYCLE.iter().map(|(_, tracepoint, _)| *tracepoint).chain(["sys_exit"])
}

fn function_of(program: &str) -> String {
    program.replacen("on_", "__", 1)
}

/// How capability checks are seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CapHook {
    Tracepoint,
    Return,
    None,
}

/// Loads and attaches the programs, with a ring buffer of `ring_bytes` (a power of two, whole pages).
///
/// What can be missing is reported in [`Attached::probes`] and the rest still runs, unless `strict`.
///
/// # Errors
/// [`AttachError`], if nothing useful would run, or on any gap with `strict`.
pub fn attach(choice: AttachChoice, strict: bool, ring_bytes: u32) -> Result<Attached, AttachError> {
    let types = KernelTypes::from_file(Path::new(KernelTypes::PATH))?;
    let btf = Btf::from_sys_fs().map_err(|e| AttachError::Load(e.to_string()))?;
    let loader = Loader { offsets: types.offsets()?, types, btf, ring_bytes };
    let caps = if loader.types.has_tracepoint("cap_capable") { CapHook::Tracepoint } else { CapHook::Return };
    let attached = match choice {
        AttachChoice::Trampoline => loader.trampoline(caps)?,
        AttachChoice::Tracepoint => loader.tracepoint(caps)?,
        AttachChoice::Auto => match loader.trampoline(caps) {
            Err(AttachError::NoTrampolines(reason)) => {
                tracing::info!(reason, "trampolines are refused here: using tracepoints");
                loader.tracepoint(caps)?
            }
            other => other?,
        },
    };
    let missing: Vec<String> = attached
        .probes
        .iter()
        .filter_map(|probe| probe.missing.as_ref().map(|why| format!("{} ({why})", probe.hook)))
        .collect();
    if strict && !missing.is_empty() {
        return Err(AttachError::Strict(missing));
    }
    Ok(attached)
}

struct Loader {
    types: KernelTypes,
    btf: Btf,
    offsets: [u32; Offsets::COUNT],
    ring_bytes: u32,
}

impl Loader {
    fn trampoline(&self, caps: CapHook) -> Result<Attached, AttachError> {
        let mut attached = self.load(AttachMode::Trampoline, caps)?;
        // The first of its kind tells whether the machine allows the kind.
        let args = self.types.function_args("__seccomp_filter").unwrap_or(2);
        let seccomp = Plan {
            program: format!("seccomp_filter_{args}"),
            hook: Hook::Return("__seccomp_filter".to_owned()),
            cost: "attempts that a seccomp filter refuses are not seen",
        };
        self.put(&mut attached, seccomp);
        if let Some(Probe { missing: Some(reason), .. }) = attached.probes.last() {
            return Err(AttachError::NoTrampolines(reason.clone()));
        }
        self.put_common(&mut attached, caps);
        for program in RETURNS {
            let hook = Hook::Return(function_of(program));
            self.put(
                &mut attached,
                Plan { program: (*program).to_owned(), hook, cost: "this call is not seen in this ABI" },
            );
        }
        Ok(attached)
    }

    fn tracepoint(&self, caps: CapHook) -> Result<Attached, AttachError> {
        let mut attached = self.load(AttachMode::Tracepoint, caps)?;
        self.put_common(&mut attached, caps);
        let unseen = |probe: &Probe| probe.name.starts_with("cap_capable") && probe.missing.is_some();
        if caps != CapHook::None && attached.probes.iter().any(unseen) {
            // The programs must know that nobody sees capability checks: load them again, told so.
            drop(attached);
            return self.tracepoint(CapHook::None);
        }
        let exit = Plan {
            program: "sys_exit".to_owned(),
            hook: Hook::Tracepoint("sys_exit"),
            cost: "no watched call is seen",
        };
        self.put(&mut attached, exit);
        match attached.probes.last() {
            Some(Probe { missing: Some(reason), .. }) => Err(AttachError::Nothing(reason.clone())),
            _ => Ok(attached),
        }
    }

    /// Loads the object with the settings that fit kernel and mode; attaches nothing yet.
    fn load(&self, mode: AttachMode, caps: CapHook) -> Result<Attached, AttachError> {
        if OBJECT.0.is_empty() {
            return Err(AttachError::NoObject);
        }
        let has_pt_regs = u64::from(self.types.has_function("bpf_task_pt_regs"));
        let trampoline = u64::from(mode == AttachMode::Trampoline);
        let caps_hooked = u64::from(caps != CapHook::None);
        let inode = |path: &str| std::fs::metadata(path).map_or(0, |meta| meta.ino());
        // The layout of monitor_common::control::Settings: three u32 and a pad, then two u64.
        let settings: [u64; 4] = [
            has_pt_regs | trampoline << 32,
            caps_hooked,
            inode(kernel_files::PROC_KMSG),
            inode(kernel_files::PROC_KCORE),
        ];
        let ebpf = EbpfLoader::new()
            .btf(Some(&self.btf))
            .override_global("OFFSETS", &self.offsets[..], true)
            .override_global("SETTINGS", &settings[..], true)
            .map_max_entries("EVENTS", self.ring_bytes)
            .load(&OBJECT.0)
            .map_err(|e| AttachError::Load(chain(&e)))?;
        Ok(Attached { ebpf, mode, probes: Vec::new() })
    }

    /// What both modes have.
    fn put_common(&self, attached: &mut Attached, caps: CapHook) {
        for (program, tracepoint, cost) in LIFE_CYCLE {
            self.put(
                attached,
                Plan { program: (*program).to_owned(), hook: Hook::Tracepoint(tracepoint), cost },
            );
        }
        let cost = "who refused is not told apart: seccomp, capability and others are reported as `other`";
        match caps {
            CapHook::Tracepoint => self.put(
                attached,
                Plan { program: "cap_capable_tp".to_owned(), hook: Hook::Tracepoint("cap_capable"), cost },
            ),
            CapHook::Return => {
                for function in ["cap_capable", "security_capset"] {
                    let hook = Hook::Return(function.to_owned());
                    self.put(attached, Plan { program: function.to_owned(), hook, cost });
                }
            }
            CapHook::None => attached.probes.push(Probe {
                name: "cap_capable".to_owned(),
                hook: "fexit/cap_capable".to_owned(),
                missing: Some(
                    "refused by this machine, and the kernel has no tracepoint (before 6.14)".to_owned(),
                ),
                cost,
            }),
        }
        let cost = "refused opens of devices are told by the path that the caller claims";
        self.put(attached, Plan { program: "device_asked".to_owned(), hook: Hook::DeviceCgroup, cost });
    }

    fn put(&self, attached: &mut Attached, plan: Plan) {
        let result = self.try_put(&mut attached.ebpf, &plan);
        let hook = match &plan.hook {
            Hook::Tracepoint(name) => format!("tp_btf/{name}"),
            Hook::Return(name) => format!("fexit/{name}"),
            Hook::DeviceCgroup => "cgroup/device".to_owned(),
        };
        if let Err(error) = &result {
            tracing::debug!(hook, error, "probe not attached");
        }
        attached.probes.push(Probe { name: plan.program, hook, missing: result.err(), cost: plan.cost });
    }

    fn try_put(&self, ebpf: &mut Ebpf, plan: &Plan) -> Result<(), String> {
        let program = ebpf.program_mut(&plan.program).ok_or("not in the object file")?;
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
            Hook::DeviceCgroup => {
                let root = kernel_files::cgroup2_root().ok_or("no cgroup v2 hierarchy is mounted")?;
                let root = File::open(&root).map_err(|e| format!("{}: {e}", root.display()))?;
                let program: &mut CgroupDevice = program.try_into().map_err(explain)?;
                program.load().map_err(explain)?;
                // A link is always one of several (the kernel sets BPF_F_ALLOW_MULTI for it).
                program.attach(root, CgroupAttachMode::Single).map_err(explain)?;
            }
        }
        Ok(())
    }
}

/// Keeps the beginning of a line and its end, where the verifier's log says what it did not like.
fn shorten(line: &str) -> String {
    const HEAD: usize = 100;
    const TAIL: usize = 300;
    if line.len() <= HEAD + TAIL {
        return line.to_owned();
    }
    let head = line.floor_char_boundary(HEAD);
    let tail = line.ceil_char_boundary(line.len() - TAIL);
    format!("{} … {}", line[..head].trim_end(), line[tail..].trim())
}

/// An error with its causes, in one line; the verifier's log, which has many, is shortened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    if tracing::enabled!(tracing::Level::TRACE) {
        return text;
    }
    shorten(&text.replace('\n', " "))
}

impl Attached {
    /// Takes the ring buffer; the next call gives `None`.
    pub fn take_ring(&mut self) -> Option<RingBuf<MapData>> {
        RingBuf::try_from(self.ebpf.take_map("EVENTS")?).ok()
    }

    /// Takes the ledger.
    pub fn take_counters(&mut self) -> Option<CounterMap> {
        PerCpuArray::try_from(self.ebpf.take_map("COUNTERS")?).ok()
    }

    /// Takes the table that says whose records were lost.
    pub fn take_lost(&mut self) -> Option<LostMap> {
        HashMap::try_from(self.ebpf.take_map("LOST")?).ok()
    }

    /// Takes every program off its hook; what is in the ring buffer stays there.
    pub fn detach(self) {}
}
