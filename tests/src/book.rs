//! The documentation as a book and as a promise: its chapters, its links, and the commands in it.
//!
//! `mdbook` is not to be had as a package, and compiling it takes minutes. What it would find wrong is found here instead:
//! chapters that are missing or left out, and, beyond what it looks at, links and anchors that lead nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// Stands before a block of commands that is not run, with the reason.
const NOT_RUN: &str = "<!-- not run:";
/// Stands before one that a test of its own runs, with the test's name.
const RUN_BY: &str = "<!-- run by ";

/// The test that watches, until the daemon ends.
pub const WATCHES: &str = "docs::watching_as_written";
/// The one that asks about a container called web.
pub const CAPABILITIES: &str = "docs::capabilities_as_written";
/// The one that asks a pod.
pub const ASKS_A_POD: &str = "pods::answer_as_written";
/// The one that installs Ringfence from the repository.
pub const INSTALLS: &str = "by_hand::is_installed_as_written";
/// The one that mounts what probes are pinned in.
pub const MOUNTS: &str = "by_hand::is_mounted_as_written";
/// The one that unpacks the tarball.
pub const UNPACKS: &str = "by_hand::is_unpacked_as_written";
/// The one that loads the image.
pub const LOADS: &str = "image::is_loaded_as_written";
/// All of them.
pub const RUNNERS: [&str; 7] = [WATCHES, CAPABILITIES, ASKS_A_POD, INSTALLS, MOUNTS, UNPACKS, LOADS];

/// What the commands use of the repository.
pub const USED_OF_REPOSITORY: [&str; 2] = ["deploy", "rules"];

/// Who runs a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// The test that runs whatever changes nothing.
    Anywhere,
    /// The test of this name.
    By(String),
    /// Nobody, for this reason.
    Not(String),
}

/// A block of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where it stands: file and line.
    pub place: String,
    /// The commands; of a console block without prompts and answers.
    pub commands: String,
    /// Who runs it.
    pub run: Run,
}

/// Everything of a document that is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Targets of links and pictures, as they are written.
    pub links: Vec<String>,
    /// Anchors of its headings, as mdbook and GitHub make them.
    pub anchors: BTreeSet<String>,
    /// Blocks of commands.
    pub blocks: Vec<Block>,
}

/// Reads a document; `name` is for places.
pub fn read(name: &str, text: &str) -> Document {
    let mut document = Document::default();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    let mut heading: Option<(HeadingLevel, String)> = None;
    let mut block: Option<(usize, String, String)> = None;
    let mut mark: Option<Run> = None;
    for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                document.links.push(dest_url.into_string());
            }
            Event::Start(Tag::Heading { level, .. }) => heading = Some((level, String::new())),
            Event::End(TagEnd::Heading(_)) => {
                if let Some((_, text)) = heading.take() {
                    let slug = slug(&text);
                    let count = counts.entry(slug.clone()).or_default();
                    document.anchors.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
                    *count += 1;
                }
                mark = None;
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                let line = text.get(..range.start).unwrap_or_default().matches('\n').count() + 1;
                block = Some((line, language.into_string(), String::new()));
            }
            Event::End(TagEnd::CodeBlock) => {
                if let Some((line, language, commands)) = block.take() {
                    let commands = match language.as_str() {
                        "sh" | "bash" | "shell" => Some(commands),
                        "console" => Some(of_console(&commands)),
                        _ => None,
                    };
                    let place = format!("{name}:{line}");
                    let run = mark.take().unwrap_or(Run::Anywhere);
                    document.blocks.extend(commands.map(|commands| Block { place, commands, run }));
                }
            }
            Event::Html(html) => {
                let behind = |start| {
                    html.trim().strip_prefix(start)?.strip_suffix("-->").map(|text| text.trim().to_owned())
                };
                let reason = behind(NOT_RUN).filter(|reason| reason.len() >= 10).map(Run::Not);
                mark = reason.or_else(|| behind(RUN_BY).map(Run::By));
            }
            Event::Start(Tag::Paragraph | Tag::List(_)) => mark = None,
            Event::Text(text) | Event::Code(text) => {
                if let Some((_, heading)) = &mut heading {
                    heading.push_str(&text);
                } else if let Some((_, _, commands)) = &mut block {
                    commands.push_str(&text);
                }
            }
            _ => {}
        }
    }
    document
}

