//! The records of Docker Engine's configurations, from which guests start containers, are those of today's Engine.

use std::fs;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use tests::oci::{Profile, recorded, walls};

use crate::places::Suite;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    // Guests have no engine.
    if suite.settings().guest {
        return Vec::new();
    }
    let trial = |profile: Profile| {
        let suite = suite.clone();
        let name = format!("oci-fixture::{}", profile.name());
        Trial::test(name, move || check(&suite, profile).map_err(Failed::from))
    };
    Profile::ALL.into_iter().map(trial).collect()
}

/// Holds the engine's configuration against the record, or with `RINGFENCE_BLESS` records it.
fn check(suite: &Suite, profile: Profile) -> Result<(), String> {
    let config = written(suite, profile).map_err(|error| error.to_string())?;
    if std::env::var_os("RINGFENCE_BLESS").is_some() {
        let text = format!("{config:#}\n");
        return fs::write(profile.path(), text).map_err(|error| error.to_string());
    }
    let (now, then) = (walls(&config), walls(&profile.record().map_err(|error| error.to_string())?));
    if now == then {
        return Ok(());
    }
    let shown = |walls: &Value| -> String {
        let parts = walls.as_object().into_iter().flatten();
        parts
            .filter(|(name, part)| now[*name] != then[*name] && !part.is_null())
            .map(|(name, part)| format!("{name}: {part}\n"))
            .collect()
    };
    Err(format!(
        "Docker Engine writes another configuration than the record; RINGFENCE_BLESS=1 records it anew.\n\
         The engine's:\n{}The record's:\n{}",
        shown(&now),
        shown(&then)
    ))
}

/// What the engine writes for a container.
fn written(suite: &Suite, profile: Profile) -> std::io::Result<Value> {
    let engine = suite.engine().map_err(std::io::Error::other)?;
    let (id, config) = engine.bundle_config(profile.options())?;
    Ok(recorded(config, engine.directory(), &id))
}
