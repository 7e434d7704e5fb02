//! What an alert tells of a process and its program, and of its namespaces, must be what the kernel did.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::Trial;
use tests::harness::alerts::Expectation;
use tests::harness::{Daemon, PATIENCE, Settings};

use crate::cases::cases;
use crate::watched::Watched;

/// One rule whose alerts have every field that is looked at.
const RULE: &str = "\
- rule: Program
  id: suite-program
  desc: An attempt, and what its program is.
  condition: evt.type = setns
  output: >
    %proc.cmdline %proc.args %proc.exe %proc.cwd %proc.tty %proc.sid %proc.exepath %proc.is_exe_upper_layer
    %proc.is_exe_from_memfd %proc.vpid %proc.pcmdline %proc.acmdline[2] %proc.pexepath %proc.id %proc.parent_id
  priority: WARNING
";

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    cases(
        settings,
        &[
            ("process::program", program),
            ("process::upper_layer", upper_layer),
            ("process::namespaces_by_every_door", namespaces),
        ],
    )
}

struct Told {
    daemon: Daemon,
    _rules: tempfile::TempDir,
}

impl Told {
    fn start(settings: &Settings) -> Result<Told, String> {
        let rules = tempfile::tempdir().map_err(|error| error.to_string())?;
        fs::write(rules.path().join("program.yaml"), RULE).map_err(|error| error.to_string())?;
        let daemon = Daemon::start(settings, &["--rules", &rules.path().display().to_string()])?;
        Ok(Told { daemon, _rules: rules })
    }

    /// Runs the attempt by `program` as `name`, and waits for an alert that says all this.
    fn expect(
        &self,
        program: &Path,
        name: &str,
        dir: &Path,
        facts: &[(&'static str, &str)],
    ) -> Result<(), String> {
        const ARGS: [&str; 4] = ["run", "setns-badfd", "--abi", "x86_64"];
        let output = Command::new(program).arg0(name).args(ARGS).current_dir(dir).output();
        let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
        let json: serde_json::Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stdout)))?;
        let mut wanted = Expectation::new()
            .is("rule", "Program")
            .is("proc.vpid", &json["pid"])
            .is("proc.args", ARGS.join(" "))
            .is("proc.exe", name)
            .is("proc.cwd", dir.display());
        for (field, value) in facts {
            wanted = wanted.is(field, value);
        }
        let alert = self.daemon.expect(&wanted)?;
        let id = |name| alert.get(name).unwrap_or_default();
        if id("proc.id").split('-').count() != 3 || id("proc.id") == id("proc.parent_id") {
            return Err(format!("no id for ever: {}", alert.json));
        }
        Ok(())
    }
}

/// The attempt's file under a name, in a file without one, and under a name that only looks like one.
fn program(settings: &Settings) -> Result<(), String> {
    let told = Told::start(settings)?;
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    // SAFETY: a plain question.
    let session = unsafe { libc::getsid(0) }.to_string();
    let attempt = fs::canonicalize(&settings.attempt).map_err(|error| error.to_string())?;
    let path = attempt.display().to_string();
    let mut on_disk = vec![("proc.exepath", path.as_str()), ("proc.is_exe_from_memfd", "false")];
    // The first process of a guest has no session.
    if session != "0" {
        on_disk.push(("proc.sid", &session));
    }
    told.expect(&attempt, "./-any name", dir.path(), &on_disk)?;
    let named = dir.path().join("memfd:x");
    fs::copy(&settings.attempt, &named).map_err(|error| error.to_string())?;
    told.expect(&named, "x", Path::new("/"), &[("proc.is_exe_from_memfd", "false")])?;
    let memfd = memfd(&settings.attempt).map_err(|error| format!("memfd: {error}"))?;
    let by_number = format!("/proc/self/fd/{}", memfd.as_raw_fd());
    let in_memory = [("proc.exepath", "/memfd:x"), ("proc.is_exe_from_memfd", "true")];
    told.expect(Path::new(&by_number), "x", Path::new("/"), &in_memory)?;
    told.daemon.stop()?.check()
}

