//! Jobs of single processes on this machine: each answers, on a socket that its user alone can reach, how it stands. It
//! takes no orders there.
//!
//! The socket is `DIR/treeferry/jobs/JOB.sock`. DIR is that of the environment variable [`VARIABLE`], where an empty one
//! means no socket; else `/run` for root, and for others their directory in `/run/user`. Whoever connects is sent one
//! JSON object, that of `treeferry status --json` and the latest failures, and the connection is closed. The process
//! looks at its socket where it waits for the job, a few times a second: there is no thread for it.

use crate::view::{View, Which, job_json, job_of_json};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use treeferry_core::{Failure, JobId, RelPath, Side, escape};
use treeferry_queue::{Control, JobRow, LedgerError, NodeReport};

/// Names the directory below which sockets are.
pub const VARIABLE: &str = "TREEFERRY_RUNTIME_DIR";

/// The form of the answer; a reader leaves alone what it does not know.
const VERSION: u64 = 1;
/// So many failures are told.
const FAILURES: usize = 50;
/// So many are answered before the job has its turn again.
const ANSWERS: usize = 8;
/// How long a reader may take, or an answer; a process that is stopped does not answer at all.
const PATIENCE: Duration = Duration::from_secs(1);
/// A larger answer is none of ours.
const MOST_BYTES: u64 = 4 << 20;

/// Where the sockets of this user are; `None`: nowhere.
fn place() -> Option<PathBuf> {
    let uid = rustix::process::geteuid();
    let base = match std::env::var_os(VARIABLE) {
        Some(given) => (!given.is_empty()).then(|| PathBuf::from(given))?,
        None if uid.is_root() => PathBuf::from("/run"),
        None => PathBuf::from(format!("/run/user/{}", uid.as_raw())),
    };
    Some(base.join("treeferry/jobs"))
}

