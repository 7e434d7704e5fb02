//! Offsets and hooks on the kernels that Ringfence is made for, from their BTF: no boot is needed to see that a
//! structure member, a function or a tracepoint was renamed.
//!
//! The files stand in `tests/fixtures/btf/`, one per kernel, as `/sys/kernel/btf/vmlinux` shows them, packed.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use liblzma::read::XzDecoder;
use monitor::attach::{hooked_functions, hooked_tracepoints, hooked_wrappers};
use monitor::btf::KernelTypes;
use monitor::hierarchy::CONTROLLERS;
use monitor_common::control::{MISSING, Need, Offsets};

/// A kernel, and what is particular to it.
struct Kernel {
    version: &'static str,
    /// The tracepoint on capability checks came with 6.14; before, a function is hooked.
    has_cap_capable_tracepoint: bool,
    /// `__seccomp_filter` lost its second argument between 6.12 and 6.18; each form has a program of its own.
    seccomp_arguments: usize,
    /// The helper that finds a task's registers came with 5.15.
    has_task_pt_regs: bool,
    /// Where one wrapper knows its argument's type by name only, none is read directly.
    wrappers_typed: bool,
}

const KERNELS: &[Kernel] = &[
    Kernel {
        version: "5.10",
        has_cap_capable_tracepoint: false,
        seccomp_arguments: 3,
        has_task_pt_regs: false,
        wrappers_typed: false,
    },
    Kernel {
        version: "6.1",
        has_cap_capable_tracepoint: false,
        seccomp_arguments: 3,
        has_task_pt_regs: true,
        wrappers_typed: true,
    },
    Kernel {
        version: "6.12",
        has_cap_capable_tracepoint: false,
        seccomp_arguments: 3,
        has_task_pt_regs: true,
        wrappers_typed: true,
    },
    Kernel {
        version: "6.18",
        has_cap_capable_tracepoint: true,
        seccomp_arguments: 2,
        has_task_pt_regs: true,
        wrappers_typed: true,
    },
    Kernel {
        version: "7.2",
        has_cap_capable_tracepoint: true,
        seccomp_arguments: 2,
        has_task_pt_regs: true,
        wrappers_typed: true,
    },
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/btf")
}

/// Unpacks and reads a kernel's BTF.
fn types(version: &str) -> KernelTypes {
    let packed = fixtures().join(format!("vmlinux-{version}-x86_64.btf.xz"));
    let file = File::open(&packed).unwrap_or_else(|error| panic!("{}: {error}", packed.display()));
    let mut unpacked = tempfile::NamedTempFile::new().expect("a temporary file");
    io::copy(&mut XzDecoder::new(BufReader::new(file)), unpacked.as_file_mut())
        .unwrap_or_else(|error| panic!("{}: {error}", packed.display()));
    KernelTypes::from_file(unpacked.path()).unwrap_or_else(|error| panic!("{version}: {error}"))
}

/// Everything that is wrong with one kernel, so that one run shows all.
fn faults(kernel: &Kernel) -> Vec<String> {
    let types = types(kernel.version);
    let mut faults = Vec::new();
    match types.offsets() {
        Err(error) => faults.push(error.to_string()),
        Ok(offsets) => {
            for (offset, spec) in offsets.iter().zip(Offsets::SPEC) {
                // Distribution kernels have seccomp and audit, so here the optional members are there too.
                if *offset == MISSING {
                    faults.push(format!("{} has no {}.{}", spec.name, spec.ty, spec.path));
                }
            }
        }
    }
    for function in hooked_functions().filter(|function| !types.has_function(function)) {
        faults.push(format!("no function {function}"));
    }
    for tracepoint in hooked_tracepoints().filter(|tracepoint| !types.has_tracepoint(tracepoint)) {
        faults.push(format!("no tracepoint {tracepoint}"));
    }
    for controller in &CONTROLLERS {
        if types.enum_value("cgroup_subsys_id", controller.enumerator).is_none() {
            faults.push(format!("no controller {}", controller.enumerator));
        }
    }
    let mut expect = |what: &str, found: String, expected: String| {
        if found != expected {
            faults.push(format!("{what}: found {found}, expected {expected}"));
        }
    };
    expect(
        "tracepoint cap_capable",
        types.has_tracepoint("cap_capable").to_string(),
        kernel.has_cap_capable_tracepoint.to_string(),
    );
    expect(
        "arguments of __seccomp_filter",
        format!("{:?}", types.function_args("__seccomp_filter")),
        format!("{:?}", Some(kernel.seccomp_arguments)),
    );
    expect(
        "helper bpf_task_pt_regs",
        types.has_function("bpf_task_pt_regs").to_string(),
        kernel.has_task_pt_regs.to_string(),
    );
    let typed = hooked_wrappers().all(|wrapper| types.first_argument_is_complete(&wrapper));
    expect("typed arguments of the wrappers", typed.to_string(), kernel.wrappers_typed.to_string());
    // Which of a process's ids is that of its session: a constant of the programs.
    expect("PIDTYPE_SID", format!("{:?}", types.enum_value("pid_type", "PIDTYPE_SID")), "Some(3)".to_owned());
    // What the programs take from fexit's arguments by position.
    expect(
        "arguments of cap_capable",
        format!("{:?}", types.function_args("cap_capable")),
        "Some(4)".to_owned(),
    );
    expect(
        "arguments of security_capset",
        format!("{:?}", types.function_args("security_capset")),
        "Some(5)".to_owned(),
    );
    expect(
        "arguments of commit_creds",
        format!("{:?}", types.function_args("commit_creds")),
        "Some(1)".to_owned(),
    );
    expect(
        "arguments of switch_task_namespaces",
        format!("{:?}", types.function_args("switch_task_namespaces")),
        "Some(2)".to_owned(),
    );
    faults
}

