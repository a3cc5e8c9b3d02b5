//! Each option of `sync` and what it makes of the job.

use super::Args;
use crate::args::UsageError;
use crate::cli::Cli;
use clap::{CommandFactory, FromArgMatches};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;
use treeferry_core::JobSpec;
use treeferry_core::config::Config;
use treeferry_core::filter::Rule;
use treeferry_core::spec::Keep::{No, Strictly, WhereAllowed};
use treeferry_worker::PoolSize;

fn args_of(options: &[&str]) -> Result<Args, clap::Error> {
    let words = ["treeferry", "sync"].iter().chain(options).chain(&["/a", "/b"]);
    let matches = Cli::command().try_get_matches_from(words)?;
    Args::from_arg_matches(matches.subcommand().unwrap().1)
}
fn args(options: &str) -> Args {
    args_of(&options.split_whitespace().collect::<Vec<_>>()).unwrap()
}
fn spec(options: &str) -> JobSpec {
    args(options).spec(&Config::default()).unwrap()
}
fn refused(options: &str) -> UsageError {
    args(options).spec(&Config::default()).unwrap_err()
}

/// A file of this test's own, gone at the end.
struct Scratch(PathBuf);
impl Scratch {
    fn new(name: &str, content: &[u8]) -> Scratch {
        let path = std::env::temp_dir().join(format!("treeferry-test-{}-{name}", std::process::id()));
        fs::write(&path, content).unwrap();
        Scratch(path)
    }
    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}
impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn without_options_it_is_the_default_job() {
    assert_eq!(spec(""), JobSpec::new("/a", "/b"));
}

#[test]
fn each_option_changes_the_job_and_nothing_else() {
    type Change = fn(&mut JobSpec);
    let cases: &[(&str, Change)] = &[
        ("--pass copy", |s| s.passes = "copy".parse().unwrap()),
        ("--pass dirtime,delete", |s| s.passes = "delete,dirtime".parse().unwrap()),
        ("--delete", |s| s.passes.delete = true),
        ("--delete --pass copy", |s| s.passes = "copy,delete".parse().unwrap()),
        ("-t", |s| (s.times, s.perms, s.owner, s.group) = (Strictly, No, No, No)),
        ("--perms", |s| (s.times, s.perms, s.owner, s.group) = (No, Strictly, No, No)),
        ("-og", |s| (s.times, s.perms, s.owner, s.group) = (No, No, Strictly, Strictly)),
        ("--times --perms --owner --group", |s| {
            (s.times, s.perms, s.owner, s.group) = (Strictly, Strictly, Strictly, Strictly);
        }),
        ("--no-acls", |s| s.acls = false),
        ("--no-xattrs", |s| s.xattrs = false),
        ("--no-hardlinks", |s| s.hardlinks = false),
        ("--no-sparse", |s| s.sparse = false),
        ("--no-specials", |s| s.specials = false),
        ("-m 90", |s| s.min_age = Some(Duration::from_secs(90))),
        ("--min-age 2h", |s| s.min_age = Some(Duration::from_secs(7200))),
        ("--max-age 1d", |s| s.max_age = Some(Duration::from_secs(86_400))),
        ("--exclude *.o", |s| s.rules = vec![Rule::Exclude("*.o".into())]),
        ("--include *.c", |s| s.rules = vec![Rule::Include("*.c".into())]),
        ("-c", |s| s.checksum = true),
        ("--checksum", |s| s.checksum = true),
        ("--verify", |s| s.verify = true),
        ("-n", |s| s.dry_run = true),
        ("--dry-run", |s| s.dry_run = true),
        ("-i", |s| s.itemize = true),
        ("--itemize", |s| s.itemize = true),
        ("--force", |s| s.force = true),
        ("--delete --max-delete 0", |s| (s.passes.delete, s.max_delete) = (true, Some(0))),
        ("--delete --trash /t", |s| (s.passes.delete, s.trash) = (true, Some("/t".into()))),
        ("--delete --delete-excluded", |s| (s.passes.delete, s.delete_excluded) = (true, true)),
        ("--chunk-size 64K", |s| s.chunk_bytes = 64 << 10),
        ("--bwlimit 10M", |s| s.bwlimit = Some(10 << 20)),
        ("--bwlimit 0", |_| ()),
        ("--iops 1", |s| s.iops = Some(1)),
        // of how it runs, not of what it is
        ("--pool 3 --json -q --progress never", |_| ()),
        ("-vv --progress always", |_| ()),
    ];
    for (options, change) in cases {
        let mut want = JobSpec::new("/a", "/b");
        assert_eq!((want.times, want.owner), (WhereAllowed, WhereAllowed));
        change(&mut want);
        assert_eq!(spec(options), want, "{options}");
    }
}

