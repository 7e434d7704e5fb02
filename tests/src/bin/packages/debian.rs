//! The Debian package through its life: installed, upgraded, removed, purged.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};

use crate::place::{LINKS, PINS, expect, is_in_place};
use crate::root::Root;
use crate::{Settings, output};

/// What installing any package changes, besides its own files: dpkg's records, the lists of users, caches.
const RECORDS: &[&str] = &[
    "var/lib/dpkg/",
    "var/log/",
    "var/cache/",
    "etc/passwd",
    "etc/group",
    "etc/shadow",
    "etc/gshadow",
    "etc/.pwd.lock",
];
/// The service as the package has it.
const UNIT: &str = "/usr/lib/systemd/system/ringfence.service";

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    let trial = |name: &str, test: fn(&Settings) -> Result<(), String>| {
        let settings = settings.clone();
        Trial::test(format!("debian::{name}"), move || test(&settings).map_err(Failed::from))
    };
    vec![
        trial("is_installed_and_works", installed),
        trial("an_upgrade_keeps_what_was_changed", upgraded),
        trial("nothing_is_left_after_a_purge", purged),
        trial("a_purge_leaves_a_mount_in_use_alone", purged_while_in_use),
    ]
}

/// A root with the package in it, and the changes that were there before.
fn install(settings: &Settings) -> Result<Root, String> {
    let root = Root::new()?;
    root.put(&settings.file(".deb")?, "/tmp/ringfence.deb")?;
    root.run(&["dpkg", "--install", "/tmp/ringfence.deb"])?;
    Ok(root)
}

fn installed(settings: &Settings) -> Result<(), String> {
    let root = install(settings)?;
    // Every file is as it was packed, and readable as what it is.
    let wrong = root.run(&["dpkg", "--verify", "ringfence"])?;
    expect(wrong.is_empty(), format!("dpkg --verify: {wrong}"))?;
    for page in ["ringfence", "ringfence-run", "ringfence.yaml"] {
        let path = root.run(&["man", "--where", page])?;
        let text = output(root.command(&["man", "--warnings", path.trim()]).env("MANWIDTH", "80"))?;
        expect(text.contains("NAME") && text.contains("ringfence"), format!("man {page}: {text}"))?;
    }
    let complete = "source /usr/share/bash-completion/completions/ringfence; complete -p ringfence";
    root.run(&["bash", "-ec", complete])?;

    is_in_place(&root, UNIT)?;
    let rules = root.run(&["stat", "--format", "%u %a", "/etc/ringfence/rules.d"])?;
    expect(rules.trim() == "0 755", "the directory of local rules")?;
    let asked = root.asked_of_systemd()?;
    let expected = ["--system daemon-reload", "--quiet --system start ringfence.socket ringfence.service"];
    expect(asked == expected, format!("systemd was asked {asked:?}"))?;

    let list = root.run(&["ringfence", "rules", "list"])?;
    expect(list.contains("walls-probed-in-container"), format!("ringfence rules list: {list}"))?;
    // What this machine lacks is for it to say; that it can look is for us.
    let doctor = root.command(&["ringfence", "doctor"]).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&doctor.stdout);
    let code = doctor.status.code();
    expect(
        matches!(code, Some(0 | 1)) && text.contains("BTF"),
        format!("ringfence doctor: {:?}\n{text}{}", code, String::from_utf8_lossy(&doctor.stderr)),
    )?;
    // An unknown setting is found where it stands.
    root.write("/etc/ringfence/config.d/wrong.yaml", "atach: auto\n")?;
    let wrong = root.command(&["ringfence", "check"]).output().map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned() + &String::from_utf8_lossy(&wrong.stdout);
    expect(!wrong.status.success() && told.contains("atach"), format!("a wrong drop-in: {told}"))
}

/// The same package with a later version and a change in the file of settings.
fn later(root: &Root) -> Result<(), String> {
    let script = "dpkg-deb --raw-extract /tmp/ringfence.deb /tmp/later\n\
                  sed -i 's/^Version: .*/&+later/' /tmp/later/DEBIAN/control\n\
                  echo '# One more default.' >> /tmp/later/etc/ringfence/config.yaml\n\
                  dpkg-deb -Znone --root-owner-group --build /tmp/later /tmp/later.deb";
    root.run(&["sh", "-ec", script]).map(drop)
}

fn upgraded(settings: &Settings) -> Result<(), String> {
    let root = install(settings)?;
    // The administrator's changes: settings, a rule, one unit that shall not start; and what the daemon counted.
    root.write("/etc/ringfence/config.yaml", "strict: true\n")?;
    root.write("/etc/ringfence/rules.d/local.yaml", "- list: mine\n  items: [a]\n")?;
    root.write("/var/lib/ringfence/state", "counted")?;
    root.run(&["rm", LINKS[1]])?;
    later(&root)?;
    root.asked_of_systemd()?;
    root.run(&["dpkg", "--force-confdef", "--force-confold", "--install", "/tmp/later.deb"])?;
    let version = root.run(&["dpkg-query", "-W", "-f", "${Version} ${Status}", "ringfence"])?;
    expect(version.ends_with("+later install ok installed"), version)?;
    for (path, text) in [
        ("/etc/ringfence/config.yaml", "strict: true\n"),
        ("/etc/ringfence/rules.d/local.yaml", "- list: mine\n  items: [a]\n"),
        ("/var/lib/ringfence/state", "counted"),
    ] {
        let now = root.text(path)?;
        expect(now == text, format!("{path} is now {now:?}"))?;
    }
    let offered = root.text("/etc/ringfence/config.yaml.dpkg-dist")?;
    expect(offered.ends_with("# One more default.\n"), "the new settings are not beside the old ones")?;
    expect(root.has(LINKS[0])?, "the service is no longer enabled")?;
    expect(!root.has(LINKS[1])?, "a disabled unit was enabled again")?;
    // The old daemon is not stopped before the new one is there, and one restart takes the socket along.
    let asked = root.asked_of_systemd()?;
    let expected = ["--system daemon-reload", "--quiet --system restart ringfence.service"];
    expect(asked == expected, format!("systemd was asked {asked:?}"))
}

