//! What of an output's settings may be shown, and what of them is a secret that must not stand anywhere else.
//!
//! Each member that any type of output has is listed with what it holds; a member that is not is hidden. Texts that are
//! looked for elsewhere must be such as do not stand there by chance: whoever takes `json` or `alerts` out of a bundle
//! leaves nothing to read.

use std::io::Read as _;

use serde_json::{Map, Value as Json};

use super::Loaded;

/// Stands for a value that is not shown.
pub(super) const HIDDEN: &str = "(not shown)";

/// Bytes of a file that holds a secret, at most.
const LARGEST_SECRET: u64 = 64 << 10;

/// Shorter texts are not looked for, secret or not.
const SHORTEST: usize = 4;
/// A part of an address, or a text with letters and digits, is not a word of somebody else's from this length on.
const SHORTEST_PART: usize = 8;
/// So long a text may be taken out where it stands within a word, too.
const LONG: usize = 16;

/// What a member of an output holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The members of an output themselves.
    Output,
    /// Nothing that is a secret, nor is anything below it.
    Plain,
    /// An address: user, path and query may let somebody in.
    Place,
    /// An address that everybody who gets alerts is shown; user and query may let somebody in.
    Link,
    /// Headers by name, each a text or where that is.
    Headers,
    /// One of them.
    Header,
    /// Settings of TLS.
    Tls,
    /// The path of a file that holds no secret.
    File,
    /// The path of a file that holds one.
    SecretFile,
    /// The path of a file that holds a [`Form::Place`].
    PlaceFile,
    /// The name of a variable that holds a secret.
    Variable,
    /// The name of a variable that holds a [`Form::Place`].
    PlaceVariable,
    /// It may be anything.
    Hidden,
}

/// The members of all types. A test holds that none is missing.
const MEMBERS: &[(&str, Form)] = &[
    ("type", Form::Plain),
    ("name", Form::Plain),
    ("min_priority", Form::Plain),
    ("queue_bytes", Form::Plain),
    ("spool", Form::Plain),
    ("format", Form::Plain),
    ("shape", Form::Plain),
    ("path", Form::File),
    ("rotate", Form::Plain),
    ("address", Form::Place),
    ("facility", Form::Plain),
    ("app_name", Form::Plain),
    ("message", Form::Plain),
    ("bom", Form::Plain),
    ("sd_id", Form::Plain),
    ("socket", Form::File),
    ("identifier", Form::Plain),
    ("json", Form::Plain),
    ("url", Form::Place),
    ("urls", Form::Place),
    ("url_file", Form::PlaceFile),
    ("url_env", Form::PlaceVariable),
    ("method", Form::Plain),
    ("template", Form::Plain),
    ("template_file", Form::File),
    ("escape_slack", Form::Plain),
    ("batch", Form::Plain),
    ("resolve_after_s", Form::Plain),
    ("labels", Form::Plain),
    ("generator_url", Form::Link),
    ("protocol", Form::Plain),
    ("body", Form::Plain),
    ("resource", Form::Plain),
    ("headers", Form::Headers),
    ("token_file", Form::SecretFile),
    ("token_env", Form::Variable),
    ("user", Form::Plain),
    ("password_file", Form::SecretFile),
    ("password_env", Form::Variable),
    ("tls", Form::Tls),
    ("timeout_ms", Form::Plain),
];

impl Form {
    /// What a member below this has.
    fn of_member(self, name: &str) -> Form {
        match (self, name) {
            (Form::Output, _) => {
                let known = MEMBERS.iter().find(|(known, _)| *known == name);
                known.map_or(Form::Hidden, |(_, form)| *form)
            }
            (Form::Plain, _) | (Form::Tls, "server_name") => Form::Plain,
            (Form::Headers, _) => Form::Header,
            (Form::Header, "file") => Form::SecretFile,
            (Form::Header, "env") => Form::Variable,
            (Form::Tls, "ca" | "cert" | "key") => Form::File,
            _ => Form::Hidden,
        }
    }

    /// As much of a text as may be shown.
    fn shown(self, text: &str) -> String {
        let whole = match self {
            Form::Place => return place(text),
            Form::Link => return link(text),
            Form::Plain => !text.contains('\n') && !text.contains("-----BEGIN"),
            // The thing itself may stand where its place is wanted.
            Form::File | Form::SecretFile | Form::PlaceFile => text.starts_with('/') && !text.contains('\n'),
            Form::Variable | Form::PlaceVariable => {
                !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            }
            Form::Output | Form::Headers | Form::Header | Form::Tls | Form::Hidden => false,
        };
        if whole { text.to_owned() } else { HIDDEN.to_owned() }
    }
}

