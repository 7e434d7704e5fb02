//! The manifests in `deploy/kubernetes`, rendered and read; and a pod of theirs, run as a container by Docker Engine.

pub mod exchange;
pub mod pod;
pub mod runner;
pub mod volume;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The manifests.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// `deploy` of the repository.
    deploy: PathBuf,
}

impl Manifests {
    /// Those in this `deploy` directory.
    pub fn new(deploy: PathBuf) -> Manifests {
        Manifests { deploy }
    }

    /// `deploy/kubernetes`.
    pub fn directory(&self) -> PathBuf {
        self.deploy.join("kubernetes")
    }

    /// The directory of everything that is deployed.
    pub fn deploy(&self) -> &Path {
        &self.deploy
    }

    /// The names of what lies in a directory such as `components`, in order.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn names(&self, of: &str) -> Result<Vec<String>, String> {
        let directory = self.directory().join(of);
        let entries =
            fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// What a directory with a kustomization renders to, as text.
    ///
    /// # Errors
    /// Kustomize's words.
    pub fn render(&self, directory: &str) -> Result<String, String> {
        kustomize(&self.directory().join(directory))
    }

    /// What the base renders to with these components on top.
    ///
    /// # Errors
    /// As [`Manifests::render`].
    pub fn render_with(&self, components: &[impl AsRef<str>]) -> Result<String, String> {
        // A kustomization names others relative to itself. It must not lie in the repository, even for a moment.
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let copied =
            Command::new("cp").arg("-r").arg(&self.deploy).arg(directory.path().join("deploy")).status();
        if !copied.is_ok_and(|status| status.success()) {
            return Err(format!("{} cannot be copied", self.deploy.display()));
        }
        let listed: String = components
            .iter()
            .map(|component| format!("  - deploy/kubernetes/components/{}\n", component.as_ref()))
            .collect();
        let text = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: ringfence\n\
             resources:\n  - deploy/kubernetes/base\ncomponents:\n{listed}"
        );
        fs::write(directory.path().join("kustomization.yaml"), text).map_err(|error| error.to_string())?;
        kustomize(directory.path())
    }
}

/// Runs the Kustomize that is there: kubectl's, or where that is too old or missing the program of that name.
fn kustomize(directory: &Path) -> Result<String, String> {
    let mut tried = Vec::new();
    for (program, verb) in [("kubectl", "kustomize"), ("kustomize", "build")] {
        match Command::new(program).arg(verb).arg(directory).output() {
            Ok(output) if output.status.success() => {
                return String::from_utf8(output.stdout).map_err(|error| error.to_string());
            }
            Ok(output) => {
                tried.push(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
            }
            Err(error) => tried.push(format!("{program}: {error}")),
        }
    }
    Err(format!("{} cannot be rendered:\n{}", directory.display(), tried.join("\n")))
}

/// The objects in a rendered text.
///
/// # Errors
/// It is not YAML.
pub fn objects(text: &str) -> Result<Vec<Value>, String> {
    serde_saphyr::from_multiple(text).map_err(|error| error.to_string())
}

/// The one object of a kind.
///
/// # Errors
/// There is none, or more than one.
pub fn only<'o>(objects: &'o [Value], kind: &str) -> Result<&'o Value, String> {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    match (found.next(), found.next()) {
        (Some(object), None) => Ok(object),
        _ => Err(format!(
            "not one {kind}, but {}",
            objects.iter().filter(|object| object["kind"] == kind).count()
        )),
    }
}

/// The object of that kind and name.
///
/// # Errors
/// There is none.
pub fn named<'o>(objects: &'o [Value], kind: &str, name: &str) -> Result<&'o Value, String> {
    let fits = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(fits).ok_or_else(|| format!("no {kind} is called {name}"))
}
