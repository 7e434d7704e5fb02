//! `docs/coverage.md`: what the live suite proved, cell by cell, for each kernel and attach mode.
//!
//! The suite writes one line per cell of its matrix ([`Line`]) into `target/records/`, one file per run. A full
//! `cargo xtask test` holds them against the committed `docs/coverage.json`: a cell that came, went or changed
//! fails the test until `cargo xtask coverage` has written both files anew. What is not run is not compared.

mod markdown;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::environment::{repository, work_dir};

/// A cell of the matrix, in the order of the document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Cell {
    behaviour: String,
    door: String,
    abi: String,
    outcome: String,
}

/// A line of a record.
#[derive(Debug, Deserialize)]
struct Line {
    /// `uname -r`.
    kernel: String,
    /// Whether it ran in one of our guests.
    guest: bool,
    /// The attach mode.
    mode: String,
    #[serde(flatten)]
    cell: Cell,
    #[serde(flatten)]
    result: CellResult,
}

/// What came of a cell in one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CellResult {
    result: Word,
    /// Why the cell is impossible or blind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// How often it was made.
    #[serde(default)]
    repeats: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    /// Every assertion held.
    Pass,
    /// Some did not.
    Fail,
    /// The cell cannot exist here.
    Impossible,
    /// It was made and is known not to be seen.
    Blind,
    /// The door is known and not watched.
    Unwatched,
}

/// One kernel in one attach mode, as the columns name it: `6.1 trampoline`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    /// Its first two numbers.
    kernel: String,
    /// One of Debian's kernels in QEMU; otherwise the kernel of the machine at hand.
    guest: bool,
    mode: String,
    /// The whole release, for the reader; another patch level is no difference.
    release: String,
}

impl Run {
    /// The key that orders columns: by kernel, guests first, then trampoline first.
    fn key(&self) -> String {
        let numbers: Vec<u32> = self.kernel.split('.').filter_map(|part| part.parse().ok()).collect();
        let padded: Vec<String> = numbers.iter().map(|number| format!("{number:03}")).collect();
        let (machine, mode) = (u8::from(!self.guest), u8::from(self.mode == "tracepoint"));
        format!("{}-{machine}-{mode}", padded.join("."))
    }
}

/// Everything that was recorded.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// By their keys.
    runs: BTreeMap<String, Run>,
    rows: Vec<Row>,
}

/// A cell with its results by the keys of the runs.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    cell: Cell,
    results: BTreeMap<String, CellResult>,
}

/// Where the runs of this machine leave their lines.
pub(crate) fn records_dir() -> Result<PathBuf> {
    work_dir("records")
}

fn committed_path() -> PathBuf {
    repository().join("docs/coverage.json")
}

fn document_path() -> PathBuf {
    repository().join("docs/coverage.md")
}

/// `cargo xtask coverage`: puts the last runs on this machine into the committed record, in place of what it had of the
/// same kernels and modes, and writes the document from it. Without a new run only the document is made anew.
pub(crate) fn write() -> Result<bool> {
    let (committed, fresh) = (committed()?, gather()?);
    let new = fresh.runs.len();
    let record = committed.updated(fresh);
    fs::write(committed_path(), record.json()?)?;
    fs::write(document_path(), markdown::render(&record))?;
    let Record { runs, rows } = &record;
    println!("docs/coverage.md: {} cells, {} runs, {new} of them new", rows.len(), runs.len());
    Ok(true)
}

fn committed() -> Result<Record> {
    let text = fs::read_to_string(committed_path()).context("cannot read docs/coverage.json")?;
    serde_json::from_str(&text).context("docs/coverage.json")
}

/// What differs between the last runs on this machine and what is committed; empty if nothing does. Also how
/// many results were compared.
pub(crate) fn differences() -> Result<(Vec<String>, usize)> {
    let (committed, fresh) = (committed()?, gather()?);
    let (mut problems, compared) = compare(&committed, &fresh);
    problems.extend(unrecorded(&committed, &fresh));
    Ok((problems, compared))
}

