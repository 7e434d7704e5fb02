//! What adds up: rows of the kernel's map by container. No clock, no kernel, no file: the keeper says what it read and
//! when.

mod archive;
mod files;
mod learn;
mod losses;
mod sets;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use monitor_common::capability::{CAP_LEDGER_ENTRIES, CAP_SLOTS, CapCount, CapKey, cap_flag};

use super::granted::Place;
use super::marks::Mark;
use super::run::Run;

/// Containers that run, or ended a moment ago, at most.
pub const MAX_RUNS: usize = 16_384;
/// Ended containers that are remembered, at most; the oldest goes first.
pub(super) const MAX_ARCHIVED: usize = 4096;
/// The part of all room that containers in users' slices, or in other containers, may take: one of so many.
pub(super) const DELEGATED_PART: usize = 4;
/// Id of the root of each hierarchy.
const ROOT: u64 = 1;
/// Rows of a cgroup stay in the kernel's map for so long after it was found to be gone: no task is left in it that
/// could be checked, and no program that began before is still running.
pub const GRACE_NS: u64 = 30_000_000_000;
/// A container is put away so long after its last cgroup was found to be gone: later than the pipeline forgets that.
const ARCHIVE_NS: u64 = 90_000_000_000;
/// Rows whose progress is kept. The kernel's map has no more; twice as many mean that somebody else empties it.
const MAX_ROWS: usize = 2 * CAP_LEDGER_ENTRIES as usize;

/// Results that checks are counted by, for the metrics.
pub(super) const RESULTS: [&str; 4] = ["allowed", "denied", "silent_allowed", "silent_denied"];

/// The place in [`RESULTS`] of a row with these flags.
const fn result_of(flags: u16) -> usize {
    (flags & cap_flag::DENIED != 0) as usize + 2 * (flags & cap_flag::SILENT != 0) as usize
}

/// A moment, by two clocks of the kernel's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since boot, the time of suspension included.
    pub boot: u64,
    /// Nanoseconds that the machine ran.
    pub mono: u64,
}

/// How far a row of the kernel's was read.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Its count at the last read.
    seen: u64,
    /// How much of that went to whom it belongs.
    placed: u64,
    /// As it was last read.
    last: CapCount,
}

/// Whose a cgroup is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Owner {
    #[default]
    Unknown,
    /// Of no container.
    Host,
    /// Of the container with this key.
    Run(Arc<str>),
}

#[derive(Clone, Debug, Default)]
struct Dir {
    owner: Owner,
    /// The pipeline knew it when it was last asked.
    listed: bool,
    /// It lies below the one in which the container's first program began.
    below: bool,
    /// It is not in the tree, though the pipeline was not told of its end.
    missing: bool,
    /// It is of an earlier container of that name, which has this key in the table.
    moved: Option<Arc<str>>,
    /// When it was found to be gone.
    gone: Option<u64>,
}

/// Whether a cgroup has been gone for long enough.
fn is_due(dirs: &HashMap<u64, Dir>, id: u64, now: Now) -> bool {
    let gone = dirs.get(&id).and_then(|dir| dir.gone);
    id != 0 && gone.is_some_and(|gone| now.boot.saturating_sub(gone) >= GRACE_NS)
}

#[derive(Debug)]
struct Entry {
    run: Run,
    /// Its own directory, as it is now.
    main: u64,
    /// It was there at this time of the monotonic clock; `None` if it ended.
    alive: Option<u64>,
    /// When it was found to have ended.
    ended: Option<u64>,
    /// It was told of losses that may be older than it is.
    doubt: Option<losses::Doubt>,
    /// When it was last written, by the monotonic clock.
    written: u64,
}

impl Entry {
    fn new(run: Run, main: u64) -> Self {
        Entry { run, main, alive: None, ended: None, doubt: None, written: 0 }
    }
}

/// A container that ended, or that another daemon watched.
#[derive(Clone, Debug)]
pub struct Kept {
    /// In which boot its times are.
    pub boot: Arc<str>,
    /// Unix time of that boot's beginning in nanoseconds, as it was last known.
    pub offset: i64,
    /// It ran when it was last written.
    pub running: bool,
    /// What it did.
    pub run: Run,
    /// It is in the state directory as it is here.
    pub written: bool,
}

