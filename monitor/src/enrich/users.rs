//! The host's names for user and group ids.

use std::collections::HashMap;
use std::path::Path;

use monitor_common::ids::{Gid, Uid};

use crate::enrich::metadata::read_host_file;
use crate::text::escape;

/// Names by id, from `/etc/passwd` and `/etc/group` at start. Users of directory services have no name here: asking
/// for one would put a network request into the event's path.
#[derive(Debug, Default)]
pub struct Users {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Users {
    /// Reads both files below the host's root (`/`, or where a container has it mounted); an unreadable one gives no
    /// names. Links on the way lead where they lead on that host; none may stand for the file itself.
    pub fn read(host: &Path) -> Self {
        let file = |path: &str| read_host_file(host, Path::new(path)).unwrap_or_default();
        Self::parse(&file("/etc/passwd"), &file("/etc/group"))
    }

    fn parse(passwd: &[u8], group: &[u8]) -> Self {
        Users { users: names(passwd), groups: names(group) }
    }

    /// The user's name, if the host has one.
    pub fn name(&self, uid: Uid) -> Option<&str> {
        self.users.get(&uid.0).map(String::as_str)
    }

    /// The group's name, if the host has one.
    pub fn group(&self, gid: Gid) -> Option<&str> {
        self.groups.get(&gid.0).map(String::as_str)
    }
}

/// Names by id: the first and the third column of both files.
fn names(table: &[u8]) -> HashMap<u32, String> {
    let entry = |line: &[u8]| {
        let mut parts = line.split(|byte| *byte == b':');
        let name = parts.next()?;
        let id = std::str::from_utf8(parts.nth(1)?).ok()?.parse().ok()?;
        Some((id, escape(name).into_owned()))
    };
    // The first line of an id counts, as for getpwuid(3).
    let mut names = HashMap::new();
    for (id, name) in table.split(|byte| *byte == b'\n').filter_map(entry) {
        names.entry(id).or_insert(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_the_hosts() {
        let host = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(host.path().join("usr/etc")).unwrap();
        std::os::unix::fs::symlink("/usr/etc", host.path().join("etc")).unwrap();
        std::fs::write(host.path().join("usr/etc/passwd"), "chief:x:0:0::/:/bin/sh\n").unwrap();
        let users = Users::read(host.path());
        assert_eq!((users.name(Uid(0)), users.group(Gid(0))), (Some("chief"), None));
        assert_eq!(Users::read(&host.path().join("none")).name(Uid(0)), None);
    }

    #[test]
    fn reads_names_and_skips_what_is_broken() {
        let users = Users::parse(
            b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\nx:y:z\n_apt:x:42:65534::/:/x",
            b"root:x:0:\nwheel:x:10:a,b\nnobody",
        );
        assert_eq!(users.name(Uid(0)), Some("root"));
        assert_eq!(users.name(Uid(42)), Some("_apt"));
        assert_eq!(users.name(Uid(1)), None);
        assert_eq!((users.group(Gid(10)), users.group(Gid(42))), (Some("wheel"), None));
    }
}
