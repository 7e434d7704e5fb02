//! From the server to the owner of the tables, and back.
//!
//! The pipeline pays for each answer with a walk over its tables. So one question is under way at a time, and the
//! pause until the next is as long as the answer was dear: however many ask, the path of events gives up a small,
//! fixed share of its time.

use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::capabilities::Place;
use crate::control::{Row, TopParts};

/// From one question to the next, at least.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause is at least so many times as long as the owner needed for the last answer.
const SHARE: u32 = 50;
/// How long the owner may take; it looks between two drains of the ring.
const PATIENCE: Duration = Duration::from_secs(3);
/// Questions that wait for the owner. One is under way at a time; those before it may have been given up.
const QUEUE: usize = 4;

/// What the owner of the tables is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The containers that are known.
    Containers,
    /// All cgroups that are known, for the capability ledger.
    Capabilities,
    /// What containers do.
    Top,
}

/// What the owner of the tables gives: parts of them, shared, not yet text.
#[derive(Debug)]
pub enum Answer {
    /// To [`Topic::Containers`].
    Containers(Vec<Row>),
    /// To [`Topic::Capabilities`].
    Capabilities(Vec<Place>),
    /// To [`Topic::Top`].
    Top(Box<TopParts>),
}

/// A question to the owner of the tables.
#[derive(Debug)]
pub struct Question {
    topic: Topic,
    /// Takes the answer, and the time that it took.
    reply: oneshot::Sender<(Answer, Duration)>,
}

impl Question {
    /// Answers it, unless nobody waits for the answer any more.
    pub fn answer(self, make: impl FnOnce(Topic) -> Answer) {
        if !self.reply.is_closed() {
            let start = Instant::now();
            let answer = make(self.topic);
            // Who gives up now gets nothing.
            let _ = self.reply.send((answer, start.elapsed()));
        }
    }
}

/// The owner's end.
pub type Questions = mpsc::Receiver<Question>;

/// The server's end.
#[derive(Debug)]
pub struct Asker {
    questions: mpsc::Sender<Question>,
    /// When the next question may be asked. Held while one is under way. The owner of the tables never sees it.
    next: Mutex<Instant>,
    patience: Duration,
}

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The owner did not get round to it in time.
    #[error("the daemon is too busy to answer, or stands still; try again, and see /readyz")]
    TooBusy,
    /// There is no owner any more.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Both ends.
pub fn channel() -> (Asker, Questions) {
    let (questions, ends) = mpsc::channel(QUEUE);
    (Asker { questions, next: Mutex::new(Instant::now()), patience: PATIENCE }, ends)
}

impl Asker {
    /// Asks the owner. Questions are let through in the order in which they came.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(&self, topic: Topic) -> Result<Answer, AskError> {
        let mut next = self.next.lock().await;
        sleep_until(*next).await;
        let start = Instant::now();
        *next = start + PAUSE;
        let (reply, answer) = oneshot::channel();
        match self.questions.try_send(Question { topic, reply }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(AskError::TooBusy),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(AskError::Stopping),
        }
        match timeout(self.patience, answer).await {
            Ok(Ok((answer, cost))) => {
                *next = start + PAUSE.max(cost * SHARE);
                Ok(answer)
            }
            // The owner ended with the question.
            Ok(Err(_)) => Err(AskError::Stopping),
            Err(_) => Err(AskError::TooBusy),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const TOPIC: Topic = Topic::Containers;

    #[tokio::test]
    async fn questions_keep_their_distance() {
        let (asker, mut questions) = channel();
        let asker = Arc::new(asker);
        for _ in 0..5 {
            let asker = Arc::clone(&asker);
            tokio::spawn(async move { asker.ask(TOPIC).await.map(drop) });
        }
        let mut times = Vec::new();
        for _ in 0..5 {
            let question = questions.recv().await.unwrap();
            times.push(Instant::now());
            assert!(questions.try_recv().is_err(), "one at a time");
            question.answer(|_| Answer::Containers(Vec::new()));
        }
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= PAUSE), "{times:?}");
    }

    #[tokio::test]
    async fn a_dear_answer_makes_the_next_one_wait() {
        let (asker, mut questions) = channel();
        let cost = 2 * PAUSE / SHARE;
        tokio::spawn(async move {
            while let Some(question) = questions.recv().await {
                question.answer(|_| {
                    std::thread::sleep(cost);
                    Answer::Containers(Vec::new())
                });
            }
        });
        let start = Instant::now();
        for _ in 0..2 {
            asker.ask(TOPIC).await.unwrap();
        }
        assert!(start.elapsed() >= SHARE * cost, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn an_owner_that_stands_still_is_not_waited_for() {
        let (mut asker, mut questions) = channel();
        asker.patience = Duration::from_millis(10);
        for _ in 0..=QUEUE {
            assert_eq!(asker.ask(TOPIC).await.map(drop), Err(AskError::TooBusy));
        }
        let given_up = questions.recv().await.unwrap();
        given_up.answer(|_| unreachable!("nobody waits for it"));
        drop(questions);
        assert_eq!(asker.ask(TOPIC).await.map(drop), Err(AskError::Stopping));
    }
}