/// Says whether a directory is there and nobody else can reach into it.
fn is_private(dir: &Path) -> io::Result<bool> {
    let m = match fs::symlink_metadata(dir) {
        Ok(m) => m,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let ours = m.is_dir() && m.uid() == rustix::process::geteuid().as_raw() && m.mode() & 0o077 == 0;
    let shown = || escape::bytes(dir.as_os_str().as_encoded_bytes()).to_string();
    if ours { Ok(true) } else { Err(io::Error::other(format!("{} is not ours alone", shown()))) }
}

/// The socket of a job of this process.
pub struct Post {
    listener: UnixListener,
    path: PathBuf,
}

impl Post {
    /// Opens it; `None`: there is no place for it, as is the case for a user who is not logged in.
    pub fn open(job: JobId) -> io::Result<Option<Post>> {
        let Some(dir) = place() else { return Ok(None) };
        Post::open_in(&dir, job)
    }

    fn open_in(dir: &Path, job: JobId) -> io::Result<Option<Post>> {
        Ok(listen_in(dir, &format!("{job}.sock"))?.map(|(listener, path)| Post { listener, path }))
    }

    /// Answers whoever has asked since.
    pub fn answer(&self, how_it_stands: impl Fn() -> Value) {
        for _ in 0..ANSWERS {
            let Ok((mut asker, _)) = self.listener.accept() else { return };
            // an answer that is not taken harms nobody but its asker
            let _ = asker
                .set_nonblocking(false)
                .and_then(|()| asker.set_write_timeout(Some(PATIENCE)))
                .and_then(|()| asker.write_all(format!("{}\n", how_it_stands()).as_bytes()));
        }
    }

    /// Takes it away.
    pub fn close(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens at a socket of this name; `None`: there is no place for it.
pub fn listen(name: &str) -> io::Result<Option<(UnixListener, PathBuf)>> {
    place().map_or(Ok(None), |dir| listen_in(&dir, name))
}

fn listen_in(dir: &Path, name: &str) -> io::Result<Option<(UnixListener, PathBuf)>> {
    match dir.ancestors().nth(2) {
        Some(base) if base.is_dir() => {}
        _ => return Ok(None),
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    is_private(dir)?;
    let path = dir.join(name);
    // who connects between bind and listen is refused, and would take it for that of a dead process: it gets its
    // name when it listens
    let unnamed = dir.join(format!("{name}.new"));
    let listener = UnixListener::bind(&unnamed)?;
    fs::set_permissions(&unnamed, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    fs::rename(&unnamed, &path)?;
    Ok(Some((listener, path)))
}

/// Sockets of jobs whose name ends like this.
pub fn named(ending: &str) -> io::Result<Vec<(JobId, PathBuf)>> {
    let Some(dir) = place() else { return Ok(Vec::new()) };
    if !is_private(&dir)? {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str).and_then(|n| n.strip_suffix(ending));
        let id = name.and_then(|n| n.strip_suffix('.')).and_then(|n| n.parse().ok());
        all.extend(id.filter(|_| is_socket(&path)).map(|id: JobId| (id, path)));
    }
    Ok(all)
}

/// How a job stands: what [`Post::answer`] sends.
pub fn report(job: &JobRow, process: &NodeReport, failures: &[Failure]) -> Value {
    let latest: Vec<Value> = failures.iter().rev().take(FAILURES).map(failure_json).collect();
    json!({
        "version": VERSION,
        "jobs": [job_json(job, None, None)],
        "workers": [process],
        "failures": latest,
    })
}

fn failure_json(f: &Failure) -> Value {
    let side = match f.side {
        Side::Source => "source",
        Side::Target => "target",
    };
    json!({"path": f.path.to_string(), "side": side, "op": f.op, "errno": f.errno, "error": f.error})
}

fn failure_of_json(v: &Value) -> Option<Failure> {
    Some(Failure {
        path: RelPath::from_shown(v["path"].as_str()?).ok()?,
        side: if v["side"].as_str()? == "source" { Side::Source } else { Side::Target },
        op: v["op"].as_str()?.to_owned(),
        errno: i32::try_from(v["errno"].as_i64()?).ok()?,
        error: v["error"].as_str()?.to_owned(),
    })
}

/// A job that was found.
pub struct Found {
    /// The job.
    pub job: JobRow,
    /// The process that does it.
    pub process: NodeReport,
    /// Its latest failures, the newest first.
    pub failures: Vec<Failure>,
    /// How it stands, if it is a mirror.
    pub mirror: Option<Value>,
}

/// What was found on this machine.
#[derive(Default)]
pub struct Neighbours {
    /// Jobs, the newest first.
    pub found: Vec<Found>,
    /// What could not be understood, or did not answer.
    pub trouble: Vec<String>,
}

impl Neighbours {
    /// The same as a view.
    pub fn view(&self, at_ms: u64, which: Which) -> View {
        let jobs = self.found.iter().map(|f| f.job.clone()).collect();
        let processes = self.found.iter().map(|f| f.process.clone()).collect();
        let mirrors = self.found.iter().filter_map(|f| Some((f.job.id, f.mirror.clone()?))).collect();
        View::new(jobs, processes, at_ms, which).with(mirrors)
    }
}

/// Asks all jobs of this user's processes on this machine.
pub fn look() -> io::Result<Neighbours> {
    match place() {
        Some(dir) => look_in(&dir),
        None => Ok(Neighbours::default()),
    }
}

fn look_in(dir: &Path) -> io::Result<Neighbours> {
    let mut all = Neighbours::default();
    if !is_private(dir)? {
        return Ok(all);
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let Some(id) = job_of_name(&entry.file_name()).filter(|_| is_socket(&path)) else { continue };
        match ask(&path) {
            Ok(Some(f)) if f.job.id == id => all.found.push(f),
            Ok(_) => all.trouble.push(format!("job {id} answers what this version does not understand")),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                // of a process that was killed
                let _ = fs::remove_file(&path);
                remove_dead(&path.with_extension("post"));
            }
            // it has ended since
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => all.trouble.push(format!("job {id} does not answer: {e}")),
        }
    }
    all.found.sort_by_key(|f| (std::cmp::Reverse(f.job.created_ms), f.job.id));
    Ok(all)
}

/// Removes the socket at which a mirror took what is posted, unless somebody listens there again.
fn remove_dead(path: &Path) {
    if UnixStream::connect(path).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused) {
        let _ = fs::remove_file(path);
    }
}

fn job_of_name(name: &OsStr) -> Option<JobId> {
    name.to_str()?.strip_suffix(".sock")?.parse().ok()
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
}

fn ask(path: &Path) -> io::Result<Option<Found>> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).ok().and_then(|v: Value| found_of_json(&v)))
}

/// The mirrors of a cluster, which whoever keeps them tells of in the same form; who that is now is added.
pub fn mirrors(control: &Control) -> Result<Vec<Found>, LedgerError> {
    let mut all = Vec::new();
    for m in control.mirrors()? {
        let report = serde_json::from_slice::<Value>(&m.report).ok();
        let Some(mut found) = report.as_ref().and_then(found_of_json) else { continue };
        if let Some(mirror) = &mut found.mirror {
            mirror["kept_by"] = json!(m.kept_by);
        }
        all.push(found);
    }
    Ok(all)
}

