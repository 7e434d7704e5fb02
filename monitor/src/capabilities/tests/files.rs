//! Programs whose files have capabilities: looked at once, told to their container, through restarts.

use super::*;

const BIND: u16 = 10;
const RAW: u16 = 13;
const BOTH: u64 = 1 << BIND | 1 << RAW;

fn world() -> World {
    let world = World::new();
    world.make(7, &path(7));
    world.grant(7, BOTH, BOTH);
    world
}

/// Whether each is needed, and whether something was not seen.
fn needs(keeper: &Keeper, number: u64) -> (bool, bool, bool) {
    let info = told(keeper, &id(number));
    let needed = |name| {
        let cap = cap(&info, name);
        assert_eq!(info.is_unused(&cap), !cap.needed_by_file, "{info:?}");
        cap.needed_by_file
    };
    (needed("CAP_NET_BIND_SERVICE"), needed("CAP_NET_RAW"), info.files_unseen)
}

#[test]
fn what_a_file_needs_is_told_and_it_is_looked_at_once() {
    let world = world();
    world.machine().files = HashMap::from([(b"/caddy".as_slice(), 1 << BIND), (b"/bin/sh".as_slice(), 0)]);
    let mut keeper = world.keeper_with(BOOT, None, HashMap::new(), 10);
    world.pass(&mut keeper, 10);
    assert_eq!(needs(&keeper, 7), (false, false, false));
    world.begin(7, &["/caddy", "/bin/sh"], false);
    world.pass(&mut keeper, 30);
    assert_eq!(needs(&keeper, 7), (true, false, false));
    assert_eq!(world.machine().looks.len(), 2);
    // The numbers and the series agree.
    assert_eq!(told(&keeper, &id(7)).summary().unused, Some(1));
    let metrics = crate::enrich::names::tests::metrics();
    metrics.add_source(keeper.metrics().clone()).unwrap();
    let text = metrics.encode().unwrap();
    let series: Vec<&str> =
        text.lines().filter(|line| line.starts_with("ringfence_capability_unused_info")).collect();
    assert!(series.len() == 1 && series[0].contains("CAP_NET_RAW"), "{series:?}");
    // Its end needs no look.
    world.remove(7);
    world.pass(&mut keeper, 10);
    assert_eq!(needs(&keeper, 7), (true, false, false));
    assert_eq!(world.machine().looks.len(), 2);
}

#[test]
fn what_credentials_told_needs_no_look() {
    let world = world();
    world.place(7, |place| place.grant.as_mut().unwrap().required = 1 << RAW);
    world.begin(7, &["/bin/ping"], true);
    let mut keeper = world.keeper(BOOT, None);
    world.pass(&mut keeper, 10);
    world.remove(7);
    world.pass(&mut keeper, 10);
    assert_eq!(needs(&keeper, 7), (false, true, false));
    // A look that succeeds adds what they did not tell.
    world.make(8, &path(8));
    world.grant(8, BOTH, BOTH);
    world.begin(8, &["/bin/ping"], true);
    world.machine().files.insert(b"/bin/ping", BOTH);
    world.pass(&mut keeper, 10);
    assert_eq!(needs(&keeper, 8), (true, true, false));
}

#[test]
fn a_look_that_fails_is_made_again_until_the_cgroup_is_gone() {
    let world = world();
    world.begin(7, &["/caddy"], false);
    let mut keeper = world.keeper(BOOT, None);
    world.pass(&mut keeper, 20);
    assert_eq!((needs(&keeper, 7), world.machine().looks.len()), ((false, false, true), 2));
    world.machine().files.insert(b"/caddy", 1 << BIND);
    world.pass(&mut keeper, 10);
    assert_eq!(needs(&keeper, 7), (true, false, false), "what came later is known");
    world.begin(7, &["/gone"], false);
    world.pass(&mut keeper, 10);
    assert!(told(&keeper, &id(7)).files_unseen);
    world.remove(7);
    world.pass(&mut keeper, 10);
    assert_eq!(needs(&keeper, 7), (true, false, true));
}

#[test]
fn what_found_no_room_is_told() {
    let world = world();
    world.place(7, |place| Arc::make_mut(place.programs.get_or_insert_default()).unnoted = true);
    let mut keeper = world.keeper(BOOT, None);
    world.pass(&mut keeper, 10);
    assert_eq!(needs(&keeper, 7), (false, false, true));
}

#[test]
fn a_cgroup_below_is_looked_at_by_who_lives_in_the_others() {
    let world = world();
    world.make(8, &format!("{}/unit.service", path(7)));
    world.begin(8, &["/caddy"], false);
    world.remove(8);
    world.machine().files.insert(b"/caddy", 1 << BIND);
    let mut keeper = world.keeper(BOOT, None);
    world.pass(&mut keeper, 10);
    assert_eq!(needs(&keeper, 7), (true, false, false));
}