/// The commands of a console: what stands behind `# ` or `$ `.
fn of_console(text: &str) -> String {
    let commands =
        text.lines().filter_map(|line| line.strip_prefix("# ").or_else(|| line.strip_prefix("$ ")));
    commands.map(|command| format!("{command}\n")).collect()
}

/// Programs that a block may use to be run: none of them changes the machine.
const HARMLESS: &[&str] = &["ringfence", "tar", "cat", "echo", "head", "jq", "promtool", "true"];

impl Block {
    /// A program of the block that keeps it from being run, since it may change the machine. Each line begins with a
    /// program, behind variables, and so does what follows `|`, `;` or `&&`.
    pub fn harmful(&self) -> Option<String> {
        let joined = self.commands.replace("\\\n", " ");
        let parts = joined.split(['\n', '|', ';', '&']).map(str::trim);
        let program = |part: &str| {
            let mut words = part.split_whitespace().skip_while(|word| {
                word.split_once('=')
                    .is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
            });
            words.next().filter(|word| !word.starts_with('#')).map(str::to_owned)
        };
        parts.filter_map(program).find(|program| !HARMLESS.contains(&program.as_str()))
    }
}

/// A heading's anchor.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

/// The documents of the repository at `root`, by their path below it.
///
/// # Errors
/// The kernel's, as a text.
pub fn documents(root: &Path) -> Result<BTreeMap<PathBuf, Document>, String> {
    let mut documents = BTreeMap::new();
    for dir in ["", "docs", "rules", "deploy"] {
        let entries = std::fs::read_dir(root.join(dir)).map_err(|error| format!("{dir}: {error}"))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "md") {
                let text =
                    std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
                let document = read(&name.display().to_string(), &text);
                documents.insert(name, document);
            }
        }
    }
    Ok(documents)
}

/// The blocks that this test runs, in the order of their places.
///
/// # Errors
/// There is none, so the test would prove nothing.
pub fn blocks_of(root: &Path, test: &str) -> Result<Vec<Block>, String> {
    let documents = documents(root)?;
    let all = documents.into_values().flat_map(|document| document.blocks);
    let blocks: Vec<Block> = all.filter(|block| block.run == Run::By(test.to_owned())).collect();
    if blocks.is_empty() { Err(format!("no document says `{RUN_BY}{test} -->`")) } else { Ok(blocks) }
}

/// What is wrong with the book and the links of all documents.
pub fn problems(root: &Path, documents: &BTreeMap<PathBuf, Document>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, document) in documents {
        for link in &document.links {
            if let Some(problem) = follow(root, documents, name, link) {
                problems.push(format!("{}: the link {link} {problem}", name.display()));
            }
        }
    }
    let summary = Path::new("docs/SUMMARY.md");
    let Some(Document { links, .. }) = documents.get(summary) else {
        problems.push("there is no docs/SUMMARY.md".to_owned());
        return problems;
    };
    for name in documents.keys().filter(|name| name.starts_with("docs") && *name != summary) {
        let file = name.file_name().unwrap_or_default().to_string_lossy();
        match links.iter().filter(|link| **link == file).count() {
            1 => {}
            0 => problems.push(format!("docs/SUMMARY.md leaves out {file}")),
            _ => problems.push(format!("docs/SUMMARY.md has {file} more than once")),
        }
    }
    problems
}

/// What is wrong with a link.
fn follow(
    root: &Path,
    documents: &BTreeMap<PathBuf, Document>,
    from: &Path,
    link: &str,
) -> Option<&'static str> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { from.to_owned() } else { joined(from.parent()?, Path::new(path))? };
    if !root.join(&target).exists() {
        return Some("leads to no file");
    }
    let is_page = target.extension().is_some_and(|extension| extension == "md");
    if is_page && from.starts_with("docs") && !target.starts_with("docs") {
        return Some("leads out of the book, where it is broken");
    }
    match documents.get(&target) {
        Some(document) if !anchor.is_empty() && !document.anchors.contains(anchor) => {
            Some("leads to no heading")
        }
        _ => None,
    }
}

