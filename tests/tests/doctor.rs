//! `treeferry doctor` on nodes, trees and clusters that are well, and on some that are not.

use rustix::mount::MountFlags;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use treeferry_kit::mounts::{FsKind, Mount};
use treeferry_kit::oracle::snapshot;
use treeferry_kit::run::wait_until;
use treeferry_kit::services::Services;
use treeferry_tests::cluster::Cluster;
use treeferry_tests::{PATIENCE, Run, Scratch, args, command};

/// Asks without a cluster.
#[track_caller]
fn doctor(words: Vec<std::ffi::OsString>) -> Run {
    Run::of(command(["doctor", "--json"]).args(words))
}

/// Asks a cluster.
#[track_caller]
fn ask(config: &std::path::Path) -> Run {
    Run::of(command(["doctor", "--json"]).env("TREEFERRY_CONFIG", config))
}

/// The finding of a check.
#[track_caller]
fn the<'a>(r: &'a Run, check: &str) -> &'a Value {
    let all = r.json["findings"].as_array().unwrap_or_else(|| panic!("no findings from {r}"));
    all.iter().find(|f| f["check"] == check).unwrap_or_else(|| panic!("no {check} from {r}"))
}

#[track_caller]
fn assert_is(r: &Run, check: &str, severity: &str, words: &str) {
    let f = the(r, check);
    assert_eq!(f["severity"], severity, "{f}");
    assert_eq!(f["advice"].is_string(), severity != "ok", "{f}");
    let text = format!("{} {}", f["text"], f["advice"]);
    assert!(text.contains(words), "{words}: {f}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_node_alone_is_well_and_its_trees_are_left_as_they_were() {
    let s = Scratch::disk();
    s.src().file("a/b", "text");
    s.dst().file("c", "other");
    let (src, dst) = (snapshot(&s.at("src")).unwrap(), snapshot(&s.at("dst/c")).unwrap());
    let times = || fs::metadata(s.at("dst")).map(|m| (m.mtime(), m.mtime_nsec()));
    let before = times().unwrap();
    let r = doctor(s.words("")).expect(0);
    // what is tried in DST is removed again; that it was read, and that its status changed, can be seen
    assert_eq!((times().unwrap(), s.dst().list("")), (before, vec!["c".to_owned()]));
    assert_eq!(src.touched(&snapshot(&s.at("src")).unwrap()), [""; 0]);
    assert_eq!(dst.touched(&snapshot(&s.at("dst/c")).unwrap()), [""; 0]);
    assert_eq!((&r.json["problems"], &r.json["exit_code"]), (&0.into(), &0.into()), "{r}");
    assert_is(&r, "configuration", "ok", "no file");
    assert_is(&r, "cluster", "ok", "this machine alone");
    assert_is(&r, "src", "ok", " at ");
    assert_is(&r, "dst", "ok", "the file system of SRC");
    assert!(r.json["measured"]["dst_free_bytes"].as_u64() > Some(0), "{r}");
    assert_eq!(r.json["measured"]["workers"], Value::Null, "{r}");

    // in words: each area that was looked at, and a sum
    let t = Run::of(command(["doctor"]).args(s.words(""))).expect(0);
    for words in ["treeferry ", "This node", "Configuration", "SRC", "DST", "\n0 problems, "] {
        assert!(t.stdout.contains(words), "{words}: {t}");
    }
    assert!(!t.stdout.contains("Broker") && t.stderr.is_empty(), "{t}");
    assert_eq!(times().unwrap(), before);
    // without trees
    Run::of(&mut command(["doctor"])).expect(0);
    assert_eq!(doctor(args![s.at("src")]).expect(1).json, Value::Null);
}

#[test]
fn trees_that_cannot_be_used_are_3_and_nested_ones_1() {
    let s = Scratch::disk();
    s.src().dir("d");
    let r = doctor(args![s.at("missing"), s.at("dst")]).expect(3);
    assert_is(&r, "src", "problem", "No such file");
    let r = doctor(args![s.at("src"), s.at("no/where")]).expect(3);
    assert_is(&r, "dst", "problem", "No such file");
    let r = doctor(s.words("")).expect(0);
    assert_is(&r, "dst", "warning", "would be made");
    assert!(!s.at("dst").exists());
    let r = doctor(args![s.at("src"), s.at("src/d")]).expect(1);
    assert_is(&r, "guards", "problem", "inside");
    s.dst().file("x", "1");
    s.src().remove("d");
    assert_is(&doctor(s.words("")).expect(0), "src-empty", "warning", "mounted");
}

#[test]
fn a_target_that_cannot_be_written_or_cannot_hold_all_is_told() {
    if !is_root() {
        return;
    }
    let s = Scratch::disk();
    let tmpfs = Mount::sized(FsKind::Tmpfs, 1 << 20, Some(100)).unwrap();
    let target = tmpfs.path();
    let r = doctor(args![s.at("src"), target]).expect(0);
    assert_is(&r, "dst-bytes", "warning", "it will not fit");
    assert_is(&r, "dst-inodes", "warning", "of 100 inodes");
    assert_eq!(fs::read_dir(target).unwrap().count(), 0);
    // as a source it is a mount point, and has a mount below it
    fs::create_dir(target.join("below")).unwrap();
    let inner = target.join("below");
    rustix::mount::mount("none", &inner, "tmpfs", MountFlags::empty(), None).unwrap();
    let r = doctor(args![target, s.at("dst")]);
    rustix::mount::unmount(&inner, rustix::mount::UnmountFlags::empty()).unwrap();
    let r = r.expect(0);
    assert_is(&r, "src-mount-point", "warning", "mountpoint -q");
    assert_is(&r, "src-mounts", "warning", "below");
    // full, and read-only
    let _ = fs::write(target.join("fill"), vec![1; 2 << 20]);
    assert_is(&doctor(args![s.at("src"), target]).expect(3), "dst-bytes", "problem", "make room");
    fs::remove_file(target.join("fill")).unwrap();
    let flags = MountFlags::RDONLY;
    rustix::mount::mount_remount(target, flags, "").unwrap();
    let r = doctor(args![s.at("src"), target]).expect(3);
    assert_is(&r, "dst-writable", "problem", "Read-only file system");
}

#[test]
fn limits_and_lost_capabilities_are_told() {
    let mut c = Command::new("bash");
    let line = format!("ulimit -n 1000 && exec {} doctor --json", treeferry_tests::bin().display());
    let r = Run::of(c.args(["-c", &line]).env_remove("TREEFERRY_CONFIG")).expect(0);
    assert_is(&r, "open-files", "warning", "at most 1000 open files");
    if !is_root() {
        return;
    }
    assert_is(&Run::of(&mut command(["doctor", "--json"])), "open-files", "ok", "open files");
    let bin = treeferry_tests::bin();
    let mut c = Command::new("setpriv");
    c.args(["--bounding-set=-chown,-mknod", "--inh-caps=-chown,-mknod"]).arg(bin).args(["doctor", "--json"]);
    let r = Run::of(c.env_remove("TREEFERRY_CONFIG")).expect(0);
    assert_is(&r, "cap-chown", "warning", "left_out_owner");
    assert_is(&r, "cap-mknod", "warning", "left_out_devices");
    assert!(r.json["findings"].as_array().unwrap().iter().all(|f| f["check"] != "cap-fowner"), "{r}");
    let mut c = Command::new("unshare");
    let r = Run::of(c.args(["--user", "--map-root-user"]).arg(bin).args(["doctor", "--json"])).expect(0);
    assert_is(&r, "user-namespace", "warning", "knows 1 user ids");
}

#[test]
fn a_configuration_that_cannot_be_used_is_1_and_the_rest_is_told() {
    let s = Scratch::disk();
    let file = s.at("site.toml");
    let url = "amqp://u:secret@127.0.0.1:1/%2f";
    fs::write(&file, format!("[cluster]\nbroker = \"{url}\"\nledger = \"redis://:secret@127.0.0.1:1/0\"\n"))
        .unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let r = ask(&file).expect(1);
    assert_is(&r, "configuration", "problem", "others can read it: chmod 600");
    the(&r, "kernel");
    assert!(!r.stdout.contains("secret"), "{r}");
    fs::write(&file, "[cluster]\nbrooker = 3\n").unwrap();
    assert_is(&ask(&file).expect(1), "configuration", "problem", "brooker");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    assert_is(&ask(&file).expect(0), "configuration", "warning", "0666");
    assert_is(&ask(&s.at("no-such-file")).expect(1), "configuration", "problem", "No such file");
    let half = Run::of(&mut command(["doctor", "--json", "--broker", url])).expect(1);
    assert_is(&half, "configuration", "problem", "--ledger");
}

#[test]
fn servers_that_are_not_there_are_69_and_no_password_is_shown() {
    let url = ["--broker", "amqp://u:secret@127.0.0.1:1/%2f", "--ledger", "redis://:secret@127.0.0.1:1/0"];
    let r = Run::of(command(["doctor", "--json"]).args(url)).expect(69);
    assert_is(&r, "broker", "problem", "nobody listens");
    assert_is(&r, "ledger", "problem", "nobody listens");
    assert!(the(&r, "broker")["text"].as_str().unwrap().contains("127.0.0.1:1"), "{r}");
    assert!(!r.stdout.contains("secret") && !r.stderr.contains("secret"), "{r}");
    let url = ["--broker", "amqp://u:p@no-such-host.invalid/%2f", "--ledger", "redis://no-such-host.invalid"];
    let r = Run::of(command(["doctor", "--json"]).args(url)).expect(69);
    assert_is(&r, "broker", "problem", "/etc/hosts");
    assert_is(&r, "ledger", "problem", "/etc/hosts");
}

#[test]
fn a_cluster_is_well_until_something_is_wrong_with_it() {
    let c = Cluster::start(2, 1);
    let config = c.services.config();
    let r = ask(&config).expect(0);
    for (check, words) in [
        ("configuration", "0600"),
        ("broker", "RabbitMQ 3."),
        ("queues", "5 queues"),
        ("publishing", "takes messages"),
        ("consumer-timeout", "600 s"),
        ("ledger", "Redis "),
        ("persistence", "everysec"),
        ("eviction", "noeviction"),
        ("ledger-clock", "its clock"),
        ("workers", "2 workers with 4 threads; 0 jobs run"),
        ("hardlinkers", "1 hardlinker"),
        ("versions", "all have our version"),
        ("clocks", "the clock of"),
    ] {
        assert_is(&r, check, "ok", words);
    }
    let m = &r.json["measured"];
    for trip in ["broker_round_trip_ms", "ledger_round_trip_ms"] {
        assert!(m[trip].as_f64().is_some_and(|ms| ms > 0.0 && ms < 1000.0), "{m}");
    }
    // one machine has one clock
    let off = |v: &Value| v.as_i64().map_or(i64::MAX, i64::abs);
    assert!(off(&m["ledger_clock_ms"]) < 1000, "{m}");
    let daemons = m["workers"].as_array().unwrap();
    assert!(daemons.len() == 3 && daemons.iter().all(|w| off(&w["clock_ms"]) < 1000), "{m}");

    // dead letters, and a daemon that is told to rest
    let publish = "X = rabbit_misc:r(<<\"/\">>, exchange, <<>>), \
        rabbit_basic:publish(X, <<\"treeferry.walk\">>, [], <<\"not ours\">>).";
    let said = c.services.rabbitmqctl(&["eval", publish]);
    let dead = |r: &Run| r.json["findings"].as_array().unwrap().iter().any(|f| f["check"] == "dead-letters");
    wait_until(&format!("it is a dead letter: {said}"), PATIENCE, || dead(&ask(&config)));
    assert_is(&ask(&config).expect(23), "dead-letters", "problem", "1 dead letters in treeferry.dead");
    c.services.rabbitmqctl(&["purge_queue", "treeferry.dead"]);
    c.call("pause --worker w0");
    wait_until("it rests", PATIENCE, || c.reports().iter().any(|w| w["paused"] == true));
    assert_is(&ask(&config).expect(0), "paused", "warning", "w0-");
    c.call("resume");

    // a daemon that hangs, and no hardlinker
    let pid = rustix::process::Pid::from_raw(c.pid("w1") as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let silent = ask(&config);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert_is(&silent.expect(0), "silent", "warning", "w1-");
    c.call("shutdown h0");
    wait_until("no hardlinker", PATIENCE, || {
        ask(&config).json["measured"]["workers"]
            .as_array()
            .is_some_and(|w| w.iter().all(|w| w["kind"] != "hardlinker"))
    });
    assert_is(&ask(&config).expect(0), "hardlinkers", "warning", "start two");

    // an alarm of the broker: it hears no publisher
    c.services.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1"]);
    wait_until("the alarm is on", PATIENCE, || the(&ask(&config), "publishing")["severity"] == "problem");
    assert_is(&ask(&config).expect(23), "publishing", "problem", "low on memory");
    c.services.rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]);
    wait_until("the alarm is over", PATIENCE, || ask(&config).status.success());

    // a server at a time
    c.kill_server("redis");
    let r = ask(&config).expect(69);
    assert_is(&r, "ledger", "problem", "nobody listens");
    assert_is(&r, "publishing", "ok", "takes messages");
    c.services.call("start");
    c.kill_server("rabbitmq");
    let r = ask(&config).expect(69);
    assert_is(&r, "broker", "problem", "nobody listens");
    assert_is(&r, "eviction", "ok", "noeviction");
}

