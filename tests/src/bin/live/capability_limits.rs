//! The capability ledger at its limits, against numbers of checks that are known: a container that churns through
//! capabilities, ten thousand cgroups, a map that is full. Each check is in its row, or counted as one that found no room.
//!
//! Other programs of the machine are checked, too. What must be exact of the whole machine is asked of [`QUIET`]
//! capabilities alone.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use monitor_common::capability::{CAP_LEDGER_ENTRIES, CapCount, CapKey, cap_flag};
use monitor_common::caps::Cap;
use serde_json::Value;
use tests::cgroup::{self, Cgroup};
use tests::harness::alerts::Expectation;
use tests::harness::{PATIENCE, Settings};

use crate::capability::Told;
use crate::cases::cases;
use crate::shared::{self, Case, Life};

/// Capabilities that nothing else on a machine asks for while the suite runs.
const QUIET: [Cap; 3] = [Cap::NetBroadcast, Cap::IpcOwner, Cap::Lease];
/// For how long rows of a removed cgroup stay in the kernel's map (`GRACE_NS` of the daemon).
const GRACE: Duration = Duration::from_secs(30);

/// A daemon that several cases use one after the other.
const LIFE: Life<Running> =
    Life { start, last: "capability-limits::rows_of_removed_cgroups_leave", end: rows_leave };
/// The same in guests, where nobody waits for rows to leave: the wait takes as long there, on each of their kernels, and
/// nothing of it is a matter of the kernel.
const LIFE_IN_GUESTS: Life<Running> = Life {
    start,
    last: "capability-limits::the_daemon_ends_well",
    end: |_, running| running.told.daemon.stop()?.check(),
};

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    let life = if settings.guest { LIFE_IN_GUESTS } else { LIFE };
    let of_one: [(&str, Case<Running>); 2] = [
        ("capability-limits::each_of_many_cgroups_is_exact", many),
        ("capability-limits::churn_through_all_capabilities_is_exact", churn),
    ];
    let mut trials = shared::trials(settings, life, &of_one);
    // While the rows of the many must stay.
    let last = trials.pop();
    trials.extend(cases(settings, &[("capability-limits::a_full_map_counts_what_it_lacks", full)]));
    trials.extend(last);
    trials
}

struct Running {
    told: Told,
    removed: Mutex<Option<Removed>>,
}

/// Cgroups that were removed, and the container that they were of.
struct Removed {
    container: String,
    cgroups: HashMap<u64, Asked>,
    /// The daemon had noticed by then.
    at: Instant,
    /// What it said of the container.
    told: Value,
}

/// Checks that were made in a cgroup for one capability.
#[derive(Clone, Copy)]
struct Asked {
    denied: bool,
    count: u64,
}

/// Numbers of checks by capability and by whether they were denied.
type Sides = BTreeMap<(u16, bool), u64>;

fn start(settings: &Settings) -> Result<Running, String> {
    // Nothing is told: it is the numbers that count.
    let rules = "- rule: None\n  id: none\n  desc: None.\n  condition: evt.type = reboot\n  output: none\n  priority: NOTICE\n";
    Ok(Running { told: started(settings, rules)?, removed: Mutex::default() })
}

