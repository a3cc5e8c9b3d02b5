//! Metrics, end to end: what a Graphite that only listens hears of jobs of both engines, through kills and broken
//! connections; a real carbon-cache and graphite-web, asked every query of the dashboards; and what Prometheus is told.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use treeferry_kit::run::wait_until;
use treeferry_kit::tree::{Kind, Spec};
use treeferry_tests::cluster::Cluster;
use treeferry_tests::graphite::{Graphite, free_ports, http};
use treeferry_tests::{Live, PATIENCE, Run, Scratch, command};

/// Of cmover's names, the counter that the increments of each are of.
const CMOVER: [(&str, &str); 5] = [
    ("cmover.file_{host}_0.files", "files"),
    ("cmover.file_{host}_0.data", "copied_bytes"),
    ("cmover.dir_{host}_0.dirs", "dirs"),
    ("cmover.del_file_{host}_0.files", "deleted"),
    ("cmover.del_dir_{host}_0.dirs", "dirs"),
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a Graphite hears: path, value, time.
#[derive(Clone)]
struct Listener {
    port: u16,
    heard: Arc<Mutex<Vec<(String, f64, u64)>>>,
}

impl Listener {
    /// Listens; `patience`: after so many lines a connection is closed, and what was under way is lost.
    fn start(patience: usize) -> Listener {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let l = Listener { port: server.local_addr().unwrap().port(), heard: Arc::default() };
        let heard = Arc::clone(&l.heard);
        std::thread::spawn(move || {
            for stream in server.incoming().flatten() {
                let heard = Arc::clone(&heard);
                std::thread::spawn(move || {
                    for line in BufReader::new(stream).lines().map_while(Result::ok).take(patience) {
                        heard.lock().unwrap().push(parsed(&line));
                    }
                });
            }
        });
        l
    }

    fn config(&self, more: &str) -> String {
        format!("\n[metrics]\ngraphite = \"127.0.0.1:{}\"\ninterval = 1\n{more}\n", self.port)
    }

    fn all(&self) -> Vec<(String, f64, u64)> {
        self.heard.lock().unwrap().clone()
    }

    /// Of each path the values of each second.
    fn series(&self) -> BTreeMap<String, BTreeMap<u64, Vec<f64>>> {
        let mut all: BTreeMap<String, BTreeMap<u64, Vec<f64>>> = BTreeMap::new();
        for (path, value, at) in self.all() {
            all.entry(path).or_default().entry(at).or_default().push(value);
        }
        all
    }

    /// Of each counter of a job the sum over the hosts of what was told last.
    fn sums(&self, job: &str) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for (path, values) in self.series() {
            let words: Vec<&str> = path.split('.').collect();
            let [_, of, host, counter] = words[..] else { continue };
            if of == job && host != "all" {
                *sums.entry(counter.to_owned()).or_default() += greatest(values.values().flatten()) as u64;
            }
        }
        sums
    }

    /// A counter that goes back, if there is one: nothing of a later second may be less than anything of an earlier.
    #[track_caller]
    fn assert_monotonic(&self, job: &str) {
        for (path, values) in self.series().into_iter().filter(|(p, _)| p.contains(job)) {
            let is_counter = !["outstanding", "task_seconds", ".node."].iter().any(|x| path.contains(x));
            let mut before = 0.0;
            for (at, now) in values.into_iter().filter(|_| is_counter) {
                let least = now.iter().copied().fold(f64::MAX, f64::min);
                assert!(least >= before, "{path} was {before} and is {least} at {at}");
                before = greatest(&now);
            }
        }
    }

    /// What was told under one of cmover's names, over all hosts. Of one second the greatest stands for all.
    fn increments(&self, pattern: &str) -> u64 {
        let (front, back) = pattern.split_once("{host}").unwrap();
        let series = self.series();
        let named = series.iter().filter(|(path, _)| {
            let rest = path.strip_prefix("treeferry.").unwrap_or_default();
            rest.starts_with(front) && rest.ends_with(back)
        });
        named.flat_map(|(_, values)| values.values()).map(|second| greatest(second) as u64).sum()
    }
}

