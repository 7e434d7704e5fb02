//! A copy of this machine's root that only the suite sees: an overlay whose changes are kept in memory, in a mount
//! namespace of its own. It is gone when the last process in it is.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::output;

/// Makes the copy below `$1`, says so, and waits for its standard input to end. What the machine has mounted over parts that
/// packages change gets an overlay of its own, for that of the root sees only what lies below such a mount. `/run` and `/tmp` are
/// empty. All else is changed from inside ([`CHANGE`]): seen from here, a link such as `/var -> /data/var` leads out of the copy.
const MAKE: &str = r#"
mounted=$(findmnt --raw --noheadings --output TARGET | sort -u)
mount -t tmpfs -o mode=0755 ringfence-packages "$1"
root=$1/root
mkdir "$1/changes" "$root"
copy() {
    mkdir -p "$1/changes/$3" "$1/scratch/$3"
    mount -t overlay -o "lowerdir=$2,upperdir=$1/changes/$3,workdir=$1/scratch/$3" ringfence-packages "$1/root$2" || {
        echo "no overlay of $2, which is a file system of its own: run this where that can be copied" >&2
        exit 1
    }
}
copy "$1" / %
echo "$mounted" | while read -r target; do
    case $target in
    # State of other services, such as containers' files.
    /var/lib/dpkg | /var/lib/ringfence) ;;
    /var/lib/*) continue ;;
    /usr | /usr/* | /var | /var/* | /etc | /etc/* | /srv) ;;
    *) continue ;;
    esac
    if [ -d "$target" ]; then
        copy "$1" "$target" "$(echo "$target" | tr / %)"
    fi
done
for directory in proc sys dev run tmp; do
    if [ -L "$root/$directory" ]; then
        echo "/$directory is a link" >&2
        exit 1
    fi
done
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=0755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
chroot "$root" /bin/sh -ec "$2"
echo ready
exec cat
"#;

/// Changes the copy, inside. Systemd seems to run; `systemctl` only notes what it is to start and stop, because here it could
/// not, and says that all of it runs. What would keep packages' services from starting, or their manual pages from being
/// unpacked (as in slim images), is gone, and so is what a Ringfence left that ran on this machine.
const CHANGE: &str = r#"
mkdir -p /run/systemd/system
rm -f /usr/sbin/policy-rc.d
rm -rf /etc/ringfence /var/lib/ringfence /var/log/ringfence
for file in /etc/dpkg/dpkg.cfg /etc/dpkg/dpkg.cfg.d/*; do
    if [ -f "$file" ]; then sed -i '/^ *path-exclude/d; /^ *path-include/d' "$file"; fi
done
mv /usr/bin/systemctl /usr/bin/systemctl.real
cat > /usr/bin/systemctl <<'END'
#!/bin/sh
case " $* " in
*" --now "*)
    echo "$*" >> /run/systemctl.log
    set -- $(echo " $* " | sed 's/ --now / /')
    SYSTEMD_OFFLINE=1 exec /usr/bin/systemctl.real "$@"
    ;;
*" start "* | *" stop "* | *" restart "* | *" daemon-reload "*) echo "$*" >> /run/systemctl.log ;;
*" is-active "*) ;;
*) SYSTEMD_OFFLINE=1 exec /usr/bin/systemctl.real "$@" ;;
esac
END
chmod 755 /usr/bin/systemctl
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
            .env_remove("LD_LIBRARY_PATH")
            .args(["--mount", "--propagation", "private", "sh", "-ec", MAKE, "make"])
            .arg(directory.path())
            .arg(CHANGE)
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
        // Of programs that were only unpacked, outside.
        command.env_remove("LD_LIBRARY_PATH");
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        command
    }

    /// Runs a command inside; gives what it printed.
    pub(crate) fn run(&self, line: &[&str]) -> Result<String, String> {
        output(&mut self.command(line))
    }

    /// Puts a file in.
    pub(crate) fn put(&self, from: &Path, to: &str) -> Result<(), String> {
        let file = File::open(from).map_err(|error| format!("{}: {error}", from.display()))?;
        output(self.command(&["sh", "-ec", r#"cat > "$0""#, to]).stdin(file)).map(drop)
    }

    /// Writes a file, whose directory is made if need be.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result<(), String> {
        let script = r#"mkdir -p "$(dirname "$0")"; printf %s "$1" > "$0""#;
        self.run(&["sh", "-ec", script, path, text]).map(drop)
    }

    /// What a file holds.
    pub(crate) fn text(&self, path: &str) -> Result<String, String> {
        self.run(&["cat", path])
    }

    /// Whether there is something of that name; it may be a link to nowhere.
    pub(crate) fn has(&self, path: &str) -> Result<bool, String> {
        let test = self.command(&["sh", "-c", r#"[ -e "$0" ] || [ -L "$0" ]"#, path]).status();
        match test.map_err(|error| error.to_string())?.code() {
            Some(code @ (0 | 1)) => Ok(code == 0),
            other => Err(format!("looking for {path}: {other:?}")),
        }
    }

    /// What `systemctl` was asked since the last time.
    pub(crate) fn asked_of_systemd(&self) -> Result<Vec<String>, String> {
        let lines =
            self.run(&["sh", "-ec", "cd /run; touch systemctl.log; cat systemctl.log; rm systemctl.log"])?;
        Ok(lines.lines().map(str::to_owned).collect())
    }

    /// Every path that differs from the machine's root, outside of `/run` and `/tmp`.
    pub(crate) fn changes(&self) -> Result<BTreeSet<String>, String> {
        // The suite's own directory: no link in it leads elsewhere. Overlays are called by the paths of what they cover.
        let inside = format!("/proc/{}/root{}/changes", self.keeper.id(), self.directory.path().display());
        let list = output(Command::new("find").arg(&inside).args(["-not", "-type", "d", "-printf", "%P\n"]))?;
        let path = |line: &str| {
            let (overlay, path) = line.split_once('/').unwrap_or_default();
            format!("{}/{path}", overlay.replace('%', "/")).trim_start_matches('/').to_owned()
        };
        Ok(list.lines().map(path).collect())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // The keeper ends with its standard input, and with it the namespace and all that is mounted there.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
