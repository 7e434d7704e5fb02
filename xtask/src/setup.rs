//! `cargo xtask setup`: installs what is missing on Debian, names it elsewhere.
//!
//! A piece counts as present when its package is installed or when the program or file that we want from it is
//! there, so a Docker or a QEMU from another source is left alone. A second run asks the network nothing.

mod collector;
mod emulator;
mod kubernetes;
pub(crate) mod schemas;
mod tools;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use self::tools::{BPF_LINKER, TOOLS, Tool};
use crate::environment::{Privilege, Unfit, cargo, find_program, work_dir};
use crate::process;

const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// What needs a piece. The order matters: a later group includes the earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// `cargo xtask run`: to build.
    Build,
    /// `cargo xtask test`: to build and to test.
    Test,
}

/// How a Debian package comes to the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    /// By apt.
    Install,
    /// Only unpacked below the target directory, with what it needs and the machine lacks: its installation would
    /// change how the machine works.
    Unpack,
    /// The same without what it needs, because what the tests run of it is linked statically: the rest would be some
    /// hundred megabytes of a web page.
    UnpackAlone,
}

impl Method {
    const fn unpacks(self) -> bool {
        matches!(self, Method::Unpack | Method::UnpackAlone)
    }
}

struct Piece {
    package: &'static str,
    group: Group,
    method: Method,
    why: &'static str,
    /// A program, an unpacked library (no slash) or a path that shows that the piece is there, whatever package brought it.
    evidence: &'static str,
}

const fn build(package: &'static str, evidence: &'static str, why: &'static str) -> Piece {
    Piece { package, group: Group::Build, method: Method::Install, why, evidence }
}

const fn test(package: &'static str, evidence: &'static str, why: &'static str) -> Piece {
    Piece { package, group: Group::Test, method: Method::Install, why, evidence }
}

const fn unpacked(package: &'static str, evidence: &'static str, why: &'static str) -> Piece {
    Piece { package, group: Group::Test, method: Method::Unpack, why, evidence }
}

const fn unpacked_alone(package: &'static str, evidence: &'static str, why: &'static str) -> Piece {
    Piece { package, group: Group::Test, method: Method::UnpackAlone, why, evidence }
}

const PIECES: &[Piece] = &[
    build("gcc", "cc", "links host programs"),
    build("rustc-web", "/usr/lib/rustlib/bpfel-unknown-none", "compiles the BPF programs without a nightly"),
    build(
        "libstd-rust-web-dev-bpf",
        "/usr/lib/rustlib/bpfel-unknown-none",
        "the compiled `core` for the BPF target",
    ),
    build(
        "llvm-22-dev",
        "/usr/lib/llvm-22/bin/llvm-config",
        "bpf-linker's code generator, the version of rustc-web",
    ),
    build("libpolly-22-dev", "/usr/lib/llvm-22/lib/libPolly.a", "llvm-22 names it among its own libraries"),
    build("zlib1g-dev", "/usr/include/zlib.h", "bpf-linker links it for LLVM"),
    build("libzstd-dev", "/usr/include/zstd.h", "bpf-linker links it for LLVM"),
    test("rust-web-clippy", "/usr/bin/clippy-driver", "lints the BPF programs with their own compiler"),
    test("g++", "c++", "builds the fuzzers' engine"),
    test("docker.io", "dockerd", "the live suite runs a Docker of its own; the system's is not started"),
    test("busybox-static", "/usr/share/doc/busybox-static", "the user land of test containers and guests"),
    test("util-linux", "nsenter", "everyday programs that make watched calls: nsenter, unshare, setpriv"),
    test("util-linux-extra", "hwclock", "an everyday program that sets the clock; it does so in guests only"),
    test("libcap2-bin", "capsh", "an everyday program that changes capabilities"),
    test("systemd", "systemd-sysusers", "what Ringfence's own package asks of a machine"),
    test("man-db", "man", "shows the manual pages in Ringfence's own package"),
    test("python3-pip", "pip3", "downloads schemas and an OpenTelemetry collector"),
    test("openssl", "openssl", "makes certificates for the outputs' tests"),
    test("jq", "jq", "the documents use it, and their commands are run"),
    // Installed, it would replace the machine's time service, whichever that is.
    unpacked("chrony", "chronyd", "the quiet-host test runs it, with clock changes off"),
    // Installed, it would be one more runtime that the machine's Podman may choose.
    unpacked("crun", "crun", "starts real containers in guests"),
    unpacked("libyajl2", "libyajl.so.2", "crun loads it"),
    // Installed, it would bring services that start containers when the machine boots.
    unpacked("podman", "podman", "the live suite runs containers by it, in directories of its own"),
    unpacked("conmon", "conmon", "holds Podman's containers"),
    // Installed, each would start a service. The outputs' tests run them in directories of their own.
    unpacked("nginx", "nginx", "takes webhooks, and is slow or broken if wanted"),
    unpacked("rsyslog-openssl", "rsyslogd", "takes syslog, over TLS as well"),
    unpacked("prometheus-alertmanager", "prometheus-alertmanager", "takes alerts"),
    // Installed, it would start a server on port 9090. It has promtool, too.
    unpacked_alone(
        "prometheus",
        "prometheus",
        "scrapes the daemon and evaluates the shipped alert rules and dashboard",
    ),
];

