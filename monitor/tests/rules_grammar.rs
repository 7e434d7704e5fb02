//! The grammar of conditions: what is accepted, what is rejected and where, and what the trees look like.

use monitor::rules::condition::{MAX_NESTING, parse};
use proptest::prelude::*;

#[test]
fn accepted() {
    for text in [
        // Words, blanks and parentheses.
        "a",
        "  a  ",
        "(a)",
        "a and b and c",
        "a or b or(c)",
        "(a)and(b)",
        "(a)or(b)and(c)",
        "not(a)",
        "not a",
        "not not a",
        "not not(a)",
        "not(not(a))and(not(b))",
        "a\nand\r\n\tb",
        // Names that begin like words.
        "notb",
        "not_macro and and_macro or or_macro",
        "a and notb",
        // Fields and arguments.
        "a.b exists",
        "a.b.c_1 exists and d",
        "evt.arg[0] contains /bin",
        "evt.arg[name] = x",
        "evt.arg[\"na me\"] = x",
        "evt.arg['it\\'s'] = x",
        "x.y[/run/;a(b){c}:1] = x",
        // Operators.
        "a.b=1",
        "a.b==1",
        "a.b!=1",
        "a.b<1 and a.b<=1 and a.b>1 and a.b>=1",
        "a.b = not",
        "a.b = and and c",
        "a.b contains x",
        "a.b contains\nx",
        "a.b icontains x",
        "a.b bcontains 7f454c46",
        "a.b startswith x",
        "a.b bstartswith 7f",
        "a.b endswith x",
        "a.b glob *.log",
        "a.b iglob *.LOG",
        "a.b regex 'x|y'",
        "a.b in(1, 'a', b.c)",
        "a.b in ()",
        "a.b in ( )",
        "a.b in names",
        "a.b intersects (x)",
        "a.b pmatch (/etc, /usr)",
        "a.b=>> and c.d=/var/*",
        "a.b=< or c",
        // Values.
        "a.b = C:\\dir[1]{2};x|y&z!*@~",
        "a.b = \"\"",
        "a.b = 'it\\'s'",
        "a.b = \"mixed ' quotes\"",
        "a.b = \"a lone \\ backslash\"",
        "a.b = '#'",
        "a.b = 'many \\' \\\\''",
        "a.b = '\\b\\f\\n\\r\\t\\/\\x00\\xfF'",
        "a\u{8}and\u{8}b",
        "a.b existsand c",
        "a.b > -2.5e+3 and a.b < 0Xc0Ffee and a.b > 1. and a.b < +1",
        // Lists by modifiers.
        "fd.name startswith oneof (/etc, /root)",
        "fd.name startswith anyof (/etc)",
        "fd.name = oneof oneof",
        "fd.name = oneof ()",
        "(fd.name = oneof) or fd.name = allof",
        "fd.name != allof names",
        "a.b = oneof",
        "a.b = oneof and c",
        "a.b = oneof or(c)",
        "a.b = anyofx",
        // Transformers.
        "tolower(a.b) = x",
        "toupper( b64(\na.b ) ) exists",
        "a.b = val(c.d)",
        "a.b in val(c.d[1])",
        "a.b = tolower(c.d)",
        "len(a.b) > 3",
        "join(\"-\", (a.b, c.d)) = x-y",
        "concat(a.b, '/', basename(c.d)) = x",
        "join(\"-\", ()) = x",
        "join( '-' , ( a.b , 'x', 12, 0x1f, tolower(c.d) ) ) exists",
        "b64(a.b, 'x', -1.5) exists",
        "evt.arg[''] = x",
        "getopt((a.b, c.d), \"t:\")[\"t\"] = x",
        "a.b = b64 and(c)",
        "tolower and b",
    ] {
        assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
    }
}

