//! The decoder against good records and a table of broken ones.

use monitor_common::wire::{CallRecord, ExecRecord, OpenRecord};

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
    let ns = core::mem::offset_of!(CallRecord, ns_after);
    bytes[ns + 4..ns + 8].copy_from_slice(&99u32.to_ne_bytes());
    let Ok(RawEvent::Call(call)) = decode(&bytes) else { panic!("not a call") };
    assert_eq!((call.call, call.abi, call.ret, call.boot), (Call::Setns, Abi::X86_64, -9, BootNs(77)));
    assert_eq!(call.task.process.tgid, Tgid(4711));
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

#[test]
fn an_executables_path_is_put_together() {
    let mut bytes = record(kind::EXEC, size_of::<ExecRecord>(), 0);
    let (len, exe) = (core::mem::offset_of!(ExecRecord, exe_len), core::mem::offset_of!(ExecRecord, exe));
    bytes[len..len + 4].copy_from_slice(&14u32.to_ne_bytes());
    bytes[exe..exe + 14].copy_from_slice(b"date\0bin\0usr\0\0");
    let Ok(RawEvent::Exec(exec)) = decode(&bytes) else { panic!("not an exec") };
    assert_eq!(exec.path(), b"/usr/bin/date");
}

#[test]
fn broken_bytes_are_refused_with_their_reason() {
    let call = call_record(size_of::<CallRecord>());
    let open = call_record(size_of::<OpenRecord>());
    let exec = record(kind::EXEC, size_of::<ExecRecord>(), 0);
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
    let exe_len = core::mem::offset_of!(ExecRecord, exe_len);
    let table: &[(&str, Vec<u8>, DecodeError)] = &[
        ("nothing", vec![], DecodeError::Short),
        ("half a header", call[..9].to_vec(), DecodeError::Short),
        ("cut off", call[..200].to_vec(), DecodeError::Short),
        ("shorter than its kind", resized(&call, 200), DecodeError::Short),
        ("longer than its length says", [&call[..], &[0; 8]].concat(), DecodeError::Long),
        ("longer than its kind", resized(&open, size_of::<OpenRecord>() + 8), DecodeError::Long),
        ("a part of a path", resized(&call, size_of::<CallRecord>() + 4), DecodeError::Short),
        ("another version", with(&call, 0, &2u16.to_ne_bytes()), DecodeError::Version),
        ("kind 0", with(&call, 2, &0u16.to_ne_bytes()), DecodeError::Kind),
        ("kind 65535", with(&call, 2, &u16::MAX.to_ne_bytes()), DecodeError::Kind),
        ("call 0", with(&call, CALL_AT, &0u16.to_ne_bytes()), DecodeError::Call),
        ("call 65535", with(&call, CALL_AT, &u16::MAX.to_ne_bytes()), DecodeError::Call),
        ("abi 3", with(&call, CALL_AT + 2, &3u16.to_ne_bytes()), DecodeError::Abi),
        ("path beyond its room", with(&open, path_len, &257u32.to_ne_bytes()), DecodeError::Length),
        ("path of 4 GiB", with(&open, path_len, &u32::MAX.to_ne_bytes()), DecodeError::Length),
        (
            "executable beyond its room",
            with(&exec, exe_len, &(EXE_BYTES as u32 + 1).to_ne_bytes()),
            DecodeError::Length,
        ),
    ];
    for (what, bytes, reason) in table {
        assert_eq!(decode(bytes).err(), Some(*reason), "{what}");
    }
}

#[test]
fn no_cut_of_a_good_record_is_taken_for_one() {
    for good in [call_record(size_of::<CallRecord>()), record(kind::FORK, 104, 7), record(kind::EXIT, 32, 7)]
    {
        assert!(decode(&good).is_ok());
        for len in 0..good.len() {
            assert!(decode(&good[..len]).is_err(), "{len} bytes");
        }
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..1400), kind in 0u16..10) {
        let _ = decode(&bytes);
        let mut framed = record(kind, bytes.len() + 16, 0);
        framed[16..].copy_from_slice(&bytes);
        if let Ok(RawEvent::Exec(exec)) = decode(&framed) {
            let _ = exec.path();
        }
    }
}

impl RawCall<'static> {
    /// A successful call of an unknown caller, for the tests of what comes after the decoder.
    pub(crate) fn made_up(call: Call) -> Self {
        RawCall {
            boot: BootNs(0),
            task: RawTask::default(),
            call,
            abi: Abi::X86_64,
            flags: 0,
            nr: 0,
            ret: 0,
            args: [0; 4],
            claimed: [0; 4],
            caps_before: 0,
            caps_after: 0,
            caps_denied: 0,
            caps_granted: 0,
            ns_before: NsSet::default(),
            ns_after: NsSet::default(),
            major: 0,
            minor: 0,
            file_ino: 0,
            path: b"",
        }
    }
}
