//! `treeferry watch --audit`: what is wrong on the target though the mirror was complete is found, named and repaired;
//! and what the mirror is about to bring is not.

mod checks;

use checks::churn::{Churn, now_us, while_churning};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use treeferry_tests::{Live, PATIENCE, Run, Scratch, command};

/// As fast as it is allowed.
const FAST: &str = "--detect inotify --audit 100/s";

/// A mirror that is kept and audited.
struct Mirror<'a> {
    s: &'a Scratch,
    live: Live,
}

impl<'a> Mirror<'a> {
    fn start(s: &'a Scratch, options: &str) -> Mirror<'a> {
        fs::create_dir_all(s.at("run")).unwrap();
        let mut c = command(["watch", "--json"]);
        c.env("TREEFERRY_RUNTIME_DIR", s.at("run")).args(s.words(options));
        Mirror { s, live: Live::of(&mut c) }
    }

    fn ask(&self, words: &[&str]) -> Run {
        Run::of(command(["status"]).args(words).env("TREEFERRY_RUNTIME_DIR", self.s.at("run")))
    }

    fn status(&self) -> Value {
        self.ask(&["--json"]).json["jobs"][0]["mirror"].clone()
    }

    fn complete_up_to(&self) -> u64 {
        self.status()["complete_up_to_us"].as_u64().unwrap_or(0)
    }

    fn audit(&self, key: &str) -> u64 {
        self.status()["audit"][key].as_u64().unwrap_or(0)
    }

    /// Waits for something, and says how the mirror stands if that does not come.
    #[track_caller]
    fn until(&self, what: &str, is: impl Fn() -> bool) {
        let began = Instant::now();
        while !is() {
            assert!(began.elapsed() < PATIENCE, "waited in vain until {what}: {:#?}", self.status());
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn catch_up(&self) {
        let now = now_us();
        self.until("the mirror has caught up", || self.complete_up_to() > now);
    }

    /// Waits until so many more were compared.
    #[track_caller]
    fn until_compared(&self, more: u64) {
        let before = self.audit("compared");
        self.until("more is compared", || self.audit("compared") >= before + more);
    }

    #[track_caller]
    fn stop(self) -> Run {
        self.live.signal(Signal::TERM);
        self.live.finish()
    }
}

fn said(r: &Run) -> usize {
    r.stderr.lines().filter(|l| l.contains("audit: ")).count()
}

/// A file is given other content of the same size, later or (so that only its content tells) at the same time.
fn spoil(file: &Path, same_time: bool) {
    let then = fs::metadata(file).unwrap().modified().unwrap();
    let text = vec![b'?'; fs::read(file).unwrap().len()];
    fs::write(file, text).unwrap();
    let time = if same_time { then } else { SystemTime::now() };
    fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
}

#[test]
fn what_a_list_has_missed_is_found() {
    let s = Scratch::disk();
    s.src().file("d/f", "f").file("g", "g");
    let (input, list) = std::io::pipe().unwrap();
    fs::create_dir_all(s.at("run")).unwrap();
    let mut c = command(["watch", "--json"]);
    c.env("TREEFERRY_RUNTIME_DIR", s.at("run")).stdin(input);
    c.args(s.words("--detect list --audit 100/s --audit-settle 100ms"));
    let m = Mirror { s: &s, live: Live::of(&mut c) };
    m.until_compared(20);
    assert_eq!(m.audit("differing"), 0);
    s.src().file("g", "not listed");
    m.until("it is found and repaired", || m.audit("repaired") == 1);
    assert_eq!(s.dst().read("g"), "not listed");
    drop(list);
    let r = m.live.finish().expect(0);
    assert!(r.stderr.contains("audit: all was done that was listed"), "{r}");
}

#[test]
fn what_was_changed_behind_the_mirrors_back_is_found_named_and_repaired() {
    let s = Scratch::disk();
    for i in 0..10 {
        s.src().file(&format!("d{}/f{i}", i % 5), "content").mode(&format!("d{}/f{i}", i % 5), 0o640);
    }
    let m = Mirror::start(&s, FAST);
    m.catch_up();
    m.until_compared(10);
    assert_eq!(m.audit("differing"), 0);
    let dst = s.dst();
    let behind: [(&str, &str, &dyn Fn()); 5] = [
        ("a mode", "d1/f1", &|| {
            s.dst().mode("d1/f1", 0o666);
        }),
        ("content", "d2/f2", &|| spoil(&s.at("dst/d2/f2"), false)),
        ("a file removed", "d3/f3", &|| fs::remove_file(s.at("dst/d3/f3")).unwrap()),
        ("one that nobody has made", "d4/alien", &|| {
            let dir = fs::File::open(s.at("dst/d4")).unwrap();
            let then = dir.metadata().unwrap().modified().unwrap();
            s.dst().file("d4/alien", "x");
            // or the directory would be found first
            dir.set_modified(then).unwrap();
        }),
        ("a directory's mode", "d0", &|| {
            s.dst().mode("d0", 0o700);
        }),
    ];
    for (n, (what, path, change)) in behind.into_iter().enumerate() {
        eprintln!("{what}");
        change();
        let named = || {
            let all = m.status()["audit"]["differing_paths"].as_array().cloned().unwrap_or_default();
            all.into_iter().find(|d| d["path"] == path)
        };
        m.until("it is named", || named().is_some());
        m.until("it is repaired", || named().is_some_and(|d| d["repaired"] == true));
        assert!(m.audit("differing") > n as u64);
        m.catch_up();
        s.assert_same();
    }
    assert!(!dst.has("d4/alien") && dst.read("d2/f2") == "content");
    let a = m.status()["audit"].clone();
    let number = |key: &str| a[key].as_f64().unwrap_or_else(|| panic!("no {key} in {a}"));
    assert!(0.0 < number("share") && number("share") < number("share_at_most"), "{a}");
    assert!(number("share_at_most") < 1.0 && number("effective_draws") <= number("window_compared"), "{a}");
    assert_eq!((number("confidence"), number("failures")), (0.95, 0.0), "{a}");
    let text = m.ask(&[]).stdout;
    let line =
        text.lines().find(|l| l.trim_start().starts_with("audit: ")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains(" differed (") && line.contains("95 % confidence"), "{line}");
    let r = m.stop().expect(0);
    for path in ["d1/f1", "d2/f2", "d3/f3", "d4/alien", "d0/"] {
        let lines = r.stderr.lines().filter(|l| l.contains("audit: ") && l.ends_with(&format!(" {path}")));
        assert_eq!(lines.count(), 1, "{path} once: {r}");
    }
    let job = r.json["job"].as_str().unwrap();
    let told = Run::of(&mut command(["logs", "--json", "--job", job, "--event", "entry.differed"])).stdout;
    let told = told.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    let told: Vec<_> = told.map(|e| (e["path"].clone(), e["severity"].clone())).collect();
    let warned = |path: &str| (Value::from(path), Value::from("warning"));
    for path in ["d1/f1", "d2/f2", "d3/f3", "d4/alien", "d0"].map(warned) {
        // and perhaps the directory of one of them, whose times differ then
        assert_eq!(told.iter().filter(|e| **e == path).count(), 1, "{path:?} once: {told:?}");
    }
    // whoever keeps it next goes on with the figures
    let m = Mirror::start(&s, "--detect inotify --audit 1/d");
    m.until("it is audited again", || !m.status()["audit"].is_null());
    assert!(m.audit("compared") >= a["compared"].as_u64().unwrap(), "{a}, then {}", m.status()["audit"]);
    assert!(m.audit("differing") >= 5 && m.audit("repaired") >= 5, "{}", m.status()["audit"]);
    assert!(m.status()["audit"]["share"].as_f64() > Some(0.0));
    m.stop().expect(0);
}

#[test]
fn content_is_compared_where_the_mirror_compares_it() {
    let s = Scratch::disk();
    s.src().file("a/f", "content");
    let m = Mirror::start(&s, &format!("{FAST} --checksum"));
    m.catch_up();
    spoil(&s.at("dst/a/f"), true);
    m.until("it is repaired", || m.audit("repaired") == 1);
    assert_eq!(s.dst().read("a/f"), "content");
    m.stop().expect(0);
}

#[test]
fn what_the_mirror_is_about_to_bring_is_not_said_to_differ() {
    for options in ["", "--min-age 300ms"] {
        let s = Scratch::disk();
        let m = Mirror::start(&s, &format!("{FAST} {options}"));
        m.catch_up();
        let churn = if options.is_empty() { Churn::Wild } else { Churn::Plain };
        while_churning(&s, churn, 7, || m.complete_up_to());
        m.catch_up();
        m.until_compared(50);
        let a = m.status()["audit"].clone();
        assert_eq!((&a["differing"], &a["differing_paths"]), (&0.into(), &Value::Array(vec![])), "{a}");
        let r = m.stop().expect(0);
        assert_eq!(said(&r), 0, "{r}");
    }
}

#[test]
fn what_is_none_of_the_mirrors_is_not_looked_at() {
    let s = Scratch::disk();
    s.src().file("f", "x").file("skip/f", "x").file("g.o", "x");
    let m = Mirror::start(&s, &format!("{FAST} --no-delete --exclude /skip --exclude *.o"));
    m.catch_up();
    s.dst().file("skip/other", "y").file("h.o", "y");
    s.dst().file("only/here", "kept, for nothing is deleted");
    m.catch_up();
    m.until_compared(50);
    // the root's entries are compared, but not the root, whose times are others now
    assert_eq!(m.audit("differing"), 0);
    assert_eq!(said(&m.stop().expect(0)), 0);
}

#[test]
fn an_audit_that_cannot_look_does_not_end_the_mirror() {
    let s = Scratch::disk();
    s.src().file("d/f", "x");
    fs::create_dir_all(s.at("run")).unwrap();
    let mut c = command(["watch", "--json"]);
    // the mirror lists this one at the beginning, and then no more
    s.src().file("e/g", "x");
    treeferry_tests::sync([s.at("src"), s.at("dst")]).expect(0);
    c.env("TREEFERRY_RUNTIME_DIR", s.at("run"))
        .env("TREEFERRY_FAULTS", "call=getdents64,errno=EIO,path=e,skip=20");
    let m = Mirror { s: &s, live: Live::of(c.args(s.words(FAST))) };
    m.until("it is said", || m.audit("failures") > 0 && m.status()["audit"]["trouble"].is_string());
    s.src().file("d/new", "new");
    m.until("the mirror goes on", || s.dst().has("d/new"));
    m.until_compared(5);
    m.live.signal(Signal::TERM);
    let r = m.live.finish();
    assert_eq!(said(&r), 1, "once: {r}");
}

#[test]
fn a_slow_audit_does_not_keep_the_mirror_from_ending() {
    let s = Scratch::disk();
    s.src().file("f", "x");
    let m = Mirror::start(&s, "--detect inotify --audit 1/d");
    m.catch_up();
    m.until("one was compared", || m.audit("compared") >= 1);
    let began = Instant::now();
    m.stop().expect(0);
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}
