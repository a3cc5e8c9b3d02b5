//! Events and `treeferry logs`, with files and with a cluster: what is told, that nothing waits for it, and that a collector
//! that is killed has each event once.

mod checks;

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use treeferry_kit::rng::Rng;
use treeferry_kit::run::wait_until;
use treeferry_kit::tree::{Kind, Spec};
use treeferry_tests::cluster::Cluster;
use treeferry_tests::{Live, PATIENCE, Run, Scratch, command};

/// Runs a sync that writes its events to `log` in the scratch directory.
fn sync(s: &Scratch, options: &str) -> Run {
    Run::of(&mut sync_command(s, options))
}

fn sync_command(s: &Scratch, options: &str) -> Command {
    let mut c = command(["sync", "--json"]);
    c.env("TREEFERRY_LOG_DIR", s.at("log")).args(s.words(options));
    c
}

/// Events of a text of JSON lines.
fn events(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{l}: {e}"))).collect()
}

/// All events of a directory.
fn logged(dir: &Path) -> Vec<Value> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    // what `report` reads is there too
    files.retain(|f| f.extension().is_some_and(|e| e == "jsonl"));
    files.sort();
    files.iter().flat_map(|f| events(&std::fs::read_to_string(f).unwrap())).collect()
}

fn names(all: &[Value]) -> Vec<&str> {
    all.iter().map(|e| e["event"].as_str().unwrap()).collect()
}

fn of<'a>(all: &'a [Value], name: &str) -> Vec<&'a Value> {
    all.iter().filter(|e| e["event"] == name).collect()
}

/// What `treeferry logs --json OPTIONS` prints of the directory of a scratch place.
fn shown(s: &Scratch, options: &str) -> Vec<Value> {
    let mut c = command(["logs", "--json"]);
    let r = Run::of(c.env("TREEFERRY_LOG_DIR", s.at("log")).args(options.split_whitespace())).expect(0);
    assert_eq!(r.stderr, "", "{r}");
    events(&r.stdout)
}

/// Counts each event of the files of a prefix by who told it and its number.
fn collected(prefix: &Path) -> BTreeMap<(String, u64), usize> {
    let mut all = BTreeMap::new();
    for severity in ["DEBUG", "INFO", "WARNING", "ERROR"] {
        let path = PathBuf::from(format!("{}.{severity}", prefix.display()));
        for e in events(&std::fs::read_to_string(path).unwrap_or_default()) {
            assert_eq!(e["severity"], severity.to_lowercase(), "in the file of another severity: {e}");
            let id = (e["worker"].as_str().unwrap().to_owned(), e["seq"].as_u64().unwrap());
            *all.entry(id).or_default() += 1;
        }
    }
    all
}

/// Fails unless each event is there once, and of each process all from the first on.
fn assert_each_once(all: &BTreeMap<(String, u64), usize>) {
    let twice: Vec<_> = all.iter().filter(|(_, n)| **n != 1).collect();
    assert!(
        twice.is_empty(),
        "{} events are there more than once: {:?}",
        twice.len(),
        &twice[..twice.len().min(5)]
    );
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    for (worker, seq) in all.keys() {
        let n = next.entry(worker).or_default();
        assert_eq!(seq, n, "an event of {worker} is missing");
        *n += 1;
    }
}

