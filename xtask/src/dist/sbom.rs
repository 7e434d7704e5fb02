//! The software bill of materials: a CycloneDX document of what is linked into the program, and nothing else.
//!
//! cargo says which packages those are, for this target and these features, build scripts and macros left out. What cargo
//! does not know of is added: the standard library and, because the program is linked statically, the C library and
//! the compiler's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Release, image, tree};
use crate::environment::{cargo, repository};
use crate::process;

/// The version of CycloneDX.
const SPEC_VERSION: &str = "1.5";
/// Names of files with a licence or a notice that goes with one begin so.
const LICENCE_FILES: &[&str] = &["license", "licence", "copying", "copyright", "notice", "unlicense"];

/// A package by name and version.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
}

/// What cargo's manifests say of a package.
struct About {
    licence: Option<String>,
    description: Option<String>,
    repository: Option<String>,
    directory: PathBuf,
    /// From a registry, and not of this repository.
    foreign: bool,
}

/// All that is linked into the program.
pub(crate) struct Materials {
    edges: BTreeMap<Package, BTreeSet<Package>>,
    about: BTreeMap<Package, About>,
    checksums: BTreeMap<Package, String>,
    /// Parts without a cargo package: name, version, licence.
    others: Vec<(&'static str, String, &'static str)>,
}

impl Materials {
    /// Asks cargo and the compilers.
    pub(crate) fn find() -> Result<Self> {
        let root = repository();
        let bpf = root.join("monitor-ebpf");
        let mut edges = BTreeMap::new();
        let mut about = BTreeMap::new();
        let mut checksums = BTreeMap::new();
        for (directory, package, target) in
            [(&root, "monitor", super::build::TARGET), (&bpf, "monitor-ebpf", "all")]
        {
            let mut ask = cargo();
            ask.args(["tree", "--locked", "--package", package, "--target", target, "--prefix", "depth"]);
            ask.args(["--edges", "normal,no-proc-macro", "--format", "|{p}"]);
            add_tree(&mut edges, &process::output(ask.current_dir(directory))?)?;
            let mut ask = cargo();
            ask.args(["metadata", "--locked", "--format-version", "1"]);
            add_metadata(&mut about, &process::output(ask.current_dir(directory))?)?;
            let lock = directory.join("Cargo.lock");
            let lock =
                fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
            add_checksums(&mut checksums, &lock);
        }
        // The BPF programs are a file inside the program.
        let root = |name: &str| edges.keys().find(|package| package.name == name).cloned();
        if let (Some(monitor), Some(programs)) = (root("monitor"), root("monitor-ebpf")) {
            edges.entry(monitor).or_default().insert(programs);
        }
        let others = vec![
            ("rust-std", rust_version("rustc")?, "MIT OR Apache-2.0"),
            ("glibc", glibc_version()?, "LGPL-2.1-or-later"),
            ("libgcc", gcc_version()?, "GPL-3.0-or-later WITH GCC-exception-3.1"),
        ];
        Ok(Self { edges, about, checksums, others })
    }

