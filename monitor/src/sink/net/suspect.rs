//! An alert that its peer does not take while it takes others.
//!
//! A firewall for the web that answers 403 to certain texts, or a receiver that answers 500 to some, looks like a peer
//! with a fault of its own; waiting for it, one alert would hold all others back for ever, and whoever is watched
//! chooses what stands in it. So after some answers of that kind to the same first alert another one is sent alone. If
//! that is taken and the first one still is not, the first one is refused. If it is not taken, either, the peer is at
//! fault, and everything waits. An answer that did not come, or one that names a time, proves nothing.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use crate::rules::Priority;
use crate::sink::{Fate, Record, Undelivered};

/// So many answers to the same alert raise the question. With the worker's pauses between them, that is some seconds.
pub(super) const ANSWERS: u32 = 5;

/// Alerts that were taken before their turn, at most.
const MAX_AHEAD: usize = 256;

/// A longer line is not kept for comparison.
const MAX_KEPT_BYTES: usize = 64 << 10;

/// Alerts of a request are sent one by one for at most so long in one call.
const MAX_ALONE: Duration = Duration::from_secs(10);

/// What came of an attempt, and whether the last answer in it may have been about an alert.
pub(super) type Attempt = (Result<(), Undelivered>, bool);

/// What is known of the first alert and of others.
#[derive(Debug, Default)]
pub(super) struct Suspect {
    keys: RandomState,
    /// The first alert that was not taken, and how often it was answered.
    head: Option<(u64, u32)>,
    /// Alerts that were taken before their turn, to be passed over when it comes.
    ahead: VecDeque<u64>,
    /// The last one that was taken, to be sent once more if there is no other.
    last: Option<(Vec<u8>, Priority)>,
}

