//! `ringfence config dump`: the effective settings, and what set each.

use clap::Subcommand;

use crate::alert::json_visible;
use crate::cli::ConfigArg;
use crate::cli::rules::visible;
use crate::config::{self, Loaded, OutputFormat};

/// What can be done with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting with its value and what set it: a file, the environment, the command line; no secrets
    Dump {
        /// Which configuration is read.
        #[command(flatten)]
        config: ConfigArg,
        /// How: as a configuration file with comments, or JSON
        #[arg(short, long, value_enum, default_value = "text")]
        output: OutputFormat,
    },
}

/// For people, as a file that can be read again, or JSON.
pub(super) fn text(loaded: &Loaded, output: OutputFormat) -> String {
    let shown = loaded.shown();
    match output {
        OutputFormat::Text => config::yaml(&shown).lines().map(|line| visible(line) + "\n").collect(),
        OutputFormat::Json => {
            // Only a map with keys that are no texts can fail.
            json_visible(&serde_json::to_string_pretty(&config::json(&shown)).unwrap_or_default()) + "\n"
        }
    }
}