    /// The document.
    pub(crate) fn document(&self, release: &Release, ringfence: &Path) -> Result<Value> {
        let sum = tree::sha256(ringfence)?;
        let main =
            self.edges.keys().find(|package| package.name == "monitor").context("there is no monitor")?;
        let mut components: Vec<Value> = self
            .edges
            .keys()
            .filter(|package| *package != main)
            .map(|package| self.component(package))
            .collect();
        let mut dependencies: Vec<Value> = self
            .edges
            .iter()
            .map(|(package, on)| {
                let mut on: Vec<_> = on.iter().map(reference).collect();
                if package == main {
                    on.extend(self.others.iter().map(|(name, version, _)| other_reference(name, version)));
                }
                json!({"ref": reference(package), "dependsOn": on})
            })
            .collect();
        for (name, version, licence) in &self.others {
            let reference = other_reference(name, version);
            dependencies.push(json!({"ref": reference}));
            components.push(json!({
                "type": "library", "bom-ref": reference, "name": name, "version": version,
                "purl": reference, "licenses": [{"expression": licence}],
            }));
        }
        Ok(json!({
            "bomFormat": "CycloneDX",
            "specVersion": SPEC_VERSION,
            "serialNumber": serial_number(&sum),
            "version": 1,
            "metadata": {
                "timestamp": image::rfc3339(release.time),
                "tools": {"components": [{"type": "application", "name": "xtask", "version": release.version}]},
                "component": {
                    "type": "application", "bom-ref": reference(main), "name": "ringfence",
                    "version": release.version, "description": super::DESCRIPTION,
                    "hashes": [{"alg": "SHA-256", "content": sum}],
                    "licenses": [{"expression": super::LICENCE}],
                    "properties": [{"name": "ringfence:revision", "value": release.revision}],
                },
            },
            "components": components,
            "dependencies": dependencies,
        }))
    }

    fn component(&self, package: &Package) -> Value {
        let mut component = json!({
            "type": "library", "bom-ref": reference(package), "name": package.name, "version": package.version,
        });
        let Some(about) = self.about.get(package) else { return component };
        if let Some(text) = &about.description {
            component["description"] = json!(text.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        if let Some(sum) = self.checksums.get(package) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
        }
        if let Some(licence) = &about.licence {
            // The older way to write it.
            component["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
        }
        if about.foreign {
            component["purl"] = json!(reference(package));
        }
        if let Some(repository) = about.repository.as_ref().filter(|url| url.starts_with("https://")) {
            component["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
        }
        component
    }

    /// The texts of all licences, each once, with the packages that it is of.
    pub(crate) fn licence_texts(&self) -> Result<String> {
        let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut list = String::new();
        for package in self.edges.keys() {
            let Some(about) = self.about.get(package).filter(|about| about.foreign) else { continue };
            let title = format!("{} {}", package.name, package.version);
            list.push_str(&format!("{title}: {}\n", about.licence.as_deref().unwrap_or("see below")));
            for text in licence_files(&about.directory)? {
                texts.entry(text).or_default().push(title.clone());
            }
        }
        for (name, version, licence) in &self.others {
            list.push_str(&format!("{name} {version}: {licence}\n"));
        }
        // In the order of the first package, so that a change in one text does not move the others.
        let mut texts: Vec<_> = texts.into_iter().map(|(text, packages)| (packages, text)).collect();
        texts.sort();
        let mut whole = format!("What is linked into ringfence, and its licences.\n\n{list}");
        for (packages, text) in texts {
            whole.push_str(&format!(
                "\n{}\n{}\n\n{}\n",
                "-".repeat(79),
                packages.join(", "),
                text.trim_end()
            ));
        }
        Ok(whole)
    }
}

/// The licence texts in a package's directory, by the names of their files.
fn licence_files(directory: &Path) -> Result<Vec<String>> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        path.is_file() && LICENCE_FILES.iter().any(|begin| name.starts_with(begin)) && !name.ends_with(".rs")
    });
    files.sort();
    let read = |path: &PathBuf| Ok(String::from_utf8_lossy(&fs::read(path)?).replace("\r\n", "\n"));
    files.iter().map(read).collect()
}

/// Adds what `cargo tree --prefix depth` prints: `2|serde v1.0.0 (*)`.
fn add_tree(edges: &mut BTreeMap<Package, BTreeSet<Package>>, text: &str) -> Result<()> {
    let mut above: Vec<Package> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let parse = || {
            let (depth, rest) = line.split_once('|')?;
            let mut words = rest.split(' ');
            let (name, version) = (words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned());
            Some((depth.parse::<usize>().ok()?, Package { name, version }))
        };
        let (depth, package) = parse().with_context(|| format!("cargo tree printed {line:?}"))?;
        above.truncate(depth);
        edges.entry(package.clone()).or_default();
        if let Some(parent) = above.last().cloned() {
            edges.entry(parent).or_default().insert(package.clone());
        }
        above.push(package);
    }
    Ok(())
}

