//! What the watch finds, and what is new about it: each blindness is told once when it begins and once when it ends.

use std::collections::BTreeMap;

use monitor_common::ids::BootNs;

/// Why something is seen no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// `kernel.ftrace_enabled` is 0: trampolines are off their functions.
    FtraceDisabled,
    /// The link that held the program on its hook is gone.
    Detached,
    /// The program is on its hook, but did not see the call.
    NotSeen,
    /// The ring buffer had no room for the record.
    RingFull,
    /// The record lies in the ring buffer and nobody reads it.
    ReaderStalled,
    /// The thread that tests the hooks does not get on.
    CanaryStalled,
    /// Somebody else wrote to a map of ours.
    MapChanged,
    /// A map has no room.
    MapFull,
    /// The whole daemon did not run.
    StoodStill,
}

impl Cause {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Cause; 9] = [
        Cause::FtraceDisabled,
        Cause::Detached,
        Cause::NotSeen,
        Cause::RingFull,
        Cause::ReaderStalled,
        Cause::CanaryStalled,
        Cause::MapChanged,
        Cause::MapFull,
        Cause::StoodStill,
    ];

    /// The word in alerts and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::FtraceDisabled => "ftrace_disabled",
            Cause::Detached => "detached",
            Cause::NotSeen => "not_seen",
            Cause::RingFull => "ring_full",
            Cause::ReaderStalled => "reader_stalled",
            Cause::CanaryStalled => "canary_stalled",
            Cause::MapChanged => "map_changed",
            Cause::MapFull => "map_full",
            Cause::StoodStill => "stood_still",
        }
    }
}

/// What came out of the ring since the judgement before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Records of canaries.
    pub(super) came_back: bool,
    /// Records of whatever kind.
    pub(super) read: bool,
}

impl Progress {
    /// Whether the service manager may be told that all is well, or as well as this daemon can make it: a start anew heals
    /// neither a full ring or table nor what the machine's owner switched off, and would only help whoever floods them.
    pub(super) fn proves(self, found: &[Finding]) -> bool {
        let mut late = false;
        for finding in found {
            match finding.cause {
                Cause::Detached | Cause::NotSeen | Cause::CanaryStalled => return false,
                // Where the reader gets on, canaries are late or find no room: nobody stands still.
                Cause::RingFull | Cause::ReaderStalled => late = true,
                Cause::FtraceDisabled | Cause::MapChanged | Cause::MapFull | Cause::StoodStill => {}
            }
        }
        self.came_back || (late && self.read)
    }

    /// Whether what is pinned is of no use to the next process: programs that do not see, or a ring that is read no more.
    pub(super) fn is_spoilt(self, found: &[Finding]) -> bool {
        found.iter().any(|finding| match finding.cause {
            Cause::Detached | Cause::NotSeen => true,
            Cause::ReaderStalled => !self.read,
            _ => false,
        })
    }
}

/// Something that is seen no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// A hook, a map or a thread.
    pub(super) subject: String,
    /// Why.
    pub(super) cause: Cause,
    /// Since when.
    pub(super) since: BootNs,
    /// What cannot be seen.
    pub(super) cost: &'static str,
}

/// What is known to be seen no longer, by subject.
#[derive(Debug, Default)]
pub(super) struct Findings(BTreeMap<String, Finding>);

impl Findings {
    /// Takes everything that was found now; gives what is new, and what is over. A subject whose cause changes is
    /// neither.
    pub(super) fn update(&mut self, now: Vec<Finding>) -> (Vec<Finding>, Vec<Finding>) {
        let mut before = std::mem::take(&mut self.0);
        let mut begun = Vec::new();
        for finding in now {
            let known = before.remove(&finding.subject);
            if known.is_none() && !self.0.contains_key(&finding.subject) {
                begun.push(finding.clone());
            }
            self.0.entry(finding.subject.clone()).or_insert(known.unwrap_or(finding));
        }
        (begun, before.into_values().collect())
    }

