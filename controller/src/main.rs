//! The program `treeferry`: clones huge directory trees for storage administrators.
//!
//! Each command is a file under `commands/`: its arguments, whose doc comment is its manual, and one function.

mod args;
mod cli;
mod cluster;
mod commands;
mod daemon;
mod job;
mod links;
mod local;
mod output;
mod report;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(std::env::args_os()).into()
}
