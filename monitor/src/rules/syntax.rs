//! Syntax trees as JSON, for programs that want to look at conditions: what `ringfence rules parse` prints.
//!
//! `docs/syntax-tree.md` describes the form. Nothing is looked up: names stand as they were written.

use serde_json::{Map, Value as Json, json};

use super::ast::{
    Expr, ExprKind, FieldName, List, Literal, Operand, OperandKind, Right, Span, Spanned, Transform,
};
use super::condition::{self, SyntaxError};

/// A place in a text: line and column from 1, the column in characters, and the offset in bytes from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which line.
    pub line: usize,
    /// Which character of the line.
    pub column: usize,
    /// Which byte of the text.
    pub offset: usize,
}

impl Position {
    /// The place at a byte of a text; beyond its end, the end.
    pub fn at(text: &str, offset: usize) -> Self {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = text.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            offset,
        }
    }

    fn json(self) -> Json {
        json!({ "line": self.line, "column": self.column, "offset": self.offset })
    }
}

/// Parses a condition and gives its tree.
///
/// # Errors
/// As [`condition::parse`].
pub fn tree(text: &str) -> Result<Json, SyntaxError> {
    let expr = condition::parse(text)?;
    Ok(Printer { text }.expr(&expr))
}

/// A syntax error as JSON.
pub fn error(text: &str, error: &SyntaxError) -> Json {
    let at = Position::at(text, error.offset);
    json!({
        "error": {
            "message": error.message,
            "help": error.help,
            "line": at.line,
            "column": at.column,
            "offset": at.offset,
        }
    })
}

/// Makes JSON of the tree of a text.
struct Printer<'t> {
    text: &'t str,
}