/// What was dropped for want of room, or could not be told, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shortage {
    /// Containers that found no room among those that run; their checks are not attributed.
    pub refused: u64,
    /// Containers whose key is longer than a record may have it; the same.
    pub overlong: u64,
    /// Ended containers that were forgotten for newer ones.
    pub forgotten: u64,
    /// Checks by cgroups that nobody could name.
    pub unattributed: u64,
}

/// The containers and how far the kernel's rows were read.
#[derive(Debug)]
pub struct Table {
    boot: Arc<str>,
    rows: HashMap<CapKey, Progress>,
    dirs: HashMap<u64, Dir>,
    /// By key; one of an earlier container of the same name has a key of its own.
    runs: HashMap<Arc<str>, Entry>,
    /// How many of these are delegated.
    delegated: usize,
    archive: archive::Archive,
    /// Containers of this boot that ran when another daemon last wrote, until the places are first learnt.
    resumable: HashMap<Arc<str>, Kept>,
    /// Files of forgotten containers: boot and cgroup.
    dropped: Vec<(Arc<str>, u64)>,
    totals: Vec<[u64; RESULTS.len()]>,
    uncounted: Vec<u64>,
    /// Checks that went uncounted.
    losses: losses::Losses,
    /// When the places were last learnt.
    learnt: Now,
    shortage: Shortage,
    /// Which system calls are made is noted, too.
    sets: Option<sets::Sets>,
    max_runs: usize,
}

impl Table {
    /// An empty table of a boot.
    pub fn new(boot: Arc<str>) -> Self {
        Self::bounded(boot, MAX_RUNS, MAX_ARCHIVED)
    }

    /// As [`Table::new`], with room for fewer.
    pub(super) fn bounded(boot: Arc<str>, max_runs: usize, max_archived: usize) -> Self {
        Table {
            boot,
            rows: HashMap::new(),
            dirs: HashMap::new(),
            runs: HashMap::new(),
            delegated: 0,
            archive: archive::Archive::new(max_archived),
            resumable: HashMap::new(),
            dropped: Vec::new(),
            totals: vec![[0; RESULTS.len()]; CAP_SLOTS as usize],
            uncounted: vec![0; 2 * CAP_SLOTS as usize],
            losses: losses::Losses::default(),
            learnt: Now::default(),
            shortage: Shortage::default(),
            sets: None,
            max_runs,
        }
    }

    /// Takes over what was in the state directory, oldest first.
    pub fn restore(&mut self, kept: impl IntoIterator<Item = Kept>) {
        for kept in kept {
            if !kept.running || kept.boot != self.boot {
                self.put_away(kept);
            } else if let Some(older) = self.resumable.insert(Arc::clone(&kept.run.key), kept) {
                self.put_away(older);
            }
        }
    }

    /// Goes on where an earlier process read the rows to.
    pub fn go_on(&mut self, marks: &[Mark]) {
        for Mark { key, seen, placed } in marks {
            self.dir(key.cgroup_id);
            let progress = Progress { seen: *seen, placed: *placed.min(seen), last: CapCount::default() };
            self.rows.insert(*key, progress);
        }
    }

    /// How far the rows were read.
    pub fn marks(&self) -> Vec<Mark> {
        let mark = |(key, progress): (&CapKey, &Progress)| Mark {
            key: *key,
            seen: progress.seen,
            placed: progress.placed,
        };
        self.rows.iter().map(mark).collect()
    }

    fn dir(&mut self, id: u64) -> &mut Dir {
        self.dirs.entry(id).or_default()
    }

    /// Makes room for one more, in the place of whoever ended first. Users' containers and nested ones, whose cgroups
    /// others may make at will, have a part of the table, and take only places of their own.
    fn make_room(&mut self, delegated: bool) -> bool {
        let part_is_full = delegated && self.delegated >= self.max_runs / DELEGATED_PART;
        if self.runs.len() < self.max_runs && !part_is_full {
            return true;
        }
        let may_go = |entry: &&Entry| !delegated || entry.run.is_delegated();
        let ended = self.runs.iter().filter(|(_, entry)| may_go(entry));
        let ended = ended.filter_map(|(key, entry)| Some((entry.ended?, Arc::clone(key))));
        let Some((_, key)) = ended.min() else { return false };
        self.end(&key);
        true
    }

