//! What the commands over recordings share: which files, what was wrong with them, in words.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::cli::Failure;
use crate::recording::{self, Damage, EXTENSION, Item, Recorded, Recording, Span, Tally};

/// Damaged parts that are told one by one; more are only counted.
const MOST_TOLD: u64 = 20;

/// The files to read: those named, and those of the directories named, in the order of their names.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        let fail = |error| {
            Failure::environment(format_args!(
                "{}: {error}; name a recording or a directory of some",
                path.display()
            ))
        };
        if !std::fs::metadata(path).map_err(fail)?.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut of_dir: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let path = entry.path();
            let is_file = entry.file_type().map_err(fail)?.is_file();
            if is_file && path.extension().is_some_and(|extension| extension == EXTENSION) {
                of_dir.push(path);
            }
        }
        of_dir.sort_unstable();
        files.append(&mut of_dir);
    }
    Ok(files)
}

/// The events of several recordings, one file behind the other.
pub(super) struct Reader {
    files: VecDeque<PathBuf>,
    span: Span,
    /// What was read, and what could not be.
    pub(super) total: Tally,
    /// What has to be said of it; a line each.
    pub(super) notes: String,
    told: u64,
}

impl Reader {
    pub(super) fn new(files: Vec<PathBuf>, span: Span) -> Self {
        Reader { files: files.into(), span, total: Tally::default(), notes: String::new(), told: 0 }
    }

    /// Calls `each` with every event, until it fails.
    pub(super) fn read(
        &mut self,
        mut each: impl FnMut(Recorded) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        while let Some(path) = self.files.pop_front() {
            let fail = |error| {
                Failure::environment(format_args!(
                    "{}: {error}; check the path and its permissions",
                    path.display()
                ))
            };
            let mut recording = match Recording::open(&path) {
                Ok(recording) => recording.within(self.span),
                // The daemon's ring turns while it is read.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.total.events > 0 => {
                    let _ = writeln!(self.notes, "{} is gone: it made room for newer events", path.display());
                    continue;
                }
                Err(error) => return Err(fail(error)),
            };
            let mut damages = Vec::new();
            while let Some(item) = recording.next_item().map_err(fail)? {
                match item {
                    Item::Event(event) => each(*event)?,
                    Item::Damage(damage) if damages.len() < MOST_TOLD as usize => damages.push(damage),
                    Item::Damage(_) => {}
                }
            }
            if recording.is_foreign() {
                return Err(Failure::environment(format_args!(
                    "{} is no recording of Ringfence; `ringfence record -o FILE` makes one",
                    path.display()
                )));
            }
            damages.iter().for_each(|damage| self.tell(&path, damage));
            add(&mut self.total, recording.tally());
        }
        Ok(())
    }

    fn tell(&mut self, path: &Path, damage: &Damage) {
        self.told += 1;
        if self.told > MOST_TOLD {
            return;
        }
        let Damage { offset, bytes, events_before, events_lost, why } = damage;
        let lost = match events_lost {
            Some(lost) => format!("{lost} events are lost"),
            None => "how many events are lost is not known".to_owned(),
        };
        let _ = writeln!(
            self.notes,
            "{}: damaged at byte {offset}, behind {events_before} events: {why}; {bytes} bytes are passed over, {lost}",
            path.display()
        );
    }

    /// Everything that the reader of a result has to know about what it rests on; a line each.
    pub(super) fn report(&self) -> String {
        let mut text = self.notes.clone();
        let total = &self.total;
        let mut say = |count: u64, what: &str| {
            if count > 0 {
                let _ = writeln!(text, "{count} {what}");
            }
        };
        say(total.damaged.saturating_sub(self.told.min(MOST_TOLD)), "more damaged parts");
        say(total.dropped, "events could not be written when the recording was made");
        say(total.unknown_values, "values of fields that this version does not have were left out");
        say(total.unknown_events, "events of types that this version does not have were left out");
        say(total.foreign_events, "events of blocks of a later version were left out");
        text
    }

    /// Whether a file was damaged.
    pub(super) fn is_damaged(&self) -> bool {
        self.total.damaged > 0
    }
}

fn add(total: &mut Tally, more: &Tally) {
    let Tally { events, damaged, damaged_bytes, events_lost, dropped, .. } = more;
    let Tally { unknown_values, unknown_events, foreign_blocks, foreign_events, outside, .. } = more;
    for (sum, more) in [
        (&mut total.events, events),
        (&mut total.damaged, damaged),
        (&mut total.damaged_bytes, damaged_bytes),
        (&mut total.events_lost, events_lost),
        (&mut total.dropped, dropped),
        (&mut total.unknown_values, unknown_values),
        (&mut total.unknown_events, unknown_events),
        (&mut total.foreign_blocks, foreign_blocks),
        (&mut total.foreign_events, foreign_events),
        (&mut total.outside, outside),
    ] {
        *sum = sum.saturating_add(*more);
    }
}

/// The recordings of the daemon's ring.
pub(super) fn ring(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let found = recording::list(dir).map_err(|error| {
        Failure::environment(format_args!("record_dir {}: {error}; name a recording", dir.display()))
    })?;
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Reads a length of time such as `90s`, `15m`, `24h` or `7d`, in nanoseconds.
pub(super) fn parse_span(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is no length of time: a number and s, m, h or d, such as 24h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let digits = text.get(..text.len() - 1).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let count: i64 = digits.and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
    count.checked_mul(seconds * 1_000_000_000).filter(|span| *span > 0).ok_or_else(wrong)
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod tests;
