//! Boots one guest and reads its console up to the verdict.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::check::Counts;
use crate::coverage::records_dir;
use crate::process::{self, End, Limits};

/// Software emulation on two slow cores: a suite takes minutes, some silent minutes are a hang.
const LIMITS: Limits = Limits { total: Duration::from_secs(40 * 60), silence: Duration::from_secs(300) };
const VERDICT: &str = "RINGFENCE-GUEST: ";
/// What a line of the matrix's record starts with (`tests::matrix::record::PREFIX`).
const RECORD: &str = "RINGFENCE-RECORD: ";
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

/// A guest to boot.
pub(super) struct Guest {
    /// The kernel.
    pub(super) image: PathBuf,
    /// Its root.
    pub(super) initramfs: PathBuf,
    /// The attach mode.
    pub(super) mode: &'static str,
    /// How cgroups are mounted.
    pub(super) layout: &'static str,
    /// See [`Kernel`](super::kernel::Kernel).
    pub(super) version2_only: &'static [&'static str],
    /// The tests to run; all without one.
    pub(super) filter: Option<String>,
    /// Whether systemd is to be its first process.
    pub(super) is_host: bool,
    /// Where its console goes.
    pub(super) log: PathBuf,
}

impl Guest {
    /// Where the matrix's record goes. A part of the suite, or another layout than the document's, leaves none.
    fn record(&self) -> Result<Option<PathBuf>> {
        if self.filter.is_some() || self.layout != "v2" {
            return Ok(None);
        }
        let Some(name) = self.log.file_stem().and_then(|name| name.to_str()) else { return Ok(None) };
        // Kernels' names have dots, so the extension is appended.
        Ok(Some(records_dir()?.join(format!("{name}.jsonl"))))
    }

    /// The kernel's command line. Debian's kernels that have x32 want it switched on. Kernel page tables of their own
    /// would cost an emulated processor its address cache twice per call. The second processor is switched on by the
    /// guest's first program: while a kernel boots it rewrites its own code, and now and then the emulator lets the
    /// other processor run what stood there in between. On a busy machine the emulator's timer may stand still for
    /// longer than a kernel waits that tests it ("IO-APIC + timer doesn't work!").
    fn append(&self) -> String {
        // A second module asks for a capability of its own; the whole suite is run without one.
        let modules = if self.layout == "v2" { "bpf" } else { "apparmor,bpf" };
        let mut append = format!(
            "console=ttyS0 panic=-1 quiet oops=panic no_timer_check mitigations=off maxcpus=1 lsm=lockdown,capability,{modules} syscall.x32=y ringfence.attach={} ringfence.cgroups={}",
            self.mode, self.layout
        );
        if self.layout == "v2" {
            append.push_str(" cgroup_no_v1=all");
        }
        if self.layout == "hybrid" && !self.version2_only.is_empty() {
            append.push_str(&format!(" cgroup_disable={}", self.version2_only.join(",")));
        }
        if self.is_host {
            append.push_str(" ringfence.service systemd.unified_cgroup_hierarchy=1 systemd.show_status=0");
        }
        if let Some(filter) = &self.filter {
            append.push_str(&format!(" ringfence.filter={filter}"));
        }
        append
    }
}

/// Boots a guest and waits for its end.
pub(super) fn boot(guest: &Guest) -> Result<Outcome> {
    let mut qemu = Command::new("qemu-system-x86_64");
    // Not `-cpu max`: the newest kernels panic on it without hardware virtualisation.
    qemu.args(["-accel", "tcg", "-cpu", "Nehalem", "-M", "q35", "-m", "2048", "-smp", "2"]);
    qemu.args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none", "-no-reboot"]);
    qemu.arg("-kernel").arg(&guest.image).arg("-initrd").arg(&guest.initramfs);
    qemu.arg("-append").arg(guest.append());

    let record = guest.record()?;
    // That of an earlier run must not pass for this one's.
    if let Some(record) = record.as_ref().filter(|record| record.exists()) {
        fs::remove_file(record)?;
    }
    let mut verdict = None;
    let mut panicked = false;
    let mut records = String::new();
    let mut tail = VecDeque::with_capacity(TAIL);
    let end = process::run_logged(&mut qemu, &guest.log, LIMITS, |line| {
        if let Some((_, text)) = line.split_once(VERDICT) {
            verdict = Some(parse_verdict(text));
        }
        panicked |= line.contains("Kernel panic");
        if let Some((_, record)) = line.split_once(RECORD) {
            records.push_str(record.trim_end());
            records.push('\n');
            return;
        }
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.to_owned());
    })?;
    if let Some(record) = record.filter(|_| verdict.is_some()) {
        fs::write(record, records)?;
    }
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
    fn only_a_guest_with_version_2_alone_hides_the_version_1_controllers() {
        let append = |layout| {
            let path = PathBuf::new;
            let filter = Some("oci::".to_owned());
            let (image, initramfs, log) = (path(), path(), path());
            let version2_only = &["memory"];
            Guest { image, initramfs, mode: "tracepoint", layout, version2_only, filter, is_host: false, log }
                .append()
        };
        assert!(append("v2").contains("ringfence.cgroups=v2 cgroup_no_v1=all ringfence.filter=oci::"));
        assert!(append("v1").ends_with("ringfence.cgroups=v1 ringfence.filter=oci::"));
        assert!(append("hybrid").contains("ringfence.cgroups=hybrid cgroup_disable=memory "));
    }

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
