//! What the pipeline tells the capability ledger.

use std::sync::Arc;

use monitor_common::ids::CgroupId;

use super::Pipeline;
use crate::capabilities::Place;
use crate::enrich::container::Cgroup;
use crate::enrich::names::State;
use crate::fields::NS_KINDS;

impl Pipeline {
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
                own_user_ns,
                named,
            }
        };
        self.cgroups.iter().map(place).collect()
    }
}
