//! Random conditions: what is printed is parsed to the same tree, and what is compiled means what a plain walk over the
//! tree says, also for a type of event and with only some facts known.

mod rules_model;

use monitor::event_type::EventType;
use monitor::fields::{self, Field, FieldRef, FieldSource, FieldType, FieldValues, Value, owned_list};
use monitor::rules::ast::{
    Expr, ExprKind, FieldName, List, LiteralKind, Modifier, Operand, OperandKind, Operator, Right, Span,
    Spanned, Transform, TransformKind, Wants,
};
use monitor::rules::condition::parse;
use monitor::rules::{Maybe, RuleSet};
use proptest::prelude::*;
use proptest::sample::select;
use rules_model::{Names, holds, type_of};

fn here<T>(value: T) -> Spanned<T> {
    Spanned { value, span: Span::default() }
}

// ---- printing ----------------------------------------------------------------------------------------

fn literal() -> impl Strategy<Value = Spanned<LiteralKind>> {
    prop_oneof![
        "[a-z/*.-][a-z0-9/*.-]{0,6}".prop_map(|text| here(LiteralKind { text, quoted: false })),
        any::<String>().prop_map(|text| here(LiteralKind { text, quoted: true })),
        "[a\\\\\"' x=,()]{0,6}".prop_map(|text| here(LiteralKind { text, quoted: true })),
    ]
}

fn number() -> impl Strategy<Value = Spanned<LiteralKind>> {
    "(0x[0-9a-f]{1,4}|[+-]?[0-9]{1,4}(\\.[0-9]{0,2})?(e[+-][0-9]{1,2})?)"
        .prop_map(|text| here(LiteralKind { text, quoted: false }))
}

fn field_name() -> impl Strategy<Value = FieldName> {
    ("[a-z]{1,3}(\\.[a-z][a-z0-9_]{0,3}){1,2}", proptest::option::of(any::<String>()))
        .prop_map(|(name, arg)| FieldName { name, arg })
}

/// A field, or a transformer of values and lists of values.
fn operand() -> impl Strategy<Value = Operand> {
    let field = field_name().prop_map(|name| here(OperandKind::Field(name)));
    field.prop_recursive(3, 8, 3, |inner| {
        let quoted = any::<String>()
            .prop_map(|text| here(OperandKind::Literal(here(LiteralKind { text, quoted: true }))));
        let plain =
            prop_oneof![inner, quoted, number().prop_map(|number| here(OperandKind::Literal(number))),];
        let list = proptest::collection::vec(plain.clone(), 0..3)
            .prop_map(|members| here(OperandKind::Tuple(members)));
        let arg = prop_oneof![3 => plain, 1 => list];
        let key = proptest::option::of(any::<String>());
        (select(TransformKind::ALL), proptest::collection::vec(arg, 1..4), key).prop_map(
            |(kind, args, key)| {
                let key = key.filter(|_| kind == TransformKind::Getopt);
                here(OperandKind::Transform(Transform { kind, args, key }))
            },
        )
    })
}

fn list() -> impl Strategy<Value = List> {
    prop_oneof![
        "[a-z]{2,4}_l".prop_map(|name| List::Name(here(name))),
        proptest::collection::vec(literal(), 0..4)
            .prop_map(|members| List::Members(members, Span::default())),
    ]
}

fn right(op: Operator) -> BoxedStrategy<Right> {
    let transformed =
        operand().prop_filter("a transformer", |operand| matches!(operand.value, OperandKind::Transform(_)));
    let val = field_name().prop_map(|name| Right::Val(here(name)));
    let other = prop_oneof![val, transformed.prop_map(Right::Transform)];
    match op.wants() {
        Wants::Number => prop_oneof![2 => number().prop_map(Right::Value), 1 => other].boxed(),
        Wants::List => prop_oneof![2 => list().prop_map(Right::List), 1 => other].boxed(),
        Wants::Value => prop_oneof![
            2 => literal().prop_map(Right::Value),
            1 => other,
            1 => (select(Modifier::ALL), list()).prop_map(|(modifier, list)| Right::Many(modifier, list)),
        ]
        .boxed(),
    }
}

