//! What is in the basket of a mirror goes to the broker, in numbered messages, or to the spool while that takes none.

use super::following::{PATIENCE, Shared, TICKS};
use super::spool::Spool;
use super::ticks::Read;
use super::{Agent, lock};
use std::sync::atomic::Ordering::*;
use std::sync::{Arc, PoisonError};
use treeferry_core::wire::{self, MessageKind};
use treeferry_mirror::{News, Said, Tick};

/// Of one message.
const MOST_SAID: usize = 4096;
/// With so much unsent, further messages go to the spool.
const MOST_UNSENT: usize = 1 << 20;
/// With more than this unsent nothing is sent that says nothing but a moment.
const SOME_UNSENT: usize = 64 << 10;

/// Sends what is in the basket of a mirror.
pub struct Sending {
    pub agent: Arc<Agent>,
    pub wish: u64,
    pub life: u64,
    pub line: String,
    pub shared: Arc<Shared>,
    pub spool: Spool,
    pub number: u64,
    /// The number of the last tick that was told.
    pub told: u64,
    /// Why nothing can be kept for the broker: until it takes something again all is missed, and that is said once.
    pub missed: Option<String>,
}

impl Sending {
    /// Its life and the number of its last message; `None`: not all went to the broker.
    pub fn run(mut self) -> Option<(u64, u64)> {
        loop {
            let over = self.shared.all_said.load(Acquire);
            let mut basket = lock(&self.shared.basket);
            let news = self.is_news(basket.told_by_all());
            if basket.said.is_empty() && !news && !over {
                basket =
                    self.shared.news.wait_timeout(basket, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
            }
            if basket.behind > 0 && !over {
                // once it is heard of, whoever keeps the mirror may walk
                drop(basket);
                std::thread::sleep(TICKS.0);
                continue;
            }
            let said = std::mem::take(&mut basket.said);
            let told = basket.told_by_all();
            drop(basket);
            self.send(said, told);
            self.unspool();
            if over {
                // what is on its way to the broker has a moment; what is not is missed by its number
                let is_all = self.spool.is_empty() && self.missed.is_none();
                return is_all.then_some((self.life, self.number));
            }
        }
    }

    /// Whether a moment is worth a message. While the broker takes nothing, or not enough, it is not.
    fn is_news(&self, told: Option<Read>) -> bool {
        let busy =
            self.missed.is_some() || !self.spool.is_empty() || self.agent.outgoing.unsent() > SOME_UNSENT;
        !busy && told.is_some_and(|r| r.number > self.told)
    }

    fn send(&mut self, mut said: Vec<Said>, told: Option<Read>) {
        while said.len() > MOST_SAID {
            let rest = said.split_off(MOST_SAID);
            self.send_one(said, None);
            said = rest;
        }
        if !said.is_empty() || self.is_news(told) {
            self.told = told.map_or(self.told, |r| r.number);
            self.send_one(said, told.map(|r| r.tick));
        }
    }

    fn send_one(&mut self, said: Vec<Said>, told: Option<Tick>) {
        if self.missed.is_some() {
            return;
        }
        let lasts = !said.is_empty();
        self.number += u64::from(lasts);
        let (agent, life) = (self.agent.name.clone(), self.life);
        let (wish, number) = (self.wish, self.number);
        let news = News::Signs { agent, wish, life, number, said, told };
        let body = wire::encode(MessageKind::MirrorNews, &news);
        if self.spool.is_empty() && self.agent.outgoing.unsent() < MOST_UNSENT {
            drop(self.agent.outgoing.send(&self.line, body, lasts));
            return;
        }
        // in order: once something is in the spool all goes there
        if let Err(e) = self.spool.put(&body) {
            tracing::warn!(
                "the broker is away, and what changes cannot be kept for it: {e}; when it is back, all is looked at"
            );
            self.spool.clear();
            self.missed = Some(e.to_string());
        }
    }

    fn unspool(&mut self) {
        if self.agent.outgoing.unsent() < MOST_UNSENT / 2
            && let Some(why) = self.missed.take()
        {
            self.send_one(vec![Said::Lost(format!("the broker was away: {why}"))], None);
        }
        while !self.spool.is_empty() && self.agent.outgoing.unsent() < MOST_UNSENT / 2 {
            match self.spool.take() {
                Ok(Some(body)) => drop(self.agent.outgoing.send(&self.line, body, true)),
                Ok(None) => {}
                // it is missed by its number
                Err(e) => {
                    tracing::error!("what was kept for the broker cannot be read: {e}");
                    self.spool.clear();
                }
            }
        }
    }
}