#[test]
fn each_kernel_has_what_the_programs_need() {
    let faults: Vec<String> = KERNELS
        .iter()
        .flat_map(|kernel| faults(kernel).into_iter().map(|fault| format!("{}: {fault}", kernel.version)))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn each_fixture_is_tested() {
    let mut files: Vec<String> = fs::read_dir(fixtures())
        .expect("the fixtures")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".xz"))
        .collect();
    let mut named: Vec<String> =
        KERNELS.iter().map(|kernel| format!("vmlinux-{}-x86_64.btf.xz", kernel.version)).collect();
    files.sort();
    named.sort();
    assert_eq!(files, named);
}

#[test]
fn offsets_differ_where_the_kernels_do() {
    // `task_struct` is laid out anew in each of these kernels: a reader that gave the same answers would not be
    // reading the file.
    let position = Offsets::SPEC.iter().position(|spec| spec.name == "task_cred").expect("a member");
    let mut offsets: Vec<u32> =
        KERNELS.iter().map(|kernel| types(kernel.version).offsets().expect("offsets")[position]).collect();
    offsets.sort_unstable();
    offsets.dedup();
    assert!(offsets.len() > 1, "{offsets:?}");
}

#[test]
fn controllers_have_places_of_their_own() {
    // The order is that of include/linux/cgroup_subsys.h, where `rdma`, `misc` and `dmem` were added at the end.
    let types = types("6.1");
    let place = |name| types.enum_value("cgroup_subsys_id", name);
    assert_eq!((place("cpuset_cgrp_id"), place("cpu_cgrp_id")), (Some(0), Some(1)));
    let mut places: Vec<_> =
        CONTROLLERS.iter().filter_map(|controller| place(controller.enumerator)).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), CONTROLLERS.len());
    assert_eq!(place("no_such_cgrp_id"), None);
    assert_eq!(types.enum_value("no_such_enum", "cpu_cgrp_id"), None);
}

#[test]
fn members_are_found_in_anonymous_and_embedded_structures() {
    let types = types("6.1");
    // Fixed by the user ABI, so the numbers are known without a look at the file.
    assert_eq!(types.member_offset("pt_regs", "orig_ax"), Some(120));
    assert_eq!(types.member_offset("list_head", "prev"), Some(8));
    assert_eq!(types.member_offset("list_head", ""), Some(16), "a size");
    // `d_name` embeds a `qstr`, whose length stands in an anonymous union.
    assert_eq!(
        types.member_offset("dentry", "d_name.len"),
        types.member_offset("dentry", "d_name").map(|name| name + 4)
    );
    for (ty, path) in
        [("task_struct", "no_such_member"), ("no_such_struct", "x"), ("list_head", "prev.next.x")]
    {
        assert_eq!(types.member_offset(ty, path), None, "{ty}.{path}");
    }
}

#[test]
fn overlayfs_keeps_its_upper_dentry_behind_the_inode() {
    // The programs rely on it. Where overlayfs is a module, its structures stand in a file of the module's own.
    let with_overlayfs: Vec<&str> = KERNELS
        .iter()
        .filter(|kernel| {
            let types = types(kernel.version);
            let member = |name| types.member_offset("ovl_inode", name);
            let Some((upper, inode)) = member("__upperdentry").zip(member("vfs_inode")) else { return false };
            assert_eq!(Some(upper - inode), types.member_offset("inode", ""), "{}", kernel.version);
            true
        })
        .map(|kernel| kernel.version)
        .collect();
    assert_eq!(with_overlayfs, ["6.18"]);
}

#[test]
fn what_is_not_btf_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    for content in [&b""[..], b"\x9f\xeb", b"not BTF at all, but long enough to be taken for a header"] {
        fs::write(file.path(), content).expect("written");
        let error = KernelTypes::from_file(file.path()).map(|_| ()).expect_err("no BTF").to_string();
        assert!(error.contains("CONFIG_DEBUG_INFO_BTF"), "{error}");
    }
}

#[test]
fn a_required_member_has_no_stand_in() {
    // The programs read these without asking; a kernel without one must stop the start.
    let optional: Vec<&str> =
        Offsets::SPEC.iter().filter(|spec| spec.need == Need::Optional).map(|spec| spec.name).collect();
    let terminals = ["signal_tty", "tty_driver", "tty_index", "tty_driver_major", "tty_driver_minor"];
    assert_eq!(optional, [&terminals[..], &["task_seccomp_mode", "task_loginuid"]].concat());
}
