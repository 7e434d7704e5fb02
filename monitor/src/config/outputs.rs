//! `outputs`: where alerts go beside what `output` and `alert_file` say.
//!
//! Each is a mapping with `type` first. What all types have in common is read here; everything behind it belongs to
//! the type, whose own structure reads it. Both come from one pass over the text, so that each mistake has its place.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::de::value::StringDeserializer;
use serde::de::{DeserializeSeed, Error as _, IntoDeserializer as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

use super::file::{Checked, suggest};
use crate::alert::Shape;
use crate::rules::Priority;
use crate::sink::net::{
    AlertmanagerConfig, FalcosidekickConfig, JournaldConfig, OtlpConfig, SyslogAddress, SyslogConfig,
    WebhookConfig,
};
use crate::sink::{DEFAULT_QUEUE_BYTES, FileOutput};

/// Outputs, at most; those of `output` and `alert_file` come on top. Each has a thread, a queue and a series per metric.
pub const MAX_OUTPUTS: usize = 16;

/// What `queue_bytes` may be.
pub const QUEUE_BYTES: RangeInclusive<u64> = 64 << 10..=1 << 30;

/// What `spool.bytes` may be. What an earlier process left there is read once at the start.
pub const SPOOL_BYTES: RangeInclusive<u64> = 1 << 20..=16 << 30;

/// Bytes of a spool unless told otherwise.
pub const DEFAULT_SPOOL_BYTES: u64 = 64 << 20;

/// Characters of a name, at most.
const MAX_NAME: usize = 32;

/// An output, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputConfig {
    /// Its label in metrics and logs: small letters, digits, `-` and `_`; the type unless told otherwise.
    pub name: String,
    /// Alerts below it do not go there.
    pub min_priority: Priority,
    /// Bytes of alerts that may wait in memory, those being written included; within [`QUEUE_BYTES`].
    pub queue_bytes: usize,
    /// Where alerts wait while the peer is away and memory would not do.
    pub spool: Option<SpoolConfig>,
    /// Its type, and what belongs to that.
    pub kind: OutputKind,
}

/// A spool, as configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolConfig {
    /// A directory, an absolute path. Each output has one of its own in it, under its name.
    #[serde(deserialize_with = "absolute")]
    pub dir: PathBuf,
    /// Bytes that it may take on disk; within [`SPOOL_BYTES`].
    #[serde(default = "default_spool_bytes", deserialize_with = "spool_bytes")]
    pub bytes: u64,
}

/// How alerts are written to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StdoutFormat {
    /// A line for people.
    Text,
    /// A line of JSON.
    Json,
    /// Nothing is written there.
    Off,
}

/// Standard output, as configured. There is at most one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StdoutConfig {
    /// How; unset: as `output` says.
    pub format: Option<StdoutFormat>,
    /// The shape of JSON; another one than `ringfence` asks for JSON.
    pub shape: Shape,
}

/// Makes the types of outputs: their word in the configuration, their variant, their configuration.
macro_rules! kinds {
    ($($word:literal $variant:ident($config:ty) $doc:literal;)*) => {
        /// The type of an output, and what belongs to it.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum OutputKind {
            $(#[doc = $doc] $variant($config),)*
        }

        impl OutputKind {
            /// The word of each type.
            pub const WORDS: &[&str] = &[$($word),*];

            /// The word of this type.
            pub const fn word(&self) -> &'static str {
                match self {
                    $(OutputKind::$variant(_) => $word,)*
                }
            }

            /// The members that outputs of any type may have.
            #[cfg(test)]
            pub(super) fn all_members() -> Vec<&'static str> {
                [COMMON, $(super::file::members::<$config>()),*].concat()
            }

            fn read<'de, A: MapAccess<'de>>(word: &str, own: Own<'_, A>) -> Result<Self, A::Error> {
                match word {
                    $($word => <$config>::deserialize(own).map(OutputKind::$variant),)*
                    _ => Err(A::Error::custom(format!("`{word}` is no type of an output"))),
                }
            }
        }
    };
}