#[test]
fn servers_that_are_not_as_they_should_be_are_told() {
    let s = Services::start();
    let config = s.config();
    let r = ask(&config).expect(0);
    assert_is(&r, "queues", "ok", "no queues yet");
    assert_is(&r, "workers", "warning", "treeferry worker");
    // asking has made none
    assert_eq!(s.rabbitmqctl(&["-q", "list_queues", "--no-table-headers", "name"]).trim(), "");

    // a queue of another make
    let declare = "rabbit_amqqueue:declare(rabbit_misc:r(<<\"/\">>, queue, <<\"treeferry.links\">>), \
        true, false, [], none, <<\"test\">>).";
    s.rabbitmqctl(&["eval", declare]);
    assert_is(&ask(&config).expect(23), "queues", "problem", "x-single-active-consumer");
    s.rabbitmqctl(&["delete_queue", "treeferry.links"]);
    // a user who may not publish, as the default exchange has a name of its own in permissions
    s.rabbitmqctl(&["set_permissions", "treeferry", r"^treeferry\.", r"^treeferry\.", r"^treeferry\."]);
    assert_is(&ask(&config).expect(23), "publishing", "problem", "amq.default");
    s.rabbitmqctl(&["set_permissions", "treeferry", "^$", "^$", "^$"]);
    assert_is(&ask(&config).expect(23), "queues", "problem", "configure");
    s.rabbitmqctl(&["set_permissions", "treeferry", ".*", ".*", ".*"]);

    // a Redis that forgets
    let set = |key: &str, value: &str| assert_eq!(s.redis_cli(["config", "set", key, value]), "OK");
    set("maxmemory-policy", "allkeys-lru");
    assert_is(&ask(&config).expect(0), "eviction", "warning", "allkeys-lru");
    set("maxmemory", "100mb");
    assert_is(&ask(&config).expect(23), "eviction", "problem", "noeviction");
    set("maxmemory", "0");
    set("maxmemory-policy", "noeviction");
    set("appendfsync", "no");
    assert_is(&ask(&config).expect(0), "persistence", "warning", "everysec");
    set("appendonly", "no");
    assert_is(&ask(&config).expect(23), "persistence", "problem", "appendonly yes");

    // wrong passwords
    let wrong = |url: &str| url.replacen(url.split([':', '@']).nth(2).unwrap(), "dr0wssap", 1);
    let (broker, ledger) = (wrong(&s.broker), wrong(&s.ledger));
    let r = Run::of(&mut command(["doctor", "--json", "--broker", &broker, "--ledger", &ledger])).expect(69);
    assert_is(&r, "broker", "problem", "password");
    assert_is(&r, "ledger", "problem", "password");
    assert!(!r.stdout.contains("dr0wssap"), "{r}");
}
