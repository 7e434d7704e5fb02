//! What a rule file asks of the engine and of plugins.

use super::reader::ItemReader;
use crate::rules::diagnostic::Diagnostic;
use crate::rules::yaml::{Kind, Node};

/// The version of Falco's engine whose rule language this is. Files that ask for a newer one are refused.
pub const ENGINE_VERSION: (u32, u32, u32) = (0, 63, 0);

/// Plugins whose fields Ringfence has without a plugin.
const BUILT_IN: &[&str] = &["container"];

/// Three numbers with points between them, and perhaps what semantic versioning allows behind.
fn parse(text: &str) -> Option<(u32, u32, u32)> {
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, suffix) = text.split_at(end);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    if suffix.len() == 1 || !suffix.chars().all(allowed) {
        return None;
    }
    let mut parts = numbers.split('.').map(number);
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}

/// A number without a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Checks `required_engine_version`: a number N, which means 0.N.0, or three numbers.
pub(super) fn engine(reader: &mut ItemReader<'_>, value: &Node) {
    let Some(text) = value.text() else {
        let message = format!("expected a version, such as 0.50.0, found {}", value.kind_name());
        return reader.wrong(value, message);
    };
    let Some(required) = number(text).map(|minor| (0, minor, 0)).or_else(|| parse(text)) else {
        return reader.wrong(value, format!("expected a version, such as 0.50.0 or 50, found `{text}`"));
    };
    // As Falco compares them: another first number is another language.
    if required.0 != ENGINE_VERSION.0 || required > ENGINE_VERSION {
        let (major, minor, patch) = required;
        let (ours_major, ours_minor, ours_patch) = ENGINE_VERSION;
        let message = format!("this file needs rule engine {major}.{minor}.{patch}");
        let help = format!(
            "this version of ringfence knows Falco's rule language up to engine {ours_major}.{ours_minor}.{ours_patch}; \
             update ringfence, or take a version of the file for an older engine"
        );
        reader.diagnostics.push(Diagnostic::at(reader.source, value.span, message).help(help));
    }
}

/// Checks `required_plugin_versions`, and says which plugins there are not.
pub(super) fn plugins(reader: &mut ItemReader<'_>, value: Node) {
    let (span, kind) = (value.span, value.kind_name());
    let Kind::Sequence(plugins) = value.kind else {
        let message = format!("expected a sequence of plugins, found {kind}");
        return reader.diagnostics.push(Diagnostic::at(reader.source, span, message));
    };
    for plugin in plugins {
        let span = plugin.span;
        let mut names = Vec::new();
        one(reader, plugin, &mut names, true);
        let Some(first) = names.first() else { continue };
        if names.iter().any(|name| BUILT_IN.contains(&name.as_str())) {
            continue;
        }
        let message = format!("this file needs the plugin `{first}`, and ringfence has no plugins");
        let help = "rules of a plugin's source are left out; its fields are unknown in the others";
        reader.diagnostics.push(Diagnostic::at(reader.source, span, message).help(help).warning());
    }
}

/// Checks a plugin or an alternative to one, and adds its name.
fn one(reader: &mut ItemReader<'_>, node: Node, names: &mut Vec<String>, may_have_alternatives: bool) {
    let opened = ItemReader::open(reader.source, reader.diagnostics, node, "a plugin's name and version");
    let Some(mut plugin) = opened else { return };
    let known: &[&str] =
        if may_have_alternatives { &["name", "version", "alternatives"] } else { &["name", "version"] };
    plugin.keys(known);
    let name = plugin.required("name");
    if let Some(version) = plugin.required("version")
        && parse(version.as_str()).is_none()
    {
        let message = format!("expected a version, such as 0.4.0, found `{}`", version.as_str());
        plugin.diagnostics.push(version.wrong(message));
    }
    if let Some(name) = name {
        if names.iter().any(|known| known == name.as_str()) {
            let message = format!("the plugin `{}` stands twice among the alternatives", name.as_str());
            plugin.diagnostics.push(name.wrong(message));
        }
        names.push(name.as_str().to_owned());
    }
    let Some(alternatives) = plugin.take("alternatives").filter(|_| may_have_alternatives) else { return };
    let (span, kind) = (alternatives.span, alternatives.kind_name());
    let Kind::Sequence(members) = alternatives.kind else {
        let message = format!("`alternatives` must be a sequence, found {kind}");
        return plugin.diagnostics.push(Diagnostic::at(plugin.source, span, message));
    };
    for member in members {
        one(&mut plugin, member, names, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_three_numbers() {
        for (text, expected) in [
            ("0.57.0", Some((0, 57, 0))),
            ("1.2.3-rc1+x.5", Some((1, 2, 3))),
            ("0.57", None),
            ("0.57.0.1", None),
            ("0.57.x", None),
            ("0.+57.0", None),
            ("0.57.0-", None),
            ("0.57.0-ä", None),
            ("0..0", None),
            ("", None),
            ("0.99999999999.0", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
