//! `ringfence top` on a real pseudo-terminal: what it draws, what keys and sizes do, and how it leaves the terminal.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tests::harness::{Daemon, PATIENCE, Settings};

use crate::docs::{daemon, demo, end, ringfence};

/// A terminal with a program on it.
struct Terminal {
    master: File,
    /// Held open, so that its settings can be read after the program's end.
    slave: File,
    screen: Arc<Mutex<vt100::Parser>>,
    child: Child,
    before: libc::termios,
}

fn settings_of(file: &File) -> Result<libc::termios, String> {
    // SAFETY: all bits zero is a termios, and the kernel fills the one that is given.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        match libc::tcgetattr(file.as_raw_fd(), &raw mut settings) {
            0 => Ok(settings),
            _ => Err(format!("tcgetattr: {}", io::Error::last_os_error())),
        }
    }
}

impl Terminal {
    fn start(settings: &Settings, daemon: &Daemon, rows: u16, columns: u16) -> Result<Terminal, String> {
        let (mut master, mut slave) = (-1, -1);
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: both numbers and the size are ours for the time of the call; no name and no settings are given.
        let opened = unsafe {
            libc::openpty(
                &raw mut master,
                &raw mut slave,
                std::ptr::null_mut(),
                std::ptr::null(),
                &raw const size,
            )
        };
        if opened != 0 {
            return Err(format!("openpty: {}", io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just made them, and nobody else has them.
        let (master, slave) =
            unsafe { (File::from(OwnedFd::from_raw_fd(master)), File::from(OwnedFd::from_raw_fd(slave))) };
        let before = settings_of(&slave)?;
        let end = || slave.try_clone().map(Stdio::from).map_err(|error| error.to_string());
        let mut command = ringfence(settings, daemon, &["top"]);
        command.stdin(end()?).stdout(end()?).stderr(end()?).env("TERM", "xterm-256color");
        let child = command.spawn().map_err(|error| error.to_string())?;
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (theirs, mut reader) = (screen.clone(), master.try_clone().map_err(|error| error.to_string())?);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of the terminal is an error here.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                let bytes = bytes.get(..count).unwrap_or_default();
                theirs.lock().unwrap_or_else(PoisonError::into_inner).process(bytes);
            }
        });
        Ok(Terminal { master, slave, screen, child, before })
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen().contents()
    }

