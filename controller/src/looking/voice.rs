//! What those who look, and those who walk, say to whoever keeps the mirror.

use super::lock;
use crate::events::Teller;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{Change, Event, Failure, JobId, Notice, Pass, RelPath, Stop, Work};
use treeferry_mirror::{Finding, News};
use treeferry_queue::Node;
use treeferry_queue::mirrors::{self, Letter, Outgoing, Sent};
use treeferry_worker::{Mirrored, Reporter};

/// Says things to whoever keeps a mirror.
pub struct Voice {
    outgoing: Arc<Outgoing>,
    line: String,
    worker: String,
}

impl Voice {
    /// For a mirror.
    pub fn new(node: &Node, outgoing: &Arc<Outgoing>, mirror: JobId) -> Voice {
        let (line, worker) = (mirrors::line(mirror), node.worker().to_owned());
        Voice { outgoing: Arc::clone(outgoing), line, worker }
    }

    pub(super) fn say(&self, found: Vec<Finding>, lasts: bool) -> Sent {
        let news = News::Found { worker: self.worker.clone(), found };
        self.outgoing.send(&self.line, wire::encode(MessageKind::MirrorNews, &news), lasts)
    }
}

/// What is said to those who look by whoever walks for a mirror. What a walk finds must have been heard before the walk is
/// over, which the ledger decides: so each word is waited for.
pub struct Walker {
    voice: Voice,
    known: bool,
    part: bool,
}

impl Walker {
    /// For a mirror. `known`: the whole source has been walked once. `part`: this walk is of a part of it.
    pub fn new(voice: Voice, known: bool, part: bool) -> Walker {
        Walker { voice, known, part }
    }
}

impl Mirrored for Walker {
    fn again(&self, path: RelPath, below: bool, owed: &RelPath) {
        self.voice.say(vec![Finding::Again(path, below, owed.clone())], true).wait_for_ever();
    }

    fn changed(&self, path: RelPath) {
        self.voice.say(vec![Finding::Changed(path)], true).wait_for_ever();
    }

    fn later(&self, path: RelPath, wait: Duration, owed: &RelPath) {
        self.voice.say(vec![Finding::Later(path, wait, owed.clone())], true).wait_for_ever();
    }

    fn settled(&self, _: u64) {}
    fn moved(&self, _: &RelPath) {}

    fn names_are_known(&self) -> bool {
        self.known
    }

    fn walks_a_part(&self) -> bool {
        self.part
    }
}

/// What is being done for one mirror, and for whom.
pub(super) struct Hands {
    pub(super) voice: Voice,
    /// By our ticket.
    pub(super) doing: Mutex<BTreeMap<u64, Doing>>,
    pub(super) known: AtomicBool,
    /// What is under way is cut short.
    pub(super) stop: Stop,
}

pub(super) struct Doing {
    pub(super) life: u64,
    pub(super) ticket: u64,
    pub(super) errand: Held,
    pub(super) since: Instant,
}

/// An errand that is being done.
pub(super) enum Held {
    /// It is acknowledged at its end.
    Letter(Letter),
    /// What took so long was acknowledged before; what it says.
    Acknowledged(Vec<u8>),
}

impl Held {
    pub(super) fn acknowledge(&mut self) {
        let body = match self {
            Held::Letter(letter) => letter.body.clone(),
            Held::Acknowledged(_) => return,
        };
        std::mem::replace(self, Held::Acknowledged(body)).done();
    }

    pub(super) fn done(self) {
        if let Held::Letter(letter) = self {
            letter.done();
        }
    }
}

/// What workers say.
pub(super) struct Ear(pub(super) Arc<Hands>);

impl Mirrored for Ear {
    fn again(&self, path: RelPath, below: bool, owed: &RelPath) {
        // in order: heard before the end of the errand
        drop(self.0.voice.say(vec![Finding::Again(path, below, owed.clone())], true));
    }

    fn again_surely(&self, path: RelPath, below: bool, owed: &RelPath) -> bool {
        let sent = self.0.voice.say(vec![Finding::Again(path, below, owed.clone())], true);
        sent.wait_unless(|| self.0.stop.is_set())
    }

    fn changed(&self, path: RelPath) {
        drop(self.0.voice.say(vec![Finding::Changed(path)], true));
    }

    fn later(&self, path: RelPath, wait: Duration, owed: &RelPath) {
        drop(self.0.voice.say(vec![Finding::Later(path, wait, owed.clone())], true));
    }

    fn settled(&self, ticket: u64) {
        let Some(d) = lock(&self.0.doing).remove(&ticket) else { return };
        let found = vec![Finding::Settled { life: d.life, ticket: d.ticket }];
        // to wait until the broker has it would make each look as slow as its disk. If it gets lost, with this process or
        // with the broker, whoever keeps the mirror hears nothing of the errand, sends it again, and is answered then
        drop(self.0.voice.say(found, false));
        d.errand.done();
    }

    fn moved(&self, _: &RelPath) {
        drop(self.0.voice.say(vec![Finding::Moved], false));
    }

    fn names_are_known(&self) -> bool {
        self.0.known.load(Relaxed)
    }
}

/// Tells whoever keeps the mirror of failures, and those who watch of all.
pub(super) struct Told {
    pub(super) hands: Arc<Hands>,
    pub(super) mirror: JobId,
    pub(super) teller: Teller,
}

impl Reporter for Told {
    fn changes(&self, _: &[Change]) {}

    fn events(&self, events: Vec<Event>) {
        self.teller.events(events);
    }

    fn failure(&self, f: &Failure, _: Option<Pass>) {
        tracing::info!("mirror {}: {f}", self.mirror);
        drop(self.hands.voice.say(vec![Finding::Failed(f.clone())], true));
    }

    fn notice(&self, n: Notice) {
        self.teller.notice(n);
    }

    fn ran(&self, work: &Work, took: Duration) {
        self.teller.ran(work, took);
    }
}