/// Pieces that only the building of bpf-linker needs.
const LINKER_PARTS: &[&str] = &["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"];

/// Pieces that a rustup nightly with rust-src stands in for; `monitor/build.rs` takes either.
const COMPILER_PARTS: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf", "rust-web-clippy"];

/// Components of the host's toolchain that tests need.
const COMPONENTS: &[&str] = &["clippy", "rustfmt"];

/// Directories with programs of pieces that are unpacked, not installed.
pub(crate) fn unpacked_programs() -> Result<Vec<PathBuf>> {
    let mut directories = unpacked_directories(&["usr/sbin", "usr/bin"])?;
    directories.push(collector::directory()?);
    directories.extend(kubernetes::programs()?);
    Ok(directories)
}

/// Directories with shared libraries of such pieces.
pub(crate) fn unpacked_libraries() -> Result<Vec<PathBuf>> {
    let mut directories = unpacked_directories(&["usr/lib/x86_64-linux-gnu"])?;
    directories.extend(collector::libraries()?);
    Ok(directories)
}

fn unpacked_directories(below: &[&str]) -> Result<Vec<PathBuf>> {
    let pieces = work_dir("xtask/pieces")?;
    let roots = PIECES.iter().filter(|piece| piece.method.unpacks()).map(|piece| pieces.join(piece.package));
    let directories = roots.flat_map(|root| below.iter().map(move |below| root.join(below)));
    Ok(directories.filter(|directory| directory.is_dir()).collect())
}

/// Prints what both groups lack; true when that is nothing.
pub(crate) fn report_missing() -> Result<bool> {
    let missing = Missing::find(Group::Test)?;
    if missing.is_empty() {
        println!("setup: everything is there");
    } else {
        println!("setup: missing\n{}", missing.list());
    }
    Ok(missing.is_empty())
}