    /// Puts a container away.
    fn end(&mut self, key: &Arc<str>) {
        if let Some(entry) = self.runs.remove(key) {
            self.delegated -= usize::from(entry.run.is_delegated());
            self.keep(entry.run);
        }
    }

    fn keep(&mut self, run: Run) {
        let boot = Arc::clone(&self.boot);
        self.put_away(Kept { boot, offset: 0, running: false, run, written: false });
    }

    fn put_away(&mut self, kept: Kept) {
        let gone = self.archive.put(kept);
        self.forgotten(gone);
    }

    /// Takes what was read of the kernel's map. Called after [`Table::learn`], if that was possible.
    pub fn take(&mut self, rows: &[(CapKey, CapCount)]) {
        for (key, row) in rows {
            if u32::from(key.cap) >= CAP_SLOTS {
                continue;
            }
            self.dir(key.cgroup_id);
            let progress = self.rows.entry(*key).or_default();
            if row.count < progress.seen {
                // Somebody else removed the row, and it appeared again.
                self.shortage.unattributed += progress.seen - progress.placed;
                *progress = Progress::default();
            }
            let more = row.count - progress.seen;
            if let Some(results) = self.totals.get_mut(usize::from(key.cap))
                && let Some(total) = results.get_mut(result_of(key.flags))
            {
                *total = total.saturating_add(more);
            }
            progress.seen = row.count;
            progress.last = *row;
        }
        if self.rows.len() > MAX_ROWS {
            let there: HashSet<&CapKey> = rows.iter().map(|(key, _)| key).collect();
            self.rows.retain(|key, _| there.contains(key));
        }
        self.place();
    }

    /// Adds what was read to whom it belongs.
    fn place(&mut self) {
        for (key, progress) in self.rows.iter_mut().filter(|(_, progress)| progress.placed < progress.seen) {
            let more = progress.seen - progress.placed;
            let dir = self.dirs.get(&key.cgroup_id);
            match dir.map(|dir| &dir.owner) {
                Some(Owner::Run(run)) => {
                    // One that found no room may find it later.
                    let Some(entry) = self.runs.get_mut(run) else { continue };
                    entry.run.add(key.cap, key.flags, more, &progress.last);
                    if dir.is_some_and(|dir| dir.below) {
                        entry.run.add_below(key.cap, key.flags);
                    }
                }
                Some(Owner::Host) => {}
                Some(Owner::Unknown) | None => continue,
            }
            progress.placed = progress.seen;
        }
    }

    /// Cgroups with rows of which the pipeline knows nothing.
    pub fn unknown(&self) -> Vec<u64> {
        let unknown = |(id, dir): (&u64, &Dir)| {
            (*id != 0 && dir.owner == Owner::Unknown && dir.gone.is_none()).then_some(*id)
        };
        self.dirs.iter().filter_map(unknown).collect()
    }

    /// Those of [`Table::unknown`] that are not among the directories that exist are gone. So are those that the pipeline
    /// still lists, for the record of their end may be lost. That needs the whole tree: the part that a cgroup namespace
    /// shows says nothing of what lies outside.
    pub fn exist(&mut self, unknown: &[u64], directories: &HashSet<u64>, now: Now) {
        if !directories.contains(&ROOT) {
            return;
        }
        for id in unknown.iter().filter(|id| !directories.contains(id)) {
            self.dir(*id).gone.get_or_insert(now.boot);
        }
        for (id, dir) in self.dirs.iter_mut().filter(|(_, dir)| dir.listed) {
            dir.missing = !directories.contains(id);
        }
    }

    /// Marks places as removed whose directory is missing.
    pub fn correct(&self, places: &mut [Place]) {
        for place in places {
            place.removed |= self.dirs.get(&place.id.0).is_some_and(|dir| dir.missing);
        }
    }

    /// Rows that can be removed from the kernel's map: their cgroup has been gone for long enough. They must have been
    /// read in this round.
    pub fn due(&self, now: Now) -> Vec<CapKey> {
        self.rows.keys().filter(|key| is_due(&self.dirs, key.cgroup_id, now)).copied().collect()
    }

