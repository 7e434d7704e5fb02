//! Where a process belongs, and whether it is still there. Kept with the process, and handed to its children.

use std::sync::Arc;

use super::{KindSet, Place};
use crate::enrich::container::{Cgroup, Container};

/// How a process came into its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It descends from the container's first program.
    Main,
    /// It descends from a program that somebody outside started in the container when that already ran.
    Exec,
}

impl Entry {
    /// The word in events (`proc.entry`).
    pub const fn name(self) -> &'static str {
        match self {
            Entry::Main => "main",
            Entry::Exec => "exec",
        }
    }
}

/// Where a process is at home: where it exec'ed, or where its maker did. Its cgroup may be moved, its home not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// Nobody saw it exec, nor its maker.
    #[default]
    Unknown,
    /// The host; also for what a runtime does in a container's cgroup before the container's program begins.
    Host,
    /// A container, by its key.
    In(Arc<str>),
}

/// What is remembered of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Where it is at home.
    pub home: Home,
    /// How it came there, if that is a container.
    pub entry: Option<Entry>,
    /// Kinds of which whoever put it into its container did not enter the container's.
    pub exempt: KindSet,
    /// Kinds in which it was last seen astray.
    pub escaped: KindSet,
    /// What was told of it, or of a maker of it.
    pub told: Told,
}

/// The kinds that were told, each way; `None`: nothing was, not even that it left its cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    to_container: Option<KindSet>,
    to_host: Option<KindSet>,
}

impl Told {
    /// Notes kinds, and says if they are news. What was told to be the host's is no news as another container's.
    pub(super) fn note(&mut self, to_host: bool, kinds: KindSet) -> bool {
        let covers = |told: Option<KindSet>| told.is_some_and(|told| kinds.without(told).is_empty());
        if covers(self.to_host) || !to_host && covers(self.to_container) {
            return false;
        }
        let told = if to_host { &mut self.to_host } else { &mut self.to_container };
        *told = Some(told.unwrap_or_default().or(kinds));
        true
    }
}

impl Standing {
    /// Where the process belongs, given where it is in the cgroup tree and whether its runtime is still at work.
    pub fn place(&self, starting: bool, cgroup: Option<&Cgroup>) -> Place {
        let inside = || cgroup.and_then(|cgroup| cgroup.key.clone()).map(Place::In);
        match &self.home {
            Home::In(id) => Place::In(Arc::clone(id)),
            _ if starting => Place::Host,
            Home::Host => inside().unwrap_or(Place::Host),
            // A process that nobody saw come belongs where it is: that makes more noise than to take it for a runtime.
            Home::Unknown if cgroup.is_some() => inside().unwrap_or(Place::Host),
            Home::Unknown => Place::Unknown,
        }
    }
}

/// Names a container for ever: the containers around it and itself, from the outside in. An id alone would not do,
/// for a container, or a user's own runtime, may give its cgroups any name, another container's too. The containers are
/// given the deepest first.
pub fn container_key(containers: &[Arc<Container>]) -> Option<Arc<str>> {
    let segments: Vec<String> = containers.iter().rev().map(|container| segment(container)).collect();
    (!segments.is_empty()).then(|| Arc::from(segments.join(OUTER)))
}

/// Between the containers of a key, and between the parts of one: what the name of no cgroup has.
const OUTER: &str = "\0";
const INNER: char = '\n';

fn segment(container: &Container) -> String {
    let user = container.user.map(|user| user.to_string()).unwrap_or_default();
    format!("{user}{INNER}{}{INNER}{}", container.runtime.name(), container.id)
}

/// What a key says of who may have made the container's cgroup: the user of the host in whose slice it lies, and the ids
/// of the containers that it lies in, the deepest first. With neither it was root.
pub fn makers(key: &str) -> (Option<u32>, impl Iterator<Item = &str>) {
    let user = key.split_once(INNER).and_then(|(user, _)| user.parse().ok());
    let ids = key.rsplit(OUTER).skip(1);
    (user, ids.map(|segment| segment.rsplit(INNER).next().unwrap_or_default()))
}

