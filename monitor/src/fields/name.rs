//! Names that rules give to fields as arguments, such as a label's key.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Bytes of a name, at most.
pub const MAX_NAME_BYTES: usize = 256;

/// A name that stands in a rule. It is copied like a number; the text is kept for ever, once. Names are made when
/// rules are loaded, never for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name(&'static str);

static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

impl Name {
    /// The name of this text; `None` if it is empty or longer than [`MAX_NAME_BYTES`].
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_NAME_BYTES {
            return None;
        }
        // A set is whole whatever its user did.
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = known.get(text) {
            return Some(Name(kept));
        }
        let kept: &'static str = Box::leak(text.into());
        known.insert(kept);
        Some(Name(kept))
    }

    /// The text.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once() {
        let (a, b) = (Name::new("com.example/app").unwrap(), Name::new("com.example/app").unwrap());
        assert_eq!((a, a.as_str()), (b, "com.example/app"));
        assert!(std::ptr::eq(a.as_str(), b.as_str()), "kept twice");
        assert_eq!(Name::new(""), None);
        assert_eq!(Name::new(&"x".repeat(MAX_NAME_BYTES + 1)), None);
    }
}
