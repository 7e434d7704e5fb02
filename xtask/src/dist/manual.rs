//! The packaged configuration and its manual page, both made from the example in the README, which a test of the
//! daemon holds to its defaults.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The README's example: every setting with its default, those without one as comments.
pub(crate) fn defaults(repository: &Path) -> Result<String> {
    let readme = fs::read_to_string(repository.join("README.md")).context("cannot read README.md")?;
    example(&readme).map(str::to_owned).context("README.md has no example of the configuration")
}

fn example(readme: &str) -> Option<&str> {
    let (_, rest) = readme.split_once("### Configuration\n")?;
    let (_, rest) = rest.split_once("```yaml\n")?;
    rest.split_once("```").map(|(example, _)| example)
}

/// `/etc/ringfence/config.yaml`: everything as a comment, so that later versions can change a default.
pub(crate) fn config_file(example: &str) -> String {
    let mut text = "# Settings of Ringfence; ringfence.yaml(5) describes them. What is set here is read at the start only.\n\
                    # Rather than here, set something in a file of config.d: upgrades then ask nothing.\n\
                    # Each line shows the default; those without a default show what could be set.\n\n"
        .to_owned();
    for line in example.lines() {
        if line.is_empty() || line.starts_with('#') {
            text.push_str(line);
        } else {
            let _ = write!(text, "# {line}");
        }
        text.push('\n');
    }
    text
}

/// The manual page ringfence.yaml(5).
pub(crate) fn config_page(example: &str, version: &str) -> String {
    let mut page = format!(
        ".TH ringfence.yaml 5 \"\" \"ringfence {version}\"\n\
         .SH NAME\n\
         ringfence.yaml \\- configuration of Ringfence\n\
         .SH SYNOPSIS\n\
         /etc/ringfence/config.yaml\n\
         .br\n\
         /etc/ringfence/config.d/*.yaml\n\
         .SH DESCRIPTION\n\
         A file in YAML, read when the daemon starts. The files of config.d follow in the order of their names, then\n\
         the environment (RINGFENCE_ and the setting's name in capitals), then the command line; later ones win. An unknown key is an error, and so is a file that others than its owner\n\
         can write or that belongs to someone else than root or the daemon's user.\n\
         .B ringfence check\n\
         says what is wrong, and where.\n\
         .SH SETTINGS\n\
         All settings with their defaults; those without one are comments, and say what holds then.\n\
         .PP\n.nf\n"
    );
    for line in example.lines() {
        page.push_str(&escape(line));
        page.push('\n');
    }
    page.push_str(
        ".fi\n\
         .SH FILES\n\
         .TP\n/etc/ringfence/rules.d\nlocal rules\n\
         .TP\n/usr/share/ringfence/rules\nthe shipped rules\n\
         .SH SEE ALSO\n\
         .BR ringfence (1),\n\
         .BR ringfence\\-run (1)\n",
    );
    page
}

/// Text that troff shows as it is.
fn escape(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = "```yaml\nno: 1\n```\n### Configuration\n\ntext\n```yaml\nattach: auto   # how\n# output: json # or text\n```\n```";

    #[test]
    fn the_packaged_configuration_sets_nothing_and_shows_everything() {
        let example = example(README).expect("the example");
        assert_eq!(example, "attach: auto   # how\n# output: json # or text\n");
        let text = config_file(example);
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with("# ")), "{text}");
        assert!(text.ends_with("\n# attach: auto   # how\n# output: json # or text\n"), "{text}");
    }

    #[test]
    fn troff_shows_what_stands_in_the_example() {
        let page = config_page("a-b: \\x\n.c: 'd'\n'e", "1.2");
        assert!(page.contains(".nf\na\\-b: \\ex\n\\&.c: 'd'\n\\&'e\n.fi\n"), "{page}");
    }

    #[test]
    fn the_readme_has_the_example() -> Result<()> {
        let example = defaults(&crate::environment::repository())?;
        assert!(example.contains("attach: auto") && example.contains("# rules: "), "{example}");
        Ok(())
    }
}
