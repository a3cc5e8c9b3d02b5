//! Those who change SRC at random, and hold a mirror to what it promises meanwhile.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use treeferry_kit::rng::Rng;
use treeferry_tests::{PATIENCE, Scratch};

/// How long SRC is changed in one round.
pub fn churn_time() -> Duration {
    let s = std::env::var("TREEFERRY_CHURN_S").map_or(2, |s| s.parse().expect("a number"));
    Duration::from_secs(s)
}

/// Now, in µs since 1970.
pub fn now_us() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64
}

/// How SRC is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Churn {
    /// Files and new directories.
    Plain,
    /// Hard links, and directories that are renamed and removed, too.
    Wild,
}

/// What those who change SRC and those who look on have in common.
#[derive(Default)]
struct Churning {
    over: AtomicBool,
    /// How long everyone rests between two changes, in microseconds; at most.
    rest_us: AtomicU64,
    landmarks: Mutex<Vec<(u64, PathBuf)>>,
}

/// Changes SRC at random until it is told to stop. Files `landmark-*` are made once and never touched again: of each is
/// told when it was there.
fn churn(src: &Path, how: Churn, seed: u64, number: u64, all: &Churning) {
    let mut rng = Rng::new(seed * 1000 + number);
    let mut made = 0;
    let dir = |rng: &mut Rng| -> PathBuf {
        let mut p = src.to_owned();
        for _ in 0..rng.below(4) {
            p.push(format!("d{}", rng.below(4)));
        }
        p
    };
    while !all.over.load(Relaxed) {
        let d = dir(&mut rng);
        let f = d.join(format!("f{}", rng.below(6)));
        let g = dir(&mut rng).join(format!("f{}", rng.below(6)));
        // that many of these fail is in the nature of the thing
        let wild = how == Churn::Wild;
        let _ = match rng.below(22) {
            0..=2 => fs::create_dir_all(&d),
            3..=6 => fs::write(&f, vec![b'x'; rng.below(9000) as usize]),
            7 | 8 => {
                OpenOptions::new().append(true).create(true).open(&f).and_then(|mut f| f.write_all(b"more"))
            }
            9 | 10 => fs::rename(&f, &g),
            11 if wild => fs::rename(&d, dir(&mut rng).join(format!("d{}", rng.below(4)))),
            12 | 13 if wild => fs::hard_link(&f, &g),
            14 => fs::set_permissions(&f, fs::Permissions::from_mode(0o600 + rng.below(64) as u32)),
            15 if d != src => {
                fs::set_permissions(&d, fs::Permissions::from_mode(0o700 + rng.below(64) as u32))
            }
            16 => rustix::fs::setxattr(
                &f,
                "user.k",
                format!("{}", rng.below(99)).as_bytes(),
                rustix::fs::XattrFlags::empty(),
            )
            .map_err(Into::into),
            17 => fs::remove_file(&f),
            18 if wild && d != src && rng.below(4) == 0 => fs::remove_dir_all(&d),
            19 => std::os::unix::fs::symlink(&g, &f),
            20 => {
                // whole files by way of a temporary one, as editors do
                let t = d.join(format!(".{number}.tmp"));
                fs::write(&t, format!("{number} {}", rng.below(1 << 40))).and_then(|()| fs::rename(&t, &f))
            }
            _ => {
                let p = src.join(format!("landmark-{number}-{made}"));
                made += 1;
                fs::write(&p, b"here").map(|()| all.landmarks.lock().unwrap().push((now_us(), p)))
            }
        };
        thread::sleep(Duration::from_micros(rng.below(all.rest_us.load(Relaxed))));
    }
}

/// Changes SRC for a while, and holds the mirror to what it promises meanwhile. Returns how many files it has promised.
pub fn while_churning(s: &Scratch, how: Churn, seed: u64, complete_up_to: impl Fn() -> u64) -> usize {
    let (all, src) = (Churning::default(), s.at("src"));
    all.rest_us.store(2000, Relaxed);
    let mut promises = 0;
    thread::scope(|scope| {
        for n in 0..8 {
            let (all, src) = (&all, &src);
            scope.spawn(move || churn(src, how, seed, n, all));
        }
        let began = Instant::now();
        let check = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            loop {
                let promised = complete_up_to();
                let due: Vec<PathBuf> = {
                    let made = all.landmarks.lock().unwrap();
                    made.iter().filter(|(at, _)| *at < promised).map(|(_, p)| p.clone()).collect()
                };
                promises += due.len();
                for p in due {
                    let there = s.at("dst").join(p.file_name().unwrap());
                    let found = fs::read(&there).unwrap_or_else(|e| {
                        panic!("{} is not there, and all is up to {promised}: {e}", there.display())
                    });
                    assert_eq!(found, b"here");
                }
                // a machine that cannot keep up with so many changes gets fewer, until it can promise something
                let took = began.elapsed();
                if took >= churn_time() {
                    if how == Churn::Wild || promises > 0 || took > PATIENCE {
                        break;
                    }
                    all.rest_us.fetch_max(100_000, Relaxed);
                }
            }
        }));
        all.over.store(true, Relaxed);
        check.unwrap_or_else(|e| std::panic::resume_unwind(e));
    });
    promises
}