#[test]
fn rejected_at_the_right_place() {
    for (text, offset) in [
        ("", 0),
        ("   ", 3),
        ("a andb", 5),
        ("aand b", 5),
        ("a notb", 2),
        ("a not b", 2),
        ("a orb", 4),
        ("(a)andnot(b)", 6),
        ("(a)ornot(b)", 5),
        ("a and or b", 6),
        ("a and", 5),
        ("a and ", 6),
        ("a or not ", 9),
        ("and a", 0),
        ("not", 0),
        ("a b", 2),
        ("(a", 2),
        ("a)", 1),
        ("()", 1),
        ("#a", 0),
        ("a # b", 2),
        ("pid > 12", 0),
        ("a = b", 0),
        ("a.b", 3),
        ("a.b ExIsTs", 4),
        ("a.b exists twice", 11),
        ("a.b nosuch x", 4),
        ("a.b ===", 6),
        ("a.b !==", 6),
        ("a.b = ", 6),
        ("a.b = b = 1", 8),
        ("a.b = a,", 7),
        ("a.b = (x)", 6),
        ("a.b = 'x", 6),
        ("a.b = \"x'", 6),
        ("a.b = 'x''", 9),
        ("a.b = \"mixed \\'\"", 13),
        ("a.b = 'x\\d'", 8),
        ("a.b = '\\x4'", 7),
        ("a.b = '\\xg0'", 7),
        ("a.b = 'mixed \\\"'", 13),
        ("a.b = \"broken\"\"", 14),
        ("a.b containsx", 4),
        ("a.b globx y", 4),
        ("a.b contains(x)", 4),
        ("a.b > x", 6),
        ("a.b > 0x1f.5", 10),
        ("a.b > 7up", 7),
        ("a.b > (1)", 6),
        ("a.b in (", 8),
        ("a.b in )", 7),
        ("a.b in (x,)", 10),
        ("a.b in (x,,y)", 10),
        ("a.b in (,)", 8),
        ("a.b in (x y)", 10),
        ("a.b in 'x'", 7),
        ("a.b in (b64(c.d))", 11),
        ("evt.arg[] = x", 8),
        ("evt.arg[ x ] = x", 8),
        ("evt.arg[[] = x", 8),
        ("evt.arg[a\"] = x", 9),
        ("evt.arg[x = x", 9),
        ("evt.arg] = x", 7),
        ("val(a.b) exists", 3),
        ("b64(val(a.b)) exists", 4),
        ("b64 (a.b) exists", 4),
        ("nosuch(a.b) exists", 6),
        ("b64(a.b exists", 8),
        ("b64() exists", 4),
        ("b64(a.b,) exists", 8),
        ("join('-', a.b, c.d)) = x", 19),
        ("join('-', (,)) = x", 11),
        ("join('-', (a.b,)) = x", 15),
        ("join('-', (a.b,,c.d)) = x", 15),
        ("join('-', ((a.b))) = x", 11),
        ("join('-', (word)) = x", 11),
        ("join('-', word) = x", 10),
        ("join('-', (a.b, c.d) = x", 21),
        ("a.b = oneof(x)", 11),
        ("a.b startswith anyof(x)", 20),
        ("a.b ==oneof (x)", 12),
        ("a.b = Oneof (x)", 12),
        ("a.b = oneof_x (y)", 14),
        ("a.b > oneof (1)", 6),
        ("a.b in oneof (x)", 13),
        ("a.b = oneof not", 12),
        ("a.b = oneof (x,)", 15),
        ("a.b inx", 4),
        ("b64(ab) exists", 4),
        ("a.b = val(val(c.d))", 10),
        ("a.b = val(cd)", 10),
        ("a.b = nosuch(c.d)", 12),
        ("a.b = b64(c.d", 13),
        ("a.b = b64and(c)", 12),
    ] {
        match parse(text) {
            Ok(tree) => panic!("{text} was accepted as {tree}"),
            Err(error) => assert_eq!(error.offset, offset, "{text}: {error}"),
        }
    }
}

