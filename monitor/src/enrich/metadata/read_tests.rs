//! What is read from recorded state directories, and from such as nobody recorded.

use std::fs::{self, File};
use std::os::unix::fs::{chown, symlink};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::TempDir;

use super::*;
use crate::enrich::container::identify;

/// A recorded host, copied: its files are then ours, and may be spoilt.
struct Host(TempDir);

impl Host {
    fn recorded(name: &str) -> Host {
        let host = tempfile::tempdir().unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/state");
        copy(&fixtures.join(name), host.path());
        Host(host)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Reads, and sees that nothing was waited for.
    fn read(&self, container: &Container) -> Result<Metadata, Miss> {
        let start = Instant::now();
        let read = read(container, &Roots { host: self.0.path().to_owned(), ..Roots::default() });
        assert!(start.elapsed() < Duration::from_secs(1), "waited {:?}", start.elapsed());
        read
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The recorded id with this number.
fn id(number: u16) -> String {
    format!("{number:04x}{}", "7e57".repeat(15))
}

/// The innermost container of a path in which `ID` stands for a recorded id.
fn container(path: &str, number: u16) -> Container {
    let found = identify(path.replace("ID", &id(number)).as_bytes());
    Container::clone(found.first().unwrap_or_else(|| panic!("{path}")))
}

const POD: &str = "6b3a0b0e-7c1d-4a5e-9f0a-2f6f0c1d2e3f";

fn pod(container_name: Option<&str>) -> Option<PodInfo> {
    Some(PodInfo {
        name: Some("web-5f7d9".into()),
        namespace: Some("shop".into()),
        uid: Some(POD.into()),
        container_name: container_name.map(str::to_owned),
    })
}

/// What the recorded containers have in common.
fn with(runtime: Runtime, name: &str, image: (&str, &str)) -> Metadata {
    Metadata {
        runtime: Some(runtime),
        name: Some(name.into()),
        image: Some(format!("{}:{}", image.0, image.1)),
        image_repository: Some(image.0.into()),
        image_tag: Some(image.1.into()),
        privileged: Some(false),
        ..Metadata::default()
    }
}

#[test]
fn docker_names_its_containers() {
    let host = Host::recorded("docker");
    let web = Metadata {
        image_id: Some(id(0xc002)),
        labels: [("app", "shop"), ("org.example.note", "two words")].into_iter().collect(),
        created: Some("2026-11-25T17:26:03.076138581Z".into()),
        ..with(Runtime::Docker, "shop-web", ("example/web", "1.2"))
    };
    for path in [
        "/docker/ID",
        "/system.slice/docker-ID.scope",
        "/shop/ID",
        "/kubepods/burstable/pod6b3a0b0e-7c1d-4a5e-9f0a-2f6f0c1d2e3f/ID",
    ] {
        assert_eq!(host.read(&container(path, 0xc001)).as_ref(), Ok(&web), "{path}");
    }
    let privileged = host.read(&container("/docker/ID", 0xc006)).unwrap();
    assert_eq!((privileged.name.as_deref(), privileged.privileged), (Some("shop-priv"), Some(true)));
    // Without the engine's settings of the container there is still a name.
    fs::remove_file(host.path(&format!("var/lib/docker/containers/{}/hostconfig.json", id(0xc001)))).unwrap();
    assert_eq!(host.read(&container("/docker/ID", 0xc001)), Ok(Metadata { privileged: None, ..web }));
}

#[test]
fn docker_knows_the_digest_and_the_tag_that_was_meant() {
    let host = Host::recorded("docker");
    let config = host.path(&format!("var/lib/docker/containers/{}/config.v2.json", id(0xc001)));
    let untagged = fs::read_to_string(&config).unwrap().replace("example/web:1.2", "example/web");
    fs::write(&config, &untagged).unwrap();
    let (digest, other) = (format!("sha256:{}", "0".repeat(64)), format!("sha256:{}", "1".repeat(64)));
    let known = format!(
        r#"{{"Repositories": {{"example/web": {{"example/web:latest": "sha256:{0}", "example/web@{digest}": "sha256:{0}",
            "example/web:9": "{other}", "example/web@{other}": "{other}"}}}}}}"#,
        id(0xc002)
    );
    fs::write(host.path("var/lib/docker/image/overlay2/repositories.json"), known).unwrap();
    let found = host.read(&container("/docker/ID", 0xc001)).unwrap();
    assert_eq!((found.image.as_deref(), found.image_tag.as_deref()), (Some("example/web"), Some("latest")));
    assert_eq!(found.image_digest, Some(digest));
    // Where containerd keeps the images, the container itself has the digest.
    let manifest = format!(r#"{{"ImageManifest": {{"digest": "{other}"}}, "#);
    fs::write(&config, untagged.replacen('{', &manifest, 1)).unwrap();
    assert_eq!(host.read(&container("/docker/ID", 0xc001)).unwrap().image_digest, Some(other));
}

