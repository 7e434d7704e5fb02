//! Settings that all outputs over HTTP have, and where their secrets are.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use http::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;

use super::secret::Secret;
use super::{TlsConfig, setting};
use crate::sink::OutputError;

/// Headers that an output may be told to send.
const MAX_HEADERS: usize = 32;

/// Where the value of a header is from. Its `Debug` shows no value: a header is where keys are handed over.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "HeaderForm")]
pub enum HeaderSource {
    /// The configuration itself.
    Text(String),
    /// A file, read again when it changes.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
}

/// As the configuration has it: a text, `{file: …}` or `{env: …}`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a text, {file: PATH} or {env: VARIABLE}")]
enum HeaderForm {
    Text(String),
    File(OfFile),
    Environment(OfEnvironment),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfFile {
    file: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfEnvironment {
    env: String,
}

impl From<HeaderForm> for HeaderSource {
    fn from(form: HeaderForm) -> Self {
        match form {
            HeaderForm::Text(text) => HeaderSource::Text(text),
            HeaderForm::File(of) => HeaderSource::File(of.file),
            HeaderForm::Environment(of) => HeaderSource::Environment(of.env),
        }
    }
}

impl fmt::Debug for HeaderSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderSource::Text(_) => f.write_str("(set)"),
            HeaderSource::File(path) => write!(f, "{}", path.display()),
            HeaderSource::Environment(variable) => write!(f, "${variable}"),
        }
    }
}

/// What all outputs over HTTP are told, borrowed from the settings of one.
pub(super) struct HttpSettings<'a> {
    pub(super) headers: &'a BTreeMap<String, HeaderSource>,
    pub(super) token_file: Option<&'a Path>,
    pub(super) token_env: Option<&'a str>,
    pub(super) user: Option<&'a str>,
    pub(super) password_file: Option<&'a Path>,
    pub(super) password_env: Option<&'a str>,
    pub(super) tls: &'a TlsConfig,
    pub(super) timeout_ms: u64,
}

/// Makes a structure of settings that has, besides its own, those of every output over HTTP. serde's `flatten` would
/// do, but does not go together with `deny_unknown_fields`.
macro_rules! http_settings {
    ($(#[$about:meta])* pub struct $name:ident {
        $($(#[$doc:meta])* pub $field:ident: $type:ty = $default:expr,)*
    }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
            /// Further headers by name. `Authorization` and `Cookie` may only come from a file or the environment.
            pub headers: std::collections::BTreeMap<String, $crate::sink::net::HeaderSource>,
            /// A file with the token for `Authorization: Bearer`.
            pub token_file: Option<std::path::PathBuf>,
            /// An environment variable with that token.
            pub token_env: Option<String>,
            /// The user for `Authorization: Basic`.
            pub user: Option<String>,
            /// A file with that user's password.
            pub password_file: Option<std::path::PathBuf>,
            /// An environment variable with that password.
            pub password_env: Option<String>,
            /// TLS, for addresses with `https`.
            pub tls: $crate::sink::net::TlsConfig,
            /// How long connecting, and then the exchange, may take, in milliseconds.
            pub timeout_ms: u64,
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    headers: Default::default(),
                    token_file: None,
                    token_env: None,
                    user: None,
                    password_file: None,
                    password_env: None,
                    tls: Default::default(),
                    timeout_ms: $crate::sink::net::DEFAULT_TIMEOUT_MS,
                }
            }
        }

        impl $name {
            fn http(&self) -> $crate::sink::net::settings::HttpSettings<'_> {
                $crate::sink::net::settings::HttpSettings {
                    headers: &self.headers,
                    token_file: self.token_file.as_deref(),
                    token_env: self.token_env.as_deref(),
                    user: self.user.as_deref(),
                    password_file: self.password_file.as_deref(),
                    password_env: self.password_env.as_deref(),
                    tls: &self.tls,
                    timeout_ms: self.timeout_ms,
                }
            }
        }
    };
}
pub(super) use http_settings;

impl<'a> HttpSettings<'a> {
    /// The files that are read while the output runs.
    pub(super) fn files(&self) -> Vec<&'a Path> {
        let headers = self.headers.values().filter_map(|source| match source {
            HeaderSource::File(path) => Some(path.as_path()),
            _ => None,
        });
        headers.chain(self.token_file).chain(self.password_file).chain(self.tls.files()).collect()
    }
}