fn greatest<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().copied().fold(0.0, f64::max)
}

fn parsed(line: &str) -> (String, f64, u64) {
    let words: Vec<&str> = line.split(' ').collect();
    let [path, value, at] = words[..] else { panic!("no line of Graphite's protocol: {line:?}") };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    assert!(path.chars().all(plain) && !path.contains(".."), "{line:?}");
    (path.to_owned(), value.parse().expect("a number"), at.parse().expect("a time"))
}

/// The paths of the table of `docs/metrics.md`, without the words that stand for labels.
fn documented() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let rows = text.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next());
    rows.map(|path| path.split('.').map(str::to_owned).collect()).collect()
}

fn is_documented(path: &str, table: &[Vec<String>]) -> bool {
    let words: Vec<&str> = path.split('.').skip(1).collect();
    let fits = |word: &str, pattern: &str| match (pattern.split_once('{'), pattern.rsplit_once('}')) {
        (Some((front, _)), Some((_, back))) => word.starts_with(front) && word.ends_with(back),
        _ => word == pattern,
    };
    let is = |row: &Vec<String>| {
        // of a summary its quantiles are words of their own; names of cmover's queues are several words in one
        let n = row.len();
        let summary = n + 1 == words.len() && row.contains(&"task_seconds".to_owned());
        let queue = row[0] == "{queues}" && words.iter().any(|w| w.starts_with("mover"));
        queue || (n == words.len() || summary) && row.iter().zip(&words).all(|(r, w)| fits(w, r))
    };
    table.iter().any(is)
}

/// A tree of small files with hard links and symlinks, and at the target what is to be deleted.
fn plant(s: &Scratch, files: u64) {
    Spec::new(Kind::Small).count(files).make(&s.at("src/small")).unwrap();
    for i in 0..40 {
        s.src().file(&format!("links/{}/first{i}", i % 4), "content").symlink(&format!("links/s{i}"), "x");
        s.src().link(&format!("links/{}/first{i}", i % 4), &format!("links/second{i}"));
        s.dst().file(&format!("extra/{i}"), "x");
    }
}

