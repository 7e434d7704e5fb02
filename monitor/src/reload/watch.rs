//! The watch over rule files, by inotify.
//!
//! The crates that wrap inotify (`notify`) watch what a link leads to, not the link, so the way to a file has to be
//! watched part by part in any case ([`super::places`]); what is left is three system calls, which rustix has.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest as Readiness;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout_at};

use super::debounce::Debounce;
use super::places::{Place, is_rule_file, visit};

/// Watches that are had at a time; the kernel's default bound for a user is some thousands.
const MOST: usize = 1024;
/// From one look at what changed to the next: a directory such as `/tmp` changes all the time.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes of changes that are read at once.
const BUFFER: usize = 4096;

/// Names that come to a directory, go, or are replaced.
const IN_DIRECTORY: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::MASK_ADD);
/// What happens to a file, under whichever of its names.
const TO_FILE: WatchFlags =
    WatchFlags::MODIFY.union(WatchFlags::CLOSE_WRITE).union(WatchFlags::ATTRIB).union(WatchFlags::MASK_ADD);

/// What counts of the changes at one inode.
#[derive(Debug, Default)]
struct Interest {
    names: HashSet<OsString>,
    /// Every name that rule files have.
    rule_files: bool,
    /// Changes of the file itself.
    itself: bool,
}

/// What is watched, by the kernel's number of the watch.
#[derive(Debug, Default)]
pub(super) struct Watched {
    by_number: HashMap<i32, Interest>,
    /// Why something is not watched.
    fault: Option<String>,
}

/// Tells when rule files may have changed.
#[derive(Debug)]
pub(super) struct Watcher {
    notifier: AsyncFd<Arc<OwnedFd>>,
    watched: Watched,
    debounce: Debounce,
}

impl Watcher {
    /// Watches everything that decides what the rule files at these paths are. Needs a runtime of tokio.
    ///
    /// # Errors
    /// The kernel has no room for another notifier.
    pub(super) fn start(paths: &[PathBuf]) -> io::Result<Self> {
        let notifier = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let watched = lay(&notifier, paths);
        // SAFETY: the descriptor belongs to the `Arc`, which is never exchanged.
        let notifier = unsafe { AsyncFd::register_with_interest(Arc::new(notifier), Readiness::READABLE) }?;
        Ok(Watcher { notifier, watched, debounce: Debounce::default() })
    }

    /// Why something is not watched.
    pub(super) fn fault(&self) -> Option<&str> {
        self.watched.fault.as_deref()
    }

    /// Waits until something changed and is at rest, or has been changing for long. May be dropped and called anew.
    ///
    /// # Errors
    /// The kernel does not let the changes be read.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        loop {
            let readable = self.notifier.readable();
            let mut guard = match self.debounce.due() {
                None => readable.await?,
                Some(due) => match timeout_at(due.into(), readable).await {
                    Ok(guard) => guard?,
                    Err(_) => return Ok(()),
                },
            };
            guard.clear_ready();
            drop(guard);
            self.take()?;
            sleep(PAUSE).await;
            if self.debounce.due().is_some_and(|due| due <= Instant::now()) {
                return Ok(());
            }
        }
    }

    /// Forgets all changes so far: whoever calls it reads the files next.
    ///
    /// # Errors
    /// As [`Watcher::changed`].
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.take()?;
        self.debounce.clear();
        Ok(())
    }

    /// The notifier, for [`lay`].
    pub(super) fn notifier(&self) -> Arc<OwnedFd> {
        Arc::clone(self.notifier.get_ref())
    }

    /// Goes over to what [`lay`] made.
    pub(super) fn set(&mut self, watched: Watched) {
        for number in self.watched.by_number.keys().filter(|number| !watched.by_number.contains_key(number)) {
            // It may be gone with what it watched.
            let _ = inotify::remove_watch(self.notifier.get_ref(), *number);
        }
        self.watched = watched;
    }

    /// Takes what changed out of the kernel's queue.
    fn take(&mut self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let notifier = self.notifier();
        let mut changes = inotify::Reader::new(notifier.as_fd(), &mut buffer);
        loop {
            match changes.next() {
                Ok(change) => {
                    let name = change.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    if self.watched.counts(change.wd(), change.events(), name) {
                        self.debounce.changed(Instant::now());
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Watched {
    /// Whether a change may be one of rule files.
    fn counts(&self, number: i32, events: ReadFlags, name: Option<&OsStr>) -> bool {
        // Changes were lost, or a file system is gone.
        if events.intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::UNMOUNT) {
            return true;
        }
        // What follows is known from the directory above.
        let Some(interest) = self.by_number.get(&number).filter(|_| !events.contains(ReadFlags::IGNORED))
        else {
            return false;
        };
        match name {
            Some(name) => interest.names.contains(name) || (interest.rule_files && is_rule_file(name)),
            None => interest.itself || interest.rule_files,
        }
    }
}

/// Watches the places that count now, besides those that did before. Looks at files, so it may take its time.
pub(super) fn lay(notifier: &OwnedFd, paths: &[PathBuf]) -> Watched {
    let mut watched = Watched::default();
    visit(paths, &mut |place| watched.add(notifier, place));
    watched
}

impl Watched {
    fn add(&mut self, notifier: &OwnedFd, place: Place) {
        let (path, flags): (&Path, _) = match &place {
            Place::Name(at, _) | Place::Names(at) => (at, IN_DIRECTORY),
            Place::File(file) => (file, TO_FILE),
        };
        if self.by_number.len() >= MOST {
            self.fault.get_or_insert_with(|| format!("more than {MOST} places would have to be watched"));
            return;
        }
        let interest = match inotify::add_watch(notifier, path, flags) {
            Ok(number) => self.by_number.entry(number).or_default(),
            // It went, or turned into something else: the directory above tells of it.
            Err(Errno::NOENT | Errno::NOTDIR) => return,
            Err(error) => {
                let remedy = match error {
                    Errno::NOSPC => " (`sysctl fs.inotify.max_user_watches` is the bound)",
                    _ => "",
                };
                self.fault.get_or_insert_with(|| format!("{}: {error}{remedy}", path.display()));
                return;
            }
        };
        match place {
            Place::Name(_, name) => {
                interest.names.insert(name);
            }
            Place::Names(_) => interest.rule_files = true,
            Place::File(_) => interest.itself = true,
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
