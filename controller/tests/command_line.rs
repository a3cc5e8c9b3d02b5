//! The program as a script sees it: exit codes, streams, and streams that are closed.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn treeferry(line: &str) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_treeferry"));
    c.args(line.split_whitespace()).env_remove("TREEFERRY_CONFIG").env_remove("TREEFERRY_LOG");
    c.env("TREEFERRY_LOG_DIR", "");
    c
}
fn run(line: &str) -> Output {
    treeferry(line).output().unwrap()
}
fn code(o: &Output) -> i32 {
    o.status.code().unwrap()
}
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory of a test's own with `src` in it, gone at the end.
struct Scratch(PathBuf);
impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("treeferry-cli-{}-{name}", std::process::id()));
        fs::create_dir_all(dir.join("src/d")).unwrap();
        fs::write(dir.join("src/d/f"), "content").unwrap();
        Scratch(dir)
    }
    fn roots(&self) -> String {
        format!("{0}/src {0}/dst", self.0.display())
    }
}
impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_wrong_command_line_is_exit_code_1_and_says_why_on_standard_error() {
    for wrong in [
        "",
        "frobnicate",
        "sync",
        "sync a",
        "sync a b c",
        "sync --pool 0 a b",
        "sync --max-delete 3 a b",
        "sync --exclude-from /nonexistent a b",
        "sync --config /nonexistent a b",
        "verify a",
        "verify --delete a b",
        "completions tcl",
        "man --dir /proc/nowhere",
    ] {
        let o = run(wrong);
        assert_eq!((code(&o), text(&o.stdout).as_str()), (1, ""), "{wrong}");
        assert!(!o.stderr.is_empty(), "{wrong}");
    }
    let o = treeferry("sync a b").env("TREEFERRY_LOG", "treeferry=loud").output().unwrap();
    assert!(code(&o) == 1 && text(&o.stderr).contains("TREEFERRY_LOG"), "{}", text(&o.stderr));
}

#[test]
fn a_question_is_answered_on_standard_output_with_exit_code_0() {
    for question in
        ["--help", "-h", "--version", "sync -h", "sync --help", "help verify", "completions zsh", "man"]
    {
        let o = run(question);
        assert_eq!((code(&o), text(&o.stderr).as_str()), (0, ""), "{question}");
        assert!(!o.stdout.is_empty(), "{question}");
    }
    assert!(text(&run("--version").stdout).starts_with("treeferry 0."));
}

#[test]
fn closed_or_full_standard_output_is_no_panic() {
    let s = Scratch::new("closed");
    for line in [
        "--help".to_owned(),
        "man".to_owned(),
        "completions bash".to_owned(),
        format!("sync -i {}", s.roots()),
        format!("sync --json {}", s.roots()),
        format!("verify {}", s.roots()),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        for out in [Stdio::from(writer), Stdio::from(File::options().write(true).open("/dev/full").unwrap())]
        {
            let o = treeferry(&line).stdout(out).output().unwrap();
            assert!([0, 1].contains(&code(&o)), "{line}: {}", text(&o.stderr));
            assert!(!text(&o.stderr).contains("panic"), "{line}: {}", text(&o.stderr));
        }
    }
}

#[test]
fn closed_standard_error_is_no_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let o = treeferry("sync --progress always /nonexistent/a /nonexistent/b")
        .stderr(Stdio::from(writer))
        .output();
    assert_eq!(code(&o.unwrap()), 3);
}

#[test]
fn json_is_one_object_alone_on_standard_output() {
    let s = Scratch::new("json");
    let o = run(&format!("sync --json -i {}", s.roots()));
    let v: serde_json::Value = serde_json::from_slice(&o.stdout).unwrap();
    assert_eq!(
        (code(&o), &v["exit_code"], &v["state"]),
        (0, &0.into(), &"done".into()),
        "{}",
        text(&o.stderr)
    );
    assert!(v["counters"]["files"].is_u64() && v["failures"].is_array());
    let o = run(&format!("verify --json {}", s.roots()));
    let v: serde_json::Value = serde_json::from_slice(&o.stdout).unwrap();
    assert_eq!((code(&o), &v["differences"]), (0, &0.into()));
}

#[test]
fn text_is_a_summary_unless_it_is_not_wanted() {
    let s = Scratch::new("text");
    let o = run(&format!("sync {}", s.roots()));
    assert!(text(&o.stdout).contains("done"), "{}", text(&o.stdout));
    assert_eq!(text(&o.stderr), "", "a pipe gets neither progress nor log");
    assert_eq!(text(&run(&format!("sync -q {}", s.roots())).stdout), "");
}

#[test]
fn unusable_roots_are_exit_code_3_with_a_reason_in_both_voices() {
    let s = Scratch::new("unusable");
    for line in [
        format!("sync --json /nonexistent/src {}/dst", s.0.display()),
        format!("verify --json {}", s.roots()),
    ] {
        let o = run(&line);
        let v: serde_json::Value = serde_json::from_slice(&o.stdout).unwrap();
        assert_eq!((code(&o), &v["exit_code"], &v["state"]), (3, &3.into(), &"aborted".into()), "{line}");
        assert!(v["error"].as_str().unwrap().contains("No such file"), "{v}");
        assert!(text(&o.stderr).starts_with("treeferry: "), "{}", text(&o.stderr));
    }
}

#[test]
fn man_writes_a_page_for_each_command() {
    let s = Scratch::new("man");
    let dir = s.0.join("share/man");
    assert_eq!(code(&run(&format!("man --dir {}", dir.display()))), 0);
    for page in ["treeferry.1", "treeferry-sync.1", "treeferry-verify.1", "treeferry-man.1"] {
        assert!(head(&dir.join(page)).contains(".TH treeferry"), "{page}");
    }
}

fn head(p: &Path) -> String {
    let mut text = String::new();
    File::open(p).unwrap().take(1000).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_signal_stops_the_job_in_good_order() {
    let s = Scratch::new("signal");
    for i in 0..500 {
        fs::write(s.0.join(format!("src/d/{i}")), "x").unwrap();
    }
    for signal in ["INT", "TERM", "HUP"] {
        let line = format!("sync --json --iops 20 {}", s.roots());
        let mut command = treeferry(&line);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert!(
            Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success()
        );
        let o = child.wait_with_output().unwrap();
        let v: serde_json::Value = serde_json::from_slice(&o.stdout).unwrap();
        assert_eq!(
            (code(&o), &v["state"], &v["exit_code"]),
            (20, &"interrupted".into(), &20.into()),
            "{signal}"
        );
        assert!(text(&o.stderr).contains("stopping"), "{signal}: {}", text(&o.stderr));
    }
}
