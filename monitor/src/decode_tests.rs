//! The decoder against good records and a table of broken ones.

use core::mem::offset_of;

use monitor_common::capability::{CapSets, Door, NO_CALL, cap_flag};
use monitor_common::wire::{
    AttachRecord, CallRecord, CapabilityRecord, CgroupRecord, ExecRecord, ExitRecord, ForkRecord, GainRecord,
    NsproxyRecord, OpenRecord, exec_flag, gain_flag,
};

use super::*;

/// A record of a kind with everything behind the header filled with `fill`.
fn record(kind: u16, size: usize, fill: u8) -> Vec<u8> {
    let mut bytes = vec![fill; size];
    bytes[0..2].copy_from_slice(&WIRE_VERSION.to_ne_bytes());
    bytes[2..4].copy_from_slice(&kind.to_ne_bytes());
    bytes[4..8].copy_from_slice(&(size as u32).to_ne_bytes());
    bytes[8..16].copy_from_slice(&77u64.to_ne_bytes());
    bytes
}

const CALL_AT: usize = core::mem::offset_of!(CallRecord, call);

fn call_record(size: usize) -> Vec<u8> {
    let mut bytes = record(kind::CALL, size, 0);
    bytes[CALL_AT..CALL_AT + 2].copy_from_slice(&(Call::Setns as u16).to_ne_bytes());
    bytes
}

#[test]
fn a_call_is_decoded() {
    let mut bytes = call_record(size_of::<CallRecord>());
    let ret = core::mem::offset_of!(CallRecord, ret);
    bytes[ret..ret + 8].copy_from_slice(&(-9i64).to_ne_bytes());
    let tgid =
        core::mem::offset_of!(CallRecord, task) + core::mem::offset_of!(monitor_common::wire::Task, tgid);
    bytes[tgid..tgid + 4].copy_from_slice(&4711u32.to_ne_bytes());
    let session =
        core::mem::offset_of!(CallRecord, task) + core::mem::offset_of!(monitor_common::wire::Task, session);
    bytes[session..session + 4].copy_from_slice(&4700u32.to_ne_bytes());
    let ns = core::mem::offset_of!(CallRecord, ns_after);
    bytes[ns + 4..ns + 8].copy_from_slice(&99u32.to_ne_bytes());
    let Ok(RawEvent::Call(call)) = decode(&bytes) else { panic!("not a call") };
    assert_eq!((call.call, call.abi, call.ret, call.boot), (Call::Setns, Abi::X86_64, -9, BootNs(77)));
    assert_eq!((call.task.process.tgid, call.task.session), (Tgid(4711), 4700));
    assert_eq!(call.ns_after[1], NsInum(99));
    assert!(call.path.is_empty());
}

#[test]
fn an_open_carries_its_path() {
    let mut bytes = call_record(size_of::<OpenRecord>());
    let (len, path) = (core::mem::offset_of!(OpenRecord, path_len), core::mem::offset_of!(OpenRecord, path));
    bytes[len..len + 4].copy_from_slice(&8u32.to_ne_bytes());
    bytes[path..path + 8].copy_from_slice(b"/dev/mem");
    let Ok(RawEvent::Call(call)) = decode(&bytes) else { panic!("not a call") };
    assert_eq!(call.path, b"/dev/mem");
}

const TEXT_AT: usize = core::mem::offset_of!(ExecRecord, text);

/// An exec with these parts, and with a command line of so many bytes in all.
fn exec_record(exe: &[u8], cwd: &[u8], args: &[u8], args_total: u32, flags: u32) -> Vec<u8> {
    let mut bytes = record(kind::EXEC, TEXT_AT, 0);
    let lens = [exe.len() as u32, cwd.len() as u32, args.len() as u32];
    let at = core::mem::offset_of!(ExecRecord, flags);
    for (i, word) in [flags, 136 << 20 | 3].into_iter().chain(lens).chain([args_total]).enumerate() {
        bytes[at + 4 * i..at + 4 * i + 4].copy_from_slice(&word.to_ne_bytes());
    }
    let ns = core::mem::offset_of!(ExecRecord, ns);
    for (kind, inum) in (301u32..309).enumerate() {
        bytes[ns + 4 * kind..ns + 4 * kind + 4].copy_from_slice(&inum.to_ne_bytes());
    }
    for part in [exe, cwd, args] {
        bytes.extend_from_slice(part);
    }
    let len = bytes.len() as u32;
    bytes[4..8].copy_from_slice(&len.to_ne_bytes());
    bytes
}

