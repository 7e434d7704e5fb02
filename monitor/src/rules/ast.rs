//! The syntax tree of a condition: what was written, where, and nothing that was looked up.

use std::fmt;

/// A stretch of the condition's text, in bytes from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A piece of syntax together with where it stands.
#[derive(Clone, Debug)]
pub struct Spanned<T> {
    /// The piece.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    /// Two pieces are equal if they say the same, wherever they stand.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// A condition or a part of one.
pub type Expr = Spanned<ExprKind>;

/// What an expression is.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// True if any of the (two or more) members is.
    Or(Vec<Expr>),
    /// True if all of the (two or more) members are.
    And(Vec<Expr>),
    /// True if the member is not. `not not a` is read as `a`.
    Not(Box<Expr>),
    /// A bare name: a macro.
    Macro(String),
    /// `operand exists`.
    Exists(Operand),
    /// `operand operator right`.
    Compare(Operand, Spanned<Operator>, Right),
}

/// What may stand on the left: a field, or a transformed one.
pub type Operand = Spanned<OperandKind>;

/// What an operand is.
#[derive(Clone, Debug, PartialEq)]
pub enum OperandKind {
    /// `a.b` or `a.b[arg]`.
    Field(FieldName),
    /// `tolower(a.b)` and the like.
    Transform(Transform),
    /// A text or number among a transformer's arguments, as the separator in `join("-", (a.b, c.d))`.
    Literal(Literal),
    /// Arguments in parentheses of their own, as in `join("-", (a.b, c.d))`.
    Tuple(Vec<Operand>),
}

/// A field's name with its argument, neither looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldName {
    /// The dotted name.
    pub name: String,
    /// What stood in brackets.
    pub arg: Option<String>,
}

/// A transformer with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// Which one.
    pub kind: TransformKind,
    /// At least one. Whether they are right for the transformer is looked at when it is resolved.
    pub args: Vec<Operand>,
    /// What stood in brackets behind: `getopt(…)["t"]`.
    pub key: Option<String>,
}

/// Makes an enum of words together with their spellings.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl $name {
            /// Every member.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The word as it is written.
            pub const fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }

            /// The member with this spelling.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|member| member.word() == word)
            }
        }
    };
}
pub(crate) use words;

words! {
    /// A function of one or more operands.
    TransformKind {
        /// Letters made small.
        Tolower = "tolower",
        /// Letters made capital.
        Toupper = "toupper",
        /// Base64 decoded.
        B64 = "b64",
        /// What follows the last slash.
        Basename = "basename",
        /// Members of a list, or bytes of a text.
        Len = "len",
        /// Texts joined with a separator, which comes first.
        Join = "join",
        /// Texts put together.
        Concat = "concat",
        /// The value of an option among program arguments.
        Getopt = "getopt",
    }
}

words! {
    /// A comparison.
    Operator {
        /// Equal; also written `==`.
        Eq = "=",
        /// Not equal.
        Ne = "!=",
        /// Less.
        Lt = "<",
        /// Less or equal.
        Le = "<=",
        /// Greater.
        Gt = ">",
        /// Greater or equal.
        Ge = ">=",
        /// Has the text in it.
        Contains = "contains",
        /// The same, letter case ignored.
        Icontains = "icontains",
        /// Has the bytes in it, given in hexadecimal.
        Bcontains = "bcontains",
        /// Begins with the text.
        Startswith = "startswith",
        /// Begins with the bytes, given in hexadecimal.
        Bstartswith = "bstartswith",
        /// Ends with the text.
        Endswith = "endswith",
        /// Fits the pattern of `*`, `?` and `[…]`.
        Glob = "glob",
        /// The same, letter case ignored.
        Iglob = "iglob",
        /// The whole value fits the regular expression.
        Regex = "regex",
        /// Is one of a list.
        In = "in",
        /// Has a member in common with a list.
        Intersects = "intersects",
        /// The path is, or lies below, one of a list of paths.
        Pmatch = "pmatch",
    }
}

/// What kind of right-hand side an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// A number.
    Number,
    /// One value.
    Value,
    /// A list.
    List,
}

impl Operator {
    /// The kind of right-hand side.
    pub const fn wants(self) -> Wants {
        match self {
            Operator::Lt | Operator::Le | Operator::Gt | Operator::Ge => Wants::Number,
            Operator::In | Operator::Intersects | Operator::Pmatch => Wants::List,
            _ => Wants::Value,
        }
    }
}