#[test]
fn the_last_of_two_wins_so_that_scripts_can_have_defaults() {
    assert_eq!(spec("--chunk-size 1M --chunk-size 2M -n -n").chunk_bytes, 2 << 20);
    assert_eq!(spec("--pass copy --pass delete").passes.names(), ["delete"]);
    assert_eq!(args("-v -v").output.verbose, 2);
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for wrong in [
        "--pass move",
        "--pass ",
        "--min-age soon",
        "--max-age 1y",
        "--chunk-size 63K",
        "--chunk-size x",
        "--pool 0",
        "--pool -1",
        "--iops 0",
        "--bwlimit fast",
        "--max-delete -1",
        "--progress often",
        "-q -v",
        "--frobnicate",
    ] {
        let words: Vec<&str> = wrong.split(' ').collect();
        assert!(args_of(&words).is_err(), "{wrong}");
    }
}

#[test]
fn how_to_delete_needs_something_to_delete() {
    for option in ["--max-delete 1", "--trash /t", "--delete-excluded"] {
        let e = refused(option).to_string();
        assert!(e.starts_with(option.split(' ').next().unwrap()) && e.contains("--delete"), "{e}");
        assert!(spec(&format!("--pass delete {option}")).passes.delete);
    }
}

#[test]
fn patterns_keep_their_order_over_all_options() {
    let file = Scratch::new("order", b"# comment\n*.b\n\n!keep.b\n");
    let s = spec(&format!("--exclude 1 --include 2 --exclude-from {} --exclude 3 --include 4", file.path()));
    let exclude = |p: &str| Rule::Exclude(p.into());
    let include = |p: &str| Rule::Include(p.into());
    assert_eq!(
        s.rules,
        [exclude("1"), include("2"), exclude("*.b"), exclude("!keep.b"), exclude("3"), include("4")]
    );
}

#[test]
fn a_file_of_patterns_that_cannot_be_read_is_named() {
    let e = refused("--exclude-from /nonexistent/x").to_string();
    assert!(e.starts_with("--exclude-from /nonexistent/x: No such file"), "{e}");
    let file = Scratch::new("latin1", b"caf\xe9\n");
    let e = refused(&format!("--exclude-from {}", file.path())).to_string();
    assert!(e.contains("not UTF-8"), "{e}");
}

#[test]
fn paths_are_bytes() {
    let words = ["treeferry", "sync", "--"].map(OsString::from).into_iter();
    let words =
        words.chain([OsStr::from_bytes(b"\xff\n").to_owned(), OsStr::from_bytes(b"-b\xfe").to_owned()]);
    let matches = Cli::command().try_get_matches_from(words).unwrap();
    let args = Args::from_arg_matches(matches.subcommand().unwrap().1).unwrap();
    let s = args.spec(&Config::default()).unwrap();
    assert_eq!(s.src.as_os_str().as_bytes(), b"\xff\n");
    assert_eq!(s.dst.as_os_str().as_bytes(), b"-b\xfe");
}

#[test]
fn the_configuration_gives_defaults_and_the_command_line_wins() {
    let text =
        "[sync]\npool = 7\nchunk-size = \"1G\"\nbwlimit = \"5M\"\niops = 9\nexclude = [\"/lost+found\"]\n";
    let file = Scratch::new("config", text.as_bytes());
    let request = args(&format!("--config {} --exclude x", file.path())).request().unwrap();
    assert_eq!(request.pool, PoolSize::Fixed(7));
    let s = request.spec;
    assert_eq!((s.chunk_bytes, s.bwlimit, s.iops), (1 << 30, Some(5 << 20), Some(9)));
    assert_eq!(s.rules, [Rule::Exclude("/lost+found".into()), Rule::Exclude("x".into())]);
    let over = format!("--config {} --pool 2 --chunk-size 1M --bwlimit 0 --iops 3", file.path());
    let request = args(&over).request().unwrap();
    assert_eq!(request.pool, PoolSize::Fixed(2));
    assert_eq!((request.spec.chunk_bytes, request.spec.bwlimit, request.spec.iops), (1 << 20, None, Some(3)));
    assert_eq!(args_of(&["--config", ""]).unwrap().request().unwrap().pool, PoolSize::Auto);
}

#[test]
fn the_configuration_is_held_to_the_rules_of_the_command_line() {
    for (line, key) in
        [("pool = 0", "pool"), ("iops = 0", "iops"), ("chunk-size = 1", "chunk-size"), ("x = 1", "x")]
    {
        let file = Scratch::new(key, format!("[sync]\n{line}\n").as_bytes());
        let e = args(&format!("--config {}", file.path())).request().err().unwrap().to_string();
        assert!(e.contains("configuration") && e.contains(key), "{e}");
    }
    assert!(args("--config /nonexistent/x").request().is_err());
}
