//! `cargo xtask vm`: the live suite on Debian's kernels, in QEMU without hardware virtualisation.
//!
//! A guest has no disk and no network: a kernel, one initramfs with our programs, and the serial console. The
//! guest's first program runs the suite, prints one verdict line and powers off. Whatever else happens (panic,
//! hang, no verdict) is a failure.

mod initramfs;
mod kernel;
mod qemu;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::check::{Counts, build_release};
use crate::environment::{Unfit, find_program, release_program, repository, work_dir};
use crate::{Attach, setup};

/// `cargo xtask vm`: installs and builds what is missing, boots, prints verdicts; true when all passed.
pub(crate) fn command(kernel: &str, attach: Attach, filter: Option<&str>) -> Result<bool> {
    // First, so that a wrong name costs no build.
    kernel::find(kernel)?;
    setup::install(setup::Group::Test)?;
    build_release()?;
    let (counts, failure) = boot_all(kernel, attach, filter)?;
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    Ok(failure.is_none() && counts.failed == 0)
}

/// Boots one kernel in each mode asked for, with the release programs that are there. Prints one verdict line per
/// boot; returns the tests of all and, if a boot failed, the reason of the first.
pub(crate) fn boot_all(
    kernel: &str,
    attach: Attach,
    filter: Option<&str>,
) -> Result<(Counts, Option<String>)> {
    let kernel = kernel::find(kernel)?;
    let files = kernel::fetch(kernel)?;
    let initramfs = work_dir("vm")?.join(format!("initramfs-{}.cpio", kernel.name));
    write_initramfs(&initramfs, &files)?;
    let modes: &[&str] = match attach {
        Attach::Trampoline => &["trampoline"],
        Attach::Tracepoint => &["tracepoint"],
        Attach::All => &["trampoline", "tracepoint"],
    };
    let mut total = Counts::default();
    let mut failure = None;
    for mode in modes {
        let log = work_dir("vm/logs")?.join(format!("{}-{mode}.log", kernel.name));
        let start = Instant::now();
        let outcome = qemu::boot(&files.image, &initramfs, mode, filter, &log)?;
        let time = start.elapsed().as_secs_f64();
        let Counts { passed, failed, skipped } = outcome.counts;
        let tests = format!("{passed} passed, {failed} failed, {skipped} skipped");
        match &outcome.failure {
            None => println!("vm {} {mode}: pass, {time:.1} s, {tests}", kernel.name),
            Some(reason) => {
                outcome.tail.iter().for_each(|line| println!("  | {line}"));
                println!(
                    "vm {} {mode}: FAIL, {time:.1} s, {tests}: {reason}; log: {}",
                    kernel.name,
                    log.display()
                );
                failure.get_or_insert_with(|| format!("{} {mode}: {reason}", kernel.name));
                // A boot that ended without a failed test still failed.
                total.failed += u64::from(failed == 0);
            }
        }
        total.add(outcome.counts);
    }
    Ok((total, failure))
}

fn write_initramfs(path: &Path, kernel: &kernel::Files) -> Result<()> {
    let mut archive = initramfs::Archive::default();
    for dir in ["bin", "dev", "etc", "lib", "proc", "root", "run", "sys", "tmp", "usr", "var"] {
        archive.directory(dir);
    }
    archive.contents("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n".to_vec());
    let mut programs: Vec<(PathBuf, &str)> = vec![(release_program("guest-init"), "init")];
    for (name, guest) in [("live", "bin/live"), ("ringfence", "bin/ringfence"), ("attempt", "bin/attempt")] {
        programs.push((release_program(name), guest));
    }
    let busybox = find_program("busybox")
        .ok_or_else(|| Unfit("there is no busybox: run `cargo xtask setup`".into()))?;
    programs.push((busybox, "bin/busybox"));
    for (program, guest) in &programs {
        archive.program(program, guest)?;
    }
    for applet in ["cat", "ls", "mknod", "sh", "sleep", "true"] {
        archive.link("busybox", &format!("bin/{applet}"));
    }
    let schema = repository().join("docs/alert.schema.json");
    archive.file(&schema, "alert.schema.json", 0o644)?;
    let rules = repository().join("rules");
    archive.tree(&rules, "rules").context("cannot read the shipped rules")?;
    for module in &kernel.modules {
        if let Some(name) = module.file_name().and_then(|name| name.to_str()) {
            archive.file(module, &format!("lib/modules/{name}"), 0o644)?;
        }
    }
    fs::write(path, archive.finish()).with_context(|| format!("cannot write {}", path.display()))
}
