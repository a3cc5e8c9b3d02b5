//! Files that are opened as the kernel's NFS server does. Needs root.

use super::*;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use treeferry_kit::caps::own_ids;

const CACHES: &str = "/proc/sys/vm/drop_caches";
/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens a file by its handle, when the kernel has forgotten its name. `None`: it has not.
fn by_handle(source: &Path, name: &std::ffi::CStr) -> Option<File> {
    let source = File::open(source).unwrap();
    let handle = crate::sys::handle_of(source.as_fd(), name).unwrap();
    let (kind, bytes) = handle.parts();
    rustix::fs::sync();
    fs::write(CACHES, "2").unwrap();
    let place = crate::sys::open_by_handle(source.as_fd(), kind, bytes).unwrap();
    let path = crate::beneath::proc_path(place.as_fd());
    if fs::read_link(&path).unwrap().ends_with(name.to_str().unwrap()) {
        return None;
    }
    Some(OpenOptions::new().read(true).append(true).open(path).unwrap())
}

/// What is told until it is said that all is told.
fn told(detector: &mut Fanotify) -> Vec<News> {
    let (began, mut told) = (Instant::now(), Vec::new());
    while !told.iter().any(|n| matches!(n, News::UpTo(at) if *at >= began)) {
        detector.read(Duration::from_millis(50), &mut |news| told.push(news)).unwrap();
        assert!(began.elapsed() < PATIENCE, "{told:?}");
    }
    told
}

#[test]
fn a_file_that_is_opened_by_its_handle() {
    if own_ids().0 != 0 || OpenOptions::new().write(true).open(CACHES).is_err() {
        eprintln!("left out: needs root, and a machine of its own");
        return;
    }
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/h"), "old").unwrap();
    let mut detector = fanotify(dir.path(), Box::new(|_, _, _| false)).unwrap().with_own();
    let Some(mut file) = (0..20).find_map(|_| by_handle(dir.path(), c"d/h")) else {
        eprintln!("left out: this kernel forgets no names");
        return;
    };
    told(&mut detector);
    let path = RelPath::new("d/h").unwrap();
    let hint = |what| News::Hint(crate::Hint { path: path.clone(), what });
    file.set_permissions(Permissions::from_mode(0o600)).unwrap();
    let first = told(&mut detector);
    // its name was looked for, and is remembered
    assert!(first.contains(&hint(What::Attributes)), "{first:?}");
    assert!(!detector.search.is_due());
    file.write_all(b"new").unwrap();
    let second = told(&mut detector);
    assert!(second.contains(&hint(What::Open)), "{second:?}");
    drop(file);
    let hint = hint(What::Changed);
    let mut all = Vec::new();
    let began = Instant::now();
    // it is closed when nobody has it open any more, and another test may just start a process
    while !all.contains(&hint) {
        assert!(began.elapsed() < PATIENCE, "no {hint:?} in {all:?}");
        all.extend(told(&mut detector));
    }
    assert!(!first.iter().chain(&second).chain(&all).any(|n| matches!(n, News::Lost(_))));
}
