//! The BPF programs of Ringfence.
//!
//! A program sits on a hook, decides early whether it cares, and sends one record. `probes` holds the
//! programs, one file per hook family; `kernel` is the only module that reads kernel structures;
//! `user` the only one that reads user memory, whose content is a claim; `maps` holds every map, its
//! bound but for those of `checks` (the ledger of capability checks), `tasks` (what was last known of each task) and
//! `canary` (which tells the daemon's own tests apart), the ledger and the way into the ring buffer.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)] // For the atomic addition in `maps`.

mod call;
mod canary;
mod checks;
mod kernel;
mod maps;
mod probes;
mod settings;
mod tasks;
mod user;

/// Never reached: the verifier refuses a program in which this endless loop can be reached, so a
/// possible panic shows when the program is loaded and not in the kernel.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel gives its tracing helpers to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
