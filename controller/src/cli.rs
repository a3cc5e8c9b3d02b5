//! The command line as a whole: which commands there are, and what becomes of one that is wrong.

use crate::commands::{
    agent, audit, completions, control, doctor, logs, man, mirror, post, report, status, sync, top, verify,
    watch, worker,
};
use crate::output;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use treeferry_service::Exit;

/// Clones huge directory trees
///
/// treeferry makes one directory tree like another, whatever their size: content, owners, modes, times,
/// ACLs, extended attributes, hard links, holes and special files. A target is whole or absent at every
/// moment, nothing is deleted unless that is asked for, and whatever could not be done is named.
#[derive(Debug, Parser)]
#[command(name = "treeferry", version, args_override_self = true, max_term_width = 110)]
#[command(after_long_help = exit_codes())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Sync(Box<sync::Args>),
    Verify(Box<verify::Args>),
    Watch(Box<watch::Args>),
    Agent(agent::Args),
    Post(post::Args),
    Mirror(mirror::Args),
    Audit(Box<audit::Args>),
    Worker(worker::Args),
    Hardlinker(worker::HardlinkerArgs),
    Status(status::Args),
    Top(top::Args),
    Jobs(status::JobsArgs),
    Logs(Box<logs::Args>),
    Report(report::Args),
    Pause(control::PauseArgs),
    Resume(control::ResumeArgs),
    Cancel(control::CancelArgs),
    Pool(control::PoolArgs),
    Shutdown(control::ShutdownArgs),
    Retry(control::RetryArgs),
    Doctor(doctor::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Does what the words of a command line say.
pub fn run(words: impl IntoIterator<Item = OsString>) -> Exit {
    match Cli::try_parse_from(words) {
        Ok(cli) => match cli.command {
            Command::Sync(args) => sync::run(*args),
            Command::Verify(args) => verify::run(*args),
            Command::Watch(args) => watch::run(*args),
            Command::Worker(args) => worker::run(&args),
            Command::Hardlinker(args) => worker::run_hardlinker(&args),
            Command::Status(args) => status::run(&args),
            Command::Top(args) => top::run(&args),
            Command::Jobs(args) => status::run_jobs(&args),
            Command::Logs(args) => logs::run(&args),
            Command::Post(args) => post::run(&args),
            Command::Agent(args) => agent::run(&args),
            Command::Mirror(args) => mirror::run(&args),
            Command::Audit(args) => audit::run(&args),
            Command::Report(args) => report::run(&args),
            Command::Pause(args) => control::run_pause(&args),
            Command::Resume(args) => control::run_resume(&args),
            Command::Cancel(args) => control::run_cancel(&args),
            Command::Pool(args) => control::run_pool(&args),
            Command::Shutdown(args) => control::run_shutdown(&args),
            Command::Retry(args) => control::run_retry(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Completions(args) => completions::run(&args),
            Command::Man(args) => man::run(&args),
        },
        Err(e) => {
            // to a stream that is closed nothing can be said
            let _ = e.print();
            if e.use_stderr() { Exit::Usage } else { Exit::Done }
        }
    }
}

/// Refuses a request that was read without a fault and still makes no sense.
pub fn refuse(command: &str, why: &dyn std::fmt::Display) -> Exit {
    output::complain(&format!("{why}\nFor more information, try 'treeferry {command} --help'."));
    Exit::Usage
}

/// The table of exit codes as the end of a help text.
pub fn exit_codes() -> String {
    let mut text = String::from("Exit codes:\n");
    for e in Exit::ALL {
        text += &format!("  {:>3}  {}\n", e.code(), e.meaning());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definition_is_sound_and_every_option_is_explained() {
        let mut all = Cli::command();
        all.build();
        all.clone().debug_assert();
        for c in all.get_subcommands() {
            assert!(c.get_about().is_some(), "{}", c.get_name());
            for a in c.get_arguments().filter(|_| c.get_name() != "help") {
                assert!(a.get_help().is_some(), "{} {}", c.get_name(), a.get_id());
            }
        }
    }

    #[test]
    fn long_help_of_sync_ends_with_the_exit_codes() {
        let mut all = Cli::command();
        let help = all.find_subcommand_mut("sync").unwrap().render_long_help().to_string();
        assert!(help.trim_end().ends_with(exit_codes().trim_end()), "{help}");
        for e in Exit::ALL {
            assert!(help.contains(e.meaning()));
        }
    }
}
