//! The choice of a hierarchy on hosts of each layout, and the two files that it rests on.

use super::*;

/// systemd since 2019: version 2 alone.
const UNIFIED: &str = "23 28 0:21 / /sys rw,nosuid shared:2 - sysfs sysfs rw\n\
    30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
const UNIFIED_OWN: &str = "0::/system.slice/ringfence.service\n";

/// systemd with `unified_cgroup_hierarchy=0`: controllers of version 1, version 2 for its own book-keeping.
const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup ro,nosuid shared:8 - tmpfs tmpfs ro,mode=755\n\
    32 31 0:29 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
    33 31 0:30 / /sys/fs/cgroup/systemd rw shared:10 - cgroup cgroup rw,xattr,name=systemd\n\
    34 31 0:34 / /sys/fs/cgroup/cpu,cpuacct rw shared:14 - cgroup cgroup rw,cpu,cpuacct\n\
    35 31 0:35 / /sys/fs/cgroup/pids rw shared:15 - cgroup cgroup rw,pids\n\
    36 31 0:36 / /sys/fs/cgroup/devices rw shared:16 - cgroup cgroup rw,devices\n";
const HYBRID_OWN: &str =
    "12:pids:/user.slice\n7:devices:/user.slice\n3:cpu,cpuacct:/\n1:name=systemd:/a:b\n0::/x\n";

/// `legacy_systemd_cgroup_controller=1`, or a host without systemd: version 1 alone.
const LEGACY: &str = "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
    34 31 0:34 / /sys/fs/cgroup/cpu\\040time rw - cgroup cgroup rw,cpu,cpuacct\n\
    35 31 0:35 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
const LEGACY_OWN: &str = "3:cpu,cpuacct:/\n2:pids:/docker/x\n";

fn choose(choice: &str, mountinfo: &str, own: &str) -> Result<Option<Hierarchy>, String> {
    let choice = choice.parse().unwrap();
    Hierarchy::choose(choice, mountinfo.as_bytes(), own.as_bytes()).map_err(|error| error.to_string())
}

/// Name, number and mount point.
fn chosen(choice: &str, mountinfo: &str, own: &str) -> Option<(&'static str, u32, String)> {
    let hierarchy = choose(choice, mountinfo, own).unwrap()?;
    Some((hierarchy.name(), hierarchy.number, hierarchy.root.display().to_string()))
}

#[test]
fn the_managers_hierarchy_is_chosen() {
    let v2 = |point: &str| Some(("v2", 0, point.to_owned()));
    assert_eq!(chosen("auto", UNIFIED, UNIFIED_OWN), v2("/sys/fs/cgroup"));
    let devices = Some(("devices", 7, "/sys/fs/cgroup/devices".to_owned()));
    assert_eq!(chosen("auto", HYBRID, HYBRID_OWN), devices);
    let pids = Some(("pids", 2, "/sys/fs/cgroup/pids".to_owned()));
    assert_eq!(chosen("auto", LEGACY, LEGACY_OWN), pids);
    assert_eq!(chosen("auto", "23 28 0:21 / /sys rw - sysfs sysfs rw\n", "0::/\n"), None);
    // A stray controller beside version 2, as some programs mount net_cls, holds no containers.
    let stray = format!("{UNIFIED}40 23 0:40 / /run/net_cls rw - cgroup net_cls rw,net_cls\n");
    assert_eq!(chosen("auto", &stray, "9:net_cls:/\n0::/\n"), v2("/sys/fs/cgroup"));
    // No manager would look here, but it is better than nothing.
    let elsewhere = "40 23 0:40 / /mnt rw - cgroup2 none rw\n";
    assert_eq!(chosen("auto", elsewhere, "0::/\n"), v2("/mnt"));
    // systemd's own hierarchy has no controller, so no task leads to it by a fixed place.
    assert_eq!(
        chosen("auto", "33 31 0:30 / /c rw - cgroup cgroup rw,name=devices\n", "1:name=devices:/\n"),
        None
    );
}

#[test]
fn what_was_mounted_last_in_the_usual_place_counts() {
    let over = format!("{UNIFIED}{HYBRID}");
    assert_eq!(chosen("auto", &over, HYBRID_OWN).map(|found| found.0), Some("devices"));
}