fn add_metadata(about: &mut BTreeMap<Package, About>, text: &str) -> Result<()> {
    let metadata: Value = serde_json::from_str(text).context("cargo metadata printed no JSON")?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let word = |key: &str| package[key].as_str().map(str::to_owned);
        let (Some(name), Some(version), Some(manifest)) =
            (word("name"), word("version"), word("manifest_path"))
        else {
            continue;
        };
        let directory = Path::new(&manifest).parent().map(Path::to_path_buf).unwrap_or_default();
        about.insert(
            Package { name, version },
            About {
                licence: word("license"),
                description: word("description"),
                repository: word("repository"),
                directory,
                foreign: !package["source"].is_null(),
            },
        );
    }
    Ok(())
}

/// Adds the checksums of a lock file, whose form cargo keeps to these lines.
fn add_checksums(sums: &mut BTreeMap<Package, String>, lock: &str) {
    for block in lock.split("[[package]]") {
        let value = |key: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
            Some(line.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(sum)) = (value("name"), value("version"), value("checksum")) {
            sums.insert(Package { name, version }, sum);
        }
    }
}

/// The package URL, which is also what the document calls it by.
fn reference(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version.replace('+', "%2B"))
}

fn other_reference(name: &str, version: &str) -> String {
    format!("pkg:generic/{name}@{version}")
}

/// An UUID of the program's checksum, of the version for own schemes: it is another one when the program is.
fn serial_number(sum: &str) -> String {
    let part = |range: std::ops::Range<usize>| sum.get(range).unwrap_or_default();
    format!("urn:uuid:{}-{}-8{}-8{}-{}", part(0..8), part(8..12), part(12..15), part(15..18), part(18..30))
}

fn rust_version(program: &str) -> Result<String> {
    let text = process::output(Command::new(program).arg("--version"))?;
    text.split(' ').nth(1).map(str::to_owned).context("rustc has no version")
}

fn glibc_version() -> Result<String> {
    let text = process::output(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    text.trim().strip_prefix("glibc ").map(str::to_owned).context("the C library is not GNU's")
}

fn gcc_version() -> Result<String> {
    process::output(Command::new("cc").arg("-dumpfullversion")).map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package { name: name.to_owned(), version: version.to_owned() }
    }

    #[test]
    fn edges_follow_the_depth() -> Result<()> {
        let mut edges = BTreeMap::new();
        add_tree(
            &mut edges,
            "0|a v1.0.0 (/somewhere)\n1|b v2.0.0\n2|c v3.0.0+x\n1|c v3.0.0+x (*)\n1|d v1.0.0\n",
        )?;
        let (a, b, c, d) =
            (package("a", "1.0.0"), package("b", "2.0.0"), package("c", "3.0.0+x"), package("d", "1.0.0"));
        assert_eq!(edges.keys().collect::<Vec<_>>().len(), 4);
        assert!(edges[&a].iter().eq([&b, &c, &d]) && edges[&b].iter().eq([&c]) && edges[&c].is_empty());
        assert_eq!(reference(&c), "pkg:cargo/c@3.0.0%2Bx");
        assert!(add_tree(&mut edges, "error: no").is_err());
        Ok(())
    }

    #[test]
    fn checksums_come_from_the_lock_file() {
        let mut sums = BTreeMap::new();
        add_checksums(
            &mut sums,
            "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"x\"\nchecksum = \"0f\"\n\n\
             [[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n",
        );
        assert_eq!(sums.into_iter().collect::<Vec<_>>().len(), 1);
    }

    #[test]
    fn the_serial_number_is_an_uuid() {
        let sum = "0123456789abcdef".repeat(4);
        assert_eq!(serial_number(&sum), "urn:uuid:01234567-89ab-8cde-8f01-23456789abcd");
    }
}
