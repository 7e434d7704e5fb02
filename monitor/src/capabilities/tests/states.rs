//! The state directory: private, bounded, and not believed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;
use crate::capabilities::record::{decode, encode, file_name};
use crate::capabilities::run::Run;
use crate::capabilities::state::stored;
use crate::capabilities::table::Kept;
use crate::capabilities::{StateError, Who};

fn kept(number: u64) -> Kept {
    let world = World::new();
    world.make(number, &path(number));
    world.grant(number, 3, 7);
    world.check(number, 13, 0, number + 1);
    let mut keeper = world.keeper(BOOT, None);
    world.pass(&mut keeper, 10);
    let mut run = keeper.table().runs().next().unwrap().0.clone();
    run.until += number;
    run.dirty = false;
    Kept { boot: Arc::from(BOOT), offset: OFFSET, running: true, run, written: true }
}

fn write(dir: &Path, kept: &Kept) -> std::path::PathBuf {
    state(dir).write(kept).unwrap();
    dir.join("capabilities").join(file_name(&kept.boot, kept.run.cgroup))
}

#[test]
fn records_come_back_as_they_were() {
    let one = kept(7);
    let again = decode(&encode(&one).unwrap()).unwrap();
    assert_eq!((again.run, again.boot, again.offset, again.running), (one.run, one.boot, OFFSET, true));
}

#[test]
fn the_directory_is_private_and_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("state");
    let open = State::open(&at).unwrap();
    open.write(&kept(7)).unwrap();
    open.settle().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&at), mode(&at.join("capabilities"))), (0o700, 0o700));
    for entry in fs::read_dir(at.join("capabilities")).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    assert!(matches!(State::open(&at), Err(StateError::InUse { .. })));
    assert_eq!(stored(&at).unwrap().0.containers.len(), 1, "who reads needs no lock");
    drop(open);
    // A mode that somebody opened is closed again.
    fs::set_permissions(at.join("capabilities"), Permissions::from_mode(0o755)).unwrap();
    drop(State::open(&at).unwrap());
    assert_eq!(mode(&at.join("capabilities")), 0o700);
}

#[test]
fn a_directory_of_others_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("state");
    fs::create_dir(&at).unwrap();
    fs::set_permissions(&at, Permissions::from_mode(0o777)).unwrap();
    let error = State::open(&at).unwrap_err();
    assert!(matches!(error, StateError::Untrusted { .. }), "{error}");
    fs::set_permissions(&at, Permissions::from_mode(0o700)).unwrap();
    symlink("/tmp", at.join("capabilities")).unwrap();
    assert!(matches!(State::open(&at), Err(StateError::Io { .. })), "a link is not followed");
    assert!(stored(&dir.path().join("none")).is_err());
}

#[test]
fn damage_is_refused_with_a_reason_and_harms_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let good = write(dir.path(), &kept(7));
    let text = fs::read_to_string(&good).unwrap();
    let inside = dir.path().join("capabilities");
    let at = |cgroup: u64| inside.join(file_name(BOOT, cgroup));
    let mine = |cgroup: u64| text.replacen("\"cgroup\":7", &format!("\"cgroup\":{cgroup}"), 1);
    let changed = |cgroup: u64, from: &str, to: &str| {
        assert!(text.contains(from), "{from} in {text}");
        fs::write(at(cgroup), mine(cgroup).replacen(from, to, 1)).unwrap();
    };
    fs::write(at(0x100), "").unwrap();
    fs::write(at(0x101), &text[..text.len() / 2]).unwrap();
    fs::write(at(0x102), b"\xff\xfe{}").unwrap();
    fs::write(at(0x103), "[".repeat(100_000)).unwrap();
    fs::write(at(0x104), " ".repeat(600 << 10)).unwrap();
    changed(0x105, "\"version\":1", "\"version\":2");
    changed(0x106, "\"running\":true", "\"running\":true,\"more\":1");
    changed(0x107, "[13,0,", "[64,0,");
    changed(0x108, "[13,0,", "[13,32768,");
    changed(0x109, "[13,0,8,", "[13,0,0,");
    changed(0x10a, "\"rows\":[", "\"rows\":[[13,0,8,1,2,0,0],");
    changed(0x10b, "\"since\":", "\"since\":9");
    changed(0x10c, "\"name\":\"", &format!("\"name\":\"{}", "x".repeat(2000)));
    changed(0x10d, BOOT, "../../../../../../../../etc/pass");
    changed(0x10e, "\"observed\":", "\"observed\":-");
    fs::write(at(0x10f), &text).unwrap();
    fs::write(inside.join("x.json"), &text).unwrap();
    symlink(&good, at(0x110)).unwrap();
    fs::create_dir(at(0x111)).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(at(0x112)).status().unwrap();
    assert!(fifo.success());
    fs::write(at(0x113), mine(0x113)).unwrap();
    fs::set_permissions(at(0x113), Permissions::from_mode(0o666)).unwrap();
    // What a killed daemon left.
    fs::write(inside.join(".writing"), "half").unwrap();
    let files = fs::read_dir(&inside).unwrap().count() as u64;

    let open = state(dir.path());
    let loaded = open.load().unwrap();
    assert_eq!(
        loaded.kept.len(),
        1,
        "{:?}",
        loaded.kept.iter().map(|kept| kept.run.cgroup).collect::<Vec<_>>()
    );
    assert_eq!(loaded.refused_count, files - 3, "all but the good one, the lock and the half one");
    assert!(loaded.refused.iter().all(|(_, reason)| !reason.is_empty()));
    open.write(&kept(8)).unwrap();
    let world = World::new();
    let keeper = world.keeper(BOOT, Some(open));
    assert_eq!(keeper.listing().containers.len(), 0, "what ran before waits until it is known what runs");
    drop(keeper);
    let (listing, refused) = stored(dir.path()).unwrap();
    assert_eq!((listing.containers.len(), refused.is_empty()), (2, false));
}

