//! Something that several tests use one after the other, such as a daemon: starting one takes a guest seconds.

use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Failed, Trial};
use tests::harness::Settings;

/// A case that leaves what it was lent as it found it; what differs comes back as a text for people.
pub(crate) type Case<T> = fn(&Settings, &T) -> Result<(), String>;

/// How it comes to be, and how it ends.
#[derive(Clone, Copy)]
pub(crate) struct Life<T> {
    pub(crate) start: fn(&Settings) -> Result<T, String>,
    /// Name of the last case.
    pub(crate) last: &'static str,
    /// What must hold at the end.
    pub(crate) end: fn(&Settings, T) -> Result<(), String>,
}

/// Makes a trial of each case, in order, and one of the end. A case that fails leaves nothing to the next, which then
/// starts anew.
pub(crate) fn trials<T: Send + 'static>(
    settings: &Arc<Settings>,
    life: Life<T>,
    cases: &[(&str, impl Fn(&Settings, &T) -> Result<(), String> + Clone + Send + 'static)],
) -> Vec<Trial> {
    let shared: Arc<Mutex<Option<T>>> = Arc::default();
    let Life { start, last, end } = life;
    let lend = move |shared: &Mutex<Option<T>>, settings: &Settings| {
        let held = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        held.map_or_else(|| start(settings), Ok)
    };
    let mut trials: Vec<Trial> = cases
        .iter()
        .map(|(name, case)| {
            let (settings, shared, case) = (settings.clone(), shared.clone(), case.clone());
            Trial::test(*name, move || {
                let lent = lend(&shared, &settings)?;
                case(&settings, &lent)?;
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(lent);
                Ok::<(), Failed>(())
            })
        })
        .collect();
    let settings = settings.clone();
    let ending = move || lend(&shared, &settings).and_then(|lent| end(&settings, lent)).map_err(Failed::from);
    trials.push(Trial::test(last, ending));
    trials
}
