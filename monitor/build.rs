//! Compiles the BPF programs (`../monitor-ebpf`) and names the object for `include_bytes!`.
//!
//! `env!("RINGFENCE_BPF_OBJECT")` is the object's path in the daemon's sources. Not aya-build: it insists on
//! a rustup nightly and on building `core` itself, while Debian packages a stable compiler with a compiled
//! `core` for this target. With `RINGFENCE_SKIP_BPF=1` an empty object is embedded, which the daemon refuses
//! at start; that serves machines that only check or document the host code.
//!
//! The object is the same byte by byte wherever it is built: `monitor-ebpf/common` is a link to `monitor-common`,
//! because cargo hashes the whole path of a package outside of the workspace into its symbols, and the directories of
//! this machine are mapped to fixed names. The price is that the verifier's log no longer shows lines of the source, for
//! the linker does not find them; `RINGFENCE_BPF_SOURCE_LINES=1` keeps them, for whoever has to read such a log.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const TARGET: &str = "bpfel-unknown-none";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const BIN: &str = "ringfence-ebpf";
/// What separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const FLAG_END: &str = "\x1f";

/// The compiler that can build for [`TARGET`].
enum Toolchain {
    /// Debian's rustc-web, which has a compiled `core`.
    Debian,
    /// rustup's nightly with rust-src, which compiles `core` along.
    Nightly,
}

fn main() {
    let manifest_dir =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let repository = manifest_dir.parent().expect("the package lies in the repository");
    let package = repository.join("monitor-ebpf");
    let inputs =
        ["monitor-ebpf/src", "monitor-ebpf/Cargo.toml", "monitor-ebpf/Cargo.lock", "monitor-common/src"];
    for input in inputs.iter().chain(&["monitor-common/Cargo.toml"]) {
        println!("cargo::rerun-if-changed={}", repository.join(input).display());
    }
    println!("cargo::rerun-if-changed={}", manifest_dir.join("build.rs").display());
    println!("cargo::rerun-if-env-changed=RINGFENCE_SKIP_BPF");
    println!("cargo::rerun-if-env-changed=RINGFENCE_BPF_SOURCE_LINES");
    println!("cargo::rustc-env=RINGFENCE_REVISION={}", revision(repository));

    let object = if env::var_os("RINGFENCE_SKIP_BPF").is_some_and(|value| value == "1") {
        let empty = out_dir.join("empty.o");
        fs::write(&empty, b"").expect("OUT_DIR is writable");
        empty
    } else {
        let Some(toolchain) = find_toolchain() else {
            println!(
                "cargo::error=the BPF toolchain is not installed: run `cargo xtask setup` once, then build again"
            );
            return;
        };
        compile(&toolchain, &package, &out_dir.join("bpf"))
    };
    println!("cargo::rustc-env=RINGFENCE_BPF_OBJECT={}", object.display());
}

/// The commit that is built, for `build_info`: what `RINGFENCE_REVISION` says, or what git says, or `unknown`. Builds for
/// development do not ask git, or each commit would make them anew.
fn revision(repository: &Path) -> String {
    const UNKNOWN: &str = "unknown";
    println!("cargo::rerun-if-env-changed=RINGFENCE_REVISION");
    // What stands in metrics and in `--version` is a commit's number, or a packager's word for it.
    let is_plain = |text: &String| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+~".contains(&b))
    };
    if let Ok(told) = env::var("RINGFENCE_REVISION") {
        return Some(told).filter(is_plain).unwrap_or_else(|| UNKNOWN.to_owned());
    }
    if env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        return UNKNOWN.to_owned();
    }
    let git = |arguments: &[&str]| {
        let answer = output(Command::new("git").arg("-C").arg(repository).args(arguments))?;
        Some(answer.trim().to_owned())
    };
    // A checkout writes the first, a commit the second.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]) {
            println!("cargo::rerun-if-changed={}", repository.join(path).display());
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"]).filter(is_plain).unwrap_or_else(|| UNKNOWN.to_owned())
}

