//! `treeferry report`: what it says of jobs of both engines is what there is in the tree, and stays after the end.

use rustix::process::Signal;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use treeferry_kit::run::wait_until;
use treeferry_kit::tree::{Kind, Spec};
use treeferry_tests::cluster::Cluster;
use treeferry_tests::{Live, PATIENCE, Run, Scratch, command};

/// Jobs without a cluster, with a log directory of the test's own.
struct Alone(Scratch);

impl Alone {
    fn new() -> Alone {
        Alone(Scratch::disk())
    }
    fn dir(&self) -> PathBuf {
        self.0.at("log")
    }
    fn command<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Command {
        let mut c = command(words);
        c.env("TREEFERRY_LOG_DIR", self.dir());
        c
    }
    fn sync_command(&self, options: &str) -> Command {
        let mut c = self.command(["sync", "--json"]);
        c.args(self.0.words(options));
        c
    }
    fn report(&self, words: &str) -> Run {
        Run::of(&mut self.command(["report"].into_iter().chain(words.split_whitespace())))
    }
    fn json(&self, job: &str) -> Value {
        self.report(&format!("--json {job}")).expect(0).json
    }
}

fn id(r: &Run) -> String {
    r.json["job"].as_str().unwrap_or_else(|| panic!("no job in {r}")).to_owned()
}

/// Files of known sizes in directories of known widths.
fn plant(s: &Scratch) {
    for i in 0..30 {
        s.src().file(&format!("wide/f{i:02}"), vec![1; 100]);
    }
    s.src().file("empty", "").file("deep/er/middle", vec![2; 5000]).file("deep/large", vec![3; 300_000]);
    s.src().symlink("link", "empty");
}

