//! Opening the outputs, and what is done with all of them: opening files anew, the end.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::signal::unix::Signal;

use super::{DaemonError, system};
use crate::alert::{JsonLines, Palette, Shape, TextLines};
use crate::config::{
    OutputConfig, OutputFormat, OutputKind, Settings, StdoutConfig, StdoutFormat, check_outputs,
};
use crate::pipeline::{Format, Output};
use crate::recording::{RecordDrop, Recorder};
use crate::rules::Priority;
use crate::sink::net::{Alertmanager, Falcosidekick, Journald, Otlp, Syslog, Webhook};
use crate::sink::{
    AlertFile, DEFAULT_QUEUE_BYTES, Deliver, OutputError, Rotation, Sink, Spool, check_alert_file,
};

/// Opens all outputs. Nothing is connected to: that is done by each output's thread.
///
/// # Errors
/// The first that is wrong.
pub(super) fn open_outputs(settings: &Settings) -> Result<Vec<Output>, DaemonError> {
    // A peer that is given up has a runtime of its own, which must not end among another's tasks.
    tokio::task::block_in_place(|| open_all(settings))
}

fn open_all(settings: &Settings) -> Result<Vec<Output>, DaemonError> {
    check_outputs(&settings.outputs, settings.alert_file.as_deref()).map_err(DaemonError::Outputs)?;
    let mut outputs = Vec::new();
    let usual = |name| Usual { name, min_priority: Priority::Debug, queue_bytes: DEFAULT_QUEUE_BYTES };
    if !settings.outputs.iter().any(|output| matches!(output.kind, OutputKind::Stdout(_))) {
        outputs.extend(stdout(&usual("stdout"), &StdoutConfig::default(), settings)?);
    }
    if let Some(path) = &settings.alert_file {
        outputs.push(file(&usual("file"), path, Shape::Ringfence, None)?);
    }
    for config in &settings.outputs {
        outputs.extend(open(config, settings)?);
    }
    Ok(outputs)
}

/// The names of all outputs, those of `output` and `alert_file` first.
pub fn output_names(settings: &Settings) -> Vec<&str> {
    let is_stdout = |output: &OutputConfig| matches!(output.kind, OutputKind::Stdout(_));
    let usual = (!settings.outputs.iter().any(is_stdout)).then_some("stdout");
    let file = settings.alert_file.as_ref().map(|_| "file");
    let configured = settings.outputs.iter().map(|output| output.name.as_str());
    usual.into_iter().chain(file).chain(configured).collect()
}

/// Checks all outputs as far as that can be done without connecting and without changing anything.
///
/// # Errors
/// The first that is wrong.
pub fn try_outputs(settings: &Settings) -> Result<(), DaemonError> {
    check_outputs(&settings.outputs, settings.alert_file.as_deref()).map_err(DaemonError::Outputs)?;
    if let Some(path) = &settings.alert_file {
        check_alert_file(path)?;
    }
    for config in &settings.outputs {
        if let OutputKind::File(file) = &config.kind {
            check_parent(config, &file.path)?;
            check_alert_file(&file.path)?;
        }
        peer(config)?;
        if let Some(spool) = &config.spool {
            check_parent(config, &spool.dir)?;
        }
    }
    Ok(())
}

fn check_parent(config: &OutputConfig, path: &Path) -> Result<(), DaemonError> {
    match path.parent() {
        Some(dir) if !dir.is_dir() => Err(DaemonError::Outputs(format!(
            "output {}: {}: the directory {dir} does not exist; create it with `mkdir -p {dir}`",
            config.name,
            path.display(),
            dir = dir.display()
        ))),
        _ => Ok(()),
    }
}

/// What every output has.
struct Usual<'a> {
    name: &'a str,
    min_priority: Priority,
    queue_bytes: usize,
}

fn open(config: &OutputConfig, settings: &Settings) -> Result<Option<Output>, DaemonError> {
    let OutputConfig { name, min_priority, queue_bytes, spool, kind } = config;
    let usual = Usual { name, min_priority: *min_priority, queue_bytes: *queue_bytes };
    if let Some(peer) = peer(config)? {
        let capacity = spool.as_ref().map_or(0, |spool| spool.bytes);
        let spool = spool.as_ref().map(|spool| Spool::open(&spool.dir, name, spool.bytes)).transpose()?;
        let sink =
            Sink::deliver(name, peer, *queue_bytes, spool).map_err(system("cannot start an output"))?;
        sink.stats().set_spool_capacity(capacity);
        return Ok(Some(Output::new(sink, Format::Json(JsonLines::default())).above(*min_priority)));
    }
    match kind {
        OutputKind::Stdout(config) => stdout(&usual, config, settings),
        OutputKind::File(config) => file(&usual, &config.path, config.shape, config.rotate).map(Some),
        // All others have a peer, and are open by now.
        _ => Ok(None),
    }
}

/// What takes records, made from its configuration: one line for each type.
fn peer(config: &OutputConfig) -> Result<Option<Box<dyn Deliver>>, DaemonError> {
    let made: Result<Option<Box<dyn Deliver>>, OutputError> = match &config.kind {
        OutputKind::Stdout(_) | OutputKind::File(_) => Ok(None),
        OutputKind::Syslog(config) => Syslog::new(config).map(boxed),
        OutputKind::Journald(config) => Journald::new(config).map(boxed),
        OutputKind::Webhook(config) => Webhook::new(config).map(boxed),
        OutputKind::Alertmanager(config) => Alertmanager::new(config).map(boxed),
        OutputKind::Otlp(config) => Otlp::new(config).map(boxed),
        OutputKind::Falcosidekick(config) => Falcosidekick::new(config).map(boxed),
    };
    made.map_err(|error| DaemonError::Outputs(format!("output {}: {error}", config.name)))
}