#[test]
fn by_default_failures_and_the_life_of_the_job_are_told() {
    let s = Scratch::disk();
    s.src().file("fine", "x").file("dir/b\n\u{fc}d", "content");
    let mut c = sync_command(&s, "");
    let r = Run::of(c.env("TREEFERRY_FAULTS", "call=write,errno=ENOSPC,path=d")).expect(23);
    let all = logged(&s.at("log"));
    assert_eq!(names(&all), ["job.began", "entry.failed", "job.ended"], "{all:?}");
    let f = &all[1];
    for (field, want) in [
        ("v", Value::from(1)),
        ("severity", "error".into()),
        ("job", r.json["job"].clone()),
        ("path", "dir/b\\#012\u{fc}d".into()),
        ("side", "target".into()),
        ("op", "write".into()),
        ("errno", 28.into()),
        ("errno_name", "ENOSPC".into()),
        ("text", "No space left on device".into()),
    ] {
        assert_eq!(f[field], want, "{field} of {f}");
    }
    assert_eq!(all.iter().map(|e| e["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    let (began, ended) = (&all[0], &all[2]);
    assert!(began["text"].as_str().unwrap().contains(s.at("src").to_str().unwrap()), "{began}");
    assert_eq!((&ended["severity"], &ended["text"]), (&"warning".into(), &"failed".into()));
    assert_eq!((&ended["count"], &ended["bytes"]), (&1.into(), &1.into()));
    assert!(f["time"].as_str() >= began["time"].as_str() && f["time"].as_str() <= ended["time"].as_str());
}

#[test]
fn at_level_info_each_deed_is_told_as_it_is_counted() {
    let s = Scratch::disk();
    s.src().file("a/one", "12345").link("a/one", "b/two").symlink("l", "x").fifo("p").file("kept", "1");
    s.src().file("big", vec![7; 300_000]).file("o.bak", "x").file("mode", "m");
    s.dst().file("extra", "1").file("kept", "1").file("mode", "m");
    for t in [s.src(), s.dst()] {
        t.time("kept", 1_500_000_000).time("mode", 1_500_000_000);
    }
    s.src().mode("mode", 0o600);
    let r = sync(&s, "--delete --chunk-size 64K --exclude *.bak --log-level info -i").expect(0);
    let all = logged(&s.at("log"));
    let counted = |name: &str| of(&all, name).len() as u64;
    assert_eq!(counted("entry.copied"), r.count("copied_files"), "{all:?}");
    assert_eq!(counted("entry.linked"), r.count("linked"));
    assert_eq!(counted("entry.made"), r.count("made_dirs") + r.count("symlinks") + r.count("specials"));
    assert_eq!(counted("entry.deleted"), r.count("deleted"));
    assert_eq!(counted("entry.fixed"), r.count("meta_fixed"));
    assert_eq!(counted("entry.skipped"), 0);
    let bytes: u64 = of(&all, "entry.copied").iter().map(|e| e["bytes"].as_u64().unwrap()).sum();
    assert_eq!(bytes, r.count("copied_bytes"));
    let small = of(&all, "entry.copied").into_iter().find(|e| e["bytes"] == 5).unwrap();
    assert!(small["duration_us"].is_u64() && small["pass"] == "copy", "{small}");
    assert_eq!(of(&all, "entry.deleted")[0]["pass"], "delete");
    // the same as the itemised lines, entry for entry
    let told: BTreeSet<(String, String)> = all
        .iter()
        .filter(|e| e["item"].is_string())
        .map(|e| (e["item"].as_str().unwrap().trim().to_owned(), e["path"].as_str().unwrap().to_owned()))
        .collect();
    let itemised: BTreeSet<(String, String)> = r
        .items()
        .iter()
        .map(|l| (l[..11].trim().to_owned(), l[12..].trim_end_matches('/').to_owned()))
        .collect();
    assert_eq!(told, itemised);

    let debug = sync(&s, "--exclude *.bak --log-level debug").expect(0);
    let id = debug.json["job"].as_str().unwrap();
    let skipped = shown(&s, &format!("--job {id} --event entry"));
    assert_eq!(names(&skipped), ["entry.skipped"]);
    assert_eq!(skipped[0]["path"], "o.bak");
}

#[test]
fn a_dry_run_tells_of_nothing_that_was_not_done() {
    let s = Scratch::disk();
    s.src().file("f", "1");
    sync(&s, "-n -i --log-level debug").expect(0);
    assert_eq!(names(&logged(&s.at("log"))), ["job.began", "job.ended"]);
}

#[test]
fn a_directory_that_cannot_be_written_is_said_once_and_nothing_else_changes() {
    let s = Scratch::disk();
    Spec::new(Kind::Small).count(2000).make(&s.at("src/small")).unwrap();
    let mut c = command(["sync", "--json", "--log-level", "info", "--log-dir", "/proc/nowhere"]);
    let r = Run::of(c.args(s.words(""))).expect(0);
    s.assert_same();
    let said = r.stderr.lines().filter(|l| l.contains("/proc/nowhere")).count();
    assert_eq!((said, r.stderr.lines().count()), (1, 1), "{r}");
    // and where nowhere is meant, nothing is said
    let mut c = command(["sync", "--json", "--log-dir", ""]);
    assert_eq!(Run::of(c.args(s.words(""))).expect(0).stderr, "");
}

#[test]
fn files_of_a_job_are_bounded_and_private() {
    let s = Scratch::disk();
    Spec::new(Kind::Small).count(3000).make(&s.at("src/small")).unwrap();
    std::fs::write(s.at("site.toml"), "[log]\nfile-size = \"64K\"\nfiles = 3\nlevel = \"info\"\n").unwrap();
    let r = Run::of(sync_command(&s, "").env("TREEFERRY_CONFIG", s.at("site.toml"))).expect(0);
    let mut all = checks::entries(&s.at("log"));
    all.retain(|name, _| name.extension().is_some_and(|e| e == "jsonl"));
    assert_eq!(all.len(), 3, "{all:?}");
    for (name, m) in &all {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(m.mode() & 0o777, 0o600, "{}", name.display());
        assert!(m.len() < 400_000, "{} has {}", name.display(), m.len());
    }
    let mut c = command(["logs", "--json"]);
    let out = Run::of(c.env("TREEFERRY_LOG_DIR", s.at("log"))).expect(0);
    let left = events(&out.stdout);
    let first = left[0]["seq"].as_u64().unwrap();
    assert!(first > 0 && left.last().unwrap()["event"] == "job.ended", "{r}");
    let lost = out.stderr.split_whitespace().find_map(|w| w.replace(',', "").parse::<u64>().ok());
    assert_eq!(lost, Some(first), "what is gone is counted: {out}");
}

#[test]
fn logs_answers_what_it_is_asked() {
    let s = Scratch::disk();
    s.src().file("home/ada/f", "1").file("home/bob/f", "2").file("homes", "3");
    let mut c = sync_command(&s, "--log-level info");
    let first = Run::of(c.env("TREEFERRY_FAULTS", "call=write,errno=EDQUOT,path=bob/f")).expect(23);
    s.src().file("more", "4");
    let second = sync(&s, "--log-level info").expect(0);
    let id = |r: &Run| r.json["job"].as_str().unwrap().to_owned();
    let all = shown(&s, "");
    assert_eq!(all, logged_in_order(&s, &[&id(&first), &id(&second)]));
    let paths = |options: &str| {
        let mut p: Vec<String> =
            shown(&s, options).iter().map(|e| e["path"].as_str().unwrap_or("-").to_owned()).collect();
        p.sort();
        p
    };
    assert_eq!(paths("--severity error"), ["home/bob/f"]);
    assert_eq!(paths("--errno EDQUOT"), ["home/bob/f"]);
    assert_eq!(paths("--errno 122 --op write"), ["home/bob/f"]);
    assert_eq!(paths("--errno ENOSPC"), [""; 0]);
    assert_eq!(paths("--op read"), [""; 0]);
    assert_eq!(paths("--path home/ada --event entry.copied"), ["home/ada/f"]);
    assert_eq!(paths(&format!("--path home --job {} --event entry.copied", id(&second))), ["home/bob/f"]);
    assert_eq!(paths("--host nobody.example"), [""; 0]);
    let text =
        Run::of(command(["logs", "--severity", "error"]).env("TREEFERRY_LOG_DIR", s.at("log"))).expect(0);
    assert!(text.stdout.contains(" ERROR ") && text.stdout.contains("[EDQUOT]"), "{text}");
    assert_eq!(text.stdout.lines().count(), 1);
    for wrong in ["--errno EWHAT", "--severity loud", "--path /etc", "--job 12", "-i 0"] {
        let r = Run::of(command(["logs"]).args(wrong.split_whitespace())).expect(1);
        assert!(!r.stderr.is_empty(), "{r}");
    }
}

/// The events of these jobs, one after the other.
fn logged_in_order(s: &Scratch, jobs: &[&str]) -> Vec<Value> {
    let text = |j: &&str| std::fs::read_to_string(s.at(&format!("log/{j}.jsonl"))).unwrap();
    jobs.iter().map(text).flat_map(|t| events(&t)).collect()
}

#[test]
fn each_event_of_a_job_is_collected_once_however_often_the_collector_is_killed() {
    let s = Scratch::disk();
    let mut rng = Rng::new(7);
    Spec::new(Kind::Small).count(20_000).make(&s.at("src/small")).unwrap();
    std::fs::write(s.at("site.toml"), "[log]\nfile-size = \"200K\"\nfiles = 1000\n").unwrap();
    let mut c = sync_command(&s, "--log-level info --iops 8000");
    let mut run = Live::of(c.env("TREEFERRY_CONFIG", s.at("site.toml")));
    run.until("it tells", || s.at("log").exists());
    let prefix = s.at("collected");
    let collector = |follow: &[&str]| {
        let mut c = command(["logs", "--json"]);
        c.args(follow).arg(&prefix).env("TREEFERRY_LOG_DIR", s.at("log"));
        c
    };
    let mut kills = 0;
    while kills < 60 {
        let mut killed = collector(&["-f", "-p", "0"]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(rng.below(60)));
        killed.kill().unwrap();
        killed.wait().unwrap();
        kills += 1;
    }
    let r = run.finish().expect(0);
    let last = Run::of(&mut collector(&[])).expect(0);
    assert_eq!(last.stderr, "", "nothing is lost");
    let all = collected(&prefix);
    assert_each_once(&all);
    assert_eq!(all.len(), logged(&s.at("log")).len());
    assert!(all.len() as u64 > r.count("copied_files"));
    let before = std::fs::metadata(s.at("collected.INFO")).unwrap().len();
    Run::of(&mut collector(&["-i", "3", "-p", "0"])).expect(0);
    assert_eq!(std::fs::metadata(s.at("collected.INFO")).unwrap().len(), before, "there is nothing new");
}

// ---- with a cluster

/// Says something to Redis, and returns the first line of its answer.
fn redis(c: &Cluster, words: &str) -> String {
    let rest = c.services.ledger.strip_prefix("redis://:").unwrap();
    let (password, place) = rest.split_once('@').unwrap();
    let mut to = TcpStream::connect(place.split('/').next().unwrap()).unwrap();
    write!(to, "AUTH {password}\r\n{words}\r\n").unwrap();
    let mut lines = BufReader::new(to).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "+OK");
    lines.next().unwrap().unwrap()
}

fn stream(c: &Cluster, options: &str) -> Vec<Value> {
    events(&c.call(&format!("logs --json {options}")).stdout)
}

#[test]
fn a_cluster_tells_by_its_stream() {
    let mut c = Cluster::start(2, 1);
    let s = Scratch::disk();
    s.src().file("a/f", "12345").link("a/f", "b/l").file("bad", "x").dir("empty");
    s.dst().file("bad/in the way", "x").file("extra", "x");
    let r = c.sync(&s, "--log-level info").expect(23);
    let id = r.json["job"].as_str().unwrap().to_owned();
    let mut all = Vec::new();
    wait_until("the end of the job is told", PATIENCE, || {
        all = stream(&c, &format!("--job {id}"));
        !of(&all, "job.ended").is_empty()
    });
    // each process has its own way to the stream
    wait_until("all is told", PATIENCE, || {
        all = stream(&c, &format!("--job {id}"));
        of(&all, "entry.linked").len() == 1 && of(&all, "entry.made").len() as u64 == r.count("made_dirs")
    });
    assert_eq!(of(&all, "job.began").len(), 1);
    let ended = of(&all, "job.ended");
    assert_eq!((ended.len(), &ended[0]["text"], &ended[0]["count"]), (1, &"failed".into(), &1.into()));
    assert_eq!(ended[0]["bytes"], r.json["counters"]["copied_bytes"]);
    assert_eq!(of(&all, "entry.copied").len() as u64, r.count("copied_files"));
    let failed = of(&all, "entry.failed");
    assert_eq!((failed.len(), &failed[0]["path"], &failed[0]["op"]), (1, &"bad".into(), &"rmdir".into()));
    assert!(failed[0]["worker"].as_str().unwrap().starts_with('w'), "{}", failed[0]);
    assert!(of(&all, "entry.linked")[0]["worker"].as_str().unwrap().starts_with('h'));
    let lives = stream(&c, "--event worker.started");
    assert_eq!(lives.len(), 3, "{lives:?}");
    c.call("shutdown w1");
    wait_until("it says that it leaves", PATIENCE, || stream(&c, "--event worker.ended").len() == 1);
    assert!(c.exit_code("w1").is_none_or(|code| code == 0));

    // the default tells no entry, and a node that cannot work for a job says so
    let quiet = c.sync(&s, "").expect(23);
    let of_quiet = format!("--job {}", quiet.json["job"].as_str().unwrap());
    wait_until("it has ended", PATIENCE, || stream(&c, &of_quiet).len() >= 3);
    let mut told = stream(&c, &of_quiet);
    told.sort_by_key(|e| e["event"].as_str().map(str::to_owned));
    assert_eq!(names(&told), ["entry.failed", "job.began", "job.ended"]);
    let refused = Run::of(&mut c.command(["sync", "--log-dir", "/x", "/a", "/b"])).expect(1);
    assert!(refused.stderr.contains("--log-dir"), "{refused}");
}

#[test]
fn each_event_of_a_cluster_is_collected_once_whoever_is_killed() {
    let mut c = Cluster::start(2, 1);
    let s = Scratch::memory();
    let mut rng = Rng::new(8);
    Spec::new(Kind::Small).count(20_000).make(&s.at("src/small")).unwrap();
    let prefix = s.at("collected");
    let collector = |c: &Cluster, follow: &[&str]| {
        let mut all = c.command(["logs", "--json"]);
        all.args(follow).arg(&prefix);
        all
    };
    let run = Live::of(&mut c.sync_command(&s, "--log-level info --iops 1500"));
    for kills in 0..60 {
        let mut killed = collector(&c, &["-f", "-p", "0"]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(rng.below(120)));
        killed.kill().unwrap();
        killed.wait().unwrap();
        if kills == 20 {
            c.kill("w1");
            c.start_again("w1");
        }
    }
    let r = run.finish().expect(0);
    s.assert_same();
    let id = r.json["job"].as_str().unwrap();
    wait_until("the end is told", PATIENCE, || {
        !stream(&c, &format!("--job {id} --event job.ended")).is_empty()
    });
    let last = Run::of(&mut collector(&c, &["-i", "2", "-p", "1"])).expect(0);
    assert_eq!(last.stderr, "", "nothing is lost");
    let all = collected(&prefix);
    assert_each_once(&all);
    let whole = stream(&c, "");
    assert_eq!(all.len(), whole.len(), "what was collected is what is in the stream");
    let copied: BTreeSet<&str> =
        of(&whole, "entry.copied").iter().map(|e| e["path"].as_str().unwrap()).collect();
    // the killed worker took what it had not told yet with it
    assert!(copied.len() as u64 + 3000 > r.count("files"), "{} of {}", copied.len(), r.count("files"));
    // another collector has all of them too
    let other = s.at("other");
    Run::of(c.command(["logs", "--json", "--severity", "warning"]).arg(&other)).expect(0);
    let graver = whole.iter().filter(|e| e["severity"] != "info").count();
    assert_eq!(collected(&other).len(), graver);
    // nothing is left unacknowledged
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let group = format!("logs:{}:{}", host.trim(), prefix.display());
    assert_eq!(redis(&c, &format!("XPENDING treeferry:events {group}")), "*4");
    let mut pending = String::new();
    wait_until("all is acknowledged", PATIENCE, || {
        pending = pending_of(&c, &group);
        pending == ":0"
    });
}

/// How many entries a group was given and has not acknowledged, as Redis writes a number.
fn pending_of(c: &Cluster, group: &str) -> String {
    let rest = c.services.ledger.strip_prefix("redis://:").unwrap();
    let (password, place) = rest.split_once('@').unwrap();
    let mut to = TcpStream::connect(place.split('/').next().unwrap()).unwrap();
    write!(to, "AUTH {password}\r\nXPENDING treeferry:events {group}\r\n").unwrap();
    BufReader::new(to).lines().nth(2).unwrap().unwrap()
}

#[test]
fn a_stream_that_cannot_be_written_holds_up_nothing_and_what_was_dropped_is_said() {
    let mut c = Cluster::start(0, 0);
    let config = c.services.config();
    let text = std::fs::read_to_string(&config).unwrap() + "\n[log]\nbuffer = 500\nlevel = \"info\"\n";
    std::fs::write(&config, text).unwrap();
    // the ledger is well, and the stream is not: its key is of another kind
    assert_eq!(redis(&c, "SET treeferry:events rubbish"), "+OK");
    c.worker("w0", 2);
    wait_until("it is there", PATIENCE, || c.reports().len() == 1);
    let s = Scratch::memory();
    Spec::new(Kind::Small).count(5000).make(&s.at("src/small")).unwrap();
    let began = Instant::now();
    let r = c.sync(&s, "").expect(0);
    let away = began.elapsed();
    s.assert_same();
    let dropped = |c: &Cluster| c.reports()[0]["events_dropped"].as_u64().unwrap();
    wait_until("status says so", PATIENCE, || dropped(&c) > 3000);
    assert!(c.call("status").stdout.contains("events dropped"));
    assert_eq!(redis(&c, "DEL treeferry:events"), ":1");
    let mut said = Vec::new();
    wait_until("it is said how many were dropped", PATIENCE, || {
        said = stream(&c, "--event events.dropped");
        !said.is_empty()
    });
    let told = stream(&c, "--event entry").iter().filter(|e| e["worker"] == said[0]["worker"]).count() as u64;
    let count = said[0]["count"].as_u64().unwrap();
    assert_eq!(count, dropped(&c));
    let deeds = r.count("copied_files") + r.count("made_dirs") + r.count("symlinks") + r.count("meta_fixed");
    assert!(told + count >= deeds, "{told} were told, {count} dropped, of {deeds}");
    s.dst().remove("");
    let began = Instant::now();
    c.sync(&s, "").expect(0);
    let there = began.elapsed();
    eprintln!("with the stream away {away:?}, with it there {there:?}");
    assert!(away < 3 * there + Duration::from_secs(30), "it was waited for");
}

#[test]
fn the_stream_has_a_bound_and_what_was_cut_off_unread_is_counted() {
    let mut c = Cluster::start(0, 0);
    let config = c.services.config();
    let text =
        std::fs::read_to_string(&config).unwrap() + "\n[log]\nstream-length = 1000\nlevel = \"info\"\n";
    std::fs::write(&config, text).unwrap();
    let s = Scratch::memory();
    Spec::new(Kind::Small).count(6000).make(&s.at("src/small")).unwrap();
    let prefix = s.at("collected");
    let collect = |c: &Cluster| Run::of(c.command(["logs", "--json"]).arg(&prefix)).expect(0);
    assert_eq!(collect(&c).stderr, "", "it joins before anything is told, and so misses all that is lost");
    c.worker("w0", 2);
    let r = c.sync(&s, "").expect(0);
    let id = r.json["job"].as_str().unwrap();
    wait_until("the end is told", PATIENCE, || {
        let all = c.command(["logs", "--json", "--job", id, "--event", "job.ended"]).output().unwrap();
        !all.stdout.is_empty()
    });
    // the worker's own words may come later than that
    let deeds =
        ["copied_files", "made_dirs", "symlinks", "meta_fixed"].map(|what| r.count(what)).iter().sum();
    wait_until("all is told", PATIENCE, || {
        let told = redis(&c, "INCRBY treeferry:events:total 0");
        told.strip_prefix(':').unwrap().parse::<u64>().unwrap() >= deeds
    });
    let out = collect(&c);
    let all = collected(&prefix);
    let said = out.stderr.split_whitespace().find_map(|w| w.replace(',', "").parse::<u64>().ok());
    let lost = events(&std::fs::read_to_string(format!("{}.WARNING", prefix.display())).unwrap());
    let worker = format!("w0-{}", c.pid("w0"));
    let count = |of_worker: bool| -> u64 {
        let all = of(&lost, "events.lost");
        let some = all.iter().filter(|e| !of_worker || e["text"] == format!("of {worker}"));
        some.map(|e| e["count"].as_u64().unwrap()).sum()
    };
    assert_eq!(said, Some(count(false)), "{out}");
    // of the worker: what was read, and what was lost, is all there was
    let lost = count(true);
    let read = all.keys().filter(|(w, _)| *w == worker).count() as u64;
    let last = all.keys().filter(|(w, _)| *w == worker).map(|(_, n)| n + 1).max().unwrap();
    assert_eq!(read + lost, last);
    // it is cut by whole entries, which have up to 512
    assert!((900..1000 + 600).contains(&read), "about as many as the stream holds: {read}");
}

#[test]
fn redis_may_die_while_a_job_tells_all_it_does() {
    let c = Cluster::start(2, 1);
    let s = Scratch::memory();
    Spec::new(Kind::Small).count(8000).make(&s.at("src/small")).unwrap();
    let prefix = s.at("collected");
    let mut collecting =
        Live::of(c.command(["logs", "--json", "-f", "-p", "0"]).arg(&prefix).stdout(Stdio::null()));
    let mut run = Live::of(&mut c.sync_command(&s, "--log-level info --iops 1500"));
    for part in 1..4 {
        let wanted = part * 2000;
        run.until("it has come so far", || checks::entries(&s.at("dst")).len() > wanted);
        let then = c.services.remember();
        run.until("and farther", || checks::entries(&s.at("dst")).len() > wanted + 300);
        c.kill_server("redis");
        // a slow disk: it has answered, and had not written it yet
        c.services.forget_since(&then);
        std::thread::sleep(Duration::from_millis(300));
        c.services.call("start");
    }
    let r = run.finish().expect(0);
    s.assert_same();
    let id = r.json["job"].as_str().unwrap();
    collecting.until("the end is collected", || {
        let info = std::fs::read_to_string(s.at("collected.INFO")).unwrap_or_default();
        info.lines().any(|l| l.contains("job.ended") && l.contains(id))
    });
    // killed, and its last words put right by the next
    drop(collecting);
    // the workers' own words may come later than the end of the job
    wait_until("all is told", PATIENCE, || {
        Run::of(c.command(["logs", "--json"]).arg(&prefix)).expect(0);
        collected(&prefix).len() as u64 > r.count("files")
    });
    let all = collected(&prefix);
    eprintln!("{} events of {} entries", all.len(), r.count("files"));
    assert_each_once(&all);
}
