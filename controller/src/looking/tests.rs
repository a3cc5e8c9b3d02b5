use super::*;
use std::collections::BTreeSet;
use treeferry_core::{Change, Failure, GroupKey, JobSpec, Notice, Pass, RelPath};
use treeferry_worker::{Mirrored, NameBook, Reporter, Search};

/// Of a broker that is away, or not.
struct Broker {
    away: Arc<AtomicBool>,
    said: Arc<Mutex<Vec<RelPath>>>,
}

impl Mirrored for Broker {
    fn again(&self, path: RelPath, _: bool, _: &RelPath) {
        lock(&self.said).push(path);
    }
    fn again_surely(&self, path: RelPath, below: bool, owed: &RelPath) -> bool {
        self.again(path, below, owed);
        !self.away.load(Relaxed)
    }
    fn changed(&self, path: RelPath) {
        lock(&self.said).push(path);
    }
    fn later(&self, _: RelPath, _: Duration, _: &RelPath) {}
    fn settled(&self, _: u64) {}
    fn moved(&self, _: &RelPath) {}
    fn names_are_known(&self) -> bool {
        true
    }
}

/// What a ledger has of one file.
#[derive(Default)]
struct Ledger {
    file: Mutex<Option<GroupKey>>,
    names: Mutex<BTreeSet<RelPath>>,
}

struct Notes(Arc<Ledger>);

impl NameBook for Notes {
    fn note(&self, key: GroupKey, path: RelPath) {
        *lock(&self.0.file) = Some(key);
        lock(&self.0.names).insert(path);
    }
    fn note_single(&self, _: GroupKey, _: RelPath) {}
    fn search(&self, _: GroupKey, _: u32, _: &mut dyn FnMut(Search) -> bool) {}
    fn others(&self, _: GroupKey, but: &RelPath) -> Vec<RelPath> {
        lock(&self.0.names).iter().filter(|p| *p != but).cloned().collect()
    }
    fn forget(&self, _: GroupKey, path: &RelPath) {
        lock(&self.0.names).remove(path);
    }
    fn noted_for(&self, path: &RelPath, _: bool) -> Option<GroupKey> {
        lock(&self.0.names).contains(path).then(|| *lock(&self.0.file)).flatten()
    }
    fn noted_below(&self, _: &RelPath) -> Vec<RelPath> {
        Vec::new()
    }
    fn renamed(&self, _: &RelPath, _: &RelPath) {}
    fn in_turn(&self, _: GroupKey, f: &mut dyn FnMut()) {
        f();
    }
}

struct Silent;

impl Reporter for Silent {
    fn changes(&self, _: &[Change]) {}
    fn events(&self, _: Vec<Event>) {}
    fn failure(&self, f: &Failure, _: Option<Pass>) {
        panic!("{f}");
    }
    fn notice(&self, _: Notice) {}
    fn ran(&self, _: &Work, _: Duration) {}
}

#[test]
fn a_name_that_has_left_its_file_is_forgotten_when_the_others_will_surely_be_looked_at() {
    let dir = std::env::temp_dir().join(format!("treeferry-looking-{}", std::process::id()));
    let (src, dst) = (dir.join("src"), dir.join("dst"));
    std::fs::create_dir_all(&src).unwrap();
    std::fs::write(src.join("a"), "x").unwrap();
    std::fs::hard_link(src.join("a"), src.join("b")).unwrap();
    let job = Job::open(JobSpec::new(&src, &dst), Stop::default()).unwrap();
    let (away, said, ledger): (Arc<AtomicBool>, Arc<Mutex<Vec<RelPath>>>, Arc<Ledger>) = Default::default();
    let broker = Broker { away: Arc::clone(&away), said: Arc::clone(&said) };
    job.mirror_for(Box::new(broker), Box::new(Notes(Arc::clone(&ledger))));
    let path = |s: &str| RelPath::new(s).unwrap();
    let look = |name: &str| {
        let engine = Engine::memory();
        let names =
            treeferry_core::Names::one(&std::ffi::CString::new(name).unwrap(), treeferry_core::Kind::File);
        engine.begin(NewTask::new(None, Work::Look { dir: RelPath::root(), names, ticket: 1 }));
        let pool = Pool::start(&engine, &job, linker(&job), Arc::new(Silent), PoolSize::Fixed(1));
        assert!(engine.wait(Duration::from_secs(60)));
        pool.join();
        std::mem::take(&mut *lock(&said))
    };
    look("a");
    look("b");
    assert_eq!(lock(&ledger.names).len(), 2);
    std::fs::remove_file(src.join("b")).unwrap();
    away.store(true, Relaxed);
    assert!(look("b").contains(&path("a")));
    // this worker is killed, and what it said was lost: whoever has its errand next says it again
    assert!(lock(&ledger.names).contains(&path("b")));
    away.store(false, Relaxed);
    assert!(look("b").contains(&path("a")));
    assert!(!lock(&ledger.names).contains(&path("b")));
    std::fs::remove_dir_all(&dir).unwrap();
}
