//! The live suite's parts: attempts on a container's walls, and what is needed to see them judged.
//!
//! [`attempt`] makes the attempts; [`harness`] starts Ringfence and holds its alerts against expectations;
//! [`docker`], [`engine_api`], [`oci`], [`cgroup`], [`seccomp`] and [`bpf`] make the places from which attempts come. [`matrix`] is the
//! table of what must be seen, [`kubernetes`] reads the manifests and runs their pod, [`systemd`] runs the shipped unit, [`features`] that of what depends on the kernel. [`promql`] and [`scrape`] read what is asked of
//! metrics, and what is served.

pub mod attempt;
pub mod book;
pub mod bpf;
pub mod bpf_objects;
pub mod cgroup;
pub mod cri;
pub mod docker;
pub mod engine_api;
pub mod features;
pub mod harness;
pub mod kubernetes;
pub mod many;
pub mod matrix;
pub mod oci;
pub mod podman;
pub mod promql;
pub mod scrape;
pub mod seccomp;
pub mod servers;
pub mod state;
pub mod systemd;
pub mod tamper;
