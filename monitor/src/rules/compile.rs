//! From syntax trees to compiled conditions: macros, lists, fields and types are looked up here.

use std::collections::HashMap;
use std::sync::Arc;

use super::ast::{
    Expr, ExprKind, FieldName, List, Literal, Modifier, Operand, OperandKind, Operator, Right, Span, Spanned,
};
use super::check::{Check, NumberCheck, TextCheck, TextSet};
use super::diagnostic::did_you_mean;
use super::eval::{Node, Slot};
use super::falco::{self, Dialect};
use super::number::Exact;
use super::operand::{self, Problem, Source, Typed};
use super::pattern::{self, PatternError};
use super::said::Said;
use crate::fields::{self, ArgSpec, FieldArg, FieldRef, FieldType};

/// How deep a condition may nest, macros included.
pub(crate) const MAX_DEPTH: usize = 300;

const _: () = assert!(MAX_DEPTH > super::condition::MAX_NESTING);

/// At most this many tests has a condition, macros included: what a bomb of macros runs into.
const MAX_TESTS: u64 = 10_000;

/// At most this many members has a list, other lists included.
pub(crate) const MAX_MEMBERS: usize = 100_000;

/// A compiled condition with its size.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    pub(crate) node: Arc<Node>,
    /// The words of `node`.
    pub(crate) said: Arc<Said>,
    /// If it is a macro's: its number.
    slot: Slot,
    /// How many tests it makes at most.
    tests: u64,
    /// How deep it nests.
    depth: usize,
}

impl Compiled {
    /// Gives a macro its number.
    pub(crate) fn numbered(self, slot: Slot) -> Self {
        Compiled { slot, ..self }
    }
}

/// A name that can be used in conditions, and what became of it.
#[derive(Clone, Debug)]
pub(crate) enum Known<T> {
    /// It can be used.
    Good(T),
    /// It is wrong, which has been reported at its own place.
    Bad,
}

/// Gives macros and lists to the conditions that name them.
pub(crate) trait Names {
    /// The compiled macro, or why it cannot be used here.
    fn macro_named(&mut self, name: &str, depth: usize) -> Result<Known<Compiled>, NameProblem>;
    /// The members of a list.
    fn list_named(&mut self, name: &str) -> Result<Known<Arc<[String]>>, NameProblem>;
    /// Whether there is a list of that name.
    fn has_list(&self, name: &str) -> bool;
}

/// Why a name cannot be used.
#[derive(Clone, Debug)]
pub(crate) struct NameProblem {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl NameProblem {
    /// A name that nothing has.
    pub(crate) fn unknown<'c>(kind: &str, name: &str, names: impl IntoIterator<Item = &'c str>) -> Self {
        NameProblem { message: format!("unknown {kind} `{name}`"), help: did_you_mean(name, names) }
    }
}

/// Compiles conditions; collects what is wrong with them.
pub(crate) struct Compiler<'n, N> {
    pub(crate) names: &'n mut N,
    pub(crate) problems: Vec<Problem>,
    /// Something it needs is wrong and has been reported elsewhere.
    pub(crate) spoilt: bool,
    dialect: Dialect,
    base_depth: usize,
    tests: u64,
    deepest: usize,
}

impl<'n, N: Names> Compiler<'n, N> {
    /// A compiler for one condition that is itself nested this deep.
    pub(crate) fn new(names: &'n mut N, dialect: Dialect, base_depth: usize) -> Self {
        Compiler { names, problems: Vec::new(), spoilt: false, dialect, base_depth, tests: 0, deepest: 0 }
    }

    /// Compiles the condition; `None` if something is wrong, which `problems` then says, or `spoilt`.
    pub(crate) fn compile(&mut self, expr: &Expr) -> Option<Compiled> {
        let node = self.node(expr, 1)?;
        if self.tests > MAX_TESTS {
            let message = format!("the condition makes more than {MAX_TESTS} tests, macros included");
            self.problems.push(Problem::new(expr.span, message));
        }
        let good = self.problems.is_empty() && !self.spoilt;
        good.then(|| Compiled {
            said: Arc::new(Said::of(expr, &node, self.names)),
            node: Arc::new(node),
            slot: Slot::MAX,
            tests: self.tests,
            depth: self.deepest,
        })
    }

