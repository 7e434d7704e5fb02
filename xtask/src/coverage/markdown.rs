//! The document: a table per behaviour, a row per cell, a column per kernel and mode.

use std::fmt::Write as _;

use super::{CellResult, Record, Row, Run, Word};

const HEAD: &str = "<!-- Made by `cargo xtask coverage` from docs/coverage.json, the record of a run; do not edit. -->

# Coverage

What the live suite proved: each cell is one way to one behaviour, through one system call table, with one outcome.
It was made on that kernel, in that attach mode, and the event was held against call, arguments, verdict, who refused,
container and rule (an everyday program's events against the same without arguments, which are the program's own).
`×1000` means that it was made so often and that each time exactly one event came. Debian's kernels ran in guests with
cgroup v2; `own` stands behind the kernel of the machine on which this document was made.

- **yes**: seen as it should be.
- **NO**: not seen, or seen as something else.
- **blind**: made, and known not to be seen; the note of that number says why.
- a number alone: there is no such cell, or it is not made there; the note of that number says why.
- blank: not part of that run.

`int80` is `int 0x80` from a 64-bit program, `elf32` a 32-bit program. Cells that were made on no kernel, and
doors that are known and not watched, are listed below each table, with the reason.

";

/// Lays the record out.
pub(super) fn render(record: &Record) -> String {
    let mut text = HEAD.to_owned();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "| Column | Kernel | Attach mode |\n|---|---|---|");
    for run in record.runs.values() {
        let _ = writeln!(text, "| {} | {} | {} |", column(run), run.release, run.mode);
    }
    let mut behaviours: Vec<&str> = Vec::new();
    for row in &record.rows {
        if !behaviours.contains(&row.cell.behaviour.as_str()) {
            behaviours.push(&row.cell.behaviour);
        }
    }
    for behaviour in behaviours {
        let rows: Vec<&Row> = record.rows.iter().filter(|row| row.cell.behaviour == behaviour).collect();
        let _ = writeln!(text, "\n## {}\n", title(behaviour));
        table(record, &rows, &mut text);
    }
    text
}

fn table(record: &Record, rows: &[&Row], text: &mut String) {
    let columns: Vec<String> = record.runs.values().map(column).collect();
    let _ = writeln!(text, "| Door | ABI | Outcome | {} |", columns.join(" | "));
    let _ = writeln!(text, "|---|---|---|{}", "---|".repeat(columns.len()));
    let mut notes = Notes::default();
    let all = |row: &Row, word| row.results.values().all(|result| result.result == word);
    let (unwatched, watched): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| all(row, Word::Unwatched));
    let (nowhere, somewhere): (Vec<&Row>, Vec<&Row>) =
        watched.iter().partition(|row| all(row, Word::Impossible));
    for row in somewhere {
        let cells: Vec<String> =
            record.runs.keys().map(|key| word(row.results.get(key), &mut notes)).collect();
        let cell = &row.cell;
        let _ = writeln!(text, "| {} | {} | {} | {} |", cell.door, cell.abi, cell.outcome, cells.join(" | "));
    }
    if !notes.0.is_empty() {
        text.push('\n');
    }
    for (number, reason) in (1..).zip(&notes.0) {
        let _ = writeln!(text, "{number}. {reason}");
    }
    list("Made nowhere", &nowhere, text);
    list("Not watched", &unwatched, text);
}

/// The reasons below a table, by their numbers from 1 on.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn number(&mut self, result: &CellResult) -> usize {
        let reason = result.reason.as_deref().unwrap_or("No reason was recorded.");
        let known = self.0.iter().position(|note| note == reason);
        known.unwrap_or_else(|| {
            self.0.push(reason.to_owned());
            self.0.len() - 1
        }) + 1
    }
}

fn word(result: Option<&CellResult>, notes: &mut Notes) -> String {
    let Some(result) = result else { return String::new() };
    match result.result {
        Word::Pass if result.repeats > 1 => format!("yes ×{}", result.repeats),
        Word::Pass => "yes".to_owned(),
        Word::Fail => "**NO**".to_owned(),
        Word::Blind => format!("blind ({})", notes.number(result)),
        Word::Impossible | Word::Unwatched => notes.number(result).to_string(),
    }
}

/// One line per reason, door and table.
fn list(title: &str, rows: &[&Row], text: &mut String) {
    let mut lines: Vec<(String, &str, Vec<&str>)> = Vec::new();
    for row in rows {
        let reason = row.results.values().find_map(|result| result.reason.as_deref()).unwrap_or("");
        let place = format!("{} ({})", row.cell.door, row.cell.abi);
        match lines.iter_mut().find(|(other, why, _)| *other == place && *why == reason) {
            Some((_, _, outcomes)) => outcomes.push(&row.cell.outcome),
            None => lines.push((place, reason, vec![&row.cell.outcome])),
        }
    }
    if !lines.is_empty() {
        let _ = writeln!(text, "\n{title}:\n");
    }
    for (place, reason, outcomes) in lines {
        let _ = writeln!(text, "- {place}: {}. {reason}", outcomes.join(", "));
    }
}

fn column(run: &Run) -> String {
    let own = if run.guest { "" } else { " own" };
    format!("{}{own} {}", run.kernel, short(&run.mode))
}

/// A mode's name in the columns.
fn short(mode: &str) -> &str {
    match mode {
        "trampoline" => "tr",
        "tracepoint" => "tp",
        other => other,
    }
}

/// `set-the-clock` as a heading.
fn title(behaviour: &str) -> String {
    let words = behaviour.replace('-', " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
