//! What a process runs: replaced as a whole by an exec, shared by every process that was forked since.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::decode::RawExec;
use crate::text::escape;

/// What stands behind a command line of which a part is missing.
const CUT: &str = "...";

/// What a process runs, and where and at which terminal it was started. Texts are escaped.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Path of the executable; empty if unknown.
    pub exe: Box<str>,
    /// Inode of the executable; 0 if unknown.
    pub exe_ino: u64,
    /// Device of its file system, `major << 20 | minor`; 0 if unknown.
    pub exe_dev: u32,
    /// The executable has a file of its own in an overlayfs's upper layer; `None` where nobody saw the exec.
    pub upper_layer: Option<bool>,
    /// The executable is a memfd; `None` if unknown.
    pub memfd: Option<bool>,
    /// The command line; `None` if it could not be read.
    pub arguments: Option<Arguments>,
    /// Working directory at the exec; empty if unknown.
    pub cwd: Box<str>,
    /// Controlling terminal at the exec as proc(5) shows it (`new_encode_dev`), 0 without one; `None` if unknown.
    pub tty: Option<u32>,
    #[expect(dead_code, reason = "it acts when it is dropped")]
    pub(super) held: Held,
}

impl Program {
    /// Bytes of its texts.
    pub(super) fn text_bytes(&self) -> usize {
        let arguments = self.arguments.as_ref().map_or(0, |line| line.first.len() + line.rest.len());
        self.exe.len() + self.cwd.len() + arguments
    }

    /// The same without its texts, which are unknown from now on.
    pub(super) fn without_texts(self) -> Self {
        Program { exe: Box::default(), cwd: Box::default(), arguments: None, ..self }
    }
}

/// A share in the sum of the texts that are held: taken when the program is remembered, given back when the last one
/// who remembers it forgets it.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: usize,
    sum: Option<Arc<AtomicUsize>>,
}

impl Held {
    pub(super) fn new(bytes: usize, sum: &Arc<AtomicUsize>) -> Self {
        sum.fetch_add(bytes, Ordering::Relaxed);
        Held { bytes, sum: Some(Arc::clone(sum)) }
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        self.sum.as_ref().map_or_else(Held::default, |sum| Held::new(self.bytes, sum))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(sum) = &self.sum {
            sum.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// A command line as the exec was given it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// The first argument, by custom the program's name as it was called.
    pub first: Box<str>,
    /// The others, joined by blanks. It ends with `...` if some were left out.
    pub rest: Box<str>,
}

impl Arguments {
    /// Takes a command line apart whose arguments end with a NUL each. The whole one has `total` bytes; `None` if
    /// nothing of it is there.
    pub fn parse(bytes: &[u8], total: usize) -> Option<Self> {
        let cut = bytes.len() < total;
        if bytes.is_empty() && cut {
            return None;
        }
        let whole = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        let mut arguments = whole.split(|byte| *byte == 0);
        let first = escape(arguments.next().unwrap_or_default());
        let mut rest = String::with_capacity(whole.len() - first.len().min(whole.len()));
        for (i, argument) in arguments.enumerate() {
            if i > 0 {
                rest.push(' ');
            }
            rest.push_str(&escape(argument));
        }
        if cut {
            rest.push_str(CUT);
        }
        Some(Arguments { first: first.into(), rest: rest.into() })
    }
}

/// A device number as proc(5) and stat(2) show it, from the kernel's own `major << 20 | minor`
/// (`new_encode_dev`, include/linux/kdev_t.h).
const fn encode_dev(dev: u32) -> u32 {
    let (major, minor) = (dev >> 20, dev & 0xf_ffff);
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

impl From<&RawExec<'_>> for Program {
    fn from(exec: &RawExec<'_>) -> Self {
        Program {
            exe: escape(&exec.path()).into(),
            exe_ino: exec.exe_ino,
            exe_dev: exec.exe_dev,
            upper_layer: Some(exec.upper_layer),
            memfd: Some(exec.memfd),
            arguments: Arguments::parse(exec.args, exec.args_total as usize),
            cwd: escape(&exec.cwd()).into(),
            tty: Some(encode_dev(exec.tty)),
            held: Held::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8], total: usize) -> Option<(String, String)> {
        let arguments = Arguments::parse(bytes, total)?;
        Some((arguments.first.into(), arguments.rest.into()))
    }

    #[test]
    fn a_command_line_is_taken_apart() {
        let both = |first: &str, rest: &str| Some((first.to_owned(), rest.to_owned()));
        assert_eq!(parsed(b"sh\0-c\0a b\0", 10), both("sh", "-c a b"));
        assert_eq!(parsed(b"sh\0", 3), both("sh", ""));
        // An empty argument is one too.
        assert_eq!(parsed(b"sh\0\0x\0", 6), both("sh", " x"));
        assert_eq!(parsed(b"\0", 1), both("", ""));
        assert_eq!(parsed(b"a\0\xff\\\0", 5), both("a", "\\xff\\\\"));
    }

    #[test]
    fn what_was_left_out_is_marked_and_what_could_not_be_read_is_absent() {
        assert_eq!(parsed(b"sh\0-c\0lon", 4000), Some(("sh".to_owned(), "-c lon...".to_owned())));
        assert_eq!(parsed(b"verylo", 4000), Some(("verylo".to_owned(), "...".to_owned())));
        assert_eq!(parsed(b"", 4000), None);
        // Before 5.18 a program could be given no argument at all.
        assert_eq!(parsed(b"", 0), Some((String::new(), String::new())));
    }

    #[test]
    fn terminals_have_the_numbers_that_people_know() {
        assert_eq!(encode_dev(0), 0);
        assert_eq!(encode_dev(136 << 20), 34816, "/dev/pts/0");
        assert_eq!(encode_dev(4 << 20 | 1), 1025, "/dev/tty1");
        assert_eq!(encode_dev(136 << 20 | 0x12345), 0x1230_0000 | 136 << 8 | 0x45);
    }

    #[test]
    fn an_exec_becomes_a_program() {
        let exec = RawExec {
            exe_ino: 5,
            exe_dev: 6,
            upper_layer: true,
            tty: 136 << 20 | 2,
            components: b"sh\0bin\0",
            cwd_components: b"x\\\0",
            args: b"sh\0-l\0",
            args_total: 6,
            ..RawExec::default()
        };
        let program = Program::from(&exec);
        assert_eq!((&*program.exe, &*program.cwd, program.tty), ("/bin/sh", "/x\\\\", Some(34818)));
        assert_eq!((program.upper_layer, program.memfd), (Some(true), Some(false)));
        assert_eq!(program.arguments, Some(Arguments { first: "sh".into(), rest: "-l".into() }));
    }
}