#[test]
fn a_container_that_begins_again_is_not_looked_at_again_unless_it_has_but_a_name() {
    let world = World::new();
    world.machine().files.insert(b"/caddy", 1 << BIND);
    for (number, path) in [(7, path(7)), (8, "/lxc.payload.web".to_owned())] {
        world.make(number, &path);
        world.grant(number, BOTH, BOTH);
        world.begin(number, &["/caddy"], false);
    }
    let mut keeper = world.keeper(BOOT, None);
    world.pass(&mut keeper, 10);
    world.remove(7);
    world.remove(8);
    for (number, path) in [(17, path(7)), (18, "/lxc.payload.web".to_owned())] {
        world.make(number, &path);
        world.grant(number, BOTH, BOTH);
        world.begin(number, &["/caddy"], false);
    }
    world.machine().files.clear();
    world.remove(17);
    world.pass(&mut keeper, 10);
    assert_eq!(world.machine().looks.len(), 3);
    assert_eq!(needs(&keeper, 7), (true, false, false));
    let web = told(&keeper, "web");
    assert!(web.running && !cap(&web, "CAP_NET_BIND_SERVICE").needed_by_file, "another container: {web:?}");
}

#[test]
fn restarts_forget_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let world = world();
    world.make(8, &path(8));
    world.grant(8, BOTH, BOTH);
    world.machine().files.insert(b"/caddy", 1 << BIND);
    world.begin(7, &["/caddy"], false);
    world.begin(8, &["/gone"], false);
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    world.pass(&mut keeper, 10);
    assert_eq!((needs(&keeper, 7), needs(&keeper, 8)), ((true, false, false), (false, false, true)));
    keeper.finish();
    drop(keeper);
    for number in [7, 8] {
        world.place(number, |place| (place.before, place.grant, place.programs) = (true, None, None));
    }
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    world.pass(&mut keeper, 10);
    assert_eq!(needs(&keeper, 7), (true, false, false));
    assert_eq!(needs(&keeper, 8), (false, false, true), "nobody looks any more at what began before");
    keeper.finish();
    drop(keeper);

    // Another boot.
    let world = World::new();
    world.make(30, &path(7));
    world.grant(30, BOTH, BOTH);
    let mut keeper = world.keeper(OTHER_BOOT, Some(state(dir.path())));
    world.pass(&mut keeper, 10);
    assert_eq!(needs(&keeper, 7), (true, false, false));
}

#[test]
fn who_ran_before_is_looked_at_and_lets_others_be_found() {
    let world = world();
    world.begin(7, &["/caddy"], false);
    let running = world.machine().places[0].programs.take().unwrap();
    world.machine().running.insert(CgroupId(7), running);
    world.place(7, |place| (place.before, place.grant) = (true, None));
    world.machine().files.insert(b"/caddy", BOTH);
    let mut keeper = world.keeper(BOOT, None);
    world.pass(&mut keeper, 20);
    let info = told(&keeper, &id(7));
    assert!(info.granted.is_none() && !info.files_unseen);
    assert!(
        info.capabilities.len() == 2 && info.capabilities.iter().all(|cap| cap.needed_by_file),
        "{info:?}"
    );
    assert_eq!(world.machine().looks.len(), 1);
    world.begin(7, &["/ping"], false);
    world.pass(&mut keeper, 10);
    let found_by = world.machine().lived_with.clone();
    assert_eq!(found_by, [b"/caddy".to_vec(), b"/ping".to_vec()], "programs of those that may live there");
}

#[test]
fn a_record_of_an_earlier_form_says_that_nothing_was_looked_at() {
    use crate::capabilities::record::{decode, encode};
    let world = world();
    let mut keeper = world.keeper(BOOT, None);
    world.place(7, |place| place.grant.as_mut().unwrap().required = 1 << RAW);
    keeper.round();
    let run = keeper.table().runs().next().unwrap().0.clone();
    let kept = crate::capabilities::table::Kept {
        boot: Arc::from(BOOT),
        offset: 0,
        running: true,
        run,
        written: false,
    };
    let text = encode(&kept).unwrap();
    let read = decode(&text).unwrap().run;
    assert_eq!((read.required, read.unlooked), (1 << RAW, false));
    let mut form: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let members = form.as_object_mut().unwrap();
    assert!(members.remove("required").is_some() && members.remove("unlooked").is_some());
    let read = decode(form.to_string().as_bytes()).unwrap().run;
    assert_eq!((read.required, read.unlooked), (0, true));
}
