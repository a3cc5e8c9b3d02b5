//! Which entries a job is about: `--exclude`, `--include`, `--exclude-from`, `--accept`, `--reject`.
//!
//! Patterns are gitignore's (gitignore(5)), matched against the path below SRC; a leading `/` anchors a
//! pattern there. An `--include` wins over every `--exclude`, wherever it stands on the command line; within
//! an `--exclude-from` file a line `!PATTERN` takes back what earlier lines excluded, as in git. What lies
//! below an excluded directory is excluded with it: it is not walked at all.
//!
//! `--accept` and `--reject` are Sarracenia's: regular expressions for the path below SRC with a `/` before it, of which the
//! first that matches decides. What none matches is rejected if the last of them is an `--accept`, else accepted. They
//! are for what is no directory: these are always taken in.

use crate::path::RelPath;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// One pattern as it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// `--exclude PATTERN`, or a line of an `--exclude-from` file.
    Exclude(String),
    /// `--include PATTERN`.
    Include(String),
    /// `--accept REGEX`.
    Accept(String),
    /// `--reject REGEX`.
    Reject(String),
}

/// Says which pattern is not one.
#[derive(Debug, thiserror::Error)]
#[error("pattern '{pattern}': {why}")]
pub struct BadPattern {
    pattern: String,
    why: String,
}

/// The compiled rules of a job.
#[derive(Clone, Debug)]
pub struct Filter {
    exclude: Gitignore,
    include: Gitignore,
    /// Whether what matches is accepted, in their order.
    regexes: Vec<(bool, Regex)>,
    /// Paths that are never touched, whatever the rules: trash and roots that lie in each other.
    always: Vec<RelPath>,
    /// What the rules say of a path with more components than this depends on the last of them only.
    depth: usize,
}

impl Filter {
    /// Compiles rules.
    pub fn new(rules: &[Rule]) -> Result<Filter, BadPattern> {
        let mut exclude = GitignoreBuilder::new("");
        let mut include = GitignoreBuilder::new("");
        let mut regexes = Vec::new();
        let mut depth = 0;
        for r in rules {
            let (to, pattern) = match r {
                Rule::Exclude(p) => (&mut exclude, p),
                Rule::Include(p) => (&mut include, p),
                Rule::Accept(p) | Rule::Reject(p) => {
                    let why = |e: regex::Error| BadPattern { pattern: p.clone(), why: e.to_string() };
                    regexes.push((matches!(r, Rule::Accept(_)), Regex::new(p).map_err(why)?));
                    depth = usize::MAX;
                    continue;
                }
            };
            to.add_line(None, pattern).map_err(|e| bad(pattern, e))?;
            depth = depth.max(depth_of(pattern));
        }
        Ok(Filter {
            exclude: exclude.build().map_err(|e| bad("", e))?,
            include: include.build().map_err(|e| bad("", e))?,
            regexes,
            always: Vec::new(),
            depth,
        })
    }

    /// Adds a path that is left alone with all that is below it, in source and target, come what may.
    pub fn protect(&mut self, path: RelPath) {
        self.depth = self.depth.max(components(path.as_bytes()));
        self.always.push(path);
    }

    /// Whether there is any rule at all: if not, asking for each entry can be spared.
    pub fn is_empty(&self) -> bool {
        self.exclude.is_empty() && self.always.is_empty() && self.regexes.is_empty()
    }

    /// Whether an entry of a directory that is itself not excluded is excluded.
    pub fn excludes(&self, dir: &RelPath, name: &CStr, is_dir: bool) -> bool {
        if self.is_empty() {
            return false;
        }
        let path = dir.child(name);
        self.protects(&path) || self.rules_exclude(&path, is_dir)
    }

    /// Whether the path is one of those given to [`Filter::protect`].
    pub fn protects(&self, path: &RelPath) -> bool {
        self.always.contains(path)
    }

    /// Whether a path is excluded by itself or by any directory above it.
    pub fn excludes_deep(&self, path: &RelPath, is_dir: bool) -> bool {
        let b = path.as_bytes();
        let mut ends: Vec<usize> = (0..b.len()).filter(|i| b[*i] == b'/').collect();
        ends.push(b.len());
        ends.iter().any(|&e| {
            let p = RelPath::new(&b[..e]).unwrap_or_default();
            !p.is_root() && (self.protects(&p) || self.rules_exclude(&p, e < b.len() || is_dir))
        })
    }

