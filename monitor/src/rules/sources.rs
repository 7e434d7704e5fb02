//! The files that a set of rules was made of: whether a reload finds the same ones.

use std::sync::Arc;

use super::diagnostic::Source;

/// Names and texts of rule files, in the order in which they were read.
#[derive(Clone, Debug, Default)]
pub struct Sources(Arc<[Source]>);

impl Sources {
    pub(super) fn new(files: Vec<Source>) -> Self {
        Sources(files.into())
    }

    /// Names of the files.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|source| source.name())
    }
}

/// The same files in the same order, byte by byte.
impl PartialEq for Sources {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&*other.0).all(|(one, other)| {
                Arc::ptr_eq(one, other) || (one.name() == other.name() && one.inner() == other.inner())
            })
    }
}

#[cfg(test)]
mod tests {
    use crate::rules::RuleSet;

    #[test]
    fn names_texts_and_order_count() {
        let set = |files: &[(&str, &str)]| RuleSet::from_sources(files).unwrap().sources().clone();
        let (a, b) = (("a.yaml", "- list: l\n  items: [x]\n"), ("b.yaml", "# nothing\n"));
        let both = set(&[a, b]);
        assert_eq!(both.names().collect::<Vec<_>>(), ["a.yaml", "b.yaml"]);
        assert!(both == set(&[a, b]) && both == both.clone());
        for other in [&[a][..], &[b, a], &[a, ("c.yaml", b.1)], &[a, (b.0, "# nothing \n")], &[]] {
            assert!(both != set(other), "{other:?}");
        }
    }
}
