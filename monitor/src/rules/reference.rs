//! The rules' reference, docs/rules.md.