    /// Whether what is below one directory may be excluded, and would not be below another. `false`: certainly not, neither
    /// of them being excluded itself.
    pub fn may_part(&self, one: &RelPath, other: &RelPath) -> bool {
        self.depth > components(one.as_bytes()).min(components(other.as_bytes()))
    }

    fn rules_exclude(&self, path: &RelPath, is_dir: bool) -> bool {
        let p = Path::new(OsStr::from_bytes(path.as_bytes()));
        (self.exclude.matched(p, is_dir).is_ignore() && !self.include.matched(p, is_dir).is_ignore())
            || (!is_dir && self.rejects(path))
    }

    fn rejects(&self, path: &RelPath) -> bool {
        let Some((last_accepts, _)) = self.regexes.last() else { return false };
        let whole = [b"/", path.as_bytes()].concat();
        let first = self.regexes.iter().find(|(_, r)| r.is_match(&whole));
        !first.map_or(!last_accepts, |(accepts, _)| *accepts)
    }
}

/// Reads an `--exclude-from` file: a pattern a line, `#` begins a comment, `!` takes back.
pub fn rules_of_file(text: &str) -> Vec<Rule> {
    text.lines()
        .filter(|l| !l.trim().is_empty() && !l.starts_with('#'))
        .map(|l| Rule::Exclude(l.strip_suffix('\r').unwrap_or(l).to_owned()))
        .collect()
}

/// What a pattern says of a path with more components than this depends on the last of them only.
fn depth_of(pattern: &str) -> usize {
    // these may stand for a slash
    if pattern.contains(['[', '{']) {
        return usize::MAX;
    }
    let p = pattern.strip_prefix('!').unwrap_or(pattern).trim_end();
    let p = p.strip_suffix('/').unwrap_or(p);
    match (p.contains('/'), p.contains("**")) {
        (false, _) => 0,
        (true, true) => usize::MAX,
        (true, false) => components(p.strip_prefix('/').unwrap_or(p).as_bytes()),
    }
}

fn components(path: &[u8]) -> usize {
    if path.is_empty() { 0 } else { path.split(|b| *b == b'/').count() }
}