    fn shows(&self, what: &str, is: impl Fn(&str) -> bool) -> Result<String, String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            if is(&text) {
                return Ok(text);
            }
            if Instant::now() > end {
                return Err(format!("the terminal does not show {what}:\n{text}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn press(&mut self, keys: &[u8]) -> Result<(), String> {
        self.master.write_all(keys).map_err(|error| error.to_string())
    }

    /// Whether the table is sorted by this column, whose title is underlined then.
    fn is_sorted_by(&self, title: &str) -> bool {
        let held = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        let screen = held.screen();
        let (rows, columns) = screen.size();
        (0..rows).any(|row| {
            let text: String = (0..columns)
                .map(|column| {
                    screen.cell(row, column).map_or(' ', |cell| cell.contents().chars().next().unwrap_or(' '))
                })
                .collect();
            text.find(title).is_some_and(|at| screen.cell(row, at as u16).is_some_and(vt100::Cell::underline))
        })
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<(), String> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen_mut().set_size(rows, columns);
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the terminal is open, and the size is ours for the time of the call.
        let set = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        // It is not the program's controlling terminal, so the kernel sends no signal by itself.
        if set == 0 {
            self.signal(libc::SIGWINCH)
        } else {
            Err(format!("TIOCSWINSZ: {}", io::Error::last_os_error()))
        }
    }

    fn signal(&self, signal: i32) -> Result<(), String> {
        // SAFETY: the process is our child and not yet waited for, so the id is still its own.
        match unsafe { libc::kill(self.child.id() as i32, signal) } {
            0 => Ok(()),
            _ => Err(format!("kill: {}", io::Error::last_os_error())),
        }
    }

    /// The program has ended with this code, and the terminal is as it was.
    fn ended(mut self, code: i32) -> Result<(), String> {
        let status = end(&mut self.child)?;
        let after = settings_of(&self.slave)?;
        let flags = |t: &libc::termios| (t.c_iflag, t.c_oflag, t.c_cflag, t.c_lflag);
        if status.code() != Some(code) {
            return Err(format!("top ended with {status} instead of {code}:\n{}", self.text()));
        }
        if flags(&after) != flags(&self.before) {
            return Err("the terminal is not as it was before".to_owned());
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
            let (other, hidden) = (screen.screen().alternate_screen(), screen.screen().hide_cursor());
            drop(screen);
            if !other && !hidden {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("left on the second screen: {other}; without a cursor: {hidden}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Drawn in 80 columns and 24 rows, sorted, opened, resized; left by a key, by a signal, and after the daemon's end.
pub(crate) fn top(settings: &Settings) -> Result<(), String> {
    let daemon = daemon(settings)?;
    demo(settings)?;
    let mut terminal = Terminal::start(settings, &daemon, 24, 80)?;
    let whole = |text: &str| text.contains("CONTAINER") && text.contains("q: end") && text.contains("MiB");
    let text = terminal.shows("a table", whole)?;
    if text.lines().count() > 24 || text.lines().any(|line| line.chars().count() > 80) {
        return Err(format!("it does not fit:\n{text}"));
    }
    // The demonstration's cgroup is known for a minute.
    let demo_row = |text: &str| text.lines().any(|line| line.starts_with(&tests::cgroup::DEMO_ID[..12]));
    terminal.shows("the demonstration's container", demo_row)?;
    terminal.press(b"?")?;
    terminal.shows("the help", |text| text.contains("any key leaves"))?;
    terminal.press(b"x")?;
    terminal.shows("the table again", |text| whole(text) && !text.contains("any key leaves"))?;
    terminal.press(b"r")?;
    // Before it is, rows are where they do not stay.
    terminal.shows("a table by refusals", |_| terminal.is_sorted_by("REFUSED"))?;
    terminal.press(b"\x1b[H")?;
    // The demonstration has refusals, and nothing else here need have: it is the first.
    terminal.resize(40, 120)?;
    let text = terminal.shows("40 rows", |text| text.lines().count() > 30 && whole(text))?;
    if text.lines().any(|line| line.chars().count() > 120) {
        return Err(format!("it does not fit:\n{text}"));
    }
    for _ in 0..text.lines().position(|line| line.starts_with(&tests::cgroup::DEMO_ID[..12])).unwrap_or(3) - 3
    {
        terminal.press(b"j")?;
    }
    terminal.press(b"\r")?;
    let detail = |text: &str| text.contains(tests::cgroup::DEMO_ID) && text.contains("refused by");
    let text = terminal.shows("calls of the container", detail)?;
    for part in ["OUTCOME", "RULE", "iopl", "unshare"] {
        if !text.contains(part) {
            return Err(format!("the container's page lacks {part}:\n{text}"));
        }
    }
    terminal.press(b"\x1b")?;
    terminal.shows("the table again", whole)?;
    terminal.resize(10, 40)?;
    terminal.shows("a small table", |text| text.lines().count() <= 10 && text.contains("CONTAINER"))?;
    terminal.press(b"q")?;
    terminal.ended(0)?;
    for (signal, code) in [(libc::SIGTERM, 143), (libc::SIGHUP, 129), (libc::SIGINT, 130)] {
        let terminal = Terminal::start(settings, &daemon, 24, 80)?;
        terminal.shows("a table", whole)?;
        terminal.signal(signal)?;
        terminal.ended(code)?;
    }
    let mut last = Terminal::start(settings, &daemon, 24, 80)?;
    last.shows("a table", whole)?;
    daemon.stop()?.check()?;
    last.shows("that nobody answers", |text| text.contains("no daemon answers"))?;
    last.press(b"\x03")?;
    last.ended(0)
}