/// The first usable compiler; none without a linker for its output.
fn find_toolchain() -> Option<Toolchain> {
    output(Command::new("bpf-linker").arg("--version"))?;
    let library =
        |sysroot: String, below: &str| Path::new(sysroot.trim()).join("lib/rustlib").join(below).is_dir();
    if output(clean(DEBIAN_RUSTC).args(["--print", "sysroot"])).is_some_and(|root| library(root, TARGET)) {
        return Some(Toolchain::Debian);
    }
    output(clean("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))
        .is_some_and(|root| library(root, "src/rust/library/core"))
        .then_some(Toolchain::Nightly)
}

/// Builds the object below `target_dir` and returns its path; ends the script when the compiler refuses.
fn compile(toolchain: &Toolchain, package: &Path, target_dir: &Path) -> PathBuf {
    let mut cargo = match toolchain {
        Toolchain::Debian => {
            let mut cargo = clean(&env::var("CARGO").expect("cargo sets CARGO"));
            // RUSTC_BOOTSTRAP: aya-ebpf's entry points need unstable features of the target, not of the language.
            cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1").arg("build");
            cargo
        }
        Toolchain::Nightly => {
            let mut cargo = clean("rustup");
            cargo.args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"]);
            cargo
        }
    };
    // Without its third option bpf-linker tells LLVM to leave each small memset and memcpy to a function with a loop over
    // the bytes: on 6.1 the verifier then walks a million instructions and gives up, instead of 87,000.
    // BTF and debug information are what the loader and `bpftool` name maps and programs by.
    let mut flags: Vec<String> =
        ["linker=bpf-linker", "link-arg=--btf", "link-arg=--disable-expand-memcpy-in-order", "debuginfo=2"]
            .map(|option| format!("-C{option}"))
            .into();
    if env::var_os("RINGFENCE_BPF_SOURCE_LINES").is_none_or(|value| value != "1") {
        flags.extend(mapped_prefixes(package));
    }
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(FLAG_END))
        .args(["--release", "--locked", "--target", TARGET, "--bin", BIN, "--target-dir"])
        .arg(target_dir)
        .current_dir(package);
    match cargo.status() {
        Ok(status) if status.success() => target_dir.join(TARGET).join("release").join(BIN),
        Ok(status) => {
            eprintln!("the BPF programs did not compile ({status}); the compiler's reasons are above");
            exit(1)
        }
        Err(error) => {
            eprintln!("cannot start {:?}: {error}", cargo.get_program());
            exit(1)
        }
    }
}

/// The options that take this machine's directories out of the object.
fn mapped_prefixes(package: &Path) -> Vec<String> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    // One directory for each registry, named by its address.
    let registries = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok()).into_iter().flatten();
    let mut prefixes: Vec<_> = registries.flatten().map(|entry| (entry.path(), "/usr/src/crates")).collect();
    prefixes.sort();
    if let Some(repository) = package.parent() {
        prefixes.push((repository.to_owned(), "/usr/src/ringfence"));
    }
    let option = |(from, to): (PathBuf, &str)| format!("--remap-path-prefix={}={to}", from.display());
    prefixes.into_iter().map(option).collect()
}

/// A command without what the outer cargo and rustup set: their flags, wrappers and toolchain are for the host.
/// The job server stays, so that both builds together keep to the number of jobs asked for.
fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let outer = text.starts_with("CARGO") || text.starts_with("RUSTC") || text.starts_with("RUSTDOC");
        // Where cargo finds packages is the user's choice for both builds.
        let network = ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
        let keep = matches!(text, "CARGO_HOME" | "CARGO_MAKEFLAGS")
            || network.iter().any(|prefix| text.starts_with(prefix));
        if (outer && !keep) || matches!(text, "RUSTFLAGS" | "RUSTUP_TOOLCHAIN" | "CLIPPY_ARGS") {
            command.env_remove(&name);
        }
    }
    // A missing nightly is an answer, not a reason to download one.
    command.env("RUSTUP_AUTO_INSTALL", "0");
    command
}

/// Standard output of a command that succeeds.
fn output(command: &mut Command) -> Option<String> {
    let result = command.output().ok()?;
    result.status.success().then(|| String::from_utf8_lossy(&result.stdout).into_owned())
}
