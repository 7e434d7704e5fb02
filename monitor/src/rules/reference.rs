//! The rules' reference, `docs/rules.md`: printed from the code and the shipped rules, never written by hand.

mod files;

use std::fmt::Write;

use super::ast::{Modifier, Operator, TransformKind};
use super::lint::Kind;
use super::rule::Rule;
use super::{Priority, RuleSet};

/// Prints the reference of the language and the table of the given rules.
pub fn markdown(rules: &RuleSet) -> String {
    let mut out = String::from(INTRODUCTION);
    files::markdown(&mut out);
    out.push_str(CONDITIONS);
    out.push_str("\n## Operators\n\n| Operator | True if | Works on | Example |\n|---|---|---|---|\n");
    out.push_str("| `exists` | the field has a value | everything | `cap.gained exists` |\n");
    for op in Operator::ALL {
        let (meaning, types, example) = operator(*op);
        row(&mut out, &[&code(op.word()), meaning, types, &code(example)]);
    }
    out.push_str(AFTER_OPERATORS);
    out.push_str("\n### Several values at once\n\n| Word | True if | Example |\n|---|---|---|\n");
    for modifier in Modifier::ALL {
        let (meaning, example) = self::modifier(*modifier);
        row(&mut out, &[&code(modifier.word()), meaning, &code(example)]);
    }
    out.push_str("\n## Transformers\n\n| Transformer | Gives | Example |\n|---|---|---|\n");
    for kind in TransformKind::ALL {
        let (meaning, example) = transformer(*kind);
        row(&mut out, &[&code(kind.word()), meaning, &code(example)]);
    }
    out.push_str(AFTER_TRANSFORMERS);
    tests(&mut out);
    out.push_str(THRESHOLDS);
    out.push_str(GROUPS);
    out.push_str(LINT);
    for kind in Kind::ALL {
        row(&mut out, &[&code(kind.word()), kind.meaning()]);
    }
    out.push_str(EDITORS);
    shipped(&mut out, rules.rules());
    out
}

const INTRODUCTION: &str = "\
# Rules

This file is generated from the code and from `rules/`. The fields stand in [fields.md](fields.md).

Rule files and conditions are those of Falco. A rule file is a YAML sequence of items:

```yaml
- list: shells
  items: [bash, dash, sh]

- macro: in_container
  condition: container.id != host

- rule: Clock set by a shell in a container
  id: clock-set-by-shell            # optional, kebab-case; else made from the title
  desc: A shell in a container set the clock. Check next who opened it.
  condition: evt.type = clock_settime and in_container and proc.name in (shells)
  output: Clock set by a shell (process=%proc.name container=%container.id verdict=%evt.verdict)
  priority: CRITICAL
  tags: [container, clock]          # optional
  attack: [T1562]                   # optional, ATT&CK ids
  maturity: stable                  # optional: stable, incubating, sandbox or deprecated
  references: []                    # optional
  threshold: {count: 3, within: 1m, by: [container.id]} # optional, see below
  group_by: [container.id]          # optional, see below
  group_seconds: 60                 # optional
  tests: []                         # optional, see Tests
  enabled: true                     # optional
```

All rules that match fire. An unknown key, field, operator, macro or list is an error with file, line and
column.

Priorities, by weight: EMERGENCY, ALERT, CRITICAL, ERROR, WARNING, NOTICE, INFORMATIONAL (or INFO), DEBUG, in any letter case.
";

const CONDITIONS: &str = "
## Conditions

A condition joins comparisons by `and`, `or`, `not` and parentheses; `not` binds tighter than `and`, `and`
tighter than `or`. A name without a dot is a macro. A comparison is a field, an operator and a value:
`proc.name = bash`, `proc.aname[2] startswith 'my '`, `evt.type in (setns, unshare)`. Quotes, single or
double, are needed around values with blanks, parentheses, commas, `=` or quotes. In quotes, a backslash stands
before the quote itself, before another backslash or a slash, and in `\\n`, `\\t`, `\\r`, `\\b`, `\\f` and `\\xHH`.

A comparison on a field that has no value is false, `!=` too; its negation by `not` is true. If a field has
several values, a comparison is true if some value fits, but for `!=` (no value may be equal) and `in` (all
values must be members).
";

