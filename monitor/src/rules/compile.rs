//! From syntax trees to compiled conditions: macros, lists, fields and types are looked up here.

mod checks;

use std::collections::HashMap;
use std::sync::Arc;

use self::checks::{several, single};
use super::ast::{
    Expr, ExprKind, FieldName, List, Literal, Modifier, Operand, OperandKind, Operator, Right, Span, Spanned,
};
use super::check::Check;
use super::diagnostic::did_you_mean;
use super::eval::{Node, Slot};
use super::falco::{self, Dialect};
use super::operand::{self, Problem, Source, Typed};
use super::pattern::Patterns;
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
    /// Nothing is wrong with it but fields that the catalogue does not have; whoever uses it reports that.
    Unknown,
}

/// Gives macros and lists to the conditions that name them.
pub(crate) trait Names {
    /// The compiled macro, or why it cannot be used here.
    fn macro_named(&mut self, name: &str, depth: usize) -> Result<Known<Compiled>, NameProblem>;
    /// The members of a list.
    fn list_named(&mut self, name: &str) -> Result<Known<Arc<[String]>>, NameProblem>;
    /// Whether there is a list of that name.
    fn has_list(&self, name: &str) -> bool;
    /// The patterns that were compiled so far.
    fn patterns(&mut self) -> &mut Patterns;
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
    /// What is odd, though not wrong.
    pub(crate) warnings: Vec<Problem>,
    /// Something it needs is wrong and has been reported elsewhere.
    pub(crate) spoilt: bool,
    /// Macros that it uses and that name fields which the catalogue does not have.
    pub(crate) unknown_macros: Vec<String>,
    dialect: Dialect,
    base_depth: usize,
    tests: u64,
    deepest: usize,
}

impl<'n, N: Names> Compiler<'n, N> {
    /// A compiler for one condition that is itself nested this deep.
    pub(crate) fn new(names: &'n mut N, dialect: Dialect, base_depth: usize) -> Self {
        Compiler {
            names,
            problems: Vec::new(),
            warnings: Vec::new(),
            spoilt: false,
            unknown_macros: Vec::new(),
            dialect,
            base_depth,
            tests: 0,
            deepest: 0,
        }
    }

    /// Compiles the condition; `None` if something is wrong, which `problems` then says, or `spoilt`.
    pub(crate) fn compile(&mut self, expr: &Expr) -> Option<Compiled> {
        let node = self.node(expr, 1)?;
        if self.tests > MAX_TESTS {
            let message = format!("the condition makes more than {MAX_TESTS} tests, macros included");
            self.problems.push(Problem::new(expr.span, message));
        }
        let good = self.problems.is_empty() && !self.spoilt && self.unknown_macros.is_empty();
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
            Ok(Known::Unknown) => {
                self.unknown_macros.push(name.to_owned());
                None
            }
            Err(NameProblem { message, help }) => {
                self.fail(Problem { span, message, help, unknown_field: false })
            }
        }
    }

    /// Warns of a text without quotes that is a field's name: most likely its value was meant.
    fn looks_like_field(&mut self, ty: FieldType, literal: &Literal) {
        let text = &literal.value.text;
        let is_text = matches!(ty, FieldType::Text | FieldType::TextList);
        if is_text && !literal.value.quoted && text.contains('.') && operand::names_field(text) {
            let message = format!("`{text}` is taken for a text, though it looks like a field");
            let help =
                format!("write `val({text})` to compare with the field's value, or put the text into quotes");
            self.warnings.push(Problem::new(literal.span, message).help(help));
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
            Right::Value(literal) => {
                self.looks_like_field(left.ty, literal);
                let check = single(op, left.ty, literal, self.names.patterns());
                self.take(check)
            }
            Right::List(list) => {
                let members = self.members(list)?;
                let check = several(op, left.ty, &members, self.names.patterns());
                self.take(check)
            }
            Right::Many(modifier, list) => {
                let members = self.members(list)?;
                let patterns = self.names.patterns();
                let checks: Result<Vec<Check>, Problem> =
                    members.iter().map(|member| single(op, left.ty, member, patterns)).collect();
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
            Ok(Known::Bad | Known::Unknown) => {
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
