//! The reference of rule files: each form with an example that a test loads.

use std::fmt::Write as _;

use super::super::file::ENGINE_VERSION;

/// A form, what it means, and a file that uses it.
struct Form {
    heading: &'static str,
    text: &'static str,
    example: &'static str,
}

/// Prints the chapter.
pub(super) fn markdown(out: &mut String) {
    out.push_str(BEFORE);
    for form in FORMS {
        section(out, form);
    }
    let (major, minor, patch) = ENGINE_VERSION;
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "\n### Versions\n\n{}\n",
        VERSIONS.replace("{engine}", &format!("{major}.{minor}.{patch}"))
    );
    fence(out, VERSIONS_EXAMPLE);
    out.push_str(DIFFERENCES);
    out.push_str(BOUNDS);
    out.push_str(CONFIGURATION);
    for form in CONFIGURED {
        section(out, form);
    }
    out.push_str(SET);
}

fn section(out: &mut String, form: &Form) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\n### {}\n\n{}\n", form.heading, form.text);
    fence(out, form.example);
}

fn fence(out: &mut String, example: &str) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\n```yaml\n{example}```\n");
}

/// The rule files among the examples: each must load, or the reference lies.
pub(super) fn examples() -> impl Iterator<Item = &'static str> {
    FORMS.iter().map(|form| form.example).chain(std::iter::once(VERSIONS_EXAMPLE))
}

/// The configurations among the examples.
#[cfg(test)]
pub(super) fn configurations() -> impl Iterator<Item = &'static str> {
    CONFIGURED.iter().map(|form| form.example)
}

const BEFORE: &str = "
## Rule files

Files are read in the order in which they are named, those of a directory (`.yaml` and `.yml`, no hidden ones) in the
order of their names. Items have effect in that order: an item can change what stands before it. A rule may use macros
and lists from anywhere, a macro lists from anywhere and the macros that stand before it.

Everything that is wrong in all files is reported in one run, with file, line, column, the line and a caret; in a
condition that was put together by appending, at the piece that is wrong. Only 100 mistakes of a file are.
";

