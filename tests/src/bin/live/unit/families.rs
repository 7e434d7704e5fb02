//! Which families of the suite run in the sandbox of the unit, and why the others do not.

use libtest_mimic::Trial;

use crate::cases::family;

/// Families, and single tests, that do not run where systemd is the first process, and why. They run in guests of other
/// kernels; `nine` and `advice` on the same one, too.
const NOT_AS_UNIT: &[(&str, &str)] = &[
    ("restart", "a daemon of its own with pins of its own; the unit's restarts are in `unit::`"),
    ("confined", "each case steers a daemon by ptrace; what the unit's gives up is read in `unit::`"),
    ("blind", "it wants each hook tested, which the unit's filter does not let through; see `unit::`"),
    ("process::namespaces_by_every_door", "as `blind`"),
    ("recording", "recordings go to a directory of the test's, which the unit may not write to"),
    ("starts", "the command line and terminals, without a daemon in a service"),
    ("nine", "it restarts the daemon over a state directory of the test's"),
    ("advice", "as `nine`"),
    ("capability", "as `nine`"),
    ("capability-limits", "as `nine`"),
    ("identity", "it changes which hierarchies the daemon finds mounted"),
    ("many", "as `starts`"),
];

/// Leaves the trials that run in the sandbox.
pub(crate) fn choose(trials: &mut Vec<Trial>) {
    trials.retain(|trial| {
        let family = family(trial);
        !NOT_AS_UNIT.iter().any(|(name, _)| *name == family || *name == trial.name())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_there() {
        let gathered = crate::gather_nowhere().expect("the trials are gathered");
        for (name, _) in NOT_AS_UNIT {
            let is_its = |trial: &Trial| trial.name() == *name || family(trial) == *name;
            assert!(gathered.trials.iter().any(is_its), "there is no {name}");
        }
    }
}
