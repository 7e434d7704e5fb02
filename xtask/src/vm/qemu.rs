//! Boots one guest and reads its console up to the verdict.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::check::Counts;
use crate::process::{self, End, Limits};

/// Software emulation on two slow cores: a suite takes minutes, a silent minute or two is a hang.
const LIMITS: Limits = Limits { total: Duration::from_secs(15 * 60), silence: Duration::from_secs(120) };
const VERDICT: &str = "RINGFENCE-GUEST: ";
const TAIL: usize = 40;

/// How a guest ended.
pub(super) struct Outcome {
    /// Its tests; zeros when it gave no verdict.
    pub(super) counts: Counts,
    /// Why it is a failure, if it is one.
    pub(super) failure: Option<String>,
    /// The last lines of its console.
    pub(super) tail: VecDeque<String>,
}

/// Boots `image` with `initramfs` in one attach mode; the console goes to `log`.
pub(super) fn boot(
    image: &Path,
    initramfs: &Path,
    mode: &str,
    filter: Option<&str>,
    log: &Path,
) -> Result<Outcome> {
    let mut append =
        format!("console=ttyS0 panic=-1 quiet lsm=lockdown,capability,bpf ringfence.attach={mode}");
    if let Some(filter) = filter {
        if filter.contains(|c: char| c.is_whitespace() || c == '"') {
            bail!("a filter goes on the kernel's command line: it cannot have blanks or quotes");
        }
        append.push_str(&format!(" ringfence.filter={filter}"));
    }
    let mut qemu = Command::new("qemu-system-x86_64");
    // Not `-cpu max`: the newest kernels panic on it without hardware virtualisation.
    qemu.args(["-accel", "tcg", "-cpu", "Nehalem", "-M", "q35", "-m", "2048", "-smp", "2"]);
    qemu.args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none", "-no-reboot"]);
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(initramfs).arg("-append").arg(append);

    let mut verdict = None;
    let mut panicked = false;
    let mut tail = VecDeque::with_capacity(TAIL);
    let end = process::run_logged(&mut qemu, log, LIMITS, |line| {
        if let Some((_, text)) = line.split_once(VERDICT) {
            verdict = Some(parse_verdict(text));
        }
        panicked |= line.contains("Kernel panic");
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.to_owned());
    })?;
    let counts = verdict.as_ref().map_or(Counts::default(), |verdict| verdict.counts);
    let failure = match (end, verdict) {
        (End::Killed(reason), _) => Some(reason),
        _ if panicked => Some("the guest's kernel panicked".to_owned()),
        (End::Exited(status), _) if !status.success() => Some(format!("QEMU failed: {status}")),
        (_, None) => Some("the guest ended without a verdict".to_owned()),
        (_, Some(verdict)) => verdict.failure,
    };
    Ok(Outcome { counts, failure, tail })
}

/// What a guest says of itself.
struct Verdict {
    counts: Counts,
    failure: Option<String>,
}

/// `pass 3 passed, 0 failed, 1 skipped`, `fail 2 passed, 1 failed, 1 skipped (why)` or `fail why`. Whatever is not
/// clearly a pass is a failure.
fn parse_verdict(text: &str) -> Verdict {
    let (word, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let counts = parse_counts(rest);
    let failure = match (word, counts) {
        ("pass", Some(Counts { passed: 1.., failed: 0, .. })) => None,
        ("pass", _) => Some(format!("a pass without sound counts: {text}")),
        ("fail", _) => Some(format!("the guest says: {rest}")),
        _ => Some(format!("unknown verdict: {text}")),
    };
    Verdict { counts: counts.unwrap_or_default(), failure }
}

fn parse_counts(text: &str) -> Option<Counts> {
    let mut words = text.split([' ', ',']).filter(|word| !word.is_empty());
    let mut number = |name: &str| {
        let number = words.next()?.parse().ok()?;
        (words.next()? == name).then_some(number)
    };
    Some(Counts { passed: number("passed")?, failed: number("failed")?, skipped: number("skipped")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_needs_sound_counts() {
        let verdict = parse_verdict("pass 31 passed, 0 failed, 2 skipped");
        assert_eq!(verdict.counts, Counts { passed: 31, failed: 0, skipped: 2 });
        assert_eq!(verdict.failure, None);
        let unsound =
            ["", "pass", "pass 0 passed, 0 failed, 0 skipped", "pass 1 passed, 1 failed, 0 skipped", "maybe"];
        for text in unsound {
            assert!(parse_verdict(text).failure.is_some(), "{text}");
        }
    }

    #[test]
    fn a_failure_keeps_its_counts_and_its_reason() {
        let verdict = parse_verdict("fail 1 passed, 2 failed, 0 skipped (exit status: 101)");
        assert_eq!(verdict.counts, Counts { passed: 1, failed: 2, skipped: 0 });
        assert!(verdict.failure.is_some_and(|reason| reason.contains("exit status: 101")));
        let verdict = parse_verdict("fail cannot mount proc");
        assert_eq!(verdict.counts, Counts::default());
        assert!(verdict.failure.is_some_and(|reason| reason.contains("cannot mount proc")));
    }
}