/// Guests whose last run left no record: they are the same everywhere, so each must have one.
fn unrecorded(committed: &Record, fresh: &Record) -> Vec<String> {
    let missing = committed.runs.iter().filter(|(key, run)| run.guest && !fresh.runs.contains_key(*key));
    missing.map(|(_, run)| format!("{} {}: the last run left no record", run.kernel, run.mode)).collect()
}

/// Reads all records of this machine's last runs.
fn gather() -> Result<Record> {
    let mut record = Record::default();
    let mut files: Vec<PathBuf> =
        fs::read_dir(records_dir()?)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut cells: BTreeMap<Cell, BTreeMap<String, CellResult>> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        for line in text.lines() {
            let line: Line = serde_json::from_str(line).with_context(|| file.display().to_string())?;
            let kernel: Vec<&str> = line.kernel.splitn(3, ['.', '-']).take(2).collect();
            let mut run =
                Run { kernel: kernel.join("."), guest: line.guest, mode: line.mode, release: line.kernel };
            if !run.guest {
                // What else such a release says is a matter of that machine.
                run.release = run.release.split('-').next().unwrap_or_default().to_owned();
            }
            let key = run.key();
            record.runs.insert(key.clone(), run);
            cells.entry(line.cell).or_default().insert(key, line.result);
        }
    }
    record.rows = rows(cells);
    Ok(record)
}

fn rows(cells: BTreeMap<Cell, BTreeMap<String, CellResult>>) -> Vec<Row> {
    cells.into_iter().map(|(cell, results)| Row { cell, results }).collect()
}

/// Holds what was just recorded against what is committed, run by run.
fn compare(committed: &Record, fresh: &Record) -> (Vec<String>, usize) {
    let mut problems = Vec::new();
    let mut compared = 0;
    for (key, run) in &fresh.runs {
        let name = format!("{} {}", run.kernel, run.mode);
        if !committed.runs.contains_key(key) {
            // Another machine has another kernel of its own; those in QEMU are the same everywhere.
            println!("coverage: {name} is no column of docs/coverage.md");
            continue;
        }
        let (old, new) = (committed.column(key), fresh.column(key));
        let cells: BTreeSet<&Cell> = old.keys().chain(new.keys()).copied().collect();
        for cell in cells {
            compared += 1;
            let (before, now) = (old.get(cell), new.get(cell));
            if before != now {
                let word = |result: Option<&&CellResult>| match result {
                    Some(result) => {
                        let why = result.reason.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
                        format!("{:?}{why}, {} times", result.result, result.repeats)
                    }
                    None => "no such cell".to_owned(),
                };
                problems.push(format!(
                    "{name}: {} / {} / {} / {}: {} is committed, {} was found",
                    cell.behaviour,
                    cell.door,
                    cell.abi,
                    cell.outcome,
                    word(before),
                    word(now)
                ));
            }
        }
    }
    (problems, compared)
}

impl Record {
    /// This record with the columns of `fresh` in place of its own.
    fn updated(self, fresh: Record) -> Record {
        let mut cells: BTreeMap<Cell, BTreeMap<String, CellResult>> = BTreeMap::new();
        for Row { cell, mut results } in self.rows {
            results.retain(|key, _| !fresh.runs.contains_key(key));
            cells.entry(cell).or_default().extend(results);
        }
        for Row { cell, results } in fresh.rows {
            cells.entry(cell).or_default().extend(results);
        }
        cells.retain(|_, results| !results.is_empty());
        let mut runs = self.runs;
        runs.extend(fresh.runs);
        Record { runs, rows: rows(cells) }
    }

    fn column(&self, key: &str) -> BTreeMap<&Cell, &CellResult> {
        self.rows.iter().filter_map(|row| Some((&row.cell, row.results.get(key)?))).collect()
    }

    /// One row a line, so that a change shows as the lines that it concerns.
    fn json(&self) -> Result<String> {
        let rows: Vec<String> = self.rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let runs = serde_json::to_string(&self.runs)?;
        Ok(format!("{{\"runs\":{runs},\n\"rows\":[\n{}\n]}}\n", rows.join(",\n")))
    }
}

#[cfg(test)]
#[path = "coverage/tests.rs"]
mod tests;
