//! The wire format is a promise: golden files of released versions are read for ever and never edited.

use treeferry_core::change::Differs;
use treeferry_core::task::Stamp;
use treeferry_core::wire::{self, WireError};
use treeferry_core::{
    Change, Counters, Failure, Fresh, GroupKey, Item, JoinId, Kind, Names, NewTask, Notice, Outcome, RelPath,
    Seal, Side, StagedFile, Task, TaskId, Work,
};

fn path(b: &[u8]) -> RelPath {
    RelPath::new(b).unwrap()
}

fn staged() -> StagedFile {
    StagedFile {
        path: path(b"big/f\xff"),
        staged: path(b"big/.treeferry.1"),
        inode: 77,
        stamp: Stamp { ino: 1 << 40, size: 1 << 41, mtime: (-1, 999_999_999), ctime: (1 << 33, 1) },
        group: Some(GroupKey { dev: 66_306, ino: 12 }),
        new: true,
        holes: true,
        attempt: 2,
    }
}

/// One task of each kind.
fn tasks() -> Vec<Task> {
    let mut names = Names::default();
    names.push(c"a", Kind::File);
    names.push(c"new\nline", Kind::Symlink);
    let dir = path(b"d/\xfe");
    let works = [
        Work::Walk { path: RelPath::root(), fresh: Fresh::No, resume: None },
        Work::Files { dir: dir.clone(), fresh: Fresh::Plain, names: names.clone() },
        Work::Chunk { file: staged(), offset: 1 << 33, len: 1 << 32 },
        Work::Publish { file: staged(), chunks: 4096 },
        Work::Link { path: dir.clone(), kind: Kind::Fifo, group: GroupKey { dev: 1, ino: 2 } },
        Work::FinishDir { path: dir.clone(), listed: true, fresh: Fresh::Made, mode: Some(0o500) },
        Work::Remove { path: dir.clone() },
        Work::RemoveNames { dir: dir.clone(), names: names.clone() },
        Work::RemoveDir { path: dir.clone(), above: 1000 },
        Work::Look { dir: dir.clone(), names, ticket: 1 << 33 },
        Work::Move { from: dir.clone(), to: path(b"new"), ticket: 0 },
        Work::Names { dir, ticket: 1 << 40 },
    ];
    let of = |(i, work)| Task { id: TaskId(i as u64), join: Some(JoinId(300)), attempt: 1, tally: 9, work };
    works.into_iter().enumerate().map(of).collect()
}

fn outcome() -> Outcome {
    let child = || NewTask { join: None, attempt: 1, work: Work::Remove { path: path(b"x") } };
    let mut out = Outcome {
        opened: vec![JoinId(1), JoinId(u64::MAX)],
        children: vec![child()],
        later: vec![child()],
        parked: vec![(GroupKey { dev: 3, ino: 4 }, child())],
        released: vec![GroupKey { dev: 3, ino: 4 }],
        seals: vec![Seal { join: JoinId(1), tally: 3, follow_up: child() }],
        tally: 77,
        counters: Counters { files: 1, copied_bytes: u64::MAX, ..Counters::default() },
        ..Outcome::default()
    };
    out.fail(Failure::errno(path(b"y\n"), Side::Source, "read", 5));
    out.notice(Notice::TimesUnsupported);
    let item = Item::Replaced(Kind::File, Differs { size: true, ..Differs::default() });
    out.changes.push(Change { item, path: path(b"z") });
    out
}

/// Reads a golden file, or with TREEFERRY_WRITE_GOLDEN makes one that is not there yet.
fn golden(name: &str, now: &[u8]) -> Vec<u8> {
    let file = format!("{}/tests/golden/v{}-{name}", env!("CARGO_MANIFEST_DIR"), wire::VERSION);
    if std::env::var_os("TREEFERRY_WRITE_GOLDEN").is_some() && !std::path::Path::new(&file).exists() {
        std::fs::write(&file, now).unwrap();
    }
    std::fs::read(&file).unwrap_or_else(|e| panic!("{file}: {e}"))
}

#[test]
fn messages_of_released_versions_are_read_and_written_as_ever() {
    for t in tasks() {
        let now = wire::encode_task(&t);
        let then = golden(&format!("task-{}", t.work.name()), &now);
        assert_eq!(now, then, "the form of {} has changed: that is a new version", t.work.name());
        assert_eq!(wire::decode_task(&then).unwrap(), t);
    }
    let now = wire::encode_outcome(&outcome());
    let then = golden("outcome", &now);
    assert_eq!(now, then, "the form of an outcome has changed: that is a new version");
    assert_eq!(wire::decode_outcome(&then).unwrap(), outcome());
}

#[test]
fn what_is_cut_short_changed_or_foreign_is_refused_and_never_panics() {
    for t in tasks() {
        let good = wire::encode_task(&t);
        for n in 0..good.len() {
            assert!(wire::decode_task(&good[..n]).is_err(), "{} of {n} bytes", t.work.name());
        }
        for i in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[i] ^= 1 << bit;
                // many changes give another valid message; none may do worse than that
                let _ = wire::decode_task(&bad);
            }
        }
        let mut long = good.clone();
        long.push(0);
        assert!(wire::decode_task(&long).is_err());
    }
    let task = wire::encode_task(&tasks()[0]);
    assert!(matches!(wire::decode_outcome(&task), Err(WireError::Kind(1))));
    assert!(matches!(wire::decode_task(b"{}"), Err(WireError::NotOurs)));
    let mut newer = task;
    newer[3] += 1;
    assert!(matches!(wire::decode_task(&newer), Err(WireError::Version(2))));
}

#[test]
fn a_message_cannot_name_a_path_that_leads_outside() {
    let good = Task {
        id: TaskId(1),
        join: None,
        attempt: 0,
        tally: 0,
        work: Work::Remove { path: path(b"aa/bb/cc") },
    };
    let bytes = wire::encode_task(&good);
    let at = bytes.windows(8).position(|w| w == b"aa/bb/cc").unwrap();
    for evil in
        [&b"/a/bb/cc"[..], b"../bb/cc", b"aa/../cc", b"aa/bb/..", b"aa//b/cc", b"aa/b\0/cc", b"aa/bb/c/"]
    {
        let mut b = bytes.clone();
        b[at..at + 8].copy_from_slice(evil);
        assert!(matches!(wire::decode_task(&b), Err(WireError::Body(_))), "{evil:?}");
    }
}