#[test]
fn the_oldest_go_first_when_there_are_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let open = state(dir.path());
    for number in [5, 1, 4, 2, 3] {
        open.write(&kept(number)).unwrap();
    }
    let size = fs::metadata(dir.path().join("capabilities").join(file_name(BOOT, 1))).unwrap().len();
    let few = open.bounded(3, u64::MAX);
    let numbers = |kept: &[Kept]| kept.iter().map(|kept| kept.run.cgroup).collect::<Vec<_>>();
    let loaded = few.load().unwrap();
    assert_eq!((numbers(&loaded.kept), loaded.dropped.len()), (vec![3, 4, 5], 2));
    // Room for two, and for what a round may write besides.
    let small = few.bounded(100, size * 3 - 1);
    assert_eq!(numbers(&small.load().unwrap().kept), [4, 5]);
    // The daemon removes them, and counts.
    let world = World::new();
    let mut keeper = world.keeper(BOOT, Some(small));
    keeper.round();
    assert_eq!(keeper.table().shortage().forgotten, 3);
    let left = fs::read_dir(dir.path().join("capabilities")).unwrap().count();
    assert_eq!(left, 2 + 1, "two records and the lock");
}

#[test]
fn bytes_are_bounded_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let most = 8 << 10;
    let world = World::new();
    let mut keeper = world.keeper(BOOT, Some(state(dir.path()).bounded(1000, most)));
    for number in 1..=40 {
        world.make(number, &path(number));
        for cap in 0..8 {
            world.check(number, cap, 0, 1);
        }
        world.pass(&mut keeper, 10);
        world.remove(number);
        world.pass(&mut keeper, 130);
        world.machine().places.clear();
        let files = fs::read_dir(dir.path().join("capabilities")).unwrap();
        let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= most, "{bytes} after {number}");
    }
    let forgotten = keeper.table().shortage().forgotten;
    assert!(forgotten > 0 && keeper.state_errors() == 0, "{forgotten}");
    assert_eq!(forgotten + keeper.table().archived().count() as u64, 40);
    assert!(told(&keeper, &id(40)).name.is_some(), "the latest stays");
}

#[test]
fn records_of_users_and_nested_containers_take_a_quarter_of_the_bytes() {
    let most = 32 << 10;
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    let mut keeper = world.keeper(BOOT, Some(state(dir.path()).bounded(1000, most)));
    let run = |keeper: &mut Keeper, path: &str, number: u64| {
        world.make(number, path);
        for cap in 0..16 {
            world.check(number, cap, 0, 1);
        }
        world.pass(keeper, 10);
    };
    for number in 1..=8 {
        run(&mut keeper, &path(number), number);
        world.remove(number);
    }
    world.pass(&mut keeper, 200);
    world.machine().places.clear();
    // These run on, and have more to tell than there is room for.
    for number in 100..140 {
        run(
            &mut keeper,
            &format!("/user.slice/user-1000.slice/user@1000.service/libpod-{}", id(number)),
            number,
        );
    }
    world.pass(&mut keeper, 200);
    assert_eq!((keeper.table().archived().count(), keeper.table().shortage().forgotten), (8, 0));
    assert!(keeper.state_errors() > 0, "who found no room is told of");
    // One that came last is written all the same.
    run(&mut keeper, &path(9), 9);
    keeper.finish();
    drop(keeper);
    let containers = stored(dir.path()).unwrap().0.containers;
    assert!((1..=9).all(|number| containers.iter().any(|info| info.id == id(number))));
    // What is over their part is left out when it is read, whatever its age.
    let less = state(dir.path()).bounded(1000, most / 2).load().unwrap();
    let theirs = less.kept.iter().filter(|kept| kept.run.cgroup >= 100).count();
    assert_eq!((less.kept.len() - theirs, theirs > 0), (9, true));
}

