//! For each shipped rule an event that it must match, and a near miss.

use monitor::event_type::EventType;
use monitor::fields::{self, FieldSource as _};
use monitor_common::call::Call;

use super::rules_common::Fake;

/// An event of this call, outcome and place, without what is particular to the call.
pub(crate) fn event(call: Call, verdict: &'static str, place: &'static str) -> Fake {
    let event = Fake::default()
        .text("evt.type", call.name())
        .text("evt.verdict", verdict)
        .text("proc.name", "probe")
        .text("proc.exepath", "/bin/probe")
        .number("proc.pid", 4242)
        .number("proc.vpid", 7)
        .number("user.uid", 0);
    match place {
        "host" => event.text("container.id", "host").number("proc.vpid", 4242),
        phase => event.text("container.id", "0123456789ab").text("evt.phase", phase),
    }
}

/// An event that is no call.
pub(crate) fn state(ty: EventType, place: &'static str) -> Fake {
    event(Call::Setns, "allowed", place).text("evt.type", ty.name())
}

/// For each rule one event that it must match and one near miss that it must not.
pub(crate) fn cases() -> Vec<(&'static str, Fake, Fake)> {
    use Call::{Adjtimex, Capset, ClockSettime, Clone3, Ioperm, Openat, Setns, Syslog, Unshare};
    let run = |call, verdict| event(call, verdict, "running");
    let host = |call| event(call, "allowed", "host");
    let gained = |event: Fake, cap| event.list("cap.gained", &[cap]);
    let action = |event: Fake, action| event.text("syslog.action", action);
    let device = |event: Fake, device| event.text("device.name", device);
    let changed = |event: Fake, kind| event.list("ns.changed", &[kind]);
    let way = |event: Fake, way| event.text("ns.direction", way);
    let calls = vec![
        (
            "capability-dangerous-gained-in-container",
            gained(run(Capset, "allowed"), "CAP_SYS_ADMIN"),
            gained(run(Capset, "allowed"), "CAP_KILL"),
        ),
        (
            "capability-gained-in-container",
            gained(run(Capset, "allowed"), "CAP_KILL"),
            run(Capset, "allowed"),
        ),
        (
            "capability-change-refused-in-container",
            run(Capset, "failed"),
            event(Capset, "failed", "starting"),
        ),
        ("capability-dropped-in-container", run(Capset, "allowed"), run(Capset, "refused")),
        (
            "capability-gained-on-host",
            gained(host(Capset), "CAP_SYS_ADMIN"),
            gained(run(Capset, "allowed"), "CAP_SYS_ADMIN"),
        ),
        ("capability-dropped-on-host", host(Capset), gained(host(Capset), "CAP_KILL")),
        (
            "host-namespace-entered-from-container",
            way(changed(run(Setns, "allowed"), "mnt"), "container_to_host"),
            way(changed(run(Setns, "allowed"), "mnt"), "container_to_container"),
        ),
        (
            "other-container-entered-from-container",
            way(changed(run(Setns, "allowed"), "mnt"), "container_to_container"),
            way(changed(run(Setns, "allowed"), "mnt"), "own"),
        ),
        (
            "namespace-entered-in-container",
            changed(run(Setns, "allowed"), "mnt"),
            way(changed(run(Setns, "allowed"), "mnt"), "container_to_host"),
        ),
        (
            "container-entered-from-outside",
            way(run(Setns, "allowed"), "host_to_container"),
            way(run(Setns, "allowed"), "own"),
        ),
        ("namespace-entry-refused-in-container", run(Setns, "refused"), event(Setns, "refused", "host")),
        (
            "user-namespace-created-in-container",
            changed(run(Clone3, "allowed"), "user"),
            changed(run(Clone3, "refused"), "user"),
        ),
        (
            "namespace-created-in-container",
            changed(run(Unshare, "allowed"), "net"),
            changed(run(Unshare, "allowed"), "user"),
        ),
        (
            "namespace-creation-refused-in-container",
            run(Unshare, "refused"),
            changed(run(Unshare, "allowed"), "net"),
        ),
        ("user-namespace-created-on-host", changed(host(Unshare), "user"), changed(host(Unshare), "net")),
        (
            "container-namespace-entered-from-host",
            way(changed(host(Setns), "net"), "host_to_container"),
            way(changed(host(Setns), "net"), "own"),
        ),
        ("namespace-used-on-host", changed(host(Setns), "user"), event(Setns, "failed", "host")),
        ("clock-changed-from-container", run(ClockSettime, "allowed"), host(ClockSettime)),
        ("clock-change-refused-in-container", run(ClockSettime, "refused"), run(ClockSettime, "allowed")),
        ("clock-set-on-host", host(ClockSettime), event(ClockSettime, "refused", "host")),
        ("clock-tuned-on-host", host(Adjtimex), run(Adjtimex, "allowed")),
        (
            "kernel-log-tampered-from-container",
            action(run(Syslog, "allowed"), "CLEAR"),
            action(run(Syslog, "allowed"), "READ_ALL"),
        ),
        (
            "kernel-log-tampering-refused-in-container",
            action(run(Syslog, "refused"), "CONSOLE_OFF"),
            action(run(Syslog, "refused"), "READ"),
        ),
        (
            "kernel-log-read-from-container",
            device(run(Openat, "allowed"), "kmsg"),
            device(run(Openat, "allowed"), "mem"),
        ),
        (
            "kernel-log-access-refused-in-container",
            action(run(Syslog, "refused"), "READ_ALL"),
            action(run(Syslog, "refused"), "READ_CLEAR"),
        ),
        ("kernel-log-cleared-on-host", action(host(Syslog), "READ_CLEAR"), action(host(Syslog), "READ_ALL")),
        (
            "kernel-log-console-changed-on-host",
            action(host(Syslog), "CONSOLE_LEVEL"),
            action(host(Syslog), "CLEAR"),
        ),
        ("kernel-log-read-on-host", device(host(Openat), "proc_kmsg"), device(host(Openat), "proc_kcore")),
        (
            "raw-io-obtained-in-container",
            device(run(Openat, "allowed"), "mem"),
            device(event(Openat, "allowed", "starting"), "mem"),
        ),
        ("raw-io-refused-in-container", run(Ioperm, "failed"), event(Ioperm, "failed", "host")),
        ("raw-io-obtained-on-host", device(host(Openat), "port"), device(host(Openat), "msr")),
        ("raw-io-inspected-on-host", device(host(Openat), "msr"), device(run(Openat, "allowed"), "msr")),
        ("wall-touched-while-container-starts", event(Setns, "allowed", "starting"), run(Setns, "allowed")),
    ];
    let states = [
        (
            "container-entered-from-outside",
            state(EventType::Entered, "running"),
            state(EventType::Entered, "host"),
        ),
        ("container-escaped", state(EventType::Escaped, "running"), state(EventType::Entered, "running")),
    ];
    calls.into_iter().chain(states).collect()
}

/// The type that an event names.
pub(crate) fn type_of(event: &Fake) -> EventType {
    let field = fields::resolve("evt.type", None).unwrap();
    let name = event.value(field).to_string();
    EventType::all().find(|ty| ty.name() == name).unwrap_or_else(|| panic!("{event:?}"))
}
