//! Settings with where each came from: built-in values, files, environment, command line, the later over the earlier.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use super::assign::Assignment;
use super::file::{self, ConfigError};
use super::{DEFAULT_CONFIG, DROP_IN_DIR, Settings, check_outputs, environment};

/// What set a setting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nothing: it has its built-in value.
    BuiltIn,
    /// A configuration file.
    File(PathBuf),
    /// This variable of the environment.
    Environment(String),
    /// `--set` on the command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::BuiltIn => f.write_str("built in"),
            Origin::File(path) => path.display().fmt(f),
            Origin::Environment(name) => write!(f, "environment: {name}"),
            Origin::CommandLine => f.write_str("command line: --set"),
        }
    }
}

/// One setting as something set it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Given {
    /// What set it, in order; more than one if members were added to a list.
    pub(super) origins: Vec<Origin>,
    /// As it was written. It may hold a secret.
    pub(super) written: Json,
}

/// The effective settings, and where each came from.
#[derive(Clone)]
pub struct Loaded {
    /// The effective settings.
    pub settings: Settings,
    /// By key; what is not here has its built-in value.
    given: BTreeMap<String, Given>,
    /// Variables of the environment that values name, those of replaced values included.
    named: BTreeSet<String>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was written may hold secrets.
        f.debug_struct("Loaded").field("given", &self.given.keys()).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Reads the named configuration file, or the default one and its drop-ins, then this process's environment, then
    /// these settings of the command line.
    ///
    /// # Errors
    /// [`ConfigError`] names the place. A missing file is an error if it was named.
    pub fn load(named: Option<&Path>, assignments: &[Assignment]) -> Result<Self, ConfigError> {
        let files = match named {
            Some(path) => file::read_all(path, true, None),
            None => file::read_all(DEFAULT_CONFIG.as_ref(), false, Some(DROP_IN_DIR.as_ref())),
        };
        Loaded::assemble(files?, std::env::vars_os(), assignments)
    }

    /// Puts together what was read.
    pub(super) fn assemble(
        files: Vec<(PathBuf, file::Read)>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        assignments: &[Assignment],
    ) -> Result<Self, ConfigError> {
        let mut loaded =
            Loaded { settings: Settings::default(), given: BTreeMap::new(), named: BTreeSet::new() };
        for (path, file::Read { config, written }) in files {
            loaded.settings.apply(config);
            loaded.note(&Origin::File(path), written, false);
        }
        let variables: Vec<_> = environment.collect();
        for (name, assignment) in environment::assignments(&variables)? {
            let written = assignment.apply(&mut loaded.settings).map_err(|error| error.in_variable(&name))?;
            loaded.note(&Origin::Environment(name), written, false);
        }
        for assignment in assignments {
            let written = assignment.apply(&mut loaded.settings)?;
            loaded.note(&Origin::CommandLine, written, assignment.adds());
        }
        // Any layer may name one for something else, so this comes last.
        environment::check_names(&variables, &loaded.named)?;
        let Settings { outputs, alert_file, .. } = &loaded.settings;
        check_outputs(outputs, alert_file.as_deref()).map_err(ConfigError::Outputs)?;
        Ok(loaded)
    }

    fn note(&mut self, origin: &Origin, written: Map<String, Json>, adds: bool) {
        for (key, value) in written {
            each_text(&value, &mut |text| {
                if text.starts_with(environment::PREFIX) {
                    self.named.insert(text.to_owned());
                }
            });
            match (self.given.get_mut(&key), adds, value) {
                (Some(Given { origins, written: Json::Array(known) }), true, Json::Array(more)) => {
                    known.extend(more);
                    origins.push(origin.clone());
                }
                (_, _, written) => {
                    let built_in = adds.then_some(Origin::BuiltIn);
                    let origins = built_in.into_iter().chain([origin.clone()]).collect();
                    self.given.insert(key, Given { origins, written });
                }
            }
        }
    }

    /// What set a setting.
    pub(super) fn given(&self, key: &str) -> Option<&Given> {
        self.given.get(key)
    }

    /// Variables of the environment that values of the settings name, such as `token_env: RINGFENCE_TOKEN`, also those of
    /// values that a later layer replaced.
    pub(super) fn named_variables(&self) -> &BTreeSet<String> {
        &self.named
    }
}

/// Calls `visit` with each text in a value.
fn each_text(value: &Json, visit: &mut impl FnMut(&str)) {
    match value {
        Json::String(text) => visit(text),
        Json::Array(members) => members.iter().for_each(|member| each_text(member, visit)),
        Json::Object(members) => members.values().for_each(|member| each_text(member, visit)),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// The built-in settings, and beside them a value as it might have been written.
#[cfg(test)]
pub(crate) fn loaded_with_written(key: &str, written: Json) -> Loaded {
    let given = Given { origins: vec![Origin::CommandLine], written };
    let given = BTreeMap::from([(key.to_owned(), given)]);
    Loaded { settings: Settings::default(), given, named: BTreeSet::new() }
}
