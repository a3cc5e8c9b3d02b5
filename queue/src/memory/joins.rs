//! The joins of the embedded ledger. In shards, so that threads seldom meet.

use super::lock;
use std::collections::HashMap;
use std::sync::Mutex;
use treeferry_core::{JoinId, NewTask};

const SHARDS: usize = 16;

#[derive(Debug)]
struct Join {
    /// Tasks that count into it and are not done, and one more until it is sealed.
    count: u64,
    tally: u64,
    follow_up: Option<NewTask>,
}

#[derive(Debug, Default)]
pub(super) struct Joins {
    shards: [Mutex<HashMap<JoinId, Join>>; SHARDS],
}

impl Joins {
    fn shard(&self, j: JoinId) -> &Mutex<HashMap<JoinId, Join>> {
        &self.shards[j.0 as usize % SHARDS]
    }

    /// Opens a join, held by its opener.
    pub fn open(&self, j: JoinId) {
        lock(self.shard(j)).insert(j, Join { count: 1, tally: 0, follow_up: None });
    }

    /// One more task counts into it. False: there is no such join.
    pub fn count_in(&self, j: JoinId) -> bool {
        lock(self.shard(j)).get_mut(&j).map(|x| x.count += 1).is_some()
    }

    /// One task, or with a follow-up the opener, counts out of it. At zero the join is gone and its follow-up
    /// and tally are returned. `Err`: there is no such join.
    pub fn count_out(
        &self,
        j: JoinId,
        tally: u64,
        follow_up: Option<NewTask>,
    ) -> Result<Option<(NewTask, u64)>, ()> {
        let mut shard = lock(self.shard(j));
        let x = shard.get_mut(&j).ok_or(())?;
        x.count -= 1;
        x.tally += tally;
        if follow_up.is_some() {
            x.follow_up = follow_up;
        }
        if x.count > 0 {
            return Ok(None);
        }
        let x = shard.remove(&j).ok_or(())?;
        x.follow_up.map(|f| Some((f, x.tally))).ok_or(())
    }
}
