//! A real 32-bit program: static, without a C library, made here byte by byte.
//!
//! `int 0x80` from a 64-bit program reaches the 32-bit table, but the process stays a 64-bit one. A program
//! of 32 bits has other code segments, another personality, and addresses below 4 GiB only. This one maps the
//! arena of the attempt that starts it, makes the call that stands there, and leaves what the kernel answered.
//! So every row of the attempts' table runs through it without knowing.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::raw::{Arena, REQUEST, SCRATCH};
use super::{prep, wait};

// The program's code. The arena is its standard input. Layout of the request (words of 32 bits):
// base, size, number, six arguments, kind (0; 1: makes children; 2: opens; 3, 4: the kernel writes into the structure
// that the first or second argument points to), count, answer, odd answers, process, thread, done.
std::arch::global_asm!(
    ".pushsection .rodata.ringfence_elf32,\"a\",@progbits",
    ".code32",
    ".globl ringfence_elf32_begin",
    "ringfence_elf32_begin:",
    "sub esp, 80 + {written}",
    // pread64(0, esp, 64, REQUEST)
    "mov eax, 180",
    "xor ebx, ebx",
    "mov ecx, esp",
    "mov edx, 64",
    "mov esi, {request}",
    "xor edi, edi",
    "int 0x80",
    "cmp eax, 64",
    "jne 90f",
    // mmap2(base, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, 0, 0)
    "mov eax, 192",
    "mov ebx, [esp]",
    "mov ecx, [esp + 4]",
    "mov edx, 3",
    "mov esi, 0x11",
    "xor edi, edi",
    "xor ebp, ebp",
    "int 0x80",
    "cmp eax, [esp]",
    "jne 90f",
    // Who opens a file has written its path before; arguments of other calls stand in memory that was never touched.
    "cmp dword ptr [esp + 36], 2",
    "jne 10f",
    "mov eax, [esp]",
    "mov eax, [eax + {scratch}]",
    "10:",
    "mov dword ptr [esp + 64], 0", // calls made
    "15:",
    // What the kernel wrote must not be the next call's argument: of many calls, the first keeps the structure, and
    // the others put it back.
    "cmp dword ptr [esp + 40], 1",
    "je 18f",
    "mov edi, [esp + 12]",
    "cmp dword ptr [esp + 36], 3",
    "je 16f",
    "mov edi, [esp + 16]",
    "cmp dword ptr [esp + 36], 4",
    "jne 18f",
    "16:",
    "lea esi, [esp + 80]",
    "cmp dword ptr [esp + 64], 0",
    "jne 17f",
    "xchg esi, edi",
    "17:",
    "mov ecx, {written} / 4",
    "rep movsd",
    "18:",
    "mov eax, [esp + 8]",
    "mov ebx, [esp + 12]",
    "mov ecx, [esp + 16]",
    "mov edx, [esp + 20]",
    "mov esi, [esp + 24]",
    "mov edi, [esp + 28]",
    "mov ebp, [esp + 32]",
    "int 0x80",
    "mov [esp + 68], eax",
    "cmp dword ptr [esp + 36], 1",
    "je 20f",
    "cmp dword ptr [esp + 36], 2",
    "je 30f",
    "jmp 40f",
    // A child ends at once; its maker waits for it: waitpid(child, NULL, __WALL).
    "20:",
    "test eax, eax",
    "jz 80f",
    "js 40f",
    "mov ebx, eax",
    "mov eax, 7",
    "xor ecx, ecx",
    "mov edx, 0x40000000",
    "int 0x80",
    "jmp 40f",
    // Of many opened files only the last stays open: close(answer).
    "30:",
    "test eax, eax",
    "js 40f",
    "mov ecx, [esp + 64]",
    "inc ecx",
    "cmp ecx, [esp + 40]",
    "je 40f",
    "mov ebx, eax",
    "mov eax, 6",
    "int 0x80",
    // The first answer is kept. A later one is odd if it is another error, or an error where there was none.
    "40:",
    "mov esi, [esp]",
    "mov eax, [esp + 68]",
    "cmp dword ptr [esp + 64], 0",
    "jne 50f",
    "mov [esi + {request} + 44], eax",
    "jmp 60f",
    "50:",
    "mov ecx, [esi + {request} + 44]",
    "cmp eax, ecx",
    "je 60f",
    "test eax, eax",
    "js 55f",
    "test ecx, ecx",
    "jns 60f",
    "55:",
    "inc dword ptr [esi + {request} + 48]",
    "60:",
    "inc dword ptr [esp + 64]",
    "mov eax, [esp + 64]",
    "cmp eax, [esp + 40]",
    "jb 15b",
    // getpid, gettid: in the process's own pid namespace.
    "mov eax, 20",
    "int 0x80",
    "mov [esi + {request} + 52], eax",
    "mov eax, 224",
    "int 0x80",
    "mov [esi + {request} + 56], eax",
    "mov dword ptr [esi + {request} + 60], 1",
    "80:",
    "mov eax, 1",
    "xor ebx, ebx",
    "int 0x80",
    "90:",
    "mov eax, 1",
    "mov ebx, 4",
    "int 0x80",
    ".globl ringfence_elf32_end",
    "ringfence_elf32_end:",
    ".code64",
    ".popsection",
    request = const REQUEST,
    scratch = const SCRATCH,
    written = const WRITTEN,
);

