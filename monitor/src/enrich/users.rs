//! The host's names for user ids.

use std::collections::HashMap;

use monitor_common::ids::Uid;

use crate::text::escape;

/// Names by id, from `/etc/passwd` at start. Users of directory services have no name here: asking for one
/// would put a network request into the event's path.
#[derive(Debug, Default)]
pub struct Users(HashMap<u32, String>);

impl Users {
    /// Reads `/etc/passwd`; an unreadable file gives no names.
    pub fn read() -> Self {
        Self::parse(&std::fs::read("/etc/passwd").unwrap_or_default())
    }

    fn parse(passwd: &[u8]) -> Self {
        let entry = |line: &[u8]| {
            let mut parts = line.split(|byte| *byte == b':');
            let name = parts.next()?;
            let uid = std::str::from_utf8(parts.nth(1)?).ok()?.parse().ok()?;
            Some((uid, escape(name).into_owned()))
        };
        // The first line of an id counts, as for getpwuid(3).
        let mut names = HashMap::new();
        for (uid, name) in passwd.split(|byte| *byte == b'\n').filter_map(entry) {
            names.entry(uid).or_insert(name);
        }
        Users(names)
    }

    /// The name, if the host has one.
    pub fn name(&self, uid: Uid) -> Option<&str> {
        self.0.get(&uid.0).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_skips_what_is_broken() {
        let users = Users::parse(
            b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\nx:y:z\n_apt:x:42:65534::/:/x",
        );
        assert_eq!(users.name(Uid(0)), Some("root"));
        assert_eq!(users.name(Uid(42)), Some("_apt"));
        assert_eq!(users.name(Uid(1)), None);
    }
}
