//! `ringfence status`: how a running daemon is.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::alert::json_visible;
use crate::cli::containers::{ask_daemon, other_answer};
use crate::cli::rules::visible;
use crate::cli::{ConfigArg, Failure};
use crate::config::OutputFormat;
use crate::control::{Reply, Request, RulesStatus, Status};

/// Column at which values begin.
const INDENT: usize = 11;

/// Asks the daemon.
pub(super) fn ask(socket: Option<PathBuf>, config: &ConfigArg) -> Result<Status, Failure> {
    match ask_daemon(socket, config, Request::Status {})? {
        Reply::Status(status) => Ok(*status),
        _ => Err(other_answer()),
    }
}

/// For people, or JSON.
pub(super) fn show(status: &Status, output: OutputFormat) -> String {
    match output {
        OutputFormat::Json => {
            // Only a map with keys that are no texts can fail.
            let json = serde_json::to_string_pretty(status).unwrap_or_default();
            json_visible(&json) + "\n"
        }
        OutputFormat::Text => text(status),
    }
}

fn text(status: &Status) -> String {
    let mut lines = Lines::default();
    let detail = if status.detail.is_empty() { String::new() } else { format!(": {}", status.detail) };
    lines.add("ringfence", format!("{} {}{detail}", status.version, status.state));
    lines.add("up", format!("{} since {}", duration(status.up_seconds), status.up_since));
    lines.add(
        "probes",
        format!(
            "{} attached ({}), {} missing",
            status.probes_attached,
            status.attach,
            status.probes_missing.len()
        ),
    );
    for probe in &status.probes_missing {
        lines.add("", format!("{}: {} ({})", probe.hook, probe.reason, probe.cost));
    }
    rules(&mut lines, &status.rules);
    let events = &status.events;
    lines.add(
        "events",
        format!(
            "{} seen, {} delivered, {} held back, {} lost",
            events.seen, events.delivered, events.held_back, events.lost
        ),
    );
    for output in &status.outputs {
        let dropped: u64 = output.dropped.values().sum();
        let reasons: Vec<String> = output
            .dropped
            .iter()
            .filter(|(_, lines)| **lines > 0)
            .map(|(reason, lines)| format!("{reason} {lines}"))
            .collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        lines.add(
            "output",
            format!(
                "{}: {} written, {} waiting, {dropped} dropped{reasons}",
                output.name, output.written, output.waiting
            ),
        );
    }
    if !status.confinement.is_empty() {
        let layers = status.confinement.iter().map(|(layer, what)| format!("{layer} {what}"));
        lines.add("confined", layers.collect::<Vec<_>>().join("; "));
    }
    lines.0
}

fn rules(lines: &mut Lines, rules: &RulesStatus) {
    lines.add(
        "rules",
        format!(
            "generation {}: {} enabled of {}, loaded {}",
            rules.generation, rules.enabled, rules.total, rules.loaded
        ),
    );
    for file in &rules.files {
        lines.add("", file.clone());
    }
    if rules.files_omitted > 0 {
        lines.add("", format!("and {} more", rules.files_omitted));
    }
    let watch = match rules.watch.as_str() {
        "on" => "changes of the files are noticed".to_owned(),
        "off" => "not watched (watch_rules: false); SIGHUP reads them".to_owned(),
        "partly" => format!("not all are watched ({}); SIGHUP reads them", rules.watch_detail),
        _ => format!("cannot be watched ({}); SIGHUP reads them", rules.watch_detail),
    };
    let count = |outcome| rules.reloads.get(outcome).copied().unwrap_or_default();
    lines.add(
        "reloads",
        format!("{} ok, {} failed, {} unchanged; {watch}", count("ok"), count("failed"), count("unchanged")),
    );
    if let Some(refused) = &rules.refused {
        let since = if refused.stands { "those before stay in force" } else { "put right since" };
        lines.add("refused", format!("{}, {} findings, {since}", refused.at, refused.findings));
        for diagnostic in &refused.diagnostics {
            lines.add("", diagnostic.clone());
        }
    }
}

