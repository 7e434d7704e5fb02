//! Fields whose values come from a closed set: the words that an event can have there, for messages about others.

use monitor_common::call::Abi;
use monitor_common::capability::Door;
use monitor_common::caps::Cap;
use monitor_common::verdict::{RefusedBy, Verdict};

use super::{Field, NS_KINDS};
use crate::args::SYSLOG_ACTIONS;
use crate::enrich::namespaces::{Direction, Entry};
use crate::event_type::EventType;

impl Field {
    /// Every value (of a list: every member) that an event of this version can have; `None` if there is no such set.
    pub fn words(self) -> Option<Vec<&'static str>> {
        Some(match self {
            Field::EvtType => EventType::all().map(EventType::name).collect(),
            Field::EvtCategory => vec!["capability", "namespace", "clock", "kernel-log", "raw-io"],
            Field::EvtVerdict => [Verdict::Allowed, Verdict::Refused(RefusedBy::Other), Verdict::Failed]
                .map(Verdict::name)
                .into(),
            Field::EvtRefusedBy => {
                use RefusedBy::{Capability, DeviceCgroup, Lsm, Other, Seccomp};
                [Seccomp, Capability, Lsm, DeviceCgroup, Other].map(RefusedBy::name).into()
            }
            Field::EvtRes => crate::errno::names().collect(),
            Field::EvtAbi => [Abi::X86_64, Abi::I386, Abi::X32].map(Abi::name).into(),
            Field::EvtPhase => vec!["running", "starting"],
            Field::ContainerMetadata => vec!["complete", "pending", "missing"],
            Field::K8sPodQos => vec!["Guaranteed", "Burstable", "BestEffort"],
            Field::ProcEntry => [Entry::Main, Entry::Exec].map(Entry::name).into(),
            Field::CapBefore
            | Field::CapAfter
            | Field::CapGained
            | Field::CapDropped
            | Field::CapDenied
            | Field::CapUsed
            | Field::CapName
            | Field::CapGainedPermitted
            | Field::CapPermitted
            | Field::CapPermittedBefore
            | Field::CapInheritable
            | Field::CapInheritableBefore
            | Field::CapBounding
            | Field::CapBoundingBefore
            | Field::CapAmbient
            | Field::CapAmbientBefore
            | Field::ThreadCapEffective => Cap::ALL.iter().map(|cap| cap.name()).collect(),
            Field::CapUserNs => vec!["initial", "child"],
            Field::CapDoor => Door::ALL.iter().map(|door| door.name()).collect(),
            Field::NsChanged | Field::NsHost | Field::NsEnteredHost | Field::ProcEscaped => NS_KINDS.to_vec(),
            Field::NsDirection => {
                use Direction::{ContainerToContainer, ContainerToHost, HostToContainer, New, Own};
                let all = [HostToContainer, ContainerToHost, ContainerToContainer, Own, New];
                all.map(Direction::name).into()
            }
            Field::SyslogAction => SYSLOG_ACTIONS.to_vec(),
            Field::DeviceName => vec!["mem", "kmem", "port", "kmsg", "msr", "proc_kmsg", "proc_kcore"],
            Field::DeviceBy => vec!["kernel", "claimed"],
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::fields::CATALOGUE;

    #[test]
    fn the_catalogue_describes_each_word() {
        let mut sets = 0;
        for spec in CATALOGUE {
            let Some(words) = spec.field.words() else { continue };
            sets += 1;
            assert!(!words.is_empty(), "{}", spec.name);
            let elsewhere = [
                "Effective capabilities",
                "Capabilities that",
                "The capability that",
                "Permitted capabilities",
                "Inheritable capabilities",
                "Bounding capabilities",
                "Ambient capabilities",
                "Falco's name",
                "Kinds of namespace",
                "SUCCESS",
            ];
            if elsewhere.iter().any(|start| spec.doc.starts_with(start)) {
                continue;
            }
            for word in words {
                assert!(spec.doc.contains(word), "{}: {word}", spec.name);
            }
        }
        assert!(sets > 15, "{sets}");
    }
}
