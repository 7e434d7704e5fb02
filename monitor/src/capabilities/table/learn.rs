//! Who is there: cgroups and containers that come, go, and come again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use monitor_common::ids::{BootNs, CgroupId};

use super::{Dir, Entry, Kept, Now, Owner, Table};
use crate::capabilities::granted::{Place, Sets};
use crate::capabilities::record::MAX_KEY;
use crate::capabilities::run::{Run, Who};
use crate::enrich::container::Container;

impl Table {
    /// Learns which cgroups there are now. `seen` are the sets of processes that ran already, by cgroup.
    pub fn learn(&mut self, places: &[Place], seen: &HashMap<u64, Sets>, now: Now) {
        self.dirs.values_mut().for_each(|dir| dir.listed = false);
        // A container's own directory comes before those below it.
        let mut places: Vec<&Place> = places.iter().collect();
        places.sort_by_key(|place| place.cgroup.path.len());
        for place in places.iter().filter(|place| place.removed) {
            self.dir(place.id.0).gone.get_or_insert(now.boot);
        }
        let tops = tops(&places);
        let mut alive: HashSet<Arc<str>> = HashSet::new();
        for place in places {
            let moved = self.dirs.get(&place.id.0).and_then(|dir| dir.moved.clone());
            let owner = match (&place.cgroup.key, place.cgroup.container(), moved) {
                (_, _, Some(moved)) => Owner::Run(moved),
                (Some(key), Some(container), None) => {
                    let is_new = self.meet(key, container, place, seen.get(&place.id.0).copied(), now);
                    self.hear(key, tops.get(key).and_then(Top::began), is_new);
                    if !place.removed {
                        alive.insert(Arc::clone(key));
                    }
                    Owner::Run(Arc::clone(key))
                }
                _ => Owner::Host,
            };
            let top = place.cgroup.key.as_ref().and_then(|key| tops.get(key));
            let below = top.is_some_and(|top| top.is_above(place));
            let dir = self.dir(place.id.0);
            // Of a removed one it counts what it was: the container may have begun again elsewhere.
            dir.below = if place.removed && dir.owner != Owner::Unknown { dir.below } else { below };
            (dir.owner, dir.listed) = (owner, true);
            if !place.removed {
                dir.gone = None;
            }
        }
        // What the pipeline has forgotten was removed a minute ago.
        for dir in self.dirs.values_mut().filter(|dir| !dir.listed && dir.owner != Owner::Unknown) {
            dir.gone.get_or_insert(now.boot);
        }
        for (key, entry) in &mut self.runs {
            if alive.contains(key) {
                let since = entry.alive.replace(now.mono).unwrap_or(now.mono);
                let more = now.mono.saturating_sub(since);
                entry.run.observed = entry.run.observed.saturating_add(more);
                if let (Some(_), Some(calls)) = (&self.sets, &mut entry.run.calls) {
                    calls.observed = calls.observed.saturating_add(more);
                }
                entry.run.until = entry.run.until.max(now.boot);
                entry.ended = None;
            } else if entry.ended.is_none() {
                (entry.alive, entry.ended, entry.run.dirty) = (None, Some(now.boot), true);
            }
        }
        let mut left: Vec<Kept> = std::mem::take(&mut self.resumable).into_values().collect();
        left.sort_by_key(|kept| kept.run.until);
        for kept in left {
            // Ended while nobody watched.
            self.put_away(Kept { running: false, written: false, ..kept });
        }
        self.learnt = now;
    }

    /// Makes sure that the container of a place is known, and notes what the place tells. True if the place or the
    /// container is met for the first time.
    fn meet(
        &mut self,
        key: &Arc<str>,
        container: &Container,
        place: &Place,
        seen: Option<Sets>,
        now: Now,
    ) -> bool {
        let id = place.id.0;
        let is_new = self.dirs.get(&id).is_none_or(|dir| dir.owner == Owner::Unknown);
        let who = Who::of(container, place);
        let main = self.runs.get(key).map(|entry| entry.main);
        let main_gone = main.is_some_and(|main| self.dirs.get(&main).is_none_or(|dir| dir.gone.is_some()));
        if is_new && main_gone && !place.removed {
            self.began_again(key, container, place, now);
        }
        let is_unknown = !self.runs.contains_key(key);
        if is_unknown {
            // One that was put away while the pipeline still remembers it stays where it is.
            if place.removed && !is_new {
                return false;
            }
            if key.len() > MAX_KEY {
                // Names in names; it could be written to no file.
                self.shortage.overlong += u64::from(is_new);
                return false;
            }
            let delegated = container.user.is_some() || container.nested;
            if !self.make_room(delegated) {
                self.shortage.refused += u64::from(is_new);
                return false;
            }
            let entry = self.begun(key, container, place, who.clone(), now);
            self.runs.insert(Arc::clone(key), entry);
            self.delegated += usize::from(delegated);
        }
        let Some(entry) = self.runs.get_mut(key) else { return false };
        if let Some(sets) = &self.sets
            && is_new
            && entry.main == id
        {
            sets.begin(&mut entry.run, !place.before);
        }
        entry.run.dirty |= entry.run.who.update(who);
        entry.run.own_user_ns = place.own_user_ns.or(entry.run.own_user_ns);
        if let Some(sets) = seen {
            entry.run.grant(sets, false);
        }
        if let Some(grant) = place.grant {
            entry.run.grant(grant.sets, grant.first.0 != 0);
            entry.run.require(grant.required, false);
        }
        is_new || is_unknown
    }

