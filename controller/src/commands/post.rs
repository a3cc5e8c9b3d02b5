//! `treeferry post`: says that paths are to be looked at.

use super::status::{explain, told};
use crate::args::control::{AskError, Reach};
use crate::cluster::connect;
use crate::mailbox::{self, Posted, below};
use crate::nearby::{self, Found};
use crate::output::{complain, harmless};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};
use treeferry_core::event::micros;
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{JobId, RelPath, escape};
use treeferry_mirror::News;
use treeferry_queue::mirrors::{MirrorRow, line};
use treeferry_queue::{Control, Site};
use treeferry_service::Exit;

/// Between two looks at how far a mirror is.
const LOOK: Duration = Duration::from_millis(20);
/// How long the broker may take.
const WITHIN: Duration = Duration::from_secs(30);
/// Paths in one message.
const AT_ONCE: usize = 4096;

/// Tells the mirrors that paths are to be looked at
///
/// For programs and jobs that know when they have finished a file, on nodes on which nothing else detects changes: each path
/// is looked at, with all that is below it if it is a directory, and the target is made what the source is then. It may
/// be gone, too. With a cluster it is told by RabbitMQ; without, the mirrors of the same user on this machine are told.
///
/// A path that is below the SRC of no mirror is named, and so is a mirror on this machine that does not answer, and the exit
/// code is 23 then; so it is with --wait where a path, or one below or above it, cannot be mirrored.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is to be looked at
    #[arg(value_name = "PATH", required_unless_present = "from", value_hint = clap::ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Read more paths from FILE, each ended by a newline; - is standard input
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    from: Option<OsString>,
    /// With --from: paths end with NUL, as `find -print0` writes them
    #[arg(short = '0', long, requires = "from")]
    null: bool,
    /// Wait until they are on the targets, with all else that has changed by now
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    match post(args) {
        Ok(exit) => exit,
        Err(e) => explain("post", &e),
    }
}

fn post(args: &Args) -> Result<Exit, AskError> {
    let mut paths = paths(args)?;
    let began = micros(std::time::SystemTime::now());
    let site = args.reach.site()?;
    let tell = |paths: &[Vec<u8>]| match &site {
        Some(site) => Ok(Posted { taken: post_far(site, paths)?, ..Posted::default() }),
        None => mailbox::post(paths).map_err(|e| AskError::Unknown(e.to_string())),
    };
    let first = tell(&paths)?;
    let mut silent: BTreeMap<JobId, String> = first.silent.into_iter().collect();
    let mut mirrors: BTreeMap<JobId, Vec<usize>> = first.taken.into_iter().collect();
    let is_taken = |mirrors: &BTreeMap<JobId, Vec<usize>>| -> BTreeSet<usize> {
        mirrors.values().flatten().copied().collect()
    };
    // the last name is looked at as what it is, if that is below a SRC; else it may be a symlink to what is
    let mut taken = is_taken(&mirrors);
    let behind = |(i, p): (usize, &Vec<u8>)| Some((i, behind(p).filter(|real| real != p)?));
    let left = paths.iter().enumerate().filter(|(i, _)| !taken.contains(i));
    let (numbers, behind): (Vec<usize>, Vec<Vec<u8>>) = left.filter_map(behind).unzip();
    if !behind.is_empty() {
        let second = tell(&behind)?;
        silent.extend(second.silent);
        for (id, some) in second.taken {
            mirrors.entry(id).or_default().extend(some.iter().filter_map(|i| numbers.get(*i)));
        }
        taken = is_taken(&mirrors);
        for (i, real) in numbers.iter().zip(behind) {
            if let Some(path) = paths.get_mut(*i).filter(|_| taken.contains(i)) {
                *path = real;
            }
        }
    }
    let mut exit = if silent.is_empty() { Exit::Done } else { Exit::Failures };
    for (id, why) in &silent {
        complain(&format!("mirror {id} does not answer: {why}"));
    }
    let answers = if silent.is_empty() { "" } else { " that answers" };
    for (i, p) in paths.iter().enumerate() {
        if !taken.contains(&i) {
            exit = Exit::Failures;
            complain(&format!("{} is below the SRC of no mirror{answers}", escape::bytes(p)));
        }
    }
    if args.wait {
        let concerned = mirrors.into_iter().filter(|(_, numbers)| !numbers.is_empty());
        let of = |n: Vec<usize>| n.into_iter().filter_map(|i| paths.get(i)).map(Vec::as_slice).collect();
        let posted = concerned.map(|(id, numbers)| (id, of(numbers)));
        if !wait(site.as_ref(), posted.collect(), began)? {
            exit = Exit::Failures;
        }
    }
    Ok(exit)
}

