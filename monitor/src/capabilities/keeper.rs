//! Reads the kernel's map, adds up, and writes to the state directory: a round at a time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::files::{Files, Looker};
use super::granted::{Place, Sets};
use super::info::{CapsListing, listing};
use super::metrics::{CapabilitySource, Published};
use super::programs::Programs;
use super::run::Run;
use super::sets::SetSource;
use super::source::{Overlooked, Source, Tree};
use super::state::State;
use super::table::{Kept, Now, Table};
use monitor_common::caps;
use monitor_common::ids::CgroupId;

/// From one look over the whole cgroup tree to the next.
const WALK_NS: u64 = 60_000_000_000;
/// Containers whose rows changed are written so often.
const WRITE_NS: u64 = 60_000_000_000;
/// All that run are written so often, so that little of their time of observation is lost.
const WRITE_ALL_NS: u64 = 600_000_000_000;
/// Files that are written in a round, at most; the others' turn comes with the next one.
const MAX_WRITES: usize = 512;
/// How long the last round of a daemon may write.
pub const LAST: Duration = Duration::from_secs(5);

/// Gives the cgroups that are known now, or says why it cannot.
pub(super) type Places = Box<dyn FnMut() -> Result<Vec<Place>, String> + Send>;
/// Tells the time, and Unix time of the boot's beginning in nanoseconds.
pub(super) type Clock = Box<dyn Fn() -> (Now, i64) + Send>;

/// What a keeper is made of.
pub struct KeeperParts {
    /// The kernel's map.
    pub source: Box<dyn Source>,
    /// The pipeline's cgroups.
    pub places: Places,
    /// The sets of processes that run already, by cgroup.
    pub seen: HashMap<u64, Sets>,
    /// The programs that they run.
    pub seen_programs: HashMap<CgroupId, Arc<Programs>>,
    /// Who looks at programs' files.
    pub looker: Box<dyn Looker>,
    /// The cgroup directories that exist.
    pub tree: Tree,
    /// The clocks.
    pub clock: Clock,
    /// Where records are kept; none: nowhere.
    pub state: Option<State>,
    /// The boot's id, as [`super::record::is_boot`] wants it.
    pub boot: Arc<str>,
    /// What the metrics show.
    pub metrics: CapabilitySource,
    /// Series of `capability_unused_info`, at most; 0: none.
    pub unused_series: usize,
    /// How long the last round may write.
    pub last: Duration,
}

/// Reads, adds up and writes. Driven by a thread ([`Capabilities`]), or by a test.
pub struct Keeper {
    parts: KeeperParts,
    /// Where the sets of system calls come from, if they are noted.
    sets: Option<Box<dyn SetSource>>,
    table: Table,
    files: Files,
    walked: Option<u64>,
    written: Now,
    written_all: Now,
    overlooked: Overlooked,
    read_errors: u64,
    state_errors: u64,
    /// The last read and the last write failed: that was logged.
    complained: [bool; 2],
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Takes over what the state directory holds; what is refused there is logged.
    pub fn new(mut parts: KeeperParts) -> Self {
        let (now, _) = (parts.clock)();
        let files = Files::new(std::mem::take(&mut parts.seen_programs));
        let mut keeper = Keeper {
            table: Table::new(Arc::clone(&parts.boot)),
            parts,
            files,
            sets: None,
            walked: None,
            written: now,
            written_all: now,
            overlooked: Overlooked::default(),
            read_errors: 0,
            state_errors: 0,
            complained: [false; 2],
        };
        keeper.load();
        match keeper.parts.source.marks() {
            Ok(marks) => keeper.table.go_on(&marks),
            Err(error) => tracing::error!(%error, "capability checks of before the start are counted twice"),
        }
        keeper.publish();
        keeper
    }

    /// Takes the sets of system calls, too.
    #[must_use]
    pub fn with_sets(mut self, sets: Option<Box<dyn SetSource>>) -> Self {
        if let Some(sets) = &sets {
            self.table.note_sets(sets.sees_refusals());
        }
        self.sets = sets;
        self
    }

    fn load(&mut self) {
        let Some(state) = &self.parts.state else { return };
        let loaded = match state.load() {
            Ok(loaded) => loaded,
            Err(error) => {
                self.state_errors += 1;
                let path = state.path().display();
                tracing::error!(%path, %error, "what earlier daemons counted of capabilities cannot be read");
                return;
            }
        };
        for (file, reason) in &loaded.refused {
            tracing::warn!(file, reason, "a record in the state directory is refused, and stays as it is");
        }
        self.state_errors += loaded.refused_count;
        self.table.restore(loaded.kept);
        self.table.drop_files(loaded.dropped);
    }

