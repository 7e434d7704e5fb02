//! The control socket: what a running daemon tells those who may ask it.
//!
//! A Unix stream socket. A client writes one line of JSON, gets one line of JSON, and that was the connection; to
//! [`Request::Watch`] it gets lines until it hangs up or the daemon ends. Every request reads; none changes anything. Root, the socket's owner and its group may ask; the kernel says who asks.
//!
//! The pipeline's tables have one owner, so nobody else reads them. A request travels to the owner through a bounded
//! channel, and what comes back holds shared parts of the tables: the pipeline makes no text, takes no lock and
//! waits for nobody. Questions are let through one at a time and with a pause between them, whoever asks how often.
//!
//! ```text
//! client ── socket ── server ── Asker ─ channel ─ Questions ── reader ── pipeline
//! ```
//!
//! A new request is a variant of [`Request`] and of [`Reply`], and its text in the server; if the pipeline is asked, also
//! a [`Topic`] with an arm in `Pipeline::answer`. [`Status`] asks nothing of the pipeline.

mod ask;
mod client;
mod containers;
mod place;
mod protocol;
mod server;
mod socket;
mod status;
mod top;
mod watch;

pub use ask::{Answer, AskError, Asker, Question, Questions, Topic, channel};
pub use client::{ClientError, Heard, ask, watch};
pub use containers::{Row, Tables, containers};
pub use place::{ControlSocket, DEFAULT_CONTROL_SOCKET};
pub use protocol::{ContainerInfo, Listing, Notice, Phase, Pod, Refusal, Reply, Request, WatchStart};
pub use server::{Outcome, Sources, serve};
pub use socket::{Bound, ControlError, bind};
pub(crate) use status::rfc3339;
pub use status::{
    Board, BoardParts, EventsStatus, MissingProbe, OutputStatus, RefusedStatus, RulesStatus, Status,
};
pub use top::{CallCount, TopInfo, TopListing, TopParts, top};
pub use watch::Desk;

#[cfg(test)]
mod containers_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod watch_tests;
