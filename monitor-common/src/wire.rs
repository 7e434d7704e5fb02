//! Record layouts of the ring buffer.
