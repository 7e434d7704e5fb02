//! Where the sets of system calls come from: the kernel's map by cgroup.

use std::collections::HashMap;

use aya::maps::MapError;
use monitor_common::syscall_set::{NUMBERS, SYSCALL_SETS, SyscallSet, TABLES};

use super::source::{SourceError, failed, removed};
use crate::attach::{SET_WORDS, SyscallSetMap, UnnotedMap};

/// What notes the system calls.
pub trait SetSource: Send {
    /// Every set, by cgroup.
    ///
    /// # Errors
    /// [`SourceError`].
    fn sets(&mut self) -> Result<Vec<(u64, SyscallSet)>, SourceError>;

    /// Removes sets. One that is not there counts as removed.
    ///
    /// # Errors
    /// [`SourceError`]: some of them may be removed.
    fn remove(&mut self, cgroups: &[u64]) -> Result<(), SourceError>;

    /// Calls that could not be noted since the programs were loaded: for want of room, or because the kernel skipped the
    /// probe.
    ///
    /// # Errors
    /// [`SourceError`].
    fn lost(&mut self) -> Result<u64, SourceError>;

    /// Whether calls that a filter refuses are noted, too.
    fn sees_refusals(&self) -> bool;
}

/// The kernel's maps.
pub struct KernelSets {
    sets: SyscallSetMap,
    unnoted: UnnotedMap,
    refusals: bool,
    skipped: Box<dyn Fn() -> u64 + Send>,
}

impl std::fmt::Debug for KernelSets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelSets").finish_non_exhaustive()
    }
}

impl KernelSets {
    /// Takes the maps. `refusals`: the probe that notes refused calls runs. `skipped` tells how many runs of the probes the
    /// kernel skipped.
    pub fn new(
        maps: (SyscallSetMap, UnnotedMap),
        refusals: bool,
        skipped: impl Fn() -> u64 + Send + 'static,
    ) -> Self {
        KernelSets { sets: maps.0, unnoted: maps.1, refusals, skipped: Box::new(skipped) }
    }
}

/// Two times, then the bytes of the tables.
fn set_of(words: &[u64; SET_WORDS]) -> SyscallSet {
    let mut set = SyscallSet::EMPTY;
    let [first_ns, last_new_ns, rest @ ..] = words;
    (set.first_ns, set.last_new_ns) = (*first_ns, *last_new_ns);
    let bytes = rest.iter().flat_map(|word| word.to_ne_bytes());
    for (place, byte) in set.calls.as_flattened_mut().iter_mut().zip(bytes) {
        *place = byte;
    }
    set
}

const _: () = assert!(SET_WORDS * 8 == 16 + NUMBERS * TABLES, "the tables fill whole words");

impl SetSource for KernelSets {
    fn sets(&mut self) -> Result<Vec<(u64, SyscallSet)>, SourceError> {
        let mut sets = HashMap::new();
        // A bound of its own: if keys vanish while they are listed, the kernel begins anew.
        for row in self.sets.iter().take(2 * SYSCALL_SETS as usize) {
            match row {
                Ok((cgroup, words)) => drop(sets.insert(cgroup, set_of(&words))),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed("read")(error)),
            }
        }
        Ok(sets.into_iter().collect())
    }

    fn remove(&mut self, cgroups: &[u64]) -> Result<(), SourceError> {
        cgroups.iter().try_for_each(|cgroup| removed(self.sets.remove(cgroup)))
    }

    fn lost(&mut self) -> Result<u64, SourceError> {
        let values = self.unnoted.get(&0, 0).map_err(failed("read"))?;
        let unnoted = values.iter().fold(0u64, |sum, value| sum.saturating_add(*value));
        Ok(unnoted.saturating_add((self.skipped)()))
    }

    fn sees_refusals(&self) -> bool {
        self.refusals
    }
}

#[cfg(test)]
mod tests {
    use monitor_common::syscall_set::{TABLE_32, TABLE_64, seen};

    use super::*;

    #[test]
    fn words_of_a_set_lie_as_the_fields_do() {
        let mut set = SyscallSet { first_ns: 3, last_new_ns: 4, ..SyscallSet::EMPTY };
        set.calls[TABLE_64][0] = seen::OWN;
        set.calls[TABLE_64][575] = seen::RUNTIME;
        set.calls[TABLE_32][1] = seen::REFUSED;
        // SAFETY: both are as long, of integers without padding.
        let words = unsafe { std::ptr::from_ref(&set).cast::<[u64; SET_WORDS]>().read_unaligned() };
        assert_eq!(set_of(&words), set);
    }
}
