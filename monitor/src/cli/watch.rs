//! `ringfence watch`: what a running daemon sees, as it sees it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use clap::Args;
use serde_json::Value as Json;

use crate::alert::{Palette, json_visible};
use crate::cli::containers::{failure, socket};
use crate::cli::rules::visible;
use crate::cli::{AskArgs, ColorArg, Failure};
use crate::config::OutputFormat;
use crate::control::{self, Heard, Request};
use crate::watchers::Sight;

/// Fields that a text line shows behind an alert's output if the output does not have them.
const NAMES: [&str; 4] = ["container.name", "container.image", "k8s.ns.name", "k8s.pod.name"];

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Events, whether or not a rule matches them
    #[arg(long, conflicts_with = "alerts")]
    events: bool,
    /// Alerts, as they go to the outputs (the default)
    #[arg(long)]
    alerts: bool,
    /// Only those whose event fits this condition, written as in rules; it may use the rules' macros and lists
    #[arg(value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Whom to ask, and how to show it.
    #[command(flatten)]
    ask: AskArgs,
    /// Whether output is coloured.
    #[command(flatten)]
    color: ColorArg,
}

impl WatchArgs {
    /// Shows what comes until standard output is closed or the daemon ends.
    ///
    /// # Errors
    /// Nobody answers, the filter is wrong, or the daemon ended.
    pub(super) fn run(self) -> Result<(), Failure> {
        let path = socket(self.ask.socket, &self.ask.config)?;
        let sight = if self.events { Sight::Events } else { Sight::Alerts };
        let palette = Palette::for_stdout(self.color.no_color);
        let mut show = Show { sight, output: self.ask.output, palette, failed: None };
        let request = Request::Watch { sight, filter: self.filter };
        let ended = control::watch(&path, request, |heard| show.take(&heard, &path)).map_err(failure)?;
        match (show.failed, ended) {
            // A reader that has read enough (`| head`) is no failure.
            (Some(error), _) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            (Some(error), _) => Err(Failure::stdout(&error)),
            (None, Some(reason)) => Err(Failure::environment(format_args!(
                "nothing more comes: {} (socket {})",
                visible(&reason),
                path.display()
            ))),
            (None, None) => Ok(()),
        }
    }
}

struct Show {
    sight: Sight,
    output: OutputFormat,
    palette: Palette,
    /// Standard output takes no more.
    failed: Option<io::Error>,
}

impl Show {
    /// Prints what was heard; false if nobody reads it any more.
    fn take(&mut self, heard: &Heard<'_>, path: &Path) -> bool {
        let text = match (heard, self.output) {
            (Heard::Begun, _) => {
                let sight = if self.sight == Sight::Events { "events" } else { "alerts" };
                let line = format!("ringfence: watching {sight} of the daemon at {}", path.display());
                // Nobody may be left to read it.
                let _ = writeln!(io::stderr().lock(), "{}", visible(&line));
                return true;
            }
            (Heard::Line(line), OutputFormat::Json) => json_visible(line) + "\n",
            (Heard::Line(line), OutputFormat::Text) => text(self.sight, line, self.palette),
            (Heard::Missed(lines), OutputFormat::Json) => format!("{{\"missed\":{lines}}}\n"),
            (Heard::Missed(lines), OutputFormat::Text) => format!("… {lines} missed here\n"),
        };
        let mut stdout = io::stdout().lock();
        self.failed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).err();
        self.failed.is_none()
    }
}

/// A line for people. What cannot be read is shown as it is, but for controls.
fn text(sight: Sight, line: &str, palette: Palette) -> String {
    let Ok(json) = serde_json::from_str::<Json>(line) else { return visible(line) + "\n" };
    let at = json["time"].as_str().and_then(|time| time.get(11..23)).unwrap_or("--:--:--.---");
    let fields = &json["output_fields"];
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = match sight {
        Sight::Alerts => {
            let priority = json["priority"].as_str().unwrap_or_default();
            let style = palette.style(priority);
            let pad = "Informational".len().saturating_sub(priority.len()) + 2;
            let id = json["rule_id"].as_str().unwrap_or_default();
            let output = json["output"].as_str().unwrap_or_default();
            let _ = write!(
                out,
                "{} {style}{}{style:#}{:pad$}{}  {}",
                visible(at),
                visible(priority),
                "",
                visible(id),
                visible(output)
            );
            let unnamed = NAMES.iter().filter(|name| !output.contains(&format!("{name}=")));
            unnamed.filter_map(|name| Some((name, fields[*name].as_str()?))).try_for_each(|(name, value)| {
                if output.contains(value) { Ok(()) } else { write!(out, " {name}={}", visible(value)) }
            })
        }
        Sight::Events => {
            let of = |name: &str| match &fields[name] {
                Json::String(text) => visible(text),
                Json::Null => String::new(),
                other => visible(&other.to_string()),
            };
            let by = of("evt.refused_by");
            let verdict = if by.is_empty() { of("evt.verdict") } else { format!("refused by {by}") };
            let container = match of("container.name") {
                name if name.is_empty() => of("container.id"),
                name => format!("{} {name}", of("container.id")),
            };
            let what = match (of("evt.args"), of("cap.name")) {
                (args, cap) if cap.is_empty() => args,
                (_, cap) => cap,
            };
            write!(
                out,
                "{} {:16} {:21} {container}  {}[{}]  {what}",
                visible(at),
                of("evt.type"),
                verdict,
                of("proc.name"),
                of("proc.pid"),
            )
        }
    };
    let mut out = out.trim_end().to_owned();
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALERT: &str = r#"{"time":"2026-11-27T04:05:06.123456789Z","rule":"R","priority":"Warning","output":"setns by sh\u001b[2J","hostname":"h","source":"syscall","tags":[],"output_fields":{"container.name":"web","container.image":null},"schema_version":2,"rule_id":"r","attack":[],"rules_generation":1}"#;
    const EVENT: &str = r#"{"time":"2026-11-27T04:05:06.123456789Z","output_fields":{"evt.type":"setns","evt.verdict":"refused","evt.refused_by":"capability","evt.args":"fd=3 nstype=CLONE_NEWNS","container.id":"abc","container.name":"web","proc.name":"s\u001bh","proc.pid":42}}"#;

    #[test]
    fn lines_for_people() {
        assert_eq!(
            text(Sight::Alerts, ALERT, Palette::Plain),
            "04:05:06.123 Warning        r  setns by sh\\x1b[2J container.name=web\n"
        );
        assert_eq!(
            text(Sight::Events, EVENT, Palette::Plain),
            "04:05:06.123 setns            refused by capability abc web  s\\x1bh[42]  fd=3 nstype=CLONE_NEWNS\n"
        );
        let coloured = text(Sight::Alerts, ALERT, Palette::Coloured);
        assert!(
            coloured.contains("\u{1b}[33mWarning\u{1b}[0m") && !coloured.contains("[2J\u{1b}"),
            "{coloured:?}"
        );
    }

    #[test]
    fn what_is_no_line_of_ours_reaches_no_terminal_raw() {
        for line in [
            "",
            "\u{1b}[2J",
            "{",
            "{}",
            "[]",
            "{\"time\":\"é\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}\"}",
        ] {
            for sight in [Sight::Alerts, Sight::Events] {
                let shown = text(sight, line, Palette::Plain);
                assert!(
                    shown.ends_with('\n') && !shown.trim_end().chars().any(char::is_control),
                    "{shown:?}"
                );
            }
        }
    }
}
