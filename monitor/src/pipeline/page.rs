//! Where a pipeline under test writes its lines.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Where the lines go.
#[derive(Clone, Default)]
pub(super) struct Page(pub(super) Arc<Mutex<Vec<u8>>>);

impl io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
