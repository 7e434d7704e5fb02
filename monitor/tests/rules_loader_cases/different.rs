//! Where a file that Falco loads is refused here, and why: what Falco takes no notice of would change what a rule
//! means without a word.

use super::{Case, refused};

pub(crate) const CASES: &[Case] = &[
    refused(
        "an unknown key is an error, not a warning",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  typo_field: x\n\
         - macro: m\n  condition: evt.type = setns\n  typo_field: x\n- list: l\n  items: [a]\n  priority: INFO\n",
        &[
            "1.yaml:6:3: unknown key `typo_field`",
            "1.yaml:9:3: unknown key `typo_field`",
            "1.yaml:12:3: unknown key `priority`",
        ],
        &[],
    ),
    refused(
        "an override written wrong is an error, and does not define",
        "- list: l\n  items: [a]\n- list: l\n  items: [b]\n  overide: {items: append}\n",
        &["1.yaml:5:3: unknown key `overide`"],
        &[],
    ),
    refused(
        "an unknown key of an exception",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  \
         exceptions: [{name: e, fields: proc.name, value: [a]}]\n",
        &["1.yaml:6:45: unknown key `value`"],
        &[],
    ),
    refused(
        "an unknown item",
        "- ruel: R\n",
        &["1.yaml:1:3: this item is neither a rule nor a macro nor a list"],
        &[],
    ),
    refused(
        "an override that is no mapping",
        "- list: l\n  items: [a]\n  override: append\n",
        &["1.yaml:3:13: `override` must be a mapping"],
        &[],
    ),
];