/// Bytes of the largest structure that a call writes into: `struct __kernel_timex`.
const WRITTEN: usize = 208;

unsafe extern "C" {
    #[link_name = "ringfence_elf32_begin"]
    static BEGIN: u8;
    #[link_name = "ringfence_elf32_end"]
    static END: u8;
}

/// Where the program is loaded, as every 32-bit program of old.
const LOAD: u32 = 0x0804_8000;
/// ELF header and one program header.
const HEADERS: u32 = 52 + 32;

/// The program as a file.
pub fn image() -> Vec<u8> {
    // SAFETY: both symbols bound the code above, which lies in read-only memory.
    let code = unsafe {
        let begin = &raw const BEGIN;
        std::slice::from_raw_parts(begin, (&raw const END).offset_from_unsigned(begin))
    };
    let size = HEADERS + code.len() as u32;
    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |file: &mut Vec<u8>, values: &[u16]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    let word = |file: &mut Vec<u8>, values: &[u32]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    half(&mut file, &[2, 3]); // ET_EXEC, EM_386
    word(&mut file, &[1, LOAD + HEADERS, 52, 0, 0]); // version, entry, program headers, no sections, flags
    half(&mut file, &[52, 32, 1, 0, 0, 0]);
    word(&mut file, &[1, 0, LOAD, LOAD, size, size, 5, 0x1000]); // PT_LOAD, the whole file, PF_R | PF_X
    file.extend_from_slice(code);
    file
}

/// The program on disk; removed with its directory when dropped.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // Nothing more can be done about what is left.
        let _ = self.path.parent().map(fs::remove_dir);
    }
}

/// Place in the arena's scratch part that no row uses.
const FREE: usize = 32 * 1024;

/// Set while attempts of the 32-bit table go through the program: its path, and how often it makes each call.
static PROGRAM: OnceLock<CString> = OnceLock::new();
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Writes the program to a directory of its own, for [`switch`].
///
/// # Errors
/// The kernel's.
pub fn install() -> io::Result<Program> {
    let dir = if Path::new("/tmp").is_dir() { "/tmp" } else { "/" };
    let dir = Path::new(dir).join(format!("ringfence-elf32-{}", std::process::id()));
    fs::create_dir(&dir)?;
    // Of the same name as the program that makes all other attempts.
    let program = Program { path: dir.join("attempt") };
    fs::write(&program.path, image())?;
    fs::set_permissions(&program.path, fs::Permissions::from_mode(0o755))?;
    let path = CString::new(program.path.as_os_str().as_bytes())?;
    PROGRAM.set(path).map_err(|_| io::Error::other("the 32-bit program is installed once"))?;
    Ok(program)
}

/// From now on calls of the 32-bit table go through the program, `count` times each; 0: by `int 0x80` again.
pub fn switch(count: u32) {
    COUNT.store(count, Ordering::Relaxed);
}

