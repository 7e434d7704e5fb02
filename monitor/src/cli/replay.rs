//! `ringfence replay`: recorded events through the rules, alerts as they would have been.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use crate::alert::{Alert, JsonLines, TextLines};
use crate::alerting::{Alerting, Format, Moment};
use crate::cli::Failure;
use crate::cli::recorded::Reader;
use crate::cli::rules_command::RuleFiles;
use crate::fields::FieldSource;
use crate::pipeline;
use crate::recording::{Recorded, Span};
use crate::rules::{Priority, RuleSet};

/// What is replayed, and how.
pub(crate) struct Replay {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) rules: RuleFiles,
    pub(crate) min_priority: Priority,
}

/// What was replayed.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// What there is to say about the recordings; a line each.
    pub(crate) report: String,
    pub(crate) damaged: bool,
    pub(crate) events: u64,
    pub(crate) alerts: u64,
}

/// Rules without a daemon around them: nothing is attached, nobody scrapes what is counted.
pub(crate) fn alerting(rules: RuleSet, min: Priority, hostname: &str) -> Result<Alerting, Failure> {
    let counted = |error| Failure::environment(format_args!("metrics: {error}"));
    let metrics = Arc::new(pipeline::metrics(&[]).map_err(counted)?);
    Alerting::new(rules, min, Vec::new(), hostname, metrics).map_err(counted)
}

impl Replay {
    /// Writes the alerts of all recorded events.
    pub(crate) fn run(self, mut format: Format, out: &mut impl Write) -> Result<Replayed, Failure> {
        let mut reader = Reader::new(self.files, Span::default());
        // Rules are wrong or not, whatever is recorded.
        let mut fresh = Some(self.rules.load()?);
        let mut judge: Option<(Arc<str>, Alerting)> = None;
        let (mut line, mut alerts, mut closed) = (Vec::new(), 0, false);
        let read = reader.read(|event: Recorded| {
            // Another host's events are judged for themselves: its alerts have its name, and nothing adds up.
            let alerting = match &mut judge {
                Some((host, alerting)) if *host == event.hostname => alerting,
                other => {
                    let rules = fresh.take().map_or_else(|| self.rules.load(), Ok)?;
                    let alerting = alerting(rules, self.min_priority, &event.hostname)?;
                    &mut other.insert((Arc::clone(&event.hostname), alerting)).1
                }
            };
            let at = Moment { unix_ns: event.unix_ns, boot_ns: event.boot_ns };
            line.clear();
            alerting.raise(event.ty, &event.values, at, |_, alert| {
                alerts += 1;
                write_line(&mut format, alert, &mut line);
            });
            out.write_all(&line).map_err(|error| {
                closed = error.kind() == io::ErrorKind::BrokenPipe;
                Failure::stdout(&error)
            })
        });
        // A reader that has read enough (`| head`) is no failure.
        match read.and_then(|()| out.flush().map_err(|error| Failure::stdout(&error))) {
            Err(failure) if !closed => return Err(failure),
            _ => {}
        }
        Ok(Replayed {
            report: reader.report(),
            damaged: reader.is_damaged(),
            events: reader.total.events,
            alerts,
        })
    }
}

fn write_line(format: &mut Format, alert: &Alert<'_, impl FieldSource>, line: &mut Vec<u8>) {
    match format {
        Format::Json(lines) => JsonLines::write(lines, alert, line),
        Format::Text(lines) => TextLines::write(lines, alert, line),
    }
}
