//! What the kernel tells about our programs and links in `/proc/self/fdinfo`: is a link still there and attached,
//! how often was a program skipped. No privilege is needed, and no descriptor is opened.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::path::PathBuf;

/// The descriptor of a loaded program, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramFile {
    fd: u32,
    id: u32,
}

/// The descriptor of a link, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkFile {
    fd: u32,
    id: u32,
}

/// Our programs and links, by the program's id.
#[derive(Debug, Default)]
pub struct BpfFiles {
    programs: HashMap<u32, ProgramFile>,
    links: HashMap<u32, LinkFile>,
}

impl BpfFiles {
    /// Looks at all descriptors of this process.
    pub fn read() -> Self {
        let mut files = BpfFiles::default();
        for entry in fs::read_dir("/proc/self/fdinfo").into_iter().flatten().flatten() {
            let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Some(text) = info(fd) else { continue };
            let Some(program) = value(&text, "prog_id") else { continue };
            // A link shows the id of its program besides its own.
            match value(&text, "link_id") {
                Some(id) => drop(files.links.insert(program as u32, LinkFile { fd, id: id as u32 })),
                None => drop(files.programs.insert(program as u32, ProgramFile { fd, id: program as u32 })),
            }
        }
        files
    }

    /// The descriptor of a program.
    pub fn program(&self, id: u32) -> Option<ProgramFile> {
        self.programs.get(&id).copied()
    }

    /// The link that holds a program on its hook.
    pub fn link(&self, program: u32) -> Option<LinkFile> {
        self.links.get(&program).copied()
    }
}

/// The id of the program behind a descriptor; `None` if it is something else.
pub fn program_of(fd: BorrowedFd<'_>) -> Option<u32> {
    let text = info(fd.as_raw_fd() as u32)?;
    if value(&text, "link_id").is_some() { None } else { value(&text, "prog_id").map(|id| id as u32) }
}

/// The id of the program that the link behind a descriptor holds on its hook; `None` if it is no link, or holds nothing
/// any more.
pub fn attached_by(fd: BorrowedFd<'_>) -> Option<u32> {
    let fd = fd.as_raw_fd() as u32;
    let text = info(fd)?;
    let link = LinkFile { fd, id: value(&text, "link_id")? as u32 };
    link.is_attached().then(|| value(&text, "prog_id").map(|id| id as u32))?
}

/// What the kernel counted of a program since it was loaded (`bpf_prog_show_fdinfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramCounts {
    /// How often it was skipped because it was under way on that CPU already (since 5.12).
    pub recursion_misses: u64,
    /// Runs while statistics were on (since 5.1).
    pub runs: u64,
    /// Nanoseconds that these took.
    pub run_ns: u64,
    /// Bytes of memory that it takes.
    pub memory: u64,
}

impl ProgramFile {
    /// The descriptor's number.
    pub fn number(self) -> u32 {
        self.fd
    }

    /// What the kernel counted; `None` if the descriptor is no longer the program's.
    pub fn counts(self) -> Option<ProgramCounts> {
        let text = info(self.fd)?;
        (value(&text, "prog_id") == Some(self.id.into())).then(|| counts(&text))
    }
}

/// What older kernels do not tell counts as nothing.
fn counts(text: &str) -> ProgramCounts {
    let value = |key| value(text, key).unwrap_or(0);
    ProgramCounts {
        recursion_misses: value("recursion_misses"),
        runs: value("run_cnt"),
        run_ns: value("run_time_ns"),
        memory: value("memlock"),
    }
}

/// Bytes of memory that the map of this descriptor takes. Exact since 6.4 (`bpf_map_memory_usage`); before, by the size
/// and number of its entries.
pub fn memory_of(map: RawFd) -> Option<u64> {
    value(&info(u32::try_from(map).ok()?)?, "memlock")
}

impl LinkFile {
    /// The descriptor's number.
    pub fn number(self) -> u32 {
        self.fd
    }

    /// False if the link is gone, or holds on to no cgroup any more (`BPF_LINK_DETACH`, since 5.9).
    pub fn is_attached(self) -> bool {
        info(self.fd).is_some_and(|text| {
            value(&text, "link_id") == Some(self.id.into()) && value(&text, "cgroup_id") != Some(0)
        })
    }
}

fn info(fd: u32) -> Option<String> {
    fs::read_to_string(PathBuf::from(format!("/proc/self/fdinfo/{fd}"))).ok()
}

/// The number behind `key:`.
fn value(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_by_their_whole_key() {
        let text = "pos:\t0\nlink_type:\tcgroup\nlink_id:\t5\nprog_id:\t31\ncgroup_id:\t0\n";
        assert_eq!(value(text, "link_id"), Some(5));
        assert_eq!(value(text, "cgroup_id"), Some(0));
        assert_eq!(value(text, "id"), None);
        assert_eq!(value(text, "link_type"), None);
    }

    #[test]
    fn a_programs_counts_are_read() {
        let text = "prog_type:\t17\nmemlock:\t8192\nprog_id:\t31\nrun_time_ns:\t1200\nrun_cnt:\t3\n";
        let read = counts(text);
        assert_eq!(read, ProgramCounts { recursion_misses: 0, runs: 3, run_ns: 1200, memory: 8192 });
    }

    #[test]
    fn an_ordinary_descriptor_is_no_link() {
        assert!(!LinkFile { fd: 0, id: 1 }.is_attached());
        assert_eq!(ProgramFile { fd: u32::MAX, id: 1 }.counts(), None);
        assert_eq!((memory_of(0), memory_of(-1)), (None, None));
    }
}