/// Reads what [`report`] has made; `None`: it is of another version.
pub fn found_of_json(v: &Value) -> Option<Found> {
    (v["version"] == VERSION).then_some(())?;
    Some(Found {
        job: job_of_json(&v["jobs"][0])?,
        process: serde_json::from_value(v["workers"][0].clone()).ok()?,
        failures: v["failures"].as_array()?.iter().map(failure_of_json).collect::<Option<_>>()?,
        mirror: Some(v["jobs"][0]["mirror"].clone()).filter(Value::is_object),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use treeferry_core::job::JobState;
    use treeferry_core::{Counters, JobSpec};

    fn job(id: u64) -> JobRow {
        JobRow {
            id: JobId(id),
            spec: JobSpec::new("/a b", "/c\n"),
            state: JobState::Running,
            paused: false,
            why: String::new(),
            created_ms: id,
            ended_ms: None,
            outstanding: 3,
            counters: Counters { files: 5, failures: 60, ..Counters::default() },
        }
    }

    fn failures() -> Vec<Failure> {
        let name = |n: u8| RelPath::new(&[b'f', 0xff, b'a' + n][..]).unwrap();
        let all = (0..59).map(|n| Failure::errno(name(n % 20), Side::Source, "read", i32::from(n)));
        // SRC itself fails where DST can only be read
        all.chain([Failure::errno(RelPath::root(), Side::Target, "futimens", 59)]).collect()
    }

    /// Looks while these sockets are answered.
    fn look_while(dir: &Path, posts: &[(&Post, Value)]) -> Neighbours {
        let over = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    posts.iter().for_each(|(p, v)| p.answer(|| v.clone()));
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            let all = look_in(dir);
            over.store(true, Ordering::Relaxed);
            all.unwrap()
        })
    }

    fn place(name: &str) -> PathBuf {
        let base = std::env::temp_dir().join(format!("treeferry-nearby-{}-{name}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        base.join("treeferry/jobs")
    }

    fn remove(dir: &Path) {
        fs::remove_dir_all(dir.ancestors().nth(2).unwrap()).unwrap();
    }

    #[test]
    fn jobs_are_found_with_all_that_they_tell() {
        let dir = place("found");
        assert!(look_in(&dir).unwrap().found.is_empty(), "nobody was here yet");
        let process = NodeReport { worker: "n-1".into(), pool: 4, busy: 2, ..NodeReport::default() };
        let posts = [1, 2].map(|id| Post::open_in(&dir, JobId(id)).unwrap().unwrap());
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&posts[0].path).unwrap().mode() & 0o777, 0o600);
        let told = [1, 2].map(|id| report(&job(id), &process, &failures()));
        let all = look_while(&dir, &[(&posts[0], told[0].clone()), (&posts[1], told[1].clone())]);
        assert_eq!(all.trouble, [""; 0]);
        assert_eq!(all.found.iter().map(|f| f.job.id.0).collect::<Vec<_>>(), [2, 1], "the newest first");
        let f = &all.found[0];
        assert_eq!((&f.job.spec, &f.job.counters, &f.process), (&job(2).spec, &job(2).counters, &process));
        let want: Vec<Failure> = failures().into_iter().rev().take(FAILURES).collect();
        assert_eq!(f.failures, want);
        posts.into_iter().for_each(Post::close);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        remove(&dir);
    }

    #[test]
    fn what_dead_and_strange_processes_leave_does_no_harm() {
        let dir = place("strange");
        drop(Post::open_in(&dir, JobId(1)).unwrap());
        fs::write(dir.join("0000000000000002.sock"), "a file").unwrap();
        fs::write(dir.join("notes.txt"), "a file").unwrap();
        let strange = Post::open_in(&dir, JobId(3)).unwrap().unwrap();
        // it is another job, of another version, or no JSON that answers
        let mut newer = report(&job(3), &NodeReport::default(), &[]);
        newer["version"] = json!(2);
        for (answer, ok) in [
            (report(&job(3), &NodeReport::default(), &[]), true),
            (report(&job(4), &NodeReport::default(), &[]), false),
            (newer, false),
            (json!("words"), false),
        ] {
            let all = look_while(&dir, &[(&strange, answer)]);
            assert_eq!(
                (all.found.len(), all.trouble.len()),
                (usize::from(ok), usize::from(!ok)),
                "{:?}",
                all.trouble
            );
        }
        let all = look_in(&dir).unwrap();
        assert!(all.trouble[0].contains("does not answer"), "nobody accepts: {:?}", all.trouble);
        assert!(!dir.join("0000000000000001.sock").exists(), "of a dead process");
        assert!(dir.join("0000000000000002.sock").exists() && dir.join("notes.txt").exists());
        strange.close();
        remove(&dir);
    }

    #[test]
    fn a_socket_is_never_taken_for_that_of_a_dead_process() {
        let dir = place("early");
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    look_in(&dir).unwrap();
                }
            });
            for id in 1..2000 {
                let post = Post::open_in(&dir, JobId(id)).unwrap().unwrap();
                // in an instant at which whoever saw it refused would have removed it
                std::thread::yield_now();
                assert!(post.path.exists(), "job {id}");
                // closed before its name is gone: a reader is refused at once, not answered late
                drop(post.listener);
                let _ = fs::remove_file(&post.path);
            }
            over.store(true, Ordering::Relaxed);
        });
        remove(&dir);
    }

    #[test]
    fn a_directory_that_others_can_reach_is_refused() {
        let dir = place("open");
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Post::open_in(&dir, JobId(1)).is_err() && look_in(&dir).is_err());
        remove(&dir);
        // and where there is no base there is no socket
        assert!(Post::open_in(&dir, JobId(1)).unwrap().is_none());
    }
}
