//! Cases that need no place of their own: a name and what must hold.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use tests::harness::Settings;

/// A case; what differs comes back as a text for people.
pub(crate) type Case = fn(&Settings) -> Result<(), String>;

/// The family of a trial: what its name begins with.
pub(crate) fn family(trial: &Trial) -> String {
    trial.name().split("::").next().unwrap_or_default().to_owned()
}

/// Makes one trial of each case.
pub(crate) fn cases(settings: &Arc<Settings>, all: &[(&str, Case)]) -> Vec<Trial> {
    all.iter()
        .map(|(name, case)| {
            let (settings, case) = (settings.clone(), *case);
            Trial::test(*name, move || case(&settings).map_err(Failed::from))
        })
        .collect()
}
