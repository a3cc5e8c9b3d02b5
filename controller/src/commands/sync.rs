//! `treeferry sync`: the reason for everything else.

use crate::args::{Attributes, Cluster, Entries, Limits, Log, Output, UsageError};
use crate::cli;
use crate::job::{self, Purpose, Request, Start};
use std::path::PathBuf;
use treeferry_core::config::Config;
use treeferry_core::spec::{DEFAULT_CHUNK_BYTES, MIN_CHUNK_BYTES};
use treeferry_core::units::{parse_size, show_size};
use treeferry_core::{JobSpec, PassSet};
use treeferry_service::Exit;
use treeferry_service::metrics::Settings;

/// Makes the inside of DST like the inside of SRC
///
/// What is inside SRC arrives inside DST, as with `rsync SRC/ DST/`; slashes at the end make no difference.
/// DST is made if it is missing. Run it again at any time, after an interruption or a crash too: what is right
/// already is not copied again, and nobody ever sees a half-written file under its final name.
///
/// Nothing is deleted in DST unless --delete or --pass asks for it, and then only where the corresponding
/// directory of SRC was listed to its end without an error.
///
/// To move a big tree, copy as often as you like while it is in use: `treeferry sync --min-age 1h /old /new`;
/// and once more when it is at rest: `treeferry sync --delete /old /new`.
///
/// SIGINT, SIGTERM and SIGHUP stop the job in good order; a second one stops it at once, which does no harm
/// either. Under nohup(1) SIGHUP is ignored.
#[derive(Debug, clap::Args)]
#[command(after_long_help = cli::exit_codes())]
pub struct Args {
    /// The directory to copy from
    #[arg(value_hint = clap::ValueHint::DirPath)]
    src: PathBuf,
    /// The directory to copy to; made if missing
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dst: PathBuf,

    /// Run these passes: a list of copy, delete and dirtime, separated by commas
    ///
    /// copy creates, replaces and repairs; delete removes from DST what SRC does not have; dirtime gives directories
    /// their final metadata. Together they are one walk, alone each is its own. Default: copy,dirtime.
    #[arg(long, value_name = "LIST")]
    pass: Option<PassSet>,
    /// Decide by content, not by size and modification time, whether a file is unchanged
    #[arg(short = 'c', long)]
    checksum: bool,
    /// Read each copy back from storage and compare it with what was read from SRC
    #[arg(long)]
    verify: bool,
    /// Touch nothing; with -i say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print a line for each change, in rsync's form `%i %n`
    ///
    /// Names are escaped as rsync does: a control character or a byte that is not UTF-8 is `\#` and three octal
    /// digits.
    #[arg(short = 'i', long)]
    itemize: bool,
    /// Replace a directory of DST that is not empty by what SRC has in its place, if that is no directory
    ///
    /// Default: that is a failure, unless the delete pass runs too.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    attributes: Attributes,
    #[command(flatten)]
    entries: Entries,
    #[command(flatten)]
    deleting: Deleting,
    /// Copy files larger than SIZE in chunks of it, several at a time
    #[arg(long, value_name = "SIZE", value_parser = chunk_size, help_heading = "Tuning")]
    #[arg(long_help = format!(
        "Copy files larger than SIZE in chunks of it, several at a time\n\nSIZE is in bytes, and takes K, M, G, T or P \
         (powers of 1024); at least {}. Default: the configuration's `chunk-size`, else {}.",
        show_size(MIN_CHUNK_BYTES), show_size(DEFAULT_CHUNK_BYTES)
    ))]
    chunk_size: Option<u64>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    cluster: Cluster,
    /// With a cluster: register the job, print its id and return
    ///
    /// `treeferry status` tells how it goes. Default: wait for its end.
    #[arg(long, help_heading = "Cluster", conflicts_with = "itemize")]
    detach: bool,
    #[command(flatten)]
    log: Log,
    #[command(flatten)]
    output: Output,
}

// not a doc comment: clap would take it for the manual of the command
// How the delete pass goes about it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Deleting")]
struct Deleting {
    /// Delete from DST what SRC does not have: adds the delete pass to the others
    #[arg(long)]
    delete: bool,
    /// Delete excluded entries of DST too
    ///
    /// Default: what is excluded is left alone in DST. Needs the delete pass.
    #[arg(long)]
    delete_excluded: bool,
    /// Stop deleting after N entries; the rest is counted, and the exit code is 25
    ///
    /// Default: no limit. Needs the delete pass.
    #[arg(long, value_name = "N")]
    max_delete: Option<u64>,
    /// Move to DIR what would be deleted
    ///
    /// DIR must be on the file system of DST; it is made if missing. Default: it is removed. Needs the delete pass.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    trash: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> Exit {
    match args.request() {
        Ok(request) => job::run(Purpose::Sync, request, &args.output),
        Err(e) => cli::refuse("sync", &e),
    }
}

impl Args {
    fn request(&self) -> Result<Request, UsageError> {
        let config = self.limits.config()?;
        let site = self.cluster.site(&config)?;
        if self.detach && site.is_none() {
            return Err(UsageError::NoCluster);
        }
        let (spec, pool) = (self.spec(&config)?, self.limits.pool(&config));
        let telling = self.log.telling(&config.log, site.is_some())?;
        let metrics = Settings::read(&config.metrics)?;
        Ok(Request {
            spec,
            pool,
            site,
            start: Start::Whole,
            detach: self.detach,
            telling,
            metrics,
            watch: None,
        })
    }

    fn spec(&self, config: &Config) -> Result<JobSpec, UsageError> {
        let mut spec = JobSpec::new(&self.src, &self.dst);
        spec.passes = self.pass.unwrap_or_default();
        spec.checksum = self.checksum;
        spec.verify = self.verify;
        spec.dry_run = self.dry_run;
        spec.itemize = self.itemize;
        spec.force = self.force;
        spec.chunk_bytes = match (self.chunk_size, config.sync.chunk_size) {
            (Some(given), _) => given,
            (None, Some(q)) => check_chunk(q.0).map_err(|why| UsageError::ConfigValue {
                key: "chunk-size",
                value: q.0,
                why,
            })?,
            (None, None) => DEFAULT_CHUNK_BYTES,
        };
        self.attributes.apply(&mut spec);
        self.entries.apply(&mut spec, config)?;
        self.limits.apply(&mut spec, config);
        self.log.apply(&mut spec, &config.log);
        self.deleting.apply(&mut spec)?;
        Ok(spec)
    }
}

impl Deleting {
    fn apply(&self, spec: &mut JobSpec) -> Result<(), UsageError> {
        spec.passes.delete |= self.delete;
        spec.delete_excluded = self.delete_excluded;
        spec.max_delete = self.max_delete;
        spec.trash = self.trash.clone();
        let orphan = [
            (self.delete_excluded, "--delete-excluded"),
            (self.max_delete.is_some(), "--max-delete"),
            (self.trash.is_some(), "--trash"),
        ];
        match orphan.into_iter().find(|(given, _)| *given && !spec.passes.delete) {
            Some((_, option)) => Err(UsageError::NeedsDelete(option)),
            None => Ok(()),
        }
    }
}

fn chunk_size(text: &str) -> Result<u64, String> {
    check_chunk(parse_size(text).map_err(|e| e.to_string())?)
}

fn check_chunk(bytes: u64) -> Result<u64, String> {
    let least = MIN_CHUNK_BYTES;
    if bytes < least { Err(format!("too small: at least {}", show_size(least))) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests;
