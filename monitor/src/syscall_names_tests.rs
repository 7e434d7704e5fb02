//! The tables, against what else knows the numbers.

use std::collections::BTreeSet;
use std::fs;

use liblzma::read::XzDecoder;
use monitor_common::call::{Abi, Call, I386_CALLS, X32_SYSCALL_BIT, X86_64_CALLS};

use super::*;

const ABIS: [Abi; 3] = [Abi::X86_64, Abi::I386, Abi::X32];

#[test]
fn the_watched_calls_have_the_names_that_they_have_in_events() {
    for (abi, calls) in [(Abi::X86_64, X86_64_CALLS), (Abi::I386, I386_CALLS), (Abi::X32, X86_64_CALLS)] {
        for (nr, call) in calls {
            // i386 has a second number for each call whose times grew to 64 bits.
            let expected = match (abi, nr) {
                (Abi::I386, 404) => "clock_settime64",
                (Abi::I386, 405) => "clock_adjtime64",
                _ => call.name(),
            };
            assert_eq!(name(abi, u32::from(*nr)), Some(expected), "{abi:?} {nr}");
            assert_eq!(number(abi, expected), Some(u32::from(*nr)), "{abi:?} {expected}");
        }
    }
    let watched: BTreeSet<&str> = Call::ALL.iter().map(|call| call.name()).collect();
    assert!(watched.iter().all(|call| number(Abi::I386, call).is_some()));
}

#[test]
fn numbers_and_names_belong_to_each_other() {
    for abi in ABIS {
        let calls: Vec<_> = all(abi).collect();
        assert!(calls.len() > 350, "{abi:?}: {}", calls.len());
        for (nr, call) in &calls {
            assert_eq!(number(abi, call), Some(*nr), "{abi:?} {call}");
        }
        assert_eq!(number(abi, "rseq_slice_yield"), Some(471));
    }
}

#[test]
fn each_table_has_its_own_numbers() {
    assert_eq!(name(Abi::X86_64, 83), Some("mkdir"));
    assert_eq!(name(Abi::I386, 39), Some("mkdir"));
    assert_eq!(name(Abi::X86_64, 59), Some("execve"));
    assert_eq!(name(Abi::X32, 59), None, "x32 has its own execve");
    assert_eq!(name(Abi::X32, 520), Some("execve"));
    assert_eq!(name(Abi::X86_64, 520), None);
    assert_eq!(name(Abi::I386, 102), Some("socketcall"));
}

#[test]
fn what_is_no_call_has_no_name() {
    for abi in ABIS {
        for nr in [472, 600, NUMBERS, X32_SYSCALL_BIT, u32::MAX] {
            assert_eq!(name(abi, nr), None, "{abi:?} {nr}");
        }
        assert_eq!(number(abi, ""), None);
        assert_eq!(shown(abi, 999), "999");
    }
    assert_eq!(shown(Abi::X86_64, 39), "getpid");
}

/// Where the C library's headers are installed, they are asked: an older one knows fewer calls, never others.
#[test]
fn the_headers_agree() {
    let files = [(Abi::X86_64, "unistd_64.h"), (Abi::I386, "unistd_32.h"), (Abi::X32, "unistd_x32.h")];
    for (abi, file) in files {
        let places = ["/usr/include/x86_64-linux-gnu/asm", "/usr/include/asm"];
        let Some(text) = places.iter().find_map(|dir| fs::read_to_string(format!("{dir}/{file}")).ok())
        else {
            continue;
        };
        let mut seen = 0;
        for line in text.lines() {
            let Some((call, nr)) = line.strip_prefix("#define __NR_").and_then(|rest| rest.split_once(' '))
            else {
                continue;
            };
            let nr = nr.trim_start_matches("(__X32_SYSCALL_BIT + ").trim_end_matches(')');
            let nr: u32 = nr.trim().parse().expect(line);
            assert_eq!(name(abi, nr), Some(call), "{file}: {line}");
            seen += 1;
        }
        assert!(seen > 300, "{file}: only {seen} calls");
    }
}

/// Functions behind calls of other names, of the 32-bit table, or of other machines.
const OTHERWISE: &[&str] = &[
    "fadvise64_64",
    "fstatfs64",
    "gethostname",
    "llseek",
    "mmap_pgoff",
    "newfstat",
    "newlstat",
    "newstat",
    "newuname",
    "old_getrlimit",
    "old_msgctl",
    "old_readdir",
    "old_semctl",
    "old_shmctl",
    "oldumount",
    "olduname",
    "recv",
    "rtas",
    "pciconfig_iobase",
    "pciconfig_read",
    "pciconfig_write",
    "s390_ipc",
    "s390_pci_mmio_read",
    "s390_pci_mmio_write",
    "semtimedop_time32",
    "send",
    "sendfile64",
    "spu_create",
    "spu_run",
    "statfs64",
    "subpage_prot",
    "sync_file_range2",
    "vm86old",
];

/// The newest kernel that we have types of knows no call that has no name here.
#[test]
fn the_newest_kernel_has_no_call_without_a_name() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/btf/vmlinux-7.2-x86_64.btf.xz");
    let mut types = Vec::new();
    std::io::copy(&mut XzDecoder::new(fs::File::open(path).expect(path)), &mut types).expect(path);
    let functions: BTreeSet<&str> = types
        .split(|byte| *byte == 0)
        .filter_map(|text| str::from_utf8(text).ok()?.strip_prefix("__x64_sys_"))
        .collect();
    assert!(functions.contains("rseq_slice_yield") && functions.len() > 350, "{}", functions.len());
    let named = |call: &str| ABIS.iter().any(|abi| number(*abi, call).is_some());
    let nameless: Vec<&&str> = functions
        .iter()
        .filter(|function| {
            let call = function.trim_start_matches("ia32_");
            let call = ["_time32", "32", "16"].iter().find_map(|end| call.strip_suffix(end)).unwrap_or(call);
            !named(call) && !named(function) && !OTHERWISE.contains(&call)
        })
        .collect();
    assert!(nameless.is_empty(), "{nameless:?}");
}