fn tree() -> impl Strategy<Value = Expr> {
    let compare = select(Operator::ALL).prop_flat_map(|op| {
        (operand(), right(op)).prop_map(move |(left, right)| here(ExprKind::Compare(left, here(op), right)))
    });
    let leaf = prop_oneof![
        "[a-z]{1,3}_m".prop_map(|name| here(ExprKind::Macro(name))),
        operand().prop_map(|left| here(ExprKind::Exists(left))),
        compare,
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|member| here(ExprKind::Not(Box::new(member)))),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(|all| here(ExprKind::And(all))),
            proptest::collection::vec(inner, 2..4).prop_map(|all| here(ExprKind::Or(all))),
        ]
    })
}

// ---- meaning -----------------------------------------------------------------------------------------

const TEXTS: &[&str] = &["", "a", "ab", "AB", "/a", "/a/b", "/ab", "a.b", "setns", "*"];
const FIELDS: &[&str] = &[
    "evt.type",
    "proc.name",
    "proc.exepath",
    "fd.name",
    "proc.aname[2]",
    "proc.aname",
    "evt.flags",
    "cap.gained",
    "proc.pid",
    "evt.rawres",
    "evt.failed",
];
const TYPES: &[&str] = &["setns", "unshare", "openat"];

/// A text in quotes.
fn quoted(text: &str) -> String {
    format!("'{text}'")
}

fn text() -> impl Strategy<Value = String> {
    select(TEXTS).prop_map(quoted)
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => proptest::collection::vec(text(), 0..4).prop_map(|all| format!("({})", all.join(", "))),
        1 => Just("some_texts".to_owned()),
        1 => Just("(some_texts, x)".to_owned()),
    ]
}

fn whole() -> impl Strategy<Value = String> {
    select(&["-1", "0", "1", "2", "3.5", "-0.5", "1e+0"][..]).prop_map(str::to_owned)
}

/// A comparison that fits the field's type.
fn comparison(field: &'static str) -> BoxedStrategy<String> {
    let name = field.split('[').next().unwrap_or(field);
    match type_of(name) {
        FieldType::Number => prop_oneof![
            (select(&["=", "!=", "<", "<=", ">", ">="][..]), whole())
                .prop_map(move |(op, n)| format!("{field} {op} {n}")),
            proptest::collection::vec(whole(), 0..3)
                .prop_map(move |all| format!("{field} in ({})", all.join(", "))),
            select(&["=", "!=", "<", "in"][..]).prop_map(move |op| format!("{field} {op} val(proc.ppid)")),
            Just(format!("{field} exists")),
        ]
        .boxed(),
        FieldType::Bool => prop_oneof![
            (select(&["=", "!="][..]), any::<bool>()).prop_map(move |(op, b)| format!("{field} {op} {b}")),
            Just(format!("{field} = val(evt.args_claimed)")),
        ]
        .boxed(),
        FieldType::Text | FieldType::TextList => {
            let left = prop_oneof![
                4 => Just(field.to_owned()),
                1 => Just(format!("tolower({field})")),
                1 => Just(format!("basename(toupper({field}))")),
            ];
            let words = &["=", "!=", "contains", "icontains", "startswith", "endswith", "glob", "iglob"][..];
            let paths = proptest::collection::vec(select(&["/a", "/a/", "/", "/*", "/a/?", "a"][..]), 1..3);
            prop_oneof![
                4 => (left.clone(), select(words), text()).prop_map(|(left, op, text)| format!("{left} {op} {text}")),
                2 => (left.clone(), select(&["in", "intersects"][..]), texts())
                    .prop_map(|(left, op, texts)| format!("{left} {op} {texts}")),
                1 => (left.clone(), paths).prop_map(|(left, paths)| format!("{left} pmatch ({})", paths.join(", "))),
                1 => (left.clone(), select(words), select(&["oneof", "anyof", "allof"][..]), texts())
                    .prop_map(|(left, op, word, texts)| format!("{left} {op} {word} {texts}")),
                1 => (left.clone(), select(&["=", "!=", "contains", "startswith", "in", "intersects"][..]))
                    .prop_map(|(left, op)| format!("{left} {op} val(proc.pname)")),
                1 => (left.clone(), select(&["=", "!=", "endswith"][..]))
                    .prop_map(|(left, op)| format!("{left} {op} concat('/', proc.pname)")),
                1 => left.clone().prop_map(|left| format!("len({left}) >= 2")),
                1 => left.prop_map(|left| format!("{left} exists")),
            ]
            .boxed()
        }
    }
}

fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        6 => select(FIELDS).prop_flat_map(comparison),
        2 => proptest::collection::vec(select(TYPES), 1..3)
            .prop_map(|types| format!("evt.type in ({})", types.join(", "))),
        1 => Just("a_macro".to_owned()),
        1 => Just("another_macro".to_owned()),
        1 => (text(), text()).prop_map(|(a, b)| format!("join('-', (proc.name, {a}, proc.pid)) = {b}")),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| format!("not ({a})")),
            proptest::collection::vec(inner.clone(), 2..4)
                .prop_map(|all| format!("({})", all.join(") and ("))),
            proptest::collection::vec(inner, 2..4).prop_map(|all| format!("({})", all.join(" or "))),
        ]
    })
}

/// Every field that conditions here may read, set or absent.
fn event() -> impl Strategy<Value = FieldValues> {
    let text = || proptest::option::of(select(TEXTS));
    let list = || proptest::option::of(proptest::collection::vec(select(TEXTS), 0..3));
    let number = || proptest::option::of(-2_i64..4);
    let truth = || proptest::option::of(any::<bool>());
    let texts = proptest::collection::vec(text(), 8);
    (select(TYPES), texts, list(), list(), number(), number(), number(), truth(), truth()).prop_map(
        |(ty, texts, flags, caps, pid, ppid, result, failed, claimed)| {
            let mut event = FieldValues::default();
            let mut set = |field: &str, value: Option<Value<'static>>| {
                let (name, arg) = match field.split_once('[') {
                    Some((name, arg)) => (name, Some(arg.trim_end_matches(']'))),
                    None => (field, None),
                };
                let field = fields::resolve(name, arg).unwrap();
                event.set(field, value.unwrap_or(Value::Absent)).unwrap();
            };
            set("evt.type", Some(Value::text(ty)));
            let names = [
                "proc.name",
                "proc.exepath",
                "fd.name",
                "proc.pname",
                "proc.aname[1]",
                "proc.aname[2]",
                "proc.aname[3]",
                "proc.aname[8]",
            ];
            for (name, text) in names.into_iter().zip(texts) {
                set(name, text.map(Value::text));
            }
            let list = |members: Vec<&str>| owned_list(members.into_iter().map(str::to_owned));
            set("evt.flags", flags.map(list));
            set("cap.gained", caps.map(list));
            set("proc.pid", pid.map(Value::Number));
            set("proc.ppid", ppid.map(Value::Number));
            set("evt.rawres", result.map(Value::Number));
            set("evt.failed", failed.map(Value::Bool));
            set("evt.args_claimed", claimed.map(Value::Bool));
            event
        },
    )
}

const MACROS: [(&str, &str); 2] = [
    ("a_macro", "evt.type = setns and proc.name in (some_texts)"),
    ("another_macro", "not a_macro or proc.pid > 1"),
];
const LIST: &[&str] = &["a", "/a/b", "setns"];

fn names() -> Names {
    let mut names = Names::default();
    for (name, condition) in MACROS {
        names.macros.insert(name.to_owned(), parse(condition).unwrap());
    }
    names.lists.insert("some_texts".to_owned(), LIST.iter().map(|&text| text.to_owned()).collect());
    names
}