    /// In a few words, for `/readyz`; `None` if all is seen.
    pub(super) fn summary(&self) -> Option<String> {
        const SHOWN: usize = 3;
        let mut words: Vec<String> = self
            .0
            .values()
            .take(SHOWN)
            .map(|finding| format!("{} ({})", finding.subject, finding.cause.name()))
            .collect();
        if self.0.len() > SHOWN {
            words.push(format!("and {} more", self.0.len() - SHOWN));
        }
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// Puts findings of one cause together, so that one cause is one alert.
pub(super) fn by_cause(findings: Vec<Finding>) -> BTreeMap<Cause, Vec<Finding>> {
    let mut groups: BTreeMap<Cause, Vec<Finding>> = BTreeMap::new();
    for finding in findings {
        groups.entry(finding.cause).or_default().push(finding);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(subject: &str, cause: Cause) -> Finding {
        Finding { subject: subject.to_owned(), cause, since: BootNs(1), cost: "c" }
    }

    #[test]
    fn blindness_is_told_once_at_each_end() {
        let mut findings = Findings::default();
        let (a, b) = (finding("a", Cause::Detached), finding("b", Cause::Detached));
        assert_eq!(findings.update(vec![a.clone()]), (vec![a.clone()], vec![]));
        assert_eq!(findings.update(vec![a.clone()]), (vec![], vec![]));
        assert_eq!(findings.update(vec![a.clone(), b.clone()]), (vec![b.clone()], vec![]));
        assert_eq!(findings.summary().as_deref(), Some("a (detached), b (detached)"));
        // Another cause for the same thing is no second blindness.
        assert_eq!(findings.update(vec![finding("a", Cause::RingFull)]), (vec![], vec![b]));
        assert_eq!(findings.update(vec![]), (vec![], vec![a]));
        assert_eq!(findings.summary(), None);
    }

    #[test]
    fn what_a_start_does_not_mend_is_no_reason_for_one() {
        let seen = Progress { came_back: true, read: true };
        let flooded = Progress { came_back: false, read: true };
        let silent = Progress { came_back: false, read: false };
        assert!(seen.proves(&[]) && !flooded.proves(&[]) && !silent.proves(&[]));
        for cause in Cause::ALL {
            let found = [finding("a", cause)];
            let mends = matches!(cause, Cause::Detached | Cause::NotSeen | Cause::CanaryStalled);
            assert_eq!(seen.proves(&found), !mends, "{cause:?}");
            let late = matches!(cause, Cause::RingFull | Cause::ReaderStalled);
            assert_eq!(flooded.proves(&found), late, "{cause:?}");
            assert!(!silent.proves(&found), "a reader that stands still: {cause:?}");
        }
        // One that may be mended counts, whatever else there is.
        assert!(!flooded.proves(&[finding("a", Cause::RingFull), finding("b", Cause::Detached)]));
    }

    #[test]
    fn what_does_not_see_is_not_left_to_the_next() {
        let (moves, stands) =
            (Progress { came_back: false, read: true }, Progress { came_back: false, read: false });
        for cause in Cause::ALL {
            let found = [finding("a", cause)];
            let sees_not = matches!(cause, Cause::Detached | Cause::NotSeen);
            assert_eq!(moves.is_spoilt(&found), sees_not, "{cause:?}");
            assert_eq!(stands.is_spoilt(&found), sees_not || cause == Cause::ReaderStalled, "{cause:?}");
        }
        assert!(!stands.is_spoilt(&[]));
    }

    #[test]
    fn one_cause_is_one_group() {
        let all = ["a", "b", "c"].map(|subject| finding(subject, Cause::FtraceDisabled));
        let groups = by_cause(all.into_iter().chain([finding("m", Cause::MapChanged)]).collect());
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[&Cause::FtraceDisabled].len(), 3);
    }

    #[test]
    fn causes_stand_in_the_order_of_their_numbers() {
        assert!(Cause::ALL.iter().enumerate().all(|(i, cause)| *cause as usize == i));
    }
}
