//! Whether two builds give the same bytes.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::{Release, tree};
use crate::environment::{repository, work_dir};
use crate::process;

/// How the two builds differ, besides in their directories: all that must not show.
const SURROUNDINGS: [&[(&str, &str)]; 2] = [
    &[("UMASK", "0022"), ("TZ", "UTC"), ("LC_ALL", "C.UTF-8"), ("USER", "one"), ("CARGO_BUILD_JOBS", "2")],
    &[
        ("UMASK", "0077"),
        ("TZ", "Asia/Tokyo"),
        ("LC_ALL", "C"),
        ("USER", "another"),
        ("CARGO_BUILD_JOBS", "1"),
    ],
];

/// Where they are made, of different depth and length.
const PLACES: [&str; 2] = ["one", "the-second/build"];
/// Where the result lies in each.
const OUT: &str = "out";

/// Copies the sources into two directories, makes everything in each, and compares: true if it is the same. Also gives
/// the directory where the first lies.
pub(super) fn twice(ringfence: Option<&Path>) -> Result<(bool, PathBuf)> {
    // It is run in other directories.
    let ringfence = ringfence.map(std::path::absolute).transpose()?;
    let (name, arguments) = match &ringfence {
        Some(program) => ("check-packaging", vec![OsStr::new("--ringfence"), program.as_os_str()]),
        None => ("check", Vec::new()),
    };
    let release = Release::find()?;
    let dir = work_dir("dist")?.join(name);
    tree::fresh(&dir)?;
    let mut outputs = Vec::new();
    for (place, surroundings) in PLACES.iter().zip(SURROUNDINGS) {
        let start = Instant::now();
        let dir = dir.join(place);
        let sources = dir.join("ringfence-sources");
        copy_sources(&sources)?;
        let out = dir.join(OUT);
        run_in(&release, &sources, &dir.join("build"), &out, surroundings, &arguments)?;
        println!("dist: made {place} in {:.0} s", start.elapsed().as_secs_f64());
        outputs.push(out);
    }
    let differences = differences(&outputs[0], &outputs[1])?;
    for difference in &differences {
        println!("dist: {difference}");
    }
    if differences.is_empty() {
        println!("dist: both are the same byte by byte");
    }
    Ok((differences.is_empty(), dir.join(PLACES[0]).join(OUT)))
}

/// Everything that git tracks, as it is now.
pub(super) fn copy_sources(to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let script =
        "git ls-files -z --cached | tar --create --null --files-from=- | tar --extract --directory \"$0\"";
    process::run(Command::new("sh").args(["-ec", script]).arg(to).current_dir(repository()))
        .context("the sources cannot be copied")
}

/// Runs this program as if it were that of the copied sources.
fn run_in(
    release: &Release,
    sources: &Path,
    target_dir: &Path,
    out: &Path,
    surroundings: &[(&str, &str)],
    arguments: &[&OsStr],
) -> Result<()> {
    let mut run = Command::new("sh");
    run.args(["-c", "umask $UMASK && exec \"$0\" \"$@\""]).arg(env::current_exe()?);
    run.args(["dist", "--out"]).arg(out).args(arguments);
    run.env("CARGO_MANIFEST_DIR", sources.join("xtask")).env("CARGO_TARGET_DIR", target_dir);
    run.env("SOURCE_DATE_EPOCH", release.time.to_string()).env("RINGFENCE_REVISION", &release.revision);
    run.envs(surroundings.iter().copied()).env_remove("LANG").env_remove("MAKEFLAGS").current_dir(sources);
    process::run(&mut run)
}

/// In which files two directories differ, and where.
fn differences(one: &Path, other: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let (names, others) = (names(one)?, names(other)?);
    if names.is_empty() {
        bail!("nothing was built");
    }
    for name in names.symmetric_difference(&others) {
        found.push(format!("only one build has {}", name.display()));
    }
    for name in names.intersection(&others) {
        let (a, b) = (fs::read(one.join(name))?, fs::read(other.join(name))?);
        if a != b {
            let at = a.iter().zip(&b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
            found.push(format!(
                "{} differs from byte {at} on ({} and {} bytes): {} {}",
                name.display(),
                a.len(),
                b.len(),
                one.display(),
                other.display()
            ));
        }
        let mode = |dir: &Path| fs::metadata(dir.join(name)).map(|data| data.permissions().mode() & 0o111);
        if mode(one)? != mode(other)? {
            found.push(format!("{} is executable in one build only", name.display()));
        }
    }
    Ok(found)
}

fn names(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    entries.map(|entry| Ok(PathBuf::from(entry?.file_name()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_found_where_they_are() -> Result<()> {
        let dir = env::temp_dir().join(format!("ringfence-differences-{}", std::process::id()));
        let (a, b) = (dir.join("a"), dir.join("b"));
        tree::fresh(&a)?;
        tree::fresh(&b)?;
        assert!(differences(&a, &b).is_err(), "two empty builds are no proof");
        for place in [&a, &b] {
            fs::write(place.join("same"), "text")?;
            fs::write(place.join("other"), format!("text {}", place.display()))?;
        }
        fs::write(a.join("alone"), "")?;
        let found = differences(&a, &b)?;
        let [alone, other] = &found[..] else { bail!("{found:?}") };
        assert!(alone.ends_with("has alone"), "{alone}");
        assert!(other.starts_with("other differs from byte"), "{other}");
        fs::remove_dir_all(&dir)?;
        Ok(())
    }
}
