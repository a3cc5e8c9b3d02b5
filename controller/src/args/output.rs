//! What is said, and in which voice.

use clap::ValueEnum;

// not a doc comment: clap would take it for the manual of the command that includes these options
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// Print the summary as one JSON object on standard output
    ///
    /// Itemised lines then go to standard error. Default: the summary is text.
    #[arg(long)]
    pub json: bool,
    /// Print neither summary nor notices nor progress nor warnings
    ///
    /// Failures are always printed, to standard error, and so are lines that --itemize asks for; with --json the
    /// object is printed too.
    #[arg(short = 'q', long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log more to standard error: -v what is begun and ended, -vv and -vvv what helps to find faults
    ///
    /// The environment variable TREEFERRY_LOG wins over it and takes levels for each module. Default: warnings.
    #[arg(short = 'v', long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Show progress on standard error
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub progress: When,
}

/// When progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// if standard error is a terminal, and without -q
    #[default]
    Auto,
    /// also where it is none: a line each second
    Always,
    /// not at all
    Never,
}
