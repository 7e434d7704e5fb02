//! The condition language's grammar: text in, syntax tree out. Nothing is looked up here.
//!
//! The grammar is Falco's, quirks included, so that its users' conditions read the same here. The parser is
//! a recursive descent over winnow's lexers; what recurses is counted against [`MAX_NESTING`].

use winnow::stream::Stream;

use super::ast::{
    Expr, ExprKind, FieldName, List, Literal, Modifier, Operand, OperandKind, Operator, Right, Span, Spanned,
    Transform, TransformKind, Wants,
};
pub use super::lexer::SyntaxError;
use super::lexer::{
    Input, Parsed, blanks, bracketed, here, identifier, is_blank, lexeme, number, rest_of, spanned, start,
    text, wrong,
};

/// How deep parentheses and transformers may nest.
pub const MAX_NESTING: usize = 100;

/// Parses a whole condition.
///
/// # Errors
/// [`SyntaxError`] for the first place that the grammar does not allow.
pub fn parse(text: &str) -> Result<Expr, SyntaxError> {
    let mut input = start(text);
    blanks(&mut input);
    if rest_of(&input).is_empty() {
        return Err(wrong(&input, "the condition is empty"));
    }
    let expr = or_expr(&mut input)?;
    if rest_of(&input).is_empty() {
        return Ok(expr);
    }
    Err(match rest_of(&input).chars().next() {
        Some(')') => wrong(&input, "this `)` closes nothing"),
        Some('#') => wrong(&input, "there are no comments inside a condition"),
        _ => wrong(&input, "expected `and`, `or` or the end of the condition"),
    })
}

/// Parses a field or a transformed field at the start of a text: what follows `%` in an output template.
///
/// Returns the operand and how many bytes it took.
///
/// # Errors
/// [`SyntaxError`] if the text starts with neither.
pub fn parse_operand_prefix(text: &str) -> Result<(Operand, usize), SyntaxError> {
    let mut input = start(text);
    match operand(&mut input)? {
        Some(operand) => Ok((operand, here(&input))),
        None => Err(wrong(&input, "expected a field, such as `proc.name`, or a transformer")),
    }
}

/// Runs a parser one level deeper; what goes deeper begins at `start`.
fn deeper<'i, T>(
    input: &mut Input<'i>,
    start: usize,
    parser: impl FnOnce(&mut Input<'i>) -> Parsed<T>,
) -> Parsed<T> {
    if input.state == MAX_NESTING {
        let message = format!("nested more than {MAX_NESTING} deep");
        return Err(SyntaxError { offset: start, message, help: None });
    }
    input.state += 1;
    let result = parser(input);
    input.state -= 1;
    result
}

// ---- expressions -------------------------------------------------------------------------------------

fn or_expr(input: &mut Input<'_>) -> Parsed<Expr> {
    chain(input, "or", and_expr, ExprKind::Or)
}

fn and_expr(input: &mut Input<'_>) -> Parsed<Expr> {
    chain(input, "and", not_expr, ExprKind::And)
}

/// `member (word member)*`; the word needs a blank or a parenthesis behind it.
fn chain<'i>(
    input: &mut Input<'i>,
    word: &'static str,
    member: fn(&mut Input<'i>) -> Parsed<Expr>,
    join: fn(Vec<Expr>) -> ExprKind,
) -> Parsed<Expr> {
    blanks(input);
    let first = member(input)?;
    let mut members = vec![first];
    blanks(input);
    while lexeme(input, word) {
        if !rest_of(input).starts_with('(') && !blanks(input) {
            return Err(wrong(input, format!("expected a blank or `(` after `{word}`")));
        }
        members.push(member(input)?);
        blanks(input);
    }
    match (members.pop(), members.first().map(|first| first.span.start)) {
        (Some(last), Some(start)) => {
            let end = last.span.end;
            members.push(last);
            Ok(Spanned { value: join(members), span: Span { start, end } })
        }
        (Some(only), None) => Ok(only),
        (None, _) => Err(wrong(input, "expected a condition")),
    }
}

fn not_expr(input: &mut Input<'_>) -> Parsed<Expr> {
    let start = here(input);
    let mut negated = false;
    loop {
        let before = input.checkpoint();
        if !lexeme(input, "not") {
            break;
        }
        if rest_of(input).starts_with('(') || blanks(input) {
            negated = !negated;
        } else {
            // `notb` and `not_macro` are names.
            input.reset(&before);
            break;
        }
    }
    let member = check(input)?;
    if negated { Ok(spanned(input, start, ExprKind::Not(Box::new(member)))) } else { Ok(member) }
}

