//! Files that are open for writing when a detector begins: who has them open has told that to nobody, or to a reader that
//! is gone.

use super::held::Held;
use crate::error::{Call, Error};
use crate::mounts::relative;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use treeferry_ring::id_of;

/// What the kernel adds to the path of a file that has lost its name.
const DELETED: &[u8] = b" (deleted)";

impl Held {
    /// Takes down what processes of this node have open for writing below a directory, as far as this process may see that:
    /// of its own user, as root of all. What comes and goes meanwhile is told in the ring.
    pub(crate) fn find(&mut self, top: &[u8]) -> Result<(), Error> {
        let processes = match fs::read_dir("/proc") {
            Ok(processes) => processes,
            Err(e) => {
                return Err(rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO))
                    .call("opendir(/proc)");
            }
        };
        let own = std::process::id();
        let number = |name: &std::ffi::OsStr| name.to_str().and_then(|n| n.parse::<u32>().ok());
        for process in processes.flatten() {
            if let Some(pid) = number(&process.file_name()).filter(|pid| *pid != own) {
                self.find_of(pid, &process.path().join("fd"), top);
            }
        }
        Ok(())
    }

    /// Those of a process. It may end meanwhile, or belong to somebody else: then there is nothing to find.
    fn find_of(&mut self, pid: u32, descriptors: &Path, top: &[u8]) {
        for fd in fs::read_dir(descriptors).into_iter().flatten().flatten() {
            let link = fd.path();
            let Ok(path) = fs::read_link(&link) else { continue };
            let path = path.into_os_string().into_vec();
            if relative(&path, top).is_none() {
                continue;
            }
            // the mode of the link says how it is open
            let writes = fs::symlink_metadata(&link).is_ok_and(|m| m.mode() & 0o200 != 0);
            let Ok(file) = fs::metadata(&link) else { continue };
            if !writes || !file.is_file() || file.nlink() == 0 {
                continue;
            }
            let there = fs::symlink_metadata(Path::new(std::ffi::OsStr::from_bytes(&path)));
            let is_there = there.is_ok_and(|m| (m.dev(), m.ino()) == (file.dev(), file.ino()));
            let id = id_of(file.dev(), file.ino());
            match path.strip_suffix(DELETED) {
                // it has another name, most likely beside that by which it was opened
                Some(old) if !is_there => {
                    let end = old.iter().rposition(|b| *b == b'/').unwrap_or(0).max(1);
                    self.open(pid, id, old.get(..end).unwrap_or(b"/"), true);
                }
                _ => self.open(pid, id, &path, false),
            }
        }
    }
}
