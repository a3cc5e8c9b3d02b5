//! `treeferry man`: the manual, made from the same definitions as the help texts.

use crate::cli::Cli;
use crate::output;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use treeferry_core::escape;
use treeferry_service::{Exit, configuration, logging};

/// Prints the manual page, or writes a page for each command
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one page for each command to DIR, which is made if missing
    ///
    /// Default: one page of the whole program goes to standard output; see it with
    /// `treeferry man | man -l -`.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    let Some(dir) = &args.dir else {
        return match whole() {
            Ok(page) => {
                output::put(&page);
                Exit::Done
            }
            Err(e) => failed("manual", &e),
        };
    };
    match write_pages(dir) {
        Ok(()) => Exit::Done,
        Err(e) => failed(&escape::bytes(dir.as_os_str().as_encoded_bytes()).to_string(), &e),
    }
}

fn failed(what: &str, e: &io::Error) -> Exit {
    output::complain(&format!("{what}: {e}"));
    Exit::Usage
}

fn write_pages(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("treeferry.1"), page(program(), true)?)?;
    for c in program().get_subcommands().cloned() {
        let name = format!("treeferry-{}.1", c.get_name());
        std::fs::write(dir.join(name), page(c, false)?)?;
    }
    Ok(())
}

/// The definition without what only the terminal needs.
fn program() -> Command {
    let mut c = Cli::command().disable_help_subcommand(true);
    c.build();
    c
}

/// A page for one command; that of the program lists the others.
fn page(command: Command, is_program: bool) -> io::Result<Vec<u8>> {
    let man = Man::new(command).source(concat!("treeferry ", env!("CARGO_PKG_VERSION")));
    let mut w = Vec::new();
    man.render_title(&mut w)?;
    man.render_name_section(&mut w)?;
    man.render_synopsis_section(&mut w)?;
    man.render_description_section(&mut w)?;
    man.render_options_section(&mut w)?;
    if is_program {
        man.render_subcommands_section(&mut w)?;
    }
    close(&mut w)?;
    Ok(w)
}

/// The whole program on one page.
fn whole() -> io::Result<Vec<u8>> {
    let program = program();
    let man = Man::new(program.clone()).source(concat!("treeferry ", env!("CARGO_PKG_VERSION")));
    let mut w = Vec::new();
    man.render_title(&mut w)?;
    man.render_name_section(&mut w)?;
    man.render_synopsis_section(&mut w)?;
    man.render_description_section(&mut w)?;
    man.render_options_section(&mut w)?;
    for c in program.get_subcommands() {
        let title = format!("treeferry {}", c.get_name()).to_uppercase();
        let mut head = Roff::default();
        head.control("SH", [title.as_str()]);
        head.to_writer(&mut w)?;
        let (man, mut part) = (Man::new(c.clone()), Vec::new());
        man.render_synopsis_section(&mut part)?;
        man.render_description_section(&mut part)?;
        man.render_options_section(&mut part)?;
        // sections of their own pages are subsections here
        w.extend(String::from_utf8_lossy(&part).replace(".SH ", ".SS ").bytes());
    }
    close(&mut w)?;
    Ok(w)
}

/// What every page ends with.
fn close(w: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::default();
    roff.control("SH", ["EXIT STATUS"]);
    for e in Exit::ALL {
        roff.control("TP", []).text([bold(e.code().to_string())]).text([roman(e.meaning())]);
    }
    roff.control("SH", ["ENVIRONMENT"]);
    for (name, meaning) in [
        (configuration::VARIABLE, "names the configuration file where --config does not"),
        (
            logging::VARIABLE,
            "sets the level of the log, for each module if need be, e.g. info,treeferry_fs=debug",
        ),
    ] {
        roff.control("TP", []).text([bold(name)]).text([roman(meaning)]);
    }
    roff.to_writer(w)?;
    w.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(c: &Command) -> Vec<String> {
        c.get_arguments()
            .filter_map(clap::Arg::get_long)
            .map(|l| format!("--{l}").replace('-', "\\-"))
            .collect()
    }

    #[test]
    fn the_page_of_the_program_has_every_option_and_exit_code() {
        let text = String::from_utf8(whole().unwrap()).unwrap();
        for c in program().get_subcommands() {
            assert!(text.contains(&format!("TREEFERRY {}", c.get_name().to_uppercase())));
            for o in options(c) {
                assert!(text.contains(&o), "{} {o}", c.get_name());
            }
        }
        for e in Exit::ALL {
            assert!(text.contains(&format!("\\fB{}\\fR\n", e.code())), "{e:?}");
        }
    }

    #[test]
    fn each_command_has_a_page_with_its_options() {
        for c in program().get_subcommands() {
            let text = String::from_utf8(page(c.clone(), false).unwrap()).unwrap();
            assert!(options(c).iter().all(|o| text.contains(o)), "{}", c.get_name());
            assert!(text.contains("EXIT STATUS") && text.contains("ENVIRONMENT"));
        }
        let text = String::from_utf8(page(program(), true).unwrap()).unwrap();
        assert!(text.contains("treeferry\\-sync(1)"), "{text}");
    }
}
