//! `treeferry audit`: compares a random sample of entries, and says what that tells of all.

use crate::args::{Attributes, Entries, Limits, Output, UsageError};
use crate::auditing::{self, Finding, Wish};
use crate::cli;
use crate::output::{Console, complain, grouped, share};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use treeferry_core::units::parse_duration;
use treeferry_core::{JobSpec, PassSet, Stop};
use treeferry_service::{Exit, logging, signals};
use treeferry_worker::{Job, OpenError, Reporter};

/// Seeds that nobody chose are below this: what reads JSON as floating-point numbers (jq, JavaScript) holds them exactly.
const MOST_SEED: u64 = 1 << 53;

/// Compares a random sample of the entries of SRC and DST and touches neither
///
/// Entries are drawn evenly from all that are in SRC or in DST, without walking the trees: about as many directories are
/// listed as entries are drawn. A tree of no more entries than the sample is compared whole. Each entry that differs is
/// a line in rsync's form `%i %n`, as `treeferry verify` prints it; the end is the share of all entries that differs, as
/// far as the sample tells, and a bound that it does not exceed with the confidence that was asked for. Of one entry in
/// all a sample says little: `treeferry verify` walks.
///
/// Which names share an inode is not compared. The exit code is 0 if no difference was found, 23 if there was one or
/// something could not be compared.
#[derive(Debug, clap::Args)]
#[command(after_long_help = cli::exit_codes())]
pub struct Args {
    /// The directory that is right
    #[arg(value_hint = clap::ValueHint::DirPath)]
    src: PathBuf,
    /// The directory that should be like it
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dst: PathBuf,

    /// Draw so many entries
    ///
    /// Draws cannot be wholly even in a tree of which little is known: they go on until they are worth so many even ones,
    /// or are twenty times as many. One entry may be drawn more than once.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    #[arg(help_heading = "Sample")]
    sample: u64,
    /// The bound is to hold in PERCENT of all audits
    #[arg(long, value_name = "PERCENT", default_value_t = 95.0, value_parser = percent, help_heading = "Sample")]
    confidence: f64,
    /// Draw as another audit of the same trees did that named this seed
    ///
    /// Default: another one each time.
    #[arg(long, value_name = "SEED", help_heading = "Sample")]
    seed: Option<u64>,
    /// Look again after DUR at what differs, and count only what still does
    ///
    /// For trees that a mirror keeps alike while they change. Default: it counts at once.
    #[arg(long, value_name = "DUR", value_parser = parse_duration, help_heading = "Sample")]
    settle: Option<Duration>,
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

fn percent(text: &str) -> Result<f64, &'static str> {
    let p: f64 = text.trim_end_matches('%').parse().map_err(|_| "not a number")?;
    if p > 0.0 && p < 100.0 { Ok(p) } else { Err("more than 0 and less than 100") }
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    match args.wanted() {
        Ok((spec, wish)) => audit(&spec, &wish, &args.output),
        Err(e) => cli::refuse("audit", &e),
    }
}

impl Args {
    fn wanted(&self) -> Result<(JobSpec, Wish), UsageError> {
        let config = self.limits.config()?;
        let mut spec = JobSpec::new(&self.src, &self.dst);
        spec.passes = PassSet { copy: true, delete: true, dirtime: true };
        spec.dry_run = true;
        spec.itemize = true;
        spec.checksum = self.checksum;
        self.attributes.apply(&mut spec);
        self.entries.apply(&mut spec, &config)?;
        self.limits.apply(&mut spec, &config);
        // that takes all names of a file, and only a walk knows them
        spec.hardlinks = false;
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..MOST_SEED));
        let wish = Wish {
            sample: self.sample,
            confidence: self.confidence / 100.0,
            seed,
            settle: self.settle.unwrap_or_default(),
            pool: self.limits.pool(&config),
        };
        Ok((spec, wish))
    }
}

fn audit(spec: &JobSpec, wish: &Wish, output: &Output) -> Exit {
    let console = Arc::new(Console::new(output));
    let sink = Arc::clone(&console);
    if let Err(e) = logging::start(logging::level(output.quiet, output.verbose), move |line| sink.log(line)) {
        complain(&e.to_string());
        return Exit::Usage;
    }
    let (stop, teller) = (Stop::default(), Arc::clone(&console));
    if let Err(e) = signals::watch(&stop, move || teller.say(signals::STOPPING)) {
        tracing::warn!("signals end this process at once: {e}");
    }
    let job = match Job::open(spec.clone(), stop.clone()) {
        Ok(job) if job.target().is_some() => job,
        Ok(_) => return unusable("DST does not exist"),
        Err(OpenError::Usage(why)) => {
            return cli::refuse("audit", &why);
        }
        Err(e) => return unusable(&e.to_string()),
    };
    let found = match auditing::run(&job, wish, &stop) {
        Ok(Some(found)) => found,
        Ok(None) => return Exit::Interrupted,
        Err(f) => return unusable(&f.to_string()),
    };
    console.changes(&found.differing);
    found.failures.iter().for_each(|f| console.failure(f, None));
    console.close();
    match (output.json, output.quiet) {
        (true, _) => console.print(&format!("{}\n", found.to_json(wish))),
        (false, false) => console.print(&report(&found, wish)),
        (false, true) => {}
    }
    match found.differing.is_empty() && found.failures.is_empty() {
        true => Exit::Done,
        false => Exit::Failures,
    }
}

fn unusable(why: &str) -> Exit {
    complain(&format!("{why}\nSRC and DST must be directories that you may read."));
    Exit::Unusable
}

fn report(f: &Finding, wish: &Wish) -> String {
    let mut text = String::new();
    let differ = f.differing.len() as u64;
    let entries = grouped(f.entries.round() as u64);
    // into memory: cannot fail
    let _ = match f.whole {
        true => writeln!(text, "all {entries} entries compared, {} differ", grouped(differ)),
        false => writeln!(
            text,
            "{} of about {entries} entries compared, {} differ (seed {})",
            grouped(f.compared),
            grouped(differ),
            wish.seed
        ),
    };
    if !f.failures.is_empty() {
        let _ = writeln!(text, "{} could not be looked at", grouped(f.failures.len() as u64));
    }
    let _ = match f.whole && f.failures.is_empty() {
        true => writeln!(text, "share that differs: {}", share(f.share)),
        false => writeln!(
            text,
            "share that differs: {}; with {} % confidence at most {} ({} even draws)",
            share(f.share),
            wish.confidence * 100.0,
            share(f.share_at_most),
            grouped(f.effective as u64)
        ),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_shown_with_the_digits_that_count() {
        let all = [0.0, 1.0, 0.5, 0.0299, 0.002_991_3, 3e-7];
        assert_eq!(all.map(share), ["0 %", "100 %", "50 %", "3.0 %", "0.30 %", "0.000030 %"]);
    }

    #[test]
    fn a_confidence_is_a_percentage() {
        assert_eq!(percent("99.9"), Ok(99.9));
        assert_eq!(percent("95%"), Ok(95.0));
        assert!(percent("0").is_err() && percent("100").is_err() && percent("x").is_err());
    }
}
