//! `ringfence top`: what containers try, what is refused to them, lost and alerted, as it happens.
//!
//! The daemon is asked aside, so that keys are answered while it takes its time.

mod model;
mod terminal;
mod view;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event};

use crate::alert::json_visible;
use crate::capabilities::CapsInfo;
use crate::cli::containers::{failure, other_answer, socket, terminal_columns};
use crate::cli::rules::visible;
use crate::cli::{ConfigArg, Failure, emit};
use crate::config::OutputFormat;
use crate::control::{self, ClientError, Reply, Request, TopListing};

use model::{App, Question, Step};

/// The view is asked for anew so often.
const PERIOD: Duration = Duration::from_secs(1);
/// Keys and answers are looked for so often.
const TICK: Duration = Duration::from_millis(100);
/// Columns of a view that goes to no terminal.
const COLUMNS: usize = 120;

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Print the view once and end, as without a terminal
    #[arg(long)]
    once: bool,
    /// Print once: as text, or JSON
    #[arg(short, long, value_enum)]
    output: Option<OutputFormat>,
    /// By what containers are sorted
    #[arg(long, value_enum, default_value = "attempts")]
    sort: SortKey,
    /// Control socket of the daemon instead of the configured one
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Which configuration is read.
    #[command(flatten)]
    config: ConfigArg,
}

/// By what containers are sorted, most first; names from a to z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SortKey {
    /// Events that the rules judged.
    #[default]
    Attempts,
    /// The same in a second.
    Rate,
    /// What was refused.
    Refused,
    /// Records that were lost.
    Lost,
    /// Alerts.
    Alerts,
    /// The container's name.
    Name,
}

impl TopArgs {
    /// Shows the view, once or until `q`.
    ///
    /// # Errors
    /// Nobody answers, or the terminal cannot be used.
    pub(super) fn run(self) -> Result<(), Failure> {
        let path = socket(self.socket, &self.config)?;
        let listing = ask(&path).map_err(failure)?;
        let Some(listing) = listing else { return Err(other_answer()) };
        let app = App::new(listing, self.sort);
        match self.output {
            Some(OutputFormat::Json) => {
                // Only a map with keys that are no texts can fail.
                let json = serde_json::to_string_pretty(app.listing()).unwrap_or_default();
                emit(&(json_visible(&json) + "\n"))
            }
            None if !self.once && std::io::stdout().is_terminal() => live(app, path),
            _ => emit(&print(app, terminal_columns().unwrap_or(COLUMNS))),
        }
    }
}

fn ask(path: &Path) -> Result<Option<TopListing>, ClientError> {
    match control::ask(path, Request::Top { container: None })? {
        Reply::Top(listing) => Ok(Some(*listing)),
        _ => Ok(None),
    }
}

/// The view as lines, whole.
fn print(mut app: App, columns: usize) -> String {
    let rows = app.rows_for_all();
    let columns = u16::try_from(columns).unwrap_or(u16::MAX).clamp(40, 1000);
    let Ok(mut terminal) = Terminal::new(TestBackend::new(columns, rows));
    app.keys = false;
    let Ok(_) = terminal.draw(|frame| view::draw(frame, &mut app));
    view::lines(terminal.backend().buffer())
}

/// What was asked, with what came.
enum Answer {
    Listing(Result<TopListing, String>),
    Detail(Box<Result<(TopListing, Option<CapsInfo>), String>>),
}

fn live(mut app: App, path: PathBuf) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| {
        Failure::environment(format_args!("the terminal cannot be used: {error}; try `ringfence top --once`"))
    };
    let (questions, answers) = start_asking(path).map_err(cannot)?;
    let mut screen = terminal::Screen::open().map_err(cannot)?;
    let ended = drive(&mut app, &mut screen, &questions, &answers);
    drop(screen);
    ended.map_err(cannot)
}

fn drive(
    app: &mut App,
    screen: &mut terminal::Screen,
    questions: &Sender<Question>,
    answers: &Receiver<Answer>,
) -> std::io::Result<()> {
    let mut asked: Option<Instant> = None;
    let mut due = Instant::now() + PERIOD;
    loop {
        screen.draw(|frame| view::draw(frame, app))?;
        let mut now = false;
        if event::poll(TICK)? {
            // A new size needs no answer: everything is drawn anew in any case.
            if let Event::Key(key) = event::read()? {
                match app.key(key) {
                    Step::Stay => {}
                    Step::Ask => now = true,
                    Step::Quit => return Ok(()),
                }
            }
        }
        while let Ok(answer) = answers.try_recv() {
            asked = None;
            match answer {
                Answer::Listing(Ok(listing)) => app.update(listing),
                Answer::Detail(detail) => match *detail {
                    Ok((listing, caps)) => app.show(listing, caps),
                    Err(error) => app.fail(error),
                },
                Answer::Listing(Err(error)) => app.fail(error),
            }
        }
        if asked.is_none() && (now || Instant::now() >= due) {
            due = Instant::now() + PERIOD;
            asked = Some(due);
            if questions.send(app.question()).is_err() {
                return Err(std::io::Error::other("the thread that asks the daemon is gone"));
            }
        }
    }
}

/// Starts the thread that asks the daemon.
fn start_asking(path: PathBuf) -> std::io::Result<(Sender<Question>, Receiver<Answer>)> {
    let (questions, asked) = channel::<Question>();
    let (answer, answers) = channel();
    std::thread::Builder::new().name("asker".to_owned()).spawn(move || {
        for question in asked {
            let given = match question {
                Question::All => Answer::Listing(top(&path, None)),
                Question::One(id) => Answer::Detail(Box::new(top(&path, Some(id.clone())).map(|listing| {
                    let caps = match control::ask(&path, Request::Caps { container: Some(id) }) {
                        Ok(Reply::Caps(listing)) => listing.containers.into_iter().next(),
                        // No ledger of capabilities is kept, or it does not know the container.
                        _ => None,
                    };
                    (listing, caps)
                }))),
            };
            if answer.send(given).is_err() {
                return;
            }
        }
    })?;
    Ok((questions, answers))
}

fn top(path: &Path, container: Option<String>) -> Result<TopListing, String> {
    match control::ask(path, Request::Top { container }) {
        Ok(Reply::Top(listing)) => Ok(*listing),
        Ok(_) => Err("the daemon answers another question".to_owned()),
        Err(error) => Err(visible(&error.to_string())),
    }
}

#[cfg(test)]
#[path = "top/tests.rs"]
mod tests;
