//! Rules: files in, matches out.