/// A path below the root, without `..`; `None` if it leads out of it.
fn joined(dir: &Path, path: &Path) -> Option<PathBuf> {
    let mut joined = dir.to_owned();
    for part in path.components() {
        match part {
            Component::Normal(name) => joined.push(name),
            Component::ParentDir => {
                if !joined.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn the_book_is_whole_and_every_link_leads_somewhere() {
        let documents = documents(&root()).unwrap();
        assert!(documents.len() > 15, "{:?}", documents.keys());
        assert_eq!(problems(&root(), &documents), Vec::<String>::new());
        let book = std::fs::read_to_string(root().join("book.toml")).unwrap();
        assert!(book.contains("src = \"docs\""), "{book}");
    }

    #[test]
    fn what_is_wrong_is_found() {
        let mut documents = documents(&root()).unwrap();
        let using = documents.get_mut(Path::new("docs/using.md")).unwrap();
        for link in
            ["nowhere.md", "rules.md#no-such-heading", "../README.md", "../../etc/passwd", "#none", "/etc"]
        {
            using.links.push(link.to_owned());
        }
        documents.get_mut(Path::new("docs/SUMMARY.md")).unwrap().links.retain(|link| link != "falco.md");
        documents.insert("docs/new.md".into(), Document::default());
        let problems = problems(&root(), &documents);
        for part in [
            "nowhere.md leads to no file",
            "no-such-heading leads to no heading",
            "README.md leads out of the book",
            "#none leads to no heading",
            "leaves out falco.md",
            "leaves out new.md",
        ] {
            assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:#?}");
        }
    }

    #[test]
    fn every_block_is_run_or_says_why_not() {
        let documents = documents(&root()).unwrap();
        let blocks = || documents.values().flat_map(|document| &document.blocks);
        let wrong: Vec<String> = blocks()
            .filter_map(|block| match &block.run {
                Run::Anywhere => Some(format!("`{}` is not for every test to run", block.harmful()?)),
                Run::By(test) if RUNNERS.contains(&test.as_str()) => None,
                Run::By(test) => Some(format!("no test is called `{test}`")),
                Run::Not(_) => None,
            })
            .collect();
        assert!(
            wrong.is_empty(),
            "a block of commands is run, or `{RUN_BY}TEST -->` or `{NOT_RUN} REASON -->` stands before it:\n{}",
            wrong.join("\n")
        );
        for runner in RUNNERS {
            assert!(blocks_of(&root(), runner).is_ok(), "{runner} has nothing to run");
        }
        assert!(blocks_of(&root(), "docs::none").is_err());
        assert!(blocks().filter(|block| block.run == Run::Anywhere).count() >= 5);
        // What is not run stays the exception.
        let not_run = blocks().filter(|block| matches!(block.run, Run::Not(_))).count();
        assert!(blocks().count() > 2 * not_run, "{not_run} of {} are not run", blocks().count());
    }

    #[test]
    fn what_changes_something_is_told() {
        let block = |commands: &str| Block {
            place: String::new(),
            commands: commands.to_owned(),
            run: Run::Anywhere,
        };
        assert_eq!(block("A=b ringfence x | jq . # rm\n# rm\nB='c' ringfence y; tar x").harmful(), None);
        for commands in ["rm -r /", "ringfence x && rm y", "A=b \\\nrm x", "ringfence x\n mount y", "$(rm x)"]
        {
            assert!(block(commands).harmful().is_some(), "{commands}");
        }
    }

    #[test]
    fn blocks_links_and_anchors_are_read() {
        let text = "# A `b` c!\n\n## A b c\n\n<!-- not run: needs a cluster -->\n```sh\nx | y\n```\n\n```sh\nz\n```\n\n\
                    <!-- not run: needs a cluster -->\n\nText [l](m.md#n).\n\n```console\n# a\nb\n$ c\n```\n\n```yaml\n- d\n```\n\
                    <!-- not run: why -->\n```sh\ne\n```\n\n<!-- run by a::b -->\n```sh\nf\n```\n";
        let document = read("f.md", text);
        assert_eq!(document.anchors, BTreeSet::from(["a-b-c".to_owned(), "a-b-c-1".to_owned()]));
        assert_eq!(document.links, ["m.md#n"]);
        let block = |line: u32, commands: &str, run: Run| Block {
            place: format!("f.md:{line}"),
            commands: commands.to_owned(),
            run,
        };
        assert_eq!(
            document.blocks,
            [
                block(6, "x | y\n", Run::Not("needs a cluster".to_owned())),
                block(10, "z\n", Run::Anywhere),
                // A mark is for the block right behind it, and a reason has some length.
                block(18, "a\nc\n", Run::Anywhere),
                block(28, "e\n", Run::Anywhere),
                block(33, "f\n", Run::By("a::b".to_owned())),
            ]
        );
    }
}