#[test]
fn an_exec_is_decoded() {
    let bytes = exec_record(b"date\0bin\0usr\0", b"tmp\0", b"date\0-u\0", 8, exec_flag::UPPER_LAYER);
    let Ok(RawEvent::Exec(exec)) = decode(&bytes) else { panic!("not an exec") };
    assert_eq!((exec.path(), exec.cwd()), (b"/usr/bin/date".to_vec(), b"/tmp".to_vec()));
    assert_eq!(exec.ns, core::array::from_fn(|kind| NsInum(301 + kind as u32)));
    assert_eq!((exec.args, exec.args_total, exec.tty), (&b"date\0-u\0"[..], 8, 136 << 20 | 3));
    assert_eq!((exec.upper_layer, exec.memfd), (true, false));
    let mut bytes = bytes;
    put(&mut bytes, offset_of!(ExecRecord, caps) + 24, &7_u64.to_ne_bytes());
    let Ok(RawEvent::Exec(exec)) = decode(&bytes) else { panic!("not an exec") };
    assert_eq!(exec.caps, CapSets { bounding: 7, ..CapSets::default() });
}

#[test]
fn paths_that_were_cut_say_so_and_the_root_is_one() {
    let flags = exec_flag::EXE_TRUNCATED | exec_flag::MEMFD;
    let bytes = exec_record(b"a\0b\0/\0", b"", b"", 0, flags);
    let Ok(RawEvent::Exec(exec)) = decode(&bytes) else { panic!("not an exec") };
    assert_eq!((exec.path(), exec.cwd()), (b".../b/a".to_vec(), b"/".to_vec()));
    assert!(exec.memfd && !exec.upper_layer);
    let bytes = exec_record(b"a\0", b"x\0", b"", 0, exec_flag::CWD_TRUNCATED);
    let Ok(RawEvent::Exec(exec)) = decode(&bytes) else { panic!("not an exec") };
    assert_eq!((exec.path(), exec.cwd()), (b"/a".to_vec(), b".../x".to_vec()));
}

