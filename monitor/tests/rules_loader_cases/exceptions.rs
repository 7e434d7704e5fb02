//! `exceptions`: forms, defaults, appending, replacing, expiry, and what is wrong with them.

use super::{Case, loads, refused};

/// A rule and the beginning of its exceptions; what follows begins in line 8 and with a key of the first exception.
macro_rules! rule {
    ($exceptions:literal) => {
        concat!(
            "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  exceptions:\n    - name: e\n",
            $exceptions
        )
    };
}

pub(crate) const CASES: &[Case] = &[
    loads(
        "a tuple of several fields",
        rule!(
            "      fields: [proc.name, proc.exepath]\n      comps: [=, startswith]\n      values:\n        \
               - [runc, /usr/bin/]\n        - [crun, /usr/local/]\n"
        ),
        &["R: (evt.type = setns) and not ((proc.name = runc and proc.exepath startswith /usr/bin/) or \
           (proc.name = crun and proc.exepath startswith /usr/local/))"],
        &[],
    ),
    loads(
        "several fields are compared by = if nothing is said",
        rule!("      fields: [proc.name, proc.exepath]\n      values: [[runc, /usr/bin/runc]]\n"),
        &["R: (evt.type = setns) and not ((proc.name = runc and proc.exepath = /usr/bin/runc))"],
        &[],
    ),
    loads(
        "a single field is compared by in if nothing is said",
        rule!("      fields: proc.name\n      values: [runc, crun]\n"),
        &["R: (evt.type = setns) and not (proc.name in (runc, crun))"],
        &[],
    ),
    loads(
        "a single field by pmatch and intersects",
        rule!(
            "      fields: proc.exepath\n      comps: pmatch\n      values: [/usr/bin, /opt]\n    - name: f\n      \
               fields: cap.gained\n      comps: intersects\n      values: [CAP_BPF]\n"
        ),
        &[
            "R: (evt.type = setns) and not (proc.exepath pmatch (/usr/bin, /opt)) and not (cap.gained intersects (CAP_BPF))",
        ],
        &[],
    ),
    loads(
        "an or in the rule stays together",
        "- rule: R\n  desc: d\n  condition: proc.name contains curl or proc.name contains wget\n  output: o\n  priority: INFO\n  \
         exceptions:\n    - name: e\n      fields: [proc.name]\n      comps: [contains]\n      values: [[curl 127.0.0.1]]\n",
        &[
            "R: (proc.name contains curl or proc.name contains wget) and not ((proc.name contains \"curl 127.0.0.1\"))",
        ],
        &[],
    ),
    loads(
        "values may come later",
        rule!("      fields: [proc.name, proc.exepath]\n      comps: [startswith, =]\n"),
        &["R: evt.type = setns"],
        &[],
    ),
    loads(
        "nothing behind exceptions is none",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  exceptions:\n",
        &["R: evt.type = setns"],
        &[],
    ),
    loads(
        "a list in a tuple, and a list's name in it",
        rule!(
            "      fields: [proc.name, proc.exepath]\n      comps: [=, in]\n      values:\n        - [a, [files, /x]]\n        \
               - [b, files]\n        - [c, \"(/y, /z)\"]\n- list: files\n  items: [/1, /2]\n"
        ),
        &["R: (evt.type = setns) and not ((proc.name = a and proc.exepath in (files, /x)) or \
           (proc.name = b and proc.exepath in (files)) or (proc.name = c and proc.exepath in (/y, /z)))"],
        &[],
    ),
    loads(
        "operators with oneof, anyof and allof, blanks around them too",
        rule!(
            "      fields: [proc.name]\n      comps: ['  startswith   oneof ']\n      values: [[[sshd, sudo]]]\n    - name: f\n      \
               fields: [proc.name, proc.exepath]\n      comps: [= anyof, contains allof]\n      values: [[nmap, [a, b]]]\n    \
               - name: g\n      fields: proc.name\n      comps: endswith oneof\n      values: [.sh, .py]\n"
        ),
        &["R: (evt.type = setns) and not ((proc.name startswith oneof (sshd, sudo))) and not \
           ((proc.name = anyof (nmap) and proc.exepath contains allof (a, b))) and not (proc.name endswith oneof (.sh, .py))"],
        &[],
    ),
    loads(
        "a transformed field",
        rule!("      fields: [tolower(proc.name), \"toupper( proc.pname)\"]\n      values: [[x, Y]]\n"),
        &["R: (evt.type = setns) and not ((tolower(proc.name) = x and toupper( proc.pname) = Y))"],
        &[],
    ),
    loads(
        "a transformer and another field as values",
        rule!("      fields: [proc.name]\n      values: [[toupper(proc.pname)], [\"val(proc.pname)\"]]\n"),
        &[
            "R: (evt.type = setns) and not ((proc.name = toupper(proc.pname)) or (proc.name = val(proc.pname)))",
        ],
        &[],
    ),
    loads(
        "a field's name as a value is a text, which is said",
        rule!(
            "      fields: [proc.name]\n      values: [[proc.pname], [\"toupper( proc.pname)\"], [\"proc.pname \"]]\n"
        ),
        &[
            "R: (evt.type = setns) and not ((proc.name = proc.pname) or (proc.name = \"toupper( proc.pname)\") or \
           (proc.name = \"proc.pname \"))",
        ],
        &[
            "1.yaml:9:17: `proc.pname` is taken for a text",
            "1.yaml:9:31: `toupper( proc.pname)` is taken for a text",
            "1.yaml:9:57: `proc.pname` is taken for a text",
        ],
    ),
    loads(
        "values that would change the condition are put in quotes",
        rule!(
            "      fields: [proc.name]\n      values: [[\"x) or (evt.type = y\"], [\"'quoted one'\"], ['say \"it\"'], [\"(a)\"], [a=b]]\n"
        ),
        &[
            "R: (evt.type = setns) and not ((proc.name = \"x) or (evt.type = y\") or (proc.name = 'quoted one') or \
           (proc.name = \"say \\\"it\\\"\") or (proc.name = \"(a)\") or (proc.name = \"a=b\"))",
        ],
        &[],
    ),
    loads(
        "values are appended, in the older form too",
        rule!(
            "      fields: proc.name\n      values: [a]\n\
               - rule: R\n  exceptions: [{name: e, values: [b]}]\n  override: {exceptions: append}\n\
               - rule: R\n  exceptions: [{name: e, values: [c]}]\n  append: true\n"
        ),
        &[
            "R: (evt.type = setns) and not (proc.name in (a)) and not (proc.name in (b)) and not (proc.name in (c))",
        ],
        &["`append: true` is the older form"],
    ),
    loads(
        "an exception is appended",
        rule!(
            "      fields: proc.name\n      values: [a]\n\
               - rule: R\n  exceptions: [{name: f, fields: proc.pname, values: [b]}]\n  override: {exceptions: append}\n"
        ),
        &["R: (evt.type = setns) and not (proc.name in (a)) and not (proc.pname in (b))"],
        &[],
    ),
    loads(
        "appended without values",
        rule!(
            "      fields: proc.name\n      values: [a]\n\
               - rule: R\n  exceptions: [{name: e}]\n  override: {exceptions: append}\n"
        ),
        &["R: (evt.type = setns) and not (proc.name in (a))"],
        &["1.yaml:11:16: this exception is to be appended to, and has no `values`"],
    ),
    loads(
        "exceptions are replaced",
        rule!(
            "      fields: proc.name\n      values: [a]\n\
               - rule: R\n  exceptions: [{name: f, fields: proc.pname, values: [b]}]\n  override: {exceptions: replace}\n"
        ),
        &["R: (evt.type = setns) and not (proc.pname in (b))"],
        &[],
    ),
    refused(
        "exceptions are not replaced by parts of exceptions",
        rule!(
            "      fields: proc.name\n      values: [a]\n\
               - rule: R\n  exceptions: [{name: e, values: [b]}]\n  override: {exceptions: replace}\n"
        ),
        &["1.yaml:11:16: this exception has no `fields`"],
        &[],
    ),
    refused(
        "a new exception without values is not appended, and fields not at all",
        rule!(
            "      fields: proc.name\n      values: [a]\n\
               - rule: R\n  exceptions:\n    - {name: f, values: [b]}\n    - {name: g, fields: proc.name}\n    \
               - {name: e, fields: proc.name, values: [c]}\n  override: {exceptions: append}\n"
        ),
        &[
            "1.yaml:12:14: the rule has no exception `f` yet, and this one has no `fields`",
            "1.yaml:13:14: the rule has no exception `g` yet, and this one has no `values`",
            "1.yaml:14:25: the exception `e` has its `fields`, which cannot be appended to",
        ],
        &["1.yaml:13:7: this exception is to be appended to, and has no `values`"],
    ),
    loads(
        "a name that stands twice",
        rule!(
            "      fields: [proc.name]\n      values: [[a]]\n    - name: e\n      fields: [proc.name]\n      values: [[b]]\n"
        ),
        &["R: (evt.type = setns) and not ((proc.name = a)) and not ((proc.name = b))"],
        &["1.yaml:10:13: the exception `e` stands twice in this rule"],
    ),
    loads(
        "an exception that has expired, one of today and one that has not",
        rule!(
            "      fields: proc.name\n      values: [a]\n      expires: 2026-07-14\n    - name: f\n      fields: proc.name\n      \
               values: [b]\n      expires: 2026-07-15\n    - name: g\n      fields: proc.name\n      values: [c]\n      \
               expires: '2027-01-01'\n      reason: why\n      owner: who\n"
        ),
        &["R: (evt.type = setns) and not (proc.name in (b)) and not (proc.name in (c))"],
        &["1.yaml:10:16: the exception `e` ended on 2026-07-14 and does not except any more"],
    ),
    refused(
        "no date",
        rule!("      fields: proc.name\n      values: [a]\n      expires: next year\n"),
        &["1.yaml:10:16: `next year` is not a date"],
        &[],
    ),
    refused("no fields", rule!("      values: [a]\n"), &["1.yaml:7:7: this exception has no `fields`"], &[]),
    refused(
        "no sequence",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  exceptions: e\n",
        &["1.yaml:6:15: `exceptions` must be a sequence"],
        &[],
    ),
    refused(
        "no mapping",
        rule!("      fields: proc.name\n    - text\n"),
        &["1.yaml:9:7: expected an exception, found a value"],
        &[],
    ),
    refused(
        "no name",
        rule!("      fields: proc.name\n    - fields: proc.name\n"),
        &["1.yaml:9:7: this item has no `name`"],
        &[],
    ),
    refused(
        "values that are none",
        rule!("      fields: proc.name\n      values: a\n"),
        &["1.yaml:9:15: `values` must be a sequence"],
        &[],
    ),
    refused(
        "an empty value",
        rule!("      fields: proc.name\n      values: ['']\n"),
        &["1.yaml:9:16: a value is empty"],
        &[],
    ),
    refused(
        "a field that there is not, without values too",
        rule!("      fields: [proc.name, proc.nam]\n"),
        &["1.yaml:8:27: unknown field `proc.nam`"],
        &[],
    ),
    refused(
        "a condition for a field",
        rule!("      fields: [proc.name = x or proc.name]\n"),
        &["1.yaml:8:16: expected a field"],
        &[],
    ),
    refused(
        "one field and several comparisons",
        rule!("      fields: proc.name\n      comps: [in]\n"),
        &["1.yaml:9:15: `fields` and `comps` must both be one"],
        &[],
    ),
    refused(
        "fewer comparisons than fields",
        rule!("      fields: [proc.name, proc.pid]\n      comps: [=]\n"),
        &["1.yaml:9:15: 2 fields, but 1 comparison"],
        &[],
    ),
    refused(
        "no comparison",
        rule!("      fields: [proc.name]\n      comps: [frobulate oneof]\n"),
        &["1.yaml:9:15: `frobulate oneof` is not a comparison"],
        &[],
    ),
    refused(
        "a modifier behind a list's operator",
        rule!("      fields: [proc.name]\n      comps: [in oneof]\n"),
        &["`in oneof` is not a comparison"],
        &[],
    ),
    refused(
        "a modifier behind a number's operator",
        rule!("      fields: [proc.pid]\n      comps: ['>= oneof']\n"),
        &["`>= oneof` is not a comparison"],
        &[],
    ),
    refused(
        "a modifier alone",
        rule!("      fields: [proc.name]\n      comps: [oneof]\n"),
        &["`oneof` is not a comparison"],
        &[],
    ),
    refused(
        "exists has no value",
        rule!("      fields: [proc.name]\n      comps: [exists]\n"),
        &["`exists` is not a comparison"],
        &[],
    ),
    refused(
        "a single field by =",
        rule!("      fields: proc.name\n      comps: =\n"),
        &["1.yaml:9:14: a single field cannot be compared by `=`"],
        &[],
    ),
    refused(
        "a tuple for a single field",
        rule!("      fields: proc.name\n      values: [[a]]\n"),
        &["1.yaml:9:16: expected a value of `proc.name`, found a sequence"],
        &[],
    ),
    refused(
        "too few values",
        rule!("      fields: [proc.name, proc.pid]\n      values: [[a]]\n"),
        &["1.yaml:9:16: expected 2 values, one for each field, found 1"],
        &[],
    ),
    refused(
        "no tuple",
        rule!("      fields: [proc.name]\n      values: [a]\n"),
        &["1.yaml:9:16: expected a sequence of 1 values"],
        &[],
    ),
    refused(
        "a list for one value",
        rule!("      fields: [proc.name]\n      values: [[[a, b]]]\n"),
        &["1.yaml:9:18: `=` compares with one value, not with a list"],
        &[],
    ),
    refused(
        "a list in a list",
        rule!("      fields: [proc.name]\n      comps: [in]\n      values: [[[[a]]]]\n"),
        &["1.yaml:10:18: a value must be a text, found a sequence"],
        &[],
    ),
    refused(
        "a text for a number",
        rule!("      fields: [proc.pid]\n      values: [[many]]\n"),
        &["1.yaml:9:17: `many` is not a number"],
        &[],
    ),
];
