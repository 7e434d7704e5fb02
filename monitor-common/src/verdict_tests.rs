//! The verdict, row by row: what the probes saw, and what it means.

use super::*;

/// A call that returned `ret` and left no trace in any hook, in the tracepoint mode on a kernel that shows
/// capability checks.
const fn unseen(call: Call, ret: i64) -> Evidence {
    Evidence {
        call,
        ret,
        nr: 272,
        seccomp_refused: false,
        seccomp_possible: false,
        caps_visible: true,
        reached: false,
        caps_denied: 0,
        caps_granted: 0,
        device_asked: false,
        foreign_pid: false,
    }
}

/// The same from a task with a seccomp filter.
const fn filtered(call: Call, ret: i64) -> Evidence {
    Evidence { seccomp_possible: true, ..unseen(call, ret) }
}

/// A call that some hook saw inside the kernel.
const fn reached(evidence: Evidence) -> Evidence {
    Evidence { reached: true, ..evidence }
}

const fn denied(evidence: Evidence, cap: Cap) -> Evidence {
    Evidence { reached: true, caps_denied: cap.mask(), ..evidence }
}

const fn granted(evidence: Evidence, cap: Cap) -> Evidence {
    Evidence { reached: true, caps_granted: cap.mask(), ..evidence }
}

const fn asked(evidence: Evidence) -> Evidence {
    Evidence { device_asked: true, ..evidence }
}

const EINVAL: i64 = -22;
const ENOENT: i64 = -2;