/// What a report of [`plant`]'s tree must say, whoever has run the job.
#[track_caller]
fn assert_figures(r: &Value) {
    let rows = |name: &str, field: &str| -> Vec<(String, u64)> {
        let all = r[name].as_array().unwrap_or_else(|| panic!("no {name} in {r}"));
        all.iter().map(|x| (x["path"].as_str().unwrap().to_owned(), x[field].as_u64().unwrap())).collect()
    };
    let row = |path: &str, n| (path.to_owned(), n);
    let files = rows("largest_files", "bytes");
    assert_eq!(files[..2], [row("deep/large", 300_000), row("deep/er/middle", 5000)], "{r}");
    assert!(files[2..].iter().all(|(path, n)| path.starts_with("wide/f") && *n == 100), "{r}");
    assert_eq!(files.len(), 20, "{r}");
    assert_eq!(rows("largest_dirs", "entries")[..2], [row("wide", 30), row(".", 4)], "{r}");
    let classes: Vec<[u64; 3]> = r["sizes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| [&c["from_bytes"], &c["files"], &c["bytes"]].map(|n| n.as_u64().unwrap()))
        .collect();
    assert_eq!(classes, [[0, 1, 0], [64, 30, 3000], [4096, 1, 5000], [262_144, 1, 300_000]], "{r}");
    let slow = rows("slowest_files", "bytes");
    assert!(slow.len() == 20 && slow.iter().all(|(_, bytes)| *bytes <= 300_000), "{r}");
    let times = |name: &str| -> Vec<f64> {
        r[name].as_array().unwrap().iter().map(|x| x["seconds"].as_f64().unwrap()).collect()
    };
    for name in ["slowest_files", "longest_tasks"] {
        let t = times(name);
        assert!(!t.is_empty() && t[0] > 0.0 && t.windows(2).all(|w| w[0] >= w[1]), "{name}: {r}");
    }
    let last = r["history"].as_array().unwrap().last().cloned().unwrap_or_default();
    if r["engine"] == "cluster" {
        assert_eq!((&last["files"], &last["copied_bytes"]), (&33.into(), &308_000.into()), "{r}");
    }
    assert_eq!(r["unfinished"], serde_json::json!([]), "{r}");
    assert_eq!((&r["state"], &r["counters"]["files"]), (&"done".into(), &33.into()), "{r}");
}

#[test]
fn a_job_without_a_cluster_can_be_reported_after_its_end() {
    let a = Alone::new();
    plant(&a.0);
    let job = id(&Run::of(&mut a.sync_command("")).expect(0));
    assert_figures(&a.json(&job));
    let text = a.report(&job).expect(0).stdout;
    for word in ["done", "Counts", "Rates", "Largest files", "deep/large", "256 KiB to 1 MiB", "wide"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let page = a.0.at("page.html");
    let out = a.report(&format!("{job} --html {}", page.display())).expect(0);
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("deep/large") && page.contains("<svg"));
    assert_eq!(
        a.report(&format!("{job} --html -")).expect(0).stdout.matches("<h2>").count(),
        page.matches("<h2>").count()
    );
}

#[test]
fn jobs_are_listed_and_one_that_nobody_knows_is_said_to_be_none() {
    let a = Alone::new();
    assert!(a.report("").expect(0).stdout.contains("No job can be reported"));
    a.0.src().file("a", "a");
    let job = id(&Run::of(&mut a.sync_command("")).expect(0));
    let text = a.report("").expect(0).stdout;
    assert!(text.starts_with(&job) && text.contains("done") && text.lines().count() == 1, "{text}");
    let r = a.report("0000000000000001").expect(1);
    assert!(r.stderr.contains("no job 0000000000000001") && r.stderr.contains("treeferry report"), "{r}");
    a.report("what").expect(1);
    a.report("--failures").expect(1);
    // what is there and cannot be understood is not taken for nothing
    std::fs::write(a.dir().join("0000000000000002.json"), "{").unwrap();
    assert!(a.report("0000000000000002").expect(1).stderr.contains("not one of this version"));
    let r = a.report("--json").expect(0);
    assert_eq!(r.json["jobs"].as_array().unwrap().len(), 1, "{r}");
    assert!(r.stderr.contains("0000000000000002"), "{r}");
}

#[test]
fn failures_are_grouped_and_each_of_a_kind_can_be_listed() {
    let a = Alone::new();
    for i in 0..12 {
        a.0.src().file(&format!("d/a{i}"), "x").file(&format!("d/b{i}"), "x");
    }
    a.0.src().file("odd\n\u{ff}<b>", "x");
    let rules: Vec<String> = (0..12)
        .map(|i| format!("call=openat,errno=EACCES,path=d/a{i}"))
        .chain(["call=openat,errno=EPERM,path=<b>".to_owned()])
        .collect();
    let run = Run::of(a.sync_command("").env("TREEFERRY_FAULTS", rules.join(";"))).expect(23);
    let job = id(&run);
    let r = a.json(&job);
    let group = |i: usize| {
        let g = &r["failure_groups"][i];
        (
            g["op"].as_str().unwrap().to_owned(),
            g["errno_name"].as_str().unwrap().to_owned(),
            g["count"].as_u64().unwrap(),
        )
    };
    assert_eq!(group(0), ("openat".to_owned(), "EACCES".to_owned(), 12), "{r}");
    assert_eq!((group(1).1.as_str(), group(1).2), ("EPERM", 1), "{r}");
    assert_eq!(r["failure_groups"][0]["examples"].as_array().unwrap().len(), 5);
    let listed = |words: &str| a.report(&format!("{job} {words}")).expect(0).stdout.lines().count();
    assert_eq!(listed("--failures"), 13);
    assert_eq!(
        (listed("--failures openat:EACCES"), listed("--failures :13"), listed("--failures rename")),
        (12, 12, 0)
    );
    let one = a.report(&format!("{job} --failures :EPERM --json")).expect(0).json;
    assert_eq!(one["failures"][0]["path"], "odd\\#012ÿ<b>", "{one}");
    a.report(&format!("{job} --failures :EWHAT")).expect(1);
    let page = a.report(&format!("{job} --html -")).expect(0).stdout;
    assert!(page.contains("odd\\#012ÿ&lt;b&gt;") && !page.contains("ÿ<b>"), "escaped");
    assert!(a.report(&job).expect(0).stdout.contains("openat:EACCES (source): Permission denied"));
}

#[test]
fn a_job_that_runs_and_is_interrupted_says_what_is_left() {
    let a = Alone::new();
    for d in 0..6 {
        Spec::new(Kind::Small).count(300).seed(d).make(&a.0.at(&format!("src/d{d}"))).unwrap();
    }
    let live = Live::of(&mut a.sync_command("--iops 100 --pool 2"));
    let job = std::cell::OnceCell::new();
    wait_until("it can be reported while it runs", PATIENCE, || {
        let all = a.report("--json").expect(0).json;
        all["jobs"][0]["job"].as_str().is_some_and(|j| job.set(j.to_owned()).is_ok())
    });
    let job = job.get().unwrap();
    let r = a.report(&format!("--json {job} --inodes 1000000")).expect(0).json;
    assert_eq!((&r["state"], &r["ended_ms"]), (&"running".into(), &Value::Null), "{r}");
    assert!(!r["running"].as_array().unwrap().is_empty(), "{r}");
    assert!(r["progress"]["eta_s"].as_u64().unwrap() > 100, "{r}");
    assert!(r["progress"]["percent"].as_f64().is_some_and(|p| p > 0.0 && p < 1.0), "{r}");
    assert!(a.report(job).expect(0).stdout.contains("At work now"));
    live.signal(Signal::INT);
    live.finish().expect(20);
    let r = a.json(job);
    assert_eq!(r["state"], "interrupted", "{r}");
    let left: u64 = r["unfinished"].as_array().unwrap().iter().map(|u| u["tasks"].as_u64().unwrap()).sum();
    assert!(left > 0 && r["outstanding"].as_u64().unwrap() >= left, "{r}");
    assert!(a.report(job).expect(0).stdout.contains("Unfinished subtrees"));
}

#[test]
fn a_job_that_was_killed_is_not_taken_for_one_that_runs() {
    let a = Alone::new();
    Spec::new(Kind::Small).count(500).make(&a.0.at("src/d")).unwrap();
    let live = Live::of(&mut a.sync_command("--iops 50"));
    let job = || {
        let all = a.report("--json").expect(0).json;
        all["jobs"][0]["job"].as_str().map(str::to_owned)
    };
    wait_until("it has written", PATIENCE, || job().is_some());
    live.signal(Signal::KILL);
    live.finish();
    let file = a.dir().join(format!("{}.json", job().unwrap()));
    let mut r: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let job = r["job"].as_str().unwrap().to_owned();
    // two minutes pass
    r["seen_ms"] = (r["seen_ms"].as_u64().unwrap() - 120_000).into();
    r["began_ms"] = (r["began_ms"].as_u64().unwrap() - 120_000).into();
    std::fs::write(&file, r.to_string()).unwrap();
    assert_eq!(a.json(&job)["state_now"], "silent");
    assert!(a.report(&job).expect(0).stdout.contains("Nothing was heard of it"));
}

#[test]
fn a_directory_that_cannot_be_written_harms_nobody() {
    let a = Alone::new();
    a.0.src().file("a", "a");
    std::fs::write(a.dir(), "a file where the directory is to be").unwrap();
    let r = Run::of(&mut a.sync_command("")).expect(0);
    // of events, which go there too, it is said once
    assert_eq!(r.stderr.lines().count(), 1, "{r}");
    assert!(r.stderr.contains("events are not written"), "{r}");
    let r = Run::of(&mut a.sync_command("-vv")).expect(0);
    assert_eq!(r.stderr.matches("cannot be written").count(), 1, "{r}");
    // an empty name means nowhere
    Run::of(a.sync_command("").env("TREEFERRY_LOG_DIR", "")).expect(0);
}

#[test]
fn what_is_kept_is_for_nobody_else_to_read() {
    use std::os::unix::fs::PermissionsExt;
    let a = Alone::new();
    a.0.src().file("a", "a");
    let job = id(&Run::of(&mut a.sync_command("")).expect(0));
    let mode = |p: PathBuf| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(a.dir()), mode(a.dir().join(format!("{job}.json")))), (0o700, 0o600));
}