const FORMS: &[Form] = &[
    Form {
        heading: "Define, and define again",
        text: "A later definition of the same name takes the place of the earlier one, as a whole. A member of a list in \
               quotes of the condition language (`'\"(systemd)\"'`) is what stands in them, and never the name of a list.",
        example: "\
- list: tools
  items: [nsenter, '\"my tool\"']

- macro: by_tool
  condition: proc.name in (tools)

- rule: Namespace entered by a tool
  desc: Someone entered a namespace by hand.
  condition: evt.type = setns and by_tool
  output: Namespace entered (tool=%proc.name)
  priority: NOTICE

- list: tools
  items: [nsenter]
",
    },
    Form {
        heading: "Override",
        text: "`override` says for each key whether the new text is put behind the old one (`append`) or takes its place \
               (`replace`); what it does not name stays. Every key that it names must stand in the item, and no other. \
               `append` and `replace`: `condition`, `output`, `desc`, `tags`, `exceptions`, `tests`, `attack`, `references`; of \
               lists `items`, of macros `condition`. Only `replace`: `priority`, `threshold`, `group_by`, `group_seconds`, `maturity`, `enabled`, `warn_evttypes`, \
               `skip-if-unknown-filter`, `capture`, `capture_duration`. A text is appended with a blank between, so \
               what is appended to a condition begins with `and` or `or`. What is appended to must exist. \
               A change after which the rule's own tests do not come out needs `tests`, too: a set whose tests fail is refused.",
        example: "\
- list: tools
  items: [nsenter]
- macro: by_tool
  condition: proc.name in (tools)
- rule: Namespace entered by a tool
  desc: Someone entered a namespace by hand.
  condition: evt.type = setns and by_tool
  output: Namespace entered (tool=%proc.name)
  priority: NOTICE

# Perhaps in another file:
- list: tools
  items: [unshare]
  override:
    items: append
- macro: by_tool
  condition: or proc.exepath startswith /tmp/
  override:
    condition: append
- rule: Namespace entered by a tool
  condition: and container.id != host
  output: (container=%container.id)
  priority: WARNING
  override:
    condition: append
    output: append
    priority: replace
",
    },
    Form {
        heading: "The older forms",
        text: "`append: true` puts the condition or the items behind those of the earlier item, and appends `exceptions`; \
               of a rule it changes nothing else. A rule with `enabled` and without a condition enables or disables the \
               earlier one. Both work and are warned about: Falco will drop them. `append: true` beside `override` is an error.",
        example: "\
- rule: Namespace entered by a tool
  desc: Someone entered a namespace by hand.
  condition: evt.type = setns
  output: Namespace entered (tool=%proc.name)
  priority: NOTICE
- rule: Namespace entered by a tool
  condition: and proc.name = nsenter
  append: true
- rule: Namespace entered by a tool
  enabled: false
",
    },
    Form {
        heading: "Exceptions",
        text: "Each exception is joined to the condition by `and not (…)`. `fields` is one field, and `values` then a list of \
               values; or it is a sequence of fields, and `values` a sequence of tuples, one value for each field. Fields \
               may be transformed. `comps` has the comparisons, in the same shape: any operator, also with `oneof`, `anyof` \
               or `allof`; a single field takes those that compare with a list. Left out, it is `in` for a single field and \
               `=` for each of several. Where a comparison takes a list, the value is a list, the name of one, or a single \
               value. A value is a text, whatever stands in it, but for `val(field)` and transformers without blanks. \
               `values` may be left out, for others to append.\n\n\
               `reason`, `owner` and `expires` are for people, and optional. `expires` is the last day, in UTC, on which the \
               values except; after it the rule is loaded as if they were not there, with a warning.",
        example: "\
- list: runtimes
  items: [runc, crun]
- rule: Namespace entered
  desc: Someone entered a namespace.
  condition: evt.type = setns
  output: Namespace entered (process=%proc.name)
  priority: NOTICE
  exceptions:
    - name: runtimes
      fields: proc.name
      values: [runtimes, conmon]
      reason: Runtimes enter namespaces to start containers.
      owner: platform team
    - name: known_places
      fields: [proc.name, proc.exepath]
      comps: [=, startswith oneof]
      values:
        - [my agent, [/opt/agent/, /usr/lib/agent/]]
    - name: maintenance
      fields: [user.name, container.name]
",
    },
    Form {
        heading: "Exceptions changed",
        text: "Appending adds `values` to an exception of that name, and a whole exception if there is none. `reason`, `owner` \
               and `expires` belong to the values beside them. Replacing takes whole exceptions.",
        example: "\
- rule: Namespace entered
  desc: Someone entered a namespace.
  condition: evt.type = setns
  output: Namespace entered (process=%proc.name)
  priority: NOTICE
  exceptions:
    - name: maintenance
      fields: [user.name, container.name]
- rule: Namespace entered
  exceptions:
    - name: maintenance
      values:
        - [anna, database]
      reason: The move of the database.
      expires: 2999-12-31
  override:
    exceptions: append
",
    },
    Form {
        heading: "Rules that may be left out",
        text: "`skip-if-unknown-filter: true` leaves a rule out, with a warning, if its condition, also by way of macros, its exceptions or its output \
               name a field that there is not. A rule whose `source` is not `syscall` is left out with a warning and not \
               looked at. `enabled: false` loads a rule that matches nothing until it is enabled. `warn_evttypes: false` \
               silences the warning that no event can match. `capture` and `capture_duration` are accepted; Ringfence makes \
               no capture files, and says so.",
        example: "\
- rule: For a newer version
  desc: Names a field that this version does not have.
  condition: evt.type = setns and evt.from_the_future = true
  output: A future alert
  priority: INFO
  skip-if-unknown-filter: true
- rule: For another source
  desc: Only for Falco's plugin.
  condition: ka.verb = create
  output: An audit alert
  priority: INFO
  source: k8s_audit
- rule: Not now
  desc: To be enabled where it is wanted.
  condition: evt.type = setns
  output: Entered
  priority: INFO
  enabled: false
",
    },
];

