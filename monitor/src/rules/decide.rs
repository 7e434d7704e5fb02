//! Which tests of a condition decided what it came to for an event, and which stand between it and the opposite.

use std::collections::HashMap;

use super::eval::{Memo, Node};
use super::operand::Source;
use super::said::{Said, Test, UNKNOWN};
use crate::fields::{FieldSource, Value};

/// More different tests than this are not tried one by one.
const MAX_TRIED: usize = 512;

/// Beyond this many parts, macros are not opened any more: they may be nested to a multiple of their tests.
const MAX_PARTS: usize = 100_000;

/// A condition worked out for an event, in full: also what a match leaves out because the outcome is known already.
pub(crate) struct Judgement<'r> {
    pub(crate) root: Judged<'r>,
    /// The different tests, in the order of the condition, and whether each holds.
    pub(crate) tests: Vec<(Asked<'r>, bool)>,
}

/// A part of it.
pub(crate) struct Judged<'r> {
    pub(crate) form: Form<'r>,
    pub(crate) holds: bool,
    pub(crate) members: Vec<Judged<'r>>,
}

/// What a part of a condition is.
#[derive(Clone, Copy)]
pub(crate) enum Form<'r> {
    Any,
    All,
    Not,
    Macro(&'r str),
    /// The number of a test in [`Judgement::tests`].
    Test(usize),
}

/// A test, as it was written and as it is asked.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'r> {
    pub(crate) said: &'r Test,
    node: &'r Node,
}

impl<'r> Asked<'r> {
    /// The values that it rests on, under the names of what gives them.
    pub(crate) fn values<'e, E: FieldSource + ?Sized>(&self, event: &'e E) -> Vec<(&'r str, Value<'e>)>
    where
        'r: 'e,
    {
        let mut values = Vec::with_capacity(self.said.reads.len() + 1);
        if let (Some(operand), Node::Test(source @ Source::Applied(..), _)) = (&self.said.operand, self.node)
        {
            values.push((&**operand, source.value(event)));
        }
        values.extend(self.said.reads.iter().map(|(name, field)| (&**name, event.value(*field))));
        values
    }
}

/// Works a condition out for an event.
pub(crate) fn judge<'r, E: FieldSource + ?Sized>(said: &'r Said, node: &'r Node, event: &E) -> Judgement<'r> {
    let mut judge = Judge { event, known: HashMap::new(), tests: Vec::new(), parts: 0 };
    let root = judge.part(said, node);
    Judgement { root, tests: judge.tests }
}

struct Judge<'r, 'e, E: ?Sized> {
    event: &'e E,
    /// Numbers of tests; two of one text are one test.
    known: HashMap<Key<'r>, usize>,
    tests: Vec<(Asked<'r>, bool)>,
    parts: usize,
}

/// What tells tests apart: the text, or if that was shortened, the place.
#[derive(PartialEq, Eq, Hash)]
enum Key<'r> {
    Text(&'r str),
    Place(*const Node),
}

impl<'r, E: FieldSource + ?Sized> Judge<'r, '_, E> {
    fn part(&mut self, said: &'r Said, node: &'r Node) -> Judged<'r> {
        self.parts += 1;
        let (form, members) = match (said, node) {
            (Said::Or(words), Node::Or(nodes)) => (Form::Any, self.each(words, nodes)),
            (Said::And(words), Node::And(nodes)) => (Form::All, self.each(words, nodes)),
            (Said::Not(said), Node::Not(node)) => (Form::Not, vec![self.part(said, node)]),
            (Said::Macro(name, said), Node::Macro(_, body)) if self.parts < MAX_PARTS => {
                (Form::Macro(&name.text), vec![self.part(said, body)])
            }
            (Said::Macro(said, _), node) => return self.test(said, node),
            (Said::Test(said), node) => return self.test(said, node),
            // Both are made in one shape. If they are not, the outcome is right all the same.
            (_, node) => return self.test(&UNKNOWN, node),
        };
        let mut part = Judged { form, holds: false, members };
        part.holds = part.joined(|member| member.holds);
        part
    }

    fn each(&mut self, words: &'r [Said], nodes: &'r [Node]) -> Vec<Judged<'r>> {
        words.iter().zip(nodes).map(|(said, node)| self.part(said, node)).collect()
    }

    fn test(&mut self, said: &'r Test, node: &'r Node) -> Judged<'r> {
        let key = if said.shortened || std::ptr::eq(said, &*UNKNOWN) {
            Key::Place(node)
        } else {
            Key::Text(&said.text)
        };
        let number = *self.known.entry(key).or_insert_with(|| {
            let holds = node.holds(self.event, &Memo::default());
            self.tests.push((Asked { said, node }, holds));
            self.tests.len() - 1
        });
        let holds = self.tests.get(number).is_some_and(|(_, holds)| *holds);
        Judged { form: Form::Test(number), holds, members: Vec::new() }
    }
}

