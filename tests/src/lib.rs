//! What the live suite is made of.