const AFTER_OPERATORS: &str = "
Numbers are decimal, with sign, fraction and exponent, or hexadecimal with `0x`. A list on the right stands in
parentheses or is a list's name; a list's name among the members is spliced in. `val(field)` on the right
compares two fields: `proc.vpid = val(proc.pid)`. No field holds an address, so there is nothing to compare with
addresses and networks.
";

const AFTER_TRANSFORMERS: &str = "
Transformers nest: `tolower(basename(proc.exepath)) = nc`.

## Output templates

`%field`, `%field[argument]` and `%transformer(field)` stand for values, `%%` for a percent sign. A missing
value prints as `<NA>`, with or without the leading `*` that Falco wants for this. Control characters in
values print as `\\xHH`.
";

/// A rule with tests, which the reference shows; they come out.
pub const TESTED_RULE: &str = "\
- macro: in_container
  condition: container.id != host

- rule: Clock set in a container
  desc: A container set the clock. Check next whether it is a time server.
  condition: evt.type in (clock_settime, settimeofday) and in_container and evt.verdict = allowed
  output: Clock set in a container (process=%proc.name container=%container.id)
  priority: CRITICAL
  tests:
    - name: a container sets the clock
      event: {evt.type: clock_settime, container.id: 0123456789ab, evt.verdict: allowed}
      match: true
    - name: the kernel refuses
      event: {evt.type: clock_settime, container.id: 0123456789ab, evt.verdict: refused}
      match: false
";

fn tests(out: &mut String) {
    out.push_str("\n## Tests\n\nA rule carries tests in its file:\n\n```yaml\n");
    out.push_str(TESTED_RULE);
    out.push_str(ABOUT_TESTS);
}

const ABOUT_TESTS: &str = "\
```

`event` gives values to fields, named as in conditions (`proc.aname[2]`, `container.label[app]`); a text, a number, true
or false, or for a list of texts a sequence. A field that is not named is absent, and so is one that is null. `evt.type`
must be there. An unknown field, a value of another type, and a value that no event can have (`evt.verdict: refusd`)
are errors of the file.

`ringfence rules test [PATH…]` runs the tests, without root; it exits 1 if one does not come out. Each test asks its own
rule only, enabled or not. Of a rule that had to match it shows the nearest miss: a smallest set of comparisons of which
each had to come out otherwise, with the event's values. Of a rule that must not match but does, it shows a smallest set
that made it. `--complete` also wants of every rule a test that it matches and a near miss: one that it does not match
because of a single comparison. Take for it the matching event with the one fact changed that the rule is about.
`-o json` and `-o junit` are for programs; if the rules cannot be loaded, they have the mistakes as errors.

## Why

An event for the commands below is a file of YAML or JSON (`-` is standard input): a mapping as in tests, or an alert's
JSON line, of which the `output_fields` are taken, and the values of its `why`. An alert has only some of its event's
fields; what it does not tell of is absent.

- `ringfence rules eval EXPRESSION --event FILE` prints true or false. `--rules PATH` lets the expression use macros and
  lists.
- `ringfence rules explain ID --event FILE` shows the condition as a tree, macros opened, each comparison with its values
  and outcome, and marks what decided: of a match a smallest set that makes it, of a non-match the nearest miss.
- With `alert_why: true` in the configuration (or `run --why`) each alert has `why`: a smallest set of comparisons that
  made the rule match, at most 16.

Comparisons of one text are one comparison, wherever they stand. Which set is shown if several are as small is not
promised.
";

const THRESHOLDS: &str = "
## Thresholds

With a `threshold` a rule fires only when enough events matched within a time:

```yaml
  threshold:
    count: 5                        # 2 to 1000
    within: 1m                      # 1ms to 24h, such as 500ms, 60s, 5m, 1h
    by: [container.id, proc.name]   # optional, at most 8 fields: counted apart by their values
    distinct: evt.type              # optional: different values of this field are counted, not events
```

- The event that makes the count full fires; its alert has `threshold.count` and, in `threshold.since`, when the first
  of those counted happened. Then the count of that key begins anew: a flood raises one alert for each `count` events.
- Time is the time since boot that the events carry, never the wall clock. The first and the last event counted are at
  most `within` apart. An event that comes late counts if it lies within that time of the latest one of its key.
- Events without a value for a `by` field are counted together under that. Of a list the whole is the value.
- With `distinct`, an event without a value for the field is not counted; of a list each member is a value. A value
  counts for as long as its latest event lies within the time.
