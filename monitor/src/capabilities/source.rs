//! Where the rows come from: the kernel's map, and the directories of the cgroup hierarchy.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::marks::{Mark, Marks};
use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use monitor_common::capability::{CAP_LEDGER_ENTRIES, CAP_SLOTS, CapCount, CapKey};

/// Directories that a walk over the hierarchy looks at, at most.
const MAX_DIRECTORIES: usize = 1 << 20;

/// The kernel does not let the ledger be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("the kernel's capability ledger cannot be {what}: {cause}")]
pub struct SourceError {
    /// `read` or `changed`.
    pub what: &'static str,
    /// What the kernel said.
    pub cause: String,
}

/// What counts the checks.
pub trait Source: Send {
    /// Every row.
    ///
    /// # Errors
    /// [`SourceError`]; what was read before is lost to this round, not to the next.
    fn rows(&mut self) -> Result<Vec<(CapKey, CapCount)>, SourceError>;

    /// Removes rows. A row that is not there counts as removed.
    ///
    /// # Errors
    /// [`SourceError`]: some of them may be removed.
    fn remove(&mut self, keys: &[CapKey]) -> Result<(), SourceError>;

    /// Checks that found no room, by [`monitor_common::capability::cap_slot`], since the programs were loaded.
    ///
    /// # Errors
    /// [`SourceError`].
    fn uncounted(&mut self) -> Result<Vec<u64>, SourceError>;

    /// Checks of others' credentials, which are counted by nobody, by capability, and how often nothing was known of a
    /// task, since the programs were loaded.
    ///
    /// # Errors
    /// [`SourceError`].
    fn overlooked(&mut self) -> Result<Overlooked, SourceError>;

    /// Runs of the probe that counts which the kernel skipped, since the programs were loaded.
    fn skipped(&mut self) -> u64;

    /// How far an earlier process read the rows, if they are older than this one. Called before everything else.
    ///
    /// # Errors
    /// [`SourceError`].
    fn marks(&mut self) -> Result<Vec<Mark>, SourceError> {
        Ok(Vec::new())
    }

    /// Leaves to the next process how far the rows were read.
    ///
    /// # Errors
    /// [`SourceError`].
    fn leave_marks(&mut self, _rows: &[Mark]) -> Result<(), SourceError> {
        Ok(())
    }
}

/// What is left out of the ledger, or may be at the wrong place in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlooked {
    /// Checks of other credentials than the task's own, by the capability's number.
    pub borrowed: Vec<u64>,
    /// How often a task had to be learned when it was asked for.
    pub unknown: u64,
}

/// A key of the map as the kernel has it: the cgroup, and the rest in one word.
pub(super) type RawKey = [u64; 2];
/// A value: three numbers, and the last call in one word.
type RawCount = [u64; 4];

/// The map of rows.
pub type CapLedgerMap = HashMap<MapData, RawKey, RawCount>;
/// The counters of what found no room.
pub type CapUncountedMap = PerCpuArray<MapData, u64>;

/// The maps that the ledger is made of.
pub struct CapMaps {
    /// The rows.
    pub ledger: CapLedgerMap,
    /// What found no room in them.
    pub uncounted: CapUncountedMap,
    /// Checks of others' credentials.
    pub borrowed: CapUncountedMap,
    /// Tasks of which nothing was known.
    pub unknown: CapUncountedMap,
    /// How far the rows were read, if they are pinned.
    pub marks: Option<Marks>,
}

/// Counters of what is in no row.
#[derive(Debug, Default)]
pub(super) struct Outside {
    pub(super) uncounted: Vec<u64>,
    pub(super) skipped: u64,
}

/// The kernel's maps.
pub struct KernelMaps {
    maps: CapMaps,
    pub(super) marks: Option<Marks>,
    /// What was counted before this process and told by an earlier one.
    pub(super) base: Outside,
    /// What was told last, the base included.
    pub(super) told: Outside,
    skipped: Box<dyn Fn() -> u64 + Send>,
}

impl std::fmt::Debug for CapMaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CapMaps").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for KernelMaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelMaps").finish_non_exhaustive()
    }
}

impl KernelMaps {
    /// Takes the maps. `skipped` tells how many runs of the probe the kernel skipped.
    pub fn new(mut maps: CapMaps, skipped: impl Fn() -> u64 + Send + 'static) -> Self {
        let (marks, base, told) = (maps.marks.take(), Outside::default(), Outside::default());
        KernelMaps { maps, marks, base, told, skipped: Box::new(skipped) }
    }
}

/// The words of a key lie as the fields do (little endian: the programs run where the daemon runs).
pub(super) const fn key_of(raw: RawKey) -> CapKey {
    let rest = raw[1];
    CapKey { cgroup_id: raw[0], cap: rest as u16, flags: (rest >> 16) as u16, pad: (rest >> 32) as u32 }
}

pub(super) fn raw_of(key: &CapKey) -> RawKey {
    [key.cgroup_id, u64::from(key.cap) | u64::from(key.flags) << 16 | u64::from(key.pad) << 32]
}

const fn count_of(raw: RawCount) -> CapCount {
    let last_nr = raw[3] as u32;
    let (last_abi, last_tick) = ((raw[3] >> 32) as u16, (raw[3] >> 48) as u16);
    CapCount { count: raw[0], first_ns: raw[1], last_ns: raw[2], last_nr, last_abi, last_tick }
}

