//! The host's name in alerts. In a pod the kernel tells the pod's, so that of the node has to be given.

use serde::{Deserialize, Deserializer};

use super::Settings;

/// As many bytes as a host's name may have in the domain name system.
const MAX_BYTES: usize = 253;

/// A name that was given: of 1 to 253 bytes, without blanks and control characters.
#[derive(Debug)]
pub(super) struct Hostname(pub(super) String);

impl<'de> Deserialize<'de> for Hostname {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        check(name).map(Hostname).map_err(serde::de::Error::custom)
    }
}

fn check(name: String) -> Result<String, String> {
    if name.is_empty() || name.len() > MAX_BYTES {
        return Err(format!("a host's name has 1 to {MAX_BYTES} bytes, not {}", name.len()));
    }
    if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("`{}` is no host's name: it has blanks in it", name.escape_debug()));
    }
    Ok(name)
}

impl Settings {
    /// The host's name in alerts: the one that was given, else what the kernel says.
    pub fn hostname(&self) -> String {
        let own = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.hostname.clone().unwrap_or_else(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Assignment;

    #[test]
    fn a_name_that_is_given_stands_for_the_kernels() {
        let set = |text: &str| {
            let assignment: Assignment = text.parse().unwrap();
            let mut settings = Settings::default();
            assignment.apply(&mut settings).map(|_| settings.hostname())
        };
        assert_eq!(set("hostname=node-7.example").unwrap(), "node-7.example");
        assert_eq!(set("hostname=7").unwrap(), "7");
        for wrong in ["hostname='a b'", "hostname=''", r#"hostname="a\n""#] {
            assert!(set(wrong).is_err(), "{wrong}");
        }
        assert!(check("x".repeat(MAX_BYTES)).is_ok() && check("x".repeat(MAX_BYTES + 1)).is_err());
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        assert_eq!(Settings::default().hostname(), own);
    }
}