#[test]
fn a_disk_that_refuses_is_told_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let open = state(dir.path());
    let world = World::new();
    world.make(7, &path(7));
    let mut keeper = world.keeper(BOOT, Some(open));
    keeper.round();
    // The directory vanishes under it.
    fs::remove_dir_all(dir.path().join("capabilities")).unwrap();
    keeper.finish();
    assert_eq!(keeper.state_errors(), 1);
    assert_eq!(keeper.listing().containers.len(), 1, "it goes on without");
}

#[test]
fn the_largest_record_fits() {
    let mut run = Run::new(Arc::from("k".repeat(4096)), 7, Who::default(), 1);
    for cap in 0..64 {
        for flags in 0..32 {
            let tally =
                crate::capabilities::Tally { count: u64::MAX, first: 1, last: u64::MAX, nr: NO_CALL, abi: 2 };
            run.rows.insert((cap, flags), tally);
        }
    }
    run.until = u64::MAX;
    let dir = tempfile::tempdir().unwrap();
    let one = Kept { boot: Arc::from(BOOT), offset: i64::MIN, running: false, run, written: false };
    write(dir.path(), &one);
    let open = state(dir.path());
    assert_eq!(open.load().unwrap().kept.len(), 1);
    // And what is told of it overflows nowhere.
    let world = World::new();
    assert_eq!(world.keeper(BOOT, Some(open)).listing().containers.len(), 1);
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let mut one = kept(7);
    one.run.key = Arc::from("k".repeat(4097));
    assert!(encode(&one).is_err());
    let mut one = kept(7);
    one.run.who.image = Some("x".repeat(2000));
    assert!(encode(&one).is_err());
    // Containers in each other, with long names that escapes make longer.
    let deep = format!("/lxc.payload.{}", "\\".repeat(240)).repeat(12);
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    world.make(7, &deep);
    world.make(8, &path(8));
    world.check(7, 13, 0, 3);
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    world.pass(&mut keeper, 100);
    let listing = keeper.listing();
    assert_eq!((listing.containers.len(), listing.refused, keeper.state_errors()), (1, 1, 0));
    world.remove(7);
    world.pass(&mut keeper, 200);
    assert_eq!(keeper.table().shortage().unattributed, 3);
    assert_eq!(world.machine().rows.len(), 0);
}

#[test]
fn a_listing_that_was_cut_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let open = state(dir.path()).bounded(2, u64::MAX);
    for number in 1..=4 {
        open.write(&kept(number)).unwrap();
    }
    assert_eq!(open.load().unwrap().refused_count, 0);
    for number in 0..20 {
        fs::write(dir.path().join(format!("capabilities/.{number}")), "").unwrap();
    }
    let loaded = open.load().unwrap();
    assert!(loaded.refused.iter().any(|(_, reason)| reason.contains("entries")), "{:?}", loaded.refused);
    assert!(loaded.refused_count > 0);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn no_changed_byte_makes_it_panic(at in 0usize..2000, byte in proptest::num::u8::ANY) {
        let mut text = encode(&kept(7)).unwrap();
        let len = text.len();
        text[at % len] = byte;
        if let Ok(kept) = decode(&text) {
            // Whatever it says now can be told.
            let told = crate::capabilities::info::listing(
                std::iter::empty(), std::iter::once(&kept), "", 0, Default::default(),
            );
            proptest::prop_assert_eq!(told.containers.len(), 1);
        }
    }
}

#[test]
fn who_is_always_busy_does_not_keep_others_from_being_written() {
    const CONTAINERS: u64 = 600;
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    for number in 1..=CONTAINERS {
        world.make(number, &path(number));
    }
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    // A round writes 512, and by the next one all have done something again.
    for _ in 0..8 {
        for number in 1..=CONTAINERS {
            world.check(number, 7, 0, 1);
        }
        world.pass(&mut keeper, 10);
    }
    let written = stored(dir.path()).unwrap().0.containers.len();
    assert_eq!(written as u64, CONTAINERS);
}