fn check(input: &mut Input<'_>) -> Parsed<Expr> {
    let start = here(input);
    if lexeme(input, "(") {
        return deeper(input, start, |input| {
            let inner = or_expr(input)?;
            close(input, start)?;
            Ok(inner)
        });
    }
    if let Some(left) = operand(input)? {
        return comparison(input, left);
    }
    match identifier(input) {
        Some(word @ ("and" | "or" | "not")) => Err(SyntaxError {
            offset: start,
            message: format!("expected a condition, found the word `{word}`"),
            help: None,
        }),
        Some(name) => macro_name(input, start, name),
        None if rest_of(input).is_empty() => Err(wrong(input, "expected a condition, found the end")),
        None => Err(wrong(input, "expected a field, a macro or `(`")),
    }
}

/// A macro's name; says what is wrong if an operator follows.
fn macro_name(input: &Input<'_>, start: usize, name: &str) -> Parsed<Expr> {
    let expr = spanned(input, start, ExprKind::Macro(name.to_owned()));
    let next = rest_of(input).trim_start();
    if next.starts_with(['=', '<', '>', '!']) {
        let mut error = wrong(input, format!("`{name}` is not a field: a field's name has a dot"));
        error.offset = start;
        return Err(error);
    }
    Ok(expr)
}

fn close(input: &mut Input<'_>, opened: usize) -> Parsed<()> {
    blanks(input);
    if lexeme(input, ")") {
        return Ok(());
    }
    let mut error = wrong(input, "expected `)`");
    error.help = Some(format!("the `(` at byte {opened} of the condition is still open"));
    Err(error)
}

fn comparison(input: &mut Input<'_>, left: Operand) -> Parsed<Expr> {
    let start = left.span.start;
    blanks(input);
    if lexeme(input, "exists") {
        return Ok(spanned(input, start, ExprKind::Exists(left)));
    }
    let op = operator(input)?;
    let separated = blanks(input);
    let right = right(input, op.value, separated)?;
    Ok(spanned(input, start, ExprKind::Compare(left, op, right)))
}

/// Operators in the order in which they are tried: one that begins another comes after it.
const SYMBOLS: &[(&str, Operator)] = &[
    ("<=", Operator::Le),
    ("<", Operator::Lt),
    (">=", Operator::Ge),
    (">", Operator::Gt),
    ("==", Operator::Eq),
    ("=", Operator::Eq),
    ("!=", Operator::Ne),
];

fn operator(input: &mut Input<'_>) -> Parsed<Spanned<Operator>> {
    let start = here(input);
    for (symbol, op) in SYMBOLS {
        if lexeme(input, symbol) {
            return Ok(spanned(input, start, *op));
        }
    }
    let word = rest_of(input).split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or("");
    if let Some(op) = Operator::from_word(word) {
        let behind = rest_of(input).get(word.len()..).and_then(|text| text.chars().next());
        let separated = match behind {
            Some('(') => op.wants() == Wants::List,
            Some(c) => is_blank(c),
            None => true,
        };
        if separated {
            lexeme(input, word);
            return Ok(spanned(input, start, op));
        }
        return Err(wrong(input, format!("expected a blank after `{word}`")));
    }
    let mut error = wrong(input, "expected an operator");
    error.help = Some(operator_help(word));
    Err(error)
}

fn operator_help(word: &str) -> String {
    let words = Operator::ALL.iter().map(|op| op.word()).chain(["exists"]);
    match super::diagnostic::closest(word, words.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the operators are {}", words.collect::<Vec<_>>().join(" ")),
    }
}

// ---- right-hand sides --------------------------------------------------------------------------------

/// What follows an operator; `separated` if blanks stood between them.
fn right(input: &mut Input<'_>, op: Operator, separated: bool) -> Parsed<Right> {
    let start = here(input);
    if lexeme(input, "val(") {
        blanks(input);
        let field_start = here(input);
        let Some(field) = field(input)? else {
            return Err(wrong(input, "expected a field in `val(…)`"));
        };
        let field = spanned(input, field_start, field);
        close(input, start + "val".len())?;
        return Ok(Right::Val(field));
    }
    if let Some(kind) = transform_start(input) {
        return Ok(Right::Transform(transform(input, start, kind)?));
    }
    match op.wants() {
        Wants::List => list(input).map(Right::List),
        Wants::Number => number(input).map(Right::Value),
        Wants::Value => match if separated { modifier(input)? } else { None } {
            Some(modifier) => Ok(Right::Many(modifier, list(input)?)),
            None => text(input).map(Right::Value),
        },
    }
}

/// `oneof` and the like, if blanks and a list follow; else the word is a text like any other.
fn modifier(input: &mut Input<'_>) -> Parsed<Option<Modifier>> {
    let before = input.checkpoint();
    let Some(modifier) = identifier(input).and_then(Modifier::from_word) else {
        input.reset(&before);
        return Ok(None);
    };
    if rest_of(input).starts_with('(') {
        return Err(wrong(input, format!("expected a blank after `{}`", modifier.word())));
    }
    let list_follows = blanks(input)
        && match rest_of(input).chars().next() {
            Some('(') => true,
            Some(c) if c.is_ascii_alphabetic() => {
                let at_list = input.checkpoint();
                let name = identifier(input);
                input.reset(&at_list);
                !matches!(name, Some("and" | "or" | "not"))
            }
            _ => false,
        };
    if list_follows {
        return Ok(Some(modifier));
    }
    input.reset(&before);
    Ok(None)
}

