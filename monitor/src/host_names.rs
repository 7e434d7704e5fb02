//! Names of hosts, in a program that is linked statically.
//!
//! GNU's C library finds addresses by modules that /etc/nsswitch.conf names. It would load them into the process, and a
//! statically linked one can only load those of the very release that it was linked with; others end it. Two are part of
//! the library: `files` (/etc/hosts) and `dns` (/etc/resolv.conf), and they are the ones that are used, whatever that file
//! says. systemd-resolved is asked all the same, for it puts itself into /etc/resolv.conf.

/// Makes [`std::net::ToSocketAddrs`] and all that rests on it use these two. To be called before the first name is looked up,
/// while there is one thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn use_built_in_sources() {
    unsafe extern "C" {
        /// `nss.h`, since glibc 2.0: 0, or -1 if it does not know the database.
        fn __nss_configure_lookup(database: *const libc::c_char, sources: *const libc::c_char)
        -> libc::c_int;
    }
    // SAFETY: both are texts that end in NUL, which the library copies; nothing else looks names up yet.
    unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
}

/// Other C libraries load nothing.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn use_built_in_sources() {}

#[cfg(test)]
mod tests {
    use std::net::ToSocketAddrs as _;

    #[test]
    fn names_are_found_in_the_file() {
        super::use_built_in_sources();
        let found: Vec<_> = ("localhost", 80).to_socket_addrs().expect("/etc/hosts has it").collect();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 80), "{found:?}");
        assert!(!found.is_empty());
    }
}
