//! `ringfence rules`: its commands and their arguments.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::record::BacktestArgs;
use super::{ColorArg, ConfigArg, Entry, Failure, coloured, coverage, emit, failure, lint, parse, rules};
use crate::config::{AttachChoice, ConfigError, OutputFormat};
use crate::rules::{LoadError, LoadOptions, RuleSet};
use crate::trust::Trust;

/// What `rules` shows.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// List all rules
    List {
        /// Which rules are meant.
        #[command(flatten)]
        from: RulesArgs,
        /// How
        #[arg(short, long, value_enum, default_value = "text")]
        output: OutputFormat,
    },
    /// Say for each rule what the probes see on this machine: covered, degraded (and why) or blind
    Coverage {
        /// Which rules are meant.
        #[command(flatten)]
        from: RulesArgs,
        /// How to attach the probes
        #[arg(long, value_enum, default_value = "auto")]
        attach: AttachChoice,
        /// How
        #[arg(short, long, value_enum, default_value = "text")]
        output: OutputFormat,
    },
    /// Run the tests inside rule files; exit 1 if one does not come out or the rules are wrong. Needs no root
    Test {
        /// Rule files and directories instead of the configured ones
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Also fail if a rule has no test that it matches, or none of a near miss: an event that it does not match
        /// because of a single sub-condition
        #[arg(long)]
        complete: bool,
        /// Which configuration is read.
        #[command(flatten)]
        config: ConfigArg,
        /// How
        #[arg(short, long, value_enum, default_value = "text")]
        output: TestFormat,
    },
    /// Say whether an expression holds for an event: prints true or false, and exits 0 in both cases; exits 1 if the
    /// expression or the event is wrong
    Eval {
        /// A condition
        #[arg(value_name = "EXPRESSION")]
        expression: String,
        /// The event: YAML or JSON, a mapping from fields to values or an alert of Ringfence; - is standard input
        #[arg(long, value_name = "FILE")]
        event: PathBuf,
        /// Rule file or directory whose macros and lists the expression may use; may be repeated
        #[arg(long, value_name = "PATH")]
        rules: Vec<PathBuf>,
    },
    /// Say why a rule matches an event or does not: each sub-condition with its values, what decided marked; exits 0 in
    /// both cases, 1 if the event is wrong
    Explain {
        /// The rule's id (or its name)
        id: String,
        /// The event: YAML or JSON, a mapping from fields to values or an alert of Ringfence; - is standard input
        #[arg(long, value_name = "FILE")]
        event: PathBuf,
        /// Which rules are meant.
        #[command(flatten)]
        from: RulesArgs,
        /// How
        #[arg(short, long, value_enum, default_value = "text")]
        output: OutputFormat,
    },
    /// Parse a condition and print its syntax tree as JSON; nothing in it is looked up
    Parse {
        /// The condition, or `-` for standard input
        #[arg(required_unless_present = "file", conflicts_with = "file", allow_hyphen_values = true)]
        expression: Option<String>,
        /// File with the condition, or `-` for standard input
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        /// With json, a syntax error is also printed as JSON, on standard output
        #[arg(short, long, value_enum, default_value = "text")]
        output: OutputFormat,
    },
    /// Say what in rule files is most likely not what was meant: shadowed, unreachable, unused, costly
    Lint {
        /// Rule files and directories instead of the configured ones
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Recording that shows which exceptions are needed, instead of the rules' own tests
        #[arg(long, value_name = "FILE")]
        events: Option<PathBuf>,
        /// Which configuration is read.
        #[command(flatten)]
        config: ConfigArg,
        /// How
        #[arg(short, long, value_enum, default_value = "text")]
        output: OutputFormat,
        /// Whether output is coloured.
        #[command(flatten)]
        color: ColorArg,
    },
    /// Print the JSON Schema of rule files, for editors
    Schema,
    /// Say how often rules would have fired over recorded events, on whom, with examples
    Backtest(BacktestArgs),
    /// Show one rule: what it means, what to check next, its condition
    Show {
        /// The rule's id (or its name)
        id: String,
        /// Which rules are meant.
        #[command(flatten)]
        from: RulesArgs,
        /// How
        #[arg(short, long, value_enum, default_value = "text")]
        output: OutputFormat,
    },
}