/// The id of a key's innermost container, in short as in `container.id`.
pub(super) fn short_id(key: &str) -> &str {
    let id = key.rsplit(INNER).next().unwrap_or_default();
    // Names are shown whole.
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { id.get(..12).unwrap_or(id) } else { id }
}

/// True if a container is another one, or lies in it.
pub(super) fn is_inside(container: &str, other: &str) -> bool {
    container.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with(OUTER))
}

/// True if the directory lies in the container.
pub(super) fn lies_in(cgroup: &Cgroup, container: &str) -> bool {
    cgroup.key.as_ref().is_some_and(|key| is_inside(key, container))
}

/// The container whose own directory this is, by the path as the kernel has it; `None` for a directory inside it,
/// whatever that is called.
pub(super) fn own_directory(path: &[u8]) -> Option<Arc<str>> {
    let container = Cgroup::new(path).key?;
    let above =
        path.iter().rposition(|byte| *byte == b'/').and_then(|slash| path.get(..slash)).unwrap_or_default();
    (Cgroup::new(above).key.as_ref() != Some(&container)).then_some(container)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4d5ce26ae5a9ffaf0c3d8d0ee4bd04f5a07e69b7c1c0a1e4e1bd3c1fbd4e3a21";

    fn at(path: &str) -> Cgroup {
        Cgroup::new(path.as_bytes())
    }

    #[test]
    fn a_containers_own_directory_is_told_from_those_inside() {
        let own = own_directory(format!("/system.slice/docker-{ID}.scope").as_bytes());
        assert_eq!(own.as_deref().map(short_id), Some(&ID[..12]));
        assert!(
            own_directory(b"/lxc.payload.a\\b").is_some() && own_directory(b"/lxc.payload.a\\b/x").is_none()
        );
        for other in [&*format!("/system.slice/docker-{ID}.scope/init.scope"), "/system.slice", "/", ""] {
            assert_eq!(own_directory(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_key_tells_who_may_have_made_it() {
        let outer = ID.replace('4', "5");
        let slice = "/user.slice/user-1000.slice/user@1000.service";
        for (path, user, inside) in [
            (format!("/docker/{ID}"), None, vec![]),
            (format!("/lxc.payload.a/docker/{outer}/docker/{ID}"), None, vec![outer.as_str(), "a"]),
            (format!("{slice}/libpod-{ID}.scope"), Some(1000), vec![]),
            (format!("{slice}/libpod-{outer}.scope/docker/{ID}"), Some(1000), vec![outer.as_str()]),
        ] {
            let cgroup = at(&path);
            let (told, ids) = makers(cgroup.key.as_ref().unwrap());
            assert_eq!((told, ids.collect::<Vec<_>>()), (user, inside), "{path}");
        }
        for other in ["", "k", "\0", "\n\n\0"] {
            assert_eq!(makers(other).0, None);
        }
    }

    #[test]
    fn who_names_its_cgroups_as_another_container_is_not_that_one() {
        let real = at(&format!("/docker/{ID}"));
        let inside = at(&format!("/docker/{}/docker/{ID}", ID.replace('4', "5")));
        let of_user =
            at(&format!("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope"));
        assert!(real.key.is_some() && inside.key.is_some() && of_user.key.is_some());
        assert_ne!(real.key, inside.key);
        assert_ne!(real.key, of_user.key);
        for other in [&inside, &of_user] {
            assert!(!lies_in(other, real.key.as_ref().unwrap()));
            assert_eq!(short_id(other.key.as_ref().unwrap()), &ID[..12]);
        }
        let outer = at(&format!("/docker/{}", ID.replace('4', "5")));
        assert!(lies_in(&inside, outer.key.as_ref().unwrap()));
        assert!(!lies_in(&outer, inside.key.as_ref().unwrap()));
    }

    #[test]
    fn names_are_shown_whole_and_only_whole_ones_are_compared() {
        let (long, short) = (at("/lxc.payload.a-name-that-is-long"), at("/lxc.payload.a-name"));
        assert_eq!(short_id(long.key.as_ref().unwrap()), "a-name-that-is-long");
        assert!(!lies_in(&long, short.key.as_ref().unwrap()));
    }
}