fn config_file(s: &Scratch, text: &str) -> PathBuf {
    let file = s.at("metrics.toml");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_job_of_the_embedded_engine_tells_all_that_it_counts_until_its_end() {
    let l = Listener::start(usize::MAX);
    let s = Scratch::disk();
    plant(&s, 600);
    let [port] = free_ports();
    let more = format!("cmover-names = true\nprometheus = \"127.0.0.1:{port}\"");
    let config = config_file(&s, &l.config(&more));
    let mut c = command(["sync", "--json", "--config"]);
    let mut live = Live::of(c.arg(&config).args(s.words("--delete --iops 700")));
    let asked = || String::from_utf8(http(port, "/metrics", None).1).unwrap();
    live.until("Graphite has heard twice of it", || {
        l.all().iter().any(|(p, v, _)| p.ends_with(".files") && *v > 0.0)
    });
    let prometheus = asked();
    let r = live.finish().expect(0);
    s.assert_same();

    let job = r.json["job"].as_str().unwrap().to_owned();
    let sums = l.sums(&job);
    let counters = r.json["counters"].as_object().unwrap();
    assert!(counters.len() > 20);
    for (name, n) in counters {
        assert_eq!(sums.get(name).copied(), n.as_u64(), "{name}");
    }
    l.assert_monotonic(&job);
    let series = l.series();
    let of = |end: &str| series.iter().find(|(p, _)| p.contains(&job) && p.ends_with(end)).expect(end).1;
    // at 700 operations a second, a moment after it has begun
    let first = of(".files").values().next().unwrap()[0];
    assert!(first < 70.0, "it is told from the beginning: {first}");
    assert_eq!(*of(".all.outstanding").values().last().unwrap().last().unwrap(), 0.0);
    assert!(greatest(of(".task_seconds.walk.p99").values().flatten()) > 0.0);
    assert!(greatest(of(".busy").values().flatten()) >= 1.0);
    for (pattern, counter) in CMOVER {
        assert_eq!(Some(l.increments(pattern)), counters[counter].as_u64(), "{pattern}");
    }
    let table = documented();
    for path in series.keys() {
        assert!(is_documented(path, &table), "{path} is not in docs/metrics.md");
    }
    assert!(!is_documented("treeferry.x.y.nothing", &table));
    for name in counters.keys() {
        let named = format!("treeferry_{name}_total{{job_id=\"{job}\",host=\"");
        assert!(prometheus.contains(&named), "{named} is not in {prometheus}");
    }
}

#[test]
fn a_mirror_tells_up_to_when_it_is_complete() {
    let l = Listener::start(usize::MAX);
    let s = Scratch::disk();
    plant(&s, 20);
    let config = config_file(&s, &l.config(""));
    let began = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let mut c = command(["watch", "--json", "--config"]);
    let mut live = Live::of(c.arg(&config).args(s.words("")));
    let told = |end: &str| -> Vec<f64> {
        let all = l.all();
        all.iter().filter(|(p, _, _)| p.ends_with(end)).map(|(_, v, _)| *v).collect()
    };
    live.until("it is complete up to a moment after its beginning", || {
        told(".all.mirror.complete_up_to").iter().any(|t| *t > began)
    });
    live.signal(rustix::process::Signal::TERM);
    live.finish().expect(0);
    let lag = told(".all.mirror.lag");
    assert!(!lag.is_empty() && lag.iter().all(|s| (0.0..3600.0).contains(s)), "{lag:?}");
    assert_eq!(told(".all.mirror.failing").last(), Some(&0.0));
    let table = documented();
    for (path, _, _) in l.all() {
        assert!(is_documented(&path, &table), "{path} is not in docs/metrics.md");
    }
}

#[test]
fn failures_are_told_by_their_class() {
    let l = Listener::start(usize::MAX);
    let s = Scratch::disk();
    for i in 0..7 {
        s.src().file(&format!("bad{i}"), "x").file(&format!("good{i}"), "x").file(&format!("full{i}"), "x");
    }
    let config = config_file(&s, &l.config(""));
    let mut c = command(["sync", "--json", "--config"]);
    let faults: Vec<String> = (0..7)
        .map(|i| format!("call=openat,errno=EACCES,path=bad{i};call=renameat,errno=ENOSPC,path=full{i}"))
        .collect();
    c.arg(&config).args(s.words("")).env("TREEFERRY_FAULTS", faults.join(";"));
    let r = Run::of(&mut c).expect(23);
    let told = |class: &str| {
        let end = format!(".failures_by_errno.{class}");
        l.all().into_iter().rfind(|(p, ..)| p.ends_with(&end)).map(|(_, n, _)| n)
    };
    let classes: BTreeSet<String> =
        r.json["failures"].as_array().unwrap().iter().map(|f| f["error"].to_string()).collect();
    assert_eq!(told("EACCES"), Some(7.0), "{classes:?}");
    let sum: f64 = ["EACCES", "ENOSPC", "none"].iter().filter_map(|c| told(c)).sum();
    assert_eq!(sum as u64, r.count("failures"), "{r}");
}

#[test]
fn a_graphite_that_is_not_there_or_closes_every_connection_changes_nothing() {
    let s = Scratch::disk();
    plant(&s, 100);
    let [nobody] = free_ports();
    let config = config_file(&s, &format!("[metrics]\ngraphite = \"127.0.0.1:{nobody}\"\ninterval = 1\n"));
    let mut c = command(["sync", "--json", "--config"]);
    let r = Run::of(c.arg(&config).args(s.words("--delete"))).expect(0);
    assert!(r.stderr.contains(&format!("Graphite at 127.0.0.1:{nobody}")), "{r}");
    assert!(r.stderr.contains("values did not get to Graphite"), "{r}");
    s.assert_same();

    s.dst().remove("");
    // a reading is some 40 lines
    let l = Listener::start(25);
    let config = config_file(&s, &l.config(""));
    let mut c = command(["sync", "--json", "--config"]);
    let r = Run::of(c.arg(&config).args(s.words("--iops 300"))).expect(0);
    s.assert_same();
    let job = r.json["job"].as_str().unwrap().to_owned();
    l.assert_monotonic(&job);
    assert!(l.sums(&job).contains_key("files"), "what is closed is opened again");
}

#[test]
fn a_section_that_makes_no_sense_is_refused_before_anything_is_done() {
    let s = Scratch::disk();
    s.src().file("a", "x");
    for (text, said) in [
        ("graphite = \"nowhere\"", "metrics.graphite"),
        ("prometheus = \"9464\"", "metrics.prometheus"),
        ("cmover-names = true", "metrics.cmover-names"),
        ("graphit = \"a:1\"", "graphit"),
    ] {
        let config = config_file(&s, &format!("[metrics]\n{text}\n"));
        for what in ["sync", "verify"] {
            let mut c = command([what, "--config"]);
            let r = Run::of(c.arg(&config).args(s.words(""))).expect(1);
            assert!(r.stderr.contains(said), "{r}");
        }
        assert!(!s.dst().has("a"));
    }
}

#[test]
fn what_nodes_tell_is_what_the_job_has_counted_through_kills() {
    let l = Listener::start(usize::MAX);
    let mut c = Cluster::configured(&l.config("cmover-names = true"), &[], 3, 1);
    let s = Scratch::disk();
    plant(&s, 6000);
    let id = c.detach(&s, "--delete --iops 600");
    let files = |c: &Cluster| c.job(&id)["counters"]["files"].as_u64().unwrap();
    for (n, (name, again)) in
        [("w0", true), ("w1", true), ("w0", true), ("w2", false)].into_iter().enumerate()
    {
        let enough = 800 * (n as u64 + 1);
        wait_until("more is done", PATIENCE, || files(&c) >= enough);
        assert_eq!(c.job(&id)["state"], "running", "it is too fast for this test");
        c.kill(name);
        if again {
            c.start_again(name);
        }
    }
    let end = c.await_end(&id);
    assert_eq!(end["state"], "done");
    s.assert_same();
    let counters = end["counters"].as_object().unwrap();
    wait_until("all was told", PATIENCE, || {
        let sums = l.sums(&id);
        counters.iter().all(|(name, n)| sums.get(name).copied() == n.as_u64())
            && CMOVER
                .iter()
                .all(|(pattern, counter)| Some(l.increments(pattern)) == counters[*counter].as_u64())
    });
    // and it stays so
    std::thread::sleep(Duration::from_secs(3));
    let sums = l.sums(&id);
    for (name, n) in counters {
        assert_eq!(sums.get(name).copied(), n.as_u64(), "{name}");
    }
    for (pattern, counter) in CMOVER {
        assert_eq!(Some(l.increments(pattern)), counters[counter].as_u64(), "{pattern}");
    }
    l.assert_monotonic(&id);
    let series = l.series();
    let hosts: BTreeSet<&str> =
        series.keys().filter(|p| p.contains(&id)).filter_map(|p| p.split('.').nth(2)).collect();
    assert_eq!(hosts, BTreeSet::from(["all", "h0", "w0", "w1", "w2"]));
    let table = documented();
    for path in series.keys() {
        assert!(is_documented(path, &table), "{path} is not in docs/metrics.md");
    }
}

fn dashboard(name: &str) -> Value {
    let file = repository().join("sample/dashboards").join(name);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// The queries of a Grafana dashboard: title of the panel and `key` of its targets.
fn queries(dashboard: &Value, key: &str) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap();
    let of = |p: &Value| {
        let title = p["title"].as_str().unwrap().to_owned();
        let targets = p["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |t| (title.clone(), t[key].as_str().expect("a query").to_owned()))
    };
    panels.iter().flat_map(of).collect()
}

/// Metrics of Prometheus in a query, with the labels that the query wants of them.
fn wanted(query: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut by: BTreeSet<String> = BTreeSet::new();
    for part in query.split(" by (").skip(1) {
        by.extend(part.split(')').next().unwrap().split(',').map(|l| l.trim().to_owned()));
    }
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    query
        .match_indices("treeferry_")
        .map(|(i, _)| {
            let name: String = query[i..].chars().take_while(|c| word(*c)).collect();
            let rest = &query[i + name.len()..];
            let selector = rest.strip_prefix('{').and_then(|r| r.split('}').next()).unwrap_or_default();
            let keys = selector.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.trim().to_owned()));
            (name, keys.chain(by.iter().cloned()).collect())
        })
        .collect()
}

