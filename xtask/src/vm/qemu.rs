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
    qemu.args(["-accel", "tcg", "-cpu", "Nehalem", "-M", "q35", "-m", "1024", "-smp", "2"]);
    qemu.args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none", "-no-reboot"]);
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(initramfs).arg("-append").arg(append);

    let mut verdict = None;
    let mut panicked = false;
    let mut tail = VecDeque::with_capacity(TAIL);
    let end = process::run_logged(&mut qemu, log, LIMITS, |line| {
        verdict = parse_verdict(line).or(verdict);
        panicked |= line.contains("Kernel panic");
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.to_owned());
    })?;
    let failure = match (end, verdict) {
        (End::Killed(reason), _) => Some(reason),
        _ if panicked => Some("the guest's kernel panicked".to_owned()),
        (End::Exited(status), _) if !status.success() => Some(format!("QEMU failed: {status}")),
        (_, None) => Some("the guest ended without a verdict".to_owned()),
        (_, Some((false, counts))) => Some(format!("{} tests failed", counts.failed)),
        (_, Some((true, counts))) if counts.failed > 0 => {
            Some("the verdict contradicts its counts".to_owned())
        }
        (_, Some((true, counts))) if counts.passed == 0 => Some("no test ran".to_owned()),
        (_, Some((true, _))) => None,
    };
    Ok(Outcome { counts: verdict.map_or(Counts::default(), |(_, counts)| counts), failure, tail })
}

/// `RINGFENCE-GUEST: pass|fail N passed, N failed, N skipped`, after whatever the kernel wrote on the line before.
fn parse_verdict(line: &str) -> Option<(bool, Counts)> {
    let (_, verdict) = line.split_once(VERDICT)?;
    let (word, rest) = verdict.split_once(' ')?;
    let mut counts = Counts::default();
    for part in rest.split(',') {
        let (number, what) = part.trim().split_once(' ')?;
        let number = number.parse().ok()?;
        match what {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "skipped" => counts.skipped = number,
            _ => return None,
        }
    }
    match word {
        "pass" => Some((true, counts)),
        "fail" => Some((false, counts)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_whole_or_not_at_all() {
        let counts = Counts { passed: 31, failed: 0, skipped: 2 };
        let line = "[    9.1] RINGFENCE-GUEST: pass 31 passed, 0 failed, 2 skipped";
        assert_eq!(parse_verdict(line), Some((true, counts)));
        let failed = Counts { passed: 1, failed: 2, skipped: 0 };
        assert_eq!(
            parse_verdict("RINGFENCE-GUEST: fail 1 passed, 2 failed, 0 skipped"),
            Some((false, failed))
        );
        for line in
            ["", "RINGFENCE-GUEST:", "RINGFENCE-GUEST: pass", "RINGFENCE-GUEST: maybe 1 passed", "31 passed"]
        {
            assert_eq!(parse_verdict(line), None, "{line}");
        }
    }
}