const VERSIONS: &str = "\
`required_engine_version` is three numbers, or a single one, N, for 0.N.0. Ringfence claims Falco's engine {engine}: a file \
that asks for a newer one, or for another first number, is refused. `required_plugin_versions` is checked for its shape; \
Ringfence has no plugins, and warns of each that is asked for, except `container`, whose fields are built in.";

const VERSIONS_EXAMPLE: &str = "\
- required_engine_version: 0.57.0
- required_plugin_versions:
    - name: container
      version: 0.4.0
";

const DIFFERENCES: &str = "
### Where Falco differs

Falco warns of an unknown key, or of an item that is none of the above, and goes on; here both are errors, because what is
skipped changes what a rule means. So are an `override` that is no mapping and nested values in exceptions. Falco stops at
the first error. A member of a list that names a list which is defined later stands for its members here; in Falco that
depends on the order. Falco's warning that a rule asks for no event type is not given: the cost that it warns of is not
there.
";

const BOUNDS: &str = "
### Who may write rules, and how much

The daemon takes rule files that belong to root or to its own user and that nobody else can write; the same goes for the
directory in which a file, or a symbolic link on the way to it, stands, and for the owners of such links. A directory with
the sticky bit passes if it holds a named file; one on a file system that is mounted read-only passes, too: so Kubernetes
mounts ConfigMaps. `check` and `rules` take the files of whoever calls them in any mode, unless that is root.

A file has at most 1 MiB, 30,000 YAML nodes and 2 MiB of text with all aliases expanded, 32 levels of nesting, 1,000 anchors,
and no text of more than 256 KiB. All conditions and lists together take at most 100,000
members from lists (a macro that asks for a list takes its members once). A pattern (`regex`, and `glob` and `pmatch` with
more than `*`) has at most 4 KiB; all of a set, each counted once, take at most 6 MiB when they are compiled: several hundred
simple ones.
";

const CONFIGURATION: &str = "
## Rules in the configuration
";

const CONFIGURED: &[Form] = &[
    Form {
        heading: "Which rules are enabled",
        text: "`rule_selection` is what Falco calls `rules`: steps in order, whatever the files say. `rule` is a name or an id, \
               in which `*` stands for any characters. A step that is about no rule is warned about.",
        example: "\
rule_selection:
  - disable: {rule: \"*\"}
  - enable: {tag: namespaces}
  - disable: {rule: \"namespace-entered-*\"}
",
    },
    Form {
        heading: "More in outputs",
        text: "`append_output` puts text behind the outputs of rules, and fields into their alerts. `match` may name a source, a \
               rule by its whole name or id, and tags, all of which the rule must have; without it all rules are meant. \
               `extra_fields` are the names of fields; texts under names of your own, which Falco allows, would break the \
               schema of alerts.",
        example: "\
append_output:
  - match:
      source: syscall
      tags: [namespaces]
    extra_output: (session=%proc.sid)
    extra_fields: [proc.cmdline, \"proc.aname[2]\"]
",
    },
];

const SET: &str = "
### On the command line

`--set KEY=VALUE` replaces a setting, `--set KEY[]=VALUE` adds a member to a list, and `--set KEY[].NAME.NAME=VALUE` one that
is a mapping: `--set rule_selection[].disable.rule=*`. The value is YAML, or a text if it is none. They are applied in their order after all files;
an option of its own, such as `--listen`, wins over both. With rules named on the command line, the configuration is read
only if `--config` or `--set` is given.
";
