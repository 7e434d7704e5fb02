//! Events for the promises of the shipped rules.

use monitor::event_type::EventType;
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
