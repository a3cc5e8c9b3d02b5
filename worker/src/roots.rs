//! Opening SRC, DST and the trash, and the guards that are checked before anything is touched: what they must not be to
//! each other.

use crate::job::{Member, OpenError};
use std::ffi::{CStr, CString};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use treeferry_core::filter::Filter;
use treeferry_core::{JobSpec, RelPath};
use treeferry_fs::root::Identity;
use treeferry_fs::{Root, entry};

/// Where deleted entries are moved.
#[derive(Debug)]
pub(crate) struct Trash {
    pub root: Root,
}

pub(crate) fn unusable(what: &str, e: &dyn std::fmt::Display) -> OpenError {
    OpenError::Unusable(format!("{what} {e}"))
}

/// Opens DST, or makes it; says whether it was made, by us, with nobody else allowed in.
pub(crate) fn open_target(spec: &JobSpec) -> Result<(Option<Root>, bool), OpenError> {
    match Root::open(&spec.dst) {
        Ok(r) => return Ok((Some(r), false)),
        Err(treeferry_fs::RootError::Open(_, e)) if e.is_gone() => {}
        Err(e) => return Err(unusable("DST", &e)),
    }
    if !spec.passes.copy {
        return Err(OpenError::Unusable(format!(
            "DST {} does not exist, and without the copy pass there is nothing to make it",
            spec.dst.display()
        )));
    }
    if spec.dry_run {
        let path = std::path::absolute(&spec.dst).unwrap_or_else(|_| spec.dst.clone());
        return match Root::open(path.parent().unwrap_or(&path)) {
            Ok(_) => Ok((None, false)),
            Err(e) => Err(unusable("DST's parent", &e)),
        };
    }
    std::fs::DirBuilder::new().mode(0o700).create(&spec.dst).map_err(|e| {
        let hint = if e.kind() == std::io::ErrorKind::NotFound {
            " (its parent directory must exist: is the file system mounted?)"
        } else {
            ""
        };
        OpenError::Unusable(format!("DST {} cannot be made: {e}{hint}", spec.dst.display()))
    })?;
    Root::open(&spec.dst).map(|r| (Some(r), true)).map_err(|e| unusable("DST", &e))
}

/// Opens a DST that must be there; in a dry run it may be missing.
pub(crate) fn join_target(spec: &JobSpec) -> Result<Option<Root>, OpenError> {
    match Root::open(&spec.dst) {
        Ok(r) => Ok(Some(r)),
        Err(treeferry_fs::RootError::Open(_, e)) if e.is_gone() && spec.dry_run => Ok(None),
        Err(e) => Err(unusable("DST", &e)),
    }
}

pub(crate) fn check_roots(src: &Root, dst: Option<&Root>, m: &Member) -> Result<(), OpenError> {
    let found = (src.identity().ino, dst.map_or(0, |d| d.identity().ino));
    for (name, here, there) in [("SRC", found.0, m.roots.0), ("DST", found.1, m.roots.1)] {
        if here != there {
            return Err(OpenError::Unusable(format!(
                "{name} is not here what it is where the job began (inode {here}, not {there}): is it mounted?"
            )));
        }
    }
    Ok(())
}

/// Refuses roots that lie in each other, unless the inner one is excluded; then it is protected for good.
pub(crate) fn check_nesting(
    spec: &JobSpec,
    src: &Root,
    dst: &Root,
    filter: &mut Filter,
) -> Result<(), OpenError> {
    let (s, d) = (src.identity(), dst.identity());
    if s.same_dir(&d) {
        return Err(OpenError::Usage(format!(
            "SRC and DST are the same directory: {} and {}",
            spec.src.display(),
            spec.dst.display()
        )));
    }
    for (inner, inner_root, outer, outer_root, words) in
        [(dst, d, src, s, "DST lies inside SRC"), (src, s, dst, d, "SRC lies inside DST")]
    {
        let above: Vec<Identity> =
            inner.ancestors().map_err(|e| OpenError::Unusable(format!("{}: {e}", inner.path().display())))?;
        let mut relative = relative_to(inner.path(), outer.path());
        if !above.iter().skip(1).any(|i| i.same_dir(&outer_root)) {
            // by way of a bind mount, perhaps
            let places = (inner.place(), outer.place());
            let (true, (Some(i), Some(o))) = (inner_root.dev == outer_root.dev, places) else { continue };
            let Ok(p) = i.strip_prefix(o) else { continue };
            relative = RelPath::new(p.as_os_str().as_encoded_bytes()).ok();
        }
        match relative {
            Some(p) if filter.excludes_deep(&p, true) && !spec.delete_excluded => filter.protect(p),
            Some(p) => {
                return Err(OpenError::Usage(format!(
                    "{words}: exclude it with --exclude '/{p}' if that is what you want"
                )));
            }
            None => return Err(OpenError::Usage(format!("{words}, through another mount or a link"))),
        }
    }
    Ok(())
}