#[test]
fn another_choice_is_taken_or_refused() {
    let unified = Some(("v2", 0, "/sys/fs/cgroup/unified".to_owned()));
    assert_eq!(chosen("v2", HYBRID, HYBRID_OWN), unified);
    assert_eq!(
        chosen("cpuacct", LEGACY, LEGACY_OWN),
        Some(("cpuacct", 3, "/sys/fs/cgroup/cpu time".to_owned()))
    );
    let refused = choose("memory", HYBRID, HYBRID_OWN).unwrap_err();
    assert!(refused.contains("`memory` is not mounted"), "{refused}");
    assert!(refused.ends_with("auto, v2, devices, pids, cpu, cpuacct"), "{refused}");
    assert!(choose("v2", LEGACY, LEGACY_OWN).is_err());
    let unknown = "name=systemd".parse::<HierarchyChoice>().unwrap_err();
    assert!(unknown.contains("one of auto, v2, devices, pids"), "{unknown}");
}

#[test]
fn a_mount_of_the_whole_is_preferred_to_one_of_a_part() {
    let part = "40 23 0:36 /docker/x /c rw - cgroup cgroup rw,devices\n";
    assert_eq!(chosen("devices", part, HYBRID_OWN).unwrap().2, "/c");
    assert_eq!(
        chosen("devices", &format!("{part}{HYBRID}"), HYBRID_OWN).unwrap().2,
        "/sys/fs/cgroup/devices"
    );
}

#[test]
fn lines_of_a_process_are_read_whatever_its_path_holds() {
    let read: Vec<_> = lines(b"7:devices:/a:b\\n \xff\n3:cpu,cpuacct:/\n0::/x\n").collect();
    assert_eq!(read.len(), 3);
    assert_eq!(
        (read[0].number, read[0].controllers, read[0].path),
        (7, &b"devices"[..], &b"/a:b\\n \xff"[..])
    );
    assert!(read[1].has_controller(b"cpuacct") && !read[1].has_controller(b"cpu,cpuacct"));
    assert_eq!((read[2].number, read[2].controllers), (0, &b""[..]));
    for broken in
        [&b""[..], b"\n", b"x:y:/z", b"-1:y:/z", b"99999999999:y:/z", b"7:devices", b"7", b"\xff::/"]
    {
        assert_eq!(lines(broken).count(), 0, "{broken:?}");
    }
}

#[test]
fn a_path_does_not_lead_out_of_the_mount() {
    let below = |from: &str, path: &str| {
        let text = format!("0::{path}");
        lines(text.as_bytes()).next().unwrap().below_root(Path::new(from))
    };
    for (from, path, expected) in [
        ("", "/", ""),
        ("", "/docker/x", "docker/x"),
        // In a cgroup namespace whose root is a pod's container.
        ("kubepods/pod/own", "/", "kubepods/pod/own"),
        ("kubepods/pod/own", "/below", "kubepods/pod/own/below"),
        ("kubepods/pod/own", "/../other", "kubepods/pod/other"),
        ("kubepods/pod/own", "/../../../system.slice/x", "system.slice/x"),
        ("kubepods/pod/own", "/../../..", ""),
    ] {
        assert_eq!(below(from, path), Some(expected.into()), "{from} {path}");
    }
    for (from, outside) in [
        ("", "/.."),
        ("", "/../x"),
        ("", "/a/../../x"),
        ("", ""),
        ("", "x"),
        ("a", "/../.."),
        ("a/b", "/c/../d"),
    ] {
        assert_eq!(below(from, outside), None, "{from} {outside}");
    }
}

#[test]
fn mount_points_are_unescaped() {
    assert_eq!(unescape(br"/a\040b\134\011c"), b"/a b\\\tc");
    for plain in [&br"/a\04"[..], br"/a\9zz", br"/a\", b"", b"/\xff\\\xff\xff\xff", br"/a\777"] {
        assert_eq!(unescape(plain), plain);
    }
    for broken in ["", "1 2 3", "1 2 3 / /p rw", "1 2 3 / /p rw -", "- - - - -"] {
        assert!(Mount::parse(broken.as_bytes()).is_none(), "{broken}");
    }
}

#[test]
fn the_directory_of_a_process_is_found_on_this_machine() {
    let Some(hierarchy) = Hierarchy::find(HierarchyChoice::Auto).unwrap() else { return };
    let id = hierarchy.directory_of(std::process::id());
    assert!(id.is_some_and(|id| id != 0), "{hierarchy}: {id:?}");
    assert_eq!(hierarchy.directory_of(u32::MAX), None);
}
