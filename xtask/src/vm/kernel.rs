//! The kernels that the live suite boots, and how they come from Debian's archive.
//!
//! Packages are downloaded by apt and unpacked, never installed. A kernel of the machine's own suite comes by the
//! machine's own apt configuration; see [`crate::apt`] for the others.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::environment::{Unfit, work_dir};
use crate::setup::unpack_package;

/// One kernel: a row of [`KERNELS`].
pub(crate) struct Kernel {
    /// What `--kernel` calls it.
    pub(crate) name: &'static str,
    /// Its packages: for each pattern (of apt-cache, anchored) the newest match, image first.
    packages: &'static [&'static str],
    /// The suite of Debian that has them.
    suite: &'static str,
    /// Controllers that it was built with in version 2 only (`CONFIG_MEMCG_V1`, `CONFIG_CPUSETS_V1`, since 6.11 and
    /// 6.12). In the hybrid layout they are switched off: version 2 has no controllers there.
    pub(crate) version2_only: &'static [&'static str],
}

/// All kernels, oldest first. `x86_64` cloud flavour: small, and everything a guest needs is built in.
const KERNELS: &[Kernel] = &[
    Kernel {
        name: "5.10",
        packages: &[r"^linux-image-5\.10\.0-[0-9]+-cloud-amd64$"],
        suite: "bullseye",
        version2_only: &[],
    },
    Kernel {
        name: "6.1",
        packages: &[r"^linux-image-6\.1\.0-[0-9]+-cloud-amd64$"],
        suite: "bookworm",
        version2_only: &[],
    },
    // Bookworm has it too, but in its security archive only, which a machine need not name.
    Kernel {
        name: "6.12",
        packages: &[r"^linux-image-6\.12\.[0-9]+\+deb13-cloud-amd64$"],
        suite: "trixie",
        version2_only: &["cpuset", "memory"],
    },
    Kernel {
        name: "7.2",
        packages: &[
            r"^linux-binary-7\.2\.[0-9]+\+deb14-cloud-amd64$",
            r"^linux-modules-7\.2\.[0-9]+\+deb14-cloud-amd64$",
        ],
        suite: "sid",
        version2_only: &["cpuset", "memory"],
    },
];

/// Modules that the suite uses, by file name. Newer kernels have them packed, with `.xz` behind the name.
const MODULES: &[&str] = &["msr.ko", "overlay.ko"];

/// An unpacked kernel.
pub(crate) struct Files {
    /// What QEMU boots.
    pub(crate) image: PathBuf,
    /// [`MODULES`], perhaps packed.
    pub(crate) modules: Vec<PathBuf>,
}

/// The name that stands for every kernel.
pub(super) const ALL: &str = "all";

/// The kernel of that name, or all of them.
pub(super) fn find(name: &str) -> Result<Vec<&'static Kernel>> {
    let found: Vec<_> = KERNELS.iter().filter(|kernel| name == ALL || kernel.name == name).collect();
    if found.is_empty() {
        let names: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
        let known = names.join(", ");
        return Err(Unfit(format!("there is no kernel `{name}`; known are {known} and `{ALL}`")).into());
    }
    Ok(found)
}

/// What the kernels are called, oldest first.
#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KERNELS.iter().map(|kernel| kernel.name)
}

/// Downloads and unpacks a kernel, unless an earlier run did.
pub(crate) fn fetch(kernel: &Kernel) -> Result<Files> {
    let dir = work_dir("vm/kernels")?.join(kernel.name);
    if let Ok(files) = locate(&dir) {
        return Ok(files);
    }
    let apt = Apt::for_suite(kernel.suite)?;
    for (index, pattern) in kernel.packages.iter().enumerate() {
        let package = apt.newest(pattern)?;
        println!("vm: fetching {package} (Debian {})", kernel.suite);
        let part = dir.join(format!("package-{index}"));
        fs::create_dir_all(&dir)?;
        unpack_package(&package, &apt.options, &work_dir("vm/download")?, &part)?;
    }
    locate(&dir)
        .with_context(|| format!("the packages of kernel {} do not hold what was expected", kernel.name))
}

/// The image and the modules below `dir`.
fn locate(dir: &Path) -> Result<Files> {
    let mut image = None;
    let mut modules = Vec::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            } else if name == "vmlinuz" || name.starts_with("vmlinuz-") {
                image = Some(entry.path());
            } else if MODULES.contains(&name.trim_end_matches(".xz")) {
                modules.push(entry.path());
            }
        }
    }
    if modules.len() < MODULES.len() {
        bail!("not all of the modules {}", MODULES.join(", "));
    }
    Ok(Files { image: image.context("no image")?, modules })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kernel_is_named_with_the_known_ones() {
        let error = find("2.6").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("2.6") && error.contains("6.1"), "{error}");
        assert_eq!(find(ALL).map(|kernels| kernels.len()).unwrap_or_default(), KERNELS.len());
    }
}
