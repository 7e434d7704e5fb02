//! Records, the comparison and the document.

use super::*;

fn record(result: &str, repeats: u64) -> Record {
    let text = format!(
        r#"{{"runs":{{"006.001-0-0":{{"kernel":"6.1","guest":true,"mode":"trampoline","release":"6.1.0-1-amd64"}}}},
        "rows":[{{"behaviour":"set-the-clock","door":"stime","abi":"i386","outcome":"allowed",
        "results":{{"006.001-0-0":{{"result":"{result}","reason":"because","repeats":{repeats}}}}}}}]}}"#
    );
    serde_json::from_str(&text).expect("a record")
}

#[test]
fn the_committed_document_is_that_of_the_committed_record() {
    let text = fs::read_to_string(committed_path()).expect("docs/coverage.json");
    let record: Record = serde_json::from_str(&text).expect("docs/coverage.json");
    let document = fs::read_to_string(document_path()).expect("docs/coverage.md");
    assert!(markdown::render(&record) == document, "docs/coverage.md is stale: run `cargo xtask coverage`");
    assert_eq!(record.json().expect("JSON"), text, "docs/coverage.json is not as we write it");
}

#[test]
fn the_committed_record_has_every_kernel_in_both_modes_and_no_failure() {
    let text = fs::read_to_string(committed_path()).expect("docs/coverage.json");
    let record: Record = serde_json::from_str(&text).expect("docs/coverage.json");
    for kernel in crate::vm::kernel::names() {
        for mode in ["trampoline", "tracepoint"] {
            let run =
                Run { kernel: kernel.to_owned(), guest: true, mode: mode.to_owned(), release: String::new() };
            assert!(record.runs.contains_key(&run.key()), "{kernel} {mode}");
        }
    }
    for row in &record.rows {
        for (key, result) in &row.results {
            assert_ne!(result.result, Word::Fail, "{key}: {:?}", row.cell);
            assert_eq!(result.result != Word::Pass, result.reason.is_some(), "{key}: {:?}", row.cell);
        }
    }
}

#[test]
fn a_changed_cell_is_a_difference_and_another_patch_level_is_none() {
    let committed = record("pass", 1000);
    let mut fresh = record("pass", 1000);
    fresh.runs.values_mut().for_each(|run| run.release = "6.1.0-2-amd64".to_owned());
    assert_eq!(compare(&committed, &fresh), (Vec::new(), 1));
    assert_eq!(compare(&committed, &record("fail", 1000)).0.len(), 1);
    assert_eq!(compare(&committed, &record("pass", 1)).0.len(), 1);
    let mut gone = record("pass", 1000);
    gone.rows.clear();
    assert_eq!(compare(&committed, &gone).0.len(), 1);
    assert_eq!(compare(&gone, &committed).0.len(), 1);
}

#[test]
fn a_new_run_replaces_its_own_column_and_no_other() {
    let mut committed = record("pass", 1000);
    let elsewhere = Run {
        kernel: "6.18".to_owned(),
        guest: false,
        mode: "tracepoint".to_owned(),
        release: "6.18.1".to_owned(),
    };
    let cell = committed.rows[0].results.values().next().expect("a result").clone();
    committed.rows[0].results.insert(elsewhere.key(), cell);
    committed.runs.insert(elsewhere.key(), elsewhere.clone());
    let mut gone = committed.rows[0].cell.clone();
    gone.outcome = "failed".to_owned();
    let only_here = record("pass", 1000).rows.remove(0).results;
    committed.rows.push(Row { cell: gone, results: only_here });

    let updated = committed.updated(record("pass", 50));
    assert_eq!(updated.rows.len(), 1, "a cell that no run has any more is gone");
    assert_eq!(updated.rows[0].results["006.001-0-0"].repeats, 50);
    assert_eq!(updated.rows[0].results[&elsewhere.key()].repeats, 1000);
    assert_eq!(updated.runs.len(), 2);
    assert_eq!(
        record("pass", 7).updated(Record::default()),
        record("pass", 7),
        "nothing new, nothing changed"
    );
}

#[test]
fn a_guest_without_a_record_is_a_difference() {
    let committed = record("pass", 1000);
    assert_eq!(unrecorded(&committed, &committed), Vec::<String>::new());
    assert_eq!(unrecorded(&committed, &Record::default()).len(), 1);
    let mut elsewhere = record("pass", 1000);
    elsewhere.runs.values_mut().for_each(|run| run.guest = false);
    assert_eq!(unrecorded(&elsewhere, &Record::default()), Vec::<String>::new(), "another machine's kernel");
}

#[test]
fn columns_are_in_the_order_of_kernels() {
    let run = |kernel: &str, mode: &str| {
        Run { kernel: kernel.to_owned(), guest: true, mode: mode.to_owned(), release: String::new() }.key()
    };
    assert!(run("5.10", "tracepoint") < run("6.1", "trampoline"));
    assert!(run("6.1", "tracepoint") < run("6.12", "trampoline"));
    assert!(run("6.1", "trampoline") < run("6.1", "tracepoint"));
    let own =
        Run { kernel: "6.1".to_owned(), guest: false, mode: "tracepoint".to_owned(), release: String::new() };
    assert_ne!(own.key(), run("6.1", "tracepoint"), "a machine whose kernel is one of the guests'");
}

#[test]
fn the_document_shows_passes_failures_and_reasons() {
    let pass = markdown::render(&record("pass", 1000));
    assert!(pass.contains("| stime | i386 | allowed | yes ×1000 |"), "{pass}");
    assert!(pass.contains("## Set the clock"), "{pass}");
    let fail = markdown::render(&record("fail", 1));
    assert!(fail.contains("| **NO** |"), "{fail}");
    let blind = markdown::render(&record("blind", 1));
    let unwatched = markdown::render(&record("unwatched", 0));
    assert!(unwatched.contains("\nNot watched:\n\n- stime (i386): allowed. because\n"), "{unwatched}");
    assert!(blind.contains("| allowed | blind (1) |") && blind.contains("\n1. because\n"), "{blind}");
}

#[test]
fn a_cell_that_exists_nowhere_is_listed_once_with_its_reason() {
    let mut record = record("impossible", 0);
    let mut other = record.rows.remove(0);
    let key = other.results.keys().next().expect("a run").clone();
    for outcome in ["failed", "lsm"] {
        let cell = Cell { outcome: outcome.to_owned(), ..other.cell.clone() };
        record.rows.push(Row { cell, results: other.results.clone() });
    }
    other.results.insert(key, CellResult { result: Word::Pass, reason: None, repeats: 1 });
    record.rows.push(other);
    let text = markdown::render(&record);
    assert!(text.contains("- stime (i386): failed, lsm. because\n"), "{text}");
    assert!(!text.contains("| lsm |"), "{text}");
}