/// Titles and values, one below the other.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, title: &str, value: String) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{title:INDENT$}{}", visible(&value));
    }
}

/// Days, hours, minutes, seconds; the two largest that are there.
fn duration(seconds: u64) -> String {
    let parts =
        [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(parts.len() - 1);
    let shown = parts.iter().skip(first).take(2);
    shown.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{EventsStatus, MissingProbe, OutputStatus, RefusedStatus};

    fn status() -> Status {
        Status {
            version: "1.2.3".to_owned(),
            up_since: "2026-11-26T10:00:00.000000000Z".to_owned(),
            up_seconds: 93_784,
            attach: "tracepoint".to_owned(),
            probes_attached: 9,
            probes_missing: vec![MissingProbe {
                hook: "fexit/x".to_owned(),
                reason: "refused".to_owned(),
                cost: "y is not seen".to_owned(),
            }],
            state: "degraded".to_owned(),
            detail: "new rules were refused: a.yaml:1:2: \u{1b}[31mx".to_owned(),
            rules: RulesStatus {
                generation: 4,
                loaded: "2026-11-26T11:00:00.000000000Z".to_owned(),
                enabled: 5,
                total: 6,
                files: vec!["/etc/a.yaml".to_owned()],
                files_omitted: 2,
                watch: "impossible".to_owned(),
                watch_detail: "no room".to_owned(),
                reloads: [("ok", 3), ("failed", 1), ("unchanged", 7)].map(|(k, v)| (k.to_owned(), v)).into(),
                refused: Some(RefusedStatus {
                    at: "2026-11-26T12:00:00.000000000Z".to_owned(),
                    stands: true,
                    findings: 9,
                    diagnostics: vec!["a.yaml:1:2: x".to_owned()],
                }),
            },
            events: EventsStatus { seen: 10, delivered: 8, held_back: 0, lost: 2 },
            outputs: vec![OutputStatus {
                name: "stdout".to_owned(),
                written: 3,
                waiting: 1,
                dropped: [("queue_full", 2), ("shutdown", 0)].map(|(k, v)| (k.to_owned(), v)).into(),
            }],
            confinement: [("seccomp", "in force"), ("landlock", "missing: too old")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        }
    }

    #[test]
    fn everything_is_said_and_nothing_reaches_the_terminal_raw() {
        let text = show(&status(), OutputFormat::Text);
        for line in [
            "ringfence  1.2.3 degraded: new rules were refused: a.yaml:1:2: ",
            "up         1d 2h since 2026-11-26T10:00:00.000000000Z",
            "probes     9 attached (tracepoint), 1 missing",
            "           fexit/x: refused (y is not seen)",
            "rules      generation 4: 5 enabled of 6, loaded 2026-11-26T11:00:00.000000000Z",
            "           /etc/a.yaml",
            "           and 2 more",
            "reloads    3 ok, 1 failed, 7 unchanged; cannot be watched (no room); SIGHUP reads them",
            "refused    2026-11-26T12:00:00.000000000Z, 9 findings, those before stay in force",
            "           a.yaml:1:2: x",
            "events     10 seen, 8 delivered, 0 held back, 2 lost",
            "output     stdout: 3 written, 1 waiting, 2 dropped (queue_full 2)",
            "confined   landlock missing: too old; seccomp in force",
        ] {
            assert!(text.lines().any(|shown| shown.starts_with(line)), "{line}\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn json_is_read_back() {
        let json = show(&status(), OutputFormat::Json);
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status());
        assert!(!json.contains('\u{1b}'));
    }

    #[test]
    fn what_is_wrong() {
        let mut status = status();
        assert!(status.is_wrong());
        status.state = "ready".to_owned();
        assert!(!status.is_wrong());
    }

    #[test]
    fn durations() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (7200, "2h 0m"), (90_061, "1d 1h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
