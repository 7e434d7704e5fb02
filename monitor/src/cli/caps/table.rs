//! Tables of `caps`.

use std::fmt::Write as _;

use super::{span, whose};
use crate::capabilities::{CapInfo, CapsInfo, CapsListing, Count};
use crate::cli::containers::{cell, short, width};
use crate::cli::rules::visible;

/// Stands where there is nothing.
const NONE: &str = "-";

/// A line per container.
pub(super) fn list(listing: &CapsListing) -> String {
    if listing.containers.is_empty() {
        return "no containers\n".to_owned();
    }
    let mut titles = vec![
        "CONTAINER",
        "NAME",
        "IMAGE",
        "STATE",
        "WATCHED",
        "START",
        "GRANTED",
        "USED",
        "REFUSED",
        "UNUSED",
    ];
    // Only where there are such.
    let any = |is: &dyn Fn(&CapsInfo) -> bool| listing.containers.iter().any(is);
    let (users, nested) = (any(&|info| info.user.is_some()), any(&|info| !info.inside.is_empty()));
    titles.extend(users.then_some("USER"));
    titles.extend(nested.then_some("INSIDE"));
    let mut rows = vec![titles.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for info in &listing.containers {
        let summary = info.summary();
        let known = |number: Option<usize>| number.map_or("?".to_owned(), |number| number.to_string());
        let mut row = vec![
            short(&info.id),
            text(info.name.as_deref()),
            text(info.image.as_deref()),
            if info.running { "running" } else { "ended" }.to_owned(),
            span(info.observed_seconds),
            if info.start_seen { "seen" } else { "unseen" }.to_owned(),
            known(summary.granted),
            summary.used.to_string(),
            summary.refused.to_string(),
            known(summary.unused),
        ];
        row.extend(users.then(|| info.user.map_or(NONE.to_owned(), |user| user.to_string())));
        row.extend(nested.then(|| info.inside.first().map_or(NONE.to_owned(), |outer| short(outer))));
        rows.push(row);
    }
    let mut out = grid(&rows);
    out.push_str(&shortages(listing));
    out
}

/// Everything about one.
pub(super) fn detail(info: &CapsInfo, listing: &CapsListing) -> String {
    let mut out = String::new();
    let named = [info.name.as_deref(), info.image.as_deref()];
    let named: Vec<String> = named.into_iter().flatten().map(visible).collect();
    let state = if info.running { "running" } else { "ended" };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "container {} ({}), {}, {state}{}",
        short(&visible(&info.id)),
        or_none(&named),
        visible(&info.runtime),
        whose(info)
    );
    let _ = writeln!(out, "{}", observation(info));
    match &info.granted {
        None => out.push_str("what it was granted is not known: none of its programs was seen to begin\n"),
        Some(granted) if granted.from == "proc" => {
            out.push_str("what it was granted is read from its running processes, for it ran already\n");
        }
        Some(_) => {}
    }
    if info.own_user_namespace == Some(true) {
        out.push_str("it has a user namespace of its own: what it uses there counts as used\n");
    }
    out.push('\n');
    let titles = ["CAPABILITY", "GRANTED", "USED", "REFUSED", "FIRST", "LAST", "LAST CALL", "APART"]
        .map(str::to_owned);
    let mut rows = vec![titles.to_vec()];
    rows.extend(info.capabilities.iter().map(|cap| row(info, cap)));
    if rows.len() == 1 {
        out.push_str("no capability was granted, and none was asked for\n");
    } else {
        out.push_str(&grid(&rows));
    }
    out.push('\n');
    out.push_str(&summary(info));
    out.push_str(&shortages(listing));
    out
}

fn row(info: &CapsInfo, cap: &CapInfo) -> Vec<String> {
    let used = info.used(cap);
    let both = [used, cap.refused.as_ref()];
    let first = both.into_iter().flatten().map(|count| count.first.as_str()).min();
    let last = both.into_iter().flatten().max_by(|a, b| a.last.cmp(&b.last));
    let number = |count: Option<&Count>, none: &str| match count {
        Some(count) if count.perhaps_silent > 0 => format!("{}?", count.count),
        Some(count) => count.count.to_string(),
        None => none.to_owned(),
    };
    let granted = match cap.granted.as_deref() {
        Some("permitted") => "yes",
        Some("bounding") => "bounding",
        Some(_) => "no",
        None => "?",
    };
    let unused = match cap.is_granted() {
        true if info.is_unused(cap) => "never",
        true if cap.needed_by_file => "by file",
        // Only shown where no use of its own was counted.
        true => "perhaps",
        false => NONE,
    };
    let mut apart = Vec::new();
    let pairs = [
        (
            "child",
            cap.used_in_child.as_ref().filter(|_| used != cap.used_in_child.as_ref()),
            &cap.refused_in_child,
        ),
        ("silent", cap.silent_allowed.as_ref(), &cap.silent_denied),
    ];
    for (word, allowed, denied) in pairs {
        if allowed.is_some() || denied.is_some() {
            let of = |count: Option<&Count>| count.map_or(0, |count| count.count);
            apart.push(format!("{word} {}+{}", of(allowed), of(denied.as_ref())));
        }
    }
    if let Some(runtime) = &cap.runtime {
        apart.push(format!("runtime {}", runtime.count));
    }
    vec![
        cap.capability.clone(),
        granted.to_owned(),
        number(used, unused),
        number(cap.refused.as_ref(), NONE),
        first.map_or(NONE.to_owned(), second),
        last.map_or(NONE.to_owned(), |count| second(&count.last)),
        last.and_then(|count| count.last_call.clone()).unwrap_or(NONE.to_owned()),
        or_none(&apart),
    ]
}

