//! Paths of cgroups as the runtimes make them, and others that look alike.

use super::*;

const ID: &str = "4d5ce26ae5a9ffaf0c3d8d0ee4bd04f5a07e69b7c1c0a1e4e1bd3c1fbd4e3a21";
const OUTER: &str = "5d5ce26ae5a9ffaf0c3d8d0ee5bd05f5a07e69b7c1c0a1e5e1bd3c1fbd5e3a21";
const UID: &str = "6b3a0b0e-7c1d-4a5e-9f0a-2f6f0c1d2e3f";
const STATIC_UID: &str = "0123456789abcdef0123456789abcdef";
const BUILD: &str = "k3v0vzq2b8t1x9w4y7m5n6p0q";

/// The path with `ID`, `OUTER`, `UID`, `U_ID` (as in slices), `HASH` and `BUILD` filled in.
fn fill(path: &str) -> String {
    path.replace("OUTER", OUTER)
        .replace("U_ID", &UID.replace('-', "_"))
        .replace("UID", UID)
        .replace("HASH", STATIC_UID)
        .replace("BUILD", BUILD)
        .replace("ID", ID)
}

fn deepest(path: &str) -> Option<Arc<Container>> {
    identify(fill(path).as_bytes()).into_iter().next()
}

#[test]
fn containers_are_recognised_by_their_cgroup() {
    use Runtime::{Containerd, CriO, Docker, Kubernetes, Podman};
    let table = [
        ("/docker/ID", Docker),
        ("/docker/ID/init", Docker),
        ("/system.slice/docker-ID.scope", Docker),
        ("/system.slice/docker-ID.scope/init.scope", Docker),
        ("/system.slice:docker:ID", Docker),
        ("/ecs/f00d/ID", Docker),
        ("/kubepods.slice/kubepods-podU_ID.slice/docker-ID.scope", Docker),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_ID.slice/cri-containerd-ID.scope",
            Containerd,
        ),
        ("/system.slice/containerd.service/kubepods-burstable-podU_ID.slice:cri-containerd:ID", Containerd),
        ("/system.slice/nerdctl-ID.scope", Containerd),
        ("/default/ID", Containerd),
        ("/k8s.io/ID", Containerd),
        ("/kubepods.slice/kubepods-podU_ID.slice/crio-ID.scope", CriO),
        ("/kubepods.slice/kubepods-podU_ID.slice/crio-ID.scope/container", CriO),
        ("/kubepods/burstable/podUID/crio-ID", CriO),
        ("/kubepods/besteffort/podUID/ID", Kubernetes),
        ("/kubepods/podHASH/ID", Kubernetes),
        ("/machine.slice/libpod-ID.scope", Podman),
        ("/machine.slice/libpod-ID.scope/container", Podman),
        ("/machine.slice/machine-libpod_pod_OUTER.slice/libpod-ID.scope/container", Podman),
        ("/libpod_parent/libpod-ID", Podman),
        ("/libpod_parent/OUTER/libpod-ID", Podman),
        ("/system.slice/shop.service/libpod-payload-ID", Podman),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container", Podman),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_OUTER.slice/libpod-ID.scope",
            Podman,
        ),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope", Docker),
    ];
    for (path, runtime) in table {
        let found = identify(fill(path).as_bytes());
        let [container] = found.as_slice() else { panic!("{path}: {found:?}") };
        assert_eq!((container.id.as_str(), container.runtime), (ID, runtime), "{path}");
        assert_eq!(container.pod_uid.is_some(), path.contains("kubepods"), "{path}");
        assert_eq!(container.user, path.contains("user-1000").then_some(1000), "{path}");
        assert_eq!(container.short_id(), &ID[..12]);
        assert!(!container.nested);
    }
}

#[test]
fn containers_with_names_keep_them() {
    use Runtime::{Lxc, Nspawn};
    let table = [
        ("/lxc.payload.web-1", Lxc, "web-1"),
        ("/lxc.payload.web/init.scope", Lxc, "web"),
        ("/lxc.payload/web", Lxc, "web"),
        ("/lxc/web", Lxc, "web"),
        ("/user.slice/user-1000.slice/session-2.scope/lxc/web/system.slice/ssh.service", Lxc, "web"),
        ("/machine.slice/machine-my\\x2dbox.scope/payload", Nspawn, "my-box"),
        ("/machine.slice/machine-box.scope/payload/init.scope", Nspawn, "box"),
        ("/machine.slice/machine-box.scope", Nspawn, "box"),
        ("/machine.slice/box.scope/payload", Nspawn, "box"),
        (
            "/machine.slice/systemd-nspawn@my\\x2dbox.service/payload/system.slice/ssh.service",
            Nspawn,
            "my-box",
        ),
        // It may be called what libvirt calls its machines.
        ("/machine.slice/machine-qemu\\x2d1.scope/payload", Nspawn, "qemu-1"),
        ("/docker/buildkit/BUILD", Runtime::Docker, BUILD),
        ("/system.slice/docker-BUILD.scope", Runtime::Docker, BUILD),
    ];
    for (path, runtime, name) in table {
        let container = deepest(path).unwrap_or_else(|| panic!("{path}"));
        assert_eq!((container.id.as_str(), container.runtime), (name, runtime), "{path}");
        assert_eq!(container.short_id(), name, "a name is not cut");
    }
    let strange = identify(b"/lxc.payload.\xff\\");
    assert_eq!(strange.first().map(|container| container.id.as_str()), Some("\\xff\\\\"));
}

