//! Serving those who watch live: the filter is compiled here, and lines are sent as they come.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::alert::json_visible;
use crate::control::protocol::{Notice, Reply, WatchStart};
use crate::control::server::{Outcome, json_line};
use crate::rules::{LoadError, Rule};
use crate::watchers::{Hub, Said, Sight, Subscription, Watch};

/// A watcher that takes nothing for so long is hung up on: a pager may stand still for a while.
const PATIENCE: Duration = Duration::from_secs(300);
/// Lines that wait are sent together, up to about this size.
const PIECE: usize = 64 << 10;
/// So many things that are wrong with a filter are named.
const MOST_SAID: usize = 3;
/// Texts of filters that name keys in brackets may have so many bytes together: such names are kept for ever.
const MAX_NAMING: usize = 1 << 20;

/// Where those come who want to watch.
#[derive(Debug)]
pub struct Desk {
    hub: Arc<Hub>,
    /// Rule files and directories, whose macros and lists a filter may use.
    rules: Vec<PathBuf>,
    /// Bytes of filters so far that name keys in brackets.
    naming: AtomicUsize,
}

impl Desk {
    /// Leads to this hub; filters may use the macros and lists of these rule files.
    pub fn new(hub: Arc<Hub>, rules: Vec<PathBuf>) -> Self {
        Desk { hub, rules, naming: AtomicUsize::new(0) }
    }

    /// Lets somebody in.
    pub(super) async fn open(
        &self,
        sight: Sight,
        filter: Option<&str>,
    ) -> Result<Subscription, (Outcome, String)> {
        let filter = match filter {
            Some(text) => Some(Arc::new(self.compile(text).await?)),
            None => None,
        };
        self.hub.watch(Watch { sight, filter }).map_err(|error| (Outcome::Unavailable, error.to_string()))
    }

    async fn compile(&self, text: &str) -> Result<Rule, (Outcome, String)> {
        let refused = |message: String| (Outcome::Malformed, json_visible(&message));
        if text.contains('[') {
            let before = self.naming.fetch_add(text.len(), Ordering::Relaxed);
            if before + text.len() > MAX_NAMING {
                self.naming.fetch_sub(text.len(), Ordering::Relaxed);
                let message = "filters have named too many keys in brackets since the daemon started";
                return Err((Outcome::Unavailable, message.to_owned()));
            }
        }
        let (text, rules) = (text.to_owned(), self.rules.clone());
        let compiled = tokio::task::spawn_blocking(move || {
            Rule::from_expression(&rules, &text)
                // Rule files that are wrong at the moment are no reason against a filter that needs none.
                .or_else(|error| Rule::from_expression(&[], &text).map_err(|_| in_one_line(&error)))
        });
        match compiled.await {
            Ok(compiled) => compiled.map_err(|error| refused(format!("the filter is wrong: {error}"))),
            Err(_) => Err(refused("the filter cannot be compiled".to_owned())),
        }
    }
}

/// Sends what a watcher is told until one of both ends. Whoever watches keeps its sending side open.
pub(super) async fn serve(stream: UnixStream, mut subscription: Subscription, start: WatchStart) -> Outcome {
    let (mut read, mut write) = stream.into_split();
    let Ok(mut piece) = json_line(&Reply::Watching(start)).map(|line| line.into_bytes()) else {
        return Outcome::Unavailable;
    };
    piece.push(b'\n');
    loop {
        if let Err(outcome) = send(&mut write, &mut piece).await {
            return outcome;
        }
        let said = tokio::select! {
            biased;
            () = hung_up(&mut read) => return Outcome::Disconnected,
            said = subscription.next() => said,
        };
        let Some(said) = said else {
            push_notice(&Notice::End("the daemon is stopping".to_owned()), &mut piece);
            return send(&mut write, &mut piece).await.err().unwrap_or(Outcome::Answered);
        };
        push(said, &mut piece);
        while piece.len() < PIECE
            && let Some(said) = subscription.next_now()
        {
            push(said, &mut piece);
        }
    }
}

/// The first things that are wrong, each with its place and how to put it right.
fn in_one_line(error: &LoadError) -> String {
    let said = error.diagnostics().iter().take(MOST_SAID).map(|found| match found.hint() {
        Some(hint) => format!("{found} ({hint})"),
        None => found.to_string(),
    });
    said.collect::<Vec<_>>().join("; ")
}

fn push(said: Said, piece: &mut Vec<u8>) {
    match said {
        Said::Line(line) => piece.extend_from_slice(&line),
        Said::Missed(lines) => push_notice(&Notice::Missed(lines), piece),
    }
}

fn push_notice(notice: &Notice, piece: &mut Vec<u8>) {
    // A number or a text always becomes JSON.
    piece.extend_from_slice(json_line(notice).unwrap_or_default().as_bytes());
    piece.push(b'\n');
}

async fn send(write: &mut OwnedWriteHalf, piece: &mut Vec<u8>) -> Result<(), Outcome> {
    match timeout(PATIENCE, write.write_all(piece)).await {
        Ok(Ok(())) => {
            piece.clear();
            Ok(())
        }
        Ok(Err(_)) => Err(Outcome::Disconnected),
        Err(_) => Err(Outcome::Slow),
    }
}

/// Returns when the other side has closed. What it still says is not looked at.
async fn hung_up(read: &mut OwnedReadHalf) {
    let mut bytes = [0; 64];
    while matches!(read.read(&mut bytes).await, Ok(1..)) {}
}
