//! Attempts by call and by how they ended: the number of series is that of the calls, seven times.

use monitor_common::call::{CALL_SLOTS, Call};
use monitor_common::verdict::{RefusedBy, Verdict};
use prometheus::{IntCounter, IntCounterVec};

/// Every way in which an attempt may end, in the order of [`place`].
const ENDS: [Verdict; 7] = [
    Verdict::Allowed,
    Verdict::Failed,
    Verdict::Refused(RefusedBy::Seccomp),
    Verdict::Refused(RefusedBy::Capability),
    Verdict::Refused(RefusedBy::Lsm),
    Verdict::Refused(RefusedBy::DeviceCgroup),
    Verdict::Refused(RefusedBy::Other),
];

/// The counters of each call and each end.
#[derive(Debug)]
pub struct Attempts(Vec<Option<[IntCounter; ENDS.len()]>>);

impl Attempts {
    /// Makes every series, at zero. Of what was not refused `refused_by` is empty.
    pub(super) fn new(vec: &IntCounterVec) -> prometheus::Result<Self> {
        let counter = |call: Call, end: Verdict| {
            let refused_by = end.refused_by().map_or("", RefusedBy::name);
            vec.get_metric_with_label_values(&[call.name(), end.name(), refused_by])
        };
        let mut slots = Vec::with_capacity(CALL_SLOTS);
        for slot in 0..CALL_SLOTS {
            let Some(call) = Call::from_wire(slot as u16) else {
                slots.push(None);
                continue;
            };
            let [a, b, c, d, e, f, g] = ENDS.map(|end| counter(call, end));
            slots.push(Some([a?, b?, c?, d?, e?, f?, g?]));
        }
        Ok(Attempts(slots))
    }

    /// Counts an attempt.
    pub fn count(&self, call: Call, verdict: Verdict) {
        if let Some(Some(ends)) = self.0.get(call as usize)
            && let Some(counter) = ends.get(place(verdict))
        {
            counter.inc();
        }
    }
}

const fn place(verdict: Verdict) -> usize {
    match verdict {
        Verdict::Allowed => 0,
        Verdict::Failed => 1,
        Verdict::Refused(RefusedBy::Seccomp) => 2,
        Verdict::Refused(RefusedBy::Capability) => 3,
        Verdict::Refused(RefusedBy::Lsm) => 4,
        Verdict::Refused(RefusedBy::DeviceCgroup) => 5,
        Verdict::Refused(RefusedBy::Other) => 6,
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    #[test]
    fn each_end_of_each_call_has_its_own_counter() {
        let labels = &["call", "verdict", "refused_by"];
        let vec = IntCounterVec::new(Opts::new("a_total", "b"), labels).unwrap();
        let attempts = Attempts::new(&vec).unwrap();
        for (number, call) in Call::ALL.iter().enumerate() {
            for (end, verdict) in ENDS.into_iter().enumerate() {
                assert_eq!(place(verdict), end);
                for _ in 0..number + end + 1 {
                    attempts.count(*call, verdict);
                }
                let refused_by = verdict.refused_by().map_or("", RefusedBy::name);
                let counter = vec.with_label_values(&[call.name(), verdict.name(), refused_by]);
                assert_eq!(counter.get(), (number + end + 1) as u64, "{call:?} {verdict:?}");
            }
        }
    }
}
