//! `ringfence caps`: what containers were granted of capabilities, what they used, what was refused; and the change that
//! takes away the rest.

mod patch;
mod seccomp;
mod table;

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::alert::json_visible;
use crate::capabilities::{CapsInfo, CapsListing, select, stored};
use crate::cli::containers::{failure, other_answer, short};
use crate::cli::rules::visible;
use crate::cli::{AskArgs, Failure, emit};
use crate::config::OutputFormat;
use crate::control::{self, ClientError, Reply, Request};

/// Arguments of `caps`.
#[derive(Debug, Args)]
pub struct CapsArgs {
    /// A container by its id, the beginning of one, or its name; without, a line for each container
    container: Option<String>,
    /// Print the change that leaves the container only what it used
    #[arg(long, value_enum, value_name = "FORMAT", requires = "container", conflicts_with = "output")]
    patch: Option<PatchFormat>,
    /// Print a seccomp profile of the system calls that the container made, for `--security-opt seccomp=FILE`
    #[arg(long, requires = "container", conflicts_with_all = ["patch", "output"])]
    seccomp: bool,
    /// Advise nothing that rests on a shorter time of observation
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    min_observation: Duration,
    /// Advise also if checks may have gone uncounted, or system calls unnoted
    #[arg(long)]
    accept_losses: bool,
    /// Whom to ask, and how to show it.
    #[command(flatten)]
    ask: AskArgs,
}

/// What a change is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PatchFormat {
    /// Options of `docker run`, which are those of `podman run` and `nerdctl run`.
    Docker,
    /// A service in a Compose file.
    Compose,
    /// A container in a pod's specification.
    Kubernetes,
    /// A drop-in for a unit.
    Systemd,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 24h, 90m or 7d"))
}

impl CapsArgs {
    /// Obeys them.
    ///
    /// # Errors
    /// No daemon answers and no state directory can be read; there is no such container; or there is no advice.
    pub(super) fn run(self) -> Result<(), Failure> {
        let (listing, note) = self.ask()?;
        if let Some(note) = note {
            tell(&note);
        }
        let Some(wanted) = &self.container else {
            emit(&match self.ask.output {
                OutputFormat::Json => json(&listing),
                OutputFormat::Text => table::list(&listing),
            })?;
            return omitted(&listing);
        };
        let info = one(&listing, wanted)?;
        if self.seccomp {
            let advice = seccomp::advise(info, self.min_observation, self.accept_losses)
                .map_err(|reason| Failure::environment(visible(&reason)).found_wrong())?;
            advice.notes.iter().for_each(|note| tell(note));
            return emit(&json(&advice.profile));
        }
        match self.patch {
            Some(format) => {
                let advice = patch::advise(info, self.min_observation, self.accept_losses)
                    .map_err(|reason| Failure::environment(visible(&reason)).found_wrong())?;
                emit(&patch::render(format, info, &advice))
            }
            None => emit(&match self.ask.output {
                OutputFormat::Json => json(info),
                OutputFormat::Text => table::detail(info, &listing),
            }),
        }
    }

    /// What the daemon knows; if there is none, what it left, and a sentence that says so.
    fn ask(&self) -> Result<(CapsListing, Option<String>), Failure> {
        let settings = self.ask.config.settings()?;
        let request = Request::Caps { container: self.container.clone() };
        let socket = self.ask.socket.as_deref().or_else(|| settings.control_socket.path());
        let nobody = match socket.map(|path| control::ask(path, request)) {
            Some(Ok(Reply::Caps(listing))) => return Ok((*listing, None)),
            Some(Ok(_)) => return Err(other_answer()),
            Some(Err(error @ (ClientError::NoSocket { .. } | ClientError::NobodyListens { .. }))) => {
                error.to_string()
            }
            Some(Err(error)) => return Err(failure(error)),
            None => "the configuration says `control_socket: off`".to_owned(),
        };
        let Some(dir) = settings.state_dir.path() else {
            return Err(Failure::environment(visible(&nobody)));
        };
        match stored(dir) {
            Ok((mut listing, refused)) => {
                if self.container.is_none() {
                    // As a daemon answers.
                    listing.containers.iter_mut().for_each(CapsInfo::shorten);
                }
                let mut note = format!(
                    "no daemon answers: this is what one last wrote below {}, so nothing says what runs now",
                    dir.display()
                );
                for (file, reason) in refused {
                    note.push_str(&format!("; {file} is refused: {reason}"));
                }
                Ok((listing, Some(note)))
            }
            Err(error) => Err(Failure::environment(visible(&format!(
                "{nobody}; and what one wrote cannot be read: {error}"
            )))),
        }
    }
}

/// The one container that is meant.
fn one<'l>(listing: &'l CapsListing, wanted: &str) -> Result<&'l CapsInfo, Failure> {
    match select(&listing.containers, wanted).as_slice() {
        [one] => Ok(one),
        [] => Err(Failure::environment(format_args!(
            "no container is known as `{}`; `ringfence caps` lists those that are",
            visible(wanted)
        ))),
        many if many.iter().all(|info| info.id == wanted) => {
            let whose: Vec<String> =
                many.iter().take(8).map(|info| info.runtime.clone() + &whose(info)).collect();
            Err(Failure::environment(format_args!(
                "{} containers have the id `{}`, and which is meant cannot be told: {}",
                many.len(),
                visible(wanted),
                visible(&whose.join("; "))
            )))
        }
        many => {
            let ids: Vec<String> = many.iter().take(8).map(|info| visible(&info.id)).collect();
            Err(Failure::environment(format_args!(
                "`{}` is the beginning of {} ids: {}",
                visible(wanted),
                many.len(),
                ids.join(", ")
            )))
        }
    }
}

/// Who else than root may have made and named it: to be put behind what it is called. Nothing if nobody.
fn whose(info: &CapsInfo) -> String {
    let user = info.user.map(|user| format!(", of user {user}")).unwrap_or_default();
    let inside: Vec<String> = info.inside.iter().map(|id| short(&visible(id))).collect();
    if inside.is_empty() { user } else { format!("{user}, inside {}", inside.join(", inside ")) }
}

fn omitted(listing: &CapsListing) -> Result<(), Failure> {
    match listing.omitted {
        0 => Ok(()),
        more => Err(Failure::environment(format_args!("the answer had no room for {more} more; name one"))),
    }
}

fn json(value: &impl serde::Serialize) -> String {
    // Only a map with keys that are no texts can fail.
    json_visible(&serde_json::to_string_pretty(value).unwrap_or_default()) + "\n"
}

/// A remark beside the output. Nobody may be left to read it.
fn tell(note: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "ringfence: {}", visible(note));
}

/// A time of so many seconds, as people say it.
fn span(seconds: u64) -> String {
    // Days and hours are enough where there are days.
    let rounded = if seconds >= 86_400 { seconds - seconds % 3600 } else { seconds };
    humantime::format_duration(Duration::from_secs(rounded)).to_string()
}

#[cfg(test)]
#[path = "caps_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "caps_kept_tests.rs"]
mod kept_tests;