/// The same value with each leaf as `leaf` makes it, which is told what it holds.
fn mapped(form: Form, value: &Json, leaf: &mut dyn FnMut(Form, &Json) -> Json) -> Json {
    match value {
        Json::Array(members) => members.iter().map(|member| mapped(form, member, leaf)).collect(),
        Json::Object(members) => {
            let one =
                |(name, value): (&String, &Json)| (name.clone(), mapped(form.of_member(name), value, leaf));
            Json::Object(members.iter().map(one).collect::<Map<_, _>>())
        }
        value => leaf(form, value),
    }
}

/// Outputs as they were written, without secrets. `hides` becomes true if a part is not shown.
pub(super) fn redacted(outputs: &Json, hides: &mut bool) -> Json {
    mapped(Form::Output, outputs, &mut |form, value| {
        let shown: Json = match value {
            Json::String(text) => form.shown(text).into(),
            // A number may be a secret, as a pin is.
            Json::Number(_) if form != Form::Plain => HIDDEN.into(),
            value => value.clone(),
        };
        *hides |= shown != *value;
        shown
    })
}

/// A URL in parts: scheme with what stands behind it, user and password, host and port, path with query and fragment.
fn parts(text: &str) -> (&str, &str, &str, &str) {
    let (scheme, rest) = text.split_at(text.find("://").map_or(0, |at| at + 3));
    let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    (scheme, user, host, target)
}

/// A socket of this machine.
fn is_local(text: &str) -> bool {
    let path = text.strip_prefix("unix:").unwrap_or(text);
    path.starts_with('/')
}

/// A URL or address without what may let somebody in.
fn place(text: &str) -> String {
    let (scheme, user, host, target) = parts(text);
    if is_local(text) || (user.is_empty() && matches!(target, "" | "/")) {
        return text.to_owned();
    }
    // What stands before the `@` may be a password with a slash in it.
    if target.contains('@') { format!("{scheme}{HIDDEN}") } else { format!("{scheme}{host}/{HIDDEN}") }
}

/// The same with its path.
fn link(text: &str) -> String {
    let (scheme, user, host, target) = parts(text);
    match target.find(['?', '#']) {
        _ if target.contains('@') => format!("{scheme}{HIDDEN}"),
        None if user.is_empty() => text.to_owned(),
        end => format!("{scheme}{host}{}/{HIDDEN}", target.get(..end.unwrap_or(target.len())).unwrap_or("")),
    }
}

/// A text that is looked for in what leaves the machine. It has no `Debug`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(String);

impl Secret {
    /// A text without it, also as JSON would write it; `None` if it does not stand there. One that could be a part of a
    /// word by chance is taken out where it is a word of its own.
    pub fn taken_out(&self, text: &str, instead: &str) -> Option<String> {
        let quoted = Json::from(self.0.as_str()).to_string();
        let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(&quoted);
        let plain = without(text, &self.0, instead);
        let both = match inner == self.0 {
            true => None,
            false => without(plain.as_deref().unwrap_or(text), inner, instead),
        };
        both.or(plain)
    }
}

fn without(text: &str, secret: &str, instead: &str) -> Option<String> {
    let anywhere = secret.len() >= LONG && is_mixed(secret);
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let (first, last) = (is_word(secret.chars().next()), is_word(secret.chars().next_back()));
    let mut out = String::new();
    let mut rest = 0;
    for (at, found) in text.match_indices(secret) {
        let (before, after) = (text.get(..at).unwrap_or(""), text.get(at + found.len()..).unwrap_or(""));
        let joined =
            (first && is_word(before.chars().next_back())) || (last && is_word(after.chars().next()));
        if anywhere || !joined {
            out.push_str(text.get(rest..at).unwrap_or(""));
            out.push_str(instead);
            rest = at + found.len();
        }
    }
    (rest > 0).then(|| out + text.get(rest..).unwrap_or(""))
}

/// Whether letters of both cases, or letters and digits, are in it.
fn is_mixed(text: &str) -> bool {
    let has = |is: fn(&u8) -> bool| usize::from(text.bytes().any(|byte| is(&byte)));
    has(u8::is_ascii_lowercase) + has(u8::is_ascii_uppercase) + has(u8::is_ascii_digit) > 1
}