    fn node(&mut self, expr: &Expr, depth: usize) -> Option<Node> {
        self.deepest = self.deepest.max(depth);
        if self.base_depth + depth > MAX_DEPTH {
            return self.fail(Problem::new(expr.span, too_deep()));
        }
        match &expr.value {
            ExprKind::Or(members) => self.nodes(members, depth).map(Node::Or),
            ExprKind::And(members) => self.nodes(members, depth).map(Node::And),
            ExprKind::Not(member) => Some(Node::Not(Box::new(self.node(member, depth + 1)?))),
            ExprKind::Macro(name) => self.macro_use(name, expr.span, depth),
            ExprKind::Exists(left) => {
                self.tests += 1;
                let of = self.ancestors(left);
                let left = self.take(operand::resolve(left, self.dialect))?;
                Some(Node::Test(left.source, of_any(of, Check::Exists)))
            }
            ExprKind::Compare(left, op, right) => {
                self.tests += 1;
                let left_span = left.span;
                let of = self.ancestors(left);
                let left = self.take(operand::resolve(left, self.dialect))?;
                let check = self.check(&left, left_span, op, right)?;
                Some(Node::Test(left.source, of_any(of, check)))
            }
        }
    }

    /// If the operand is a field that takes the number of an ancestor, and stands without: it for every ancestor.
    fn ancestors(&self, operand: &Operand) -> Vec<Source> {
        let OperandKind::Field(FieldName { name, arg: None }) = &operand.value else { return Vec::new() };
        let ours = if self.dialect.is_falco() { falco::ancestors(name).unwrap_or(name) } else { name };
        let Ok(FieldRef { field, arg: FieldArg::None }) = fields::resolve(ours, None) else {
            return Vec::new();
        };
        match field.spec().arg {
            ArgSpec::Index { max } => {
                let number = |index| Source::Field(FieldRef { field, arg: FieldArg::Index(index) });
                (1..=max).map(number).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Compiles all members, even after one was wrong.
    fn nodes(&mut self, members: &[Expr], depth: usize) -> Option<Box<[Node]>> {
        let nodes: Vec<Option<Node>> = members.iter().map(|member| self.node(member, depth + 1)).collect();
        nodes.into_iter().collect()
    }

    fn macro_use(&mut self, name: &str, span: Span, depth: usize) -> Option<Node> {
        let depth_here = self.base_depth + depth;
        match self.names.macro_named(name, depth_here) {
            Ok(Known::Good(body)) => {
                self.tests = self.tests.saturating_add(body.tests);
                self.deepest = self.deepest.max(depth + body.depth);
                if depth_here + body.depth > MAX_DEPTH {
                    return self.fail(Problem::new(span, too_deep()));
                }
                Some(Node::Macro(body.slot, body.node))
            }
            Ok(Known::Bad) => {
                self.spoilt = true;
                None
            }
            Err(NameProblem { message, help }) => {
                self.fail(Problem { span, message, help, unknown_field: false })
            }
        }
    }

    fn fail<T>(&mut self, problem: Problem) -> Option<T> {
        self.problems.push(problem);
        None
    }

    fn take<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    fn check(
        &mut self,
        left: &Typed,
        left_span: Span,
        op: &Spanned<Operator>,
        right: &Right,
    ) -> Option<Check> {
        // What a field has that nothing stands for is not known well enough to say more.
        let unknown = left.source.is_missing();
        if !unknown && let Err(problem) = fits_type(op, left.ty) {
            return self.fail(problem);
        }
        let op = op.value;
        if unknown {
            return match right {
                Right::List(list) | Right::Many(_, list) => self.members(list).map(|_| Check::Exists),
                _ => Some(Check::Exists),
            };
        }
        match right {
            Right::Value(literal) => self.take(single(op, left.ty, literal)),
            Right::List(list) => {
                let members = self.members(list)?;
                self.take(several(op, left.ty, &members))
            }
            Right::Many(modifier, list) => {
                let members = self.members(list)?;
                let checks: Result<Vec<Check>, Problem> =
                    members.iter().map(|member| single(op, left.ty, member)).collect();
                let checks = self.take(checks)?;
                Some(match modifier {
                    Modifier::OneOf => Check::One(checks.into()),
                    Modifier::AnyOf => Check::Any(checks.into()),
                    // As in Falco nothing fits an empty list.
                    Modifier::AllOf if checks.is_empty() => Check::Any(Box::default()),
                    Modifier::AllOf => Check::All(checks.into()),
                })
            }
            Right::Val(field) => {
                let right = self.take(operand::resolve_field(&field.value, field.span, self.dialect))?;
                self.against(left, left_span, op, right, field.span)
            }
            Right::Transform(transformed) => {
                let span = transformed.span;
                let right = self.take(operand::resolve(transformed, self.dialect))?;
                self.against(left, left_span, op, right, span)
            }
        }
    }

    fn against(
        &mut self,
        left: &Typed,
        left_span: Span,
        op: Operator,
        right: Typed,
        right_span: Span,
    ) -> Option<Check> {
        let text = |ty| matches!(ty, FieldType::Text | FieldType::TextList);
        if left.ty != right.ty && !(text(left.ty) && text(right.ty)) {
            let message = format!("a {} cannot be compared with a {}", left.ty.name(), right.ty.name());
            let span = Span { start: left_span.start, end: right_span.end };
            return self.fail(Problem::new(span, message));
        }
        use Operator::{Bcontains, Bstartswith, Glob, Iglob, Pmatch, Regex};
        if matches!(op, Glob | Iglob | Regex | Pmatch | Bcontains | Bstartswith) {
            let message = format!("`{}` needs a value that is known at load, not another field", op.word());
            return self.fail(Problem::new(right_span, message));
        }
        Some(Check::Against(op, Box::new(right.source)))
    }

    /// The members of a list, lists among them spliced in.
    fn members(&mut self, list: &List) -> Option<Vec<Literal>> {
        match list {
            List::Name(name) => self.list_named(&name.value, name.span),
            List::Members(written, span) => {
                let mut members = Vec::new();
                let mut good = true;
                for member in written {
                    if member.value.quoted || !self.names.has_list(&member.value.text) {
                        members.push(member.clone());
                        continue;
                    }
                    match self.list_named(&member.value.text, member.span) {
                        Some(more) => members.extend(more),
                        None => good = false,
                    }
                }
                if members.len() > MAX_MEMBERS {
                    return self.fail(Problem::new(*span, format!("more than {MAX_MEMBERS} list members")));
                }
                good.then_some(members)
            }
        }
    }

    fn list_named(&mut self, name: &str, span: Span) -> Option<Vec<Literal>> {
        match self.names.list_named(name) {
            Ok(Known::Good(members)) => {
                let literal = |text: &String| Spanned {
                    value: super::ast::LiteralKind { text: text.clone(), quoted: true },
                    span,
                };
                Some(members.iter().map(literal).collect())
            }
            Ok(Known::Bad) => {
                self.spoilt = true;
                None
            }
            Err(NameProblem { message, help }) => {
                self.fail(Problem { span, message, help, unknown_field: false })
            }
        }
    }
}

/// The test, of any of these values if there are some.
fn of_any(sources: Vec<Source>, check: Check) -> Check {
    if sources.is_empty() { check } else { Check::OfAny(sources.into(), Box::new(check)) }
}

fn too_deep() -> String {
    format!("nested more than {MAX_DEPTH} deep, macros included")
}

/// Whether the operator can be used on values of the type at all.
fn fits_type(op: &Spanned<Operator>, ty: FieldType) -> Result<(), Problem> {
    use Operator::{Eq, Ge, Gt, In, Intersects, Le, Lt, Ne};
    let good = match ty {
        FieldType::Text | FieldType::TextList => !matches!(op.value, Lt | Le | Gt | Ge),
        FieldType::Number => matches!(op.value, Eq | Ne | Lt | Le | Gt | Ge | In | Intersects),
        FieldType::Bool => matches!(op.value, Eq | Ne | In | Intersects),
    };
    if good {
        return Ok(());
    }
    let problem = Problem::new(op.span, format!("`{}` does not work on a {}", op.value.word(), ty.name()));
    Err(match ty {
        FieldType::Text | FieldType::TextList => problem.help("`<`, `<=`, `>` and `>=` are for numbers"),
        FieldType::Number => {
            problem.help("use `=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `intersects` or `exists`")
        }
        FieldType::Bool => problem.help("use `= true`, `= false` or `exists`"),
    })
}

/// A test against one value.
fn single(op: Operator, ty: FieldType, literal: &Literal) -> Result<Check, Problem> {
    match ty {
        FieldType::Number => number(op, literal).map(Check::Number),
        FieldType::Bool => {
            let wanted = truth(literal)?;
            Ok(Check::Bool(if op == Operator::Ne { !wanted } else { wanted }))
        }
        FieldType::Text | FieldType::TextList => {
            let check = text(op, literal)?;
            Ok(if op == Operator::Ne { Check::NotText(check) } else { Check::Text(check) })
        }
    }
}

fn number(op: Operator, literal: &Literal) -> Result<NumberCheck, Problem> {
    let exact = exact(literal)?;
    exact.check(op).ok_or_else(|| Problem::new(literal.span, format!("`{}` is not for numbers", op.word())))
}

fn exact(literal: &Literal) -> Result<Exact, Problem> {
    let text = &literal.value.text;
    Exact::parse(text).ok_or_else(|| {
        Problem::new(literal.span, format!("`{text}` is not a number"))
            .help("the field is a number; write decimal, or hexadecimal with 0x")
    })
}

fn truth(literal: &Literal) -> Result<bool, Problem> {
    match literal.value.text.as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(Problem::new(literal.span, format!("`{other}` is neither `true` nor `false`"))),
    }
}

fn text(op: Operator, literal: &Literal) -> Result<TextCheck, Problem> {
    let text = literal.value.text.as_str();
    let boxed = || text.into();
    let pattern = |built: Result<regex::Regex, PatternError>| {
        built.map_err(|error| misfit(literal, error)).map(TextCheck::Pattern)
    };
    match op {
        Operator::Contains => Ok(TextCheck::Contains(boxed())),
        Operator::Icontains => Ok(TextCheck::ContainsIgnoringCase(boxed())),
        Operator::Bcontains => Ok(TextCheck::ContainsBytes(bytes(literal)?)),
        Operator::Startswith => Ok(TextCheck::StartsWith(boxed())),
        Operator::Bstartswith => Ok(TextCheck::StartsWithBytes(bytes(literal)?)),
        Operator::Endswith => Ok(TextCheck::EndsWith(boxed())),
        Operator::Glob => pattern(pattern::glob(text, false)),
        Operator::Iglob => pattern(pattern::glob(text, true)),
        Operator::Regex => pattern(pattern::regex(text)),
        _ => Ok(TextCheck::Equals(boxed())),
    }
}

/// What is wrong with a pattern, at its place in the condition where that can be told.
fn misfit(literal: &Literal, error: PatternError) -> Problem {
    let Span { start, end } = literal.span;
    // Escapes in quotes are resolved: behind one, places differ.
    let quotes = usize::from(literal.value.quoted);
    let verbatim = end.checked_sub(start) == Some(literal.value.text.len() + 2 * quotes);
    let span = match error.offset {
        Some(offset) if verbatim && offset < literal.value.text.len() => {
            let at = start + quotes + offset;
            Span { start: at, end: at + 1 }
        }
        _ => literal.span,
    };
    Problem::new(span, error.message)
}

/// The bytes that hexadecimal digits stand for.
fn bytes(literal: &Literal) -> Result<Box<[u8]>, Problem> {
    let digits = literal.value.text.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let pair =
            std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
        if pair.len() == 2 { u8::from_str_radix(pair, 16).ok() } else { None }
    });
    pairs.collect::<Option<_>>().ok_or_else(|| {
        Problem::new(literal.span, "expected bytes as pairs of hexadecimal digits, such as `7f454c46`")
    })
}