fn boxed(output: impl Deliver) -> Option<Box<dyn Deliver>> {
    Some(Box::new(output))
}

/// Standard output, unless it is off.
fn stdout(
    usual: &Usual<'_>,
    config: &StdoutConfig,
    settings: &Settings,
) -> Result<Option<Output>, DaemonError> {
    let asked = match settings.stdout_format() {
        _ if config.shape != Shape::Ringfence => StdoutFormat::Json,
        OutputFormat::Json => StdoutFormat::Json,
        OutputFormat::Text => StdoutFormat::Text,
    };
    let format = match config.format.unwrap_or(asked) {
        StdoutFormat::Off => return Ok(None),
        StdoutFormat::Json => Format::Json(JsonLines::default()),
        StdoutFormat::Text => Format::Text(TextLines::new(Palette::for_stdout(settings.no_color))),
    };
    let shape = if matches!(format, Format::Json(_)) { config.shape } else { Shape::Ringfence };
    let sink = Sink::stdout(usual.name, shape, usual.queue_bytes)
        .map_err(system("cannot write to standard output"))?;
    Ok(Some(Output::new(sink, format).above(usual.min_priority)))
}

fn file(
    usual: &Usual<'_>,
    path: &Path,
    shape: Shape,
    rotation: Option<Rotation>,
) -> Result<Output, DaemonError> {
    let file = AlertFile::open(path, rotation)?;
    let sink = Sink::start_at(usual.name, path.display().to_string(), file, shape, usual.queue_bytes)
        .map_err(system("cannot start the file sink"))?;
    Ok(Output::new(sink, Format::Json(JsonLines::default())).above(usual.min_priority))
}

/// On each signal, has the outputs look whether their files are still those at their paths: logrotate renames them.
pub(super) async fn reopen_on(mut signal: Signal, outputs: Vec<Arc<Sink>>) {
    while signal.recv().await.is_some() {
        tracing::info!("SIGUSR1: opening alert files anew");
        outputs.iter().for_each(|output| output.nudge());
    }
}

/// Gives the outputs time for their last lines, and the recording for its last block, all of them at once: a peer that is
/// away takes all the time there is.
pub(super) fn finish(outputs: &[Output], mut recorder: Option<Recorder>, deadline: Instant) {
    if let Some(recorder) = &mut recorder {
        recorder.close();
    }
    outputs.iter().for_each(|output| output.sink.close(deadline));
    for output in outputs {
        let lost = output.sink.flush(deadline).lost_lines;
        if lost > 0 {
            tracing::error!(output = output.sink.name(), lost, "lines could not be written before the end");
        }
    }
    let lost = recorder.map_or(0, |recorder| recorder.finish(deadline).dropped(RecordDrop::Shutdown));
    if lost > 0 {
        tracing::error!(lost, "events could not be recorded before the end");
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;
    use crate::recording::tests::few;
    use crate::recording::{Store, Stored};
    use crate::sink::{Batch, Record, Undelivered};

    struct Away;

    impl Deliver for Away {
        fn deliver(&mut self, _batch: &[Record<'_>]) -> Result<(), Undelivered> {
            Err(Undelivered::retry(0, "nobody is there"))
        }
    }

    /// A disk that needs a moment.
    struct Disk;

    impl Store for Disk {
        fn append(&mut self, _block: &[u8]) -> io::Result<Stored> {
            std::thread::sleep(Duration::from_millis(50));
            Ok(Stored::Yes)
        }

        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn place(&self) -> String {
            "memory".to_owned()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_spool_that_cannot_be_opened_is_named() {
        let one = "outputs[]={type: webhook, url: 'http://127.0.0.1:9/', spool: {dir: /proc/no-spool}}";
        let settings = crate::config::Loaded::load(None, &[one.parse().unwrap()]).unwrap().settings;
        let error = open_outputs(&settings).map(|outputs| outputs.len()).unwrap_err().to_string();
        assert!(error.contains("/proc/no-spool"), "{error}");
    }

    #[test]
    fn a_peer_that_is_away_takes_no_time_from_the_recording() {
        let sink = Sink::deliver("peer", Box::new(Away), 1 << 20, None).unwrap();
        let bytes = b"{}\n".to_vec();
        sink.offer(Batch { bytes, lines: 1, priorities: vec![Priority::Error] }).unwrap();
        let outputs = [Output::new(sink, Format::Json(JsonLines::default()))];
        let mut recorder = Recorder::start("host", Disk, false).unwrap();
        few(10).iter().for_each(|event| recorder.record_values(event));
        let stats = Arc::clone(recorder.stats());
        finish(&outputs, Some(recorder), Instant::now() + Duration::from_millis(1000));
        assert_eq!(outputs[0].sink.stats().dropped_lines(crate::sink::DropReason::Shutdown), 1);
        assert_eq!((stats.recorded(), stats.dropped(RecordDrop::Shutdown)), (10, 0));
    }
}