impl Printer<'_> {
    /// A node: its kind, what is particular to it, and where it stands.
    fn node(&self, kind: &str, span: Span, rest: impl IntoIterator<Item = (&'static str, Json)>) -> Json {
        let mut node = Map::new();
        node.insert("kind".to_owned(), kind.into());
        node.extend(rest.into_iter().map(|(key, value)| (key.to_owned(), value)));
        node.insert("start".to_owned(), Position::at(self.text, span.start).json());
        node.insert("end".to_owned(), Position::at(self.text, span.end).json());
        Json::Object(node)
    }

    fn expr(&self, expr: &Expr) -> Json {
        let span = expr.span;
        let members = |members: &[Expr]| -> Json { members.iter().map(|member| self.expr(member)).collect() };
        match &expr.value {
            ExprKind::Or(all) => self.node("or", span, [("members", members(all))]),
            ExprKind::And(all) => self.node("and", span, [("members", members(all))]),
            ExprKind::Not(member) => self.node("not", span, [("member", self.expr(member))]),
            ExprKind::Macro(name) => self.node("macro", span, [("name", name.as_str().into())]),
            ExprKind::Exists(left) => self.node("exists", span, [("left", self.operand(left))]),
            ExprKind::Compare(left, op, right) => {
                let modifier = match right {
                    Right::Many(modifier, _) => modifier.word().into(),
                    _ => Json::Null,
                };
                let parts = [
                    ("left", self.operand(left)),
                    ("operator", op.value.word().into()),
                    ("modifier", modifier),
                    ("right", self.right(right)),
                ];
                self.node("compare", span, parts)
            }
        }
    }

    fn operand(&self, operand: &Operand) -> Json {
        let span = operand.span;
        match &operand.value {
            OperandKind::Field(field) => self.field(field, span),
            OperandKind::Transform(Transform { kind, args, key }) => {
                let parts = [
                    ("name", kind.word().into()),
                    ("arguments", args.iter().map(|arg| self.operand(arg)).collect()),
                    ("key", key.as_deref().into()),
                ];
                self.node("transformer", span, parts)
            }
            OperandKind::Literal(literal) => self.literal(literal),
            OperandKind::Tuple(members) => {
                let members = members.iter().map(|member| self.operand(member)).collect();
                self.node("list", span, [("members", members)])
            }
        }
    }

    fn field(&self, field: &FieldName, span: Span) -> Json {
        let parts = [("name", field.name.as_str().into()), ("argument", field.arg.as_deref().into())];
        self.node("field", span, parts)
    }

    fn literal(&self, literal: &Literal) -> Json {
        let parts = [("text", literal.value.text.as_str().into()), ("quoted", literal.value.quoted.into())];
        self.node("value", literal.span, parts)
    }

    fn right(&self, right: &Right) -> Json {
        match right {
            Right::Value(literal) => self.literal(literal),
            Right::List(list) | Right::Many(_, list) => self.list(list),
            Right::Val(field) => {
                self.node("val", field.span, [("field", self.field(&field.value, field.span))])
            }
            Right::Transform(operand) => self.operand(operand),
        }
    }

    fn list(&self, list: &List) -> Json {
        match list {
            List::Name(Spanned { value, span }) => {
                self.node("list_name", *span, [("name", value.as_str().into())])
            }
            List::Members(members, span) => {
                let members = members.iter().map(|member| self.literal(member)).collect();
                self.node("list", *span, [("members", members)])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree without places.
    fn bare(text: &str) -> Json {
        fn strip(json: &mut Json) {
            match json {
                Json::Object(map) => {
                    map.remove("start");
                    map.remove("end");
                    map.values_mut().for_each(strip);
                }
                Json::Array(members) => members.iter_mut().for_each(strip),
                _ => {}
            }
        }
        let mut json = tree(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        strip(&mut json);
        json
    }

    #[test]
    fn trees_have_every_part() {
        let tree = bare(
            "not m and proc.aname[2] exists or tolower(a.b) = oneof (x, 'y') or getopt((\"v\", a.b), 'o:')[o] in l \
             or a.b = val(c.d)",
        );
        let field =
            |name: &str, argument: Option<&str>| json!({"kind": "field", "name": name, "argument": argument});
        let value = |text: &str, quoted: bool| json!({"kind": "value", "text": text, "quoted": quoted});
        let expected = json!({"kind": "or", "members": [
            {"kind": "and", "members": [
                {"kind": "not", "member": {"kind": "macro", "name": "m"}},
                {"kind": "exists", "left": field("proc.aname", Some("2"))},
            ]},
            {"kind": "compare",
             "left": {"kind": "transformer", "name": "tolower", "arguments": [field("a.b", None)], "key": null},
             "operator": "=", "modifier": "oneof",
             "right": {"kind": "list", "members": [value("x", false), value("y", true)]}},
            {"kind": "compare",
             "left": {"kind": "transformer", "name": "getopt", "arguments": [
                 {"kind": "list", "members": [value("v", true), field("a.b", None)]}, value("o:", true),
             ], "key": "o"},
             "operator": "in", "modifier": null, "right": {"kind": "list_name", "name": "l"}},
            {"kind": "compare", "left": field("a.b", None), "operator": "=", "modifier": null,
             "right": {"kind": "val", "field": field("c.d", None)}},
        ]});
        assert_eq!(tree, expected);
    }

    #[test]
    fn places_are_lines_columns_and_bytes() {
        let tree = tree("é.b\n").unwrap_err();
        assert_eq!(tree.offset, 0);
        let text = "a.b = 'é'\n and c.d in (x)";
        let tree = super::tree(text).unwrap();
        let second = &tree["members"][1];
        assert_eq!(second["start"], json!({"line": 2, "column": 6, "offset": 16}));
        assert_eq!(second["end"], json!({"line": 2, "column": 16, "offset": 26}));
        assert_eq!(second["right"]["start"], json!({"line": 2, "column": 13, "offset": 23}));
        let wrong = condition::parse("a.b = 'é' or\n)").unwrap_err();
        let json = error("a.b = 'é' or\n)", &wrong);
        assert_eq!(json["error"]["line"], 2);
        assert_eq!(json["error"]["column"], 1);
        assert_eq!(json["error"]["offset"], 14);
    }
}
