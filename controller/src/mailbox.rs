//! Where others on this machine say that a path is to be looked at: a socket beside that of the job (see
//! [`crate::nearby`]), for the same user and root. Whoever posts sends absolute paths, each with a NUL at its end, and ends
//! sending; the answer is a JSON array with the numbers of those that are below SRC, and have been noted.

use crate::nearby;
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use treeferry_core::{JobId, RelPath};

/// How long somebody who posts may take, and an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nobody posts more at once.
const MOST_BYTES: u64 = 256 << 20;

/// The socket of a mirror.
pub struct Mailbox {
    path: PathBuf,
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Mailbox {
    /// Opens it; `None`: there is no place for it. `take` is given what is posted, below `root`.
    pub fn open(
        job: JobId,
        root: &Path,
        take: impl Fn(Vec<RelPath>) + Send + 'static,
    ) -> io::Result<Option<Mailbox>> {
        let Some((listener, path)) = nearby::listen(&format!("{job}.post"))? else { return Ok(None) };
        listener.set_nonblocking(false)?;
        let over = Arc::new(AtomicBool::new(false));
        let (ended, root) = (Arc::clone(&over), root.canonicalize()?);
        let thread = std::thread::Builder::new().name("tf-mailbox".to_owned()).spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if ended.load(Acquire) {
                    return;
                }
                if let Err(e) = answer(stream, &root, &take) {
                    tracing::info!("somebody who posts has gone away: {e}");
                }
            }
        })?;
        Ok(Some(Mailbox { path, over, thread }))
    }

    /// Takes it away.
    pub fn close(self) {
        self.over.store(true, Release);
        // wakes the thread
        if UnixStream::connect(&self.path).is_ok() {
            let _ = self.thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn answer(mut stream: UnixStream, root: &Path, take: impl Fn(Vec<RelPath>)) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut bytes = Vec::new();
    (&mut stream).take(MOST_BYTES).read_to_end(&mut bytes)?;
    let all = bytes.split_inclusive(|b| *b == 0).filter_map(|p| p.strip_suffix(&[0]));
    let (numbers, paths): (Vec<usize>, Vec<RelPath>) =
        all.enumerate().filter_map(|(i, p)| Some((i, below(root, p)?))).unzip();
    take(paths);
    stream.write_all(serde_json::json!(numbers).to_string().as_bytes())
}

/// A path below a directory, both absolute and clean; `None`: it is not below.
pub fn below(root: &Path, path: &[u8]) -> Option<RelPath> {
    let root = root.as_os_str().as_encoded_bytes();
    let rest = match root {
        b"/" => path.strip_prefix(b"/")?,
        _ => match path.strip_prefix(root)? {
            [] => &[],
            rest => rest.strip_prefix(b"/")?,
        },
    };
    RelPath::new(rest).ok()
}

/// What came of posting.
#[derive(Debug, Default)]
pub struct Posted {
    /// Mirrors that have answered, and the numbers of the paths that each has taken.
    pub taken: Vec<(JobId, Vec<usize>)>,
    /// Mirrors that have not, and why.
    pub silent: Vec<(JobId, String)>,
}

/// Posts paths to the mirrors of this user on this machine. One that does not answer holds up no other.
pub fn post(paths: &[Vec<u8>]) -> io::Result<Posted> {
    let message: Arc<[u8]> = paths.iter().flat_map(|p| p.iter().chain(&[0])).copied().collect();
    let (answers, told) = std::sync::mpsc::channel();
    let mut asked = BTreeSet::new();
    for (job, socket) in nearby::named("post")? {
        let (message, answers) = (Arc::clone(&message), answers.clone());
        let send = move || {
            let answer = send(&socket, &message);
            if answer.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
                // of a process that was killed
                let _ = std::fs::remove_file(&socket);
            }
            let _ = answers.send((job, answer));
        };
        // it is not waited for, since connecting to one that is stopped may take for ever
        std::thread::Builder::new().name("tf-post".to_owned()).spawn(send)?;
        asked.insert(job);
    }
    drop(answers);
    let mut posted = Posted::default();
    let within = Instant::now() + PATIENCE * 3;
    while let Ok((job, answer)) = told.recv_timeout(within.saturating_duration_since(Instant::now())) {
        asked.remove(&job);
        match answer {
            Ok(numbers) => posted.taken.push((job, numbers)),
            // it has ended
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                asked.insert(job);
            }
            Err(e) => posted.silent.push((job, e.to_string())),
        }
    }
    let late = format!("nothing within {} s", PATIENCE.as_secs());
    posted.silent.extend(asked.into_iter().map(|job| (job, late.clone())));
    posted.taken.sort_unstable();
    Ok(posted)
}

fn send(socket: &Path, message: &[u8]) -> io::Result<Vec<usize>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(message)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(serde_json::from_slice::<Vec<usize>>(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_is_below_and_nothing_else() {
        let is = |root: &str, path: &str| below(Path::new(root), path.as_bytes()).map(|p| p.to_string());
        assert_eq!(is("/a/b", "/a/b/c/d"), Some("c/d".to_owned()));
        assert_eq!(is("/a/b", "/a/b"), Some(RelPath::root().to_string()));
        assert_eq!(is("/", "/a"), Some("a".to_owned()));
        assert_eq!(is("/a/b", "/a/bc"), None);
        assert_eq!(is("/a/b", "/a"), None);
        assert_eq!(is("/a", "/a/../b"), None, "not clean");
        assert_eq!(is("/a", "a"), None);
    }
}
