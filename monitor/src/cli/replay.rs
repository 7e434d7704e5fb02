//! `ringfence replay`: recorded events through the rules, alerts as they would have been.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use crate::alert::{Alert, JsonLines, TextLines};
use crate::alerting::{Alerting, Each, Format, Moment};
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
pub(crate) struct Judge {
    rules: RuleSet,
    min_priority: Priority,
    current: Option<(Arc<str>, Alerting)>,
}

impl Judge {
    pub(crate) fn new(rules: RuleSet, min_priority: Priority) -> Self {
        Judge { rules, min_priority, current: None }
    }

    /// The same with each alert told by itself, whatever the rules say.
    pub(crate) fn ungrouped(rules: RuleSet, min_priority: Priority) -> Self {
        Judge::new(rules.ungrouped(), min_priority)
    }

    /// Gives what is still held back to `each`.
    pub(crate) fn end(&mut self, each: &mut Each<'_>) {
        if let Some((_, alerting)) = &mut self.current {
            alerting.end(each);
        }
    }

    pub(crate) fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Gives what an event raises to `each`. Another host's events are judged for themselves: its alerts have its name,
    /// and what rules count does not add up.
    pub(crate) fn raise(&mut self, event: &Recorded, each: &mut Each<'_>) -> Result<(), Failure> {
        if self.current.as_ref().is_some_and(|(host, _)| *host != event.hostname) {
            self.end(each);
        }
        let alerting = match &mut self.current {
            Some((host, alerting)) if *host == event.hostname => alerting,
            other => {
                let counted = |error| Failure::environment(format_args!("metrics: {error}"));
                let metrics = Arc::new(pipeline::metrics().map_err(counted)?);
                let (rules, host) = (self.rules.clone(), &event.hostname);
                let fresh = Alerting::new(rules, self.min_priority, Vec::new(), host, metrics);
                &mut other.insert((Arc::clone(host), fresh.map_err(counted)?)).1
            }
        };
        let at = Moment { unix_ns: event.unix_ns, boot_ns: event.boot_ns };
        alerting.raise(event.ty, &event.values, at, each);
        Ok(())
    }
}

impl Replay {
    /// Writes the alerts of all recorded events.
    pub(crate) fn run(self, mut format: Format, out: &mut impl Write) -> Result<Replayed, Failure> {
        let mut reader = Reader::new(self.files, Span::default());
        // Before anything is read: rules are wrong or not, whatever is recorded.
        let mut judge = Judge::new(self.rules.load()?, self.min_priority);
        let (mut line, mut alerts, mut closed) = (Vec::new(), 0, false);
        let read = reader.read(|event: Recorded| {
            line.clear();
            judge.raise(&event, &mut |_, alert| {
                alerts += 1;
                write_line(&mut format, alert, &mut line);
            })?;
            out.write_all(&line).map_err(|error| {
                closed = error.kind() == io::ErrorKind::BrokenPipe;
                Failure::stdout(&error)
            })
        });
        line.clear();
        judge.end(&mut |_, alert| {
            alerts += 1;
            write_line(&mut format, alert, &mut line);
        });
        let read = read.and_then(|()| {
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

fn write_line(format: &mut Format, alert: &Alert<'_, dyn FieldSource + '_>, line: &mut Vec<u8>) {
    match format {
        Format::Json(lines) => JsonLines::write(lines, alert, line),
        Format::Text(lines) => TextLines::write(lines, alert, line),
    }
}
