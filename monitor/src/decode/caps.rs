//! The records of capability checks and of credentials that grew.

use monitor_common::call::Abi;
use monitor_common::capability::{CapSets, Door, NO_CALL, cap_flag};
use monitor_common::ids::NsInum;
use monitor_common::wire::gain_flag;

use super::{DecodeError, NsSet, Reader};

/// Place of the user namespace in an [`NsSet`].
const USER: usize = 2;

/// A capability check, the first of its kind; see [`monitor_common::wire::CapabilityRecord`] for each member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawCheck {
    /// Effective capabilities of the task.
    pub effective: u64,
    /// The capability's number.
    pub cap: u16,
    /// Bits of [`cap_flag`].
    pub flags: u16,
    /// The system call that made the check; `None` outside of one.
    pub call: Option<(Abi, u32)>,
    /// The user namespace in which the capability was asked for.
    pub target_ns: NsInum,
}

impl RawCheck {
    /// True if the bit of [`cap_flag`] is set.
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether a denial is a refusal, which the kernel would tell its audit; `None` if that cannot be told.
    pub const fn audited(&self) -> Option<bool> {
        if self.has(cap_flag::MAYBE_SILENT) { None } else { Some(!self.has(cap_flag::SILENT)) }
    }
}

/// Credentials that grew; see [`monitor_common::wire::GainRecord`] for each member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawGain {
    /// What was known before.
    pub before: CapSets,
    /// What is.
    pub after: CapSets,
    /// The user namespace in which `before` counted.
    pub user_ns_before: NsInum,
    /// Into another user namespace than that.
    pub moved: bool,
    /// By which door; `None` if none is known.
    pub door: Option<Door>,
    /// No door explains it.
    pub unseen: bool,
    /// Bits of [`gain_flag`].
    pub flags: u16,
}

impl RawGain {
    /// True if the bit of [`gain_flag`] is set.
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether the sets count in another user namespace than the initial one.
    pub const fn in_child_ns(&self) -> bool {
        self.has(gain_flag::CHILD_NS)
    }
}

impl Reader<'_> {
    pub(super) fn cap_sets(&mut self) -> Result<CapSets, DecodeError> {
        self.u64s().map(CapSets::from_array)
    }

    pub(super) fn check(&mut self) -> Result<RawCheck, DecodeError> {
        let effective = self.u64()?;
        let (cap, flags, nr) = (self.u16()?, self.u16()?, self.u32()?);
        let abi = Abi::from_wire(self.u16()?).ok_or(DecodeError::Abi)?;
        self.u16()?;
        let call = (nr != NO_CALL).then_some((abi, nr));
        Ok(RawCheck { effective, cap, flags, call, target_ns: NsInum(self.u32()?) })
    }

    /// The namespaces that stand before it name the one in which the task is now.
    pub(super) fn gain(&mut self, ns: &NsSet, unseen: bool) -> Result<RawGain, DecodeError> {
        let (before, after) = (self.cap_sets()?, self.cap_sets()?);
        let user_ns_before = NsInum(self.u32()?);
        let door = match self.u16()? {
            0 => None,
            door => Some(Door::from_wire(door).ok_or(DecodeError::Door)?),
        };
        let moved = user_ns_before != ns[USER];
        Ok(RawGain { before, after, user_ns_before, moved, door, unseen, flags: self.u16()? })
    }
}
