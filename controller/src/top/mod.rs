//! `treeferry top`: a full-screen view of jobs and workers.
//!
//! ```text
//!  threads of fetch.rs ──News──►┌─────────┐
//!  keys, time ─────────────────►│ model   ├──► draw.rs ──► terminal.rs
//!           ◄──Order── Wish ────┤         │
//!                               └─────────┘
//! ```
//!
//! Model and drawing are pure. What waits for a server does so in `fetch`, so that keys are heard whatever happens there.

mod draw;
mod fetch;
mod look;
mod model;
mod terminal;

use fetch::Order;
use look::Look;
use model::{Deed, Model, News, Source, Wish};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use std::io;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;
use terminal::Screen;
use treeferry_core::Stop;
use treeferry_queue::{Control, Site};

/// How long keys are waited for before other things are looked at.
const TICK: Duration = Duration::from_millis(100);
/// The screen is drawn at least so often: ages grow.
const DRAWN_EVERY_MS: u64 = 500;

/// How it came to an end.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// By a key.
    Left {
        /// Why there was never anything to see.
        never: Option<String>,
        /// What was asked of the cluster, and not answered.
        unanswered: Option<String>,
    },
    /// By a signal.
    Stopped,
}

/// Where news come from, and where orders go.
pub struct Wires {
    tell: Sender<News>,
    news: Receiver<News>,
}

impl Wires {
    /// Not yet connected to anything.
    pub fn new() -> Wires {
        let (tell, news) = channel();
        Wires { tell, news }
    }

    /// Where to tell trouble: what would otherwise be written over the screen.
    pub fn trouble(&self) -> impl Fn(String) + Send + Sync + use<> {
        let tell = self.tell.clone();
        move |why| drop(tell.send(News::Trouble(why)))
    }
}

/// Watches a cluster, or else this machine, until somebody leaves or `stop` is set.
pub fn watch(site: Option<&Site>, wires: Wires, stop: &Stop) -> io::Result<End> {
    let (orders, source) = match site {
        Some(site) => (fetch::start(site, &wires.tell)?, Source::Cluster),
        None => (fetch::start_here(&wires.tell)?, Source::Local),
    };
    let mut screen = Screen::take()?;
    let mut model = Model::new(source, Control::now_ms());
    run(&mut screen, &mut model, &wires.news, &orders, stop)
}

fn run(
    screen: &mut Screen,
    model: &mut Model,
    news: &Receiver<News>,
    orders: &Sender<Order>,
    stop: &Stop,
) -> io::Result<End> {
    let look = Look::of(|name| std::env::var_os(name));
    let ended = || io::Error::other("internal error: a thread has ended");
    let (mut chosen, mut drawn_ms, mut dirty) = (None, 0, true);
    loop {
        model.on_time(Control::now_ms());
        loop {
            match news.try_recv() {
                Ok(n) => model.on_news(n),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(ended()),
            }
            dirty = true;
        }
        if stop.is_set() {
            return Ok(End::Stopped);
        }
        let job = model.job().map(|j| j.id);
        if job != chosen {
            chosen = job;
            orders.send(Order::Choose(job)).map_err(|_| ended())?;
        }
        let now = Control::now_ms();
        if dirty || now.abs_diff(drawn_ms) >= DRAWN_EVERY_MS {
            screen.0.draw(|frame| draw::draw(model, look, frame.area(), frame.buffer_mut()))?;
            (dirty, drawn_ms) = (false, now);
        }
        if !event::poll(TICK)? {
            continue;
        }
        dirty = true;
        match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => match model.on_key(key) {
                None => {}
                Some(Wish::Redraw) => screen.0.clear()?,
                Some(Wish::Do(deed)) => orders.send(Order::Do(deed)).map_err(|_| ended())?,
                Some(Wish::Quit) => {
                    return Ok(End::Left {
                        never: model.never().map(str::to_owned),
                        unanswered: model.asked().map(Deed::to_string),
                    });
                }
            },
            _ => {}
        }
    }
}