#[test]
fn containerd_names_the_kubelets_and_nerdctls_containers() {
    let host = Host::recorded("containerd");
    let image = ("registry.example/shop/web", "1.2");
    let web = Metadata { pod: pod(Some("web")), ..with(Runtime::Containerd, "web", image) };
    let no_image =
        |found: Metadata| Metadata { image: None, image_repository: None, image_tag: None, ..found };
    let sandbox = Metadata { pod: pod(None), ..no_image(with(Runtime::Containerd, "web-5f7d9", image)) };
    let slice = POD.replace('-', "_");
    for path in [
        format!("/kubepods/burstable/pod{POD}/ID"),
        format!("/kubepods.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-ID.scope"),
        "/k8s.io/ID".to_owned(),
    ] {
        assert_eq!(host.read(&container(&path, 0xc018)).as_ref(), Ok(&web), "{path}");
        assert_eq!(host.read(&container(&path, 0xc019)).as_ref(), Ok(&sandbox), "{path}");
    }
    let nerdctl = Metadata {
        labels: [("app", "shop")].into_iter().collect(),
        ..no_image(with(Runtime::Containerd, "shop-web", image))
    };
    for path in ["/default/ID", "/system.slice/nerdctl-ID.scope"] {
        assert_eq!(host.read(&container(path, 0xc01a)).as_ref(), Ok(&nerdctl), "{path}");
    }
    assert_eq!(host.read(&container("/other/ID", 0xc01a)), Err(Miss::NotFound), "in another namespace");
}

#[test]
fn crio_names_its_containers() {
    let host = Host::recorded("crio");
    let path = format!("/kubepods.slice/kubepods-burstable-pod{}.slice/crio-ID.scope", POD.replace('-', "_"));
    let web = host.read(&container(&path, 0xc01b)).unwrap();
    let expected = Metadata {
        image_id: Some(id(0xc01d)),
        pod: pod(Some("web")),
        created: Some("2026-01-02T03:04:05.678901234Z".into()),
        labels: web.labels.clone(),
        ..with(Runtime::CriO, "web", ("registry.example/shop/web", "1.2"))
    };
    assert_eq!(web, expected);
    assert_eq!(web.labels.get("io.kubernetes.container.name"), Some("web"));
    let sandbox = host.read(&container(&path, 0xc01e)).unwrap();
    assert_eq!((sandbox.name.as_deref(), &sandbox.pod), (Some("web-5f7d9"), &pod(None)));
    assert_eq!(sandbox.labels.get("app"), Some("shop"));
    // The file may also lie on the run side only.
    fs::create_dir_all(host.path("run/containers")).unwrap();
    fs::rename(host.path("var/lib/containers/storage"), host.path("run/containers/storage")).unwrap();
    assert_eq!(host.read(&container(&path, 0xc01b)), Ok(web));
}

#[test]
fn podman_names_its_containers() {
    let host = Host::recorded("podman");
    let digest = |number| Some(format!("sha256:{}", id(number)));
    let web = Metadata {
        image_id: Some(id(0xc008)),
        image_digest: digest(0xc011),
        created: Some("2026-11-25T17:25:41.176989236Z".into()),
        ..with(Runtime::Podman, "shop-web", ("docker.io/example/web", "1.2"))
    };
    for path in ["/libpod_parent/libpod-ID", "/machine.slice/libpod-ID.scope/container"] {
        assert_eq!(host.read(&container(path, 0xc007)).as_ref(), Ok(&web), "{path}");
    }
    let brief = |number, path: &str| {
        host.read(&container(path, number)).map(|found| (found.name.unwrap_or_default(), found.privileged))
    };
    assert_eq!(brief(0xc00a, "/libpod_parent/libpod-ID"), Ok(("shop-rm".into(), Some(true))));
    let in_pod = format!("/libpod_parent/{}/libpod-ID", id(0xc013));
    assert_eq!(brief(0xc00f, &in_pod), Ok(("pod-web".into(), Some(false))));
    assert_eq!(brief(0xc00c, &in_pod), Ok(("c0137e577e57-infra".into(), Some(false))));
    // Newer versions keep the list of containers that do not outlive the machine on the run side.
    let volatile = "run/containers/storage/overlay-containers";
    fs::create_dir_all(host.path(volatile)).unwrap();
    let list = host.path("var/lib/containers/storage/overlay-containers/containers.json");
    fs::rename(list, host.path(volatile).join("volatile-containers.json")).unwrap();
    assert_eq!(host.read(&container("/libpod_parent/libpod-ID", 0xc007)), Ok(web));
}

