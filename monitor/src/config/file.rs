//! Reading configuration files: who may write them, what they may say, and where they are wrong.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value as Json};
use serde_saphyr::{Error as YamlError, Location};

use crate::config::hostname::Hostname;
use crate::config::veil::{is_veiled, veiled, without_quoted};
use crate::config::{
    AttachChoice, CanaryInterval, Listen, OutputConfig, OutputFormat, PinChoice, StateDir,
    check_metadata_wait_ms, check_process_table_entries, check_ring_bytes, check_root, check_unused_series,
    parse_priority,
};
use crate::confine::Confine;
use crate::control::ControlSocket;
use crate::hierarchy::HierarchyChoice;
use crate::recording::check_record_bytes;
use crate::rules::{AppendOutput, NamedField, Priority, Selection, check_group_seconds};
use crate::trust::Trust;

/// A configuration file may have this many bytes.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// What a configuration file may say; everything is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileConfig {
    pub(super) attach: Option<AttachChoice>,
    pub(super) strict: Option<bool>,
    pub(super) syscall_sets: Option<bool>,
    pub(super) probe_cost: Option<bool>,
    pub(super) rules: Option<Vec<PathBuf>>,
    pub(super) watch_rules: Option<bool>,
    pub(super) output: Option<OutputFormat>,
    pub(super) hostname: Option<Hostname>,
    pub(super) alert_file: Option<PathBuf>,
    pub(super) outputs: Option<Vec<OutputConfig>>,
    pub(super) record_dir: Option<Checked<PathBuf>>,
    pub(super) record_bytes: Option<RecordBytes>,
    pub(super) listen: Option<Checked<Listen>>,
    pub(super) control_socket: Option<Checked<ControlSocket>>,
    pub(super) ring_bytes: Option<RingBytes>,
    pub(super) min_priority: Option<Checked<Priority>>,
    pub(super) alert_why: Option<bool>,
    pub(super) no_color: Option<bool>,
    pub(super) process_table_entries: Option<TableEntries>,
    pub(super) cgroup_hierarchy: Option<Checked<HierarchyChoice>>,
    pub(super) canary_interval_ms: Option<Checked<CanaryInterval>>,
    pub(super) metadata_wait_ms: Option<MetadataWait>,
    pub(super) host_root: Option<Checked<PathBuf>>,
    pub(super) docker_roots: Option<Vec<Checked<PathBuf>>>,
    pub(super) containerd_roots: Option<Vec<Checked<PathBuf>>>,
    pub(super) crio_roots: Option<Vec<Checked<PathBuf>>>,
    pub(super) podman_roots: Option<Vec<Checked<PathBuf>>>,
    pub(super) rule_selection: Option<Vec<Selection>>,
    pub(super) append_output: Option<Vec<AppendOutput>>,
    pub(super) group_by: Option<Vec<Checked<NamedField>>>,
    pub(super) group_seconds: Option<GroupSeconds>,
    pub(super) state_dir: Option<Checked<StateDir>>,
    pub(super) pin_dir: Option<Checked<PinChoice>>,
    pub(super) capability_unused_series: Option<UnusedSeries>,
    pub(super) confine: Option<Confine>,
}

/// A value that is read by a parser of ours, so that the error stands at the value.
#[derive(Debug)]
pub(super) struct Checked<T>(pub(super) T);

impl<'de> Deserialize<'de> for Checked<Listen> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Checked).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Checked<PinChoice> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Checked).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Checked<ControlSocket> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Checked).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Checked<StateDir> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Checked).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Checked<HierarchyChoice> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        word.parse().map(Checked).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Checked<CanaryInterval> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A number is read as it is written.
        let text = String::deserialize(deserializer)?;
        text.parse().map(Checked).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Checked<Priority> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        parse_priority(&word).map(Checked).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Checked<PathBuf> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = String::deserialize(deserializer)?;
        check_root(&path).map(Checked).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Checked<NamedField> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        NamedField::parse(&text).map(Checked).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug)]
pub(super) struct GroupSeconds(pub(super) u32);

impl<'de> Deserialize<'de> for GroupSeconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = u64::deserialize(deserializer)?;
        check_group_seconds(seconds).map(GroupSeconds).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug)]
pub(super) struct MetadataWait(pub(super) u32);