/// Absolute, clean, with no symlink but perhaps the last name.
fn paths(args: &Args) -> Result<Vec<Vec<u8>>, AskError> {
    let mut all: Vec<PathBuf> = args.paths.clone();
    if let Some(file) = &args.from {
        let mut bytes = Vec::new();
        let read = match file.as_bytes() {
            b"-" => std::io::stdin().lock().read_to_end(&mut bytes).map(drop),
            _ => std::fs::read(file).map(|b| bytes = b),
        };
        let shown = || escape::bytes(file.as_bytes()).to_string();
        read.map_err(|e| AskError::Unknown(format!("{}: {e}", shown())))?;
        let end = if args.null { 0 } else { b'\n' };
        let lines = bytes.split(|b| *b == end).filter(|l| !l.is_empty());
        all.extend(lines.map(|l| PathBuf::from(OsStr::from_bytes(l))));
    }
    Ok(all.iter().map(|p| clean(p)).collect())
}

fn clean(path: &Path) -> Vec<u8> {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let bytes = |p: PathBuf| p.into_os_string().into_encoded_bytes();
    let parts: Vec<Component<'_>> = whole.components().collect();
    let (above, last) = match parts.split_last() {
        Some((Component::Normal(name), above)) => (above, Some(*name)),
        _ => (&parts[..], None),
    };
    let mut dir: PathBuf = above.iter().collect();
    if let Ok(real) = dir.canonicalize() {
        dir = real;
    } else {
        // what is above it may be gone as well: as much as is there is made real
        dir = PathBuf::new();
        for part in above {
            match part {
                // what is above what is real is real, and of what is gone nobody knows more
                Component::ParentDir => drop(dir.pop()),
                part => {
                    dir.push(part);
                    dir = dir.canonicalize().unwrap_or(dir);
                }
            }
        }
    }
    dir.extend(last);
    bytes(dir)
}

/// What a clean path leads to, if that is there.
fn behind(path: &[u8]) -> Option<Vec<u8>> {
    let real = Path::new(OsStr::from_bytes(path)).canonicalize().ok()?;
    Some(real.into_os_string().into_encoded_bytes())
}

fn post_far(site: &Site, paths: &[Vec<u8>]) -> Result<Vec<(JobId, Vec<usize>)>, AskError> {
    let control = crate::args::control::connect(site)?;
    let rows = told(control.mirrors())?;
    let mut all = Vec::new();
    for row in rows {
        let Ok(root) = row.record.spec.src.canonicalize() else { continue };
        let ours = paths.iter().enumerate().filter_map(|(i, p)| Some((i, below(&root, p)?)));
        let (numbers, below): (Vec<usize>, Vec<RelPath>) = ours.unzip();
        if !numbers.is_empty() {
            all.push((row.id, numbers, below));
        }
    }
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let host = crate::args::daemon::host();
    let node = connect(site, &format!("post-{host}")).map_err(|e| AskError::Unreachable(e.to_string()))?;
    let outgoing = node.outgoing();
    let mut taken = Vec::new();
    for (id, numbers, below) in all {
        for some in below.chunks(AT_ONCE) {
            let news = News::Posted { by: node.worker().to_owned(), paths: some.to_vec() };
            let sent = outgoing.send(&line(id), wire::encode(MessageKind::MirrorNews, &news), true);
            if !sent.wait(WITHIN) {
                return Err(AskError::Unreachable("RabbitMQ does not take it".to_owned()));
            }
        }
        taken.push((id, numbers));
    }
    Ok(taken)
}

/// How a mirror stands, and what is mirrored.
struct Stand {
    src: PathBuf,
    report: Value,
}

/// All that are there now.
fn stands(control: Option<&Control>) -> Result<BTreeMap<JobId, Stand>, AskError> {
    let Some(control) = control else {
        let unknown = |e: std::io::Error| AskError::Unknown(e.to_string());
        let near = nearby::look().map_err(unknown)?;
        let of = |f: Found| (f.job.id, Stand { src: f.job.spec.src, report: f.mirror.unwrap_or_default() });
        let mut all: BTreeMap<JobId, Stand> = near.found.into_iter().map(of).collect();
        // one that has not answered has not ended: perhaps it is stopped, or busy
        for (id, _) in nearby::named("sock").map_err(unknown)? {
            all.entry(id).or_insert_with(|| Stand { src: PathBuf::new(), report: Value::Null });
        }
        return Ok(all);
    };
    let report = |b: &[u8]| serde_json::from_slice::<Value>(b).unwrap_or_default();
    let of = |r: MirrorRow| {
        let stand = Stand { src: r.record.spec.src, report: report(&r.report)["jobs"][0]["mirror"].take() };
        (r.id, stand)
    };
    Ok(told(control.mirrors())?.into_iter().map(of).collect())
}