/// How often the program makes each call; `None` while it is not used.
pub fn count() -> Option<u32> {
    Some(COUNT.load(Ordering::Relaxed)).filter(|count| *count > 0)
}

/// Kinds of call whose results need care.
fn kind(nr: u32) -> u32 {
    match nr {
        2 | 120 | 190 | 435 => 1,
        5 | 8 | 295 | 342 | 437 => 2,
        124 => 3,
        343 | 405 => 4,
        _ => 0,
    }
}

/// Makes a call by the program and returns the first of the kernel's answers. If the program cannot do it, the
/// attempt's child ends with status 3: the attempt was not made.
pub(super) fn call(nr: u32, args: [u64; 6], count: u32) -> i64 {
    let (Some(program), Some(arena)) = (PROGRAM.get(), Arena::current()) else {
        give_up("no program or arena")
    };
    let [a, b, c, d, e, f] = args.map(|arg| arg as u32);
    arena.put_request(&[nr, a, b, c, d, e, f, kind(nr), count, 0, 0, 0, 0, 0]);
    // SAFETY: this process has one thread, so its child may do anything.
    let child = unsafe { libc::fork() };
    if child == 0 {
        become_program(program, arena);
    }
    if child < 0 || wait(child) != 0 || arena.request()[15] != 1 {
        give_up("the 32-bit program gave no answer");
    }
    i64::from(arena.request()[11] as i32)
}

/// Process and thread that made the last call, and how many later answers were odd.
pub(super) fn maker(arena: &Arena) -> (i64, i64, i64) {
    let request = arena.request();
    (i64::from(request[13]), i64::from(request[14]), i64::from(request[12]))
}

fn give_up(why: &str) -> ! {
    eprintln!("attempt: {why}: the attempt is not made");
    // SAFETY: ends this child at once.
    unsafe { libc::_exit(3) }
}

/// Runs the program in this process: with our files open, and with no capability that we have not.
fn become_program(program: &CStr, arena: &Arena) -> ! {
    if !keeps_capabilities(arena) {
        give_up("an exec would bring dropped capabilities back");
    }
    let argv = [c"attempt".as_ptr(), std::ptr::null()];
    // SAFETY: numbers, and arrays of strings that end in NUL; on success nothing of ours is left.
    unsafe {
        libc::dup2(arena.fd(), 0);
        for fd in 3..64 {
            libc::fcntl(fd, libc::F_SETFD, 0);
        }
        libc::execve(program.as_ptr(), argv.as_ptr(), [std::ptr::null()].as_ptr());
    }
    give_up(&format!("execve of the 32-bit program: {}", io::Error::last_os_error()))
}

/// An exec by user 0 brings back the capabilities of the bounding set and of the inheritable one, so what was
/// dropped must leave the bounding set, too. Says whether it has: attempts that would change something rest on it.
fn keeps_capabilities(arena: &Arena) -> bool {
    let sets = prep::capget_at(arena, FREE);
    sets.inheritable & !sets.permitted == 0 && shrink_bounding(sets.permitted)
}

/// Takes from the bounding set what is not in `permitted`, and says whether it is gone.
pub fn shrink_bounding(permitted: u64) -> bool {
    (0..64).filter(|cap| permitted >> cap & 1 == 0).all(|cap: u64| {
        // SAFETY: plain numbers; prctl answers -1 for a capability that the kernel does not know.
        unsafe {
            match libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) {
                1 => {
                    libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) == 0
                        && libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) == 0
                }
                _ => true,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_a_static_32_bit_one() {
        let image = image();
        assert_eq!(image[..5], [0x7f, b'E', b'L', b'F', 1]);
        assert_eq!(u16::from_le_bytes([image[18], image[19]]), 3, "EM_386");
        assert_eq!(u16::from_le_bytes([image[44], image[45]]), 1, "one segment, so no interpreter");
        assert_eq!(image[HEADERS as usize..][..2], [0x81, 0xec], "sub esp");
        assert_eq!(image[image.len() - 2..], [0xcd, 0x80], "int 0x80");
    }
}
