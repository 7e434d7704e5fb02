//! Races on the clock and on devices: settimeofday, clock_settime, the opens.

use std::ffi::CString;
use std::io;

use monitor_common::caps::Cap;

use super::{EPERM, Facts, against, call64, poke};
use crate::attempt::prep;
use crate::attempt::raw::{Arena, clock_ns};

/// Microseconds that no second has, against a valid time without CAP_SYS_TIME. A time zone that does not exist
/// comes along, so that the kernel would refuse the call even to a caller with the capability.
pub(super) fn settimeofday(count: u64, facts: &mut Facts) -> io::Result<()> {
    let (own, raced) = (Arena::new()?, Arena::new()?);
    prep::without(&own, &[Cap::SysTime]);
    let time = raced.put_u64s(0, &[1, 0]);
    let no_zone = raced.put_u32s(64, &[i32::MAX as u32, 0]);
    let rewrite = |turn: u64| poke(time + 8, if turn & 1 == 1 { 2_000_000_000_u64 } else { 0 });
    against(rewrite, || {
        (0..count).try_for_each(|_| match call64(libc::SYS_settimeofday, [time, no_zone, 0, 0, 0, 0]) {
            EPERM => facts.push(format_args!("-1 refused capability denied=CAP_SYS_TIME claimed=true")),
            ret => facts.push(format_args!("{ret} failed <NA> denied=<NA> claimed=true")),
        })
    })
}

/// Nanoseconds that no second has, against the time at which the race began.
pub(super) fn clock_settime(count: u64, facts: &mut Facts) -> io::Result<()> {
    let raced = Arena::new()?;
    let clock = libc::CLOCK_REALTIME as u64;
    let time = raced.put_u64s(0, &[clock_ns(libc::CLOCK_REALTIME) / 1_000_000_000, 0]);
    let rewrite = |turn: u64| poke(time + 8, if turn & 1 == 1 { 2_000_000_000_u64 } else { 0 });
    against(rewrite, || {
        (0..count).try_for_each(|_| match call64(libc::SYS_clock_settime, [clock, time, 0, 0, 0, 0]) {
            0 => facts.push(format_args!("0 allowed <NA> used=CAP_SYS_TIME claimed=true")),
            ret => facts.push(format_args!("{ret} failed <NA> used=<NA> claimed=true")),
        })
    })
}

/// Two nodes under one directory, one of the kernel log's number and one of the null device's.
struct Nodes {
    dir: String,
}

impl Nodes {
    fn make() -> io::Result<Nodes> {
        let nodes = Nodes { dir: prep::temp_name("race") };
        std::fs::create_dir(&nodes.dir)?;
        prep::make_node(&nodes.path('a'), 1, 3);
        prep::make_node(&nodes.path('b'), 1, 11);
        Ok(nodes)
    }

    fn path(&self, which: char) -> String {
        format!("{}/node-{which}", self.dir)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // It is a temporary directory; what cannot be removed harms nobody.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Path, flags and file handle change in memory, and the two names change places in the directory.
pub(super) fn open(count: u64, facts: &mut Facts) -> io::Result<()> {
    /// Where the last letter of the path, the handle and the flags of openat2 stand.
    const HANDLE: usize = 512;
    const HOW: usize = 1024;
    const FLAGS: u64 = (libc::O_RDONLY | libc::O_NONBLOCK) as u64;
    let (own, raced) = (Arena::new()?, Arena::new()?);
    let nodes = Nodes::make()?;
    let (null, kmsg) = (nodes.path('a'), nodes.path('b'));
    let handles = [handle_of(&own, &null), handle_of(&own, &kmsg)];
    let path = raced.put_path(0, &null);
    let letter = path + null.len() as u64 - 1;
    let handle = raced.put(HANDLE, &handles[0]);
    let how = raced.put_u64s(HOW, &[FLAGS, 0, 0]);
    let dir = prep::open_fd(&nodes.dir) as u64;
    let names = [CString::new(null)?, CString::new(kmsg)?];
    let rewrite = |turn: u64| {
        let odd = (turn & 1) as usize;
        poke(letter, [b'a', b'b'][odd]);
        poke(how, if turn & 2 == 0 { FLAGS } else { FLAGS | libc::O_PATH as u64 });
        for (i, byte) in handles[odd].iter().enumerate() {
            poke(handle + i as u64, *byte);
        }
        if turn.is_multiple_of(16) {
            // SAFETY: both are strings that end in NUL.
            unsafe {
                libc::renameat2(
                    libc::AT_FDCWD,
                    names[0].as_ptr(),
                    libc::AT_FDCWD,
                    names[1].as_ptr(),
                    libc::RENAME_EXCHANGE,
                )
            };
        }
    };
    let here = libc::AT_FDCWD as u64;
    against(rewrite, || {
        (0..count).try_for_each(|i| {
            let (name, ret) = match i % 3 {
                0 => ("openat", call64(libc::SYS_openat, [here, path, FLAGS, 0, 0, 0])),
                1 => ("openat2", call64(libc::SYS_openat2, [here, path, how, 24, 0, 0])),
                _ => {
                    ("open_by_handle_at", call64(libc::SYS_open_by_handle_at, [dir, handle, FLAGS, 0, 0, 0]))
                }
            };
            // A torn handle leads nowhere, and what was not opened touched no wall.
            if ret < 0 {
                return Ok(());
            }
            let watched = is_open_kmsg(ret as i32);
            // SAFETY: the descriptor that was just opened.
            unsafe { libc::close(ret as i32) };
            let claimed = name != "open_by_handle_at";
            if watched? {
                facts.push(format_args!("{name} {ret} device=kmsg by=kernel claimed={claimed}"))?;
            }
            Ok(())
        })
    })
}

/// True if the descriptor leads to the kernel log's device; one of `O_PATH` leads to no device.
fn is_open_kmsg(fd: i32) -> io::Result<bool> {
    // SAFETY: zeroes are a `stat`; the kernel fills it.
    let (stat, flags) = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &mut stat) != 0 {
            return Err(io::Error::last_os_error());
        }
        (stat, libc::fcntl(fd, libc::F_GETFL))
    };
    Ok(stat.st_rdev == libc::makedev(1, 11) && flags & libc::O_PATH == 0)
}

/// The handle of a file, all of its bytes.
fn handle_of(arena: &Arena, path: &str) -> Vec<u8> {
    /// Room behind the two words at the start (`MAX_HANDLE_SZ`).
    const ROOM: u32 = 128;
    let path = arena.put_path(2048, path);
    let handle = arena.put_u32s(4096, &[ROOM, 0]);
    let mount = arena.put_u32s(8192, &[0]);
    call64(libc::SYS_name_to_handle_at, [libc::AT_FDCWD as u64, path, handle, mount, 0, 0]);
    arena.bytes(4096, 8 + ROOM as usize)
}
