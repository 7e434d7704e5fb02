//! Fields of made-up events.
