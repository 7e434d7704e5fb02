//! How the daemon's canary thread makes itself known. On no hook: the thread runs the program itself.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;

use crate::canary;

/// Run by `BPF_PROG_TEST_RUN` (`bpf_prog_test_run_raw_tp`, since 5.10), in the thread that asks for it.
#[raw_tracepoint]
pub fn enrol_canary(_ctx: RawTracePointContext) -> i32 {
    canary::enrol();
    0
}
