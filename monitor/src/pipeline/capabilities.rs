//! What the pipeline tells the capability ledger.

use std::sync::Arc;

use monitor_common::ids::{BootNs, CgroupId};

use super::Pipeline;
use crate::capabilities::{Begun, Place, is_delegated, told};
use crate::decode::{NsSet, RawExec};
use crate::enrich::container::Cgroup;
use crate::enrich::names::State;
use crate::fields::NS_KINDS;

impl Pipeline {
    /// A program began at home in a container: notes what it was granted, and what it is.
    pub(super) fn granted(&mut self, exec: &RawExec<'_>, boot: BootNs) {
        let cgroup = exec.task.cgroup;
        if !self.granted.granted(cgroup, &exec.caps, boot) {
            return;
        }
        let at = |kind: &str| NS_KINDS.iter().position(|known| *known == kind);
        let ns = |all: &NsSet, kind: &str| at(kind).and_then(|at| all.get(at).copied()).unwrap_or_default();
        // In a user namespace of its own anybody may be root.
        let is_initial = ns(&exec.ns, "user") == ns(&self.host.namespaces, "user");
        let told = told(exec.task.euid.0 == 0 || !is_initial, &exec.caps);
        self.granted.required(cgroup, told);
        // Capabilities of a file that lies in another mount namespace, or in none, do not count (`mnt_may_suid`).
        let mnt = ns(&exec.ns, "mnt");
        if mnt.0 == 0 || exec.exe_mnt_ns == mnt {
            let path = exec.path();
            let path = Some(&*path).filter(|path| !exec.truncated && path.first() == Some(&b'/'));
            let begun = Begun { tgid: exec.task.process.tgid.0, told: told != 0, mount_ns: mnt.0 };
            let key = self.cgroups.known(cgroup).and_then(|cgroup| cgroup.key.as_deref());
            self.granted.begun(cgroup, key.is_some_and(is_delegated), path, begun);
        }
    }

    /// Every known cgroup, with what is known of its container.
    pub(super) fn places(&self) -> Vec<Place> {
        let user = NS_KINDS.iter().position(|kind| *kind == "user");
        let place = |(id, cgroup, removed): (CgroupId, &Arc<Cgroup>, bool)| {
            let resident = cgroup.key.as_deref().and_then(|key| self.namespaces.residents().get(key));
            let own_user_ns = user.zip(resident).and_then(|(user, resident)| {
                let (own, host) = (resident.base.get(user)?, self.host.namespaces.get(user)?);
                (own.0 != 0 && host.0 != 0).then(|| own != host)
            });
            let named = match cgroup.container().and_then(|container| self.names.state(container)) {
                Some(State::Known(metadata)) => Some(Arc::clone(metadata)),
                _ => None,
            };
            Place {
                id,
                cgroup: Arc::clone(cgroup),
                removed,
                before: self.granted.was_before(id),
                grant: self.granted.of(id),
                programs: self.granted.programs(id),
                own_user_ns,
                named,
            }
        };
        self.cgroups.iter().map(place).collect()
    }
}
