//! What the keeper of a mirror sends those who look.

use crate::watching::desk::Desk;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{JobId, Work};
use treeferry_mirror::Errand;
use treeferry_queue::mirrors::{self, Outgoing};

/// Sends errands.
pub struct Errands {
    /// For which mirror.
    pub mirror: JobId,
    /// As in [`Errand`].
    pub wish: u64,
    /// The keeper's.
    pub life: u64,
    /// The keeper's.
    pub desk: Arc<Desk>,
    /// The way to the broker.
    pub outgoing: Outgoing,
}

impl Errands {
    /// Sends one, perhaps once more. It is not kept on the broker's disk: what gets lost is missed.
    pub fn send(&self, ticket: u64, work: Work) {
        let names_are_known = self.desk.walked_once.load(Relaxed);
        let Errands { mirror, wish, life, .. } = *self;
        let errand = Errand { mirror, wish, life, ticket, names_are_known, work };
        drop(self.outgoing.send(mirrors::LOOKS, wire::encode(MessageKind::MirrorErrand, &errand), false));
    }
}