/// The same for a DST that does not exist yet: it is not made only to be refused.
pub(crate) fn check_missing_target(spec: &JobSpec, src: &Root, filter: &mut Filter) -> Result<(), OpenError> {
    let path = std::path::absolute(&spec.dst).unwrap_or_else(|_| spec.dst.clone());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    if spec.dst.exists() {
        return Ok(());
    }
    // what else is wrong with the parent shows when DST is made
    let Ok(parent) = Root::open(parent) else { return Ok(()) };
    let above =
        parent.ancestors().map_err(|e| OpenError::Unusable(format!("{}: {e}", parent.path().display())))?;
    if !above.iter().any(|i| i.same_dir(&src.identity())) {
        return Ok(());
    }
    let name = std::ffi::CString::new(name.as_encoded_bytes()).unwrap_or_default();
    match relative_to(parent.path(), src.path()).map(|p| p.child(&name)) {
        Some(p) if filter.excludes_deep(&p, true) && !spec.delete_excluded => {
            filter.protect(p);
            Ok(())
        }
        Some(p) => Err(OpenError::Usage(format!(
            "DST lies inside SRC: exclude it with --exclude '/{p}' if that is what you want"
        ))),
        None => Err(OpenError::Usage("DST lies inside SRC, through another mount or a link".to_owned())),
    }
}

/// Where a path lies below another, both with their symlinks resolved.
fn relative_to(inner: &Path, outer: &Path) -> Option<RelPath> {
    let (i, o) = (inner.canonicalize().ok()?, outer.canonicalize().ok()?);
    RelPath::new(i.strip_prefix(o).ok()?.as_os_str().as_encoded_bytes()).ok()
}

/// Opens the trash, made if it is missing; it must be on the target's file system, and is itself never
/// walked or deleted.
pub(crate) fn open_trash(
    path: &Path,
    src: &Root,
    dst: &Root,
    filter: &mut Filter,
    dry_run: bool,
) -> Result<Option<Trash>, OpenError> {
    if !path.exists() {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let parent = Root::open(absolute.parent().unwrap_or(&absolute))
            .map_err(|e| OpenError::Usage(format!("--trash: its parent {e}")))?;
        refuse_in_source(path, &parent, src)?;
        refuse_other_device(path, &parent, dst)?;
        if dry_run {
            return Ok(None);
        }
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(path)
            .map_err(|e| OpenError::Usage(format!("--trash {} cannot be made: {e}", path.display())))?;
    }
    let root = Root::open(path).map_err(|e| OpenError::Usage(format!("--trash {e}")))?;
    refuse_other_device(path, &root, dst)?;
    refuse_in_source(path, &root, src)?;
    if root.identity().same_dir(&dst.identity()) {
        return Err(OpenError::Usage("--trash is DST itself".to_owned()));
    }
    if let Some(p) = relative_to(root.path(), dst.path()) {
        filter.protect(p);
    }
    Ok(Some(Trash { root }))
}

fn refuse_other_device(path: &Path, dir: &Root, dst: &Root) -> Result<(), OpenError> {
    if dir.identity().dev != dst.identity().dev {
        let text = format!(
            "--trash {} is not on the file system of DST: entries can only be moved within one",
            path.display()
        );
        return Err(OpenError::Usage(text));
    }
    Ok(())
}

fn refuse_in_source(path: &Path, dir: &Root, src: &Root) -> Result<(), OpenError> {
    let above = dir.ancestors().map_err(|e| OpenError::Usage(format!("--trash {}: {e}", path.display())))?;
    if above.iter().any(|i| i.same_dir(&src.identity())) {
        let text = format!("--trash {} lies in SRC, which is never written to", path.display());
        return Err(OpenError::Usage(text));
    }
    Ok(())
}

impl Trash {
    /// Makes a directory of the trash that corresponds to one of the target, and opens it. Where the trash has something
    /// else of that name, from an earlier run, it gets another, see [`numbered`].
    pub(crate) fn dir(&self, rel: &RelPath) -> treeferry_fs::Result<treeferry_fs::OwnedFd> {
        use treeferry_fs::AsFd;
        match self.root.open_dir(rel.as_bytes()) {
            Err(e) if e.is_gone() || e.is_other_kind() => {}
            r => return r,
        }
        let Some((up, name)) = rel.split() else { return self.root.open_dir(rel.as_bytes()) };
        let parent = self.dir(&up)?;
        let mut n = 0;
        loop {
            let new = numbered(&name, n);
            match entry::make_dir(parent.as_fd(), &new, 0o700) {
                Err(e) if !e.is_exists() => return Err(e),
                _ => {}
            }
            match entry::open_subdir(parent.as_fd(), &new) {
                Err(e) if e.is_other_kind() => n += 1,
                r => return r,
            }
        }
    }
}

/// A name in the trash when so many of it are there already: rsync's `~` and a number at its end.
pub(crate) fn numbered(name: &CStr, n: u32) -> CString {
    if n == 0 {
        return name.to_owned();
    }
    let tail = format!(".~{n}~");
    let name = name.to_bytes();
    let mut v = name[..name.len().min(255 - tail.len())].to_vec();
    v.extend_from_slice(tail.as_bytes());
    // it has no NUL in it
    CString::new(v).unwrap_or_default()
}
