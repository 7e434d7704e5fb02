//! Newtypes for the kernel's numbers, so that one is never taken for another.

/// Makes a transparent newtype over an unsigned integer.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(
            /// The number itself.
            pub $inner,
        );

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// Thread group id: what users call the process id (`task_struct.tgid`), in the initial pid namespace.
    Tgid(u32)
}
id! {
    /// Thread id: what the kernel calls pid (`task_struct.pid`), in the initial pid namespace.
    Tid(u32)
}
id! {
    /// User id in the initial user namespace (`kuid_t`).
    Uid(u32)
}
id! {
    /// Group id in the initial user namespace (`kgid_t`).
    Gid(u32)
}
id! {
    /// kernfs id of a directory in the chosen cgroup hierarchy, its inode number; 0 is unknown. Not a container id.
    CgroupId(u64)
}
id! {
    /// Inode number of a namespace (`ns_common.inum`), as in `readlink /proc/PID/ns/*`; 0: unknown.
    NsInum(u32)
}
id! {
    /// Nanoseconds since boot, suspend included (`bpf_ktime_get_boot_ns`, since 5.8).
    BootNs(u64)
}
