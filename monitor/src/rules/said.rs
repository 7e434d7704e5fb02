//! What the tests of a compiled condition were written as: kept beside it, for whoever asks why, and never looked at
//! while events are matched.

use std::sync::{Arc, LazyLock};

use super::ast::{Expr, ExprKind};
use super::compile::{Known, Names};
use super::eval::Node;
use super::operand::{Source, field_text};
use crate::fields::FieldRef;

/// A test's text is kept up to this many bytes; the rest of a long list says little.
const MAX_TEXT: usize = 512;

/// The words of a condition, in the shape of its [`Node`].
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Or(Box<[Said]>),
    And(Box<[Said]>),
    Not(Box<Said>),
    /// With its name, as a test that stands for the whole of it.
    Macro(Box<Test>, Arc<Said>),
    Test(Test),
}

/// A comparison as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Test {
    /// Its text, shortened if it is long.
    pub(crate) text: Box<str>,
    /// Whether the text was shortened, so that another test may have the same.
    pub(crate) shortened: bool,
    /// What stands on the left, if that is more than a field.
    pub(crate) operand: Option<Box<str>>,
    /// The fields that it reads, each once.
    pub(crate) reads: Box<[(Box<str>, FieldRef)]>,
}

/// Stands for a part of which nobody knows the words.
pub(crate) static UNKNOWN: LazyLock<Test> = LazyLock::new(|| Test::named("(a part of the condition)"));

impl Test {
    fn named(name: &str) -> Test {
        Test { text: name.into(), shortened: false, operand: None, reads: Box::default() }
    }
}

impl Said {
    /// The words of a condition that was compiled to this node.
    pub(crate) fn of<N: Names>(expr: &Expr, node: &Node, names: &mut N) -> Said {
        match (&expr.value, node) {
            (ExprKind::Or(members), Node::Or(nodes)) if members.len() == nodes.len() => {
                Said::Or(all(members, nodes, names))
            }
            (ExprKind::And(members), Node::And(nodes)) if members.len() == nodes.len() => {
                Said::And(all(members, nodes, names))
            }
            (ExprKind::Not(member), Node::Not(node)) => Said::Not(Box::new(Said::of(member, node, names))),
            (ExprKind::Macro(name), Node::Macro(..)) => match names.macro_named(name, 0) {
                Ok(Known::Good(body)) => Said::Macro(Box::new(Test::named(name)), body.said),
                _ => Said::Test(test(expr, node)),
            },
            _ => Said::Test(test(expr, node)),
        }
    }
}

fn all<N: Names>(members: &[Expr], nodes: &[Node], names: &mut N) -> Box<[Said]> {
    members.iter().zip(nodes).map(|(member, node)| Said::of(member, node, names)).collect()
}

fn test(expr: &Expr, node: &Node) -> Test {
    let mut text = expr.to_string();
    let shortened = text.len() > MAX_TEXT;
    if shortened {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
    let operand = match (&expr.value, node) {
        (ExprKind::Compare(left, ..) | ExprKind::Exists(left), Node::Test(Source::Applied(..), _)) => {
            Some(left.to_string().into())
        }
        _ => None,
    };
    let mut reads: Vec<(Box<str>, FieldRef)> = Vec::new();
    node.each_field(&mut |field| {
        if reads.iter().all(|(_, known)| *known != field) {
            reads.push((field_text(field).into(), field));
        }
    });
    Test { text: text.into(), shortened, operand, reads: reads.into() }
}
