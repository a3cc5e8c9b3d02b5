//! `treeferry verify`: the walk of `sync`, which touches nothing and tells every difference.

use crate::args::log;
use crate::args::{Attributes, Entries, Limits, Output, UsageError};
use crate::cli;
use crate::job::{self, Purpose, Request, Start};
use std::path::PathBuf;
use treeferry_core::config::Config;
use treeferry_core::{JobSpec, PassSet};
use treeferry_service::Exit;
use treeferry_service::metrics::Settings;

/// Compares DST with SRC and touches neither
///
/// Each difference is a line in rsync's form `%i %n`: what `treeferry sync --delete` would do to make DST like SRC.
/// Without --checksum files of the same size and modification time count as equal.
///
/// With the options that say what is kept and which entries it is about, give those of the sync that is to be
/// verified. The exit code is 0 if there is no difference, 23 if there is one or something could not be compared.
#[derive(Debug, clap::Args)]
#[command(after_long_help = cli::exit_codes())]
pub struct Args {
    /// The directory that is right
    #[arg(value_hint = clap::ValueHint::DirPath)]
    src: PathBuf,
    /// The directory that should be like it
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dst: PathBuf,

    /// Compare content, not only size and modification time
    #[arg(short = 'c', long)]
    checksum: bool,

    #[command(flatten)]
    attributes: Attributes,
    #[command(flatten)]
    entries: Entries,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub fn run(args: Args) -> Exit {
    match args.request() {
        Ok(request) => job::run(Purpose::Verify, request, &args.output),
        Err(e) => cli::refuse("verify", &e),
    }
}

impl Args {
    fn request(&self) -> Result<Request, UsageError> {
        let config = self.limits.config()?;
        Ok(Request {
            spec: self.spec(&config)?,
            pool: self.limits.pool(&config),
            site: None,
            start: Start::Whole,
            detach: false,
            // nothing is done, and each difference is printed
            telling: log::telling(&config.log, None)?,
            metrics: Settings::read(&config.metrics)?,
            watch: None,
        })
    }

    fn spec(&self, config: &Config) -> Result<JobSpec, UsageError> {
        let mut spec = JobSpec::new(&self.src, &self.dst);
        spec.passes = PassSet { copy: true, delete: true, dirtime: true };
        spec.dry_run = true;
        spec.itemize = true;
        spec.checksum = self.checksum;
        self.attributes.apply(&mut spec);
        self.entries.apply(&mut spec, config)?;
        self.limits.apply(&mut spec, config);
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::{FromArgMatches, Parser};
    use treeferry_core::filter::Rule;
    use treeferry_core::spec::Keep;

    fn spec(options: &str) -> JobSpec {
        let words = ["treeferry", "verify"].into_iter().chain(options.split_whitespace()).chain(["/a", "/b"]);
        let matches = <Cli as clap::CommandFactory>::command().get_matches_from(words.clone());
        assert!(Cli::try_parse_from(words).is_ok());
        let args = Args::from_arg_matches(matches.subcommand().unwrap().1).unwrap();
        args.spec(&Config::default()).unwrap()
    }

    #[test]
    fn it_is_a_dry_run_of_all_passes_that_tells() {
        let s = spec("");
        assert!(s.dry_run && s.itemize && !s.checksum && !s.verify);
        assert_eq!(s.passes.names(), ["copy", "delete", "dirtime"]);
    }

    #[test]
    fn it_takes_the_options_that_say_what_is_compared() {
        let s = spec("-c --no-acls -tp --exclude *.o --min-age 1h --iops 7");
        assert!(s.checksum && !s.acls);
        assert_eq!((s.times, s.perms, s.owner), (Keep::Strictly, Keep::Strictly, Keep::No));
        assert_eq!(s.rules, [Rule::Exclude("*.o".into())]);
        assert_eq!((s.min_age.map(|d| d.as_secs()), s.iops), (Some(3600), Some(7)));
    }
}