/// Collects secrets.
#[derive(Default)]
struct Found(Vec<String>);

impl Found {
    /// What is known to be a secret.
    fn known(&mut self, text: &str) {
        if text.len() >= SHORTEST {
            self.0.push(text.to_owned());
        }
    }

    /// What may be one or just a name, as a header's value: a single word or number is none.
    fn likely(&mut self, text: &str) {
        let all = |is: fn(&u8) -> bool| text.bytes().all(|byte| is(&byte));
        let is_word = all(u8::is_ascii_lowercase) || all(u8::is_ascii_uppercase) || all(u8::is_ascii_digit);
        if text.len() >= LONG || !is_word {
            self.known(text);
        }
    }

    /// Parts of an address: with the host all of it, without that what does not look like anybody's path.
    fn place(&mut self, text: &str) {
        if is_local(text) {
            return;
        }
        let (_, user, host, target) = parts(text);
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        self.likely(user);
        self.known(password);
        if matches!(target, "" | "/") {
            return;
        }
        self.known(&format!("{host}{target}"));
        let (path, query) = target.split_at(target.find(['?', '#']).unwrap_or(target.len()));
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let parts = segments.iter().filter(|segment| segment.len() >= SHORTEST_PART && is_mixed(segment));
        if segments.len() > 1 || parts.clone().count() > 0 {
            self.known(path);
            self.known(target);
        }
        parts.for_each(|part| self.known(part));
        self.query(query);
    }

    fn query(&mut self, query: &str) {
        let members = query.trim_start_matches(['?', '#']).split(['&', ';', '#']);
        members.for_each(|member| self.likely(member.split_once('=').map_or(member, |(_, value)| value)));
    }

    /// A text that is not shown.
    fn text(&mut self, text: &str) {
        self.likely(text);
        text.lines().for_each(|line| self.likely(line));
        // "Bearer x": what stands behind the word is enough for whoever finds it.
        text.split_whitespace().filter(|part| part.len() >= SHORTEST_PART).for_each(|part| self.likely(part));
    }

    fn leaf(&mut self, form: Form, text: &str) {
        match form {
            Form::Place => self.place(text),
            Form::Link => {
                let (_, user, _, target) = parts(text);
                user.split(':').for_each(|part| self.likely(part));
                self.query(target.split_once('?').map_or("", |(_, query)| query));
            }
            _ if form.shown(text) != *text => self.text(text),
            Form::SecretFile => lines_of(text).iter().for_each(|line| self.known(line)),
            Form::PlaceFile => lines_of(text).iter().for_each(|line| self.place(line)),
            Form::Variable => std::env::var(text).iter().for_each(|value| self.known(value)),
            Form::PlaceVariable => std::env::var(text).iter().for_each(|value| self.place(value)),
            _ => {}
        }
    }
}

impl Loaded {
    /// Texts of the settings that are not shown, and what stands in files and variables of the environment that settings
    /// name: what must not stand in anything that leaves the machine. The longest first.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut found = Found::default();
        if let Some(given) = self.given("outputs") {
            found.outputs(&given.written);
        }
        // Those of settings that others replaced, too.
        for name in self.named_variables() {
            std::env::var(name).iter().for_each(|value| found.known(value));
        }
        let Found(mut texts) = found;
        texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        texts.dedup();
        texts.into_iter().map(Secret).collect()
    }
}

impl Found {
    fn outputs(&mut self, outputs: &Json) {
        mapped(Form::Output, outputs, &mut |form, value| {
            match value {
                Json::String(text) => self.leaf(form, text),
                Json::Number(number) if form != Form::Plain => self.known(&number.to_string()),
                _ => {}
            }
            Json::Null
        });
    }
}

/// What stands in a file that holds a secret; nothing of one that cannot be read, or is too large to hold one.
fn lines_of(path: &str) -> Vec<String> {
    let mut text = String::new();
    let read =
        std::fs::metadata(path).and_then(|meta| match meta.is_file() && meta.len() <= LARGEST_SECRET {
            true => std::fs::File::open(path)?.take(LARGEST_SECRET).read_to_string(&mut text),
            false => Ok(0),
        });
    let lines = text.lines().map(|line| line.trim().to_owned());
    if read.is_ok() { lines.collect() } else { Vec::new() }
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