fn compiled(condition: &str) -> RuleSet {
    let [(a, a_body), (b, b_body)] = MACROS;
    let file = format!(
        "- list: some_texts\n  items: {LIST:?}\n- macro: {a}\n  condition: {a_body}\n\
         - macro: {b}\n  condition: {b_body}\n\
         - rule: R\n  desc: d\n  condition: {}\n  output: o\n  priority: DEBUG\n  warn_evttypes: false\n",
        serde_json::to_string(condition).unwrap()
    );
    RuleSet::from_sources(&[("t.yaml", &file)]).unwrap_or_else(|error| panic!("{condition}\n{error}"))
}

fn type_of_event(event: &FieldValues) -> EventType {
    let field = fields::resolve("evt.type", None).unwrap();
    let Value::Text(name) = event.value(field) else { panic!("no type") };
    EventType::all().find(|ty| ty.name() == name).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_tree_that_is_printed_is_parsed_to_itself(tree in tree()) {
        let text = tree.to_string();
        let again = parse(&text);
        prop_assert_eq!(Ok(&tree), again.as_ref(), "{}", text);
        prop_assert!(monitor::rules::syntax::tree(&text).is_ok());
    }

    #[test]
    fn compiled_conditions_mean_what_the_tree_says(
        condition in condition(),
        events in proptest::collection::vec((event(), any::<u64>()), 1..6),
    ) {
        let tree = parse(&condition).unwrap();
        let names = names();
        let set = compiled(&condition);
        let rule = &set.rules()[0];
        for (event, known) in &events {
            let expected = holds(&tree, &names, event);
            prop_assert_eq!(rule.holds(event), expected, "{} {:?}", condition, event);
            let ty = type_of_event(event);
            let mut matched = false;
            set.matches(ty, event, |_| matched = true);
            prop_assert_eq!(matched, expected, "specialised: {} {:?}", condition, event);
            prop_assert!(!expected || rule.types().has(ty), "{} {:?}", condition, ty);
            // Whatever is not known: if the outcome is decided, it is the right one.
            let facts = |field: FieldRef| -> Option<Value<'_>> {
                let bit = 1_u64 << (field.field as u16 % 64);
                (field.field == Field::EvtType || known & bit != 0).then(|| event.value(field))
            };
            match rule.partly(facts) {
                Maybe::Holds => prop_assert!(expected, "partly: {} {:?}", condition, event),
                Maybe::Fails => prop_assert!(!expected, "partly: {} {:?}", condition, event),
                Maybe::Depends => {}
            }
            prop_assert!(!expected || set.may_match(ty, monitor::rules::Priority::Debug, facts));
        }
    }

    #[test]
    fn no_condition_and_no_output_panics_the_loader(
        condition in any::<String>(),
        output in prop_oneof![any::<String>(), "[%a-z.()\\[\\], \"'*]{0,40}"],
        falco in any::<bool>(),
    ) {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let version = if falco { "- required_engine_version: 0.57.0\n" } else { "" };
        let file = format!(
            "{version}- rule: R\n  desc: d\n  condition: {}\n  output: {}\n  priority: DEBUG\n",
            quoted(&condition),
            quoted(&output)
        );
        let _whatever = RuleSet::from_sources(&[("t.yaml", &file)]);
        let file = file.replace(&quoted(&condition), "evt.type = setns");
        if let Ok(set) = RuleSet::from_sources(&[("t.yaml", &file)]) {
            for rule in set.rules() {
                let mut text = String::new();
                rule.output.render(&FieldValues::default(), &mut text);
            }
        }
    }

    #[test]
    fn no_regular_expression_panics(pattern in prop_oneof![any::<String>(), "[a\\[\\]\\\\^${}(),0-9|*+?:&~-]{0,24}"]) {
        let text = pattern.replace('\\', "\\\\").replace('\'', "\\'");
        let condition = format!("proc.name regex '{text}'");
        let file = format!(
            "- rule: R\n  desc: d\n  condition: {}\n  output: o\n  priority: DEBUG\n",
            serde_json::to_string(&condition).unwrap()
        );
        let _whatever = RuleSet::from_sources(&[("t.yaml", &file)]);
    }
}
