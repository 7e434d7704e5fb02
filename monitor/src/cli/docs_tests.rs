//! Every command line of ours in the documentation is one that is understood, and every block of commands is shell.

use std::path::Path;
use std::process::{Command as Process, Stdio};

use clap::Parser as _;

use super::Cli;

/// Blocks of commands in a document: the line where each begins, and its text.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, bool, bool, String)> = None;
    for (number, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(language)) => {
                let console = language == "console";
                let is_shell = console || matches!(language, "sh" | "bash" | "shell");
                open = Some((number + 1, is_shell, console, String::new()));
            }
            (Some(_), Some("")) => {
                if let Some((line, true, _, text)) = open.take() {
                    blocks.push((line, text));
                }
            }
            (Some((_, _, console, text)), _) => {
                let command = match *console {
                    true => line.strip_prefix("# ").or_else(|| line.strip_prefix("$ ")),
                    false => Some(line),
                };
                text.extend(command.map(|command| format!("{command}\n")));
            }
            (None, None) => {}
        }
    }
    blocks
}

/// Commands of a script, as words: split at `|`, `;`, `&`, redirections left out.
fn commands(script: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = script.chars().peekable();
    let mut skip_next = false;
    let end_word = |word: &mut Option<String>, all: &mut Vec<Vec<String>>, skip_next: &mut bool| {
        if let (Some(word), Some(last)) = (word.take(), all.last_mut())
            && !std::mem::take(skip_next)
        {
            last.push(word);
        }
    };
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some('"') | None, '\\') => match chars.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            (None, '>' | '<') => {
                end_word(&mut word, &mut all, &mut skip_next);
                skip_next = true;
            }
            (None, '\n' | '|' | ';' | '&' | '(' | ')') => {
                end_word(&mut word, &mut all, &mut skip_next);
                all.push(Vec::new());
            }
            (None, c) if c.is_whitespace() => end_word(&mut word, &mut all, &mut skip_next),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    end_word(&mut word, &mut all, &mut skip_next);
    all.retain(|words| !words.is_empty());
    all
}

/// The arguments of `ringfence` in a command: behind variables, `sudo`, and what runs it elsewhere (`… -- ringfence`).
fn of_ringfence(words: &[String]) -> Option<&[String]> {
    let is_assignment = |word: &String| word.split_once('=').is_some_and(|(name, _)| !name.contains('/'));
    let first = words.iter().position(|word| word != "sudo" && !is_assignment(word))?;
    let behind = words.iter().position(|word| word == "--").map(|at| at + 1);
    [Some(first), behind].into_iter().flatten().find_map(|at| {
        let program = Path::new(words.get(at)?).file_name()?;
        (program == "ringfence").then(|| words.get(at..)).flatten()
    })
}

/// What is wrong with the blocks of a document.
fn problems(name: &str, text: &str) -> (usize, Vec<String>) {
    let (mut ours, mut problems) = (0, Vec::new());
    for (line, script) in blocks(text) {
        // An ellipsis stands for what the reader has to fill in.
        let script = script.replace('…', "x");
        let mut bash = Process::new("bash");
        bash.args(["-n", "-c", &script]).stdin(Stdio::null());
        match bash.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                problems.push(format!("{name}:{line}: {}", String::from_utf8_lossy(&output.stderr)))
            }
            Err(error) => problems.push(format!("{name}:{line}: bash: {error}")),
        }
        for words in commands(&script) {
            let Some(arguments) = of_ringfence(&words) else { continue };
            ours += 1;
            if let Err(error) = Cli::try_parse_from(arguments) {
                problems.push(format!("{name}:{line}: {}: {error}", words.join(" ")));
            }
        }
    }
    (ours, problems)
}

#[test]
fn the_documentation_shows_commands_that_are_understood() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let (mut ours, mut wrong) = (0, Vec::new());
    for dir in ["", "docs", "rules", "deploy"] {
        for entry in std::fs::read_dir(root.join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = std::fs::read_to_string(&path).unwrap();
                let (number, problems) = problems(&path.display().to_string(), &text);
                ours += number;
                wrong.extend(problems);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ours > 15, "only {ours} command lines were found");
}

#[test]
fn what_is_not_understood_is_found() {
    for (text, found) in [
        ("```sh\nringfence status -o json | jq .\n```\n", 0),
        ("```sh\nA=b sudo ringfence statu\n```\n", 1),
        ("```sh\nkubectl exec POD -- ringfence caps web --pach docker\n```\n", 1),
        (
            "```console\n# ringfence status --nope\nringfence nonsense is an answer\n$ ringfence status\n```\n",
            1,
        ),
        ("```sh\nif true; then\n```\n", 1),
        (
            "```sh\necho 'ringfence nope' # ringfence nope\nringfence check x.yaml > ringfence-nope 2>&1\n```\n",
            0,
        ),
        ("```text\nringfence nope\n```\n", 0),
    ] {
        assert_eq!(problems("x", text).1.len(), found, "{text}: {:?}", problems("x", text));
    }
}