#[test]
fn a_change_of_namespaces_is_decoded() {
    let mut bytes = record(kind::NSPROXY, size_of::<NsproxyRecord>(), 0);
    let ns = core::mem::offset_of!(NsproxyRecord, ns_after);
    bytes[ns + 12..ns + 16].copy_from_slice(&99u32.to_ne_bytes());
    let Ok(RawEvent::Nsproxy { boot, task, ns }) = decode(&bytes) else { panic!("no change of namespaces") };
    assert_eq!((boot, task, ns[3]), (BootNs(77), RawTask::default(), NsInum(99)));
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn check_record() -> Vec<u8> {
    let mut bytes = record(kind::CAPABILITY, size_of::<CapabilityRecord>(), 0);
    put(&mut bytes, offset_of!(CapabilityRecord, effective), &3_u64.to_ne_bytes());
    put(&mut bytes, offset_of!(CapabilityRecord, cap), &25_u16.to_ne_bytes());
    put(&mut bytes, offset_of!(CapabilityRecord, flags), &cap_flag::DENIED.to_ne_bytes());
    put(&mut bytes, offset_of!(CapabilityRecord, nr), &227_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(CapabilityRecord, target_ns), &88_u32.to_ne_bytes());
    bytes
}

#[test]
fn a_first_check_is_decoded() {
    let mut bytes = check_record();
    let Ok(RawEvent::Capability { boot, check, .. }) = decode(&bytes) else { panic!("no check") };
    assert_eq!((boot, check.cap, check.effective, check.target_ns), (BootNs(77), 25, 3, NsInum(88)));
    assert_eq!((check.call, check.audited()), (Some((Abi::X86_64, 227)), Some(true)));
    assert!(check.has(cap_flag::DENIED) && !check.has(cap_flag::VISITOR));
    put(&mut bytes, offset_of!(CapabilityRecord, nr), &NO_CALL.to_ne_bytes());
    for (flags, audited) in [(cap_flag::SILENT, Some(false)), (cap_flag::MAYBE_SILENT, None)] {
        put(&mut bytes, offset_of!(CapabilityRecord, flags), &flags.to_ne_bytes());
        let Ok(RawEvent::Capability { check, .. }) = decode(&bytes) else { panic!("no check") };
        assert_eq!((check.call, check.audited()), (None, audited));
    }
}

fn gain_record(kind: u16, door: u16) -> Vec<u8> {
    let mut bytes = record(kind, size_of::<GainRecord>(), 0);
    let user_ns = offset_of!(GainRecord, ns) + 8;
    put(&mut bytes, user_ns, &90_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(GainRecord, user_ns_before), &90_u32.to_ne_bytes());
    for (at, first) in [(offset_of!(GainRecord, before), 1_u64), (offset_of!(GainRecord, after), 6)] {
        for i in 0..5 {
            put(&mut bytes, at + 8 * i as usize, &(first + i).to_ne_bytes());
        }
    }
    put(&mut bytes, offset_of!(GainRecord, door), &door.to_ne_bytes());
    bytes
}

#[test]
fn a_gain_is_decoded() {
    let mut bytes = gain_record(kind::GAINED, Door::Setuid as u16);
    let Ok(RawEvent::Gained { gain, .. }) = decode(&bytes) else { panic!("no gain") };
    let sets = CapSets { effective: 1, permitted: 2, inheritable: 3, bounding: 4, ambient: 5 };
    assert_eq!((gain.before, gain.after.to_array()), (sets, [6, 7, 8, 9, 10]));
    assert_eq!((gain.door, gain.unseen, gain.moved), (Some(Door::Setuid), false, false));
    put(&mut bytes, offset_of!(GainRecord, user_ns_before), &91_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(GainRecord, flags), &gain_flag::CHILD_NS.to_ne_bytes());
    let Ok(RawEvent::Gained { gain, .. }) = decode(&bytes) else { panic!("no gain") };
    assert!(gain.moved && gain.in_child_ns() && !gain.has(gain_flag::VISITOR));
    let unseen = gain_record(kind::GAINED_UNSEEN, 0);
    let Ok(RawEvent::Gained { gain, .. }) = decode(&unseen) else { panic!("no gain") };
    assert_eq!((gain.door, gain.unseen), (None, true));
}

#[test]
fn a_canarys_record_is_one_like_any_other() {
    let sizes = [
        (kind::EXEC, TEXT_AT),
        (kind::FORK, size_of::<ForkRecord>()),
        (kind::EXIT, size_of::<ExitRecord>()),
        (kind::CGROUP_MKDIR, size_of::<CgroupRecord>()),
        (kind::CGROUP_RMDIR, size_of::<CgroupRecord>()),
        (kind::CGROUP_ATTACH, size_of::<AttachRecord>()),
        (kind::NSPROXY, size_of::<NsproxyRecord>()),
        (kind::CAPABILITY, size_of::<CapabilityRecord>()),
        (kind::GAINED, size_of::<GainRecord>()),
        (kind::GAINED_UNSEEN, size_of::<GainRecord>()),
    ];
    let others = sizes.map(|(kind, size)| record(kind, size, 0));
    for plain in [call_record(size_of::<CallRecord>())].into_iter().chain(others) {
        let mut canary = plain.clone();
        canary[3] |= (kind::CANARY_BIT >> 8) as u8;
        assert_eq!(canary_boot(&plain), None);
        assert_eq!(canary_boot(&canary).map(|boot| boot.0.to_ne_bytes()), plain[8..16].try_into().ok());
        assert_eq!(decode(&canary).unwrap(), decode(&plain).unwrap());
    }
    assert_eq!(canary_boot(&[0xff; 15]), None);
}

#[test]
fn broken_bytes_are_refused_with_their_reason() {
    let call = call_record(size_of::<CallRecord>());
    let open = call_record(size_of::<OpenRecord>());
    let exec = exec_record(b"sh\0", b"tmp\0", b"sh\0", 3, 0);
    let with = |bytes: &[u8], at: usize, value: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let resized = |bytes: &[u8], size: usize| {
        let mut bytes = bytes.to_vec();
        bytes.resize(size, 0);
        bytes[4..8].copy_from_slice(&(size as u32).to_ne_bytes());
        bytes
    };
    let path_len = core::mem::offset_of!(OpenRecord, path_len);
    let [exe_len, cwd_len, args_len] = [
        core::mem::offset_of!(ExecRecord, exe_len),
        core::mem::offset_of!(ExecRecord, cwd_len),
        core::mem::offset_of!(ExecRecord, args_len),
    ];
    let table: &[(&str, Vec<u8>, DecodeError)] = &[
        ("nothing", vec![], DecodeError::Short),
        ("half a header", call[..9].to_vec(), DecodeError::Short),
        ("cut off", call[..200].to_vec(), DecodeError::Short),
        ("shorter than its kind", resized(&call, 200), DecodeError::Short),
        ("longer than its length says", [&call[..], &[0; 8]].concat(), DecodeError::Long),
        ("longer than its kind", resized(&open, size_of::<OpenRecord>() + 8), DecodeError::Long),
        ("a part of a path", resized(&call, size_of::<CallRecord>() + 4), DecodeError::Short),
        ("another version", with(&call, 0, &(WIRE_VERSION + 1).to_ne_bytes()), DecodeError::Version),
        ("kind 0", with(&call, 2, &0u16.to_ne_bytes()), DecodeError::Kind),
        ("kind 65535", with(&call, 2, &u16::MAX.to_ne_bytes()), DecodeError::Kind),
        ("call 0", with(&call, CALL_AT, &0u16.to_ne_bytes()), DecodeError::Call),
        ("call 65535", with(&call, CALL_AT, &u16::MAX.to_ne_bytes()), DecodeError::Call),
        ("abi 3", with(&call, CALL_AT + 2, &3u16.to_ne_bytes()), DecodeError::Abi),
        ("path beyond its room", with(&open, path_len, &257u32.to_ne_bytes()), DecodeError::Length),
        ("path of 4 GiB", with(&open, path_len, &u32::MAX.to_ne_bytes()), DecodeError::Length),
        ("executable beyond the record", with(&exec, exe_len, &11u32.to_ne_bytes()), DecodeError::Length),
        ("executable of 4 GiB", with(&exec, exe_len, &u32::MAX.to_ne_bytes()), DecodeError::Length),
        ("directory beyond the record", with(&exec, cwd_len, &8u32.to_ne_bytes()), DecodeError::Length),
        ("arguments beyond the record", with(&exec, args_len, &4u32.to_ne_bytes()), DecodeError::Length),
        ("bytes that belong to no part", with(&exec, args_len, &2u32.to_ne_bytes()), DecodeError::Long),
        (
            "a check in no ABI",
            with(&check_record(), offset_of!(CapabilityRecord, abi), &[3]),
            DecodeError::Abi,
        ),
        ("a door that is none", gain_record(kind::GAINED, 11), DecodeError::Door),
        ("an exec without its lengths", resized(&exec, TEXT_AT - 4), DecodeError::Short),
    ];
    for (what, bytes, reason) in table {
        assert_eq!(decode(bytes).err(), Some(*reason), "{what}");
    }
}

#[test]
fn no_cut_of_a_good_record_is_taken_for_one() {
    let exec = exec_record(b"sh\0", b"tmp\0", b"sh\0", 3, 0);
    for good in [
        call_record(size_of::<CallRecord>()),
        record(kind::FORK, 104, 7),
        record(kind::EXIT, 32, 7),
        exec,
        check_record(),
        gain_record(kind::GAINED, 1),
    ] {
        assert!(decode(&good).is_ok());
        for len in 0..good.len() {
            assert!(decode(&good[..len]).is_err(), "{len} bytes");
        }
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..1400), kind in 0u16..14) {
        let _ = decode(&bytes);
        let mut framed = record(kind, bytes.len() + 16, 0);
        framed[16..].copy_from_slice(&bytes);
        if let Ok(RawEvent::Exec(exec)) = decode(&framed) {
            let _ = (exec.path(), exec.cwd());
        }
    }
}

impl RawCall<'static> {
    /// A successful call of an unknown caller, for the tests of what comes after the decoder.
    pub(crate) fn made_up(call: Call) -> Self {
        RawCall { call, ..RawCall::of_state(BootNs(0), RawTask::default(), NsSet::default()) }
    }
}
