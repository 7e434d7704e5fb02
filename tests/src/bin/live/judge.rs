//! Holds the events of one attempt against what must come of it.

use std::time::Duration;

use monitor_common::call::{Abi, Call};
use tests::attempt::arguments::arguments;
use tests::attempt::{Attempt, Want, errno_name};
use tests::cgroup::POD_UID;
use tests::harness::alerts::{Alert, Expectation, Must};
use tests::harness::{Daemon, Settings};

use crate::places::{self, Made, Place, Suite, Visit};

/// One trial: visits the place if nobody has yet, and judges what came of the attempt.
///
/// # Errors
/// What differs, for people.
pub(crate) fn check(
    suite: &Suite,
    place: Place,
    attempt: &Attempt,
    abi: Abi,
    want: Want,
) -> Result<(), String> {
    let visits = suite.visits(place);
    let (visit, made) = places::made(&visits, attempt, abi)?;
    let daemon = suite.daemon()?;
    let answer = if made.ret < 0 { errno_name(-made.ret as i32) } else { "SUCCESS" };
    let fitting = want.fitting(made.ret);
    if fitting.is_empty() {
        return Err(format!("the kernel answered {} ({answer}), expected: {want}", made.ret));
    }
    let of_caller = Expectation::new().is("proc.vpid", made.pid).is("cgroup.id", visit.cgroup_id);
    let events = daemon.inbox().fitting(&of_caller.clone().must("rule", suite_rule_names()));
    let silent = fitting == [Want::NoEvent];
    let came = check_count(suite.settings(), attempt, made, silent, &events)
        .map_err(|fault| format!("{fault} (the kernel answered {answer})"))?;
    if silent || !came {
        return Ok(());
    }
    check_child(daemon, visit, attempt, made)?;
    let event = describe(visit, attempt, abi, made, answer, &fitting, of_caller);
    daemon.inbox().expect(&event, Duration::ZERO).map(drop)
}

/// Exactly one event of an attempt, none of what is no attempt, and nothing else but the `capset` by which
/// capabilities were dropped first. Says whether the attempt's own event came.
fn check_count(
    settings: &Settings,
    attempt: &Attempt,
    made: &Made,
    silent: bool,
    events: &[Alert],
) -> Result<bool, String> {
    let (own, others): (Vec<&Alert>, Vec<&Alert>) =
        events.iter().partition(|alert| alert.get("evt.type").as_deref() == Some(attempt.call.name()));
    let own_drop = attempt.drops && attempt.call == Call::Capset;
    let expected = usize::from(!silent) + usize::from(own_drop);
    let may_miss = attempt.nameless && made.ret < 0 && settings.attach != "trampoline";
    // Where the capability was never there, nothing had to be dropped.
    let others_fit = others.len() <= usize::from(attempt.drops && !own_drop)
        && others.iter().all(|alert| alert.get("evt.type").as_deref() == Some("capset"));
    if (own.len() == expected || may_miss && own.is_empty()) && others_fit {
        return Ok(own.len() == expected);
    }
    let seen: Vec<String> = events.iter().filter_map(|alert| alert.get("output")).collect();
    Err(format!(
        "{} events of {} instead of {expected}, and {} others; events of process {}:\n  {}\n",
        own.len(),
        attempt.call.name(),
        others.len(),
        made.pid,
        seen.join("\n  ")
    ))
}

/// A new child returns from the clone call too, with 0; that is not a second attempt.
pub(crate) fn check_child(
    daemon: &Daemon,
    visit: &Visit,
    attempt: &Attempt,
    made: &Made,
) -> Result<(), String> {
    if !matches!(attempt.call, Call::Clone | Call::Clone3) || made.ret <= 0 {
        return Ok(());
    }
    let of_child = Expectation::new().is("proc.vpid", made.ret).is("cgroup.id", visit.cgroup_id);
    match daemon.inbox().fitting(&of_child).first().and_then(|alert| alert.get("output")) {
        None => Ok(()),
        Some(output) => Err(format!("the child's return from {} is an event: {output}", attempt.call.name())),
    }
}

/// What the suite's own alert of an attempt must show.
pub(crate) fn describe(
    visit: &Visit,
    attempt: &Attempt,
    abi: Abi,
    made: &Made,
    answer: &str,
    fitting: &[Want],
    of_caller: Expectation,
) -> Expectation {
    let verdicts: Vec<_> = fitting.iter().filter_map(Want::verdict).collect();
    let refusers: Vec<String> = verdicts.iter().filter_map(|(_, by)| by.map(str::to_owned)).collect();
    let mut event = of_caller
        .is("rule", format!("Suite {}", attempt.call.name()))
        .is("evt.type", attempt.call.name())
        .is("evt.abi", abi.name())
        .is("evt.res", answer)
        .is("evt.rawres", made.ret)
        .is("proc.name", "attempt")
        .must(
            "evt.verdict",
            Must::BeOneOf(verdicts.iter().map(|(verdict, _)| (*verdict).to_owned()).collect()),
        )
        .must("evt.refused_by", if refusers.is_empty() { Must::BeAbsent } else { Must::BeOneOf(refusers) });
    event = match &visit.container {
        None => event.is("container.id", "host").is("container.runtime", "host"),
        Some((id, runtimes)) => event.is("container.id", &id[..12]).is("container.full_id", id).must(
            "container.runtime",
            Must::BeOneOf(runtimes.iter().map(|name| (*name).to_owned()).collect()),
        ),
    };
    // A 32-bit program of the suite touches nothing before its call.
    let untouched =
        abi == Abi::I386 && fitting.iter().any(|want| want.verdict() == Some(("refused", Some("seccomp"))));
    event = event.must("evt.args", Must::BeLike(arguments(attempt, untouched)));
    let done = if made.ret >= 0 { attempt.done } else { &[] };
    for (key, value) in attempt.asked.iter().chain(done) {
        event = event.is(key, value);
    }
    if visit.pod {
        event = event.is("k8s.pod.uid", POD_UID);
    }
    if visit.host_pids {
        event = event.is("proc.pid", made.pid).is("thread.tid", made.pid);
    }
    event
}

pub(crate) fn suite_rule_names() -> Must {
    Must::BeOneOf(Call::ALL.iter().map(|call| format!("Suite {}", call.name())).collect())
}
