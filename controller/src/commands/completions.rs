//! `treeferry completions`.

use crate::cli::Cli;
use crate::output;
use clap::CommandFactory;
use treeferry_service::Exit;

/// Prints a completion script for a shell
///
/// For bash, for example: `treeferry completions bash > /etc/bash_completion.d/treeferry`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    output::put(&script(args.shell));
    Exit::Done
}

fn script(shell: clap_complete::Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "treeferry", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap_complete::Shell;

    #[test]
    fn every_option_of_every_command_is_completed() {
        let mut all = Cli::command();
        all.build();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let text = String::from_utf8(script(shell)).unwrap();
            for c in all.get_subcommands() {
                assert!(text.contains(c.get_name()), "{shell}: {}", c.get_name());
                for long in c.get_arguments().filter_map(clap::Arg::get_long) {
                    assert!(text.contains(long), "{shell}: {} --{long}", c.get_name());
                }
            }
        }
    }
}
