//! Apt, asked for packages of suites that the machine's own configuration does not name.
//!
//! The archive's address is always read from the machine's configuration.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::environment::{Unfit, work_dir};
use crate::process;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Apt as configured for one suite.
pub(crate) struct Apt {
    /// Options for apt-get and apt-cache; none for the machine's own configuration.
    pub(crate) options: Vec<String>,
}

impl Apt {
    /// For packages of one suite.
    pub(crate) fn for_suite(suite: &str) -> Result<Self> {
        let (known, archive) = Self::archive(suite)?;
        if known {
            return Ok(Self { options: Vec::new() });
        }
        Self::private(suite, &archive, None)
    }

    /// For packages of one suite that need others of the machine's own.
    pub(crate) fn beside(suite: &str) -> Result<Self> {
        let (known, archive) = Self::archive(suite)?;
        if known {
            return Ok(Self { options: Vec::new() });
        }
        let own = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
        Self::private(suite, &archive, Some(&own))
    }

    /// Whether the machine's configuration names the suite, and where the archive is that has the machine's own.
    fn archive(suite: &str) -> Result<(bool, String)> {
        // One line per package index that the machine knows.
        let mut query = Command::new("apt-get");
        query.args(["indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"]);
        let known = process::output(&mut query).map_err(|error| {
            Unfit(format!("packages come by Debian's apt, which does not answer: {error:#}"))
        })?;
        let own = os_codename();
        let mut archive = None;
        for (codename, uri) in known.lines().filter_map(|line| line.split_once(' ')) {
            if codename == suite {
                return Ok((true, uri.to_owned()));
            }
            if Some(codename) == own.as_deref() {
                archive.get_or_insert(uri);
            }
        }
        let archive = archive
            .ok_or_else(|| Unfit("the machine's apt sources do not name Debian's archive".to_owned()))?;
        Ok((false, archive.trim_end_matches('/').to_owned()))
    }

    /// A configuration in our own directory: needs no root and leaves the machine's apt as it is. With `own`, the text
    /// of the machine's list of sources, its sources count too.
    fn private(suite: &str, archive: &str, own: Option<&str>) -> Result<Self> {
        let dir = work_dir(&format!("vm/apt/{suite}"))?;
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(below))?;
        }
        let sources = dir.join("sources.list");
        // The archive's signature is checked; a suite past its support has an old date, which is no fault here.
        let ours = format!("deb [signed-by={KEYRING}] {archive} {suite} main\n");
        fs::write(&sources, own.map_or_else(|| ours.clone(), |own| format!("{own}\n{ours}")))?;
        let at = |name: &str| dir.join(name).display().to_string();
        let options: Vec<String> = [
            format!("Dir::Etc::SourceList={}", sources.display()),
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            "Acquire::Check-Valid-Until=false".to_owned(),
            "APT::Sandbox::User=".to_owned(),
        ]
        .into_iter()
        .chain(own.is_none().then(|| "Dir::Etc::SourceParts=/dev/null".to_owned()))
        .flat_map(|option| ["-o".to_owned(), option])
        .collect();
        process::run(Command::new("apt-get").args(["-qq"]).args(&options).arg("update"))
            .with_context(|| format!("cannot read Debian's index of {suite}"))?;
        Ok(Self { options })
    }

    /// The package with the highest number among those that match.
    pub(crate) fn newest(&self, pattern: &str) -> Result<String> {
        let mut search = Command::new("apt-cache");
        search.args(&self.options).args(["search", "--names-only", pattern]);
        let text = process::output(&mut search)?;
        let names = text.lines().filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty());
        match names.max_by_key(|name| numbers(name)) {
            Some(name) => Ok(name.to_owned()),
            None => bail!("no package matches {pattern}; does `apt-get update` help?"),
        }
    }
}

/// The numbers in a package's name, by which two of its versions compare.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// What this release of Debian is called, such as `bookworm`.
pub(crate) fn os_codename() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_not_by_letter() {
        let names = ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-54-cloud-amd64"];
        assert_eq!(names.iter().max_by_key(|name| numbers(name)), Some(&names[1]));
    }
}