#[test]
fn dashboards_of_grafana_have_the_form_of_its_model() {
    for (name, kind, key) in
        [("grafana-graphite.json", "graphite", "target"), ("grafana-prometheus.json", "prometheus", "expr")]
    {
        let d = dashboard(name);
        assert!(d["schemaVersion"].as_u64().unwrap() >= 39 && d["id"].is_null(), "{name}");
        assert!(!d["title"].as_str().unwrap().is_empty() && d["uid"].as_str().unwrap().len() <= 40, "{name}");
        let variables = d["templating"]["list"].as_array().unwrap();
        let named: Vec<&str> = variables.iter().map(|v| v["name"].as_str().unwrap()).collect();
        let source = &variables[0];
        assert_eq!(
            (&source["name"], &source["type"], &source["query"]),
            (&"datasource".into(), &"datasource".into(), &kind.into())
        );
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for p in d["panels"].as_array().unwrap() {
            let title = &p["title"];
            assert!(ids.insert(p["id"].as_u64().unwrap()), "{name}: two panels have the id {}", p["id"]);
            let at =
                |k: &str| p["gridPos"][k].as_u64().unwrap_or_else(|| panic!("{name}: {title}: gridPos.{k}"));
            assert!(at("w") >= 1 && at("h") >= 1 && at("x") + at("w") <= 24, "{name}: {title}");
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(taken.insert((x, y)), "{name}: {title} lies over another");
                }
            }
            if p["type"] == "row" {
                assert_eq!(p["panels"], Value::Array(Vec::new()), "{name}: {title}");
                continue;
            }
            assert!(["stat", "timeseries"].contains(&p["type"].as_str().unwrap()), "{name}: {title}");
            let here =
                |v: &Value| v["datasource"]["type"] == kind && v["datasource"]["uid"] == "${datasource}";
            let targets = p["targets"].as_array().unwrap();
            assert!(here(p) && !targets.is_empty() && targets.iter().all(here), "{name}: {title}");
            let refs: BTreeSet<&str> = targets.iter().map(|t| t["refId"].as_str().unwrap()).collect();
            assert_eq!(refs.len(), targets.len(), "{name}: {title}");
            assert!(
                p["fieldConfig"]["defaults"]["unit"].is_string() && p["options"].is_object(),
                "{name}: {title}"
            );
        }
        let all = queries(&d, key);
        assert!(all.len() > 30, "{name}");
        for (title, q) in &all {
            let used = q
                .split('$')
                .skip(1)
                .map(|r| r.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>());
            for v in used {
                assert!(
                    v == "__rate_interval" || v.is_empty() || named.contains(&v.as_str()),
                    "{name}: {title}: ${v}"
                );
            }
        }
    }
}

