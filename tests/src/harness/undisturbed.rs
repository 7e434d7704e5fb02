//! What was made while the kernel skipped a probe proves nothing, and is made again.

use super::Daemon;

/// How often something is done again because the kernel skipped a probe meanwhile; see [`Daemon::undisturbed`].
pub const MOST_TURNS: usize = 5;

impl Daemon {
    /// Runs of its probes that the kernel skipped so far, because a preempted task was inside the same probe on that
    /// processor (`ringfence_probe_missed_total`). What such a run would have seen is in no event.
    ///
    /// # Errors
    /// As [`Daemon::metrics`].
    pub fn skipped(&self) -> Result<u64, String> {
        Ok(self.metrics()?.sum("ringfence_probe_missed_total", &[]).unwrap_or(0.0) as u64)
    }

    /// Does something; gives nothing if the kernel skipped a probe meanwhile.
    fn once<T>(&self, make: impl FnOnce() -> Result<T, String>) -> Result<Option<T>, String> {
        let before = self.skipped()?;
        let made = make()?;
        Ok((self.skipped()? == before).then_some(made))
    }

    /// Does something until the kernel skipped no probe meanwhile: what was made while it did proves nothing.
    ///
    /// # Errors
    /// Those of `make`, or that the kernel skips probes all the time.
    pub fn undisturbed<T>(&self, mut make: impl FnMut() -> Result<T, String>) -> Result<T, String> {
        for _ in 0..MOST_TURNS {
            if let Some(made) = self.once(&mut make)? {
                return Ok(made);
            }
        }
        let all = self.metrics()?.lines("ringfence_probe_missed_total");
        let which: Vec<&str> = all.lines().filter(|line| !line.ends_with(" 0")).collect();
        Err(format!("the kernel skipped probes in each of {MOST_TURNS} turns: {which:?}"))
    }

    /// Does something for all of these, and, if the kernel skipped a probe meanwhile, for each half of them: the fewer
    /// they are, the less is skipped. Gives what came of each part, which nothing disturbed.
    ///
    /// # Errors
    /// As [`Daemon::undisturbed`].
    pub fn undisturbed_parts<T, R>(
        &self,
        all: &[T],
        make: &mut impl FnMut(&[T]) -> Result<R, String>,
    ) -> Result<Vec<R>, String> {
        if all.len() < 2 {
            return self.undisturbed(|| make(all)).map(|made| vec![made]);
        }
        if let Some(made) = self.once(|| make(all))? {
            return Ok(vec![made]);
        }
        let (one, other) = all.split_at(all.len() / 2);
        let mut parts = self.undisturbed_parts(one, make)?;
        parts.extend(self.undisturbed_parts(other, make)?);
        Ok(parts)
    }
}
