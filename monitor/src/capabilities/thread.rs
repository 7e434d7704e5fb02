//! The keeper's thread: a round on a timer, and when somebody asks.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::info::CapsListing;
use super::keeper::{Keeper, LAST};

/// From one look at the map to the next.
const PERIOD: Duration = Duration::from_secs(10);
/// A look that a question asks for comes so long after the last one, at least.
const REST: Duration = Duration::from_millis(500);
/// It comes so many times as late as the last one took, if that is more.
const SHARE: u32 = 20;
/// It comes so long after the last one, at most: somebody waits for it.
const LONGEST_REST: Duration = Duration::from_secs(3);
/// Questions that wait for the keeper.
const QUEUE: usize = 4;
/// How long a question may wait for its answer.
const PATIENCE: Duration = Duration::from_secs(8);

enum Message {
    Ask(Instant, oneshot::Sender<CapsListing>),
    Finish(oneshot::Sender<()>),
}

/// Why the keeper does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It has too much to do.
    #[error("the capability ledger is busy; try again")]
    Busy,
    /// It ended, or never began.
    #[error("this daemon keeps no capability ledger; the log says why")]
    Gone,
}

/// The keeper's thread, as others see it.
#[derive(Clone, Debug)]
pub struct Capabilities(SyncSender<Message>);

impl Capabilities {
    /// Starts the thread, named `capabilities`. `make` makes the keeper there, for it reads files.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(make: impl FnOnce() -> Keeper + Send + 'static) -> io::Result<Self> {
        let (sender, messages) = sync_channel(QUEUE);
        thread::Builder::new().name("capabilities".to_owned()).spawn(move || run(make(), &messages))?;
        Ok(Capabilities(sender))
    }

    /// Asks what there is to tell. The map is read for it; whoever asks at once again waits, for at most some seconds.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(&self) -> Result<CapsListing, AskError> {
        let (reply, answer) = oneshot::channel();
        match self.0.try_send(Message::Ask(Instant::now(), reply)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(AskError::Busy),
            Err(TrySendError::Disconnected(_)) => return Err(AskError::Gone),
        }
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(listing)) => Ok(listing),
            Ok(Err(_)) => Err(AskError::Gone),
            Err(_) => Err(AskError::Busy),
        }
    }

    /// Reads and writes a last time and ends the thread; the pipeline must still answer. Waits for it for a few seconds.
    pub async fn finish(self) {
        if !self.ended(LAST, 2 * LAST).await {
            tracing::error!("the last capability checks could not be read and written before the end");
        }
    }

    /// Ends the thread. False if it did not take the message within `patience`, has not said within `last` after that
    /// that all is done, or has died.
    async fn ended(&self, patience: Duration, last: Duration) -> bool {
        let (done, ended) = oneshot::channel();
        // Questions that wait are answered first; they are few.
        let mut message = Message::Finish(done);
        let deadline = Instant::now() + patience;
        while let Err(TrySendError::Full(back)) = self.0.try_send(message) {
            if Instant::now() >= deadline {
                return false;
            }
            message = back;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // If the thread is gone the answer's other end is, too.
        matches!(tokio::time::timeout(last, ended).await, Ok(Ok(())))
    }
}

fn run(mut keeper: Keeper, messages: &Receiver<Message>) {
    let mut next = Instant::now();
    let mut last = None;
    loop {
        let wait = next.saturating_duration_since(Instant::now());
        match messages.recv_timeout(wait) {
            Ok(Message::Ask(asked, reply)) => {
                if reply.is_closed() {
                    continue;
                }
                last = Some(Look::since(asked, last, &mut keeper));
                // Who gave up gets nothing.
                let _ = reply.send(keeper.listing());
            }
            Ok(Message::Finish(done)) => {
                keeper.finish();
                let _ = done.send(());
                return;
            }
            Err(RecvTimeoutError::Timeout) => {
                last = Some(Look::now(&mut keeper));
                next = Instant::now() + PERIOD;
            }
            // The daemon broke down: what is known is written all the same.
            Err(RecvTimeoutError::Disconnected) => return keeper.finish(),
        }
    }
}

/// When a round began, and when it ended.
#[derive(Clone, Copy)]
struct Look(Instant, Instant);

impl Look {
    fn now(keeper: &mut Keeper) -> Self {
        let begun = Instant::now();
        keeper.round();
        Look(begun, Instant::now())
    }

    /// A look that began after a question, for an older one may lack who came since; questions that waited share it.
    fn since(asked: Instant, last: Option<Look>, keeper: &mut Keeper) -> Self {
        match last {
            Some(look) if look.0 >= asked => look,
            Some(Look(begun, ended)) => {
                let rest = (SHARE * (ended - begun)).clamp(REST, LONGEST_REST);
                thread::sleep((ended + rest).saturating_duration_since(Instant::now()));
                Look::now(keeper)
            }
            None => Look::now(keeper),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    fn ended(capabilities: &Capabilities, last: Duration) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(capabilities.ended(SOON, last))
    }

    #[test]
    fn an_end_that_was_not_reached_is_no_end() {
        // One that hangs, with a full queue.
        let (sender, messages) = sync_channel(1);
        let capabilities = Capabilities(sender);
        let (reply, _answer) = oneshot::channel();
        capabilities.0.try_send(Message::Ask(Instant::now(), reply)).unwrap();
        assert!(!ended(&capabilities, SOON), "it was not taken");
        drop(messages.recv());
        assert!(!ended(&capabilities, SOON), "nobody works on it");
        // One that dies with the message.
        drop(messages);
        assert!(!ended(&capabilities, 100 * SOON), "it has died");
    }

    #[test]
    fn an_end_is_one() {
        let (sender, messages) = sync_channel(1);
        let thread = thread::spawn(move || match messages.recv().unwrap() {
            Message::Finish(done) => done.send(()).unwrap(),
            Message::Ask(..) => panic!("nobody asked"),
        });
        assert!(ended(&Capabilities(sender), 1000 * SOON));
        thread.join().unwrap();
    }
}