impl<'de> Deserialize<'de> for MetadataWait {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ms = u64::deserialize(deserializer)?;
        check_metadata_wait_ms(ms).map(MetadataWait).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug)]
pub(super) struct UnusedSeries(pub(super) u32);

impl<'de> Deserialize<'de> for UnusedSeries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let series = u64::deserialize(deserializer)?;
        check_unused_series(series).map(UnusedSeries).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug)]
pub(super) struct RecordBytes(pub(super) u64);

impl<'de> Deserialize<'de> for RecordBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = u64::deserialize(deserializer)?;
        check_record_bytes(bytes).map(RecordBytes).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug)]
pub(super) struct RingBytes(pub(super) u32);

impl<'de> Deserialize<'de> for RingBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = u64::deserialize(deserializer)?;
        check_ring_bytes(bytes).map(RingBytes).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug)]
pub(super) struct TableEntries(pub(super) u32);

impl<'de> Deserialize<'de> for TableEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = u64::deserialize(deserializer)?;
        check_process_table_entries(entries).map(TableEntries).map_err(serde::de::Error::custom)
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ConfigError {
    /// A named file is missing or cannot be read.
    #[error("configuration {path} cannot be read: {cause}", path = path.display())]
    #[diagnostic(help(
        "check the path and the permissions, or leave out --config to use the built-in settings"
    ))]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Others than the owner can write it, or its owner is neither root nor us.
    #[error("configuration {path} is not trusted: {reason}", path = path.display())]
    #[diagnostic(help("whoever writes it decides what is watched: `chown root {0}` and `chmod go-w {0}`", path.display()))]
    Untrusted {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It is too large or not UTF-8.
    #[error("configuration {path}: {reason}", path = path.display())]
    #[diagnostic(help("a configuration is a short YAML text; see `ringfence run --help` for the settings"))]
    NotAConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting on the command line is wrong.
    #[error("--set {assignment}: {message}")]
    Set {
        /// The argument.
        assignment: String,
        /// What is wrong.
        message: String,
        /// How to put it right.
        #[help]
        help: Option<String>,
    },
    /// Outputs do not go together.
    #[error("outputs: {0}")]
    Outputs(String),
    /// A setting in the environment is wrong.
    #[error("environment: {name}: {message}")]
    Variable {
        /// The variable.
        name: String,
        /// What is wrong. The value does not stand in it.
        message: String,
        /// How to put it right.
        #[help]
        help: Option<String>,
    },
    /// It is wrong at one place.
    #[error("{}:{line}:{column}: {message}", source_code.name())]
    Wrong {
        /// Line, from 1.
        line: u64,
        /// Column in characters, from 1.
        column: u64,
        /// What is wrong.
        message: String,
        /// The text.
        #[source_code]
        source_code: std::sync::Arc<NamedSource<String>>,
        /// The place.
        #[label]
        span: Option<SourceSpan>,
        /// How to put it right.
        #[help]
        help: Option<String>,
    },
}

impl ConfigError {
    /// The same of a setting that stands in this variable.
    pub(super) fn in_variable(self, name: &str) -> Self {
        match self {
            ConfigError::Set { message, help, .. } => {
                ConfigError::Variable { name: name.to_owned(), message, help }
            }
            other => other,
        }
    }
}

/// A configuration that was read.
pub(super) struct Read {
    pub(super) config: FileConfig,
    /// Its values as they were written, secrets included.
    pub(super) written: Map<String, Json>,
}

/// Reads a configuration file and its drop-ins, in the order in which they are applied.
pub(super) fn read_all(
    path: &Path,
    must_exist: bool,
    drop_ins: Option<&Path>,
) -> Result<Vec<(PathBuf, Read)>, ConfigError> {
    let mut files = Vec::new();
    files.extend(read(path, must_exist)?.map(|config| (path.to_owned(), config)));
    for path in drop_ins.map(list_drop_ins).transpose()?.unwrap_or_default() {
        let config = read(&path, true)?;
        files.extend(config.map(|config| (path, config)));
    }
    Ok(files)
}

/// The keys of all settings, in their order.
pub(super) fn keys() -> &'static [&'static str] {
    members::<FileConfig>()
}

