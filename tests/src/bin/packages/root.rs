//! A copy of this machine's root that only the suite sees: an overlay whose changes are kept in memory, in a mount
//! namespace of its own. It is gone when the last process in it is.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::output;

/// Makes the copy below `$1`, says so, and waits for its standard input to end. `/run` is empty but for what tells that systemd
/// runs; `systemctl` only notes what it is to start and stop, because here it could not, and says that all of it runs. What
/// would keep packages' services from starting is not there, nor is what a Ringfence left that ran on this machine.
const MAKE: &str = r#"
mount -t tmpfs -o mode=0755 ringfence-packages "$1"
mkdir "$1/changes" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work" ringfence-packages "$1/root"
root=$1/root
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=0755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mkdir -p "$root/run/systemd/system"
rm -f "$root/usr/sbin/policy-rc.d"
rm -rf "$root/etc/ringfence" "$root/var/lib/ringfence" "$root/var/log/ringfence"
mv "$root/usr/bin/systemctl" "$root/usr/bin/systemctl.real"
cat > "$root/usr/bin/systemctl" <<'END'
#!/bin/sh
case " $* " in
*" start "* | *" stop "* | *" restart "* | *" daemon-reload "*) echo "$*" >> /run/systemctl.log ;;
*" is-active "*) ;;
*) SYSTEMD_OFFLINE=1 exec /usr/bin/systemctl.real "$@" ;;
esac
END
chmod 755 "$root/usr/bin/systemctl"
echo ready
exec cat
"#;

/// The copy.
pub(crate) struct Root {
    keeper: Child,
    directory: TempDir,
}

impl Root {
    /// Makes it. It needs `unshare`, `nsenter` and a kernel with overlayfs.
    pub(crate) fn new() -> Result<Root, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let keeper = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec", MAKE, "make"])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut root = Root { keeper, directory };
        let mut line = String::new();
        if let Some(stdout) = root.keeper.stdout.take() {
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        if line.trim() != "ready" {
            let mut errors = String::new();
            if let Some(mut stderr) = root.keeper.stderr.take() {
                let _ = stderr.read_to_string(&mut errors);
            }
            return Err(format!("the copy of the root cannot be made: {errors}"));
        }
        Ok(root)
    }

    /// A command inside, of which the caller may want more than its output.
    pub(crate) fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.keeper.id().to_string(), "--mount", "--", "chroot"]);
        command.arg(self.directory.path().join("root")).args(line);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        command
    }

    /// Runs a command inside; gives what it printed.
    pub(crate) fn run(&self, line: &[&str]) -> Result<String, String> {
        output(&mut self.command(line))
    }

    /// A path as processes inside name it, from here.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        let inside = format!("/proc/{}/root", self.keeper.id());
        Path::new(&inside)
            .join(self.directory.path().join("root").strip_prefix("/").unwrap_or(Path::new("")))
            .join(path)
    }

    /// Puts a file in.
    pub(crate) fn put(&self, from: &Path, to: &str) -> Result<(), String> {
        fs::copy(from, self.at(to)).map(drop).map_err(|error| format!("{to}: {error}"))
    }

    /// What `systemctl` was asked since the last time.
    pub(crate) fn asked_of_systemd(&self) -> Vec<String> {
        let log = self.at("run/systemctl.log");
        let lines = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        lines.lines().map(str::to_owned).collect()
    }

    /// Every path that differs from the machine's root, outside of `/run` and `/tmp`.
    pub(crate) fn changes(&self) -> Result<BTreeSet<String>, String> {
        let inside = format!("/proc/{}/root{}/changes", self.keeper.id(), self.directory.path().display());
        let list =
            output(Command::new("find").arg(&inside).args(["-not", "-type", "d", "-printf", "%P\\n"]))?;
        Ok(list.lines().map(str::to_owned).collect())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // The keeper ends with its standard input, and with it the namespace and all that is mounted there.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
