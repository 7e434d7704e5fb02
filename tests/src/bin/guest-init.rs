//! The first process of a guest: mounts what is needed, runs the live suite, says how it ended, powers off.
//!
//! The kernel's command line holds `ringfence.attach=MODE` (without it nothing may set the clock, and the
//! suite refuses to run) and may hold `ringfence.filter=TEXT` and `ringfence.cgroups=LAYOUT`, how control groups
//! are mounted: `v2` (the default), `hybrid` or `v1`. The verdict is one line on the console that starts with `RINGFENCE-GUEST: pass` or `RINGFENCE-GUEST: fail`.
//!
//! With `ringfence.service` on the command line it becomes systemd instead, as soon as there is what the kernel needs.
//! systemd starts this program again, with `--suite`, as a service of its own: see `xtask/src/vm/service.rs`.

use std::ffi::CString;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use ::tests::matrix::record::PREFIX;

/// Where the suite leaves the record of its matrix.
const RECORD: &str = "/run/record.jsonl";

/// File systems: type, where, whether the suite needs it.
const MOUNTS: &[(&str, &str, bool)] = &[
    ("proc", "/proc", true),
    ("sysfs", "/sys", true),
    ("devtmpfs", "/dev", true),
    ("devpts", "/dev/pts", true),
    ("tmpfs", "/tmp", true),
    ("tmpfs", "/run", true),
    ("bpf", "/sys/fs/bpf", false),
    ("tracefs", "/sys/kernel/tracing", false),
    ("securityfs", "/sys/kernel/security", false),
];

fn main() {
    let is_service = std::env::args().nth(1).is_some_and(|argument| argument == "--suite");
    // SAFETY: a plain question.
    if unsafe { libc::getpid() } != 1 && !(is_service && ::tests::attempt::is_own_guest()) {
        eprintln!("guest-init is the first process of a guest; it does nothing anywhere else");
        std::process::exit(2);
    }
    std::panic::set_hook(Box::new(|panic| {
        println!("RINGFENCE-GUEST: fail the first process panicked: {panic}");
        power_off();
    }));
    let worked = if is_service { suite() } else { prepare().and_then(|()| suite()) };
    match worked {
        Ok(verdict) => println!("RINGFENCE-GUEST: {verdict}"),
        Err(error) => println!("RINGFENCE-GUEST: fail {error}"),
    }
    power_off();
}

fn power_off() -> ! {
    // SAFETY: process 1 of a guest may do both. The console is written through, so nothing is cut off.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    // Without ACPI the kernel halts instead; whoever booted the guest has its verdict.
    loop {
        // SAFETY: sleeps until a signal.
        unsafe { libc::pause() };
    }
}

/// Whether systemd runs the suite: see [`become_systemd`].
const SERVICE: &str = "ringfence.service";

/// The machine as far as the suite needs it.
fn prepare() -> io::Result<()> {
    for (kind, target, needed) in MOUNTS {
        match mount(kind, target, "") {
            Err(error) if *needed => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("cannot mount {kind} on {target}: {error}"),
                ));
            }
            _ => {}
        }
    }
    fs::write("/sys/devices/system/cpu/cpu1/online", "1")?;
    loopback_up()?;
    await_entropy();
    load_modules()?;
    // At Debian's own level, 3, which no other kernel has, CAP_PERFMON gives nobody anything.
    fs::write("/proc/sys/kernel/perf_event_paranoid", "2")?;
    let line = command_line()?;
    if line.split_whitespace().any(|word| word == SERVICE) {
        return Err(become_systemd());
    }
    mount_cgroups(option(&line, "ringfence.cgroups=").unwrap_or("v2"))
        .map_err(|error| io::Error::new(error.kind(), format!("cannot mount cgroups: {error}")))
}

fn command_line() -> io::Result<String> {
    fs::read_to_string("/proc/cmdline")
}

fn option<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(key))
}

/// Makes the users that packages would have made, and gives process 1 to systemd.
fn become_systemd() -> io::Error {
    match Command::new("/bin/systemd-sysusers").status() {
        Ok(status) if status.success() => Command::new("/lib/systemd/systemd").exec(),
        Ok(status) => io::Error::other(format!("systemd-sysusers: {status}")),
        Err(error) => io::Error::new(error.kind(), format!("systemd-sysusers: {error}")),
    }
}

/// Runs the suite; gives the verdict.
fn suite() -> io::Result<String> {
    let line = command_line()?;
    let attach = option(&line, "ringfence.attach=").unwrap_or("auto");
    let mut command = Command::new("/bin/live");
    command.args([
        "--guest",
        "--attach",
        attach,
        "--ringfence",
        "/bin/ringfence",
        "--attempt",
        "/bin/attempt",
    ]);
    command.args(["--rules", "/rules", "--schema", "/alert.schema.json", "--record", RECORD]);
    let mut directory = "/tmp";
    if line.split_whitespace().any(|word| word == SERVICE) {
        command.arg("--services");
        // The service has a /tmp of its own.
        directory = "/run/suite";
        fs::create_dir_all(directory)?;
    }
    command.args(option(&line, "ringfence.filter="));
    command.env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin").env("TMPDIR", directory).current_dir("/");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut result = String::new();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            if line.starts_with("test result: ") {
                result = line;
            }
        }
    }
    let status = child.wait()?;
    // A suite that ended early has left none.
    for line in fs::read_to_string(RECORD).unwrap_or_default().lines() {
        println!("{PREFIX}{line}");
    }
    Ok(verdict(status.success(), &status.to_string(), &result))
}

