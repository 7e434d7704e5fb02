//! The Debian package through its life: installed, upgraded, removed, purged.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};

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
/// The links by which systemd starts the units.
const LINKS: [&str; 2] = [
    "etc/systemd/system/multi-user.target.wants/ringfence.service",
    "etc/systemd/system/sockets.target.wants/ringfence.socket",
];

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    let trial = |name: &str, test: fn(&Settings) -> Result<(), String>| {
        let settings = settings.clone();
        Trial::test(format!("debian::{name}"), move || test(&settings).map_err(Failed::from))
    };
    vec![
        trial("is_installed_and_works", installed),
        trial("an_upgrade_keeps_what_was_changed", upgraded),
        trial("nothing_is_left_after_a_purge", purged),
    ]
}

/// A root with the package in it, and the changes that were there before.
fn install(settings: &Settings) -> Result<Root, String> {
    let root = Root::new()?;
    root.put(&settings.file(".deb")?, "tmp/ringfence.deb")?;
    root.run(&["dpkg", "--install", "/tmp/ringfence.deb"])?;
    Ok(root)
}

fn expect(holds: bool, what: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
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

    // The user, its directories, the units.
    let user = root.run(&["id", "--user", "ringfence"])?;
    let owner = |path: &str| {
        let data = fs::metadata(root.at(path)).map_err(|error| format!("{path}: {error}"))?;
        Ok::<_, String>((data.uid().to_string(), data.mode() & 0o7777))
    };
    expect(owner("run/ringfence")? == (user.trim().to_owned(), 0o755), "the control socket's directory")?;
    expect(owner("var/log/ringfence")? == (user.trim().to_owned(), 0o2750), "the directory of alert files")?;
    expect(owner("etc/ringfence/rules.d")? == ("0".to_owned(), 0o755), "the directory of local rules")?;
    for link in LINKS {
        expect(fs::symlink_metadata(root.at(link)).is_ok(), format!("{link} is missing: not enabled"))?;
    }
    root.run(&["systemd-analyze", "verify", "/usr/lib/systemd/system/ringfence.service"])?;
    let asked = root.asked_of_systemd();
    let expected = ["--system daemon-reload", "--quiet --system start ringfence.socket ringfence.service"];
    expect(asked == expected, format!("systemd was asked {asked:?}"))?;

    // The program, with what lies beside it and as the user that it runs as.
    let as_user = ["setpriv", "--reuid=ringfence", "--regid=ringfence", "--clear-groups"];
    let check = root.run(&[&as_user[..], &["ringfence", "check"]].concat())?;
    expect(check.contains("rules"), format!("ringfence check: {check}"))?;
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
    fs::write(root.at("etc/ringfence/config.d/wrong.yaml"), "atach: auto\n")
        .map_err(|error| error.to_string())?;
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
    let write = |path: &str, text: &str| {
        let path = root.at(path);
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(|error| error.to_string())?;
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    // The administrator's changes: settings, a rule, one unit that shall not start; and what the daemon counted.
    write("etc/ringfence/config.yaml", "strict: true\n")?;
    write("etc/ringfence/rules.d/local.yaml", "- list: mine\n  items: [a]\n")?;
    write("var/lib/ringfence/state", "counted")?;
    fs::remove_file(root.at(LINKS[1])).map_err(|error| error.to_string())?;
    later(&root)?;
    root.asked_of_systemd();
    root.run(&["dpkg", "--force-confdef", "--force-confold", "--install", "/tmp/later.deb"])?;
    let version = root.run(&["dpkg-query", "-W", "-f", "${Version} ${Status}", "ringfence"])?;
    expect(version.ends_with("+later install ok installed"), version)?;
    for (path, text) in [
        ("etc/ringfence/config.yaml", "strict: true\n"),
        ("etc/ringfence/rules.d/local.yaml", "- list: mine\n  items: [a]\n"),
        ("var/lib/ringfence/state", "counted"),
    ] {
        let now = fs::read_to_string(root.at(path)).unwrap_or_default();
        expect(now == text, format!("{path} is now {now:?}"))?;
    }
    let offered = fs::read_to_string(root.at("etc/ringfence/config.yaml.dpkg-dist")).unwrap_or_default();
    expect(offered.ends_with("# One more default.\n"), "the new settings are not beside the old ones")?;
    expect(fs::symlink_metadata(root.at(LINKS[0])).is_ok(), "the service is no longer enabled")?;
    expect(fs::symlink_metadata(root.at(LINKS[1])).is_err(), "a disabled unit was enabled again")?;
    // The old daemon is not stopped before the new one is there, and one restart takes the socket along.
    let asked = root.asked_of_systemd();
    let expected = ["--system daemon-reload", "--quiet --system restart ringfence.service"];
    expect(asked == expected, format!("systemd was asked {asked:?}"))
}

fn purged(settings: &Settings) -> Result<(), String> {
    let root = Root::new()?;
    let before = root.changes()?;
    root.put(&settings.file(".deb")?, "tmp/ringfence.deb")?;
    root.run(&["dpkg", "--install", "/tmp/ringfence.deb"])?;
    fs::create_dir_all(root.at("var/lib/ringfence")).map_err(|error| error.to_string())?;
    for file in ["var/lib/ringfence/state", "var/log/ringfence/alerts.jsonl"] {
        fs::write(root.at(file), "kept").map_err(|error| format!("{file}: {error}"))?;
    }
    // What an attacker who got the daemon's user could leave: it must not lead the purge elsewhere.
    fs::create_dir(root.at("srv/precious")).map_err(|error| error.to_string())?;
    fs::write(root.at("srv/precious/file"), "x").map_err(|error| error.to_string())?;
    symlink("/srv/precious", root.at("var/lib/ringfence/link")).map_err(|error| error.to_string())?;
    root.asked_of_systemd();

    root.run(&["dpkg", "--remove", "ringfence"])?;
    let asked = root.asked_of_systemd();
    let expected = [
        "stop ringfence.service ringfence.socket ringfence-pins.service run-ringfence-bpf.mount",
        "--system daemon-reload",
    ];
    expect(asked == expected, format!("systemd was asked {asked:?}"))?;
    expect(!root.at("usr/bin/ringfence").exists(), "the program is still there")?;
    expect(root.at("etc/ringfence/config.yaml").exists(), "removal took the settings")?;
    expect(root.at("var/lib/ringfence/state").exists(), "removal took the state")?;

    root.run(&["dpkg", "--purge", "ringfence"])?;
    expect(root.at("srv/precious/file").exists(), "the purge followed a link")?;
    let mut left = root.changes()?;
    left.retain(|path| {
        !before.contains(path)
            && !path.starts_with("srv/precious")
            && !RECORDS.iter().any(|record| path.starts_with(record))
    });
    expect(left.is_empty(), format!("the purge left {left:?}"))?;
    for directory in ["etc/ringfence", "var/lib/ringfence", "var/log/ringfence", "usr/share/ringfence"] {
        expect(!root.at(directory).exists(), format!("the purge left /{directory}"))?;
    }
    let status =
        root.command(&["dpkg", "--status", "ringfence"]).output().map_err(|error| error.to_string())?;
    expect(!status.status.success(), "dpkg still knows it")
}

/// Files of the package by path, with their sizes, without directories.
pub(crate) fn contents(deb: &Path) -> Result<Vec<String>, String> {
    let list = output(Command::new("dpkg-deb").arg("--contents").arg(deb))?;
    let paths = list.lines().filter_map(|line| line.rsplit_once(" ./").map(|(_, path)| path.to_owned()));
    Ok(paths.filter(|path| !path.is_empty() && !path.ends_with('/')).collect())
}