// One line for each type here, and one in `daemon/outputs.rs`, where it is opened.
kinds! {
    "stdout" Stdout(StdoutConfig) "Standard output.";
    "file" File(FileOutput) "A file of lines, rotated if wanted.";
    "syslog" Syslog(SyslogConfig) "Syslog by RFC 5424.";
    "journald" Journald(JournaldConfig) "The journal, by its own protocol.";
    "webhook" Webhook(WebhookConfig) "Requests over HTTP.";
    "alertmanager" Alertmanager(AlertmanagerConfig) "Alertmanager, one or a cluster.";
    "otlp" Otlp(OtlpConfig) "OpenTelemetry, as log records.";
    "falcosidekick" Falcosidekick(FalcosidekickConfig) "Falcosidekick, in Falco's shape.";
}

impl OutputKind {
    /// Whether it writes lines of bytes here and now, and so has no use for a spool.
    pub const fn is_local(&self) -> bool {
        matches!(self, OutputKind::Stdout(_) | OutputKind::File(_))
    }

    /// Whether it makes connections beyond this machine's own sockets.
    pub const fn is_networked(&self) -> bool {
        match self {
            OutputKind::Stdout(_) | OutputKind::File(_) | OutputKind::Journald(_) => false,
            OutputKind::Syslog(syslog) => !matches!(syslog.address, SyslogAddress::Unix(_)),
            OutputKind::Webhook(_)
            | OutputKind::Alertmanager(_)
            | OutputKind::Otlp(_)
            | OutputKind::Falcosidekick(_) => true,
        }
    }

    /// The files that it reads while it runs: secrets and certificates.
    pub fn files(&self) -> Vec<&Path> {
        match self {
            OutputKind::Stdout(_) | OutputKind::File(_) | OutputKind::Journald(_) => Vec::new(),
            OutputKind::Syslog(config) => config.files(),
            OutputKind::Webhook(config) => config.files(),
            OutputKind::Alertmanager(config) => config.files(),
            OutputKind::Otlp(config) => config.files(),
            OutputKind::Falcosidekick(config) => config.files(),
        }
    }
}

/// What all types have.
#[derive(Debug, Default)]
struct Common {
    name: Option<Name>,
    min_priority: Option<Checked<Priority>>,
    queue_bytes: Option<QueueBytes>,
    spool: Option<SpoolConfig>,
}

const COMMON: &[&str] = &["type", "name", "min_priority", "queue_bytes", "spool"];

impl Common {
    /// Reads the value of the key if it is one of these.
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match key {
            "name" => self.name = Some(map.next_value()?),
            "min_priority" => self.min_priority = Some(map.next_value()?),
            "queue_bytes" => self.queue_bytes = Some(map.next_value()?),
            "spool" => self.spool = Some(map.next_value()?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl<'de> Deserialize<'de> for OutputConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Whole)
    }
}

/// Reads a whole output.
struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = OutputConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an output: a mapping that begins with `type`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OutputConfig, A::Error> {
        let mut common = Common::default();
        let Word(word) = loop {
            let Some(key) = map.next_key_seed(Key(None))? else {
                let types = OutputKind::WORDS.join(", ");
                return Err(A::Error::custom(format!("this output has no `type`: one of {types}")));
            };
            if !common.take(&key, &mut map)? {
                break map.next_value()?;
            }
        };
        let kind = OutputKind::read(&word, Own { map: &mut map, common: &mut common, word: &word })?;
        if kind.is_local() && common.spool.is_some() {
            let message = format!("an output of type {word} has no spool: it writes here and now");
            return Err(A::Error::custom(message));
        }
        Ok(OutputConfig {
            name: common.name.map_or(word, |name| name.0),
            min_priority: common.min_priority.map_or(Priority::Debug, |priority| priority.0),
            queue_bytes: common.queue_bytes.map_or(DEFAULT_QUEUE_BYTES, |bytes| bytes.0),
            spool: common.spool,
            kind,
        })
    }
}

/// What belongs to the type: the rest of the mapping, of which the common keys are taken out in passing.
struct Own<'a, A> {
    map: &'a mut A,
    common: &'a mut Common,
    word: &'a str,
}

