//! `required_engine_version`, `required_plugin_versions`, `source`.

use super::{Case, loads, refused};

pub(crate) const CASES: &[Case] = &[
    loads("a version of three numbers", "- required_engine_version: 0.26.0\n", &[], &[]),
    loads("a number is the second of three", "- required_engine_version: 26\n", &[], &[]),
    loads("what Falco's own rules ask for", "- required_engine_version: 0.57.0\n", &[], &[]),
    loads("the version that we claim", "- required_engine_version: 0.63.0\n", &[], &[]),
    refused(
        "a word",
        "- required_engine_version: seven\n",
        &["1.yaml:1:28: expected a version, such as 0.50.0"],
        &[],
    ),
    refused("two numbers", "- required_engine_version: 0.26\n", &["1:28: expected a version"], &[]),
    refused("a sequence", "- required_engine_version: [1]\n", &["1:28: expected a version"], &[]),
    refused(
        "a newer engine, in either file",
        "- required_engine_version: 64\n=====\n- required_engine_version: 0.63.1\n",
        &[
            "1.yaml:1:28: this file needs rule engine 0.64.0",
            "2.yaml:1:28: this file needs rule engine 0.63.1",
        ],
        &[],
    ),
    refused("another first number", "- required_engine_version: 1.0.0\n", &["needs rule engine 1.0.0"], &[]),
    refused(
        "another key beside it",
        "- required_engine_version: 26\n  rules: x\n",
        &["1.yaml:2:3: unknown key `rules`"],
        &[],
    ),
    loads(
        "the container plugin's fields are built in",
        "- required_plugin_versions:\n    - name: container\n      version: 0.4.0\n",
        &[],
        &[],
    ),
    loads(
        "another plugin is warned about",
        "- required_plugin_versions:\n  - name: k8saudit\n    version: 0.1.0\n  - name: json\n    version: 0.3.0\n    \
         alternatives:\n      - name: json2\n        version: 0.1.0\n",
        &[],
        &[
            "1.yaml:2:5: this file needs the plugin `k8saudit`, and ringfence has no plugins",
            "1.yaml:4:5: this file needs the plugin `json`",
        ],
    ),
    loads(
        "an alternative that is built in",
        "- required_plugin_versions:\n  - name: other\n    version: 0.1.0\n    alternatives:\n      - {name: container, version: 0.1.0}\n",
        &[],
        &[],
    ),
    refused(
        "plugins without names, versions or order",
        "- required_plugin_versions: k8saudit\n- required_plugin_versions:\n  - name: container\n    version: newest\n  \
         - version: 0.1.0\n  - json\n  - name: container\n    version: 0.1.0\n    alternatives: [{name: container, version: 0.2.0}]\n",
        &[
            "1.yaml:1:29: expected a sequence of plugins, found a value",
            "1.yaml:4:14: expected a version, such as 0.4.0, found `newest`",
            "1.yaml:5:5: this item has no `name`",
            "1.yaml:6:5: expected a plugin's name and version, found a value",
            "1.yaml:9:27: the plugin `container` stands twice among the alternatives",
        ],
        &[],
    ),
    loads(
        "a rule of another source is left out, whatever it says",
        "- rule: K\n  desc: d\n  condition: ka.verb = GET and nosuch\n  output: '%ka.verb'\n  priority: INFO\n  source: k8s_audit\n\
         - rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  source: syscall\n\
         - rule: K\n  condition: and more\n  override: {condition: append}\n",
        &["R: evt.type = setns"],
        &["1.yaml:6:11: unknown source `k8s_audit`: the rule `K` is left out"],
    ),
    refused(
        "a rule is defined again for another source",
        "- rule: K\n  desc: d\n  condition: ka.verb = GET\n  output: o\n  priority: INFO\n  source: k8s_audit\n\
         - rule: K\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  source: syscall\n",
        &["1.yaml:12:11: this rule was defined for the source `k8s_audit`, and not for `syscall`"],
        &["unknown source `k8s_audit`"],
    ),
    refused(
        "appending and replacing across sources",
        "- rule: K\n  desc: d\n  condition: ka.verb = GET\n  output: o\n  priority: INFO\n  source: k8s_audit\n\
         - rule: K\n  condition: and 1 = 2\n  source: syscall\n  append: true\n\
         - rule: K\n  condition: 1 = 2\n  source: syscall\n  override: {condition: replace}\n",
        &[
            "1.yaml:9:11: this rule was defined for the source",
            "1.yaml:13:11: this rule was defined for the source",
        ],
        &["unknown source `k8s_audit`", "`append: true` is the older form"],
    ),
    loads(
        "an empty source in what is appended is none",
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  source: syscall\n\
         - rule: R\n  condition: and proc.name = a\n  source:\n  override: {condition: append}\n\
         - rule: R\n  condition: and proc.pid = 1\n  source: ''\n  override: {condition: append}\n",
        &["R: evt.type = setns and proc.name = a and proc.pid = 1"],
        &[],
    ),
];
