//! Sources that there are only once the probes are attached. Until then their series stand at zero, so that a scrape while
//! the daemon starts shows them all.

use std::sync::{Arc, OnceLock};

use super::{MetricSpec, Samples, Source};

/// A source whose series can be shown before it is there.
pub trait LateSource: Source {
    /// The metrics that it samples.
    fn specs_before() -> Vec<&'static MetricSpec>;

    /// Adds the samples of the time before.
    fn sample_before(out: &mut Samples);
}

/// The place of such a source.
#[derive(Debug)]
pub struct Late<S>(Arc<OnceLock<S>>);

impl<S> Default for Late<S> {
    fn default() -> Self {
        Late(Arc::default())
    }
}

impl<S> Clone for Late<S> {
    fn clone(&self) -> Self {
        Late(Arc::clone(&self.0))
    }
}

impl<S> Late<S> {
    /// Puts the source in its place. Only the first one counts.
    pub fn set(&self, source: S) {
        let _ = self.0.set(source);
    }

    /// The source, once it is there.
    pub fn get(&self) -> Option<&S> {
        self.0.get()
    }
}

impl<S: LateSource> Source for Late<S> {
    fn specs(&self) -> Vec<&'static MetricSpec> {
        S::specs_before()
    }

    fn sample(&self, out: &mut Samples) {
        match self.get() {
            Some(source) => source.sample(out),
            None => S::sample_before(out),
        }
    }
}
