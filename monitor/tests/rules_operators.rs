//! Every operator, transformer and modifier against a truth table.

mod rules_common;

use monitor::fields::Value;
use monitor::rules::RuleSet;
use monitor_common::call::Call;
use rules_common::{Fake, matching, rule_with};

/// An event with a value of each type, and every other field absent.
fn event() -> Fake {
    Fake::default()
        .text("evt.type", "setns")
        .text("proc.name", "Nginx")
        .text("proc.exepath", "/usr/sbin/nginx")
        .text("fd.name", "/etc/shadow")
        .text("proc.pname", "/")
        .text("user.name", "")
        .text("proc.args", "-x -p 80 rest -y")
        .text("evt.arg[flags]", "CLONE_NEWUSER|CLONE_NEWNS")
        .text("proc.aname[2]", "bash")
        .text("cgroup.path", "bmdpbng=")
        .text("container.id", "a b'c\"d\\e")
        .list("evt.flags", &["CLONE_NEWUSER", "CLONE_NEWNS"])
        .list("cap.before", &["CAP_SYS_ADMIN"])
        .list("ns.changed", &[])
        .number("proc.pid", 42)
        .number("proc.vpid", 42)
        .number("proc.ppid", 1)
        .number("evt.rawres", -1)
        .number("cgroup.id", i64::MAX)
        .number("proc.start", i64::MIN)
        .set("evt.failed", Value::Bool(true))
        .set("evt.args_claimed", Value::Bool(false))
}

fn check(table: &[(&str, bool)]) {
    let event = event();
    for (condition, expected) in table {
        let rules = RuleSet::from_sources(&[("t.yaml", &rule_with(condition))])
            .unwrap_or_else(|error| panic!("{condition}\n{error}"));
        let found = !matching(&rules, Call::Setns, &event).is_empty();
        assert_eq!(found, *expected, "{condition}");
    }
}

#[test]
fn equality() {
    check(&[
        ("proc.name = Nginx", true),
        ("proc.name == Nginx", true),
        ("proc.name = nginx", false),
        ("proc.name = 'Nginx'", true),
        ("proc.name != nginx", true),
        ("proc.name != Nginx", false),
        ("user.name = ''", true),
        ("user.name != ''", false),
        ("container.id = 'a b\\'c\"d\\\\e'", true),
        // A list: some member, and for `!=` none.
        ("evt.flags = CLONE_NEWNS", true),
        ("evt.flags = CLONE_NEWNET", false),
        ("evt.flags != CLONE_NEWNET", true),
        ("evt.flags != CLONE_NEWNS", false),
        ("evt.arg[flags] = 'CLONE_NEWUSER|CLONE_NEWNS'", true),
        ("evt.arg[\"flags\"] contains NEWNS", true),
        ("proc.aname[2] = bash", true),
        ("proc.aname[3] = bash", false),
    ]);
}

#[test]
fn absent_values_make_every_comparison_false_and_its_negation_true() {
    for comparison in [
        "k8s.pod.uid = x",
        "k8s.pod.uid != x",
        "k8s.pod.uid = ''",
        "k8s.pod.uid contains x",
        "k8s.pod.uid icontains x",
        "k8s.pod.uid bcontains 00",
        "k8s.pod.uid startswith ''",
        "k8s.pod.uid bstartswith ''",
        "k8s.pod.uid endswith ''",
        "k8s.pod.uid glob *",
        "k8s.pod.uid iglob *",
        "k8s.pod.uid regex .*",
        "k8s.pod.uid in (x)",
        "k8s.pod.uid intersects (x)",
        "k8s.pod.uid pmatch (/)",
        "k8s.pod.uid = val(proc.name)",
        "proc.name = val(k8s.pod.uid)",
        "proc.name != val(k8s.pod.uid)",
        "k8s.pod.uid != val(k8s.pod.uid)",
        "tolower(k8s.pod.uid) = x",
        "len(k8s.pod.uid) >= 0",
        "join('-', (proc.name, k8s.pod.uid)) exists",
        "k8s.pod.uid startswith oneof ('', x)",
        "k8s.pod.uid startswith allof ()",
        "device.major = 0",
        "device.major != 0",
        "device.major < 1",
        "device.major <= 1",
        "device.major > -1",
        "device.major >= -1",
        "device.major in (0)",
        "cap.gained = x",
        "cap.gained != x",
        "cap.gained in (x)",
        "cap.gained intersects (x)",
        "k8s.pod.uid exists",
        // An empty list is no value.
        "ns.changed exists",
        "ns.changed in (mnt)",
        "ns.changed != mnt",
    ] {
        check(&[(comparison, false), (&format!("not {comparison}"), true)]);
    }
}

