//! What decided, held to trying every other outcome of the tests.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::fields::{Field, FieldValues};
use crate::rules::Rule;

/// A condition of tests by number: test `i` holds if the label `ki` is there.
#[derive(Clone, Debug)]
enum Tree {
    Test(usize),
    Not(Box<Tree>),
    And(Vec<Tree>),
    Or(Vec<Tree>),
}

impl Tree {
    fn text(&self) -> String {
        let joined = |members: &[Tree], word: &str| {
            let texts: Vec<String> = members.iter().map(|member| format!("({})", member.text())).collect();
            texts.join(word)
        };
        match self {
            Tree::Test(number) => format!("container.label[k{number}] exists"),
            Tree::Not(member) => format!("not ({})", member.text()),
            Tree::And(members) => joined(members, " and "),
            Tree::Or(members) => joined(members, " or "),
        }
    }

    /// What it comes to if these tests hold; by another way than the engine's.
    fn holds(&self, holding: &BTreeSet<usize>) -> bool {
        match self {
            Tree::Test(number) => holding.contains(number),
            Tree::Not(member) => !member.holds(holding),
            Tree::And(members) => members.iter().filter(|member| !member.holds(holding)).count() == 0,
            Tree::Or(members) => members.iter().filter(|member| member.holds(holding)).count() > 0,
        }
    }

    fn tests(&self) -> Vec<usize> {
        match self {
            Tree::Test(number) => vec![*number],
            Tree::Not(member) => member.tests(),
            Tree::And(members) | Tree::Or(members) => members.iter().flat_map(Tree::tests).collect(),
        }
    }

    /// The same with another test at each place.
    fn all_different(&mut self, next: &mut usize) {
        match self {
            Tree::Test(number) => {
                *number = *next;
                *next += 1;
            }
            Tree::Not(member) => member.all_different(next),
            Tree::And(members) | Tree::Or(members) => members.iter_mut().for_each(|m| m.all_different(next)),
        }
    }
}

/// Trees of at most about ten tests.
fn trees() -> impl Strategy<Value = Tree> {
    (0_usize..5).prop_map(Tree::Test).prop_recursive(4, 10, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|member| Tree::Not(Box::new(member))),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Tree::And),
            proptest::collection::vec(inner, 2..4).prop_map(Tree::Or),
        ]
    })
}

/// What decided by the engine: the numbers of the tests.
fn decided(tree: &Tree, holding: &BTreeSet<usize>) -> (bool, BTreeSet<usize>) {
    let mut event = FieldValues::default();
    for number in holding {
        event.set_named(Field::ContainerLabel, &format!("k{number}"), Value::text("x")).unwrap();
    }
    let rule = Rule::from_expression(&[], &tree.text()).unwrap_or_else(|error| panic!("{error}"));
    let judgement = rule.judge(&event);
    assert_eq!(judgement.root.holds, rule.holds(&event));
    let number = |test: usize| {
        let text = &judgement.tests[test].0.said.text;
        text.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().unwrap()
    };
    (judgement.root.holds, judgement.decided().into_iter().map(number).collect())
}

fn turned(holding: &BTreeSet<usize>, tests: &BTreeSet<usize>) -> BTreeSet<usize> {
    holding.symmetric_difference(tests).copied().collect()
}

/// Every subset.
fn subsets(of: &BTreeSet<usize>) -> impl Iterator<Item = BTreeSet<usize>> {
    let of: Vec<usize> = of.iter().copied().collect();
    (0_u32..1 << of.len()).map(move |bits| {
        of.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, number)| *number).collect()
    })
}

proptest! {
    #[test]
    fn what_decided_a_match_leaves_no_other_outcome(tree in trees(), bits in any::<u16>()) {
        let all: BTreeSet<usize> = tree.tests().into_iter().collect();
        prop_assume!(all.len() <= 10);
        let holding: BTreeSet<usize> = all.iter().copied().filter(|number| bits >> number & 1 == 1).collect();
        let (holds, decided) = decided(&tree, &holding);
        prop_assert_eq!(holds, tree.holds(&holding));
        if holds {
            let others = all.difference(&decided).copied().collect();
            for change in subsets(&others) {
                prop_assert!(tree.holds(&turned(&holding, &change)), "{} {decided:?} {change:?}", tree.text());
            }
        } else if let Some(one) = all.iter().find(|one| tree.holds(&turned(&holding, &BTreeSet::from([**one])))) {
            prop_assert_eq!(decided.len(), 1, "{} {}", tree.text(), one);
            prop_assert!(tree.holds(&turned(&holding, &decided)));
        }
    }

    #[test]
    fn of_different_tests_no_smaller_set_decides(tree in trees(), bits in any::<u16>()) {
        let mut tree = tree;
        tree.all_different(&mut 0);
        let all: BTreeSet<usize> = tree.tests().into_iter().collect();
        prop_assume!(all.len() <= 9);
        let holding: BTreeSet<usize> = all.iter().copied().filter(|number| bits >> number & 1 == 1).collect();
        let (holds, decided) = decided(&tree, &holding);
        for smaller in subsets(&all).filter(|set| set.len() < decided.len()) {
            if holds {
                let others = all.difference(&smaller).copied().collect();
                let forced = subsets(&others).all(|change| tree.holds(&turned(&holding, &change)));
                prop_assert!(!forced, "{} {smaller:?} suffices, not {decided:?}", tree.text());
            } else {
                prop_assert!(!tree.holds(&turned(&holding, &smaller)), "{} {smaller:?} {decided:?}", tree.text());
            }
        }
        if !holds {
            prop_assert!(tree.holds(&turned(&holding, &decided)), "{} {decided:?}", tree.text());
        }
    }
}