/// The verdict's text from the suite's exit and its line of counts. A suite that ran nothing has not passed.
fn verdict(success: bool, status: &str, result: &str) -> String {
    let count = |word: &str| {
        let numbers = result.split(';').find(|part| part.trim_end().ends_with(word));
        numbers.and_then(|part| part.split_whitespace().rev().nth(1)).and_then(|n| n.parse::<u32>().ok())
    };
    match (count("passed"), count("failed"), count("ignored")) {
        (Some(passed), Some(0), Some(skipped)) if success && passed > 0 => {
            format!("pass {passed} passed, 0 failed, {skipped} skipped")
        }
        (Some(passed), Some(failed), Some(skipped)) => {
            format!("fail {passed} passed, {failed} failed, {skipped} skipped ({status})")
        }
        _ => format!("fail the suite gave no result ({status})"),
    }
}

/// Mounts control groups as systemd does in each of its layouts.
fn mount_cgroups(layout: &str) -> io::Result<()> {
    const PLACE: &str = "/sys/fs/cgroup";
    if layout == "v2" {
        return mount("cgroup2", PLACE, "");
    }
    if layout != "v1" && layout != "hybrid" {
        return Err(io::Error::other(format!("no layout is called `{layout}`")));
    }
    mount("tmpfs", PLACE, "mode=755")?;
    for name in controllers(&fs::read_to_string("/proc/cgroups")?) {
        let target = format!("{PLACE}/{name}");
        // Newer kernels list controllers that have no version 1 any more.
        if let Err(error) = mount("cgroup", &target, name) {
            println!("guest: no version 1 of {name}: {error}");
            fs::remove_dir(&target)?;
        }
    }
    mount("cgroup", &format!("{PLACE}/systemd"), "none,name=systemd")?;
    if layout == "hybrid" { mount("cgroup2", &format!("{PLACE}/unified"), "") } else { Ok(()) }
}

/// The enabled controllers in `/proc/cgroups`: name, hierarchy, number of cgroups, enabled.
fn controllers(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (words.nth(2) == Some("1")).then_some(name)
    })
}

fn mount(kind: &str, target: &str, options: &str) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let (kind, target, options) = (CString::new(kind)?, CString::new(target)?, CString::new(options)?);
    // SAFETY: strings that end in NUL.
    let ret =
        unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast()) };
    // The kernel may have mounted /dev itself.
    match io::Error::last_os_error() {
        _ if ret == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        error => Err(error),
    }
}

/// Waits until the kernel's random numbers are ready, which takes a second or two in a bare guest.
///
/// Asked by this call the kernel gathers entropy itself. Programs linked statically wait by polling
/// /dev/random instead, which gathers nothing: they would wait for ever.
fn await_entropy() {
    let mut byte = 0_u8;
    // SAFETY: the kernel writes one byte. A kernel that cannot do it leaves things as they are.
    unsafe { libc::syscall(libc::SYS_getrandom, &raw mut byte, 1, 0) };
}

/// Loads every module that the guest was given; they depend on none.
fn load_modules() -> io::Result<()> {
    let directory = match fs::read_dir("/lib/modules") {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in directory {
        let path = entry?.path();
        let module = fs::read(&path)?;
        // SAFETY: the kernel copies the bytes and the empty string of options, and judges them itself.
        let ret =
            unsafe { libc::syscall(libc::SYS_init_module, module.as_ptr(), module.len(), c"".as_ptr()) };
        if ret != 0 {
            let error = io::Error::last_os_error();
            return Err(io::Error::new(error.kind(), format!("cannot load {}: {error}", path.display())));
        }
    }
    Ok(())
}

/// Brings the loopback interface up: the suite scrapes metrics over it.
fn loopback_up() -> io::Result<()> {
    // SAFETY: a structure of plain bytes, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the socket is closed below; the request lives until the call returns.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let ret = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request);
        let error = io::Error::last_os_error();
        libc::close(socket);
        if ret == 0 { Ok(()) } else { Err(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::{controllers, verdict};

    #[test]
    fn controllers_that_are_switched_off_are_left_out() {
        let table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\nmemory\t0\t1\t0\nio\n\n";
        assert_eq!(controllers(table).collect::<Vec<_>>(), ["cpu"]);
    }

    #[test]
    fn only_a_suite_that_ran_and_passed_has_passed() {
        let line =
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 1s";
        assert_eq!(verdict(true, "", line), "pass 12 passed, 0 failed, 1 skipped");
        assert!(verdict(false, "exit status: 101", line).starts_with("fail 12 passed"));
        assert!(verdict(true, "", &line.replace("12 passed", "0 passed")).starts_with("fail"));
        assert!(verdict(true, "", &line.replace("0 failed", "2 failed")).starts_with("fail 12 passed, 2"));
        assert!(verdict(true, "", "").starts_with("fail"));
    }
}