#[test]
fn parts_of_texts() {
    check(&[
        ("proc.exepath contains sbin", true),
        ("proc.exepath contains SBIN", false),
        ("proc.exepath contains ''", true),
        ("proc.exepath icontains SBIN", true),
        ("proc.exepath icontains xbin", false),
        ("proc.exepath icontains ''", true),
        ("user.name icontains x", false),
        ("proc.exepath bcontains 7362696E", true),
        ("proc.exepath bcontains 00", false),
        ("proc.exepath bstartswith 2f757372", true),
        ("proc.exepath bstartswith 7573", false),
        ("proc.exepath startswith /usr", true),
        ("proc.exepath startswith usr", false),
        ("proc.exepath startswith /USR", false),
        ("proc.exepath endswith nginx", true),
        ("proc.exepath endswith ngin", false),
        ("evt.flags contains NEWNS", true),
        ("evt.flags startswith CLONE_", true),
        ("evt.flags endswith NET", false),
    ]);
}

#[test]
fn patterns() {
    check(&[
        ("proc.exepath glob /usr/*", true),
        ("proc.exepath glob /*nginx", true),
        ("proc.exepath glob /USR/*", false),
        ("proc.exepath iglob /USR/*", true),
        ("proc.exepath glob /usr/sbin/ngin?", true),
        ("proc.exepath glob nginx", false),
        ("evt.flags glob *NS", true),
        ("proc.exepath regex '/usr/.*'", true),
        ("proc.exepath regex 'usr'", false),
        ("proc.exepath regex '.*(sbin|bin)/[a-z]+'", true),
        ("proc.exepath regex '(?i)/USR/.*'", true),
    ]);
}

#[test]
fn sets() {
    check(&[
        ("proc.name in (Apache, Nginx)", true),
        ("proc.name in (Apache, nginx)", false),
        ("proc.name in (Ngin)", false),
        ("proc.name in ()", false),
        ("proc.name in (a, b, c, d, e, f, g, h, i, Nginx)", true),
        ("proc.name in (a, b, c, d, e, f, g, h, i, j)", false),
        ("proc.name intersects (Nginx, x)", true),
        // A list is in another if all of its members are.
        ("evt.flags in (CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET)", true),
        ("evt.flags in (CLONE_NEWUSER)", false),
        ("evt.flags intersects (CLONE_NEWUSER)", true),
        ("evt.flags intersects (CLONE_NEWNET)", false),
        ("evt.flags intersects ()", false),
        ("proc.pid in (1, 0x2a)", true),
        ("proc.pid in (1, 2.5)", false),
        ("proc.pid intersects (42)", true),
        ("proc.pid in ()", false),
        ("evt.failed in (true)", true),
        ("evt.failed in (false)", false),
    ]);
}

#[test]
fn path_prefixes_end_at_component_borders() {
    check(&[
        ("fd.name pmatch (/etc)", true),
        ("fd.name pmatch (/etc/)", true),
        ("fd.name pmatch (/etc/shadow)", true),
        ("fd.name pmatch (/etc/shadow/)", true),
        ("fd.name pmatch (/etc/shad)", false),
        ("fd.name pmatch (/et)", false),
        ("fd.name pmatch (/etc/shadow/x)", false),
        ("fd.name pmatch (/)", true),
        ("fd.name pmatch (etc)", false),
        ("fd.name pmatch (/root, /etc)", true),
        ("fd.name pmatch ()", false),
        ("fd.name pmatch (/*)", true),
        ("fd.name pmatch (/e*/shad*, /root)", true),
        ("fd.name pmatch (/*shadow)", false),
        ("fd.name pmatch (/et?)", true),
        ("fd.name pmatch (/et[!c])", false),
        ("proc.pname pmatch (/)", true),
        ("proc.pname pmatch (/etc)", false),
        ("proc.name pmatch (/)", false),
    ]);
}

#[test]
fn numbers() {
    check(&[
        ("proc.pid = 42", true),
        ("proc.pid = '42'", true),
        ("proc.pid = 0x2A", true),
        ("proc.pid = 42.0", true),
        ("proc.pid = 4.2e+1", true),
        ("proc.pid = 42.5", false),
        ("proc.pid != 42.5", true),
        ("proc.pid != 42", false),
        ("proc.pid != 43", true),
        ("proc.pid < 42", false),
        ("proc.pid < 42.1", true),
        ("proc.pid < 43", true),
        ("proc.pid <= 42", true),
        ("proc.pid <= 41.9", false),
        ("proc.pid > 42", false),
        ("proc.pid > 41.9", true),
        ("proc.pid > 41", true),
        ("proc.pid >= 42", true),
        ("proc.pid >= 42.1", false),
        ("proc.pid >= 0x2b", false),
        ("evt.rawres < 0", true),
        ("evt.rawres = -1", true),
        ("evt.rawres > -1.5", true),
        ("evt.rawres >= -0.5", false),
        ("evt.rawres < +1", true),
        ("cgroup.id = 9223372036854775807", true),
        ("cgroup.id >= 9223372036854775807", true),
        ("cgroup.id > 9223372036854775806", true),
        ("cgroup.id > 9223372036854775807", false),
        ("cgroup.id < 9223372036854775808", true),
        ("cgroup.id = 9223372036854775808", false),
        ("cgroup.id != 9223372036854775808", true),
        ("cgroup.id <= 9223372036854775806.5", false),
        ("cgroup.id < 1e30", true),
        ("cgroup.id > 1e40", false),
        ("proc.start < -9223372036854775807", true),
        ("proc.start < -9223372036854775808", false),
        ("proc.start >= -1e40", true),
    ]);
}

