//! The files that a set of rules was made of: whether a reload finds the same ones.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

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

    /// SHA-256 of the texts one after another, in lower case: what `cat FILE… | sha256sum` says of the files.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        self.0.iter().for_each(|source| hash.update(source.inner()));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
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
        // `printf '- list: l\n  items: [x]\n# nothing\n' | sha256sum`; names do not count.
        let digest = "750eff09e7ef589cfb4237cf4de55ee8154c1d3da5641492a982772303a99af9";
        assert_eq!(both.sha256(), digest);
        assert_eq!(set(&[a, ("c.yaml", b.1)]).sha256(), digest);
        assert_ne!(set(&[b, a]).sha256(), digest);
        for other in [&[a][..], &[b, a], &[a, ("c.yaml", b.1)], &[a, (b.0, "# nothing \n")], &[]] {
            assert!(both != set(other), "{other:?}");
        }
    }
}
