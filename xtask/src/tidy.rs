//! Rules of this repository that no common tool knows.
//!
//! - Every Rust file starts with a module comment and has at most 500 lines.
//! - Every `unsafe` block and impl has a `SAFETY:` comment, the BPF programs' included.
//! - No text names a directory of the machine it was written on, or a host its packages came from.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::environment::repository;

/// Lines of a Rust file; longer ones are split by subject.
const MAX_LINES: usize = 500;
/// Lines above an `unsafe` in which its reason may stand.
const SAFETY_REACH: usize = 8;
/// What we read. Lock files name the registry by design and are left out.
const TEXT: &[&str] = &["rs", "md", "toml", "yaml", "yml", "json", "sh", "service", "conf"];

/// All violations, each as `path:line: what is wrong`.
pub(crate) fn problems() -> Result<Vec<String>> {
    let root = repository();
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let private = private_strings(&root);
    let mut problems = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
        if file.extension().is_some_and(|extension| extension == "rs") {
            check_rust(&name, &text, &mut problems);
        }
        check_private(&name, &text, &private, &mut problems);
    }
    Ok(problems)
}

/// Text files below `dir`; hidden directories other than `.ci` and cargo's output are not ours.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let ours = !name.starts_with('.') || name == ".ci" || name == ".cargo" || name == ".github";
            // CACHEDIR.TAG marks cargo's output, whatever it is called.
            if ours && name != "target" && !path.join("CACHEDIR.TAG").exists() {
                collect(&path, files)?;
            }
        } else if kind.is_file() {
            let extension = path.extension().and_then(|extension| extension.to_str());
            if extension.is_some_and(|extension| TEXT.contains(&extension))
                || dir.file_name().is_some_and(|name| name == ".ci")
            {
                files.push(path);
            }
        }
    }
    Ok(())
}

fn check_rust(name: &str, text: &str, problems: &mut Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    if !lines.iter().find(|line| !line.trim().is_empty()).is_some_and(|line| line.starts_with("//!")) {
        problems.push(format!("{name}:1: the file has no module comment (`//!`) at its start"));
    }
    if lines.len() > MAX_LINES {
        problems
            .push(format!("{name}:{MAX_LINES}: the file has {} lines, more than {MAX_LINES}", lines.len()));
    }
    for (index, line) in lines.iter().enumerate() {
        if opens_unsafe(line) {
            let above = &lines[index.saturating_sub(SAFETY_REACH)..=index];
            if !above.iter().any(|line| line.contains("SAFETY:")) {
                problems.push(format!("{name}:{}: `unsafe` without a SAFETY: comment", index + 1));
            }
        }
    }
}

/// Whether code of this line opens an unsafe block or impl. Unsafe functions state their demands in their docs,
/// which clippy checks.
fn opens_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("unsafe") {
        let starts_word =
            !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"' || c == '`');
        let next = after.trim_start();
        if starts_word && (next.starts_with('{') || next.starts_with("impl")) {
            return true;
        }
        rest = after;
    }
    false
}

/// Directories and package hosts of this machine. They are looked up, not listed, so that none stands here.
fn private_strings(root: &Path) -> BTreeSet<String> {
    let mut strings = BTreeSet::new();
    strings.insert(format!("{}/", root.display()));
    for variable in ["CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR"] {
        if let Ok(value) = env::var(variable) {
            strings.insert(format!("{}/", value.trim_end_matches('/')));
        }
    }
    if let Ok(home) = env::var("HOME") {
        strings.extend([format!("{home}/.cargo"), format!("{home}/.rustup")]);
    }
    let lists =
        fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    for file in lists.chain([PathBuf::from("/etc/apt/sources.list")]) {
        let text = fs::read_to_string(file).unwrap_or_default();
        for part in text.split("://").skip(1) {
            let host = part.split(['/', ' ', '\n']).next().unwrap_or_default();
            if host.contains('.') {
                strings.insert(host.to_owned());
            }
        }
    }
    strings
}

fn check_private(name: &str, text: &str, private: &BTreeSet<String>, problems: &mut Vec<String>) {
    for (index, line) in text.lines().enumerate() {
        for string in private.iter().filter(|string| line.contains(string.as_str())) {
            problems.push(format!("{name}:{}: names {string}, which is of this machine", index + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_needs_a_reason_above_it() {
        let block = ["//! A file.", "fn f() {", &format!("    {} {{ g() }}", "unsafe"), "}"].join("\n");
        let mut problems = Vec::new();
        check_rust("a.rs", &block, &mut problems);
        assert_eq!(problems, ["a.rs:3: `unsafe` without a SAFETY: comment"]);

        let reasoned = block.replace("fn f() {", "fn f() {\n    // SAFETY: g has no demands.");
        problems.clear();
        check_rust("a.rs", &reasoned, &mut problems);
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn attributes_names_and_comments_are_not_unsafe_code() {
        for line in
            ["#[unsafe(no_mangle)]", "let unsafe_count = 1;", "// unsafe { f() }", "pub unsafe fn f() {"]
        {
            assert!(!opens_unsafe(line), "{line}");
        }
        for word in ["{ f() }", "impl Send for A {}", "{"] {
            assert!(opens_unsafe(&format!("    let a = {} {word}", "unsafe")), "{word}");
        }
    }

    #[test]
    fn files_start_with_a_module_comment_and_end_in_time() {
        let mut problems = Vec::new();
        check_rust("a.rs", "use std::fs;\n//! Late.\n", &mut problems);
        check_rust("b.rs", &format!("//! Long.\n{}", "\n".repeat(MAX_LINES)), &mut problems);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("a.rs:1:") && problems[1].starts_with("b.rs:500:"), "{problems:?}");
    }

    #[test]
    fn strings_of_this_machine_are_found() {
        let private = BTreeSet::from(["/somewhere/clone/".to_owned()]);
        let mut problems = Vec::new();
        check_private("a.md", "fine\nsee /somewhere/clone/target\n", &private, &mut problems);
        assert_eq!(problems, ["a.md:2: names /somewhere/clone/, which is of this machine"]);
    }
}