/// Installs what a group lacks.
///
/// # Errors
/// [`Unfit`] on a system that it does not know, or whose package sources lack a piece.
pub(crate) fn install(group: Group) -> Result<()> {
    let missing = Missing::find(group)?;
    if missing.is_empty() {
        eprintln!("setup: everything is there");
        return Ok(());
    }
    if let Some(reason) = unknown_system() {
        let list = missing.list();
        return Err(Unfit(format!(
            "setup knows Debian 12 and later only ({reason}); please install\n{list}"
        ))
        .into());
    }
    eprintln!("setup: installing\n{}", missing.list());
    if missing.asks_apt() {
        read_package_lists()?;
    }
    if !missing.packages.is_empty() {
        install_packages(&missing.packages)?;
    }
    if !missing.components.is_empty() {
        let mut rustup = Command::new("rustup");
        process::run(rustup.args(["component", "add"]).args(&missing.components))?;
    }
    if missing.emulator {
        emulator::install()?;
    }
    if missing.schemas {
        schemas::install()?;
    }
    if missing.collector {
        collector::install()?;
    }
    if missing.kustomize {
        kubernetes::install_kustomize()?;
    }
    if missing.validator {
        kubernetes::install_validator()?;
    }
    missing.tools.iter().try_for_each(|tool| tool.install())?;
    let left = Missing::find(group)?;
    if !left.is_empty() {
        return Err(Unfit(format!("setup ran, and these are still missing\n{}", left.list())).into());
    }
    eprintln!("setup: done");
    Ok(())
}

struct Missing {
    packages: Vec<&'static Piece>,
    /// Parts of the Rust toolchain that rustup's minimal profile lacks.
    components: Vec<&'static str>,
    emulator: bool,
    schemas: bool,
    collector: bool,
    kustomize: bool,
    validator: bool,
    tools: Vec<&'static Tool>,
}

impl Missing {
    fn find(group: Group) -> Result<Self> {
        let wanted: Vec<_> = PIECES.iter().filter(|piece| piece.group <= group).collect();
        let installed = installed_packages(wanted.iter().map(|piece| piece.package));
        let extra = [unpacked_programs()?, unpacked_libraries()?].concat();
        let linker_fits = BPF_LINKER.fits();
        let nightly = nightly_builds_core();
        let present = |piece: &Piece| {
            installed.contains(piece.package)
                || (linker_fits && LINKER_PARTS.contains(&piece.package))
                || (nightly && COMPILER_PARTS.contains(&piece.package))
                || if piece.evidence.starts_with('/') {
                    Path::new(piece.evidence).exists()
                } else {
                    find_program(piece.evidence).is_some()
                        || extra.iter().any(|dir| dir.join(piece.evidence).is_file())
                }
        };
        let packages = wanted.into_iter().filter(|piece| !present(piece)).collect();
        let wanted = if group >= Group::Test { COMPONENTS } else { &[] };
        let components = wanted.iter().copied().filter(|component| !has_component(component)).collect();
        let emulator = group >= Group::Test && !emulator::fits();
        let schemas = group >= Group::Test && !schemas::are_there()?;
        let collector = group >= Group::Test && !collector::is_there()?;
        let (kustomize, validator) = match group >= Group::Test {
            true => (!kubernetes::has_kustomize()?, !kubernetes::has_validator()?),
            false => (false, false),
        };
        let tools = TOOLS.iter().filter(|tool| tool.group <= group && !tool.fits()).collect();
        Ok(Self { packages, components, emulator, schemas, collector, kustomize, validator, tools })
    }

    fn is_empty(&self) -> bool {
        let others = self.emulator || self.schemas || self.collector || self.kustomize || self.validator;
        self.packages.is_empty() && self.components.is_empty() && !others && self.tools.is_empty()
    }

    /// Whether packages of Debian's may be among what is missing.
    fn asks_apt(&self) -> bool {
        !self.packages.is_empty() || self.emulator || self.collector || self.kustomize || self.validator
    }

    fn list(&self) -> String {
        let mut lines: Vec<_> =
            self.packages.iter().map(|piece| format!("  {:<24} {}", piece.package, piece.why)).collect();
        for component in &self.components {
            lines.push(format!("  {:<24} checks the sources", format!("{component} (rustup)")));
        }
        let others = [
            (self.emulator, (emulator::NAME, emulator::WHY)),
            (self.schemas, schemas::SCHEMAS),
            (self.collector, collector::COLLECTOR),
            (self.kustomize, kubernetes::KUSTOMIZE),
            (self.validator, kubernetes::VALIDATE),
        ];
        let missing = others.into_iter().filter(|(is_missing, _)| *is_missing);
        lines.extend(missing.map(|(_, (name, why))| format!("  {name:<24} {why}")));
        lines.extend(self.tools.iter().map(|tool| format!("  {:<24} {}", tool.title(), tool.why)));
        lines.join("\n")
    }
}

