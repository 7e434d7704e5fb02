//! Conditions as logic: macros expanded, negations pushed down to single tests, what asks for the type of event as sets.

use std::collections::HashMap;
use std::sync::Arc;

use crate::event_type::{EventType, TypeSet};
use crate::fields::{Field, FieldArg, FieldRef, FieldSource, FieldType, Value};
use crate::rules::ast::{Expr, ExprKind, Span};
use crate::rules::check::Check;
use crate::rules::compile::Compiler;
use crate::rules::condition;
use crate::rules::eval::Node;
use crate::rules::falco::Dialect;
use crate::rules::library::Library;
use crate::rules::operand::Source;

/// A condition. Members of `And` are never `And`s, and those of `Or` never `Or`s.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// Some member holds; none: it never does.
    Or(Vec<Form>),
    /// All members hold; none: it always does.
    And(Vec<Form>),
    /// The event is of one of these types.
    Types(TypeSet, Written),
    /// A test holds, or if negated does not.
    Test { negated: bool, test: Arc<Test>, written: Written },
}

/// Where a part stands.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// In the rule's own condition; of a part of a macro, where the macro is named.
    pub(super) span: Span,
    /// `the macro …`, if it is in one.
    pub(super) within: Option<Arc<str>>,
    /// As it was written, and whether there was a `not`.
    pub(super) text: Arc<str>,
}

/// A comparison.
#[derive(Debug)]
pub(super) struct Test {
    /// As it was written, blanks apart.
    pub(super) text: Arc<str>,
    /// Its left side as it was written; tests on the same one can be compared.
    pub(super) left: String,
    pub(super) check: Check,
    /// Whether the left side has at most one value.
    pub(super) single: bool,
    /// The types of event of which it can be true.
    pub(super) types: TypeSet,
}

impl Form {
    /// Joins members that all have to hold.
    pub(super) fn and(members: impl IntoIterator<Item = Form>) -> Form {
        let mut flat = Vec::new();
        for member in members {
            match member {
                Form::And(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        if flat.len() == 1 { flat.remove(0) } else { Form::And(flat) }
    }

    /// Joins members of which one has to hold.
    pub(super) fn or(members: impl IntoIterator<Item = Form>) -> Form {
        let mut flat = Vec::new();
        for member in members {
            match member {
                Form::Or(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        if flat.len() == 1 { flat.remove(0) } else { Form::Or(flat) }
    }
}

/// Builds forms. Conditions must have been compiled without an error, which bounds their size.
pub(super) struct Builder<'l> {
    library: &'l mut Library,
    /// Tests by their text: the same one is the same object.
    tests: HashMap<String, Option<Arc<Test>>>,
    /// Macros by their names, parsed.
    macros: HashMap<String, Option<Arc<Expr>>>,
}

impl<'l> Builder<'l> {
    pub(super) fn new(library: &'l mut Library) -> Self {
        Builder { library, tests: HashMap::new(), macros: HashMap::new() }
    }

    /// The form of a rule's condition; `None` if it is not right.
    pub(super) fn condition(&mut self, text: &str) -> Option<Form> {
        let expr = condition::parse(text).ok()?;
        self.form(&expr, false, None)
    }

    /// That an exception of this condition and name is not met.
    pub(super) fn excepted(&mut self, text: &str, name: &str) -> Option<Form> {
        let expr = condition::parse(text).ok()?;
        // It stands elsewhere in the file than the condition does.
        let within = (Span::default(), Arc::from(format!("the exception `{name}`")));
        self.form(&expr, true, Some(&within))
    }

    fn form(&mut self, expr: &Expr, negated: bool, within: Option<&(Span, Arc<str>)>) -> Option<Form> {
        match &expr.value {
            ExprKind::Or(members) | ExprKind::And(members) => {
                let forms: Option<Vec<Form>> =
                    members.iter().map(|member| self.form(member, negated, within)).collect();
                let is_or = matches!(expr.value, ExprKind::Or(_)) != negated;
                Some(if is_or { Form::or(forms?) } else { Form::and(forms?) })
            }
            ExprKind::Not(member) => self.form(member, !negated, within),
            ExprKind::Macro(name) => {
                let body = self.body(name)?;
                let here = (expr.span, Arc::from(format!("the macro `{name}`")));
                self.form(&body, negated, Some(within.unwrap_or(&here)))
            }
            ExprKind::Exists(_) | ExprKind::Compare(..) => {
                let test = self.test(expr)?;
                let not = if negated { "not " } else { "" };
                let written = Written {
                    span: within.map_or(expr.span, |(span, _)| *span),
                    within: within.map(|(_, within)| Arc::clone(within)),
                    text: format!("{not}{}", test.text).into(),
                };
                if test.left == Field::EvtType.spec().name && !matches!(test.check, Check::Against(..)) {
                    let types = EventType::all().filter(|ty| test.types.has(*ty) != negated);
                    return Some(Form::Types(TypeSet::of(types), written));
                }
                Some(Form::Test { negated, test, written })
            }
        }
    }

    fn body(&mut self, name: &str) -> Option<Arc<Expr>> {
        if let Some(known) = self.macros.get(name) {
            return known.clone();
        }
        let text = self.library.macro_text(name);
        let body = text.and_then(|text| condition::parse(text.as_str()).ok()).map(Arc::new);
        self.macros.insert(name.to_owned(), body.clone());
        body
    }

    fn test(&mut self, expr: &Expr) -> Option<Arc<Test>> {
        let text = expr.to_string();
        if let Some(known) = self.tests.get(&text) {
            return known.clone();
        }
        let compiled = Compiler::new(self.library, Dialect::Ours, 0).compile(expr);
        let test = compiled.and_then(|compiled| {
            let Node::Test(source, check) = &*compiled.node else { return None };
            let left = match &expr.value {
                ExprKind::Compare(left, ..) | ExprKind::Exists(left) => left.to_string(),
                _ => return None,
            };
            Some(Arc::new(Test {
                text: text.as_str().into(),
                left,
                check: check.clone(),
                single: !can_be_list(source),
                types: types(source, check),
            }))
        });
        self.tests.insert(text, test.clone());
        test
    }
}

/// Whether a value can have several members.
fn can_be_list(source: &Source) -> bool {
    match source {
        Source::Field(field) => field.field.spec().ty == FieldType::TextList,
        // A function of a list may be a list.
        _ => {
            let mut list = false;
            source.each_field(&mut |field| list |= field.field.spec().ty == FieldType::TextList);
            list
        }
    }
}

/// The types of event of which a test can be true.
fn types(source: &Source, check: &Check) -> TypeSet {
    let mut types = TypeSet::of(EventType::all());
    let mut narrow = |field: FieldRef| types = common(types, field.types());
    source.each_field(&mut narrow);
    if let Check::Against(_, other) = check {
        other.each_field(&mut narrow);
        return types;
    }
    if matches!(source, Source::Field(FieldRef { field: Field::EvtType, arg: FieldArg::None })) {
        let holds = |ty: &EventType| check.holds(&Value::text(ty.name()), &Nothing);
        return TypeSet::of(EventType::all().filter(holds));
    }
    types
}

/// The types that both sets have.
pub(super) fn common(one: TypeSet, other: TypeSet) -> TypeSet {
    TypeSet::of(one.iter().filter(|ty| other.has(*ty)))
}

/// No field has a value.
pub(super) struct Nothing;

impl FieldSource for Nothing {
    fn value(&self, _field: FieldRef) -> Value<'_> {
        Value::Absent
    }
}
