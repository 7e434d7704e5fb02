//! `override`, `append: true`, `enabled` alone, redefinition.

use super::{Case, loads, refused};

const APPEND: &str = "`append: true` is the older form of `override`";

pub(crate) const CASES: &[Case] = &[
    loads(
        "a list is appended to, also after it was used",
        "- list: shells\n  items: [ash, bash]\n\
         - rule: R\n  desc: d\n  condition: evt.type = setns and proc.name in (shells)\n  output: o\n  priority: INFO\n\
         - list: shells\n  items: [pwsh]\n  override:\n    items: append\n",
        &["R: evt.type = setns and proc.name in (shells)"],
        &[],
    ),
    loads(
        "a list is replaced",
        "- list: l\n  items: [a]\n- list: l\n  items: [b]\n  override: {items: replace}\n",
        &[],
        &[],
    ),
    loads(
        "replacing a list that there is not defines it",
        "- list: l\n  items: [b]\n  override: {items: replace}\n",
        &[],
        &[],
    ),
    refused(
        "appending to a list that there is not",
        "- list: shells\n  items: [a]\n  override: {items: append}\n- list: shells\n  items: [b]\n",
        &["1.yaml:1:9: there is no list `shells` to append to"],
        &[],
    ),
    loads(
        "the older append to a list",
        "- list: l\n  items: [a]\n- list: l\n  items: [b]\n  append: true\n",
        &[],
        &[APPEND],
    ),
    refused(
        "the older append to a list that there is not",
        "- list: l\n  items: [b]\n  append: true\n",
        &["1.yaml:1:9: there is no list `l` to append to"],
        &[APPEND],
    ),
    loads("append: false defines", "- list: l\n  items: [b]\n  append: false\n", &[], &[]),
    refused(
        "a list with override and append",
        "- list: l\n  items: [a]\n- list: l\n  items: [b]\n  append: true\n  override: {items: append}\n",
        &["1.yaml:3:3: `append: true` and `override` stand in one item"],
        &[APPEND],
    ),
    refused(
        "a list has only items to override",
        "- list: l\n  items: [b]\n  override: {itms: append}\n",
        &["1.yaml:3:14: the key `itms` cannot be overridden"],
        &[],
    ),
    loads(
        "a macro is appended to, also after it was used",
        "- macro: m\n  condition: proc.name = a\n\
         - rule: R\n  desc: d\n  condition: evt.type = setns and m\n  output: o\n  priority: INFO\n\
         - macro: m\n  condition: or proc.name = b\n  override: {condition: append}\n",
        &["R: evt.type = setns and m"],
        &[],
    ),
    loads(
        "the older append to a macro",
        "- macro: m\n  condition: proc.name = a\n- macro: m\n  condition: or proc.name = b\n  append: true\n",
        &[],
        &[APPEND],
    ),
    refused(
        "appending to a macro that there is not",
        "- macro: m\n  condition: or proc.name = b\n  override: {condition: append}\n- macro: m\n  condition: proc.name = a\n",
        &["1.yaml:1:10: there is no macro `m` to append to"],
        &[],
    ),
    refused(
        "the older append to a macro that there is not",
        "- macro: m\n  condition: or proc.name = b\n  append: true\n",
        &["1.yaml:1:10: there is no macro `m` to append to"],
        &[APPEND],
    ),
    loads(
        "a replaced macro that there was not is replaced by a definition",
        "- macro: m\n  condition: or proc.name = b\n  override: {condition: replace}\n- macro: m\n  condition: proc.name = a\n",
        &[],
        &[],
    ),
    loads(
        "a condition is appended to with a blank between",
        "- rule: R\n  desc: d\n  condition: evt.type=setns\n  output: o\n  priority: INFO\n\
         =====\n- rule: R\n  condition: and proc.name = cat\n  override: {condition: append}\n",
        &["R: evt.type=setns and proc.name = cat"],
        &[],
    ),
    loads(
        "what is appended need not be a condition of its own",
        "- rule: R\n  desc: d\n  condition: evt.type in (setns,\n  output: o\n  priority: INFO\n\
         - rule: R\n  condition: unshare)\n  override: {condition: append}\n",
        &["R: evt.type in (setns, unshare)"],
        &[],
    ),
    loads(
        "a condition is replaced",
        "- rule: R\n  desc: d\n  condition: nosuch\n  output: o\n  priority: INFO\n\
         - rule: R\n  condition: evt.type = setns\n  override: {condition: replace}\n",
        &["R: evt.type = setns"],
        &[],
    ),
    loads(
        "appending and replacing in one item",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n\
         - rule: R\n  desc: e\n  condition: and proc.name = cat\n  priority: WARNING\n  override:\n    desc: replace\n    \
         condition: append\n    priority: replace\n",
        &["R: evt.type = setns and proc.name = cat"],
        &[],
    ),
    refused(
        "a priority cannot be appended to",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n\
         - rule: R\n  condition: and proc.name = cat\n  priority: WARNING\n  override:\n    condition: append\n    \
         priority: append\n",
        &["1.yaml:11:15: the key `priority` cannot be appended to"],
        &[],
    ),
    refused(
        "another word than append or replace",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n\
         - rule: R\n  condition: and proc.name = cat\n  override: {condition: apend}\n",
        &["1.yaml:8:25: expected `append` or `replace`"],
        &[],
    ),
    refused(
        "a rule with override and append",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n\
         - rule: R\n  condition: and proc.name = cat\n  append: true\n  override: {condition: append}\n",
        &["1.yaml:6:3: `append: true` and `override` stand in one item"],
        &[APPEND],
    ),
    refused(
        "appending to a rule that there is not",
        "- rule: R\n  condition: and proc.name = cat\n  override: {condition: append}\n\
         - rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n",
        &["1.yaml:1:9: there is no rule `R` to change"],
        &[],
    ),
    refused(
        "replacing a part of a rule that there is not",
        "- rule: R\n  condition: evt.type = setns\n  override: {condition: replace}\n",
        &["1.yaml:1:9: there is no rule `R` to change"],
        &[],
    ),
    refused(
        "the older append to a rule that there is not",
        "- rule: R\n  condition: and proc.name = cat\n  append: true\n",
        &["1.yaml:1:9: there is no rule `R` to change"],
        &[APPEND],
    ),
    refused(
        "override names what the item does not have",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n\
         - rule: R\n  desc: e\n  override: {desc: replace, condition: append, enabled: replace}\n",
        &[
            "1.yaml:6:3: `override` names `condition`, which this item does not have",
            "1.yaml:6:3: `override` names `enabled`, which this item does not have",
        ],
        &[],
    ),
    refused(
        "the item has what override does not name",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n\
         - rule: R\n  desc: e\n  priority: ALERT\n  override: {desc: replace}\n",
        &["1.yaml:8:3: `override` does not name `priority`, which this item has"],
        &[],
    ),
    refused(
        "override of a key that there is not",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n\
         - rule: R\n  desc: e\n  override: {decs: replace}\n",
        &["1.yaml:8:14: the key `decs` cannot be overridden"],
        &[],
    ),
    loads(
        "an empty override is none",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  override: {}\n",
        &["R: evt.type = setns"],
        &[],
    ),
    loads(
        "a rule is enabled by override",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  enabled: false\n\
         - rule: R\n  enabled: true\n  override: {enabled: replace}\n",
        &["R: evt.type = setns"],
        &[],
    ),
    loads(
        "the older way to enable",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  enabled: false\n\
         - rule: R\n  enabled: true\n",
        &["R: evt.type = setns"],
        &["`enabled` alone is the older form of `override`"],
    ),
    loads(
        "the older way to disable",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n- rule: R\n  enabled: false\n",
        &["-R: evt.type = setns"],
        &["`enabled` alone is the older form of `override`"],
    ),
    refused(
        "enabling a rule that there is not",
        "- rule: R\n  enabled: true\n",
        &["1.yaml:1:9: there is no rule `R` to enable"],
        &["`enabled` alone is the older form of `override`"],
    ),
    loads(
        "a rule that is not enabled",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  enabled: false\n",
        &["-R: evt.type = setns"],
        &[],
    ),
    loads(
        "the older append takes no notice of enabled",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  enabled: false\n\
         - rule: R\n  condition: and proc.name = cat\n  append: true\n  enabled: true\n",
        &["-R: evt.type = setns and proc.name = cat"],
        &[APPEND, "`enabled` has no effect beside `append: true`"],
    ),
    refused(
        "the older append with nothing to append",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n- rule: R\n  append: true\n",
        &["1.yaml:6:3: nothing is appended"],
        &[APPEND],
    ),
    loads(
        "a definition replaces the whole rule",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  enabled: false\n  tags: [a]\n\
         - rule: R\n  desc: e\n  condition: evt.type = unshare\n  output: p\n  priority: WARNING\n",
        &["R: evt.type = unshare"],
        &[],
    ),
    loads(
        "captures are accepted, replaced, and said to have no effect",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  capture: true\n  \
         capture_duration: 5000\n- rule: R\n  capture: false\n  capture_duration: 10000\n  \
         override: {capture: replace, capture_duration: replace}\n",
        &["R: evt.type = setns"],
        &["1.yaml:6:3: `capture` has no effect"],
    ),
    loads(
        "the flags of warnings are replaced",
        "- rule: R\n  desc: d\n  condition: nosuch.field = x\n  output: o\n  priority: INFO\n\
         - rule: R\n  warn_evttypes: false\n  skip-if-unknown-filter: true\n  \
         override: {warn_evttypes: replace, skip-if-unknown-filter: replace}\n",
        &[],
        &["1.yaml:3:14: unknown field `nosuch.field`"],
    ),
];