/// Those of `packages` that dpkg calls installed; none where there is no dpkg.
fn installed_packages<'a>(packages: impl Iterator<Item = &'a str>) -> HashSet<String> {
    // It exits with 1 when it does not know one of them, and still answers for the others.
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(packages)
        .output();
    let text = query.map(|result| String::from_utf8_lossy(&result.stdout).into_owned()).unwrap_or_default();
    text.lines().filter_map(|line| line.strip_suffix(" installed").map(str::to_owned)).collect()
}

/// Whether the toolchain's program for a component runs; rustup's proxy for it is there in any case.
fn has_component(component: &str) -> bool {
    let subcommand = if component == "rustfmt" { "fmt" } else { component };
    process::output(cargo().args([subcommand, "--version"])).is_ok()
}

fn nightly_builds_core() -> bool {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", "nightly", "rustc", "--print", "sysroot"]).env("RUSTUP_AUTO_INSTALL", "0");
    process::output(&mut rustc)
        .is_ok_and(|root| Path::new(root.trim()).join("lib/rustlib/src/rust/library/core").is_dir())
}

/// Why we cannot install here; `None` on Debian 12 or later.
fn unknown_system() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    let id = field("ID").unwrap_or_else(|| "unknown".to_owned());
    // Testing and unstable have no number: they are later than any release.
    let version = field("VERSION_ID").map_or(Ok(u32::MAX), |text| text.parse::<u32>());
    match version {
        _ if id != "debian" => Some(format!("this is {id}")),
        Ok(version) if version < 12 => Some(format!("this is Debian {version}")),
        Err(_) => Some("/etc/os-release has an unknown VERSION_ID".to_owned()),
        Ok(_) if find_program("apt-get").is_none() => Some("there is no apt-get".to_owned()),
        Ok(_) => None,
    }
}

/// Installs packages without a service starting, restarting or stopping: Debian's maintainer scripts ask
/// policy-rc.d. What stood in its place comes back, also after Ctrl-C and after an earlier run that was killed.
const APT_SCRIPT: &str = r#"
set -eu
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
policy=/usr/sbin/policy-rc.d
kept=$policy.kept-by-ringfence
restore() {
    if grep -qs 'for ringfence setup' "$policy"; then rm -f "$policy"; fi
    if [ -e "$kept" ]; then mv -f "$kept" "$policy"; fi
}
restore
trap restore EXIT
trap 'exit 130' HUP INT TERM
if [ -e "$policy" ]; then mv "$policy" "$kept"; fi
printf '#!/bin/sh\n# No service starts: for ringfence setup, while it installs packages.\nexit 101\n' > "$policy"
chmod 755 "$policy"
apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -qq install --no-install-recommends "$@"
"#;

/// Brings apt's lists up to date, which images come without. Nobody but root can; what is only unpacked may do without.
fn read_package_lists() -> Result<()> {
    let privilege = Privilege::detect();
    if privilege == Privilege::None {
        return Ok(());
    }
    let mut apt = privilege.command(Path::new("apt-get"), "to read the lists of packages")?;
    process::run(apt.args(["-o", "DPkg::Lock::Timeout=300", "-qq", "update"]))
}