#[test]
fn an_earlier_job_tells_how_much_there_is() {
    let a = Alone::new();
    Spec::new(Kind::Small).count(400).make(&a.0.at("src/d")).unwrap();
    let first = id(&Run::of(&mut a.sync_command("")).expect(0));
    a.0.dst().remove("");
    let live = Live::of(&mut a.sync_command("--iops 100"));
    let second = || {
        let all = a.report("--json").expect(0).json;
        all["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .find(|j| j["state"] == "running")
            .map(|j| j["job"].as_str().unwrap().to_owned())
    };
    wait_until("the second can be reported", PATIENCE, || second().is_some());
    let r = a.json(&second().unwrap());
    assert_eq!(r["progress"]["total"]["source"]["earlier_job"], first.as_str(), "{r}");
    assert_eq!(r["progress"]["total"]["entries"], a.json(&first)["progress"]["entries"], "{r}");
    live.signal(Signal::INT);
    live.finish();
}

/// Asks the ledger itself.
fn redis<'a>(c: &Cluster, words: impl IntoIterator<Item = &'a str>) -> String {
    c.services.redis_cli(words)
}

fn of_cluster(c: &Cluster, words: &str) -> Run {
    Run::of(&mut c.command(["report"].into_iter().chain(words.split_whitespace())))
}

