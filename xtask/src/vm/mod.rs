//! `cargo xtask vm`: the live suite on Debian's kernels, in QEMU without hardware virtualisation.
//!
//! A guest has no disk and no network: a kernel, one initramfs with our programs, and the serial console. The
//! guest's first program runs the suite, prints one verdict line and powers off. Whatever else happens (panic,
//! hang, no verdict) is a failure.

mod contents;
mod initramfs;
pub(crate) mod kernel;
mod qemu;
mod service;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use kernel::Kernel;
use qemu::Guest;

use crate::check::{Counts, build_suite};
use crate::environment::work_dir;
use crate::{Attach, Layout, VmArgs, setup};

/// Guests at a time. Each has two processors, so that events meet on two, and a suite waits often enough to leave
/// two cores to three of them.
const AT_ONCE: usize = 3;

/// The tests whose outcome depends on the cgroup layout: containers by a real runtime, and one attempt that shows
/// that the suite runs at all; and what needs AppArmor, which these guests have in force.
const LAYOUT_TESTS: &str = "oci-,identity::,host::setns-badfd,nine::policy";

/// Many containers, which take a guest minutes: on one kernel, mode and layout; natively there are Docker's. A thousand take
/// it ten: that test is run by its name.
const MANY: &str = "many::crun_names_each_of_200";
/// Where.
const MANY_ON: &[(&str, &str, &str)] = &[("6.1", "tracepoint", "v1")];

/// What a boot with systemd is called besides.
const SERVICE: &str = " service";

/// One boot.
struct Job {
    kernel: &'static Kernel,
    mode: &'static str,
    layout: &'static str,
    filter: Option<String>,
    /// What a boot for something special is called besides.
    part: &'static str,
    /// Whether systemd is its first process.
    is_host: bool,
}

/// `cargo xtask vm`: installs and builds what is missing, boots, prints verdicts; true when all passed.
pub(crate) fn command(args: &VmArgs) -> Result<bool> {
    // First, so that a wrong name costs no build.
    let kernels = kernel::find(&args.kernel)?;
    if args.filter.as_ref().is_some_and(|filter| filter.contains(|c: char| c.is_whitespace() || c == '"')) {
        bail!("a filter goes on the kernel's command line: it cannot have blanks or quotes");
    }
    setup::install(setup::Group::Test)?;
    build_suite()?;
    let mut jobs = jobs(kernels, args.attach, args.cgroups, args.filter.as_ref());
    if args.service {
        jobs.iter_mut().for_each(|job| (job.is_host, job.part) = (true, SERVICE));
    }
    let (counts, failure) = boot_all(jobs)?;
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    Ok(failure.is_none() && counts.failed == 0)
}

/// Where all of the suite that can runs in the sandbox of systemd's service.
const AS_SERVICE: (&str, &str) = ("6.12", "tracepoint");
/// What cannot, and depends on the kernel and on the mode.
const BESIDE_SERVICE: &str = "nine::,advice::";
/// Kernels where the shipped unit alone is tried besides: the oldest, and the newest, whose probes want other rights.
const UNIT_ON: &[&str] = &["5.10", "7.2"];
/// Those tests.
const UNIT_TESTS: &str = "unit::";

/// What `cargo xtask test` boots, with the programs that are there: all kernels in both modes, the whole
/// suite with cgroup v2, once of which as [`AS_SERVICE`] says; and what depends on the cgroup layout with one of the two others per kernel, which take turns
/// as the modes do. Returns the tests of all boots and, if one failed, the reason of the first.
pub(crate) fn boot_matrix() -> Result<(Counts, Option<String>)> {
    let kernels = kernel::find(kernel::ALL)?;
    // The long ones first, so that no single one is left at the end: the newest kernel takes longest.
    let newest_first = kernels.iter().rev().copied().collect();
    let mut all = jobs(newest_first, Attach::All, Layout::V2, None);
    let as_service = |job: &&mut Job| (job.kernel.name, job.mode) == AS_SERVICE;
    all.iter_mut().filter(as_service).for_each(|job| job.is_host = true);
    let filter = Some(BESIDE_SERVICE.to_owned());
    for kernel in kernel::find(AS_SERVICE.0)? {
        let (mode, layout, filter) = (AS_SERVICE.1, "v2", filter.clone());
        all.push_back(Job { kernel, mode, layout, filter, part: " rest", is_host: false });
    }
    for name in UNIT_ON {
        let filter = Some(UNIT_TESTS.to_owned());
        let mut unit = jobs(kernel::find(name)?, Attach::Tracepoint, Layout::V2, filter.as_ref());
        unit.iter_mut().for_each(|job| (job.is_host, job.part) = (true, SERVICE));
        all.append(&mut unit);
    }
    for (name, mode, layout) in MANY_ON {
        let filter = Some(MANY.to_owned());
        let kernel = kernel::find(name)?;
        all.extend(kernel.into_iter().map(|kernel| Job {
            kernel,
            mode,
            layout,
            filter: filter.clone(),
            part: " many",
            is_host: false,
        }));
    }
    let turns =
        [("hybrid", "trampoline"), ("v1", "tracepoint"), ("hybrid", "tracepoint"), ("v1", "trampoline")];
    for (kernel, (layout, mode)) in kernels.into_iter().zip(turns.into_iter().cycle()) {
        all.push_back(Job {
            kernel,
            mode,
            layout,
            filter: Some(LAYOUT_TESTS.to_owned()),
            part: "",
            is_host: false,
        });
    }
    boot_all(all)
}