    /// A container that had ended has a directory again.
    fn began_again(&mut self, key: &Arc<str>, container: &Container, place: &Place, now: Now) {
        if container.has_long_id() {
            if let Some(entry) = self.runs.get_mut(key) {
                (entry.main, entry.doubt) = (place.id.0, None);
                entry.run.restarts = entry.run.restarts.saturating_add(1);
                entry.run.start_seen |= !place.before;
            }
        } else if let Some(mut entry) = self.runs.remove(key) {
            // A name may be given to another container. The earlier one stays for a while under a key of its own: rows of its
            // directories may not have been read.
            let moved: Arc<str> = format!("{key}\n{}", entry.main).into();
            entry.ended.get_or_insert(now.boot);
            (entry.alive, entry.run.dirty) = (None, true);
            self.runs.insert(Arc::clone(&moved), entry);
            let is_its = |dir: &&mut Dir| {
                dir.gone.is_some() && matches!(&dir.owner, Owner::Run(owner) if owner == key)
            };
            for dir in self.dirs.values_mut().filter(is_its) {
                (dir.owner, dir.moved) = (Owner::Run(Arc::clone(&moved)), Some(Arc::clone(&moved)));
            }
        }
    }

    /// The entry of a container that is not in the table: one that was put away goes on, another one begins.
    fn begun(&mut self, key: &Arc<str>, container: &Container, place: &Place, who: Who, now: Now) -> Entry {
        let id = place.id.0;
        let boot = Arc::clone(&self.boot);
        let goes_on = |kept: &Kept| {
            kept.boot == boot && kept.run.key == *key && (container.has_long_id() || kept.run.cgroup == id)
        };
        let resumed = match self.resumable.remove(key) {
            Some(kept) if goes_on(&kept) => Some(kept),
            other => {
                other.into_iter().for_each(|kept| self.put_away(kept));
                self.archive.take(container.user.is_some() || container.nested, goes_on)
            }
        };
        if let Some(kept) = resumed {
            let mut run = kept.run;
            // Only one that ran when it was last written went on while nobody watched.
            run.gaps = run.gaps.saturating_add(kept.running.into());
            if !kept.running {
                run.restarts = run.restarts.saturating_add(1);
                run.start_seen |= !place.before;
            }
            run.dirty = true;
            return Entry::new(run, id);
        }
        let mut run = Run::new(Arc::clone(key), id, who, now.boot);
        run.start_seen = !place.before;
        if let Some(grant) = place.grant.filter(|grant| grant.first.0 != 0 && run.start_seen) {
            // It has been watched since its first program began.
            run.since = run.since.min(grant.first.0);
            if !place.removed {
                let known = now.mono.saturating_sub(self.learnt.mono);
                run.observed = now.boot.saturating_sub(run.since).min(known);
            }
        }
        Entry::new(run, id)
    }
}

/// Where a container began.
struct Top {
    /// Length of the path of its own directory.
    path: usize,
    /// That was there before anybody looked.
    before: bool,
    /// That was removed.
    removed: bool,
    /// When its first program began, and in which directory: not always its own one (crun makes one below it).
    first: Option<(BootNs, CgroupId)>,
}

impl Top {
    /// Since when its programs may have lost something: 0 if it ran before anybody looked. `None` if none of them was seen to
    /// begin yet.
    fn began(&self) -> Option<u64> {
        if self.before { Some(0) } else { self.first.map(|(first, _)| first.0) }
    }

    /// Whether a directory of the container lies below the one in which its first program began. While none has begun only
    /// a runtime can be there.
    fn is_above(&self, place: &Place) -> bool {
        place.cgroup.path.len() > self.path
            && (self.before || self.first.is_some_and(|(_, first)| first != place.id))
    }
}

/// By container; the places are in the order of the lengths of their paths. What was removed counts only if nothing else is
/// there.
fn tops(places: &[&Place]) -> HashMap<Arc<str>, Top> {
    let mut tops: HashMap<Arc<str>, Top> = HashMap::new();
    for place in places {
        let Some(key) = &place.cgroup.key else { continue };
        let new = || Top {
            path: place.cgroup.path.len(),
            before: place.before,
            removed: place.removed,
            first: None,
        };
        let top = tops.entry(Arc::clone(key)).or_insert_with(new);
        match (top.removed, place.removed) {
            (true, false) => *top = new(),
            (false, true) => continue,
            _ => {}
        }
        if let Some(grant) = place.grant.filter(|grant| grant.first.0 != 0) {
            let this = (grant.first, place.id);
            top.first = Some(top.first.map_or(this, |first| first.min(this)));
        }
    }
    tops
}