    /// The table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    #[cfg(test)]
    pub(super) fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    #[cfg(test)]
    pub(super) fn metrics(&self) -> &CapabilitySource {
        &self.parts.metrics
    }

    #[cfg(test)]
    pub(super) fn state_errors(&self) -> u64 {
        self.state_errors
    }

    /// One look: reads the map, adds up, removes what is due, writes what is due.
    pub fn round(&mut self) {
        let (now, _) = (self.parts.clock)();
        self.read(now, false);
        self.write(now, false);
        self.publish();
    }

    fn read(&mut self, now: Now, last: bool) {
        let mut failed = None;
        // First who is there, then what they did: rows of a new cgroup then have an owner.
        let learnt = match (self.parts.places)() {
            Ok(mut places) => {
                self.table.correct(&mut places);
                self.table.learn(&places, &self.parts.seen, now);
                self.parts.seen.clear();
                self.files.look(&mut *self.parts.looker, &places, &mut self.table, last);
                true
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        };
        match self.parts.source.rows() {
            Ok(rows) => {
                self.table.take(&rows);
                if let Some(sets) = &mut self.sets {
                    match self.table.read_sets(&mut **sets) {
                        Ok(lost) if learnt => self.table.note_lost_calls(lost, (self.parts.clock)().0),
                        Ok(_) => {}
                        Err(error) => failed = Some(error.to_string()),
                    }
                }
                self.tidy(now);
            }
            Err(error) => failed = Some(error.to_string()),
        }
        match self.parts.source.uncounted() {
            Ok(uncounted) if learnt => {
                let skipped = self.parts.source.skipped();
                // The time now, and not that of the round: who began while all this was read may have lost some of it.
                self.table.note_lost(&uncounted, skipped, (self.parts.clock)().0);
            }
            Ok(_) => {}
            Err(error) => failed = Some(error.to_string()),
        }
        match self.parts.source.overlooked() {
            Ok(overlooked) => self.overlooked = overlooked,
            Err(error) => failed = Some(error.to_string()),
        }
        self.table.archive_ended(now);
        self.read_errors += u64::from(failed.is_some());
        if let Some(error) = &failed
            && !self.complained[0]
        {
            tracing::error!(
                error,
                "capability checks could not be read; they stay in the kernel until they can"
            );
        }
        self.complained[0] = failed.is_some();
    }

    /// Removes the rows of cgroups that have been gone for long. They were read just now.
    fn tidy(&mut self, now: Now) {
        let unknown = self.table.unknown();
        let is_due = self.walked.is_none_or(|walked| now.boot.saturating_sub(walked) >= WALK_NS);
        if is_due {
            self.walked = Some(now.boot);
            if let Some(directories) = (self.parts.tree)() {
                self.table.exist(&unknown, &directories, now);
            }
        }
        if let Some(sets) = &mut self.sets
            && let Err(error) = self.table.drop_sets(&mut **sets, now)
        {
            self.read_errors += 1;
            tracing::debug!(%error, "sets of system calls of removed cgroups stay in the kernel's map");
        }
        let due = self.table.due(now);
        match self.parts.source.remove(&due) {
            Ok(()) => self.table.removed(&due),
            // What was removed all the same appears again from 0, if it does.
            Err(error) => {
                self.read_errors += 1;
                tracing::debug!(%error, "rows of removed cgroups stay in the kernel's map");
            }
        }
    }

    /// Writes who was put away, and in their turns those that run; `all` of them at the end.
    fn write(&mut self, now: Now, all: bool) {
        let offset = (self.parts.clock)().1;
        let dropped = self.table.take_dropped();
        let Some(state) = &self.parts.state else { return };
        let deadline = Instant::now() + self.parts.last;
        let mut error = None;
        let mut writes = 0;
        let may = |count: &mut usize| {
            *count += 1;
            if all { Instant::now() < deadline } else { *count <= MAX_WRITES }
        };
        for (boot, cgroup) in dropped {
            error = state.remove(&boot, cgroup).err().or(error);
        }
        while error.is_none()
            && (state.is_tight(true) && self.table.forget_oldest(true)
                || state.is_tight(false) && self.table.forget_oldest(false))
        {
            for (boot, cgroup) in self.table.take_dropped() {
                error = state.remove(&boot, cgroup).err().or(error);
            }
        }
        let boot = Arc::clone(self.table.boot());
        let write_ended = |table: &mut Table, delegated: bool, writes: &mut usize| {
            let mut error = None;
            for kept in table.archived_mut(delegated).filter(|kept| !kept.written) {
                if !may(writes) {
                    break;
                }
                if *kept.boot == *boot {
                    kept.offset = offset;
                }
                match state.write(kept) {
                    Ok(()) => kept.written = true,
                    Err(cause) => error = Some(cause),
                }
            }
            error
        };
        error = write_ended(&mut self.table, false, &mut writes).or(error);
        let since = |then: Now| now.mono.saturating_sub(then.mono);
        let everyone = all || since(self.written_all) >= WRITE_ALL_NS;
        let mut left = 0;
        if everyone || since(self.written) >= WRITE_NS {
            if everyone {
                self.table.mark_all();
                self.written_all = now;
            }
            for (run, running, written) in self.table.unwritten() {
                if !may(&mut writes) {
                    left += 1;
                    continue;
                }
                let kept =
                    Kept { boot: Arc::clone(&boot), offset, running, run: run.clone(), written: false };
                // Also one that cannot be written waits for its next turn.
                *written = now.mono;
                match state.write(&kept) {
                    Ok(()) => run.dirty = false,
                    Err(cause) => error = Some(cause),
                }
            }
            // Who is left has its turn in the next round.
            if left == 0 {
                self.written = now;
            }
        }
        // Those that others may end as fast as they like come last.
        error = write_ended(&mut self.table, true, &mut writes).or(error);
        // At once for all: to wait for the disk at each would take a busy round longer than its turn.
        if writes > 0 || all {
            error = state.settle().err().or(error);
        }
        if all && left > 0 {
            tracing::error!(left, "containers whose capability checks could not be written before the end");
        }
        self.state_errors += u64::from(error.is_some());
        if let Some(error) = &error
            && !self.complained[1]
        {
            let path = state.path().display();
            tracing::error!(%path, %error, "capability checks cannot be written: a restart forgets them");
        }
        self.complained[1] = error.is_some();
    }

    /// The last round of a daemon.
    pub fn finish(&mut self) {
        let (now, _) = (self.parts.clock)();
        self.read(now, true);
        self.write(now, true);
        if let Err(error) = self.parts.source.leave_marks(&self.table.marks()) {
            tracing::error!(%error, "the next process will not know how far capability checks were read");
        }
        self.publish();
    }

    /// What there is to tell.
    pub fn listing(&self) -> CapsListing {
        let (_, offset) = (self.parts.clock)();
        let table = &self.table;
        listing(table.runs(), table.archived(), table.boot(), offset, table.shortage())
    }

    fn publish(&self) {
        let running = self.table.runs().filter(|(_, running)| *running).count();
        let all = self.table.runs().count() + self.table.archived().count();
        let (unused, unused_dropped) = self.unused();
        self.parts.metrics.publish(Published {
            kept: true,
            totals: self.table.totals().to_vec(),
            uncounted: self.table.uncounted().to_vec(),
            overlooked: self.overlooked.clone(),
            rows: self.table.row_count(),
            running: running as u64,
            ended: all.saturating_sub(running) as u64,
            shortage: self.table.shortage(),
            read_errors: self.read_errors,
            state_errors: self.state_errors,
            unused,
            unused_dropped,
            sets: self.table.sets_noted(),
        });
    }

    /// Series of what running containers were granted and never used, and how many found no room.
    fn unused(&self) -> (Vec<(String, String, &'static str)>, u64) {
        let most = self.parts.unused_series;
        if most == 0 {
            return (Vec::new(), 0);
        }
        let mut runs: Vec<&Run> =
            self.table.runs().filter(|(_, running)| *running).map(|(run, _)| run).collect();
        // Who was there first keeps its series, before those that others than root may make and name.
        runs.sort_by_cached_key(|run| (run.is_delegated(), run.since, Arc::clone(&run.key)));
        let mut series = Vec::new();
        let mut dropped = 0;
        let mut told = HashSet::new();
        for run in runs {
            let perhaps = run.used() | run.below | run.required | run.lost.perhaps_used();
            let unused = run.sets.map_or(0, |sets| sets.all() & !perhaps);
            for name in caps::names(unused) {
                let labels = (run.who.id.clone(), run.who.name.clone().unwrap_or_default(), name);
                // Containers of different runtimes or users may have one id: a series may be there once only.
                if series.len() < most && told.insert((run.who.id.clone(), name)) {
                    series.push(labels);
                } else {
                    dropped += 1;
                }
            }
        }
        (series, dropped)
    }
}