fn purged(settings: &Settings) -> Result<(), String> {
    let root = Root::new()?;
    let before = root.changes()?;
    root.put(&settings.file(".deb")?, "/tmp/ringfence.deb")?;
    root.run(&["dpkg", "--install", "/tmp/ringfence.deb"])?;
    for file in ["/var/lib/ringfence/state", "/var/log/ringfence/alerts.jsonl"] {
        root.write(file, "kept")?;
    }
    // What an attacker who got the daemon's user could leave: it must not lead the purge elsewhere.
    root.write("/srv/precious/file", "x")?;
    root.run(&["ln", "-s", "/srv/precious", "/var/lib/ringfence/link"])?;
    // The place of the pins, as where systemd's stop did not come through.
    root.run(&["mkdir", PINS])?;
    root.run(&["mount", "-t", "tmpfs", "pins", PINS])?;
    root.write(&format!("{PINS}/link"), "pinned")?;
    root.asked_of_systemd()?;

    root.run(&["dpkg", "--remove", "ringfence"])?;
    let asked = root.asked_of_systemd()?;
    let expected = [
        "stop ringfence.service ringfence.socket ringfence-pins.service run-ringfence-bpf.mount",
        "--system daemon-reload",
    ];
    expect(asked == expected, format!("systemd was asked {asked:?}"))?;
    expect(!root.has("/usr/bin/ringfence")?, "the program is still there")?;
    expect(root.has("/etc/ringfence/config.yaml")?, "removal took the settings")?;
    expect(root.has("/var/lib/ringfence/state")?, "removal took the state")?;

    root.run(&["dpkg", "--purge", "ringfence"])?;
    expect(root.has("/srv/precious/file")?, "the purge followed a link")?;
    let mut left = root.changes()?;
    left.retain(|path| {
        !before.contains(path)
            && !path.starts_with("srv/precious")
            && !RECORDS.iter().any(|record| path.starts_with(record))
    });
    expect(left.is_empty(), format!("the purge left {left:?}"))?;
    for directory in [
        "/etc/ringfence",
        "/var/lib/ringfence",
        "/var/log/ringfence",
        "/run/ringfence",
        "/usr/share/ringfence",
    ] {
        expect(!root.has(directory)?, format!("the purge left {directory}"))?;
    }
    let status =
        root.command(&["dpkg", "--status", "ringfence"]).output().map_err(|error| error.to_string())?;
    expect(!status.status.success(), "dpkg still knows it")
}

/// A daemon that is still there holds its mount, and keeps it with all that is in it; and no link leads to another's.
fn purged_while_in_use(settings: &Settings) -> Result<(), String> {
    let root = install(settings)?;
    root.run(&["cp", "/var/lib/dpkg/info/ringfence.postrm", "/tmp/postrm"])?;
    let pinned = format!("{PINS}/link");
    root.run(&["mkdir", PINS])?;
    root.run(&["mount", "-t", "tmpfs", "pins", PINS])?;
    root.write(&pinned, "pinned")?;
    let script = format!("cd {PINS}; echo there; exec cat");
    let mut holder = root.command(&["sh", "-ec", &script]);
    let mut holder = holder
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("the holder: {error}"))?;
    let mut line = String::new();
    if let Some(stdout) = holder.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
    }
    let purge = root.run(&["dpkg", "--purge", "ringfence"]);
    let kept = root.has(&pinned);
    // It ends with its standard input.
    drop(holder.stdin.take());
    let _ = holder.wait();
    expect(line.trim() == "there", "nobody holds the mount")?;
    purge?;
    expect(kept?, "the purge emptied a mount that is in use")?;

    root.run(&["umount", PINS])?;
    root.run(&["sh", "-ec", "mkdir -p /srv/other; mount -t tmpfs other /srv/other; touch /srv/other/file"])?;
    root.run(&["sh", "-ec", &format!("rmdir {PINS}; ln -s /srv/other {PINS}")])?;
    root.run(&["/tmp/postrm", "purge"])?;
    expect(root.has("/srv/other/file")?, "the purge unmounted where a link led")?;
    expect(!root.has("/run/ringfence")?, "the purge left the link")
}

/// Files of the package by path, with their sizes, without directories.
pub(crate) fn contents(deb: &Path) -> Result<Vec<String>, String> {
    let list = output(Command::new("dpkg-deb").arg("--contents").arg(deb))?;
    let paths = list.lines().filter_map(|line| line.rsplit_once(" ./").map(|(_, path)| path.to_owned()));
    Ok(paths.filter(|path| !path.is_empty() && !path.ends_with('/')).collect())
}