/// The members of a structure, in their order: what serde was told of it.
pub(super) fn members<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    /// Takes what a structure's deserialisation names, and gives nothing.
    struct Names<'n>(&'n mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_struct<V: serde::de::Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            visitor.visit_map(serde::de::value::MapDeserializer::new(std::iter::empty::<(&str, &str)>()))
        }

        fn deserialize_any<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            visitor.visit_unit()
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut names: &'static [&'static str] = &[];
    // An empty mapping may or may not be one.
    let _ = T::deserialize(Names(&mut names));
    names
}

/// The drop-ins of a directory in the order of their names; none if there is no directory.
fn list_drop_ins(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let fail = |cause| ConfigError::Read { path: dir.to_owned(), cause };
    let handle = match File::open(dir) {
        Ok(handle) => handle,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    check_trust(dir, &handle)?;
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|ext| ext == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path, must_exist: bool) -> Result<Option<Read>, ConfigError> {
    let fail = |cause| ConfigError::Read { path: path.to_owned(), cause };
    let wrong = |reason: String| ConfigError::NotAConfig { path: path.to_owned(), reason };
    // Opening a pipe must not block for ever, hence the check before.
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Err(wrong("it is not a regular file".to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound && !must_exist => return Ok(None),
        Err(error) => return Err(fail(error)),
    }
    let file = File::open(path).map_err(fail)?;
    check_trust(path, &file)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(wrong(format!("it has more than {MAX_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| wrong(format!("it is not UTF-8: {error}")))?;
    parse(&path.display().to_string(), text).map(Some)
}

/// Refuses what others than root and we can write.
fn check_trust(path: &Path, handle: &File) -> Result<(), ConfigError> {
    let meta = handle.metadata().map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
    Trust::Strict.check(&meta).map_err(|reason| ConfigError::Untrusted { path: path.to_owned(), reason })
}

/// Reads a configuration's text. An empty one is a configuration that sets nothing.
pub(super) fn parse(name: &str, text: String) -> Result<Read, ConfigError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let outcome: Result<Option<FileConfig>, YamlError> = serde_saphyr::from_str_with_options(&text, options);
    match outcome {
        Ok(config) => {
            // It was read once, so that it is a mapping is known.
            // And a plain `off` stays the word that it is in `format: off`; where it means false it still does.
            let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
            let written = serde_saphyr::from_str_with_options::<Option<Json>>(&text, options);
            let written = match written {
                Ok(Some(Json::Object(written))) => written,
                _ => Map::new(),
            };
            Ok(Read { config: config.unwrap_or_default(), written })
        }
        Err(error) => Err(explain(name, text, &error)),
    }
}

fn explain(name: &str, text: String, error: &YamlError) -> ConfigError {
    let error = error.without_snippet();
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let (message, help) = match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown setting `{field}`"), Some(suggest(field, expected)))
        }
        YamlError::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("`{variant}` is not allowed here"), Some(suggest(variant, expected)))
        }
        other => (without_place(&other.to_string()), None),
    };
    let start = location.span().byte_offset().map(|offset| offset as usize);
    let shown = veiled(&text);
    let hides = start.is_none_or(|start| is_veiled(&text, &shown, start));
    let message = if hides { without_quoted(&message) } else { message };
    let span = start.filter(|start| *start <= text.len()).map(|start| {
        let len = location.span().byte_len().unwrap_or(0) as usize;
        SourceSpan::from((start, len.min(text.len() - start)))
    });
    ConfigError::Wrong {
        line: location.line(),
        column: location.column(),
        message,
        source_code: std::sync::Arc::new(NamedSource::new(name, shown)),
        span,
        help,
    }
}

/// The likely meaning of a misspelt word, and all that is allowed.
pub(super) fn suggest(word: &str, allowed: &[&str]) -> String {
    let nearest = allowed
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min()
        .filter(|(distance, _)| *distance <= 1 + word.len() / 3);
    match nearest {
        Some((_, nearest)) => format!("did you mean `{nearest}`? Allowed: {}", allowed.join(", ")),
        None => format!("allowed: {}", allowed.join(", ")),
    }
}

/// The library appends the place, which we show in front.
pub(super) fn without_place(message: &str) -> String {
    let end = message.rfind(" at line ").unwrap_or(message.len());
    message[..end].trim_end_matches(':').to_owned()
}