/// A host with a user whose files they are; and the user.
fn rootless() -> (Host, u32) {
    let host = Host::recorded("rootless");
    let us = rustix::process::geteuid().as_raw();
    // Root can give the files away, others have them already.
    let uid = if us == 0 { 1000 } else { us };
    let passwd = fs::read_to_string(host.path("etc/passwd")).unwrap();
    fs::write(host.path("etc/passwd"), passwd.replace("1000", &uid.to_string())).unwrap();
    if us == 0 {
        give(&host.path("home/alice"), uid);
    }
    (host, uid)
}

fn give(path: &Path, uid: u32) {
    chown(path, Some(uid), None).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), uid);
        }
    }
}

fn of_user(uid: u32, number: u16) -> Container {
    container(&format!("/user.slice/user-{uid}.slice/user@{uid}.service/user.slice/libpod-ID.scope"), number)
}

#[test]
fn a_users_podman_names_the_users_containers_only() {
    let (host, uid) = rootless();
    let web = host.read(&of_user(uid, 0xc014)).unwrap();
    assert_eq!((web.name.as_deref(), web.image_tag.as_deref()), (Some("alice-web"), Some("1.2")));
    assert_eq!(web.image_digest, Some(format!("sha256:{}", id(0xc017))));
    // Whoever names its cgroup after one of the system's containers gets none of its names, nor the system those of
    // a user's.
    copy(&Host::recorded("podman").path("var"), &{
        fs::create_dir(host.path("var")).unwrap();
        host.path("var")
    });
    assert!(host.read(&container("/libpod_parent/libpod-ID", 0xc007)).is_ok());
    assert_eq!(host.read(&of_user(uid, 0xc007)), Err(Miss::NotFound));
    assert_eq!(host.read(&container("/libpod_parent/libpod-ID", 0xc014)), Err(Miss::NotFound));
    assert_eq!(host.read(&of_user(uid + 1, 0xc014)), Err(Miss::NotFound), "no such user");
    // By a link to the system's files neither.
    let storage = host.path("home/alice/.local/share/containers/storage");
    fs::remove_dir_all(&storage).unwrap();
    symlink("/var/lib/containers/storage", &storage).unwrap();
    assert_eq!(host.read(&of_user(uid, 0xc007)), Err(Miss::Symlink));
}

#[test]
fn what_a_container_says_of_those_inside_it_is_not_believed() {
    let host = Host::recorded("docker");
    let inside = container(&format!("/docker/{}/docker/ID", id(0xc006)), 0xc001);
    assert_eq!(host.read(&inside), Err(Miss::Nested));
}

#[test]
fn what_has_only_a_name_needs_no_file() {
    let host = Host(tempfile::tempdir().unwrap());
    let found = host.read(&container("/lxc.payload.web", 0)).unwrap();
    assert_eq!((found.runtime, found.name.as_deref(), found.image), (Some(Runtime::Lxc), Some("web"), None));
    assert_eq!(host.read(&container("/docker/ID", 0xc001)), Err(Miss::NotFound), "no runtime at all");
    for name in ["lxc.payload.web", "machine-web.scope/payload"] {
        let users = container(&format!("/user.slice/user-1000.slice/user@1000.service/{name}"), 0);
        assert_eq!(host.read(&users), Err(Miss::NotFound), "{name}: anybody may call its cgroup so");
    }
}

/// The file on which the name depends, and a container; and a second container with the same runtime.
fn main_files() -> Vec<(Host, Container, String, Option<String>)> {
    let list = |dir: &str, file: &str, number| format!("{dir}/{}/{file}", id(number));
    let task = "run/containerd/io.containerd.runtime.v2.task/k8s.io";
    let storage = "var/lib/containers/storage/overlay-containers";
    let home = "home/alice/.local/share/containers/storage/vfs-containers/containers.json";
    let (user, uid) = rootless();
    let docker = |number| list("var/lib/docker/containers", "config.v2.json", number);
    let bundle = |number| list(task, "config.json", number);
    let crio = |number| list(storage, "userdata/config.json", number);
    vec![
        (Host::recorded("docker"), container("/docker/ID", 0xc001), docker(0xc001), Some(docker(0xc006))),
        (Host::recorded("containerd"), container("/k8s.io/ID", 0xc018), bundle(0xc018), Some(bundle(0xc019))),
        (
            Host::recorded("crio"),
            container("/a.slice/crio-ID.scope", 0xc01b),
            crio(0xc01b),
            Some(crio(0xc01e)),
        ),
        (
            Host::recorded("podman"),
            container("/libpod-ID", 0xc007),
            format!("{storage}/containers.json"),
            None,
        ),
        (user, of_user(uid, 0xc014), home.to_owned(), None),
    ]
}

