//! From batches to requests: how many records go into one, and whom a refusal of several is about.

use std::time::{Duration, Instant};

use super::peer::Verdict;
use crate::sink::{Record, Undelivered};

/// A request is not made longer than about so many bytes of canonical lines. Receivers of OTLP take 4 MiB.
const MAX_BYTES: usize = 1 << 20;

/// After so long no further request is begun by one call, so that progress is noted and what comes meanwhile is seen to.
const PATIENCE: Duration = Duration::from_secs(1);

/// Delivers a batch in requests of at most `most` records. `shape` makes of a record what a request holds of it, `send`
/// sends some. If several are refused together, each is sent alone: one of them was meant, and the others are wanted.
pub(super) fn deliver<T>(
    batch: &[Record<'_>],
    most: usize,
    shape: impl Fn(&Record<'_>) -> Result<T, String>,
    send: impl FnMut(&[T]) -> Verdict,
) -> Result<(), Undelivered> {
    deliver_within(PATIENCE, batch, most, shape, send)
}

fn deliver_within<T>(
    patience: Duration,
    batch: &[Record<'_>],
    most: usize,
    shape: impl Fn(&Record<'_>) -> Result<T, String>,
    mut send: impl FnMut(&[T]) -> Verdict,
) -> Result<(), Undelivered> {
    let (started, mut taken) = (Instant::now(), 0);
    let is_late = |taken: usize| taken > 0 && taken < batch.len() && started.elapsed() >= patience;
    while let Some(rest) = batch.get(taken..).filter(|rest| !rest.is_empty()) {
        if is_late(taken) {
            return Err(Undelivered::unasked(taken));
        }
        let (mut items, mut unread, mut bytes) = (Vec::new(), None, 0);
        for record in rest.iter().take(most) {
            bytes += record.line.len();
            if bytes > MAX_BYTES && !items.is_empty() {
                break;
            }
            match shape(record) {
                Ok(item) => items.push(item),
                Err(cause) => {
                    unread = Some(cause);
                    break;
                }
            }
        }
        let verdict = if items.is_empty() { Verdict::Taken } else { send(&items) };
        match verdict {
            Verdict::Never { .. } if items.len() > 1 => {
                for item in &items {
                    if is_late(taken) {
                        return Err(Undelivered::unasked(taken));
                    }
                    if let Some(fault) = send(std::slice::from_ref(item)).undelivered(taken) {
                        return Err(fault);
                    }
                    taken += 1;
                }
            }
            verdict => {
                if let Some(fault) = verdict.undelivered(taken) {
                    return Err(fault);
                }
                taken += items.len();
            }
        }
        if let Some(cause) = unread {
            return Err(Undelivered::refused(taken, cause));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Priority;
    use crate::sink::Fate;

    /// What was sent, and how many were taken before one that was not, and whether that was refused.
    type Told = (Vec<Vec<String>>, Result<(), (usize, bool)>);

    /// Delivers lines to a peer that refuses `bad`, is away for `away`, and cannot be made of `unread`.
    fn run(lines: &[&str], most: usize) -> Told {
        run_within(Duration::from_secs(60), lines, most)
    }

    fn run_within(patience: Duration, lines: &[&str], most: usize) -> Told {
        let batch: Vec<_> =
            lines.iter().map(|line| Record { line: line.as_bytes(), priority: Priority::Error }).collect();
        let mut sent = Vec::new();
        let outcome = deliver_within(
            patience,
            &batch,
            most,
            |record| match std::str::from_utf8(record.line) {
                Ok("unread") | Err(_) => Err("no line of ours".to_owned()),
                Ok(line) => Ok(line.to_owned()),
            },
            |items| {
                sent.push(items.to_vec());
                match items {
                    _ if items.iter().any(|item| item == "bad") => Verdict::Never { cause: "bad".into() },
                    _ if items.iter().any(|item| item == "away") => {
                        Verdict::Later { after: None, cause: "away".into() }
                    }
                    _ => Verdict::Taken,
                }
            },
        );
        (sent, outcome.map_err(|fault| (fault.taken, fault.fate == Fate::Refused)))
    }

    #[test]
    fn each_record_has_its_fate() {
        assert_eq!(run(&["a", "b", "c"], 2), (vec![vec!["a".into(), "b".into()], vec!["c".into()]], Ok(())));
        assert_eq!(run(&["a", "b", "away"], 2).1, Err((2, false)));
        assert_eq!(run(&["a", "bad", "c"], 8).1, Err((1, true)));
        assert_eq!(run(&["bad"], 8), (vec![vec!["bad".into()]], Err((0, true))));
        assert_eq!(run(&["a", "unread", "c"], 8), (vec![vec!["a".into()]], Err((1, true))));
        assert_eq!(run(&["unread"], 8), (vec![], Err((0, true))));
    }

    #[test]
    fn a_call_ends_between_two_requests_when_it_took_long_enough() {
        let late = |lines: &[&str], most| {
            let (sent, outcome) = run_within(Duration::ZERO, lines, most);
            (sent.len(), outcome)
        };
        assert_eq!(late(&["a", "b", "c"], 1), (1, Err((1, false))));
        assert_eq!(late(&["a", "b", "c"], 2), (1, Err((2, false))));
        assert_eq!(late(&["a", "b"], 2), (1, Ok(())));
        assert_eq!(late(&["bad", "b"], 1), (1, Err((0, true))));
        // Refused together, then one alone.
        assert_eq!(late(&["a", "bad", "c"], 3), (2, Err((1, false))));
    }

    #[test]
    fn a_request_is_bounded_in_bytes() {
        let long = "x".repeat(600_000);
        let (sent, outcome) = run(&[&long, &long, "a"], 8);
        assert_eq!((sent.len(), outcome), (2, Ok(())));
    }
}