words! {
    /// Turns an operator for one value into one for a list.
    Modifier {
        /// True if the comparison is, with exactly one listed value.
        OneOf = "oneof",
        /// True if the comparison is, with at least one listed value.
        AnyOf = "anyof",
        /// True if the comparison is, with every listed value.
        AllOf = "allof",
    }
}

/// A right-hand side.
#[derive(Clone, Debug, PartialEq)]
pub enum Right {
    /// A text or number.
    Value(Literal),
    /// A list.
    List(List),
    /// `oneof (…)` and the like.
    Many(Modifier, List),
    /// `val(a.b)`: another field.
    Val(Spanned<FieldName>),
    /// A transformed field.
    Transform(Operand),
}

/// A list on the right.
#[derive(Clone, Debug)]
pub enum List {
    /// `( … )`, and where it stands; a bare member may be a list's name.
    Members(Vec<Literal>, Span),
    /// A list's name.
    Name(Spanned<String>),
}

impl PartialEq for List {
    /// As with [`Spanned`], places make no difference.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (List::Members(own, _), List::Members(others, _)) => own == others,
            (List::Name(own), List::Name(other)) => own == other,
            _ => false,
        }
    }
}

/// A text or number as written.
pub type Literal = Spanned<LiteralKind>;

/// What a literal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiteralKind {
    /// The text, escapes resolved.
    pub text: String,
    /// Whether it stood in quotes, and so cannot be a list's name.
    pub quoted: bool,
}

impl fmt::Display for Expr {
    /// Prints a condition that parses to an equal tree.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            ExprKind::Or(members) => joined(f, members, " or ", |e| matches!(e, ExprKind::Or(_))),
            ExprKind::And(members) => {
                joined(f, members, " and ", |e| matches!(e, ExprKind::Or(_) | ExprKind::And(_)))
            }
            // Parentheses keep `not (not a)` from being read as `a`.
            ExprKind::Not(member) => write!(f, "not ({member})"),
            ExprKind::Macro(name) => f.write_str(name),
            ExprKind::Exists(operand) => write!(f, "{operand} exists"),
            ExprKind::Compare(left, op, right) => write!(f, "{left} {} {right}", op.value.word()),
        }
    }
}

fn joined(
    f: &mut fmt::Formatter<'_>,
    members: &[Expr],
    word: &str,
    in_parentheses: fn(&ExprKind) -> bool,
) -> fmt::Result {
    for (i, member) in members.iter().enumerate() {
        if i > 0 {
            f.write_str(word)?;
        }
        if in_parentheses(&member.value) {
            write!(f, "({member})")?;
        } else {
            write!(f, "{member}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            OperandKind::Field(field) => write!(f, "{field}"),
            OperandKind::Literal(literal) => write!(f, "{literal}"),
            OperandKind::Tuple(members) => {
                f.write_str("(")?;
                comma_separated(f, members)?;
                f.write_str(")")
            }
            OperandKind::Transform(transform) => {
                write!(f, "{}(", transform.kind.word())?;
                comma_separated(f, &transform.args)?;
                f.write_str(")")?;
                match &transform.key {
                    Some(key) => write!(f, "[{}]", quoted(key)),
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.arg {
            Some(arg) => write!(f, "{}[{}]", self.name, quoted(arg)),
            None => f.write_str(&self.name),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Right::Value(literal) => write!(f, "{literal}"),
            Right::List(list) => write!(f, "{list}"),
            Right::Many(modifier, list) => write!(f, "{} {list}", modifier.word()),
            Right::Val(field) => write!(f, "val({})", field.value),
            Right::Transform(operand) => write!(f, "{operand}"),
        }
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            List::Name(name) => f.write_str(&name.value),
            List::Members(members, _) => {
                f.write_str("(")?;
                comma_separated(f, members)?;
                f.write_str(")")
            }
        }
    }
}

impl fmt::Display for LiteralKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.quoted { f.write_str(&quoted(&self.text)) } else { f.write_str(&self.text) }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value)
    }
}

fn comma_separated<T: fmt::Display>(f: &mut fmt::Formatter<'_>, members: &[T]) -> fmt::Result {
    for (i, member) in members.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{member}")?;
    }
    Ok(())
}

/// Puts a text in quotes, so that the parser reads the same text again.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    // A backslash at the end would keep the quote from closing, so there it is written by its number.
    let body = text.strip_suffix('\\').unwrap_or(text);
    for c in body.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    if body.len() < text.len() {
        out.push_str("\\x5c");
    }
    out.push('"');
    out
}