/// A time without the parts of its second.
fn second(time: &str) -> String {
    match time.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => time.to_owned(),
    }
}

/// For how long it was watched, and what that leaves out.
pub(super) fn observation(info: &CapsInfo) -> String {
    let start = if info.start_seen {
        "its start was seen"
    } else {
        "it ran already: what it did at its start was not seen"
    };
    let mut out = format!(
        "watched for {} between {} and {}; {start}",
        span(info.observed_seconds),
        second(&visible(&info.since)),
        second(&visible(&info.until))
    );
    if info.restarts > 0 {
        let _ = write!(out, "; started again {} times", info.restarts);
    }
    if info.gaps > 0 {
        let _ = write!(out, "; {} times it went on while no daemon watched", info.gaps);
    }
    out
}

fn summary(info: &CapsInfo) -> String {
    let mut out = String::new();
    let mut line = |what: &str, is: &dyn Fn(&CapInfo) -> bool| {
        let names: Vec<String> =
            info.capabilities.iter().filter(|cap| is(cap)).map(|cap| visible(&cap.capability)).collect();
        if !names.is_empty() {
            let _ = writeln!(out, "{what}: {}", names.join(" "));
        }
    };
    line("granted and never used", &|cap| info.is_unused(cap));
    line("granted, and perhaps used without being counted", &|cap| {
        cap.is_granted() && info.used(cap).is_none() && info.may_be_uncounted(cap)
    });
    line(
        "granted, and perhaps used in cgroups below its own, where runtime and container are not told apart",
        &|cap| cap.is_granted() && info.used(cap).is_none() && cap.runtime_below,
    );
    line("granted, never used, and a file capability without which a program does not begin", &|cap| {
        cap.is_granted() && info.used(cap).is_none() && cap.needed_by_file
    });
    line("refused", &|cap| cap.refused.is_some());
    line("used although never granted to a program that began", &|cap| {
        info.used(cap).is_some() && cap.granted.as_deref() == Some("no")
    });
    let any = |is: &dyn Fn(&CapInfo) -> bool| info.capabilities.iter().any(is);
    let unclear = |count: &Option<Count>| count.as_ref().is_some_and(|count| count.perhaps_silent > 0);
    if any(&|cap| unclear(&cap.used) || unclear(&cap.refused)) {
        out.push_str("?: this kernel does not say whether it only looked, so some of these may be silent\n");
    }
    if any(&|cap| cap.used_in_child.is_some() || cap.refused_in_child.is_some()) {
        out.push_str("child: passed+failed in user namespaces other than the initial one\n");
    }
    if any(&|cap| cap.silent_allowed.is_some() || cap.silent_denied.is_some()) {
        out.push_str(
            "silent: passed+failed where the kernel only looked; no refusals of what was asked for\n",
        );
    }
    if any(&|cap| cap.runtime.is_some()) {
        out.push_str("runtime: by the runtime that built or entered the container, with rights of its own\n");
    }
    if info.files_unseen {
        out.push_str("not looked at: the files of some programs, which may have capabilities that they need to begin\n");
    }
    let lost = &info.lost;
    if lost.no_room > 0 {
        let _ = writeln!(
            out,
            "not counted: while it ran {} checks of all containers together found no room; those that were passed asked for {}",
            lost.no_room,
            or_none(&lost.capabilities.iter().map(|name| visible(name)).collect::<Vec<_>>())
        );
    }
    if lost.skipped > 0 {
        let _ =
            writeln!(out, "not counted: while it ran the kernel skipped the counting {} times", lost.skipped);
    }
    out
}

/// What the daemon could not keep, of all containers.
fn shortages(listing: &CapsListing) -> String {
    let mut out = String::new();
    let CapsListing { forgotten, refused, unattributed, .. } = listing;
    for (number, what) in [
        (forgotten, "ended containers were forgotten for newer ones"),
        (refused, "containers found no room, or their names were too long"),
        (unattributed, "checks were of cgroups that nobody could name"),
    ] {
        if *number > 0 {
            let _ = writeln!(out, "since the daemon's start {number} {what}");
        }
    }
    out
}

fn text(text: Option<&str>) -> String {
    text.map_or(NONE.to_owned(), str::to_owned)
}

fn or_none(texts: &[String]) -> String {
    if texts.is_empty() { NONE.to_owned() } else { texts.join(", ") }
}

/// Rows of equal length below each other; the first has the titles.
fn grid(rows: &[Vec<String>]) -> String {
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|text| cell(text)).collect()).collect();
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| {
        cells.iter().filter_map(|row| row.get(column)).map(|text| width(text)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(widest).collect();
    let mut out = String::new();
    for row in &cells {
        let mut line = String::new();
        for (text, columns) in row.iter().zip(&widths) {
            line.push_str(text);
            line.push_str(&" ".repeat(columns.saturating_sub(width(text)) + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
