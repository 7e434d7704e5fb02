//! Items, keys, names and their order, across files.

use super::{Case, loads, refused};

pub(crate) const CASES: &[Case] = &[
    loads("nothing", "# nothing\n=====\n- \n-\n=====\n--- \n...\n", &[], &[]),
    loads(
        "all documents of a file",
        "- macro: m\n  condition: evt.type = setns\n---\n- rule: R\n  desc: d\n  condition: m\n  output: o\n  priority: info\n",
        &["R: m"],
        &[],
    ),
    refused("no sequence", "rule: R\n", &["1.yaml:1:1: expected a sequence of items, found a mapping"], &[]),
    refused("no item", "- text\n", &["1.yaml:1:3: expected an item, found a value"], &[]),
    refused("no YAML", "- rule: [\n", &["not valid YAML"], &[]),
    refused(
        "what a rule must have",
        "- rule: R\n  tags: [a]\n- macro: m\n- list: l\n- rule:\n",
        &[
            "1.yaml:1:3: this item has no `condition`",
            "1.yaml:1:3: this item has no `output`",
            "1.yaml:1:3: this item has no `desc`",
            "1.yaml:1:3: this item has no `priority`",
            "1.yaml:3:3: this item has no `condition`",
            "1.yaml:4:3: this item has no `items`",
            "`rule` is empty",
            "1.yaml:5:3: this item has no `condition`",
            "1.yaml:5:3: this item has no `output`",
            "1.yaml:5:3: this item has no `desc`",
            "1.yaml:5:3: this item has no `priority`",
        ],
        &[],
    ),
    refused(
        "values of the wrong shape",
        "- list: l\n  items:\n- list: k\n  items: [[a]]\n- rule: R\n  desc: [d]\n  condition: ''\n  output: {a: b}\n  priority: HIGH\n  \
         enabled: maybe\n  capture: perhaps\n  capture_duration: long\n  tags: a\n",
        &[
            "1.yaml:2:8: `items` must be a sequence, found a value",
            "1.yaml:4:11: a member of `items` must be a text, found a sequence",
            "1.yaml:6:9: `desc` must be a text, found a sequence",
            "1.yaml:7:14: `condition` is empty",
            "1.yaml:8:11: `output` must be a text, found a mapping",
            "1.yaml:9:13: unknown priority `HIGH`",
            "1.yaml:10:12: `enabled` must be `true` or `false`",
            "1.yaml:11:12: `capture` must be `true` or `false`",
            "1.yaml:12:21: `capture_duration` must be a whole number of milliseconds",
            "1.yaml:13:9: `tags` must be a sequence, found a value",
        ],
        &[],
    ),
    loads(
        "truth values in the words of YAML 1.1, and priorities in any case",
        "- rule: A\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: InFo\n  enabled: No\n\
         - rule: B\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: EMERGENCY\n  enabled: on\n  capture: \"yes\"\n",
        &["-A: evt.type = setns", "B: evt.type = setns"],
        &["`capture` has no effect"],
    ),
    loads(
        "names that no condition can use",
        "- macro: test-macro\n  condition: evt.type = setns\n- macro: not\n  condition: evt.type = setns\n- list: test list\n  items: [a]\n",
        &[],
        &[
            "1.yaml:1:10: no condition can use a macro of the name `test-macro`",
            "1.yaml:3:10: no condition can use a macro of the name `not`",
            "1.yaml:5:9: no condition can use a list of the name `test list`",
        ],
    ),
    loads(
        "a list's name may have hyphens and points",
        "- list: http-ports.v1\n  items: [80]\n- rule: R\n  desc: d\n  condition: proc.pid in (http-ports.v1)\n  output: o\n  priority: INFO\n",
        &["R: proc.pid in (http-ports.v1)"],
        &[],
    ),
    loads(
        "a rule uses macros and lists of later files, a macro lists of later files",
        "- rule: R\n  desc: d\n  condition: m\n  output: o\n  priority: INFO\n- macro: m\n  condition: proc.name in (l)\n=====\n- list: l\n  items: [a]\n",
        &["R: m"],
        &[],
    ),
    refused(
        "a macro uses macros that stand before it",
        "- macro: a\n  condition: b\n- macro: b\n  condition: evt.type = setns\n",
        &["1.yaml:2:14: the macro `b` is defined only later"],
        &[],
    ),
    loads(
        "a macro that is defined again may use what has come between",
        "- macro: a\n  condition: evt.type = setns\n- macro: b\n  condition: evt.type = unshare\n- macro: a\n  condition: b\n",
        &[],
        &[],
    ),
    refused(
        "a macro that there is not",
        "- macro: a\n  condition: b\n",
        &["1.yaml:2:14: unknown macro `b`"],
        &[],
    ),
    loads(
        "rules keep the place of their first definition",
        "- rule: A\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n\
         - rule: B\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n=====\n\
         - rule: A\n  desc: d\n  condition: evt.type = unshare\n  output: o\n  priority: INFO\n",
        &["A: evt.type = unshare", "B: evt.type = setns"],
        &[],
    ),
    loads(
        "an unknown field leaves a rule out if it says so, in the output and in exceptions too",
        "- rule: A\n  desc: d\n  condition: nosuch.field = x\n  output: o\n  priority: INFO\n  skip-if-unknown-filter: true\n\
         - rule: B\n  desc: d\n  condition: evt.type = setns\n  output: '%nosuch.field'\n  priority: INFO\n  skip-if-unknown-filter: true\n\
         - rule: C\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  skip-if-unknown-filter: true\n  \
         exceptions: [{name: e, fields: nosuch.field, values: [a]}]\n",
        &[],
        &[
            "1.yaml:3:14: unknown field `nosuch.field`",
            "1.yaml:10:13: unknown field `nosuch.field`",
            "1.yaml:19:34: unknown field `nosuch.field`",
        ],
    ),
];