- Rules below `min_priority` count nothing.
- Counts are kept in memory only: they are gone when the daemon ends. When rules are exchanged, a rule that has the same
  id, condition and threshold goes on counting.
- Per rule at most 4,096 keys and 65,536 events or values are remembered, in all rules together about 262,144. If there
  is no room, the key that was quiet for longest is forgotten, and counted in
  `ringfence_table_evictions_total{table=\"thresholds\"}`.
";

const GROUPS: &str = "
## Groups

Alerts that are alike can be held together, so that a flood is a few lines with exact numbers:

```yaml
  group_by: [container.id, proc.exepath]  # at most 8 fields; []: all alerts of the rule
  group_seconds: 60                       # 1 to 86400; 0: not at all
```

- The first alert of a group is told at once. Those after it are held back, and told once per `group_seconds` in one
  line: an alert with the fields of the first of them and `group.count`, `group.first` and `group.last`, which say how many
  there were, and when the first and the last happened. A period in which nothing was held back ends the group: the next
  alert is a first one again.
- A rule that has only one of the keys takes the other from the configuration (`group_by`, `group_seconds`), which holds for
  all rules that have none. There it is 0, off, unless set: each alert has its line.
- Time is the time since boot that the events carry. Events without a value for a field are alike in that.
- Nothing is lost: what is held back is told when rules are exchanged and when the daemon ends. `ringfence replay` holds
  back the same.
- `ringfence_alerts_total` counts all alerts; `ringfence_alerts_suppressed_total{rule,reason=\"grouped\"}` those that had no
  line of their own.
- At most 4,096 groups are remembered. Where there is no room for another, its alerts pass, counted in
  `ringfence_table_evictions_total{table=\"groups\"}`.
";

const EDITORS: &str = "
## Editors

[rules.schema.json](rules.schema.json) describes rule files; `ringfence rules schema` prints it. An editor that uses
yaml-language-server completes keys, words and fields after a first line

```yaml
# yaml-language-server: $schema=/path/to/rules.schema.json
```

Conditions and outputs are texts to it: those are checked by `ringfence check`.
";

const LINT: &str = "
## The linter

`ringfence rules lint [PATH…]` says what is right and still most likely not what was meant, and exits with 1 if there is
anything but notes. A comment in an item, or right above it, silences kinds of findings for that item, and has to say why:

```yaml
# lint: allow shadowed, unused-list: the wide rule goes with the next release
- rule: …
```

| Kind | Found |
|---|---|
";

/// Meaning, types and an example.
fn operator(op: Operator) -> (&'static str, &'static str, &'static str) {
    const ALL: &str = "everything";
    const NUMBERS: &str = "numbers";
    const TEXTS: &str = "texts";
    match op {
        Operator::Eq => ("they are equal; also written `==`", ALL, "evt.verdict = refused"),
        Operator::Ne => ("the field has a value, and not this one", ALL, "container.id != host"),
        Operator::Lt => ("it is less", NUMBERS, "evt.rawres < 0"),
        Operator::Le => ("it is less or equal", NUMBERS, "user.uid <= 999"),
        Operator::Gt => ("it is greater", NUMBERS, "proc.ppid > 1"),
        Operator::Ge => ("it is greater or equal", NUMBERS, "user.uid >= 0x3e8"),
        Operator::Contains => ("the text stands in it", TEXTS, "cgroup.path contains kubepods"),
        Operator::Icontains => ("the same, ASCII letter case ignored", TEXTS, "proc.exepath icontains miner"),
        Operator::Bcontains => {
            ("the bytes stand in it, given in hexadecimal", TEXTS, "proc.exepath bcontains 2f746d70")
        }
        Operator::Startswith => ("it begins with the text", TEXTS, "proc.exepath startswith /tmp/"),
        Operator::Bstartswith => {
            ("it begins with the bytes, given in hexadecimal", TEXTS, "proc.exepath bstartswith 2f746d70")
        }
        Operator::Endswith => ("it ends with the text", TEXTS, "proc.exepath endswith /sh"),
        Operator::Glob => {
            ("it fits the pattern; `*` crosses `/`, too", TEXTS, "proc.exepath glob '/home/*/bin/[a-z]?'")
        }
        Operator::Iglob => ("the same, letter case ignored", TEXTS, "proc.exepath iglob *.SO"),
        Operator::Regex => (
            "the whole value fits the regular expression, in RE2's syntax",
            TEXTS,
            "proc.exepath regex '/tmp/[0-9a-f]{32}'",
        ),
        Operator::In => ("it is one of the list", ALL, "evt.type in (iopl, ioperm)"),
        Operator::Intersects => {
            ("it has a member in common with the list", ALL, "cap.gained intersects (CAP_SYS_ADMIN, CAP_BPF)")
        }
        Operator::Pmatch => {
            let meaning = "the path is one of the list, or lies below one; `*`, `?` and `[…]` may stand in those, and do \
                           not cross `/`";
            (meaning, TEXTS, "proc.exepath pmatch (/tmp, /home/*/bin)")
        }
    }
}

