//! The pins of earlier processes, and those that are left to the next one.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use aya::maps::{MapData, RingBuf};

use super::DaemonError;
use crate::attach::{AttachError, Attached, Begun, Pinned, Wanted, attach, attach_pinned, enrolment_of};
use crate::config::{DEFAULT_PIN_DIR, PinChoice, Settings};
use crate::hierarchy::Hierarchy;
use crate::metrics::Metrics;
use crate::pins::{Carried, PinDir, PinError, peek};
use crate::pipeline::{Backlog, Pipeline};

/// Opens the directory of pins. Nothing is pinned where none is mounted at the usual place.
pub(super) fn open_pins(settings: &Settings) -> Result<Option<PinDir>, DaemonError> {
    match &settings.pin_dir {
        PinChoice::Off => Ok(None),
        PinChoice::At(path) => PinDir::open(path).map(Some).map_err(DaemonError::Pins),
        PinChoice::IfMounted => match PinDir::open(Path::new(DEFAULT_PIN_DIR)) {
            Ok(dir) => Ok(Some(dir)),
            Err(PinError::Open { .. } | PinError::NotBpf(_)) => {
                tracing::debug!("no BPF file system at {DEFAULT_PIN_DIR}: nothing is pinned");
                Ok(None)
            }
            Err(error) => {
                tracing::error!(%error, "nothing is pinned: what happens during a restart will not be seen");
                Ok(None)
            }
        },
    }
}

/// What makes a thread a canary of the programs that are pinned, if there are any: they see the daemon's trials.
pub(super) fn pinned_enrolment(pins: Option<&PinDir>) -> Option<OwnedFd> {
    enrolment_of(pins?)
}

/// Takes over what is pinned, or attaches.
pub(super) fn attach_all(
    settings: &Settings,
    pins: Option<PinDir>,
    hierarchy: Option<&Hierarchy>,
) -> Result<Attached, DaemonError> {
    let wanted = Wanted {
        choice: settings.attach,
        strict: settings.strict,
        ring_bytes: settings.ring_bytes,
        syscall_sets: settings.syscall_sets,
        hierarchy,
    };
    let attached = match pins {
        Some(dir) => match attach_pinned(wanted, dir) {
            Err(error @ (AttachError::Pins(_) | AttachError::Unpinnable(_)))
                if settings.pin_dir == PinChoice::IfMounted =>
            {
                tracing::error!(%error, "nothing is pinned: what happens during a restart will not be seen");
                attach(wanted)?
            }
            other => other?,
        },
        None => attach(wanted)?,
    };
    match attached.pinned().map(Pinned::begun) {
        None => tracing::info!("probes are not pinned: what happens during a restart is not seen"),
        Some(Begun::Anew) => tracing::info!("probes and maps are pinned for the next start"),
        Some(Begun::Adopted(starts)) => tracing::info!(starts, "took over what an earlier start left pinned"),
        Some(Begun::Replaced) => {
            tracing::info!(
                "what an earlier start left pinned is of another version or other settings: replaced"
            );
        }
    }
    Ok(attached)
}

/// Lets the pipeline learn what exists, and takes it through what was seen before.
pub(super) fn seed(
    pipeline: &mut Pipeline,
    attached: &mut Attached,
    ring: &RingBuf<MapData>,
    ring_bytes: u32,
) {
    let mut backlog = Backlog::default();
    let handed = attached.take_handed();
    handed.iter().for_each(|record| backlog.look(record));
    if matches!(attached.pinned().map(Pinned::begun), Some(Begun::Adopted(_)))
        && let Err(error) = peek(ring.as_fd(), ring_bytes, |record| backlog.look(record))
    {
        tracing::warn!(%error, "what waits in the ring cannot be looked at: programs and containers may be unknown");
    }
    if backlog.records > 0 {
        tracing::info!(records = backlog.records, "events waited to be read");
    }
    pipeline.seed_before(&backlog);
    for record in handed {
        pipeline.handle(&record);
    }
    pipeline.hand_over();
    attached.forget_earlier();
}

/// Whether an earlier process left something.
pub(super) fn is_anything_pinned(pins: Option<&PinDir>) -> bool {
    pins.is_some_and(|dir| dir.sets().is_ok_and(|sets| !sets.is_empty()))
}

/// What goes from process to process; the metrics go on from it.
pub(super) fn carried(attached: &Attached, metrics: &Metrics) -> Option<Arc<Carried>> {
    let carried = Arc::clone(attached.pinned()?.carried());
    for (count, received) in metrics.events_received.iter().zip(carried.all_received()) {
        count.inc_by(received);
    }
    for (cause, count) in metrics.blindness.iter().enumerate() {
        count.inc_by(carried.blindness(cause));
    }
    Some(carried)
}
