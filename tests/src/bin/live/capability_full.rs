//! A full map of capability checks: what finds no room is counted, and nothing passes for unused that may have been used.

use monitor_common::capability::CAP_LEDGER_ENTRIES;
use monitor_common::caps::Cap;
use serde_json::Value;
use tests::cgroup::{self, Cgroup};
use tests::harness::Settings;
use tests::harness::alerts::{Expectation, Must};

use crate::capability::Told;
use crate::capability_counts::{
    Below, Numbers, Sides, add, ask, await_said, await_told, container, counted, hold, is_look, quiet, sides,
    started, text, tour,
};

/// The map is filled, and one container begins before that and one after.
pub(crate) fn full(settings: &Settings) -> Result<(), String> {
    let late_id = cgroup::container_id("limits late");
    let rule = format!(
        "- rule: Late\n  id: late\n  desc: The first check of its kind.\n  \
         condition: evt.type = capability and cap.name = CAP_NET_BROADCAST and container.id = \"{}\"\n  \
         output: \"%cap.name %evt.verdict %evt.phase %container.id\"\n  priority: NOTICE\n",
        &late_id[..12]
    );
    let told = started(settings, &rule)?;
    let first = Numbers::of(settings, &told)?;
    let (web_id, web) = container("web")?;
    let few = ["--only", "CAP_NET_BROADCAST,CAP_LEASE", "--rounds", "7"];
    let mut of_web = sides(&tour(settings, &web, &few)?["home"])?;
    let (_, hog) = container("hog")?;
    let full = fill_by_checks(settings, &told, &hog, &first)?;
    let before = Numbers::of(settings, &told)?;
    let keys = told.ledger()?.keys().map_err(text)?.len();
    if keys != CAP_LEDGER_ENTRIES as usize {
        return Err(format!("{keys} rows in a map of {CAP_LEDGER_ENTRIES} that was to be full"));
    }
    let (_, late) = container("late")?;
    let of_late = sides(&tour(settings, &late, &["--rounds", "7"])?["home"])?;
    add(&mut of_web, &sides(&tour(settings, &web, &few)?["home"])?, 1);
    let rows = told.every_row()?;
    let since = Numbers::of(settings, &told)?.since(&before);
    // Who came too late has no row, and each check of its is counted as one without.
    let [late_cgroup, web_cgroup] = [late.id().map_err(text)?, web.id().map_err(text)?];
    if let Some(row) = rows.iter().find(|(key, _)| key.cgroup_id == late_cgroup) {
        return Err(format!("there is room in a full map: {row:?}"));
    }
    hold("uncounted", &quiet(&since.uncounted), &quiet(&of_late), since.skipped)?;
    let short = of_late
        .iter()
        .find(|(key, count)| since.uncounted.get(key).is_none_or(|all| all + since.skipped < **count));
    if let Some((key, count)) = short {
        return Err(format!(
            "capability and denied {key:?}: {count} checks, uncounted {:?}",
            since.uncounted
        ));
    }
    // Who has rows goes on.
    let skipped = told.daemon.skipped()?;
    hold("rows of who was there before", &counted(&rows, |id| id == web_cgroup)?, &of_web, skipped)?;
    await_said(settings, &told, &web_id, &of_web, skipped)?;
    tells_of_shortage(settings, &told, &late_id, &of_late)?;
    for verdict in ["allowed", "refused"] {
        // A full map blinds no rule.
        let first_check = Expectation::new().is("rule", "Late").is("evt.verdict", verdict);
        told.daemon.expect(&first_check.must("evt.phase", Must::Be("running".to_owned())))?;
    }
    drop(full);
    println!("  {} checks of one that came too late", of_late.values().sum::<u64>());
    told.daemon.stop()?.check()
}