#[test]
fn verdicts() {
    use RefusedBy::{Capability, DeviceCgroup, Lsm, Other, Seccomp};
    use Verdict::{Allowed, Failed, Refused};
    let hooked = Evidence { seccomp_refused: true, ..unseen(Call::Setns, EPERM) };
    let blind = Evidence { caps_visible: false, ..filtered(Call::Setns, EPERM) };
    let foreign = Evidence { foreign_pid: true, ..filtered(Call::Capset, EPERM) };
    let table = [
        // The kernel did it, whatever was asked on the way.
        ("success", unseen(Call::Unshare, 0), Allowed),
        ("a descriptor", unseen(Call::Openat, 7), Allowed),
        ("success of a filtered task", filtered(Call::Setns, 0), Allowed),
        ("trapped or killed by a filter", filtered(Call::Unshare, 272), Refused(Seccomp)),
        ("that number from a task without a filter", unseen(Call::Unshare, 272), Allowed),
        ("that number from a call that was let through", reached(filtered(Call::Syslog, 272)), Allowed),
        ("a descriptor of that number", filtered(Call::Openat, 272), Allowed),
        (
            "success although one capability was missing",
            denied(unseen(Call::Openat, 3), Cap::DacOverride),
            Allowed,
        ),
        // The hook on seccomp is certain, also about answers that look like success or a plain error.
        ("seccomp saw it", hooked, Refused(Seccomp)),
        ("seccomp answered 0", Evidence { ret: 0, ..hooked }, Refused(Seccomp)),
        ("seccomp answered ENOSYS", Evidence { ret: ENOSYS, ..hooked }, Refused(Seccomp)),
        ("seccomp answered EINVAL", Evidence { ret: EINVAL, ..hooked }, Refused(Seccomp)),
        // Inferred: a filter, an answer that filters give, and nobody inside the call saw anything.
        ("filter, EPERM, no trace", filtered(Call::Setns, EPERM), Refused(Seccomp)),
        ("filter, EACCES, no trace", filtered(Call::Syslog, EACCES), Refused(Seccomp)),
        (
            "filter, ENOSYS, no trace: Docker's answer to clone3",
            filtered(Call::Clone3, ENOSYS),
            Refused(Seccomp),
        ),
        ("filter, ENOSYS, but the kernel may lack the call", filtered(Call::Iopl, ENOSYS), Failed),
        ("the same for ioperm", filtered(Call::Ioperm, ENOSYS), Failed),
        ("filter, EPERM of iopl", filtered(Call::Iopl, EPERM), Refused(Seccomp)),
        ("filter, EINVAL: not what filters answer", filtered(Call::Setns, EINVAL), Failed),
        ("no filter, ENOSYS", unseen(Call::Clone3, ENOSYS), Failed),
        ("no filter, EPERM, no trace", unseen(Call::Unshare, EPERM), Refused(Other)),
        ("filter, but nobody sees capability checks", blind, Refused(Other)),
        // A trace inside the call rules the filter out.
        (
            "filter, EPERM, a check denied",
            denied(filtered(Call::Setns, EPERM), Cap::SysAdmin),
            Refused(Capability),
        ),
        ("filter, ENOSYS from inside", reached(filtered(Call::Clone3, ENOSYS)), Failed),
        ("filter, EPERM from inside, nothing asked", reached(filtered(Call::Unshare, EPERM)), Refused(Other)),
        // Capabilities.
        ("a check denied", denied(unseen(Call::ClockSettime, EPERM), Cap::SysTime), Refused(Capability)),
        (
            "a check denied, EACCES",
            denied(unseen(Call::Openat, EACCES), Cap::DacOverride),
            Refused(Capability),
        ),
        (
            "a check denied, but the error is another",
            denied(unseen(Call::Setns, EINVAL), Cap::SysAdmin),
            Failed,
        ),
        ("a check passed, then an error", granted(unseen(Call::ClockSettime, EINVAL), Cap::SysTime), Failed),
        // capset compares the sets itself.
        ("capset, nothing asked", reached(unseen(Call::Capset, EPERM)), Refused(Capability)),
        ("capset for another process", foreign, Refused(Other)),
        ("capset for another process, denied on the way", denied(foreign, Cap::Setpcap), Refused(Capability)),
        ("capset refused by a filter", filtered(Call::Capset, EPERM), Refused(Seccomp)),
        // Somebody with the capability was refused.
        ("granted, then EPERM", granted(unseen(Call::Unshare, EPERM), Cap::SysAdmin), Refused(Lsm)),
        ("granted, then EACCES", granted(unseen(Call::Setns, EACCES), Cap::SysAdmin), Refused(Lsm)),
        // Devices: the controller is asked before the driver asks for CAP_SYS_RAWIO.
        ("asked, then EPERM", asked(unseen(Call::Openat, EPERM)), Refused(DeviceCgroup)),
        ("asked, then EPERM, with a filter", asked(filtered(Call::Openat, EPERM)), Refused(DeviceCgroup)),
        (
            "asked, then no CAP_SYS_RAWIO",
            asked(denied(unseen(Call::Open, EPERM), Cap::SysRawio)),
            Refused(Capability),
        ),
        (
            "asked, CAP_SYS_RAWIO found, then EPERM",
            asked(granted(unseen(Call::Open, EPERM), Cap::SysRawio)),
            Refused(Lsm),
        ),
        (
            "asked, rights to the file found, then EPERM",
            asked(granted(unseen(Call::Open, EPERM), Cap::DacOverride)),
            Refused(DeviceCgroup),
        ),
        (
            "asked, then EPERM, and nobody saw what the driver asked for",
            Evidence { caps_visible: false, ..asked(filtered(Call::Openat, EPERM)) },
            Refused(Other),
        ),
        ("asked, then EACCES", asked(unseen(Call::Openat, EACCES)), Refused(Other)),
        ("asked, then no driver", asked(unseen(Call::Openat, ENOENT)), Failed),
    ];
    for (what, evidence, expected) in table {
        assert_eq!(evidence.verdict(), expected, "{what}");
    }
}

#[test]
fn only_a_refusal_has_somebody_who_refused() {
    for by in
        [RefusedBy::Seccomp, RefusedBy::Capability, RefusedBy::Lsm, RefusedBy::DeviceCgroup, RefusedBy::Other]
    {
        assert_eq!(Verdict::Refused(by).refused_by(), Some(by));
        assert_eq!(Verdict::Refused(by).name(), "refused");
    }
    for verdict in [Verdict::Allowed, Verdict::Failed] {
        assert_eq!(verdict.refused_by(), None);
    }
}

#[test]
fn an_error_is_never_taken_for_success_nor_success_for_an_error() {
    for call in Call::ALL {
        for ret in [i64::MIN, -4095, ENOSYS, EINVAL, EACCES, ENOENT, EPERM, 0, 1, i64::MAX] {
            for bits in 0u32..64 {
                let bit = |n: u32| bits & (1 << n) != 0;
                let evidence = Evidence {
                    seccomp_possible: bit(0),
                    caps_visible: bit(1),
                    reached: bit(2),
                    caps_denied: u64::from(bit(3)) << 21,
                    caps_granted: u64::from(bit(4)) << 17,
                    device_asked: bit(5),
                    ..unseen(*call, ret)
                };
                assert_eq!(evidence.verdict() == Verdict::Allowed, ret >= 0, "{evidence:?}");
            }
        }
    }
}
