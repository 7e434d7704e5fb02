//! Hands out what is attached, whoever attached it, and lets it go.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{ProgramError, RawTracePoint};

use super::explain::chain;
use super::pinned::program_name;
use super::{Adopted, AttachError, Attached, CanaryMap, CounterMap, ENROLMENT, LostMap, Pinned, Probe};

impl Attached {
    /// The same, unless a probe is missing.
    pub(super) fn be_whole(self) -> Result<Attached, AttachError> {
        let gap = |probe: &Probe| probe.missing.as_ref().map(|why| format!("{} ({why})", probe.hook));
        let missing: Vec<String> = self.probes.iter().filter_map(gap).collect();
        if missing.is_empty() { Ok(self) } else { Err(AttachError::Strict(missing)) }
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

    /// Lets go. What is pinned stays on its hook, for the next process; all else is taken off.
    pub fn leave(self) {}
}
