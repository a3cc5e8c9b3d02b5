//! Made-up jobs, for the tests of text and HTML.

use super::data::*;
use std::collections::BTreeMap;
use treeferry_core::Sample;
use treeferry_core::job::JobState;

/// A moment.
const BEGAN_MS: u64 = 1_790_000_000_000;

/// Nothing was done yet.
pub fn empty() -> Facts {
    Facts {
        format: FORMAT,
        job: "00000000000000ff".to_owned(),
        engine: Engine::Cluster,
        host: None,
        state: JobState::Running,
        paused: false,
        error: String::new(),
        src: "/data/old".to_owned(),
        src_inode: 2,
        dst: "/data/new".to_owned(),
        passes: vec!["copy".to_owned(), "dirtime".to_owned()],
        dry_run: false,
        began_ms: BEGAN_MS,
        ended_ms: None,
        seen_ms: BEGAN_MS,
        outstanding: 1,
        counters: BTreeMap::new(),
        sizes: Vec::new(),
        largest_files: Vec::new(),
        slowest_files: Vec::new(),
        largest_dirs: Vec::new(),
        longest_tasks: Vec::new(),
        running: Vec::new(),
        unfinished: Vec::new(),
        failure_groups: Vec::new(),
        failures: Vec::new(),
        history: Vec::new(),
        nodes: Vec::new(),
    }
}

