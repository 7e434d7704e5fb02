//! The maps of the programs, for whoever looks at how full they are.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::Ebpf;
use aya::maps::{Map, MapData};

use super::{Adopted, Attached};

/// A map, by a descriptor of its own.
#[derive(Debug)]
pub struct MapFile {
    /// Its name in the object.
    pub name: String,
    /// The descriptor.
    pub fd: OwnedFd,
    /// Bytes of a key.
    pub key_size: u32,
    /// Entries that it has room for; of a ring its bytes.
    pub max_entries: u32,
}

impl Attached {
    /// Further descriptors of the maps that were not taken yet. One that cannot be described is left out.
    pub fn map_files(&self) -> Vec<MapFile> {
        let file = |(name, map): (&str, &Map)| {
            let data = data(map)?;
            let info = data.info().ok()?;
            let fd = data.fd().as_fd().try_clone_to_owned().ok()?;
            let (key_size, max_entries) = (info.key_size(), info.max_entries());
            Some(MapFile { name: name.to_owned(), fd, key_size, max_entries })
        };
        let adopted = self.adopted.iter().filter_map(|(name, adopted)| match adopted {
            Adopted::Map(map) => Some((name.as_str(), &**map)),
            Adopted::Held(_) => None,
        });
        self.ebpf.iter().flat_map(Ebpf::maps).chain(adopted).filter_map(file).collect()
    }
}

/// What all kinds of maps have that the programs use.
const fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}