/// What is not there counts as removed.
pub(super) fn removed(result: Result<(), MapError>) -> Result<(), SourceError> {
    match result {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("changed")(error)),
    }
}

pub(super) fn failed(what: &'static str) -> impl Fn(MapError) -> SourceError {
    move |cause| SourceError { what, cause: cause.to_string() }
}

/// The first slots of a map, each summed over the CPUs.
fn sums(map: &CapUncountedMap, slots: u32) -> Result<Vec<u64>, SourceError> {
    let sum = |slot| {
        let values = map.get(&slot, 0).map_err(failed("read"))?;
        Ok(values.iter().fold(0u64, |sum, value| sum.saturating_add(*value)))
    };
    (0..slots).map(sum).collect()
}

impl Source for KernelMaps {
    fn rows(&mut self) -> Result<Vec<(CapKey, CapCount)>, SourceError> {
        let mut rows = Vec::new();
        // A bound of its own: if keys vanish while they are listed, the kernel begins anew.
        for row in self.maps.ledger.iter().take(2 * CAP_LEDGER_ENTRIES as usize) {
            match row {
                Ok((key, count)) => rows.push((key_of(key), count_of(count))),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed("read")(error)),
            }
        }
        // Listed twice after a new beginning.
        let mut known = HashSet::with_capacity(rows.len());
        rows.retain(|(key, _)| known.insert(*key));
        Ok(rows)
    }

    fn remove(&mut self, keys: &[CapKey]) -> Result<(), SourceError> {
        keys.iter().try_for_each(|key| removed(self.maps.ledger.remove(&raw_of(key))))
    }

    fn uncounted(&mut self) -> Result<Vec<u64>, SourceError> {
        let all = sums(&self.maps.uncounted, 2 * CAP_SLOTS)?;
        let base = self.base.uncounted.iter().copied().chain(std::iter::repeat(0));
        let since = all.iter().zip(base).map(|(all, base)| all.saturating_sub(base)).collect();
        self.told.uncounted = all;
        Ok(since)
    }

    fn overlooked(&mut self) -> Result<Overlooked, SourceError> {
        let unknown = sums(&self.maps.unknown, 1)?.iter().sum();
        Ok(Overlooked { borrowed: sums(&self.maps.borrowed, CAP_SLOTS)?, unknown })
    }

    fn skipped(&mut self) -> u64 {
        self.told.skipped = (self.skipped)();
        self.told.skipped.saturating_sub(self.base.skipped)
    }

    fn marks(&mut self) -> Result<Vec<Mark>, SourceError> {
        self.begin_at_marks()
    }

    fn leave_marks(&mut self, rows: &[Mark]) -> Result<(), SourceError> {
        self.leave_marks_of(rows)
    }
}

/// Tells which cgroup directories exist; `None` if that cannot be told.
pub type Tree = Box<dyn Fn() -> Option<HashSet<u64>> + Send>;

/// The ids of all directories of the hierarchy that is mounted here; `None` if one cannot be read, or there are too many.
pub fn directories(root: &Path) -> Option<HashSet<u64>> {
    use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
    let mut found = HashSet::from([fs::symlink_metadata(root).ok()?.ino()]);
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if has_vanished(&error) && dir != root => continue,
            Err(_) => return None,
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if has_vanished(&error) => break,
                Err(_) => return None,
            };
            let is_dir = match entry.file_type() {
                Ok(ty) => ty.is_dir(),
                Err(error) if has_vanished(&error) => false,
                Err(_) => return None,
            };
            if is_dir {
                found.insert(entry.ino());
                pending.push(entry.path());
            }
        }
        if found.len() > MAX_DIRECTORIES {
            return None;
        }
    }
    Some(found)
}

/// A directory was removed while it was looked at: then it has no children. Any other error says nothing of what is in it.
fn has_vanished(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn words_of_keys_and_counts_lie_as_the_fields_do() {
        let key = CapKey { cgroup_id: 0x1_0000_0007, cap: 21, flags: 0x13, pad: 0 };
        // SAFETY: both are 16 bytes of integers without padding.
        let raw: RawKey = unsafe { (&raw const key).cast::<RawKey>().read_unaligned() };
        assert_eq!((raw_of(&key), key_of(raw)), (raw, key));
        let count =
            CapCount { count: 3, first_ns: 4, last_ns: 5, last_nr: 0xffff_ffff, last_abi: 2, last_tick: 3 };
        // SAFETY: both are 32 bytes of integers without padding.
        let raw: RawCount = unsafe { (&raw const count).cast::<RawCount>().read_unaligned() };
        assert_eq!(count_of(raw), count);
    }

    #[test]
    fn directories_are_found_by_their_inodes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/file"), "").unwrap();
        let found = directories(dir.path()).unwrap();
        let ino = |path: &str| fs::metadata(dir.path().join(path)).unwrap().ino();
        assert_eq!(found, HashSet::from([ino(""), ino("a"), ino("a/b")]));
        assert_eq!(directories(&dir.path().join("none")), None);
        let vanished = |errno: i32| has_vanished(&std::io::Error::from_raw_os_error(errno));
        assert!(vanished(libc::ENOENT) && ![libc::EIO, libc::ENOMEM, libc::EACCES].into_iter().any(vanished));
    }
}
