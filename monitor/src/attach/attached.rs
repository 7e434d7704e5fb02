//! Hands out what is attached, whoever attached it, and lets it go.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{ProgramError, RawTracePoint};

use super::explain::chain;
use super::pinned::{EVENTS, program_name};
use super::{
    Adopted, AttachError, Attached, CanaryMap, CounterMap, ENROLMENT, LostMap, NEVER, Pinned, Probe,
};

impl Attached {
    /// The same, unless a probe is missing.
    pub(super) fn be_whole(self) -> Result<Attached, AttachError> {
        let gap = |probe: &Probe| probe.missing.as_ref().map(|why| format!("{} ({why})", probe.hook));
        let missing: Vec<String> = self.probes.iter().filter_map(gap).collect();
        if missing.is_empty() { Ok(self) } else { Err(AttachError::Strict(missing)) }
    }

    /// How many probes are missing that another time may be allowed.
    pub(super) fn gaps(&self) -> usize {
        let may_come = |probe: &&Probe| probe.missing.as_ref().is_some_and(|why| why != NEVER);
        self.probes.iter().filter(may_come).count()
    }

    /// The ring, for as long as it is not taken.
    pub(super) fn ring(&mut self) -> Option<RingBuf<&mut MapData>> {
        let adopted = self.adopted.iter_mut().find_map(|(name, adopted)| match adopted {
            Adopted::Map(map) if name == EVENTS => Some(&mut **map),
            _ => None,
        });
        let map = match adopted {
            Some(map) => map,
            None => self.ebpf.as_mut()?.map_mut(EVENTS)?,
        };
        RingBuf::try_from(map).ok()
    }

    /// Takes a map out, whoever loaded it.
    pub(super) fn take_map(&mut self, name: &str) -> Option<Map> {
        let is_it = |(its, adopted): &(String, Adopted)| its == name && matches!(adopted, Adopted::Map(_));
        if let Some(place) = self.adopted.iter().position(is_it)
            && let (_, Adopted::Map(map)) = self.adopted.swap_remove(place)
        {
            return Some(*map);
        }
        self.ebpf.as_mut()?.take_map(name)
    }

    /// Takes the ring buffer; the next call gives `None`.
    pub fn take_ring(&mut self) -> Option<RingBuf<MapData>> {
        RingBuf::try_from(self.take_map("EVENTS")?).ok()
    }

    /// Takes the ledger.
    pub fn take_counters(&mut self) -> Option<CounterMap> {
        PerCpuArray::try_from(self.take_map("COUNTERS")?).ok()
    }

    /// Takes the table that says whose records were lost.
    pub fn take_lost(&mut self) -> Option<LostMap> {
        HashMap::try_from(self.take_map("LOST")?).ok()
    }

    /// Takes the table of the tasks whose records are canaries.
    pub fn take_canaries(&mut self) -> Option<CanaryMap> {
        Array::try_from(self.take_map("CANARIES")?).ok()
    }

    /// The program by which a thread becomes a canary, loaded if it is not yet: its descriptor.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn enrolment(&mut self) -> Result<OwnedFd, String> {
        let Some(ebpf) = &mut self.ebpf else {
            return self.held(&program_name(ENROLMENT)).ok_or("not among the pins".to_owned());
        };
        let program = ebpf.program_mut(ENROLMENT).ok_or("not in the object file")?;
        let explain = |e: ProgramError| chain(&e);
        let program: &mut RawTracePoint = program.try_into().map_err(explain)?;
        if program.fd().is_err() {
            program.load().map_err(explain)?;
        }
        let fd = program.fd().map_err(explain)?;
        fd.as_fd().try_clone_to_owned().map_err(|e| e.to_string())
    }

    /// A copy of the descriptor of a program or link that was taken over.
    fn held(&self, name: &str) -> Option<OwnedFd> {
        self.adopted.iter().find_map(|(its, adopted)| match adopted {
            Adopted::Held(fd) if its == name => fd.try_clone().ok(),
            _ => None,
        })
    }

    /// Takes the records that come before those in the ring: of programs that these replaced.
    pub fn take_handed(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.handed)
    }

    /// Where programs and maps are pinned, if they are.
    pub fn pinned(&self) -> Option<&Pinned> {
        self.pinned.as_ref()
    }

    /// Takes every program off its hook, for good: pins are removed. What is in the ring buffer stays there as long as
    /// somebody has it.
    pub fn detach(mut self) {
        if let Some(pinned) = self.pinned.take() {
            pinned.remove();
        }
    }

    /// What [`Attached::take_handed`] gave was told of: nobody needs what it came from any more.
    pub fn forget_earlier(&mut self) {
        if let Some(pinned) = &mut self.pinned {
            pinned.forget_earlier();
        }
    }

    /// The start has come to its end. Before that, dropping takes off what nobody had pinned before.
    pub fn settle(&mut self) {
        if let Some(pinned) = &mut self.pinned {
            pinned.settle();
        }
    }

    /// Lets go. What is pinned stays on its hook, for the next process; all else is taken off. That process may not begin
    /// before the ring is read by nobody else, so the directory stays taken as long as what this gives.
    #[must_use]
    pub fn leave(mut self) -> Option<Pinned> {
        self.pinned.take()
    }
}
