//! Help, manual pages and completions: there is one of each, and they know every option.

use std::io::Write;
use std::process::{Command, Stdio};
use treeferry_tests::{Run, command};

/// Every option of `sync` that scripts may rely on.
const OF_SYNC: &[&str] = &[
    "--pass",
    "--delete",
    "-t, --times",
    "-p, --perms",
    "-o, --owner",
    "-g, --group",
    "--no-acls",
    "--no-xattrs",
    "--no-hardlinks",
    "--no-sparse",
    "--no-specials",
    "-m, --min-age",
    "--max-age",
    "--exclude",
    "--include",
    "--exclude-from",
    "--accept",
    "--reject",
    "--delete-excluded",
    "-c, --checksum",
    "--verify",
    "-n, --dry-run",
    "-i, --itemize",
    "--max-delete",
    "--trash",
    "--chunk-size",
    "--pool",
    "--bwlimit",
    "--iops",
    "--config",
    "--json",
    "-q, --quiet",
    "-v, --verbose",
    "--progress",
    "--force",
    "--log-level",
    "--log-dir",
];

/// What each option is called alone.
fn long(option: &str) -> &str {
    option.rsplit(' ').next().unwrap_or(option)
}

fn said(words: &[&str]) -> String {
    let r = Run::of(&mut command(words)).expect(0);
    assert_eq!(r.stderr, "", "{r}");
    r.stdout
}

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let help = said(&["--help"]);
    let list = help.split("Commands:\n").nth(1).expect("a list of commands");
    let lines = list.lines().take_while(|l| l.starts_with("  "));
    lines.filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_short_and_a_long_help() {
    let all = commands();
    for name in ["sync", "verify", "completions", "man"] {
        assert!(all.iter().any(|c| c == name), "{name} is not listed: {all:?}");
    }
    for c in all.iter().filter(|c| *c != "help") {
        let (short, long) = (said(&[c, "-h"]), said(&[c, "--help"]));
        assert!(short.contains("Usage:") && long.contains("Usage:"), "{c}");
        assert!(long.len() >= short.len(), "{c}");
        assert_eq!(said(&["help", c]), long, "{c}");
    }
}

#[test]
fn the_help_of_sync_names_every_option_and_explains_it() {
    let help = said(&["sync", "--help"]);
    let lines: Vec<&str> = help.lines().map(str::trim).collect();
    for option in OF_SYNC {
        let at = lines.iter().position(|l| l.strip_prefix(option).is_some_and(|r| !r.starts_with('-')));
        let at = at.unwrap_or_else(|| panic!("{option} is not in the help"));
        assert!(lines[at + 1].len() > 10, "{option} is not explained");
    }
}

#[test]
fn the_help_of_sync_lists_the_exit_codes() {
    let help = said(&["sync", "--help"]);
    let codes = help.split("Exit codes:\n").nth(1).expect("a list of exit codes");
    for code in [0, 1, 3, 20, 23, 24, 25, 69] {
        let listed = |l: &str| l.split_whitespace().next() == Some(&code.to_string());
        assert!(codes.lines().any(listed), "{code}");
    }
}

#[test]
fn the_help_of_verify_names_what_it_takes() {
    let help = said(&["verify", "--help"]);
    for option in ["-c, --checksum", "--exclude", "--json", "--no-acls", "--min-age", "-t, --times", "--pool"]
    {
        assert!(help.contains(option), "{option}");
    }
}

#[test]
fn help_fits_a_line_and_ends_none_in_blanks() {
    for c in commands().iter().filter(|c| *c != "help") {
        for line in said(&[c, "--help"]).lines() {
            assert!(line.chars().count() <= 110, "{c}: {line}");
        }
    }
}

#[test]
fn the_manual_is_a_page_that_man_can_show() {
    let page = said(&["man"]);
    assert!(page.contains(".TH") && page.contains("treeferry"), "{page}");
    let all = page.replace("\\-", "-");
    for option in OF_SYNC {
        assert!(all.contains(long(option)), "{option} is not in the manual");
    }
}

/// Whether a shell takes this for a script of its own; `None` if the shell is not installed.
fn parses(shell: &str, script: &str) -> Option<bool> {
    let mut c = Command::new(shell);
    c.arg("-n").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = c.spawn().ok()?;
    child.stdin.take()?.write_all(script.as_bytes()).ok()?;
    child.wait().ok().map(|s| s.success())
}

#[test]
fn completions_are_scripts_that_their_shells_take() {
    for shell in ["bash", "zsh", "fish"] {
        let script = said(&["completions", shell]);
        for option in OF_SYNC {
            assert!(script.contains(long(option).trim_start_matches('-')), "{shell}: {option}");
        }
        let taken = parses(shell, &script);
        assert!(taken == Some(true) || (shell != "bash" && taken.is_none()), "{shell} -n");
    }
}

#[test]
fn bash_completes_with_it() {
    let script = said(&["completions", "bash"]);
    let ask = "COMP_WORDS=(treeferry sync --dry); COMP_CWORD=2; _treeferry treeferry --dry sync; echo \"${COMPREPLY[@]}\"";
    let out = Command::new("bash").args(["-c", &format!("{script}\n{ask}")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "--dry-run", "{out:?}");
}

#[test]
fn a_shell_that_nobody_knows_is_refused() {
    let r = Run::of(&mut command(["completions", "csh-of-1978"])).expect(1);
    assert!(r.stderr.contains("bash"), "{r}");
}

#[test]
fn a_word_that_is_nearly_right_is_answered_with_the_right_one() {
    let r = Run::of(&mut command(["sync", "--checksun", "/a", "/b"])).expect(1);
    assert!(r.stderr.contains("--checksum"), "{r}");
}

#[test]
fn a_pipe_that_closes_early_is_no_panic() {
    let line = format!("{} sync --help | head -1", treeferry_tests::bin().display());
    let out = Command::new("bash").args(["-o", "pipefail", "-c", &line]).output().unwrap();
    assert!(!String::from_utf8_lossy(&out.stderr).contains("panic"), "{out:?}");
}

#[test]
fn the_version_is_told() {
    let version = said(&["--version"]);
    assert!(version.starts_with("treeferry ") && version.trim().split('.').count() == 3, "{version}");
}