fn list(input: &mut Input<'_>) -> Parsed<List> {
    let start = here(input);
    if !lexeme(input, "(") {
        return match identifier(input) {
            Some(name) => Ok(List::Name(spanned(input, start, name.to_owned()))),
            None => Err(wrong(input, "expected a list in parentheses, or a list's name")),
        };
    }
    let mut members = Vec::new();
    blanks(input);
    if lexeme(input, ")") {
        return Ok(List::Members(members, Span { start, end: here(input) }));
    }
    loop {
        blanks(input);
        members.push(list_member(input)?);
        blanks(input);
        if !lexeme(input, ",") {
            break;
        }
    }
    close(input, start)?;
    Ok(List::Members(members, Span { start, end: here(input) }))
}

fn list_member(input: &mut Input<'_>) -> Parsed<Literal> {
    match rest_of(input).chars().next() {
        Some(',') => Err(wrong(input, "a list has no empty member")),
        Some(')') => Err(wrong(input, "a list has no trailing comma")),
        _ => text(input),
    }
}

// ---- fields and transformers -------------------------------------------------------------------------

fn operand(input: &mut Input<'_>) -> Parsed<Option<Operand>> {
    let start = here(input);
    if let Some(field) = field(input)? {
        return Ok(Some(spanned(input, start, OperandKind::Field(field))));
    }
    match transform_start(input) {
        Some(kind) => transform(input, start, kind).map(Some),
        None => Ok(None),
    }
}

fn field(input: &mut Input<'_>) -> Parsed<Option<FieldName>> {
    let before = input.checkpoint();
    let start = here(input);
    if identifier(input).is_none() {
        return Ok(None);
    }
    let mut dotted = false;
    loop {
        let at_dot = input.checkpoint();
        if lexeme(input, ".") && identifier(input).is_some() {
            dotted = true;
        } else {
            input.reset(&at_dot);
            break;
        }
    }
    let length = here(input) - start;
    if !dotted {
        input.reset(&before);
        return Ok(None);
    }
    let end = input.checkpoint();
    input.reset(&before);
    let name = rest_of(input).get(..length).unwrap_or_default().to_owned();
    input.reset(&end);
    let arg = bracketed(input)?;
    Ok(Some(FieldName { name, arg }))
}

/// A transformer's name with the parenthesis right behind it.
fn transform_start(input: &mut Input<'_>) -> Option<TransformKind> {
    let before = input.checkpoint();
    let kind = identifier(input).and_then(TransformKind::from_word);
    if kind.is_some() && lexeme(input, "(") {
        return kind;
    }
    input.reset(&before);
    None
}

fn transform(input: &mut Input<'_>, start: usize, kind: TransformKind) -> Parsed<Operand> {
    let args = deeper(input, start, |input| {
        let args = arguments(input, argument)?;
        close(input, start + kind.word().len())?;
        Ok(args)
    })?;
    let key = if kind == TransformKind::Getopt { bracketed(input)? } else { None };
    Ok(spanned(input, start, OperandKind::Transform(Transform { kind, args, key })))
}

/// One or more arguments. How many a transformer takes, and which, is looked at when it is resolved.
fn arguments<'i>(input: &mut Input<'i>, one: fn(&mut Input<'i>) -> Parsed<Operand>) -> Parsed<Vec<Operand>> {
    let mut args = Vec::new();
    loop {
        blanks(input);
        args.push(one(input)?);
        blanks(input);
        if !lexeme(input, ",") {
            return Ok(args);
        }
    }
}

/// An argument of a transformer: a value, or a list of values in parentheses.
fn argument(input: &mut Input<'_>) -> Parsed<Operand> {
    let start = here(input);
    if !lexeme(input, "(") {
        return list_argument(input);
    }
    blanks(input);
    let members = if rest_of(input).starts_with(')') { Vec::new() } else { arguments(input, list_argument)? };
    close(input, start)?;
    Ok(spanned(input, start, OperandKind::Tuple(members)))
}

/// A value among a transformer's arguments: a field, another transformer, a text in quotes or a number.
fn list_argument(input: &mut Input<'_>) -> Parsed<Operand> {
    if let Some(operand) = operand(input)? {
        return Ok(operand);
    }
    let literal = match rest_of(input).chars().next() {
        Some('"' | '\'') => text(input)?,
        Some(c) if c.is_ascii_digit() || matches!(c, '+' | '-') => number(input)?,
        _ => return Err(wrong(input, "expected a field, a transformer, a text in quotes or a number")),
    };
    Ok(Spanned { span: literal.span, value: OperandKind::Literal(literal) })
}
