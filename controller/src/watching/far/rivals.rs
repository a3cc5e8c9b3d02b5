//! Other mirrors of the cluster that are kept at the same DST: two that remove what their own SRC does not have would take
//! turns in removing each other's copy.

use super::{ROUND, book, unreachable};
use crate::watching::files::is_held;
use std::time::{Duration, Instant};
use treeferry_core::{JobId, Stop};
use treeferry_queue::mirrors::KEEPER_MS;
use treeferry_queue::{LedgerError, Node};
use treeferry_worker::{Job, OpenError};

/// Refuses the mirror if there is one. A keeper that was killed is taken for alive for [`KEEPER_MS`], which is waited for.
///
/// Of two that begin at the same moment and were never there before, neither may see the other.
pub fn none(node: &Node, id: JobId, job: &Job, stop: &Stop) -> Result<(), OpenError> {
    let until = Instant::now() + Duration::from_millis(KEEPER_MS) + ROUND;
    loop {
        let Some((who, src)) = find(node, id, job).map_err(|e| unreachable(&e))? else { return Ok(()) };
        if Instant::now() > until || stop.is_set() {
            return Err(is_held(&job.spec().dst, &format!("the mirror of {src} (by {who})")));
        }
        std::thread::sleep(ROUND);
    }
}

/// Who keeps one, and of what.
fn find(node: &Node, id: JobId, job: &Job) -> Result<Option<(String, String)>, LedgerError> {
    let ours = job.roots_text();
    for other in node.mirrors()?.into_iter().filter(|o| *o != id) {
        let Some(record) = node.mirror(other)? else { continue };
        if !record.spec.passes.delete && !job.spec().passes.delete {
            continue;
        }
        let theirs = node.mirror_field(other, book::ROOTS)?.unwrap_or_default();
        let is_same = Job::same_target(&ours, &String::from_utf8_lossy(&theirs));
        if let Some(who) = node.keeper_of(other)?.filter(|_| is_same) {
            return Ok(Some((who, record.spec.src.display().to_string())));
        }
    }
    Ok(None)
}
