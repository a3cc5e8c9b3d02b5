//! The program `treeferry`: clones huge directory trees for storage administrators.
//!
//! Each command is a file under `commands/`: its arguments, whose doc comment is its manual, and one function.

mod agent;
mod args;
mod auditing;
mod cli;
mod cluster;
mod commands;
mod daemon;
mod events;
mod job;
mod links;
mod local;
mod logs;
mod looking;
mod mailbox;
mod metering;
mod nearby;
mod output;
mod report;
mod top;
mod view;
mod watching;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(std::env::args_os()).into()
}
