//! `docs/falco.md`: what Ringfence makes of Falco's rule files, printed from the catalogue.

use std::fmt::Write;

use super::events::{Watched, names, watched};
use super::fields::{Ours, ROWS, Stand};
use super::missing::GROUPS;

const INTRODUCTION: &str = "\
# Falco's rule files

This file is generated from the code.

Ringfence reads Falco's rule files. One that says `required_engine_version`, as Falco's do, is taken for one of Falco's:
its rules may name the fields of Falco's documentation, and what Ringfence has stands for them, as below. A rule that needs
a field, a type of event or a source that is not here is left out, with a warning that says what is missing; a rule that
loads with approximations is named with them, too. A misspelt field is an error in every file. In a file without that item
Falco's own fields are as unknown as any other.

`ringfence check --falco FILE…` says for each rule of the files, whether they are marked or not, what becomes of it:

| | |
|---|---|
| `loads` | all of it works |
| `degraded` | it is loaded, but a field, a type of event or a part of its output is only nearly Falco's |
| `not loaded` | a field, a type of event or the source that it needs is not here |
| `wrong` | it has a mistake |

With `-o json` the same as JSON: `rules` with `rule`, `file`, `line`, `enabled`, `status` and `notes` (`kind`, `name`,
`missing`, `text`), `summary` with the number of each status, and `diagnostics`. Exit codes: 0, or 1 if a file has a mistake
or cannot be read.

In an output, a field that is not here prints as `<NA>`. A field that nothing stands for counts only where it can matter: not
in a part of the condition that is about types of event that are not watched.
";

/// Prints it.
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    out.push_str("\n## Types of event\n\nWatched, each as a call that has returned:\n\n| Type | What is seen |\n|---|---|\n");
    let mut missing = Vec::new();
    for name in names() {
        match watched(name) {
            Watched::Whole => row(&mut out, name, "every one"),
            Watched::Partly(which) => row(&mut out, name, which),
            Watched::Not | Watched::Unknown => missing.push(name),
        }
    }
    out.push_str("\nNot watched:\n");
    out.push_str(&wrapped(missing));
    out.push_str("\n## Fields\n\n| Falco's | Here |\n|---|---|\n");
    for field in ROWS {
        let here = match field.ours {
            Ours::Same => "the same".to_owned(),
            Ours::Like(how) => format!("approximated: {how}"),
            Ours::As(stand, how) => {
                let stand = match stand {
                    Stand::Field(name, None) | Stand::Ancestor(name) => format!("`{name}`"),
                    Stand::Field(name, Some(arg)) => format!("`{name}[{arg}]`"),
                    Stand::Text(text) | Stand::OfOpens(text) => format!("always `{text}`"),
                    Stand::Number(number) => format!("always `{number}`"),
                    Stand::Bool(truth) => format!("always `{truth}`"),
                    Stand::Derived(_) => "worked out".to_owned(),
                };
                match how {
                    Some(how) => format!("{stand}, approximated: {how}"),
                    None => stand,
                }
            }
        };
        row(&mut out, field.name, &here);
    }
    row(&mut out, "evt.arg.NAME", "`evt.arg[NAME]`, for the arguments that Ringfence decodes");
    row(&mut out, "evt.rawarg.NAME", "the same");
    row(&mut out, "container.label.KEY", "`container.label[KEY]`");
    out.push_str("\nNothing stands for these:\n");
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for group in GROUPS {
        let names = group.names.split_ascii_whitespace();
        match reasons.iter_mut().find(|(why, _)| *why == group.why) {
            Some((_, known)) => known.extend(names),
            None => reasons.push((group.why, names.collect())),
        }
    }
    for (why, names) in reasons {
        // Writing to a String cannot fail.
        let _infallible = write!(out, "\nBecause {why}:\n{}", wrapped(names));
    }
    out
}

fn row(out: &mut String, name: &str, here: &str) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(out, "| `{name}` | {} |", here.replace('|', "\\|"));
}

/// Names in lines.
fn wrapped<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let mut out = String::new();
    let mut width = usize::MAX;
    for name in names {
        if width.saturating_add(name.len() + 3) > 118 {
            out.push('\n');
            width = 0;
        } else {
            out.push(' ');
            width += 1;
        }
        let _infallible = write!(out, "`{name}`");
        width += name.len() + 2;
    }
    out.push('\n');
    out
}