/// A test against a list.
fn several(op: Operator, ty: FieldType, members: &[Literal]) -> Result<Check, Problem> {
    match (ty, op) {
        (FieldType::Number, _) => {
            let numbers: Result<Vec<Exact>, Problem> = members.iter().map(exact).collect();
            let mut numbers: Vec<i64> = numbers?.into_iter().filter_map(Exact::whole).collect();
            numbers.sort_unstable();
            Ok(Check::Number(NumberCheck::OneOf(numbers.into())))
        }
        (FieldType::Bool, _) => {
            let checks: Result<Vec<Check>, Problem> =
                members.iter().map(|member| truth(member).map(Check::Bool)).collect();
            Ok(Check::Any(checks?.into()))
        }
        (_, Operator::Pmatch) => below(members),
        _ => {
            let set = TextSet::new(members.iter().map(|member| member.value.text.clone()));
            let check = TextCheck::OneOf(set);
            Ok(if op == Operator::In { Check::EveryText(check) } else { Check::Text(check) })
        }
    }
}

/// `pmatch`: paths as they are, and paths with wildcards, which do not cross a slash.
fn below(members: &[Literal]) -> Result<Check, Problem> {
    let mut plain: Vec<Box<str>> = Vec::new();
    let mut checks = Vec::new();
    for member in members {
        let path = member.value.text.as_str();
        if path.is_empty() {
            return Err(Problem::new(member.span, "an empty path"));
        }
        let path = path.trim_end_matches('/');
        if path.contains(['*', '?', '[']) {
            let pattern = pattern::below(path).map_err(|error| misfit(member, error))?;
            checks.push(Check::Text(TextCheck::Pattern(pattern)));
        } else {
            plain.push(path.into());
        }
    }
    let plain = Check::Text(TextCheck::BelowOneOf(plain.into()));
    if checks.is_empty() {
        return Ok(plain);
    }
    checks.push(plain);
    Ok(Check::Any(checks.into()))
}

/// What is known under a name, or being worked out.
#[derive(Clone, Debug)]
pub(crate) enum State<T> {
    /// Being worked out: who asks for it again has come in a circle.
    Open,
    /// Worked out.
    Done(Known<T>),
}

/// States by name.
pub(crate) type States<T> = HashMap<String, State<T>>;