/// Waits until these mirrors are complete up to a moment (µs since 1970). What cannot be mirrored of what was posted is named,
/// and the answer is `false` then.
fn wait(site: Option<&Site>, mut posted: BTreeMap<JobId, Vec<&[u8]>>, moment: u64) -> Result<bool, AskError> {
    let control = site.map(crate::args::control::connect).transpose()?;
    let mut said = Instant::now();
    let mut all_well = true;
    while !posted.is_empty() {
        let now = stands(control.as_ref())?;
        let mut troubles = Vec::new();
        let mut ended = None;
        posted.retain(|id, paths| match now.get(id) {
            Some(m) if m.report["complete_up_to_us"].as_u64().is_some_and(|at| at > moment) => {
                troubles.extend(failing(*id, m, paths));
                false
            }
            Some(m) if m.report["detect"] == json!(["list"]) => {
                ended = Some(format!("mirror {id} has nothing but a list, and cannot say when all is there"));
                true
            }
            Some(_) => true,
            None => {
                ended = Some(format!("mirror {id} has ended"));
                true
            }
        });
        troubles.iter().for_each(|t| complain(t));
        all_well &= troubles.is_empty();
        if let Some(why) = ended {
            return Err(AskError::Unknown(why));
        }
        if said.elapsed() > Duration::from_secs(60) {
            said = Instant::now();
            complain(&format!("still waiting for {} mirrors", posted.len()));
        }
        if !posted.is_empty() {
            std::thread::sleep(LOOK);
        }
    }
    Ok(all_well)
}

/// What a mirror says that concerns these paths and fails: at them, below them, or above them, so that they may have no place
/// on the target.
fn failing(id: JobId, mirror: &Stand, posted: &[&[u8]]) -> Vec<String> {
    let root = mirror.src.canonicalize().ok();
    let concerns = |p: &RelPath| match &root {
        Some(root) => posted.iter().filter_map(|a| below(root, a)).any(|a| a.covers(p) || p.covers(&a)),
        None => true,
    };
    let named = mirror.report["failing_paths"].as_array().map_or(&[][..], |all| all);
    let mut all: Vec<String> = Vec::new();
    for v in named {
        let (Some(path), Some(why)) = (v["path"].as_str(), v["error"].as_str()) else { continue };
        if RelPath::from_shown(path).is_ok_and(|p| concerns(&p)) {
            all.push(format!("cannot be mirrored: {}", harmless(why, "")));
        }
    }
    let count = mirror.report["failing"].as_u64().unwrap_or(0);
    let unnamed = count.saturating_sub(named.len() as u64);
    if all.is_empty() && unnamed > 0 {
        all.push(format!(
            "{unnamed} paths of mirror {id} fail beside those that it names: what was posted may be among them"
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_are_made_clean_as_far_as_they_are_there() {
        let place = std::env::temp_dir().join(format!("treeferry-post-{}", std::process::id()));
        std::fs::create_dir_all(place.join("src/d/e")).unwrap();
        let top = place.canonicalize().unwrap();
        symlink("src", top.join("way")).unwrap();
        symlink("e", top.join("src/d/l")).unwrap();
        let is = |path: &str, want: &str| {
            let clean = clean(&top.join(path));
            assert_eq!(String::from_utf8(clean).unwrap(), top.join(want).to_str().unwrap(), "{path}");
        };
        is("way/d/f", "src/d/f");
        is("src/d/l", "src/d/l");
        is("src/d/l/../f", "src/d/f");
        is("src/d/..", "src");
        is("src/d/e/../../a/", "src/a");
        is("src/./d//f", "src/d/f");
        is("way", "way");
        // nothing is there
        is("way/gone/x", "src/gone/x");
        is("way/gone/../d/l/x", "src/d/e/x");
        is("way/gone/..", "src");
        is("way/gone/x/../../../way/f", "src/f");
        assert_eq!(clean(Path::new("/..")), b"/");
        let behind = |p: &str| behind(top.join(p).as_os_str().as_bytes());
        assert_eq!(behind("way").as_deref(), Some(top.join("src").as_os_str().as_bytes()));
        assert_eq!(behind("gone"), None);
        std::fs::remove_dir_all(place).unwrap();
    }
}