fn started(settings: &Settings, rules: &str) -> Result<Told, String> {
    let quiet = ["--canary-interval-ms", "off", "--metadata-wait-ms", "0", "--ring-bytes", "67108864"];
    Told::start_with(settings, rules, &quiet)
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

/// A container's cgroup, as Docker names it.
fn container(seed: &str) -> Result<(String, Cgroup), String> {
    let id = cgroup::container_id(&format!("limits {seed}"));
    let cgroup = Cgroup::make(&format!("docker/{id}")).map_err(text)?;
    Ok((id, cgroup))
}

/// Sends a program of a container on a tour.
fn begin(settings: &Settings, cgroup: &Cgroup, arguments: &[&str]) -> Result<Child, String> {
    let mut command = Command::new(&settings.attempt);
    command.arg("tour").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    cgroup.contain(&mut command);
    command.spawn().map_err(|error| format!("attempt: {error}"))
}

/// What it said.
fn end(child: Child) -> Result<Value, String> {
    let output = child.wait_with_output().map_err(|error| format!("attempt: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_str(&text).map_err(|fault| format!("{fault}: {text}{error}"))
}

fn tour(settings: &Settings, cgroup: &Cgroup, arguments: &[&str]) -> Result<Value, String> {
    end(begin(settings, cgroup, arguments)?)
}

/// Numbers that a program said.
fn sides(said: &Value) -> Result<Sides, String> {
    let mut sides = Sides::new();
    for (denied, side) in [(false, "allowed"), (true, "denied")] {
        for (name, count) in said[side].as_object().ok_or(format!("no {side}: {said}"))? {
            let cap =
                Cap::ALL.iter().find(|cap| cap.name() == name).ok_or(format!("no capability {name}"))?;
            sides.insert((*cap as u16, denied), count.as_u64().ok_or("no number")?);
        }
    }
    Ok(sides)
}

fn add(all: &mut Sides, more: &Sides, times: u64) {
    more.iter().for_each(|(key, count)| *all.entry(*key).or_default() += count * times);
}

/// A look for CAP_SYS_ADMIN in a call that is not about it: for memory, which is no part of a tour.
fn is_look(key: &CapKey) -> bool {
    key.cap == Cap::SysAdmin as u16 && key.flags & cap_flag::GROUP == 0
}

/// What stands in these cgroups' rows of their own programs' checks.
fn counted(rows: &[(CapKey, u64)], belongs: impl Fn(u64) -> bool) -> Result<Sides, String> {
    let mut sides = Sides::new();
    for (key, count) in rows.iter().filter(|(key, _)| belongs(key.cgroup_id) && !is_look(key)) {
        let CapKey { cap, flags, .. } = *key;
        if flags & cap_flag::VISITOR != 0 && cap == Cap::SysAdmin as u16 {
            // Before its exec: it makes its mount namespace.
            continue;
        }
        if flags & (cap_flag::VISITOR | cap_flag::CHILD_NS | cap_flag::SILENT) != 0 {
            return Err(format!("{count} checks for capability {cap} with flags {flags:#x}"));
        }
        *sides.entry((cap, flags & cap_flag::DENIED != 0)).or_default() += count;
    }
    Ok(sides)
}

/// Nothing is there that was not made, and no more is missing than the kernel `skipped` runs of probes, which is none as a
/// rule.
fn hold(what: &str, found: &Sides, made: &Sides, skipped: u64) -> Result<(), String> {
    let mut missing = 0;
    for key in found.keys().chain(made.keys()) {
        let of = |sides: &Sides| sides.get(key).copied().unwrap_or(0);
        let wrong = format!("{what}: capability and denied {key:?}: {} instead of {}", of(found), of(made));
        missing += of(made).checked_sub(of(found)).ok_or(wrong.clone())?;
        if missing > skipped {
            return Err(format!("{wrong}; {skipped} runs of probes were skipped"));
        }
    }
    Ok(())
}

/// The daemon's numbers for the whole machine.
struct Numbers {
    counted: Sides,
    uncounted: Sides,
    skipped: u64,
}

impl Numbers {
    /// As of now: to ask makes the daemon look.
    fn of(settings: &Settings, told: &Told) -> Result<Numbers, String> {
        ask(settings, told, &["-o", "json"])?.0?;
        let metrics = told.daemon.metrics()?;
        let all = |name: &str| {
            let mut sides = Sides::new();
            for cap in Cap::ALL {
                for (denied, result) in [(false, "allowed"), (true, "denied")] {
                    let value = metrics.sum(name, &[("capability", cap.name()), ("result", result)]);
                    sides.insert((*cap as u16, denied), value.ok_or(format!("no series {name}"))? as u64);
                }
            }
            Ok::<Sides, String>(sides)
        };
        Ok(Numbers {
            counted: all("ringfence_capability_checks_total")?,
            uncounted: all("ringfence_capability_checks_uncounted_total")?,
            skipped: told.daemon.skipped()?,
        })
    }

    fn since(&self, before: &Numbers) -> Numbers {
        let less = |now: &Sides, then: &Sides| {
            now.iter().map(|(key, count)| (*key, count - then.get(key).copied().unwrap_or(0))).collect()
        };
        Numbers {
            counted: less(&self.counted, &before.counted),
            uncounted: less(&self.uncounted, &before.uncounted),
            skipped: self.skipped - before.skipped,
        }
    }
}

/// Of the capabilities that only we ask for.
fn quiet(sides: &Sides) -> Sides {
    let is_quiet = |cap: u16| QUIET.iter().any(|quiet| *quiet as u16 == cap);
    sides
        .iter()
        .filter(|((cap, _), count)| is_quiet(*cap) && **count > 0)
        .map(|(key, count)| (*key, *count))
        .collect()
}

/// Asks `ringfence caps`: what it printed, or why not; and its exit status.
fn ask(
    settings: &Settings,
    told: &Told,
    arguments: &[&str],
) -> Result<(Result<String, String>, Option<i32>), String> {
    let mut command = Command::new(&settings.ringfence);
    command.arg("caps").arg("--socket").arg(told.daemon.control_socket()).args(arguments);
    let output = command.output().map_err(|error| format!("ringfence caps: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) };
    Ok((said, output.status.code()))
}

/// Waits until what is said of a container holds: the pipeline may have much to read before it knows of it.
fn await_told(
    settings: &Settings,
    told: &Told,
    id: &str,
    holds: impl Fn(&Value) -> Result<(), String>,
) -> Result<Value, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let judged = ask(settings, told, &[id, "-o", "json"])?.0.and_then(|text| {
            let said: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
            holds(&said).map(|()| said)
        });
        match judged {
            Ok(said) => return Ok(said),
            Err(fault) if Instant::now() > end => return Err(fault),
            // The daemon takes its time between two looks.
            Err(_) => {}
        }
    }
}

/// What is said of a container's own checks.
fn said_of(said: &Value) -> Sides {
    let mut sides = Sides::new();
    for told in said["capabilities"].as_array().into_iter().flatten() {
        let Some(cap) = Cap::ALL.iter().find(|cap| told["capability"] == cap.name()) else { continue };
        for (denied, kind) in [(false, "used"), (true, "refused")] {
            if let Some(count) = told[kind]["count"].as_u64() {
                sides.insert((*cap as u16, denied), count);
            }
        }
    }
    // Of this one a kernel that does not tell looks apart counts those, too.
    sides.retain(|(cap, _), _| *cap != Cap::SysAdmin as u16);
    sides
}

/// Holds what is said of a container, and in no other kind of row, against what was made in it.
fn await_said(
    settings: &Settings,
    told: &Told,
    id: &str,
    made: &Sides,
    skipped: u64,
) -> Result<Value, String> {
    let made: Sides =
        made.iter().filter(|((cap, _), _)| *cap != Cap::SysAdmin as u16).map(|(k, v)| (*k, *v)).collect();
    await_told(settings, told, id, |said| hold("caps", &said_of(said), &made, skipped))
}

/// Two programs of a container at once ask for every capability, in turns with it and without.
fn churn(settings: &Settings, Running { told, .. }: &Running) -> Result<(), String> {
    let rounds = if settings.guest { "30" } else { "500" };
    let before = Numbers::of(settings, told)?;
    let (id, cgroup) = container("churn")?;
    let children =
        [begin(settings, &cgroup, &["--rounds", rounds])?, begin(settings, &cgroup, &["--rounds", rounds])?];
    let mut made = Sides::new();
    for child in children {
        add(&mut made, &sides(&end(child)?["home"])?, 1);
    }
    let own = cgroup.id().map_err(text)?;
    let rows = told.every_row()?;
    let since = Numbers::of(settings, told)?.since(&before);
    let found = counted(&rows, |id| id == own)?;
    hold("rows", &found, &made, since.skipped)?;
    hold("metrics", &quiet(&since.counted), &quiet(&made), since.skipped)?;
    let all = made
        .iter()
        .all(|(key, count)| since.counted.get(key).is_some_and(|all| all + since.skipped >= *count));
    if !all || !quiet(&since.uncounted).is_empty() {
        return Err(format!(
            "made {made:?}, but counted {:?} and uncounted {:?}",
            since.counted, since.uncounted
        ));
    }
    await_said(settings, told, &id, &made, since.skipped)?;
    let asked = made.keys().map(|(cap, _)| cap).collect::<std::collections::BTreeSet<_>>().len();
    println!("  {} checks for {asked} capabilities", made.values().sum::<u64>());
    // Fewer would be no churn: the kernel lacks the calls.
    if asked < 25 { Err(format!("only {asked} capabilities were asked for")) } else { Ok(()) }
}

/// One container makes ten thousand cgroups of its own, and asks in each: its program is in none of them a visitor.
fn many(settings: &Settings, running: &Running) -> Result<(), String> {
    let told = &running.told;
    let count: u64 = if settings.guest { 500 } else { 10_000 };
    let before = Numbers::of(settings, told)?;
    let (id, cgroup) = container("many")?;
    let path = cgroup.path().display().to_string();
    let said =
        tour(settings, &cgroup, &["--only", "CAP_LEASE", "--below", &path, "--count", &count.to_string()])?;
    let cgroups = made_below(&cgroup, count)?;
    let rows = told.every_row()?;
    let since = Numbers::of(settings, told)?.since(&before);
    let (mut made, mut found) = (Sides::new(), Sides::new());
    for Asked { denied, count } in cgroups.values() {
        *made.entry((Cap::Lease as u16, *denied)).or_default() += count;
    }
    for (key, count) in rows.iter().filter(|(key, _)| !is_look(key)) {
        let Some(asked) = cgroups.get(&key.cgroup_id) else { continue };
        let flags = key.flags & !cap_flag::MAYBE_SILENT;
        let wanted = if asked.denied { cap_flag::DENIED } else { 0 };
        if key.cap != Cap::Lease as u16
            || flags != wanted
            || *count > asked.count
            || *count + since.skipped < asked.count
        {
            return Err(format!("{key:?}: {count} instead of {}", asked.count));
        }
        *found.entry((key.cap, asked.denied)).or_default() += count;
    }
    // What is in no row found no room.
    let mut both = found.clone();
    add(&mut both, &quiet(&since.uncounted), 1);
    hold("rows and uncounted", &both, &made, since.skipped)?;
    let mut all = sides(&said["home"])?;
    add(&mut all, &found, 1);
    hold("metrics", &quiet(&since.counted), &quiet(&all), since.skipped)?;
    let told_of = await_said(settings, told, &id, &all, since.skipped)?;
    println!(
        "  {count} cgroups, {} checks counted of {}",
        found.values().sum::<u64>(),
        made.values().sum::<u64>()
    );
    for number in 0..count {
        fs::remove_dir(cgroup.path().join(format!("t{number}"))).map_err(text)?;
    }
    cgroup.remove().map_err(text)?;
    await_told(settings, told, &id, |said| {
        if said["running"] == false { Ok(()) } else { Err("it runs".to_owned()) }
    })?;
    let removed = Removed { container: id, cgroups, at: Instant::now(), told: told_of };
    *running.removed.lock().unwrap_or_else(PoisonError::into_inner) = Some(removed);
    Ok(())
}

/// The cgroups that a tour made, and what was asked in each.
fn made_below(cgroup: &Cgroup, count: u64) -> Result<HashMap<u64, Asked>, String> {
    (0..count)
        .map(|number| {
            let directory = fs::metadata(cgroup.path().join(format!("t{number}"))).map_err(text)?;
            Ok((directory.ino(), Asked { denied: number >= count / 2, count: 1 + number % 3 }))
        })
        .collect()
}

/// Rows of cgroups that are gone stay for a while, and then make room; what they told stays.
fn rows_leave(settings: &Settings, running: Running) -> Result<(), String> {
    let taken = || running.removed.lock().unwrap_or_else(PoisonError::into_inner).take();
    let removed = match taken() {
        Some(removed) => removed,
        None => {
            // Asked for alone.
            many(settings, &running)?;
            taken().ok_or("nothing was removed")?
        }
    };
    let Running { told, .. } = running;
    let there = || -> Result<usize, String> {
        let rows = told.every_row()?;
        Ok(rows
            .iter()
            .filter(|(key, _)| !is_look(key) && removed.cgroups.contains_key(&key.cgroup_id))
            .count())
    };
    let early = there()?;
    // The daemon noticed at some time before, so this tells nothing if it was much.
    if removed.at.elapsed() < GRACE / 2 && early != removed.cgroups.len() {
        return Err(format!(
            "{early} rows of {} cgroups just after these were removed",
            removed.cgroups.len()
        ));
    }
    // That time is what is tested.
    std::thread::sleep(GRACE.saturating_sub(removed.at.elapsed()));
    let after = await_told(settings, &told, &removed.container, |_| Ok(()))?;
    let late = there()?;
    if late != 0 {
        return Err(format!(
            "{late} rows are left {:?} after their cgroups were removed",
            removed.at.elapsed()
        ));
    }
    hold("caps, afterwards", &said_of(&after), &said_of(&removed.told), 0)?;
    hold("caps, afterwards", &said_of(&removed.told), &said_of(&after), 0)?;
    println!("  {early} rows there at first, none at the end");
    told.daemon.stop()?.check()
}

/// The map is filled, and one container begins before that and one after.
fn full(settings: &Settings) -> Result<(), String> {
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
    let hog = if settings.guest { fill_with_rows(&told)? } else { fill_by_checks(settings, &told, &first)? };
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
        told.daemon
            .expect(&first_check.must("evt.phase", tests::harness::alerts::Must::Be("running".to_owned())))?;
    }
    drop(hog);
    println!("  {} checks of one that came too late", of_late.values().sum::<u64>());
    told.daemon.stop()?.check()
}

/// What is said of who came too late: nothing is called unused that may have been used.
fn tells_of_shortage(settings: &Settings, told: &Told, id: &str, made: &Sides) -> Result<(), String> {
    let lost: u64 = made.values().sum();
    let said = await_told(settings, told, id, |said| match said["lost"]["no_room"].as_u64() {
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
    let table = ask(settings, told, &[id])?.0?;
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
    for format in ["docker", "compose", "kubernetes", "systemd"] {
        let patch = [id, "--patch", format, "--min-observation", "0s"];
        let refused = ask(settings, told, &patch)?;
        let is_so =
            |why: &String| why.contains("no advice") && why.contains("found no room in the kernel's map");
        if refused.1 != Some(1) || !refused.0.as_ref().is_err_and(is_so) {
            return Err(format!("--patch {format} with checks missing: {refused:?}"));
        }
        let taken = ask(settings, told, &[&patch[..], &["--accept-losses"]].concat())?.0?;
        if !taken.contains("CAUTION: checks may have gone uncounted") {
            return Err(format!("--patch {format} without a word of what is missing:\n{taken}"));
        }
    }
    Ok(())
}

/// A container fills the map with rows of cgroups that it makes, and asks in each for everything. What of it found no room
/// is counted, and each of its other rows is exact.
fn fill_by_checks(settings: &Settings, told: &Told, before: &Numbers) -> Result<Option<Hog>, String> {
    // A few more than there is room for: each takes a row for every capability.
    const CGROUPS: u64 = 2600;
    let (_, cgroup) = container("hog")?;
    let path = cgroup.path().display().to_string();
    let said = tour(settings, &cgroup, &["--below", &path, "--count", &CGROUPS.to_string()])?;
    let hog = Hog { cgroups: made_below(&cgroup, CGROUPS)?, cgroup };
    let rows = told.every_row()?;
    let since = Numbers::of(settings, told)?.since(before);
    let (mut made, each) = (sides(&said["home"])?, sides(&said["each"])?);
    for asked in hog.cgroups.values() {
        let side =
            each.iter().filter(|((_, denied), _)| *denied == asked.denied).map(|(key, count)| (*key, *count));
        add(&mut made, &side.collect(), asked.count);
    }
    let own = hog.cgroup.id().map_err(text)?;
    let found = counted(&rows, |id| id == own || hog.cgroups.contains_key(&id))?;
    // Each row is whole: one that found no room at first finds none later.
    for (key, count) in rows.iter().filter(|(key, _)| !is_look(key)) {
        let Some(asked) = hog.cgroups.get(&key.cgroup_id) else { continue };
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
        None => Ok(Some(hog)),
        Some((key, count)) => {
            Err(format!("capability and denied {key:?}: {count} made, {all:?} counted somewhere"))
        }
    }
}

/// A container with many cgroups; they go with it.
struct Hog {
    cgroups: HashMap<u64, Asked>,
    cgroup: Cgroup,
}

impl Drop for Hog {
    fn drop(&mut self) {
        for number in 0..self.cgroups.len() {
            // What stays shows as a cgroup that cannot be removed.
            let _ = fs::remove_dir(self.cgroup.path().join(format!("t{number}")));
        }
    }
}

/// Fills the map as if checks had been made in cgroups that there are not: tens of thousands of real ones take an emulated
/// processor too long.
fn fill_with_rows(told: &Told) -> Result<Option<Hog>, String> {
    let map = told.ledger()?;
    let row = CapCount { count: 0, first_ns: 1, last_ns: 1, ..CapCount::default() };
    let value: Vec<u8> =
        [row.count, row.first_ns, row.last_ns, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    for number in 0..=u64::from(CAP_LEDGER_ENTRIES) {
        let key: Vec<u8> = [u64::MAX - number, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        match map.set(&key, &value) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => return Ok(None),
            Err(error) => return Err(text(error)),
        }
    }
    Err("the map has no end".to_owned())
}