fn modifier(modifier: Modifier) -> (&'static str, &'static str) {
    match modifier {
        Modifier::OneOf => {
            ("the comparison is true with exactly one value", "fd.name startswith oneof (/etc, /root)")
        }
        Modifier::AnyOf => ("it is true with at least one value", "fd.name endswith anyof (.key, .pem)"),
        Modifier::AllOf => (
            "it is true with every value, and there is one",
            "cgroup.path contains allof (kubepods, burstable)",
        ),
    }
}

fn transformer(kind: TransformKind) -> (&'static str, &'static str) {
    match kind {
        TransformKind::Tolower => ("ASCII letters made small", "tolower(proc.name) = nc"),
        TransformKind::Toupper => ("ASCII letters made capital", "toupper(proc.name) = NC"),
        TransformKind::B64 => ("the text that the Base64 stands for", "b64(proc.name) contains sh"),
        TransformKind::Basename => ("what follows the last slash", "basename(proc.exepath) = sh"),
        TransformKind::Len => ("a number: bytes of a text, or members of a list", "len(cap.gained) > 10"),
        TransformKind::Join => {
            ("the values with the first one between them", "join('/', (proc.pname, proc.name)) = sh/nc")
        }
        TransformKind::Concat => ("the values put together", "concat(proc.pname, proc.name) = shnc"),
        TransformKind::Getopt => (
            "the options among program arguments and their values, by letters as in getopt(3); with a letter in \
             brackets the last value of that option",
            "getopt(proc.args, 'it:')[t] = host",
        ),
    }
}

fn shipped(out: &mut String, rules: &[Rule]) {
    out.push_str("\n## Shipped rules\n\n| Id | Priority | Tags | ATT&CK |\n|---|---|---|---|\n");
    for rule in rules {
        let attack = if rule.attack.is_empty() { "none".to_owned() } else { rule.attack.join(", ") };
        let id = format!("[{0}](#{0})", rule.id);
        row(out, &[&id, rule.priority.as_str(), &rule.tags.join(", "), &attack]);
    }
    for priority in Priority::ALL.iter().rev() {
        for rule in rules.iter().filter(|rule| rule.priority == *priority) {
            let disabled = if rule.enabled { "" } else { " (not enabled)" };
            let (id, name, desc) = (&rule.id, &rule.name, &rule.desc);
            // Writing to a String cannot fail.
            let _infallible = write!(
                out,
                "\n### {id}\n\n**{name}**, {priority}{disabled}\n\n{desc}\n\n```\n{}\n```\n",
                rule.condition
            );
        }
    }
}

fn row(out: &mut String, cells: &[&str]) {
    for cell in cells {
        out.push_str("| ");
        // A bar ends a cell, in code too.
        out.push_str(&cell.replace('|', "\\|"));
        out.push(' ');
    }
    out.push_str("|\n");
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// The rule files among the examples: each must load, with or without warnings, or the reference lies.
pub fn file_examples() -> Vec<&'static str> {
    files::examples().collect()
}

/// The configurations among the examples.
#[cfg(test)]
pub(crate) fn configuration_examples() -> Vec<&'static str> {
    files::configurations().collect()
}

/// The examples of all operators, modifiers and transformers: each must compile, or the reference lies.
pub fn examples() -> Vec<&'static str> {
    let mut examples: Vec<&str> = Operator::ALL.iter().map(|op| operator(*op).2).collect();
    examples.extend(Modifier::ALL.iter().map(|word| modifier(*word).1));
    examples.extend(TransformKind::ALL.iter().map(|kind| transformer(*kind).1));
    examples
}