#[test]
fn a_job_of_a_cluster_can_be_reported_while_it_runs_is_paused_and_is_over() {
    let c = Cluster::start(2, 1);
    // done: the same figures as without a cluster
    let s = Scratch::disk();
    plant(&s);
    let job = c.detach(&s, "");
    c.await_end(&job);
    assert_figures(&of_cluster(&c, &format!("--json {job}")).expect(0).json);
    assert!(of_cluster(&c, "").expect(0).stdout.contains(&job));
    let r = of_cluster(&c, "0000000000000001").expect(1);
    assert!(r.stderr.contains("no job 0000000000000001"), "{r}");
    assert!(of_cluster(&c, &format!("{job} --html -")).expect(0).stdout.contains("deep/large"));

    // running, with failures: every file of one directory
    let s = Scratch::disk();
    for d in 0..40 {
        Spec::new(Kind::Small).count(60).seed(d).make(&s.at(&format!("src/d{d:02}"))).unwrap();
    }
    let job = c.detach(&s, "--iops 60");
    let json = |words: &str| of_cluster(&c, &format!("--json {job} {words}")).expect(0).json;
    wait_until("it is sampled and at work", PATIENCE, || {
        let r = json("");
        r["history"].as_array().unwrap().len() >= 3 && !r["running"].as_array().unwrap().is_empty()
    });
    let r = json("--inodes 100000000");
    assert_eq!((&r["engine"], &r["state_now"]), (&"cluster".into(), &"running".into()), "{r}");
    assert!(r["progress"]["eta_s"].as_u64().unwrap() > 1000, "{r}");
    assert!(r["running"][0]["worker"].as_str().is_some_and(|w| w.starts_with('w')), "{r}");
    let samples = r["history"].as_array().unwrap();
    assert!(samples.windows(2).all(|w| w[0]["at_ms"].as_u64() < w[1]["at_ms"].as_u64()), "{r}");

    // a full history is thinned out
    let key = format!("treeferry:{{{job}}}:history");
    let full: Vec<String> = (0..1000).map(|i| format!("at_ms={}", i + 1)).collect();
    redis(&c, ["LPUSH", &key].into_iter().chain(full.iter().map(String::as_str)));
    wait_until("each second sample is dropped", PATIENCE, || {
        let n: usize = redis(&c, ["LLEN", &key]).trim().parse().unwrap();
        (400..600).contains(&n)
    });

    c.call(&format!("pause {job}"));
    wait_until("nobody works for it", PATIENCE, || json("")["running"].as_array().unwrap().is_empty());
    let r = json("--inodes 100000000");
    assert_eq!((&r["state_now"], &r["progress"]["eta_s"]), (&"paused".into(), &Value::Null), "{r}");
    let left = |r: &Value| -> u64 {
        r["unfinished"].as_array().unwrap().iter().map(|u| u["tasks"].as_u64().unwrap()).sum()
    };
    assert!(left(&r) > 0, "{r}");
    let path = r["unfinished"][0]["path"].as_str().unwrap();
    assert!(path == "." || s.at("src").join(path).exists(), "{path}");

    // what was left is known after the end too
    c.call(&format!("cancel {job}"));
    let r = json("");
    assert_eq!(r["state"], "interrupted", "{r}");
    assert!(left(&r) > 0, "{r}");
    assert!(of_cluster(&c, &job).expect(0).stdout.contains("Unfinished subtrees"));
}

#[test]
fn failures_of_a_cluster_are_grouped_and_listed() {
    let c = Cluster::start(0, 1);
    let rules: Vec<String> = (0..7).map(|i| format!("call=openat,errno=EACCES,path=d/a{i}")).collect();
    let mut worker = c.command(["worker", "--name", "w0", "--pool", "2"]);
    let worker = Live::of(worker.env("TREEFERRY_FAULTS", rules.join(";")));
    let s = Scratch::disk();
    for i in 0..12 {
        s.src().file(&format!("d/a{i}"), "x");
    }
    let job = c.detach(&s, "");
    assert_eq!(c.await_end(&job)["state"], "failed");
    drop(worker);
    let r = of_cluster(&c, &format!("--json {job}")).expect(0).json;
    let g = &r["failure_groups"][0];
    assert_eq!(
        (&g["op"], &g["errno_name"], &g["count"]),
        (&"openat".into(), &"EACCES".into(), &7.into()),
        "{r}"
    );
    assert_eq!(
        of_cluster(&c, &format!("{job} --failures openat:EACCES")).expect(0).stdout.lines().count(),
        7
    );
    assert_eq!(of_cluster(&c, &format!("{job} --failures :EIO")).expect(0).stdout, "");
    let listed = of_cluster(&c, &format!("{job} --failures --json")).expect(0).json;
    assert_eq!(listed["failures"].as_array().unwrap().len(), 7, "{listed}");
}