/// Numbers of tests, sorted.
type Set = Vec<usize>;

impl Judgement<'_> {
    /// The tests that decided: of what holds, a smallest set of tests that makes it hold; of what does not, a smallest
    /// set that keeps it from holding, so that it would hold if each of them came out otherwise.
    pub(crate) fn decided(&self) -> Set {
        if self.root.holds { self.root.reasons() } else { self.nearest() }
    }

    /// A smallest set of tests of which each had to come out otherwise for the opposite outcome.
    ///
    /// A single test is found if there is one, and it is counted as one wherever it stands. For larger sets each place
    /// of a test is taken by itself, so that in odd cases a smaller set may exist.
    pub(crate) fn nearest(&self) -> Set {
        if self.tests.len() <= MAX_TRIED {
            let alone = |number: usize| self.root.with_turned(number) != self.root.holds;
            if let Some(one) = (0..self.tests.len()).find(|number| alone(*number)) {
                return vec![one];
            }
        }
        self.root.turned()
    }
}

impl Judged<'_> {
    fn joined(&self, mut holds: impl FnMut(&Self) -> bool) -> bool {
        match self.form {
            Form::Any => self.members.iter().any(holds),
            Form::All | Form::Macro(_) => self.members.iter().all(holds),
            Form::Not => !self.members.iter().all(holds),
            Form::Test(_) => holds(self),
        }
    }

    /// What it would come to if one test came out otherwise.
    fn with_turned(&self, number: usize) -> bool {
        self.joined(|member| match member.form {
            Form::Test(test) => member.holds != (test == number),
            _ => member.with_turned(number),
        })
    }

    /// A smallest set of tests that, as they came out, leave no other outcome. If several are as small, the first.
    fn reasons(&self) -> Set {
        match (self.form, self.holds) {
            (Form::Test(number), _) => vec![number],
            (Form::Any, true) => {
                smallest(self.members.iter().filter(|member| member.holds).map(Judged::reasons))
            }
            (Form::All, false) => {
                smallest(self.members.iter().filter(|member| !member.holds).map(Judged::reasons))
            }
            _ => union(self.members.iter().map(Judged::reasons)),
        }
    }

    fn turned(&self) -> Set {
        match (self.form, self.holds) {
            (Form::Test(number), _) => vec![number],
            (Form::Any, true) => union(self.members.iter().filter(|member| member.holds).map(Judged::turned)),
            (Form::All, false) => {
                union(self.members.iter().filter(|member| !member.holds).map(Judged::turned))
            }
            _ => smallest(self.members.iter().map(Judged::turned)),
        }
    }
}

fn smallest(sets: impl Iterator<Item = Set>) -> Set {
    sets.min_by_key(Vec::len).unwrap_or_default()
}

fn union(sets: impl Iterator<Item = Set>) -> Set {
    let mut all: Set = sets.flatten().collect();
    all.sort_unstable();
    all.dedup();
    all
}
