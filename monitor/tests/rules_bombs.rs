//! Rule files that try to cost much: each is refused or loaded in bounded time and memory. Alone in its binary,
//! because it counts what is allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use monitor::rules::RuleSet;

/// Counts live bytes and their greatest number.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What one file may cost.
const MEMORY: usize = 16 << 20;

/// The time is that of a release build; without optimisation, and with others on the machine, the bound only tells
/// that nothing explodes.
const TIME: Duration =
    if cfg!(debug_assertions) { Duration::from_secs(20) } else { Duration::from_millis(50) };

/// A file may have this many bytes.
const LARGEST: usize = 1 << 20;

/// As many copies as fit into a file.
fn filled(head: &str, unit: &str) -> String {
    let mut text = String::with_capacity(LARGEST);
    text.push_str(head);
    while text.len() + unit.len() <= LARGEST {
        text.push_str(unit);
    }
    text
}

/// Ten aliases of ten aliases of ten aliases …
fn billion_laughs(leaf: &str) -> String {
    let mut bomb = format!("- &a0 [{}]\n", [leaf; 10].join(", "));
    for i in 1..12 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("- &a{i} [{aliases}]\n"));
    }
    bomb
}

/// Name, file, and what is said of it; either of two if there is a bar between them.
fn bombs() -> Vec<(&'static str, String, &'static str)> {
    let long = "x".repeat(200 << 10);
    let mut aliased = format!("- list: l\n  items:\n    - &a {long}\n");
    (0..1000).for_each(|_| aliased.push_str("    - *a\n"));
    let mut anchors = String::from("- list: l\n  items:\n");
    (0..50_000).for_each(|i| anchors.push_str(&format!("    - &a{i} x\n")));
    let wide = format!("- rule: {{{}}}\n", "a: b, ".repeat(1000));
    let rule = "- rule: R\n  desc: d\n  condition: nosuch\n  output: '%no.such'\n  priority: INFO\n";
    let items = |count: usize, item: &dyn Fn(usize) -> String| {
        let items: Vec<String> = (0..count).map(item).collect();
        format!("- list: l\n  items: [{}]\n", items.join(", "))
    };
    let using = |count: usize, test: &str| -> String {
        let rule = |i| format!("- {{rule: R{i}, desc: d, condition: '{test}', output: o, priority: INFO}}\n");
        (0..count).map(rule).collect()
    };
    let globs = items(9000, &|i| format!("/{i}/?")) + &using(4, "proc.name glob anyof (l)");
    let below = items(9000, &|i| format!("/{i}/*/x")) + &using(4, "proc.exepath pmatch (l)");
    let copies = items(9000, &|i| format!("n{i}")) + &using(100, "proc.name in (l)");
    let expressions: String = (0..2000)
        .map(|i| using(1, &format!("proc.name regex a{i}[a-zä-ü]{{30}}")).replace("R0", &format!("R{i}")))
        .collect();
    let mut lists = items(9, &|i| format!("n{i}"));
    (0..30).for_each(|i| {
        lists.push_str(&format!(
            "- list: l{i}\n  items: [{}]\n",
            vec![if i == 0 { "l".to_owned() } else { format!("l{}", i - 1) }; 9].join(", ")
        ))
    });
    let rules = (0..10_000).map(|i| rule.replace("rule: R", &format!("rule: R{i}"))).collect();
    vec![
        ("a billion laughs", billion_laughs("x"), "YAML nodes, aliases expanded"),
        ("fewer but longer laughs", billion_laughs(&"x".repeat(2000)), "aliases expanded"),
        ("a long text by many aliases", aliased, "2 MiB of text, aliases expanded"),
        ("nested brackets", "[".repeat(100_000), "nested more than 32 deep|recursion limit"),
        (
            "nested brackets that close",
            "[".repeat(100_000) + &"]".repeat(100_000),
            "nested more than 32 deep|recursion limit",
        ),
        ("nested braces", "{a: ".repeat(100_000), "nested more than 32 deep|recursion limit"),
        ("nested dashes", "- ".repeat(100_000), "nested more than 32 deep|recursion limit"),
        ("an enormous text", filled("- list: ", "xxxxxxxx"), "one text of more than 256 KiB"),
        ("an enormous quoted text", filled("- list: \"", "xx\\n"), ""),
        ("an enormous block", filled("- list: |\n", "     xxxxxxxxxxx\n"), "one text of more than 256 KiB"),
        ("many anchors", anchors, "more than 1000 anchors"),
        ("many members", filled("- list: l\n  items:\n", "    - a\n"), "YAML nodes"),
        ("many members in a line", filled("- list: l\n  items: [", "a,"), "YAML nodes"),
        ("many items that are wrong", filled("", "- x: y\n"), ""),
        ("many documents", filled("", "---\nx\n"), ""),
        ("many keys", filled("- list: l\n", "  k: v\n"), ""),
        ("a wide key", filled("- ? ", "[a, b], "), ""),
        ("many errors in one line", filled("[", "{a: b}, "), ""),
        ("wide keys", filled("", &wide), ""),
        ("many rules that are wrong", rules, ""),
        ("many comments", filled("", "# nothing\n"), ""),
        ("many globs", globs, "all patterns of the rules together take more than 6 MiB"),
        ("many paths with wildcards", below, "all patterns of the rules together take more than 6 MiB"),
        ("many regular expressions", expressions, "all patterns of the rules together take more than 6 MiB"),
        ("a long list in many rules", copies, "members from lists"),
        ("lists of lists of lists", lists, "members from lists"),
        ("a file of blanks", filled("", "        "), ""),
    ]
}