/// The headers that an output sends with each request, and the secrets in them.
#[derive(Clone, Debug)]
pub(super) struct Headers(Vec<(HeaderName, Part)>);

/// What makes up a value.
#[derive(Clone)]
enum Part {
    Text(HeaderValue),
    Secret(Secret),
    Bearer(Secret),
    Basic(String, Secret),
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Text(_) => f.write_str("(set)"),
            Part::Secret(secret) | Part::Bearer(secret) | Part::Basic(_, secret) => secret.fmt(f),
        }
    }
}

impl Headers {
    pub(super) fn new(settings: &HttpSettings<'_>) -> Result<Self, OutputError> {
        let wrong = |reason: String| setting("headers", reason);
        if settings.headers.len() > MAX_HEADERS {
            return Err(wrong(format!("more than {MAX_HEADERS}")));
        }
        let mut all = Vec::new();
        for (name, source) in settings.headers {
            let name: HeaderName =
                name.parse().map_err(|_| wrong(format!("`{}` is no header", name.escape_debug())))?;
            if name == HOST || name.as_str().starts_with("content-") || name == "transfer-encoding" {
                return Err(wrong(format!("`{name}` is not for settings to choose")));
            }
            let part = match source {
                HeaderSource::Text(_) if [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(&name) => {
                    return Err(wrong(format!(
                        "the value of `{name}` is a secret: write {{file: PATH}} or {{env: VARIABLE}}"
                    )));
                }
                HeaderSource::Text(text) => Part::Text(
                    sensitive(text).ok_or_else(|| wrong(format!("the value of `{name}` is no header's")))?,
                ),
                HeaderSource::File(path) => Part::Secret(Secret::from_file("headers", path)?),
                HeaderSource::Environment(variable) => {
                    Part::Secret(Secret::from_environment("headers", variable)?)
                }
            };
            all.push((name, part));
        }
        let token = Secret::find(["token_file", "token_env"], settings.token_file, settings.token_env)?;
        let password =
            Secret::find(["password_file", "password_env"], settings.password_file, settings.password_env)?;
        let authorization = match (token, settings.user, password) {
            (None, None, None) => None,
            (Some(token), None, None) => Some(Part::Bearer(token)),
            (None, Some(user), Some(password)) if !user.contains(':') => {
                Some(Part::Basic(user.to_owned(), password))
            }
            (Some(_), ..) => return Err(setting("token_file", "a token or a user, not both")),
            (None, Some(_), Some(_)) => return Err(setting("user", "it may not hold a colon")),
            (None, ..) => return Err(setting("user", "a user needs a password, and it a user")),
        };
        if let Some(part) = authorization {
            if all.iter().any(|(name, _)| *name == AUTHORIZATION) {
                return Err(wrong("`Authorization` is set, and a token or user, too".to_owned()));
            }
            all.push((AUTHORIZATION, part));
        }
        Ok(Self(all))
    }

    /// Whether a text repeats one of the secrets, which must not get into a message by way of a peer.
    pub(super) fn repeated_in(&self, text: &str) -> bool {
        self.0.iter().any(|(_, part)| match part {
            Part::Text(value) => value.to_str().is_ok_and(|value| text.contains(value)),
            Part::Secret(secret) | Part::Bearer(secret) => secret.is_in(text),
            Part::Basic(user, secret) => secret.is_in(text) || text.contains(&basic(user, secret.known())),
        })
    }

    /// Adds them to a request.
    ///
    /// # Errors
    /// A secret cannot be read now.
    pub(super) fn add_to(&mut self, headers: &mut HeaderMap) -> Result<(), String> {
        for (name, part) in &mut self.0 {
            let value = match part {
                Part::Text(value) => Some(value.clone()),
                Part::Secret(secret) => sensitive(secret.current()?),
                Part::Bearer(secret) => sensitive(&format!("Bearer {}", secret.current()?)),
                Part::Basic(user, secret) => {
                    let pair = basic(user, secret.current()?);
                    sensitive(&format!("Basic {pair}"))
                }
            };
            let value = value.ok_or_else(|| format!("the value for the header `{name}` is no header's"))?;
            headers.insert(name.clone(), value);
        }
        Ok(())
    }
}

/// User and password as they are sent.
fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
}

/// A value that `Debug` of the libraries does not show.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