impl<'de, A: MapAccess<'de>> Deserializer<'de> for Own<'_, A> {
    type Error = A::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_map(OwnKeys { own: self, fields: &[] })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        visitor.visit_map(OwnKeys { own: self, fields })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A key that may stand here: a common one or `type`, or, behind that, one of the type's own. Checked where it is read, so
/// that the error has its place.
struct Key<'a>(Option<(&'a str, &'static [&'static str])>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        let key = String::deserialize(deserializer)?;
        let own = self.0.map_or(&[][..], |(_, fields)| fields);
        if COMMON.contains(&key.as_str()) || own.contains(&key.as_str()) {
            return Ok(key);
        }
        Err(D::Error::custom(match self.0 {
            None => format!("the key `{key}` stands before `type`; put `type` first"),
            Some((word, fields)) => {
                let allowed: Vec<&str> = COMMON.iter().chain(fields).copied().collect();
                format!("unknown setting `{key}` of an output of type {word}; {}", suggest(&key, &allowed))
            }
        }))
    }
}

struct OwnKeys<'a, A> {
    own: Own<'a, A>,
    fields: &'static [&'static str],
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for OwnKeys<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Own { map, common, word } = &mut self.own;
        while let Some(key) = map.next_key_seed(Key(Some((word, self.fields))))? {
            if common.take(&key, *map)? {
                continue;
            }
            let key: StringDeserializer<A::Error> = key.into_deserializer();
            return seed.deserialize(key).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.own.map.next_value_seed(seed)
    }
}

/// The word of a type.
struct Word(String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        if OutputKind::WORDS.contains(&word.as_str()) {
            return Ok(Word(word));
        }
        let help = suggest(&word, OutputKind::WORDS);
        Err(D::Error::custom(format!("`{word}` is no type of an output; {help}")))
    }
}

#[derive(Debug)]
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let fits =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        let begins = name.starts_with(|first: char| first.is_ascii_alphanumeric());
        if begins && name.len() <= MAX_NAME && name.bytes().all(fits) {
            return Ok(Name(name));
        }
        Err(D::Error::custom(format!(
            "`{name}` is no name of an output: up to {MAX_NAME} small letters, digits, `-` and `_`, a letter or digit first"
        )))
    }
}

#[derive(Debug)]
struct QueueBytes(usize);

impl<'de> Deserialize<'de> for QueueBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        within(deserializer, &QUEUE_BYTES, "a queue").map(|bytes| QueueBytes(bytes as usize))
    }
}

const fn default_spool_bytes() -> u64 {
    DEFAULT_SPOOL_BYTES
}

fn spool_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    within(deserializer, &SPOOL_BYTES, "a spool")
}

/// Reads a number of bytes within bounds.
fn within<'de, D: Deserializer<'de>>(
    deserializer: D,
    bounds: &RangeInclusive<u64>,
    what: &str,
) -> Result<u64, D::Error> {
    let bytes = u64::deserialize(deserializer)?;
    if bounds.contains(&bytes) {
        return Ok(bytes);
    }
    let (least, most) = (bounds.start(), bounds.end());
    Err(D::Error::custom(format!("{bytes} is no size for {what}: it has from {least} to {most} bytes")))
}

/// Reads an absolute path.
fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Checked::<PathBuf>::deserialize(deserializer).map(|path| path.0)
}

/// Checks what concerns several outputs: their number, their names, their files.
///
/// # Errors
/// A sentence that says what is wrong, and what helps.
pub fn check_outputs(outputs: &[OutputConfig], alert_file: Option<&Path>) -> Result<(), String> {
    if outputs.len() > MAX_OUTPUTS {
        return Err(format!("{} outputs are too many: at most {MAX_OUTPUTS}", outputs.len()));
    }
    let mut names: Vec<&str> = alert_file.map(|_| "file").into_iter().collect();
    let mut files: Vec<&Path> = alert_file.into_iter().collect();
    let is_stdout = |output: &&OutputConfig| matches!(output.kind, OutputKind::Stdout(_));
    match outputs.iter().filter(is_stdout).count() {
        // The one that `output` is about.
        0 => names.push("stdout"),
        1 => {}
        _ => return Err("two outputs are of type stdout: their lines would be torn; leave one".to_owned()),
    }
    for output in outputs {
        let name = output.name.as_str();
        if names.contains(&name) {
            return Err(format!(
                "two outputs have the name `{name}`; give one of them another `name` (without one it is the type, and `alert_file` is called file)"
            ));
        }
        names.push(name);
        if let OutputKind::File(file) = &output.kind {
            if files.contains(&file.path.as_path()) {
                return Err(format!("two outputs write to {}; leave one", file.path.display()));
            }
            files.push(&file.path);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "outputs_tests.rs"]
mod tests;