fn jobs(
    kernels: Vec<&'static Kernel>,
    attach: Attach,
    layout: Layout,
    filter: Option<&String>,
) -> VecDeque<Job> {
    let mut jobs = VecDeque::new();
    for kernel in kernels {
        for mode in attach.modes() {
            for layout in layout.names() {
                jobs.push_back(Job {
                    kernel,
                    mode,
                    layout,
                    filter: filter.cloned(),
                    part: "",
                    is_host: false,
                });
            }
        }
    }
    jobs
}

/// What the boots came to so far.
#[derive(Default)]
struct Tally {
    counts: Counts,
    /// Why the first of those that failed did.
    failure: Option<String>,
}

/// Boots all, [`AT_ONCE`] at a time, and prints one verdict line per boot.
fn boot_all(jobs: VecDeque<Job>) -> Result<(Counts, Option<String>)> {
    let mut ready: Vec<(&str, bool, PathBuf, PathBuf)> = Vec::new();
    for job in &jobs {
        let (name, is_host) = (job.kernel.name, job.is_host);
        if ready.iter().all(|(known, host, ..)| (*known, *host) != (name, is_host)) {
            let files = kernel::fetch(job.kernel).with_context(|| format!("kernel {name}"))?;
            let part = if is_host { "-service" } else { "" };
            let initramfs = work_dir("vm")?.join(format!("initramfs-{name}{part}.cpio"));
            contents::write(&initramfs, &files, is_host)?;
            ready.push((name, is_host, files.image, initramfs));
        }
    }
    let mut guests: VecDeque<(Guest, String)> = VecDeque::new();
    for job in jobs {
        let is_its = |(name, is_host, ..): &&(&str, bool, PathBuf, PathBuf)| {
            (*name, *is_host) == (job.kernel.name, job.is_host)
        };
        let Some((.., image, initramfs)) = ready.iter().find(is_its) else { continue };
        let title = format!("{} {} {}{}", job.kernel.name, job.mode, job.layout, job.part);
        let log = work_dir("vm/logs")?.join(format!("{}.log", title.replace(' ', "-")));
        let (image, initramfs) = (image.clone(), initramfs.clone());
        let Job { kernel, mode, layout, filter, is_host, .. } = job;
        let version2_only = kernel.version2_only;
        guests.push_back((
            Guest { image, initramfs, mode, layout, version2_only, filter, is_host, log },
            title,
        ));
    }
    let (queue, tally) = (Mutex::new(guests), Mutex::new(Tally::default()));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some((guest, title)) = next else { return Ok(()) };
                        boot_one(&guest, &title, &tally)?;
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a thread that boots guests panicked"))??;
        }
        Ok::<(), anyhow::Error>(())
    })?;
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((tally.counts, tally.failure))
}

/// Boots a guest, prints its verdict and adds it to the others.
fn boot_one(guest: &Guest, title: &str, tally: &Mutex<Tally>) -> Result<()> {
    let start = Instant::now();
    let outcome = qemu::boot(guest)?;
    let time = start.elapsed().as_secs_f64();
    let Counts { passed, failed, skipped } = outcome.counts;
    let tests = format!("{passed} passed, {failed} failed, {skipped} skipped");
    // Held while printing, so that two guests' lines do not mix.
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    tally.counts.add(outcome.counts);
    let Some(reason) = outcome.failure else {
        println!("vm {title}: pass, {time:.1} s, {tests}");
        return Ok(());
    };
    outcome.tail.iter().for_each(|line| println!("  | {line}"));
    println!("vm {title}: FAIL, {time:.1} s, {tests}: {reason}; log: {}", guest.log.display());
    tally.failure.get_or_insert_with(|| format!("{title}: {reason}"));
    // A boot that ended without a failed test still failed.
    tally.counts.failed += u64::from(failed == 0);
    Ok(())
}
