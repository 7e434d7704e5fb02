//! What capabilities and calls are called.

use std::borrow::Cow;

use monitor_common::call::Abi;
use monitor_common::capability::NO_CALL;
use monitor_common::caps::Cap;

use crate::syscall_names;

/// The manual's name of a capability; `CAP_41` and so on for those that a later kernel may have.
pub fn cap_name(cap: u16) -> Cow<'static, str> {
    match Cap::ALL.iter().find(|known| **known as u16 == cap) {
        Some(known) => Cow::Borrowed(known.name()),
        None => Cow::Owned(format!("CAP_{cap}")),
    }
}

/// The names of the capabilities in a mask, lowest bit first.
pub fn cap_names(mask: u64) -> Vec<String> {
    (0..64).filter(|cap| mask & (1 << cap) != 0).map(|cap| cap_name(cap).into_owned()).collect()
}

/// What a system call is shown as; `None` for a check that none made.
pub fn call_name(nr: u32, abi: u32) -> Option<String> {
    if nr == NO_CALL {
        return None;
    }
    let abi = u16::try_from(abi).ok().and_then(Abi::from_wire);
    Some(match abi {
        Some(Abi::X86_64) => syscall_names::shown(Abi::X86_64, nr).into_owned(),
        Some(abi) => format!("{} ({})", syscall_names::shown(abi, nr), abi.name()),
        None => nr.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_name() {
        assert_eq!((&*cap_name(21), &*cap_name(41)), ("CAP_SYS_ADMIN", "CAP_41"));
        assert_eq!(cap_names(1 << 63 | 1), ["CAP_CHOWN", "CAP_63"]);
        assert_eq!(call_name(NO_CALL, 0), None);
        assert_eq!(call_name(126, 0).as_deref(), Some("capset"));
        assert_eq!(call_name(185, 1).as_deref(), Some("capset (i386)"));
        assert_eq!(call_name(4, 9).as_deref(), Some("4"), "an ABI of a later kernel");
    }
}