impl Suspect {
    /// Delivers a batch by `send`, which is given parts of it.
    ///
    /// # Errors
    /// As [`Deliver`](crate::sink::Deliver).
    pub(super) fn deliver(
        &mut self,
        batch: &[Record<'_>],
        mut send: impl FnMut(&[Record<'_>]) -> Attempt,
    ) -> Result<(), Undelivered> {
        let mut taken = 0;
        while let Some(record) = batch.get(taken) {
            if self.was_ahead(record) {
                taken += 1;
                continue;
            }
            let rest = batch.get(taken..).unwrap_or_default();
            let is_ahead = |record: &Record<'_>| self.ahead.contains(&self.key(record));
            let len = if self.ahead.is_empty() { None } else { rest.iter().position(is_ahead) };
            let part = rest.get(..len.unwrap_or(rest.len())).unwrap_or_default();
            let outcome = self.deliver_part(part, &mut send);
            let good = outcome.as_ref().map_or_else(|fault| fault.taken, |()| part.len());
            if let Some(last) = good.checked_sub(1).and_then(|last| part.get(last)) {
                self.keep_last(last);
            }
            outcome.map_err(|fault| Undelivered { taken: taken + fault.taken, ..fault })?;
            taken += part.len();
        }
        Ok(())
    }

    fn key(&self, record: &Record<'_>) -> u64 {
        self.keys.hash_one(record.line)
    }

    fn keep_last(&mut self, record: &Record<'_>) {
        if record.line.len() <= MAX_KEPT_BYTES {
            self.last = Some((record.line.to_vec(), record.priority));
        }
    }

    fn was_ahead(&mut self, record: &Record<'_>) -> bool {
        if self.ahead.is_empty() {
            return false;
        }
        let key = self.key(record);
        let found = self.ahead.iter().position(|ahead| *ahead == key);
        found.and_then(|at| self.ahead.remove(at)).is_some()
    }

    fn deliver_part(
        &mut self,
        part: &[Record<'_>],
        send: &mut impl FnMut(&[Record<'_>]) -> Attempt,
    ) -> Result<(), Undelivered> {
        let fault = match send(part) {
            (Err(fault), true) if fault.fate != Fate::Refused => fault,
            (outcome, _) => return outcome,
        };
        let Some(record) = part.get(fault.taken) else { return Err(fault) };
        let key = self.key(record);
        let answers = match self.head {
            Some((head, answers)) if head == key => answers.saturating_add(1),
            _ => 1,
        };
        self.head = Some((key, answers));
        if answers < ANSWERS {
            return Err(fault);
        }
        self.examine(part, fault.taken, answers - ANSWERS, send)
    }

    /// Sends alerts alone from the first on that was not taken, until one is not; then another one, and that one again.
    fn examine(
        &mut self,
        part: &[Record<'_>],
        mut at: usize,
        round: u32,
        send: &mut impl FnMut(&[Record<'_>]) -> Attempt,
    ) -> Result<(), Undelivered> {
        let mut alone = |record: &Record<'_>| send(std::slice::from_ref(record));
        let end = Instant::now() + MAX_ALONE;
        let (head, fault) = loop {
            let Some(record) = part.get(at) else { return Ok(()) };
            match alone(record) {
                (Ok(()), _) if Instant::now() < end || at + 1 == part.len() => at += 1,
                (Ok(()), _) => return Err(Undelivered::retry(at + 1, "it takes alerts only one by one")),
                (Err(fault), true) if fault.fate != Fate::Refused => {
                    break (record, Undelivered { taken: at, ..fault });
                }
                (Err(fault), _) => return Err(Undelivered { taken: at, ..fault }),
            }
        };
        // Each time another one, for that one may be of the same kind; in turn with one that was taken already.
        let others = part.get(at + 1..).unwrap_or_default();
        let last = self.last.as_ref().map(|(line, priority)| Record { line, priority: *priority });
        let (turn, of_last) = if last.is_some() { (round / 2, round % 2 == 1) } else { (round, false) };
        let chosen = (turn as usize).checked_rem(others.len()).and_then(|chosen| others.get(chosen));
        let chosen = chosen.filter(|_| !of_last && self.ahead.len() < MAX_AHEAD);
        let Some(other) = chosen.or(last.as_ref()) else { return Err(fault) };
        if alone(other).0.is_err() {
            return Err(fault);
        }
        if let Some(other) = chosen {
            self.ahead.push_back(self.key(other));
            self.keep_last(other);
        }
        match alone(head) {
            (Ok(()), _) if at + 1 == part.len() => Ok(()),
            (Ok(()), _) => Err(Undelivered::retry(at + 1, fault.cause)),
            (Err(again), true) if again.fate != Fate::Refused => {
                let cause = format!("{}, to this alert alone and not to others", again.cause);
                Err(Undelivered::refused(at, cause))
            }
            (Err(again), _) => Err(Undelivered { taken: at, ..again }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that takes what `takes` says, in requests of at most `most`, and what it took.
    struct Peer<F: FnMut(&str) -> bool> {
        takes: F,
        most: usize,
        got: Vec<String>,
        clear: bool,
    }

    impl<F: FnMut(&str) -> bool> Peer<F> {
        fn new(most: usize, takes: F) -> Self {
            Peer { takes, most, got: Vec::new(), clear: false }
        }

        fn send(&mut self, part: &[Record<'_>]) -> Attempt {
            let mut taken = 0;
            for request in part.chunks(self.most) {
                let lines: Vec<_> =
                    request.iter().map(|record| String::from_utf8_lossy(record.line).into_owned()).collect();
                if !lines.iter().all(|line| (self.takes)(line)) {
                    return (Err(Undelivered::retry(taken, "peer answers 403")), !self.clear);
                }
                self.got.extend(lines);
                taken += request.len();
            }
            (Ok(()), false)
        }

        /// Does what the worker does, for so many calls; gives what is left and what was refused.
        fn work(
            &mut self,
            suspect: &mut Suspect,
            lines: &[&str],
            calls: usize,
        ) -> (Vec<String>, Vec<String>) {
            let mut rest: Vec<_> = lines
                .iter()
                .map(|line| Record { line: line.as_bytes(), priority: Priority::Error })
                .collect();
            let mut refused = Vec::new();
            let name = |record: &Record<'_>| String::from_utf8_lossy(record.line).into_owned();
            for _ in 0..calls {
                if rest.is_empty() {
                    break;
                }
                match suspect.deliver(&rest, |part| self.send(part)) {
                    Ok(()) => rest.clear(),
                    Err(fault) => {
                        assert!(fault.taken < rest.len(), "{fault:?}");
                        rest.drain(..fault.taken);
                        if fault.fate == Fate::Refused {
                            refused.push(name(&rest.remove(0)));
                        }
                    }
                }
            }
            (rest.iter().map(name).collect(), refused)
        }
    }

    #[test]
    fn one_alert_does_not_hold_back_the_others() {
        for most in [1, 2, 100] {
            let mut peer = Peer::new(most, |line| line != "bad");
            let lines = ["a", "b", "bad", "c", "d"];
            let (left, refused) = peer.work(&mut Suspect::default(), &lines, 20);
            assert_eq!((left, refused), (vec![], vec!["bad".to_owned()]), "{most}");
            peer.got.sort();
            assert_eq!(peer.got, ["a", "b", "c", "d"], "each once, with {most} in a request");
        }
    }

    #[test]
    fn the_last_one_is_compared_with_if_there_is_no_other() {
        let mut peer = Peer::new(1, |line| line != "bad");
        let mut suspect = Suspect::default();
        // Nothing proves that the peer is well.
        assert_eq!(peer.work(&mut suspect, &["bad"], 50), (vec!["bad".to_owned()], vec![]));
        assert_eq!(peer.work(&mut suspect, &["a"], 1), (vec![], vec![]));
        assert_eq!(peer.work(&mut suspect, &["bad"], 20), (vec![], vec!["bad".to_owned()]));
    }

    #[test]
    fn many_of_the_kind_are_refused_one_after_the_other() {
        let mut lines: Vec<String> = (0..10).map(|n| format!("bad {n}")).collect();
        lines.extend(["a".to_owned(), "b".to_owned()]);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut peer = Peer::new(100, |line| !line.starts_with("bad"));
        let (left, refused) = peer.work(&mut Suspect::default(), &lines, 200);
        assert_eq!((left.len(), refused.len()), (0, 10));
        assert_eq!(peer.got.iter().filter(|line| *line == "b").count(), 1);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_waited_for() {
        let lines = ["a", "b", "c"];
        let mut suspect = Suspect::default();
        let all: Vec<String> = lines.map(str::to_owned).to_vec();
        assert_eq!(Peer::new(2, |_| false).work(&mut suspect, &lines, 100), (all.clone(), vec![]));
        // One that does not answer at all is never asked about a single alert.
        let mut away = Peer::new(2, |line| line != "a");
        away.clear = true;
        assert_eq!(away.work(&mut suspect, &lines, 100), (all, vec![]));
        assert!(away.got.is_empty());
        // It comes back.
        let mut back = Peer::new(2, |_| true);
        assert_eq!(back.work(&mut suspect, &lines, 1), (vec![], vec![]));
        assert_eq!(back.got, lines);
    }

    #[test]
    fn one_that_is_taken_in_the_end_is_not_refused() {
        let (mut tries, lines) = (0, ["a", "b"]);
        // Its fault passes between two requests.
        let mut peer = Peer::new(1, |line| {
            tries += u32::from(line == "a");
            line != "a" || tries > ANSWERS + 1
        });
        assert_eq!(peer.work(&mut Suspect::default(), &lines, 20), (vec![], vec![]));
        peer.got.sort();
        assert_eq!(peer.got, lines);
    }
}