#[test]
fn truth_values_and_presence() {
    check(&[
        ("evt.failed = true", true),
        ("evt.failed = false", false),
        ("evt.failed != false", true),
        ("evt.args_claimed = false", true),
        ("evt.failed exists", true),
        ("proc.name exists", true),
        ("user.name exists", true),
        ("evt.flags exists", true),
        ("tolower(proc.name) exists", true),
    ]);
}

#[test]
fn modifiers() {
    check(&[
        ("fd.name startswith oneof (/root, /etc)", true),
        ("fd.name startswith anyof (/root, /etc)", true),
        ("fd.name startswith oneof (/root, /var)", false),
        ("fd.name contains allof (etc, shadow)", true),
        ("fd.name contains allof (etc, root)", false),
        ("fd.name contains oneof ()", false),
        ("fd.name contains allof ()", false),
        ("fd.name != allof ()", false),
        ("fd.name startswith oneof (/e, /etc)", false),
        ("fd.name startswith anyof (/e, /etc)", true),
        ("proc.name = oneof (Nginx, Nginx)", false),
        ("proc.name != oneof (Nginx, Nginx, x)", true),
        ("proc.name != anyof (Nginx, x)", true),
        ("proc.name regex allof (N.*, '.*x')", true),
        ("fd.name != allof (/a, /b)", true),
        ("fd.name != allof (/a, /etc/shadow)", false),
        ("proc.pid = oneof (1, 42)", true),
        ("proc.name = oneof (x, Nginx)", true),
    ]);
}

#[test]
fn other_fields_on_the_right() {
    check(&[
        ("proc.pid = val(proc.vpid)", true),
        ("proc.pid != val(proc.vpid)", false),
        ("proc.pid = val(proc.ppid)", false),
        ("proc.pid > val(proc.ppid)", true),
        ("proc.pid <= val(proc.ppid)", false),
        ("proc.pid in val(proc.vpid)", true),
        ("proc.exepath endswith tolower(proc.name)", true),
        ("proc.exepath endswith val(proc.name)", false),
        ("proc.exepath icontains val(proc.name)", true),
        ("proc.exepath contains val(proc.pname)", true),
        ("basename(proc.exepath) = tolower(proc.name)", true),
        ("evt.flags intersects val(evt.flags)", true),
        ("cap.before in val(evt.flags)", false),
        ("evt.failed = val(evt.args_claimed)", false),
        ("evt.failed != val(evt.args_claimed)", true),
    ]);
}

#[test]
fn transformers() {
    check(&[
        ("tolower(proc.name) = nginx", true),
        ("toupper(proc.name) = NGINX", true),
        ("tolower(toupper(proc.name)) = nginx", true),
        ("tolower(evt.flags) = clone_newns", true),
        ("b64(cgroup.path) = nginx", true),
        ("b64(cgroup.path) startswith ngi", true),
        ("b64(proc.exepath) exists", false),
        ("basename(proc.exepath) = nginx", true),
        ("basename(proc.name) = Nginx", true),
        ("basename(proc.pname) = ''", true),
        ("len(proc.name) = 5", true),
        ("len(evt.flags) = 2", true),
        ("len(proc.name) > 5", false),
        ("len(user.name) = 0", true),
        ("join('-', (proc.name, proc.pid)) = Nginx-42", true),
        ("join(', ', evt.flags) = 'CLONE_NEWUSER, CLONE_NEWNS'", true),
        ("concat(proc.name, ':', proc.aname[2]) = Nginx:bash", true),
        ("toupper(concat(proc.name, proc.name)) = NGINXNGINX", true),
        ("join(',', ()) = ''", true),
        ("join(proc.pname, ('a', \"b\", 3)) = 'a/b/3'", true),
        ("b64(concat('YWFh', 'YmJi')) = aaabbb", true),
        ("len('aaa') = 3", true),
        ("getopt(('-n', '-t', 'hello'), 'nt:') intersects (hello)", true),
        ("getopt(('-n', '-t', 'hello'), 'nt:')[t] = hello", true),
        ("getopt(('-n'), 'nt:')[t] != ''", false),
        ("getopt(('-n', '--', '-t'), 'nt') in (n)", true),
        ("getopt(proc.args, 'p:x')[p] = 80", true),
        ("getopt(proc.args, 'p:x')[x] exists", true),
    ]);
}

#[test]
fn logic() {
    check(&[
        ("evt.failed = true or evt.failed = false and proc.pid = 0", true),
        ("(evt.failed = true or evt.failed = false) and proc.pid = 0", false),
        ("not proc.pid = 0 and proc.pid = 42", true),
        ("not (proc.pid = 42 and proc.pid = 0)", true),
        ("not not proc.pid = 42", true),
        ("not (not (proc.pid = 42))", true),
        ("(proc.pid = 42)and(proc.ppid = 1)", true),
        ("(proc.pid = 0)or(proc.ppid = 1)", true),
        ("proc.pid = 0 or(proc.ppid = 1)and proc.pid = 42", true),
        ("proc.pid = 42\n and\n\tproc.ppid = 1", true),
    ]);
}
