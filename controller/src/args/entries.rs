//! Which entries a job is about: patterns, regular expressions and ages.
//!
//! Patterns keep the order in which they stand on the command line, files of patterns in between: a line
//! `!PATTERN` takes back what stands before it. clap keeps values by option and not by place, so the order is put
//! together again from the places that it remembers.

use super::UsageError;
use clap::{ArgMatches, Command, FromArgMatches};
use std::path::{Path, PathBuf};
use std::time::Duration;
use treeferry_core::JobSpec;
use treeferry_core::config::Config;
use treeferry_core::filter::{Rule, rules_of_file};
use treeferry_core::units::parse_duration;

/// What `--exclude`, `--include`, `--exclude-from`, `--accept` and `--reject` say, in their order, and the ages.
#[derive(Debug)]
pub struct Entries {
    patterns: Vec<Patterns>,
    min_age: Option<Duration>,
    max_age: Option<Duration>,
}

#[derive(Debug)]
enum Patterns {
    One(Rule),
    File(PathBuf),
}

// not a doc comment: clap would take it for the manual of the command that includes these options
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which entries")]
struct Given {
    /// Leave out what matches PATTERN; may be repeated
    ///
    /// Patterns are gitignore's, matched against the path below SRC: `*.o` in every directory, `/build` only
    /// at the top, `cache/` only directories, `a/**/z` at any depth. What is excluded is not copied, and is safe
    /// from deletion in DST unless --delete-excluded is given. An excluded directory is left out with all that is
    /// below it. Default: nothing is excluded.
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Take in what matches PATTERN, whatever excludes it; may be repeated
    ///
    /// It wins over every --exclude, wherever it stands, but not over the exclusion of a directory above.
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Read --exclude patterns from FILE, one a line; may be repeated
    ///
    /// Empty lines and lines that begin with `#` are passed over; a line `!PATTERN` takes back what lines and
    /// options before it have excluded. The file is UTF-8.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    exclude_from: Vec<PathBuf>,
    /// Take in only files whose path matches REGEX; may be repeated, also with --reject
    ///
    /// A regular expression for the path below SRC with a `/` before it, anywhere in it: `\.grib$`, `^/top/`. Of all
    /// --accept and --reject, in their order, the first that matches decides; what none matches is left out if the last
    /// of them is an --accept, and taken in if it is a --reject. They speak of all that is no directory. What is left out
    /// is as safe from deletion as with --exclude. Names that are not UTF-8 are matched by bytes: `(?-u)\xff`.
    #[arg(long, value_name = "REGEX")]
    accept: Vec<String>,
    /// Leave out files whose path matches REGEX; may be repeated, also with --accept
    #[arg(long, value_name = "REGEX")]
    reject: Vec<String>,
    /// Leave alone what changed less than DUR ago
    ///
    /// By modification or status-change time, whichever is later. What is left alone is not deleted in DST
    /// either. DUR is a number of seconds, or a number with s, m (minutes), h, d or w. Default: no limit.
    #[arg(short = 'm', long, value_name = "DUR", value_parser = parse_duration)]
    min_age: Option<Duration>,
    /// Leave out files that were not accessed for DUR
    ///
    /// By access time; only regular files are left out. Not for mirrors: `treeferry watch` refuses it. DUR as for --min-age.
    /// Default: no limit.
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    max_age: Option<Duration>,
}

impl Entries {
    /// Writes them into a job, behind the patterns of the configuration; reads the files of patterns.
    pub fn apply(&self, spec: &mut JobSpec, config: &Config) -> Result<(), UsageError> {
        spec.min_age = self.min_age;
        spec.max_age = self.max_age;
        spec.rules = config.sync.exclude.iter().cloned().map(Rule::Exclude).collect();
        for p in &self.patterns {
            match p {
                Patterns::One(rule) => spec.rules.push(rule.clone()),
                Patterns::File(path) => spec.rules.extend(rules_of_file(&read(path)?)),
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, UsageError> {
    let bad = |why: String| UsageError::PatternFile { path: path.to_owned(), why };
    let bytes = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| {
        bad(format!("not UTF-8 (byte {}); write such names with ? or *", e.utf8_error().valid_up_to()))
    })
}

impl FromArgMatches for Entries {
    fn from_arg_matches(m: &ArgMatches) -> Result<Self, clap::Error> {
        let given = Given::from_arg_matches(m)?;
        let place = |id| m.indices_of(id).into_iter().flatten();
        let mut patterns: Vec<(usize, Patterns)> = Vec::new();
        let mut take = |id, values: Vec<String>, rule: fn(String) -> Rule| {
            patterns.extend(place(id).zip(values.into_iter().map(|p| Patterns::One(rule(p)))));
        };
        take("exclude", given.exclude, Rule::Exclude);
        take("include", given.include, Rule::Include);
        take("accept", given.accept, Rule::Accept);
        take("reject", given.reject, Rule::Reject);
        patterns.extend(place("exclude_from").zip(given.exclude_from.into_iter().map(Patterns::File)));
        patterns.sort_by_key(|p| p.0);
        Ok(Entries {
            patterns: patterns.into_iter().map(|p| p.1).collect(),
            min_age: given.min_age,
            max_age: given.max_age,
        })
    }
    fn update_from_arg_matches(&mut self, m: &ArgMatches) -> Result<(), clap::Error> {
        *self = Entries::from_arg_matches(m)?;
        Ok(())
    }
}

impl clap::Args for Entries {
    fn augment_args(c: Command) -> Command {
        Given::augment_args(c)
    }
    fn augment_args_for_update(c: Command) -> Command {
        Given::augment_args_for_update(c)
    }
}