#[test]
fn no_name_passes_for_the_host() {
    for (path, id) in [
        ("/lxc.payload.host", "lxc/host"),
        ("/lxc/unknown", "lxc/unknown"),
        ("/docker/ID/lxc.payload.host", "lxc/host"),
        ("/machine.slice/machine-host.scope/payload", "systemd-nspawn/host"),
    ] {
        assert_eq!(
            deepest(path).map(|container| container.short_id().to_owned()).as_deref(),
            Some(id),
            "{path}"
        );
    }
}

#[test]
fn other_cgroups_are_the_hosts() {
    let upper = format!("/docker/{}", ID.to_uppercase());
    for path in [
        "/",
        "",
        "/ID",
        "/system.slice/docker.service",
        "/docker/abc",
        &upper,
        "/user.slice/ID",
        "/user.slice/user-1000.slice/session-2.scope/x/ID",
        "/machine.slice/libpod-conmon-ID.scope",
        "/kubepods.slice/kubepods-podU_ID.slice/crio-conmon-ID.scope",
        "/kubepods.slice/kubepods-podU_ID.slice",
        "/kubepods/burstable/podUID",
        "/machine.slice/machine-libpod_pod_ID.slice",
        "/libpod_parent/ID",
        "/libpod_parent/conmon",
        "/system.slice/shop.service/supervisor",
        "/lxc",
        "/lxc.payload",
        "/lxc.payload.",
        "/lxc.monitor.web",
        "/lxc.monitor/web",
        "/lxc.pivot",
        "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
        "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
        "/machine.slice/machine-lxc\\x2d77\\x2dbox.scope",
        "/machine.slice/machine-box.scope/supervisor",
        "/machine.slice/systemd-nspawn@box.service",
        "/machine.slice/systemd-nspawn@box.service/supervisor",
        "/machine.slice/box.scope",
        "/system.slice/box.scope/payload",
        "/docker/buildkit",
        "/buildkit/BUILD",
        "/init.scope",
    ] {
        assert_eq!(identify(fill(path).as_bytes()), [], "{path}");
    }
}

#[test]
fn nested_containers_keep_the_whole_chain() {
    let table: [(&str, &[&str]); 5] = [
        ("/docker/OUTER/docker/ID", &[ID, OUTER]),
        (
            "/system.slice/docker-OUTER.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podU_ID.slice/cri-containerd-ID.scope",
            &[ID, OUTER],
        ),
        ("/lxc.payload.web/system.slice/docker-ID.scope", &[ID, "web"]),
        // Inside, the container's directory is the root.
        ("/docker/OUTER/default/ID", &[ID, OUTER]),
        ("/lxc/a/lxc/b/docker/ID", &[ID, "b", "a"]),
    ];
    for (path, ids) in table {
        let found = identify(fill(path).as_bytes());
        assert_eq!(found.iter().map(|container| container.id.as_str()).collect::<Vec<_>>(), ids, "{path}");
        let (last, inner) = found.split_last().unwrap();
        assert!(!last.nested && inner.iter().all(|container| container.nested), "{path}");
    }
}

#[test]
fn pods_have_a_uid_and_a_class() {
    use PodQos::{BestEffort, Burstable, Guaranteed};
    let table = [
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_ID.slice/crio-ID.scope",
            UID,
            Burstable,
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_ID.slice/crio-ID.scope",
            UID,
            BestEffort,
        ),
        ("/kubepods.slice/kubepods-podU_ID.slice/crio-ID.scope", UID, Guaranteed),
        ("/system.slice/kubepods-besteffort-podU_ID.slice:cri-containerd:ID", UID, BestEffort),
        ("/kubepods/burstable/podUID/ID", UID, Burstable),
        ("/kubepods/podHASH/ID", STATIC_UID, Guaranteed),
        ("/docker/OUTER/kubelet/kubepods/burstable/podUID/ID", UID, Burstable),
    ];
    for (path, uid, class) in table {
        let container = deepest(path).unwrap_or_else(|| panic!("{path}"));
        assert_eq!((container.pod_uid.as_deref(), container.qos), (Some(uid), Some(class)), "{path}");
    }
    assert_eq!(deepest("/docker/ID").and_then(|container| container.qos), None);
    assert_eq!(
        deepest("/k8s.io/ID").and_then(|container| container.namespace.clone()),
        Some("k8s.io".into())
    );
}

#[test]
fn the_hosts_units_and_sessions() {
    let table = [
        ("/system.slice/ssh.service", Some(("ssh.service", None))),
        ("/system.slice/system-getty.slice/getty@tty1.service", Some(("getty@tty1.service", None))),
        ("/user.slice/user-1000.slice/session-3.scope", Some(("session-3.scope", Some("3")))),
        // Below its manager a user names units as it likes.
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/ssh.service",
            Some(("user@1000.service", None)),
        ),
        ("/init.scope", Some(("init.scope", None))),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            Some(("user@1000.service", None)),
        ),
        ("/system.slice/shop.service/libpod-payload-ID", Some(("shop.service", None))),
        ("/machine.slice/systemd-nspawn@box.service/supervisor", Some(("systemd-nspawn@box.service", None))),
        ("/machine.slice/systemd-nspawn@box.service/payload/system.slice/ssh.service", None),
        ("/system.slice/docker-ID.scope", None),
        ("/system.slice/docker-ID.scope/system.slice/ssh.service", None),
        // A container may name a service like one of the host's.
        ("/docker/ID/system.slice/ssh.service", None),
        ("/lxc.payload.web/system.slice/ssh.service", None),
        ("/docker/ID", None),
        ("/user.slice", None),
        ("/", None),
    ];
    for (path, expected) in table {
        let unit = locate(fill(path).as_bytes(), false).unit;
        let found = unit.as_ref().map(|unit| (unit.name.as_str(), unit.session.as_deref()));
        assert_eq!(found, expected, "{path}");
    }
}