fn memfd(content: &Path) -> io::Result<File> {
    // SAFETY: a constant text; the descriptor is new and nobody else's.
    let file = unsafe {
        match libc::memfd_create(c"x".as_ptr(), libc::MFD_CLOEXEC) {
            fd if fd >= 0 => File::from_raw_fd(fd),
            _ => return Err(io::Error::last_os_error()),
        }
    };
    io::copy(&mut File::open(content)?, &mut &file)?;
    Ok(file)
}

/// An overlayfs of our own: a file of the lower layer, one that was written to the upper, and the first again when its
/// mode was changed.
fn upper_layer(settings: &Settings) -> Result<(), String> {
    let told = Told::start(settings)?;
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let tmpfs = Mounted::new("tmpfs", dir.path(), "")?;
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| dir.path().join(name));
    for made in [&lower, &upper, &work, &merged] {
        fs::create_dir(made).map_err(|error| error.to_string())?;
    }
    fs::copy(&settings.attempt, lower.join("old")).map_err(|error| error.to_string())?;
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let overlay = Mounted::new("overlay", &merged, &options)?;
    let (old, new) = (merged.join("old"), merged.join("new"));
    let here = Path::new("/");
    told.expect(&old, "old", here, &[("proc.is_exe_upper_layer", "false")])?;
    fs::copy(&settings.attempt, &new).map_err(|error| error.to_string())?;
    told.expect(&new, "new", here, &[("proc.is_exe_upper_layer", "true")])?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&old, mode).map_err(|error| error.to_string())?;
    told.expect(&old, "changed", here, &[("proc.is_exe_upper_layer", "true")])?;
    // The same file by the file system below.
    told.expect(&upper.join("new"), "below", here, &[("proc.is_exe_upper_layer", "false")])?;
    drop(overlay);
    drop(tmpfs);
    told.daemon.stop()?.check()
}

/// Unmounts when it is dropped.
struct Mounted(CString);

impl Mounted {
    fn new(kind: &str, at: &Path, options: &str) -> Result<Mounted, String> {
        let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
        let (kind_text, place, options) = (text(kind)?, text(&at.display().to_string())?, text(options)?);
        // SAFETY: four texts that live until the call returns.
        let ret = unsafe {
            libc::mount(kind_text.as_ptr(), place.as_ptr(), kind_text.as_ptr(), 0, options.as_ptr().cast())
        };
        match ret {
            0 => Ok(Mounted(place)),
            _ => Err(format!("mount of {kind}: {}", io::Error::last_os_error())),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: a text that lives until the call returns.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

/// In the trampoline mode each change of namespaces comes as a record of its own; without a change none does.
fn namespaces(settings: &Settings) -> Result<(), String> {
    let watched = Watched::start(settings, &[])?;
    let count = || {
        let metrics = watched.daemon.metrics()?;
        metrics
            .sum("ringfence_events_received_total", &[("kind", "nsproxy")])
            .ok_or("no series of namespace changes".to_owned())
    };
    let before = count()?;
    let hooked = settings.attach == "trampoline";
    // SAFETY: the child makes system calls only. It moves into new namespaces by unshare and back by setns.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above; the file is that of the namespace that the child is in.
        unsafe {
            let own = libc::open(c"/proc/self/ns/uts".as_ptr(), libc::O_RDONLY);
            // Into the same one: no change.
            let same = libc::setns(own, libc::CLONE_NEWUTS);
            let moved = libc::unshare(libc::CLONE_NEWUTS | libc::CLONE_NEWIPC);
            let back = libc::setns(own, libc::CLONE_NEWUTS);
            libc::_exit(i32::from(same != 0 || moved != 0 || back != 0));
        }
    }
    let mut status = 0;
    // SAFETY: our child, and a place for its status.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } != child || status != 0 {
        return Err(format!("the child ended with {status}"));
    }
    let expected = if hooked { 2.0 } else { 0.0 };
    let waited = std::time::Instant::now();
    while count()? < before + expected && waited.elapsed() < PATIENCE {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    let found = count()? - before;
    if found != expected {
        return Err(format!("{found} changes of namespaces, {expected} expected"));
    }
    watched.stop().map(drop)
}
