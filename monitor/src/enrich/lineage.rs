//! A process's ancestors: in the process table, or as they were when an event happened.

use std::sync::Arc;

use crate::decode::ProcessKey;
use crate::enrich::process::{Process, Processes};

/// Where an event's ancestors are looked up.
#[derive(Clone, Copy, Debug)]
pub enum Ancestors<'e> {
    /// In the table, as it stands when the event is handled.
    Table(&'e Processes),
    /// The parent and its ancestors in turn, as the table had them when the event was put by.
    Kept(&'e [Arc<Process>]),
}

impl<'e> Ancestors<'e> {
    /// The ancestor in a generation, from 1, of a process with this parent.
    pub fn get(self, parent: ProcessKey, generation: u16) -> Option<&'e Process> {
        let above = generation.checked_sub(1)?;
        match self {
            Ancestors::Table(processes) => processes.ancestor(parent, above),
            Ancestors::Kept(ancestors) => ancestors.get(usize::from(above)).map(|process| &**process),
        }
    }
}
