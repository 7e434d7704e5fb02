//! Which capabilities the daemon needs once it has attached.

use monitor_common::caps::Cap;

use crate::preflight::KernelVersion;

/// The first kernel on which the lookups in a map that is held take no capability, whatever `unprivileged_bpf_disabled`
/// says (c8644cd0efe7).
const FREE_LOOKUPS: KernelVersion = KernelVersion { major: 5, minor: 19 };

/// The capabilities that stay, as a set of bits.
///
/// `CAP_SYS_PTRACE`: links below `/proc/PID` of others. `CAP_DAC_READ_SEARCH`: what runtimes wrote about their containers,
/// and programs' files. `CAP_BPF` on old kernels: counters and ledgers are maps.
pub(super) fn needed_afterwards() -> u64 {
    needed_on(KernelVersion::running())
}

fn needed_on(kernel: Option<KernelVersion>) -> u64 {
    let mut keep = bit(Cap::SysPtrace) | bit(Cap::DacReadSearch);
    if kernel.is_none_or(|kernel| kernel < FREE_LOOKUPS) {
        keep |= bit(Cap::Bpf);
    }
    keep
}

const fn bit(capability: Cap) -> u64 {
    1 << capability as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_with_a_capability_on_old_kernels_only() {
        let on = |release| needed_on(KernelVersion::parse(release));
        assert_eq!(on("6.1.0"), 1 << 19 | 1 << 2);
        assert_eq!(on("5.19.0"), on("6.1.0"));
        assert_eq!(on("5.10.0-32"), on("6.1.0") | 1 << 39);
        assert_eq!(on("unheard of"), on("5.10.0"));
    }
}