#[test]
fn trees_follow_precedence() {
    for (text, printed) in [
        ("a or b and c", "a or b and c"),
        ("(a or b) and c", "(a or b) and c"),
        ("(a and b) or c", "a and b or c"),
        ("not a and b", "not (a) and b"),
        ("not (a and b)", "not (a and b)"),
        ("not not a", "a"),
        ("not not not a", "not (a)"),
        ("not(not a)", "not (not (a))"),
        ("((a))", "a"),
        ("a or(b)and c", "a or b and c"),
        ("a.b==1", "a.b = 1"),
        ("a.b = not and c", "a.b = not and c"),
        ("a.b in(x,'y')", "a.b in (x, \"y\")"),
        ("a.b[x]='a\\tb'", "a.b[\"x\"] = \"a\tb\""),
        ("join('-',(a.b,c.d))=x", "join(\"-\", (a.b, c.d)) = x"),
    ] {
        assert_eq!(parse(text).unwrap().to_string(), printed, "{text}");
    }
}

#[test]
fn nesting_has_a_limit_and_no_crash() {
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(MAX_NESTING)).is_ok());
    let error = parse(&nested(MAX_NESTING + 1)).unwrap_err();
    assert!(error.message.contains("nested more than 100"), "{error}");
    assert!(parse(&nested(1_000_000)).is_err());
    let transformed = |depth: usize| format!("{}a.b{} = x", "b64(".repeat(depth), ")".repeat(depth));
    assert!(parse(&transformed(MAX_NESTING)).is_ok());
    assert!(parse(&transformed(MAX_NESTING + 1)).is_err());
    assert!(parse(&format!("{}a", "not ".repeat(1_000_000))).is_ok());
    assert!(parse(&"not(".repeat(1_000_000)).is_err());
    assert!(parse(&format!("concat({}", "(".repeat(1_000_000))).is_err());
}

/// Words from which conditions and near conditions are made.
const PIECES: &[&str] = &[
    "a", "a.b", "a.b[1]", "and", "or", "not", "(", ")", " ", " ", "=", "!=", "<", "in", "exists", "contains",
    "oneof", ",", "'x'", "\"", "'", "\\", "1", "0x", "tolower(", "val(", "join(", "[", "]", "ä", "\n", ".",
];

fn literal() -> impl Strategy<Value = String> {
    // Any text in quotes; a backslash before the closing quote would keep it open.
    prop_oneof![
        "[a-z/*.-][a-z0-9/*.-]{0,6}",
        any::<String>().prop_map(|text| {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            let text = text.trim_end_matches('\\').to_owned();
            format!("\"{text}\"")
        }),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[a-z]{1,3}_m".prop_map(|name| name),
        "[a-z]{1,3}\\.[a-z]{1,3}".prop_map(|field| format!("{field} exists")),
        ("[a-z]{1,3}\\.[a-z]{1,3}", literal()).prop_map(|(field, text)| format!("{field} = {text}")),
        ("[a-z]{1,3}\\.[a-z]{1,3}", literal(), literal())
            .prop_map(|(field, a, b)| format!("tolower({field}) startswith oneof ({a}, {b})")),
        ("[a-z]{1,3}\\.[a-z]{1,3}", any::<i32>()).prop_map(|(field, n)| format!("{field}[k] >= {n}")),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| format!("not ({a})")),
            proptest::collection::vec(inner.clone(), 2..4)
                .prop_map(|all| format!("({})", all.join(") and ("))),
            proptest::collection::vec(inner, 2..4).prop_map(|all| all.join(" or ")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics_the_parser(text in any::<String>()) {
        let _whatever = parse(&text);
    }

    #[test]
    fn no_sequence_of_words_panics_the_parser(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)
    ) {
        let text = pieces.concat();
        if let Err(error) = parse(&text) {
            prop_assert!(error.offset <= text.len());
        }
    }

    #[test]
    fn what_is_printed_parses_to_the_same_tree(text in condition()) {
        let tree = parse(&text).unwrap();
        let again = parse(&tree.to_string());
        prop_assert_eq!(Ok(&tree), again.as_ref(), "{}", tree);
    }
}