#[test]
fn no_file_stalls_the_reader_or_gives_a_wrong_name() {
    for (host, container, path, of_another) in main_files() {
        let file = host.path(&path);
        let whole = fs::read(&file).unwrap();
        assert!(host.read(&container).is_ok_and(|found| found.name.is_some()), "{path}");
        let put = |bytes: &[u8]| fs::write(&file, bytes).unwrap();
        let owner = fs::metadata(&file).unwrap();
        let owned = || {
            use std::os::unix::fs::MetadataExt as _;
            chown(&file, Some(owner.uid()), None).unwrap();
        };
        for at in [0, 1, whole.len() / 2, whole.len() - 3] {
            put(&whole[..at]);
            assert_eq!(host.read(&container), Err(Miss::NotJson), "{path}: {at} bytes");
        }
        for text in
            [&b"\x7fELF\0\xff"[..], b"null", b"[1, 2]", b"\"text\"", b"{\"ID\": 7, \"id\": 7, \"linux\": []}"]
        {
            put(text);
            assert_eq!(host.read(&container), Err(Miss::NotJson), "{path}: {}", text.escape_ascii());
        }
        put("[".repeat(100_000).as_bytes());
        assert_eq!(host.read(&container), Err(Miss::NotJson), "{path}: deep");
        File::options().write(true).open(&file).unwrap().set_len(100 << 20).unwrap();
        assert_eq!(host.read(&container), Err(Miss::TooLarge), "{path}");
        if let Some(other) = of_another {
            put(&fs::read(host.path(&other)).unwrap());
            assert_eq!(host.read(&container), Err(Miss::WrongId), "{path}");
        } else {
            put(b"[]");
            assert_eq!(host.read(&container), Err(Miss::NotFound), "{path}: a list of others");
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(host.read(&container), Err(Miss::NotFound), "{path}");
        mkfifoat(CWD, &file, Mode::from(0o600)).unwrap();
        owned();
        assert_eq!(host.read(&container), Err(Miss::NotRegular), "{path}");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        owned();
        assert_eq!(host.read(&container), Err(Miss::NotRegular), "{path}");
        fs::remove_dir(&file).unwrap();
        // A link to what would be right.
        fs::write(file.with_extension("moved"), &whole).unwrap();
        symlink(file.with_extension("moved").file_name().unwrap(), &file).unwrap();
        assert_eq!(host.read(&container), Err(Miss::Symlink), "{path}");
        fs::remove_file(&file).unwrap();
        put(&whole);
        owned();
        assert!(host.read(&container).is_ok(), "{path}: right again");
    }
}

/// Whatever a byte of a file is, reading it ends well, and what is read is about the container that was asked for.
#[test]
fn a_changed_byte_is_no_harm() {
    use proptest::prelude::{ProptestConfig, any, prop_assert};
    use proptest::sample::Index;
    for (host, container, path, _) in main_files() {
        let file = host.path(&path);
        let whole = fs::read(&file).unwrap();
        let id = container.id.as_bytes();
        let ids: Vec<usize> = (0..whole.len()).filter(|at| whole[*at..].starts_with(id)).collect();
        proptest::proptest!(ProptestConfig::with_cases(200), |(at in any::<Index>(), byte: u8)| {
            let mut bytes = whole.clone();
            bytes[at.index(whole.len())] = byte;
            fs::write(&file, bytes).unwrap();
            if let Ok(found) = host.read(&container) {
                prop_assert!(found.name.is_none_or(|name| name.len() <= 4 * MAX_TEXT_BYTES));
            }
        });
        // Another id in each place that names the container.
        let mut bytes = whole.clone();
        for at in ids {
            bytes[at + 3] ^= 1;
        }
        fs::write(&file, bytes).unwrap();
        assert!(matches!(host.read(&container), Err(Miss::WrongId | Miss::NotFound)), "{path}");
    }
}