/// What is said of who came too late: nothing is called unused that may have been used.
fn tells_of_shortage(settings: &Settings, told: &Told, id: &str, made: &Sides) -> Result<(), String> {
    let lost: u64 = made.values().sum();
    let said = await_told(settings, &told.daemon, id, |said| match said["lost"]["no_room"].as_u64() {
        Some(no_room) if no_room >= lost => Ok(()),
        other => Err(format!("{lost} checks found no room; caps tells of {other:?}: {said:#}")),
    })?;
    let names: Vec<&str> =
        said["lost"]["capabilities"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let used =
        made.keys().filter(|(_, denied)| !denied).filter_map(|(cap, _)| Cap::ALL.get(usize::from(*cap)));
    let used: Vec<&str> = used.map(|cap| cap.name()).collect();
    if let Some(missing) = used.iter().find(|cap| !names.contains(*cap)) {
        return Err(format!("{missing} was used without being counted, and caps tells of {names:?} only"));
    }
    let table = ask(settings, &told.daemon, &[id])?.0?;
    let never = table.lines().find(|line| line.starts_with("granted and never used")).unwrap_or_default();
    let is_never = |cap: &&&str| {
        let row = table.lines().find(|line| line.starts_with(**cap)).unwrap_or_default();
        never.split([' ', ':']).any(|word| word == **cap)
            || row.split_whitespace().any(|word| word == "never")
    };
    if let Some(cap) = used.iter().find(is_never) {
        return Err(format!("{cap} was used without being counted, and passes for unused:\n{table}"));
    }
    if !table.contains("not counted: while it ran") {
        return Err(format!("nothing tells of what is missing:\n{table}"));
    }
    // Of one format each: the daemon takes a while for an answer when the map is full.
    let patch = |format| [id, "--patch", format, "--min-observation", "0s"];
    let refused = ask(settings, &told.daemon, &patch("docker"))?;
    let is_so = |why: &String| why.contains("no advice") && why.contains("found no room in the kernel's map");
    if refused.1 != Some(1) || !refused.0.as_ref().is_err_and(is_so) {
        return Err(format!("--patch with checks missing: {refused:?}"));
    }
    let taken = ask(settings, &told.daemon, &[&patch("kubernetes")[..], &["--accept-losses"]].concat())?.0?;
    if taken.contains("CAUTION: checks may have gone uncounted") {
        return Ok(());
    }
    Err(format!("--patch without a word of what is missing:\n{taken}"))
}

/// A container fills the map with rows of cgroups that it makes, and asks in each for everything. What of it found no room
/// is counted, and each of its other rows is exact.
fn fill_by_checks<'c>(
    settings: &Settings,
    told: &Told,
    hog: &'c Cgroup,
    before: &Numbers,
) -> Result<Option<Below<'c>>, String> {
    // A few more than there is room for: each takes a row for every capability.
    const CGROUPS: u64 = 2600;
    let (below, said) = Below::tour(settings, hog, CGROUPS, &[])?;
    let rows = told.every_row()?;
    let since = Numbers::of(settings, told)?.since(before);
    let (mut made, each) = (sides(&said["home"])?, sides(&said["each"])?);
    for asked in below.cgroups.values() {
        let side =
            each.iter().filter(|((_, denied), _)| *denied == asked.denied).map(|(key, count)| (*key, *count));
        add(&mut made, &side.collect(), asked.count);
    }
    let own = hog.id().map_err(text)?;
    let found = counted(&rows, |id| id == own || below.cgroups.contains_key(&id))?;
    // Each row is whole: one that found no room at first finds none later.
    for (key, count) in rows.iter().filter(|(key, _)| !is_look(key)) {
        let Some(asked) = below.cgroups.get(&key.cgroup_id) else { continue };
        let of_one = each.get(&(key.cap, asked.denied)).ok_or(format!("{key:?}: nobody asked for it"))?;
        if *count > asked.count * of_one || *count + since.skipped < asked.count * of_one {
            return Err(format!("{key:?}: {count} instead of {}", asked.count * of_one));
        }
    }
    let short = made.values().sum::<u64>() - found.values().sum::<u64>();
    println!("  {} rows, {} checks, {short} of them found no room", rows.len(), made.values().sum::<u64>());
    if short == 0 {
        return Err(format!("{CGROUPS} cgroups with {} capabilities do not fill the map", each.len()));
    }
    let mut both = quiet(&found);
    add(&mut both, &quiet(&since.uncounted), 1);
    hold("rows and uncounted", &both, &quiet(&made), since.skipped)?;
    // Others' new checks found no room either.
    let mut all = found;
    add(&mut all, &since.uncounted, 1);
    match made.iter().find(|(key, count)| all.get(key).is_none_or(|all| all + since.skipped < **count)) {
        None => Ok(Some(below)),
        Some((key, count)) => {
            Err(format!("capability and denied {key:?}: {count} made, {all:?} counted somewhere"))
        }
    }
}
