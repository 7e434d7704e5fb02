//! Races: calls whose arguments a second thread rewrites while the kernel reads them.
//!
//! For each call the racer asks the kernel itself what it did (the capabilities or namespaces that the thread now
//! has, the file that is open) and prints a line: the event that must come, exactly as [`Race::output`] renders
//! it. Behind a `#` the event shows what stood in user memory; the racer does not know it, nobody can.

mod others;
mod privilege;
mod table;

use std::ffi::CString;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use monitor_common::call::Abi;
use monitor_common::caps::Cap;

use super::raw::call;
pub use table::RACES;

/// One race.
#[derive(Clone, Copy, Debug)]
pub struct Race {
    /// Its name on the command line, and that of its threads: at most 15 bytes.
    pub name: &'static str,
    /// Selects the events, as part of a rule's condition.
    pub condition: &'static str,
    /// The rule's output. What stands before the `#` is fact, what stands behind it is claimed.
    pub output: &'static str,
    /// Each stands in some of the facts: otherwise nothing was raced.
    pub outcomes: &'static [&'static str],
    /// Whether an event shows that user memory held something else than what the kernel took from it.
    pub lies: fn(fact: &str, claim: &str) -> bool,
    /// Sets the clock: made in guests only.
    pub guest_only: bool,
    /// Each call makes a process, which takes about a hundred times as long as the others.
    pub makes_processes: bool,
    /// Makes so many calls.
    run: fn(u64, &mut Facts) -> io::Result<()>,
}

/// The race with this name.
pub fn by_name(name: &str) -> Option<&'static Race> {
    RACES.iter().find(|race| race.name == name)
}

/// Where facts are written: to a pipe, which holds the racer up when nobody compares them.
#[derive(Debug)]
pub struct Facts(io::BufWriter<io::Stdout>);

impl Facts {
    fn push(&mut self, fact: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.0.write_fmt(fact)?;
        self.0.write_all(b"\n")
    }
}

/// Makes the race's calls and prints a fact for each event that must come of them.
///
/// # Errors
/// The kernel's, from preparing the race; a text if it sets the clock and this is no guest of the suite.
pub fn run(race: &Race, count: u64) -> io::Result<()> {
    if race.guest_only && !super::is_own_guest() {
        return Err(io::Error::other(format!("{} sets the clock; it is made only in guests", race.name)));
    }
    // By this name the suite's rules know the race's events. Names have at most 15 bytes.
    let name = CString::new(race.name)?;
    // SAFETY: a string that ends in NUL; the kernel copies it.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    let mut facts = Facts(io::BufWriter::with_capacity(16 << 10, io::stdout()));
    (race.run)(count, &mut facts)?;
    facts.0.flush()
}

/// Runs `calls` while another thread runs `rewrite` over and over with a growing number.
fn against(rewrite: impl Fn(u64) + Send + Sync, calls: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                rewrite(turn);
                turn += 1;
            }
        });
        let done = calls();
        stop.store(true, Ordering::Relaxed);
        done
    })
}

/// The two capabilities that a race plays with.
const BOTH: u64 = Cap::Chown.mask() | Cap::Kill.mask();
const NEW_UTS: u64 = libc::CLONE_NEWUTS as u64;
const NEW_USER: u64 = libc::CLONE_NEWUSER as u64;
const EPERM: i64 = -(libc::EPERM as i64);

/// Overwrites a word that another thread may be reading.
fn poke<T>(address: u64, value: T) {
    // SAFETY: every address here is that of an aligned word in an arena that lives until both threads are done.
    unsafe { (address as *mut T).write_volatile(value) };
}

/// A call through the 64-bit table whose effect the race is about.
fn call64(nr: libc::c_long, args: [u64; 6]) -> i64 {
    // SAFETY: pointers lead into arenas; the effects are limited to this process, see each race.
    unsafe { call(Abi::X86_64, nr as u32, args) }
}
