//! The thread `names`: reads what runtimes wrote about their containers, so that the event path need not.
//!
//! A runtime may write a moment after it made the cgroup, so what is not there yet is looked for again, at
//! growing intervals. Between two of those looks the thread takes new questions. A file system that does not
//! answer holds up names, never alerts. Users' containers have their turn when there is nothing to do for the
//! system's.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::Builder;
use std::time::{Duration, Instant};

use super::{Answer, Bell, MAX_NAMES, Question};
use crate::enrich::container::Container;
use crate::enrich::metadata::{Metadata, Miss};
use crate::metrics::Metrics;

/// From one look at a container's files to the next. The first lie within the time that alerts wait.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
];
/// Containers that are looked for again, at most; the next one's first look is its last.
const MAX_AGAIN: usize = MAX_NAMES;
/// Without a question the thread looks so often whether there is anything else to do.
const IDLE: Duration = Duration::from_secs(60);
/// Stack of the thread: JSON is parsed on it.
const STACK: usize = 1 << 20;

/// The thread's ends of the lines.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) questions: Receiver<Question>,
    pub(super) answers: SyncSender<Answer>,
    pub(super) bell: Bell,
}

/// Whom to look for, in order: when, the question, and how often it was looked for.
type Waiting = BTreeMap<(Instant, u64), (Question, usize)>;

/// Nobody listens any more.
struct Over;

struct Reader<L> {
    ends: Ends,
    look: L,
    metrics: Arc<Metrics>,
    /// Whom of the system's to look for again.
    again: Waiting,
    /// Whom of the users' to look for, also for the first time.
    users: Waiting,
}

/// Starts the thread. `look` reads what there is about a container.
pub(super) fn start<L>(ends: Ends, look: L, metrics: Arc<Metrics>) -> io::Result<()>
where
    L: FnMut(&Container) -> Result<Metadata, Miss> + Send + 'static,
{
    let mut reader = Reader { ends, look, metrics, again: Waiting::new(), users: Waiting::new() };
    // Nobody waits for its end: it may stand in a read of a file system that does not answer.
    let _detached = Builder::new()
        .name("names".to_owned())
        .stack_size(STACK)
        .spawn(move || while reader.turn().is_ok() {})?;
    Ok(())
}

impl<L: FnMut(&Container) -> Result<Metadata, Miss>> Reader<L> {
    /// Takes a question, or looks for one again that is due. New questions and old ones take turns.
    fn turn(&mut self) -> Result<(), Over> {
        if let Some((question, looks)) = due(&mut self.again) {
            self.look(question, looks)?;
        }
        let next = [&self.again, &self.users].into_iter().filter_map(first).min();
        let patience = next.map_or(IDLE, |when| when.saturating_duration_since(Instant::now()));
        match self.ends.questions.recv_timeout(patience) {
            // There may be one about the system's behind it.
            Ok(question) if question.container.user.is_some() => {
                self.users.insert((Instant::now(), question.number), (question, 0));
                Ok(())
            }
            Ok(question) => self.look(question, 0),
            Err(RecvTimeoutError::Timeout) => match due(&mut self.again).or_else(|| due(&mut self.users)) {
                Some((question, looks)) => self.look(question, looks),
                None => Ok(()),
            },
            Err(RecvTimeoutError::Disconnected) => Err(Over),
        }
    }

    /// Looks, after so many looks before; then answers, or puts it off.
    fn look(&mut self, question: Question, looks: usize) -> Result<(), Over> {
        let outcome = (self.look)(&question.container);
        self.metrics.count_metadata_read(outcome.as_ref().err().copied());
        if let Err(miss) = &outcome {
            tracing::debug!(container = question.container.id, looks = looks + 1, %miss, "no name");
        }
        let again = if question.container.user.is_some() { &mut self.users } else { &mut self.again };
        if let Err(miss) = &outcome
            && miss.may_pass()
            && again.len() < MAX_AGAIN
            && let Some(pause) = PAUSES.get(looks)
        {
            let key = (Instant::now() + *pause, question.number);
            again.insert(key, (question, looks + 1));
            return Ok(());
        }
        let answer = Answer { container: question.container, number: question.number, outcome };
        self.ends.answers.send(answer).map_err(|_| Over)?;
        self.ends.bell.ring();
        Ok(())
    }
}

/// When the first is due.
fn first(waiting: &Waiting) -> Option<Instant> {
    waiting.first_key_value().map(|((when, _), _)| *when)
}

/// Takes the first, if it is due.
fn due(waiting: &mut Waiting) -> Option<(Question, usize)> {
    first(waiting).filter(|when| *when <= Instant::now())?;
    waiting.pop_first().map(|(_, due)| due)
}