    /// These rows are no longer in the kernel's map.
    pub fn removed(&mut self, keys: &[CapKey]) {
        for key in keys {
            if let Some(progress) = self.rows.remove(key) {
                self.shortage.unattributed += progress.seen - progress.placed;
            }
        }
        // Of directories that are gone for good nothing need be known.
        let noted = self.sets.iter().flat_map(sets::Sets::cgroups);
        let used: HashSet<u64> = self.rows.keys().map(|key| key.cgroup_id).chain(noted).collect();
        self.dirs.retain(|id, dir| dir.listed || used.contains(id));
    }

    /// Puts away the containers that ended some time ago and of which no row is left in the kernel's map.
    pub fn archive_ended(&mut self, now: Now) {
        let busy: HashSet<&Arc<str>> = self
            .rows
            .keys()
            .filter_map(|key| match &self.dirs.get(&key.cgroup_id)?.owner {
                Owner::Run(run) => Some(run),
                _ => None,
            })
            .collect();
        let is_over =
            |entry: &Entry| entry.ended.is_some_and(|ended| now.boot.saturating_sub(ended) >= ARCHIVE_NS);
        let mut over: Vec<(u64, Arc<str>)> = self
            .runs
            .iter()
            .filter(|(key, entry)| is_over(entry) && !busy.contains(key))
            .map(|(key, entry)| (entry.run.until, Arc::clone(key)))
            .collect();
        over.sort();
        for (_, key) in over {
            self.end(&key);
        }
    }

    /// Containers that are not put away, with whether they run.
    pub fn runs(&self) -> impl Iterator<Item = (&Run, bool)> {
        self.runs.values().map(|entry| (&entry.run, entry.ended.is_none()))
    }

    /// All that is kept of each container is to be written.
    pub fn mark_all(&mut self) {
        self.runs.values_mut().for_each(|entry| entry.run.dirty = true);
    }

    /// Containers that changed since they were written, with whether they run, who was written longest ago first; each
    /// with the place for when it is written.
    pub fn unwritten(&mut self) -> Vec<(&mut Run, bool, &mut u64)> {
        let mut entries: Vec<&mut Entry> = self.runs.values_mut().filter(|entry| entry.run.dirty).collect();
        entries.sort_by_key(|entry| (entry.written, entry.run.since, entry.run.cgroup));
        entries.into_iter().map(|Entry { run, ended, written, .. }| (run, ended.is_none(), written)).collect()
    }

    /// Containers that were put away, those of a key oldest first.
    pub fn archived(&self) -> impl Iterator<Item = &Kept> {
        self.archive.iter()
    }

    /// Those of them that others may make at will, or those that they may not; to be marked as written.
    pub fn archived_mut(&mut self, delegated: bool) -> impl Iterator<Item = &mut Kept> {
        self.archive.queue(delegated).iter_mut()
    }

    /// Forgets the container that was put away first, before all others one that others may make at will; with
    /// `delegated` none but these. False if there is none.
    pub fn forget_oldest(&mut self, delegated: bool) -> bool {
        let oldest = self.archive.forget(delegated);
        self.forgotten(oldest)
    }

    fn forgotten(&mut self, gone: Option<Kept>) -> bool {
        let Some(gone) = gone else { return false };
        self.shortage.forgotten += 1;
        self.dropped.push((gone.boot, gone.run.cgroup));
        true
    }

    /// Records that the state directory had no room for.
    pub fn drop_files(&mut self, files: Vec<(Arc<str>, u64)>) {
        self.shortage.forgotten += files.len() as u64;
        self.dropped.extend(files);
    }

    /// Boot and cgroup of those that were forgotten since this was last asked.
    pub fn take_dropped(&mut self) -> Vec<(Arc<str>, u64)> {
        std::mem::take(&mut self.dropped)
    }

    /// The boot whose times the runs have.
    pub fn boot(&self) -> &Arc<str> {
        &self.boot
    }

    /// Checks since the programs were attached, by capability and in the order of [`RESULTS`].
    pub fn totals(&self) -> &[[u64; RESULTS.len()]] {
        &self.totals
    }

    /// Checks that found no room in the kernel's map, by [`monitor_common::capability::cap_slot`].
    pub fn uncounted(&self) -> &[u64] {
        &self.uncounted
    }

    /// Rows of the kernel's map that are known.
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// What had no room.
    pub fn shortage(&self) -> Shortage {
        self.shortage
    }
}