fn install_packages(pieces: &[&'static Piece]) -> Result<()> {
    let privilege = Privilege::detect();
    let unavailable: Vec<_> = pieces.iter().filter(|piece| !has_candidate(piece.package)).collect();
    if !unavailable.is_empty() {
        let names: Vec<_> = unavailable.iter().map(|piece| piece.package).collect();
        let names = names.join(", ");
        return Err(
            Unfit(format!("this machine's package sources lack {names}; please install by hand")).into()
        );
    }
    let to_install: Vec<_> = pieces.iter().filter(|piece| piece.method == Method::Install).collect();
    if !to_install.is_empty() {
        let mut shell = privilege.command(Path::new("/bin/sh"), "to install packages")?;
        shell.args(["-c", APT_SCRIPT, "setup", "-y"]).args(to_install.iter().map(|piece| piece.package));
        process::run(&mut shell).context("apt-get could not install the packages; its reasons are above")?;
    }
    for piece in pieces.iter().filter(|piece| piece.method.unpacks()) {
        let dir = work_dir("xtask/pieces")?;
        let packages = match piece.method {
            Method::UnpackAlone => vec![piece.package.to_owned()],
            Method::Install | Method::Unpack => with_needed(piece.package)?,
        };
        unpack_packages(
            &packages,
            &[],
            &dir.join(format!("{}.deb.d", piece.package)),
            &dir.join(piece.package),
        )?;
    }
    Ok(())
}

/// A package and those that its installation would bring, as apt sees this machine.
fn with_needed(package: &str) -> Result<Vec<String>> {
    let mut apt = Command::new("apt-get");
    apt.args(["-qq", "--simulate", "--no-install-recommends", "install", package]);
    let plan = process::output(&mut apt).with_context(|| format!("apt cannot say what {package} needs"))?;
    Ok(new_packages(&plan))
}

/// The packages that a simulation of apt installs anew: `Inst conmon (2.1.6 …`. What it would only bring up to date
/// is there already: `Inst login [4.13] (4.14 …`.
fn new_packages(plan: &str) -> Vec<String> {
    let new = plan.lines().filter_map(|line| {
        let mut words = line.strip_prefix("Inst ")?.split(' ');
        let name = words.next()?;
        words.next()?.starts_with('(').then(|| name.to_owned())
    });
    new.collect()
}

fn has_candidate(package: &str) -> bool {
    process::output(Command::new("apt-cache").args(["policy", package])).is_ok_and(|text| {
        text.lines().any(|l| l.trim().strip_prefix("Candidate: ").is_some_and(|v| v != "(none)"))
    })
}

/// Downloads a package into `download` and unpacks it into `destination`, without installing it and without root.
/// `options` go to apt-get.
pub(crate) fn unpack_package(
    package: &str,
    options: &[String],
    download: &Path,
    destination: &Path,
) -> Result<()> {
    unpack_packages(&[package.to_owned()], options, &download.join(format!("{package}.deb.d")), destination)
}

/// The same for several, which share the destination; `debs` is made for the download and removed.
fn unpack_packages(packages: &[String], options: &[String], debs: &Path, destination: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(debs);
    fs::create_dir_all(debs).with_context(|| format!("cannot create {}", debs.display()))?;
    let mut apt = Command::new("apt-get");
    // The sandbox user of apt cannot write here; the file is checked against the archive's signature anyway.
    apt.args(["-qq", "-o", "APT::Sandbox::User="]).args(options).arg("download").args(packages);
    process::run(apt.current_dir(debs)).with_context(|| format!("cannot download {}", packages.join(" ")))?;
    // Unpack beside the destination first: half a package must not look like a whole one on the next run.
    let partial = destination.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    for deb in fs::read_dir(debs)? {
        process::run(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(&partial))?;
    }
    let _ = fs::remove_dir_all(destination);
    fs::rename(&partial, destination).with_context(|| format!("cannot create {}", destination.display()))?;
    fs::remove_dir_all(debs)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::new_packages;

    #[test]
    fn only_what_is_not_there_comes_with_a_package() {
        let plan = "Inst login [1:4.13-1] (1:4.13-2 Debian:12/stable [amd64])\nConf login (1:4.13-2 x)\n\
                    Inst conmon (2.1.6 Debian:12/stable [amd64])\nRemv other [1]\nInst podman (4.3.1 x)\n";
        assert_eq!(new_packages(plan), ["conmon", "podman"]);
    }
}
