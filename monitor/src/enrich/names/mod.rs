//! The containers' names: what was read of each, whom to ask, and how the answer comes back.
//!
//! Reading takes files and so may take time. A thread aside does it ([`thread`]). The event path only puts
//! questions into a bounded queue, takes answers out of another, and looks into its own table. A question is
//! asked when a container's cgroup is first seen, which is before its first process runs.

mod table;
mod thread;
mod value;

pub use table::{MAX_NAMES, State, Table};
pub use value::{NAME_FIELDS, Named};

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Instant;

use tokio::sync::Notify;

use crate::enrich::container::Container;
use crate::enrich::metadata::{Metadata, Miss, Roots, read};
use crate::metrics::{Metrics, WaitEnd};

/// Questions that may wait for the thread: a whole machine's containers, when the daemon starts.
const QUESTIONS: usize = MAX_NAMES;
/// Questions about users' containers that may be without an answer at a time.
const USERS_QUESTIONS: usize = 64;
/// Answers that may wait for the event path. The thread waits when it is full.
const ANSWERS: usize = 1024;

/// What did a runtime write about this container?
#[derive(Debug)]
struct Question {
    container: Arc<Container>,
    /// Which question it is: a container that was started again is asked for again.
    number: u64,
}

/// What it wrote.
#[derive(Debug)]
struct Answer {
    container: Arc<Container>,
    number: u64,
    outcome: Result<Metadata, Miss>,
}

/// Wakes whoever drives the event path when an answer has come.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// Returns when an answer has come since the last return.
    pub async fn rung(&self) {
        self.0.notified().await;
    }

    /// Makes [`Bell::rung`] return.
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

/// The names, as the event path sees them.
#[derive(Debug)]
pub struct Names {
    table: Table,
    /// To the thread and back; `None` if nobody reads.
    line: Option<(SyncSender<Question>, Receiver<Answer>)>,
    /// Questions about users' containers that are without an answer.
    users_asked: usize,
    bell: Bell,
    metrics: Arc<Metrics>,
    /// The time, to the second.
    now: Instant,
}

impl Names {
    /// Starts the thread that reads below these roots. It ends when the names are dropped.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(roots: Roots, metrics: Arc<Metrics>) -> io::Result<Self> {
        let (names, ends) = Names::with_line(metrics, QUESTIONS, ANSWERS);
        let look = move |container: &Container| read(container, &roots);
        thread::start(ends, look, Arc::clone(&names.metrics))?;
        Ok(names)
    }

    /// Names that nobody reads: each container's are missing.
    pub fn off(metrics: Arc<Metrics>) -> Self {
        Names {
            table: Table::new(MAX_NAMES),
            line: None,
            users_asked: 0,
            bell: Bell::default(),
            metrics,
            now: Instant::now(),
        }
    }

    fn with_line(metrics: Arc<Metrics>, questions: usize, answers: usize) -> (Self, thread::Ends) {
        let (ask, asked) = sync_channel(questions);
        let (answer, answered) = sync_channel(answers);
        let bell = Bell::default();
        let ends = thread::Ends { questions: asked, answers: answer, bell: bell.clone() };
        (Names { line: Some((ask, answered)), bell, ..Names::off(metrics) }, ends)
    }

    /// What rings when an answer has come.
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// A cgroup of this container was found that was not known before.
    pub fn found(&mut self, container: &Arc<Container>) {
        if self.line.is_some() && self.table.found(container) {
            self.ask(container);
        }
    }

    /// A known cgroup of this container was removed.
    pub fn removed(&mut self, container: &Arc<Container>, now: Instant) {
        self.table.removed(container, now);
    }

    /// An event of the container came: has its name read, if that was not done or was long ago.
    pub fn heard_of(&mut self, container: &Arc<Container>) {
        if self.line.is_some() && self.table.wants(container, self.now) {
            self.ask(container);
        }
    }

    /// The container's key, if its name is being read; whoever waits for it does not wait in vain.
    pub fn awaited(&self, container: &Container) -> Option<Arc<Container>> {
        self.line.as_ref()?;
        self.table.pending(container)
    }

    fn ask(&mut self, container: &Arc<Container>) {
        let Some((questions, _)) = &self.line else { return };
        let user = container.user.is_some();
        if user && self.users_asked >= USERS_QUESTIONS {
            self.metrics.metadata_questions_dropped.inc();
            return;
        }
        let question = Question { container: Arc::clone(container), number: self.table.next_number() };
        match questions.try_send(question) {
            Ok(()) => {
                self.users_asked += usize::from(user);
                self.table.asked(container, self.now);
            }
            // The next event of the container asks again.
            Err(TrySendError::Full(_)) => self.metrics.metadata_questions_dropped.inc(),
            Err(TrySendError::Disconnected(_)) => self.hang_up(),
        }
    }

    /// The thread broke down; the daemon goes on without new names.
    fn hang_up(&mut self) {
        tracing::error!(
            "the thread that reads containers' names ended: alerts about new ones go out without"
        );
        self.line = None;
    }

    /// Takes the next answer, and tells whose name is no longer awaited.
    pub fn answered(&mut self) -> Option<Arc<Container>> {
        loop {
            let answer = match self.line.as_ref()?.1.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => {
                    self.hang_up();
                    return None;
                }
            };
            if answer.container.user.is_some() {
                self.users_asked = self.users_asked.saturating_sub(1);
            }
            let outcome = answer.outcome.map(Arc::new);
            if let Some(key) = self.table.answered(&answer.container, answer.number, outcome) {
                return Some(key);
            }
        }
    }

    /// How the wait for a name ended that is awaited no longer.
    pub fn end_of_wait(&self, key: &Container) -> WaitEnd {
        match self.table.state(key) {
            Some(State::Known(_)) => WaitEnd::Named,
            Some(State::Missing(_)) => WaitEnd::Missing,
            // The container had to make room in the table, or could not be asked for again.
            Some(State::Pending | State::Unasked) | None => WaitEnd::NoRoom,
        }
    }

    /// What is known of a container.
    pub fn of(&self, container: Option<&Arc<Container>>) -> Named<'_> {
        let Some(container) = container else { return Named::Nobody };
        match self.table.state(container) {
            Some(State::Known(metadata)) => Named::Complete(metadata),
            Some(State::Pending | State::Unasked) if self.line.is_some() => Named::Pending,
            Some(State::Pending | State::Unasked | State::Missing(_)) | None => Named::Missing,
        }
    }

    /// What is known of a container's name, to keep; `None` if the container itself is not known.
    pub fn state(&self, container: &Container) -> Option<&State> {
        self.table.state(container)
    }

    /// Once a second: forgets containers that have been gone for a minute.
    pub fn tick(&mut self, now: Instant) {
        self.now = now;
        self.table.forget(now);
    }

    /// How many containers are in the table.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True if none is.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// Containers that found no room, or lost it before their time, since this was last asked.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.table.evicted)
    }
}

#[cfg(test)]
pub(crate) mod tests;