#[test]
fn every_query_of_the_dashboards_is_answered_by_a_real_graphite_and_every_metric_is_told_prometheus() {
    let aggregation = repository().join("sample/dashboards/storage-aggregation.conf");
    let g = Graphite::start(&aggregation);
    let [port] = free_ports();
    let config = format!(
        "\n[metrics]\ngraphite = \"{}\"\ninterval = 1\ncmover-names = true\nprometheus = \"127.0.0.1:{port}\"\n",
        g.address
    );
    let faults = [("TREEFERRY_FAULTS", "call=openat,errno=EACCES,path=bad")];
    let c = Cluster::configured(&config, &faults, 2, 1);
    let s = Scratch::disk();
    plant(&s, 1500);
    s.src().file("bad", "x");
    let id = c.detach(&s, "--delete --iops 400");
    let is_running = || c.job(&id)["state"] == "running";
    wait_until("the job is half done", PATIENCE, || c.job(&id)["counters"]["files"].as_u64().unwrap() > 700);

    // Prometheus, while it runs: each process at a port of its own
    let mut told = String::new();
    for p in port..port + 10 {
        if std::net::TcpStream::connect(("127.0.0.1", p)).is_ok() {
            told += &String::from_utf8(http(p, "/metrics", None).1).unwrap();
        }
    }
    assert!(is_running(), "it is too fast for this test");
    let end = c.await_end(&id);
    assert_eq!((&end["state"], &end["counters"]["failures"]), (&"failed".into(), &1.into()), "{end}");

    let mut all: Vec<(String, String)> = queries(&dashboard("grafana-graphite.json"), "target");
    for (_, q) in &mut all {
        *q = q.replace("$prefix", "treeferry").replace("$job", &"?".repeat(16)).replace("$host", "*");
    }
    let own = dashboard("graphite-web.json");
    let graphs = own["graphs"].as_array().unwrap();
    for graph in graphs {
        let title = graph[1]["title"].as_str().unwrap();
        for q in graph[1]["target"].as_array().unwrap() {
            all.push((title.to_owned(), q.as_str().unwrap().to_owned()));
        }
    }
    assert!(all.len() > 60);
    let is_answered = |q: &str| g.render(q).iter().any(|(_, values)| !values.is_empty());
    for (title, q) in &all {
        wait_until(&format!("Graphite has an answer for {title}: {q}"), PATIENCE, || is_answered(q));
    }
    let files = end["counters"]["files"].as_f64().unwrap();
    let sum = format!("sumSeries(keepLastValue(treeferry.{id}.*.files))");
    wait_until("Graphite has the sum of the job", PATIENCE, || {
        g.render(&sum)[0].1.last().copied() == Some(files)
    });

    // the dashboard of graphite-web is taken by it, and each of its pictures drawn
    let file = std::fs::read_to_string(repository().join("sample/dashboards/graphite-web.json")).unwrap();
    let body = format!("state={}", treeferry_tests::graphite::encoded(&file));
    let saved: Value = serde_json::from_slice(&g.web("/dashboard/save/treeferry", Some(&body))).unwrap();
    assert_eq!(saved["success"], true, "{saved}");
    let loaded: Value = serde_json::from_slice(&g.web("/dashboard/load/treeferry", None)).unwrap();
    assert_eq!(loaded["state"], own);
    let keep = std::env::var_os("TREEFERRY_PICTURES").map(PathBuf::from);
    for (n, graph) in graphs.iter().enumerate() {
        let url = graph[2].as_str().unwrap();
        let picture = g.web(&url.replace("from=-1hours", "from=-2min"), None);
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 5000, "{url}: {} bytes", picture.len());
        if let Some(dir) = &keep {
            std::fs::write(dir.join(format!("{n:02}.png")), picture).unwrap();
        }
    }

    for (title, q) in queries(&dashboard("grafana-prometheus.json"), "expr") {
        let metrics = wanted(&q);
        assert!(!metrics.is_empty(), "{title}: {q}");
        for (name, labels) in metrics {
            let line = told.lines().find(|l| l.starts_with(&format!("{name}{{")));
            // who has no failure says nothing of their classes
            let line = line.unwrap_or_else(|| panic!("{title}: {name} is not told:\n{told}"));
            for label in labels {
                assert!(line.contains(&format!("{label}=\"")), "{title}: {label} in {line}");
            }
        }
    }
}