/// Which rules are meant.
#[derive(Debug, Default, Args)]
pub struct RulesArgs {
    /// Rule file or directory; may be repeated, and replaces the configured ones
    #[arg(long, value_name = "PATH")]
    pub(super) rules: Vec<PathBuf>,
    /// Which configuration is read.
    #[command(flatten)]
    pub(super) config: ConfigArg,
}

/// Formats of `rules test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TestFormat {
    /// For a terminal.
    Text,
    /// For programs.
    Json,
    /// JUnit's XML, as CI systems read it.
    Junit,
}

/// Rules that are meant, and how they are loaded.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleFiles {
    /// Files and directories; none if the configuration names none and there are none of the default ones.
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) options: LoadOptions,
}

impl RuleFiles {
    /// Those of the command line, otherwise those of the configuration. Who names rules and no configuration gets them
    /// as they are.
    pub(super) fn find(named: Vec<PathBuf>, config: &ConfigArg) -> Result<Self, ConfigError> {
        if !named.is_empty() && !config.is_given() {
            return Ok(Self::plain(named));
        }
        let settings = config.settings()?;
        let options = settings.load_options(Trust::OwnFiles);
        Ok(RuleFiles { paths: if named.is_empty() { settings.rule_paths() } else { named }, options })
    }

    /// These, as they are.
    pub(crate) fn plain(paths: Vec<PathBuf>) -> Self {
        RuleFiles { paths, options: LoadOptions::default() }
    }

    /// As [`RuleFiles::find`], but there must be some.
    pub(super) fn some(named: Vec<PathBuf>, config: &ConfigArg) -> Result<Self, Failure> {
        let found = Self::find(named, config)?;
        if found.paths.is_empty() { Err(Failure::no_rules()) } else { Ok(found) }
    }

    /// Loads them.
    pub(crate) fn load(&self) -> Result<RuleSet, LoadError> {
        RuleSet::load_with(&self.paths, &self.options)
    }
}

impl RulesArgs {
    pub(super) fn files(self) -> Result<RuleFiles, Failure> {
        RuleFiles::some(self.rules, &self.config)
    }
}

/// Obeys.
pub(super) fn execute(command: RulesCommand, entry: Entry) -> Result<ExitCode, Failure> {
    match command {
        RulesCommand::List { from, output } => {
            emit(&rules::list(&from.files()?.load()?, output))?;
        }
        RulesCommand::Coverage { from, attach, output } => {
            // Before anything is attached: the rules may be wrong.
            let rules = from.files()?.load()?;
            let sight = (entry.sight)(attach)?;
            emit(&coverage::table(&rules, &sight, output))?;
            if coverage::is_wrong(&rules, &sight) {
                return Ok(ExitCode::from(failure::FOUND_WRONG));
            }
        }
        RulesCommand::Parse { expression, file, output } => {
            let (name, text) = parse::source(expression, file)?;
            match parse::parse(&name, &text, failure::colours_on_stderr()) {
                parse::Parsed::Tree(tree) => emit(&tree)?,
                parse::Parsed::Wrong { report, json } => {
                    parse::print_wrong(&report, &json, output)?;
                    return Ok(ExitCode::from(failure::FOUND_WRONG));
                }
            }
        }
        RulesCommand::Show { id, from, output } => {
            emit(&rules::show(&from.files()?.load()?, &id, output)?)?;
        }
        RulesCommand::Test { paths, complete, config, output } => {
            return rules::test::run(&RuleFiles::some(paths, &config)?, complete, output);
        }
        RulesCommand::Backtest(args) => return args.run(),
        RulesCommand::Eval { expression, event, rules } => {
            return rules::event::eval(&rules, &expression, &event);
        }
        RulesCommand::Explain { id, event, from, output } => {
            return rules::explain::run(&from.files()?, &id, &event, output);
        }
        RulesCommand::Lint { paths, events, config, output, color } => {
            let files = RuleFiles::some(paths, &config)?;
            let report = lint::report(&files, events.as_deref(), output, coloured(color))?;
            emit(&report.text)?;
            return Ok(if report.wrong { ExitCode::from(failure::FOUND_WRONG) } else { ExitCode::SUCCESS });
        }
        RulesCommand::Schema => emit(&crate::rules::schema::schema_json())?,
    }
    Ok(ExitCode::SUCCESS)
}