/// What is allocated by one test is not to be counted in the other.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn bombs_cost_little() {
    let _turn = TURN.lock().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bomb.yaml");
    let mut dear = Vec::new();
    for (name, text, said) in bombs() {
        fs::write(&file, &text).unwrap();
        drop(text);
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let start = Instant::now();
        let loaded = RuleSet::load(std::slice::from_ref(&file));
        let time = start.elapsed();
        let peak = PEAK.load(Ordering::Relaxed) - before;
        println!("{name:32} {:6} KiB {time:9.2?}", peak >> 10);
        // Each pattern that is compiled has its price, and a set of rules may have some hundreds.
        let time_allowed = if said.contains("patterns") { TIME * 10 } else { TIME };
        if peak > MEMORY || time > time_allowed {
            dear.push(format!("{name}: {peak} bytes, {time:?}"));
        }
        if !said.is_empty() {
            let error = loaded.unwrap_err();
            let found = error.diagnostics()[0].message();
            assert!(said.split('|').any(|said| found.contains(said)), "{name}: {found}");
        }
    }
    assert!(dear.is_empty(), "{}", dear.join("\n"));
}

/// A large but honest file is loaded: the bounds are not in its way. Lists are bounded by how often they are used,
/// because every use is a copy.
#[test]
fn large_files_of_honest_rules_are_loaded() {
    let _turn = TURN.lock().unwrap();
    let list = |name: &str, members: usize| {
        let members: Vec<String> = (0..members).map(|i| format!("tool-{i}")).collect();
        format!("- list: {name}\n  items: [{}]\n", members.join(", "))
    };
    let rule = |i: usize, list: &str| {
        let condition = format!("evt.type = setns and proc.name in ({list})");
        format!("- rule: R{i}\n  desc: d\n  condition: {condition}\n  output: o\n  priority: INFO\n")
    };
    let mut text = list("many", 15_000) + &list("few", 50) + &rule(0, "many");
    (1..1000).for_each(|i| text.push_str(&rule(i, "few")));
    let rules = RuleSet::from_sources(&[("large.yaml", &text)]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(rules.rules().len(), 1000);

    (1000..1100).for_each(|i| text.push_str(&rule(i, "many")));
    let error = RuleSet::from_sources(&[("larger.yaml", &text)]).unwrap_err();
    assert!(error.diagnostics()[0].message().contains("members from lists"), "{error}");
}