fn counters(all: &[(&str, u64)]) -> BTreeMap<String, u64> {
    all.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

/// In its midst, on three nodes.
pub fn running() -> Facts {
    let minutes = 95;
    let wave = |i: u64| 40 + (i * 7919 % 23) * (1 + i % 3) + if (40..52).contains(&i) { 0 } else { 30 };
    let mut at = Sample { at_ms: BEGAN_MS, ..Sample::default() };
    let history: Vec<Sample> = (0..minutes)
        .map(|i| {
            at.at_ms += 60_000;
            at.files += wave(i) * 60_000 / 10;
            at.dirs += wave(i) * 600;
            at.copied_bytes += wave(i) * (60 << 20) * (1 + i % 4);
            at.outstanding = 400 + i;
            at
        })
        .collect();
    let node = |node: &str, files, copied_bytes| NodeShare {
        node: node.to_owned(),
        counters: counters(&[("files", files), ("dirs", files / 10), ("copied_bytes", copied_bytes)]),
    };
    let task = |work: &str, path: &str, seconds, worker: Option<&str>| TaskRow {
        work: work.to_owned(),
        path: path.to_owned(),
        seconds,
        worker: worker.map(str::to_owned),
    };
    let sizes = (0..18u32).map(|i| {
        let (from_bytes, below_bytes) = treeferry_core::sizes::Sizes::bounds(i as usize);
        let files = u64::from(18 - i) * (1 + u64::from(i * 5003 % 17)) * 91_234;
        SizeClass { from_bytes, below_bytes, files, bytes: files * (from_bytes + from_bytes / 2) }
    });
    let file = |path: &str, bytes, seconds| FileRow { path: path.to_owned(), bytes, seconds };
    Facts {
        seen_ms: at.at_ms,
        counters: counters(&[
            ("files", at.files),
            ("dirs", at.dirs),
            ("bytes", at.copied_bytes * 2),
            ("copied_files", at.files / 2),
            ("copied_bytes", at.copied_bytes),
            ("unchanged_files", at.files / 2 - 400),
            ("linked", 12_345),
            ("vanished", 7),
            ("retried", 31),
            ("left_out_owner", 400),
        ]),
        history,
        sizes: sizes.collect(),
        nodes: vec![
            node("node1", at.files / 2, at.copied_bytes / 2),
            node("node2", at.files / 3, at.copied_bytes / 3),
            node("node3", at.files / 6, at.copied_bytes / 6),
        ],
        running: vec![
            task("chunk", "climate/run7/restart.nc", 412.5, Some("node1-77")),
            task("walk", "home/u1/mail/cur", 31.0, Some("node2-1204")),
            task("files", "home/u9/cache", 0.4, Some("node3-9")),
        ],
        unfinished: vec![
            Subtree { path: "home".to_owned(), tasks: 311 },
            Subtree { path: "climate/run7".to_owned(), tasks: 64 },
            Subtree { path: "scratch".to_owned(), tasks: 2 },
        ],
        longest_tasks: vec![
            task("walk", "home/u1/mail/new", 1891.0, None),
            task("files", "scratch/tmp", 88.25, None),
        ],
        largest_dirs: vec![DirRow { path: "home/u1/mail/cur".to_owned(), entries: 4_812_331 }],
        largest_files: vec![
            file("climate/run7/restart.nc", 3 << 40, None),
            file("climate/run6/restart.nc", 1 << 39, None),
        ],
        slowest_files: vec![
            file("climate/run6/restart.nc", 1 << 39, Some(1204.2)),
            file("home/u3/a.iso", 4 << 30, Some(61.5)),
        ],
        ..empty()
    }
}

/// The same at its end.
pub fn done() -> Facts {
    let f = running();
    let nodes = f.nodes.clone();
    Facts {
        state: JobState::Done,
        ended_ms: Some(f.seen_ms),
        outstanding: 0,
        running: Vec::new(),
        unfinished: Vec::new(),
        nodes,
        ..f
    }
}

/// With failures and with names that want to be something else.
pub fn odd() -> Facts {
    let group =
        |op: &str, errno: i32, name: Option<&str>, error: &str, count, examples: &[&str]| FailureGroup {
            op: op.to_owned(),
            errno,
            errno_name: name.map(str::to_owned),
            side: "source".to_owned(),
            error: error.to_owned(),
            count,
            examples: examples.iter().map(|s| (*s).to_owned()).collect(),
        };
    let evil = "<script>alert(1)</script>/\"><img src=x onerror=alert(2)>/&amp;'";
    let mut f = done();
    f.state = JobState::Failed;
    f.counters.insert("failures".to_owned(), 20_118);
    f.src = format!("/data/{evil}");
    f.error = "lost \u{1b}[31m<b>root</b>".to_owned();
    f.failure_groups = vec![
        group(
            "openat",
            13,
            Some("EACCES"),
            "Permission denied",
            20_101,
            &["home/u1/.ssh", evil, "a\\#012b", "\u{202e}gpj.exe", "e/f"],
        ),
        group("copy_file_range", 5, Some("EIO"), "Input/output error", 16, &["x/\\#377\\#376"]),
        group(
            "copy",
            0,
            None,
            "changed each of the 4 times it was copied: run again when it is quiet",
            1,
            &["db/live.ibd"],
        ),
    ];
    f.largest_dirs.push(DirRow { path: evil.to_owned(), entries: 12 });
    f.largest_files.push(FileRow { path: "long/".repeat(300) + "name", bytes: 17, seconds: None });
    f
}

/// Everything as large as can be.
pub fn huge() -> Facts {
    let mut f = odd();
    for name in treeferry_core::Counters::TABLE.iter().map(|(name, _)| *name) {
        f.counters.insert(name.to_owned(), u64::MAX);
    }
    f.seen_ms = u64::MAX;
    f.ended_ms = Some(u64::MAX);
    let class = |i: usize| {
        let (from_bytes, below_bytes) = treeferry_core::sizes::Sizes::bounds(i);
        SizeClass { from_bytes, below_bytes, files: u64::MAX, bytes: u64::MAX }
    };
    f.sizes = (0..treeferry_core::sizes::Sizes::CLASSES).map(class).collect();
    let sample = |i: u64| Sample {
        at_ms: BEGAN_MS + i * 600_000,
        files: i << 53,
        copied_bytes: i << 53,
        ..Sample::default()
    };
    f.history = (0..1000).map(sample).collect();
    f.nodes = (0..1000)
        .map(|i| NodeShare {
            node: format!("node{i:04}"),
            counters: counters(&[("files", i), ("copied_bytes", i << 40)]),
        })
        .collect();
    f.failure_groups = (0..200)
        .map(|i| FailureGroup {
            errno: i,
            errno_name: treeferry_core::errno::name(i).map(str::to_owned),
            ..f.failure_groups[0].clone()
        })
        .collect();
    f.unfinished = (0..100).map(|i| Subtree { path: format!("d{i}"), tasks: u64::MAX }).collect();
    f
}
