//! Builds that go on beside a step that waits more than it computes, in the time that this leaves.
//!
//! They only fill caches: the step that wants a build runs the same command, finds it done, and has the verdict.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::environment::work_dir;

/// Builds that run one after the other. Dropped, the one under way is waited for and no further one begins.
pub(crate) struct Aside {
    enough: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Aside {
    /// Starts them. What goes wrong shows when they are run again.
    pub(crate) fn start(builds: Vec<Command>) -> Self {
        // Of this run only.
        let _ = work_dir("xtask/logs").map(|logs| fs::remove_file(logs.join("aside.log")));
        let enough = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&enough);
        let thread = thread::spawn(move || {
            for build in builds {
                if !told.load(Ordering::Relaxed) {
                    // The step that wants it says what is wrong.
                    let _ = run(&build);
                }
            }
        });
        Self { enough, thread: Some(thread) }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a command behind all others.
fn run(plain: &Command) -> anyhow::Result<()> {
    let log = File::options().create(true).append(true).open(work_dir("xtask/logs")?.join("aside.log"))?;
    let mut nice = Command::new("nice");
    nice.args(["-n", "19"]).arg(plain.get_program()).args(plain.get_args());
    if let Some(directory) = plain.get_current_dir() {
        nice.current_dir(directory);
    }
    // In another environment it would all be built again later.
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => nice.env(name, value),
            None => nice.env_remove(name),
        };
    }
    nice.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).status()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_one_under_way_ends_and_no_further_one_begins() -> anyhow::Result<()> {
        let directory = std::env::temp_dir().join(format!("ringfence-aside-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let touch = |name: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", "touch begun; sleep 0.3; touch \"$0\"", name]).current_dir(&directory);
            command
        };
        let aside = Aside::start(vec![touch("first"), touch("second")]);
        while !directory.join("begun").exists() {
            thread::sleep(Duration::from_millis(10));
        }
        drop(aside);
        let made = |name: &str| directory.join(name).exists();
        assert_eq!((made("first"), made("second")), (true, false));
        fs::remove_dir_all(directory)?;
        Ok(())
    }
}