fn bad(pattern: &str, e: ignore::Error) -> BadPattern {
    BadPattern { pattern: pattern.to_owned(), why: e.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn filter(rules: &[&str]) -> Filter {
        let rules: Vec<Rule> = rules
            .iter()
            .map(|r| match r.strip_prefix('+') {
                Some(p) => Rule::Include(p.to_owned()),
                None => Rule::Exclude((*r).to_owned()),
            })
            .collect();
        Filter::new(&rules).unwrap()
    }
    fn hits(f: &Filter, path: &str, is_dir: bool) -> bool {
        let (dir, name) = RelPath::new(path).unwrap().split().unwrap();
        f.excludes(&dir, &name, is_dir)
    }

    #[test]
    fn patterns_are_those_of_gitignore() {
        let f = filter(&["*.o", "/build", "cache/", "a/**/z"]);
        assert!(hits(&f, "x.o", false) && hits(&f, "d/e/x.o", false));
        assert!(hits(&f, "build", true) && !hits(&f, "d/build", true));
        assert!(hits(&f, "d/cache", true) && !hits(&f, "d/cache", false));
        assert!(hits(&f, "a/b/c/z", false) && !hits(&f, "b/z", false));
        assert!(!hits(&f, "x.c", false));
    }

    #[test]
    fn an_include_wins_wherever_it_stands() {
        for rules in [["*.log", "+keep.log"], ["+keep.log", "*.log"]] {
            let f = filter(&rules);
            assert!(hits(&f, "a.log", false) && !hits(&f, "d/keep.log", false));
        }
        let f = filter(&["/a/*", "!/a/b"]);
        assert!(hits(&f, "a/c", false) && !hits(&f, "a/b", false));
    }

    #[test]
    fn names_of_any_bytes_can_be_matched() {
        let f = filter(&["*.tmp"]);
        let n = CString::new(&b"\xff\xfe\n.tmp"[..]).unwrap();
        assert!(f.excludes(&RelPath::root(), &n, false));
        assert!(filter(&[]).is_empty() && !filter(&[]).excludes(&RelPath::root(), &n, false));
    }

    #[test]
    fn protected_paths_are_excluded_whatever_the_rules() {
        let mut f = filter(&["+*"]);
        f.protect(RelPath::new("d/trash").unwrap());
        assert!(hits(&f, "d/trash", true) && !hits(&f, "trash", true));
        assert!(f.excludes_deep(&RelPath::new("d/trash/x/y").unwrap(), false));
    }

    #[test]
    fn the_first_regular_expression_that_matches_decides_and_the_last_for_the_rest() {
        let f = |rules: &[&str]| {
            let rule = |r: &&str| match r.strip_prefix('+') {
                Some(p) => Rule::Accept(p.to_owned()),
                None => Rule::Reject((*r).to_owned()),
            };
            Filter::new(&rules.iter().map(rule).collect::<Vec<_>>()).unwrap()
        };
        let only = f(&["+\\.grib$"]);
        assert!(!hits(&only, "a/x.grib", false) && hits(&only, "a/x.tmp", false) && !only.is_empty());
        let but = f(&["/tmp/", "^/top$"]);
        assert!(hits(&but, "a/tmp/x", false) && hits(&but, "top", false));
        assert!(!hits(&but, "a/top", false) && !hits(&but, "tmp", false));
        let mixed = f(&["+keep", "\\.log$"]);
        assert!(
            !hits(&mixed, "keep.log", false) && hits(&mixed, "x.log", false) && !hits(&mixed, "x", false)
        );
        let strict = f(&["\\.log$", "+keep"]);
        assert!(
            hits(&strict, "keep.log", false) && !hits(&strict, "keep", false) && hits(&strict, "x", false)
        );
        // directories are taken in, and what is below one is asked by itself
        assert!(!hits(&f(&["."]), "d", true));
        assert!(f(&["."]).excludes_deep(&RelPath::new("d/f").unwrap(), false));
        let bytes = f(&["(?-u)\\xff"]);
        let n = CString::new(&b"\xff"[..]).unwrap();
        assert!(bytes.excludes(&RelPath::root(), &n, false));
        let e = Filter::new(&[Rule::Accept("(".into())]).unwrap_err();
        assert!(e.to_string().contains("'('"), "{e}");
    }

    #[test]
    fn only_what_asks_for_directories_parts_what_is_below_them() {
        let parts = |rules: &[&str], one: &str, other: &str| {
            filter(rules).may_part(&RelPath::new(one).unwrap(), &RelPath::new(other).unwrap())
        };
        assert!(!parts(&[], "a", "b"));
        assert!(!parts(&["*.log", "cache/", "!keep", "+*.txt", "**"], "a", "b"));
        // it is for names in SRC itself, or in its directories, and not further below
        assert!(!parts(&["/scratch", "/tmp/"], "a", "b/c"));
        assert!(parts(&["/a/*.log"], "a", "c/d/e") && !parts(&["/a/*.log", "a/x/"], "a/b", "b/c"));
        assert!(parts(&["!/a/*/x"], "a/b", "c/d") && parts(&["+a/*/x"], "a/b", "c/d"));
        for deep in ["a/**", "**/a/x", "/a/**/x", "{a/b/c/d,e}", "x[!a]y"] {
            assert!(parts(&[deep], "a/b/c/d/e", "b/c/d/e/f"), "{deep}");
        }
        let regex = Filter::new(&[Rule::Reject("x".into())]).unwrap();
        assert!(regex.may_part(&RelPath::new("a/b").unwrap(), &RelPath::new("c").unwrap()));
        let mut f = filter(&["*.o"]);
        f.protect(RelPath::new("d/trash").unwrap());
        assert!(f.may_part(&RelPath::new("d").unwrap(), &RelPath::new("e").unwrap()));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let e = Filter::new(&[Rule::Exclude("[z-a]".into())]).unwrap_err();
        assert!(e.to_string().contains("[z-a]"), "{e}");
    }

    #[test]
    fn files_of_patterns_may_have_comments() {
        assert_eq!(rules_of_file("# c\n\n*.o\r\n!keep.o\n").len(), 2);
    }
}
