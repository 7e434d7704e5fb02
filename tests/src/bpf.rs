//! Small BPF programs of the suite's own, which refuse: a cgroup's device controller and a security module.
//!
//! Written instruction by instruction, because the suite needs two programs of a dozen instructions, on the side of
//! whom Ringfence watches.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use btf_rs::Btf;
use monitor_common::caps::Cap;

/// Commands of bpf(2).
const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_GET_FD_BY_ID: i32 = 13;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const RAW_TRACEPOINT_OPEN: i32 = 17;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`, `BPF_CGROUP_DEVICE`, `BPF_F_ALLOW_MULTI`.
const CGROUP_DEVICE: u32 = 15;
const ATTACH_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
/// `BPF_PROG_TYPE_LSM`, `BPF_LSM_MAC`.
const LSM: u32 = 29;
const LSM_MAC: u32 = 27;
/// `bpf_get_current_cgroup_id`.
const CURRENT_CGROUP_ID: i32 = 80;
/// `EPERM`, as a module answers.
const EPERM: i32 = -1;

/// One instruction (`struct bpf_insn`).
#[derive(Clone, Copy)]
#[repr(C)]
struct Insn {
    code: u8,
    /// Destination in the lower four bits, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn insn(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: dst | src << 4, offset, immediate }
}

/// `dst = imm` (64 bits, two instructions).
const fn load_u64(dst: u8, value: u64) -> [Insn; 2] {
    [insn(0x18, dst, 0, 0, value as i32), insn(0, 0, 0, 0, (value >> 32) as i32)]
}

/// `dst = imm`.
const fn set(dst: u8, value: i32) -> Insn {
    insn(0xb7, dst, 0, 0, value)
}

/// `if dst == imm goto +offset`.
const fn if_equal(dst: u8, value: i32, offset: i16) -> Insn {
    insn(0x15, dst, 0, offset, value)
}

/// `if dst != imm goto +offset`.
const fn unless_equal(dst: u8, value: i32, offset: i16) -> Insn {
    insn(0x55, dst, 0, offset, value)
}

const EXIT: Insn = insn(0x95, 0, 0, 0, 0);

fn bpf(command: i32, attributes: &[u8]) -> io::Result<RawFd> {
    // SAFETY: the kernel reads the attributes; what they point to lives in our callers.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), attributes.len()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret as RawFd) }
}

/// Attributes from values at their offsets.
fn attributes<const N: usize>(members: &[(usize, &[u8])]) -> [u8; N] {
    let mut bytes = [0; N];
    for (offset, value) in members {
        bytes[*offset..*offset + value.len()].copy_from_slice(value);
    }
    bytes
}

/// The first 15 bytes of a loaded program's name (`bpf_prog_info.name`).
///
/// # Errors
/// The kernel's, if there is no such program.
pub fn program_name(id: u32) -> io::Result<String> {
    const NAME: std::ops::Range<usize> = 64..80;
    let program = bpf(PROG_GET_FD_BY_ID, &attributes::<4>(&[(0, &id.to_le_bytes())]))?;
    // SAFETY: a descriptor that is ours since a moment ago.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    let mut info = [0_u8; NAME.end];
    let asked: [u8; 16] = attributes(&[
        (0, &program.as_raw_fd().to_le_bytes()),
        (4, &(info.len() as u32).to_le_bytes()),
        (8, &(info.as_mut_ptr() as u64).to_le_bytes()),
    ]);
    bpf(OBJ_GET_INFO_BY_FD, &asked)?;
    Ok(String::from_utf8_lossy(&info[NAME]).trim_end_matches('\0').to_owned())
}

/// Before 5.11 programs are charged to the limit of locked memory, which is small.
fn lift_memory_limit() -> io::Result<()> {
    let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the kernel reads the structure.
    match unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const all) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn load(kind: u32, attach: u32, target: u32, program: &[Insn]) -> io::Result<OwnedFd> {
    lift_memory_limit()?;
    let mut log = vec![0_u8; 1 << 16];
    let license = c"GPL";
    let attributes: [u8; 120] = attributes(&[
        (0, &kind.to_le_bytes()),
        (4, &(program.len() as u32).to_le_bytes()),
        (8, &(program.as_ptr() as u64).to_le_bytes()),
        (16, &(license.as_ptr() as u64).to_le_bytes()),
        (24, &1_u32.to_le_bytes()),
        (28, &(log.len() as u32).to_le_bytes()),
        (32, &(log.as_mut_ptr() as u64).to_le_bytes()),
        (68, &attach.to_le_bytes()),
        (108, &target.to_le_bytes()),
    ]);
    match bpf(PROG_LOAD, &attributes) {
        // SAFETY: a descriptor that is ours since a moment ago.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        Err(error) => {
            let said = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
            Err(io::Error::new(error.kind(), format!("loading a BPF program: {error}\n{said}")))
        }
    }
}

/// Refuses the watched devices to a cgroup, for as long as the cgroup lives. They may still be made.
///
/// # Errors
/// The kernel's.
pub fn refuse_devices(cgroup: &Path) -> io::Result<()> {
    // struct bpf_cgroup_dev_ctx: access_type (kind below, access above), major, minor.
    let program = [
        insn(0x61, 2, 1, 0, 0),      // r2 = access_type
        insn(0xbf, 3, 2, 0, 0),      // r3 = r2
        insn(0x57, 3, 0, 0, 0xffff), // r3 &= 0xffff
        unless_equal(3, 2, 11),      // no character device: allow
        insn(0x77, 2, 0, 0, 16),     // r2 >>= 16
        insn(0x57, 2, 0, 0, 6),      // r2 &= READ | WRITE
        if_equal(2, 0, 8),           // mknod: allow
        insn(0x61, 4, 1, 4, 0),      // r4 = major
        insn(0x61, 5, 1, 8, 0),      // r5 = minor
        if_equal(4, 202, 7),         // refuse
        unless_equal(4, 1, 4),       // allow
        if_equal(5, 1, 5),
        if_equal(5, 2, 4),
        if_equal(5, 4, 3),
        if_equal(5, 11, 2),
        set(0, 1),
        EXIT,
        set(0, 0),
        EXIT,
    ];
    let program = load(CGROUP_DEVICE, 0, 0, &program)?;
    let directory = File::open(cgroup)?;
    let attributes: [u8; 16] = attributes(&[
        (0, &directory.as_raw_fd().to_le_bytes()),
        (4, &program.as_raw_fd().to_le_bytes()),
        (8, &ATTACH_DEVICE.to_le_bytes()),
        (12, &ALLOW_MULTI.to_le_bytes()),
    ]);
    bpf(PROG_ATTACH, &attributes).map(drop)
}

/// Whether the kernel runs BPF programs as a security module.
pub fn has_lsm() -> bool {
    std::fs::read_to_string("/sys/kernel/security/lsm")
        .is_ok_and(|modules| modules.trim().split(',').any(|name| name == "bpf"))
}

/// The hook of capability checks.
const HOOK: &str = "bpf_lsm_capable";

/// A security module in force; gone when dropped.
#[derive(Debug)]
pub struct Module {
    _link: OwnedFd,
}

/// Puts a security module in force which refuses these capabilities to one cgroup. The kernel's own
/// check of capabilities runs before it, and passes.
///
/// # Errors
/// The kernel's, also if it has no such modules.
pub fn refuse_capabilities(cgroup_id: u64, caps: &[Cap]) -> io::Result<Module> {
    let types = Btf::from_file("/sys/kernel/btf/vmlinux").map_err(io::Error::other)?;
    let ids = types.resolve_ids_by_name(HOOK).map_err(io::Error::other)?;
    let id = ids.first().ok_or_else(|| io::Error::other(format!("the kernel has no {HOOK}")))?;
    // capable(cred, ns, cap, opts): the third argument.
    let mut refusal = vec![insn(0x79, 3, 6, 16, 0), set(4, 1), insn(0x6f, 4, 3, 0, 0)];
    refusal.extend(load_u64(5, caps.iter().fold(0, |mask, cap| mask | cap.mask())));
    refusal.extend([insn(0x5f, 4, 5, 0, 0), if_equal(4, 0, 2), set(0, EPERM), EXIT]);
    let mut program = vec![insn(0xbf, 6, 1, 0, 0), insn(0x85, 0, 0, 0, CURRENT_CGROUP_ID)];
    program.extend(load_u64(2, cgroup_id));
    program.push(insn(0x5d, 0, 2, refusal.len() as i16, 0)); // another cgroup: agree
    program.extend(refusal);
    program.extend([set(0, 0), EXIT]);
    let program = load(LSM, LSM_MAC, *id, &program)?;
    let attributes: [u8; 16] = attributes(&[(8, &program.as_raw_fd().to_le_bytes())]);
    let link = bpf(RAW_TRACEPOINT_OPEN, &attributes)?;
    // SAFETY: a descriptor that is ours since a moment ago. The link keeps the program.
    Ok(Module { _link: unsafe { OwnedFd::from_raw_fd(link) } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_have_the_kernels_layout() {
        assert_eq!(size_of::<Insn>(), 8);
        let [low, high] = load_u64(2, 0x1234_5678_9abc_def0);
        assert_eq!((low.immediate as u32, high.immediate as u32), (0x9abc_def0, 0x1234_5678));
        assert_eq!(insn(0xbf, 6, 1, 0, 0).registers, 0x16);
    }
}
