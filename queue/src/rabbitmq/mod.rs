//! The broker: RabbitMQ moves the names of tasks to workers, and may lose or repeat them without harm.
//!
//! Publishing and consuming have a connection each, for one that publishes is blocked as a whole while the broker is
//! short of memory or disk, acknowledgements included. Both are made again, for ever, when they break.

pub mod lines;
pub mod survey;

use crate::cluster::bundle::Lane;
use futures_util::StreamExt;
use lapin::Acker;
use lapin::message::Delivery;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, BasicRejectOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ConnectionStatus};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{JobId, TaskId};

/// Queue of what nobody can read, with the reason in the header `treeferry-reason`.
pub const DEAD: &str = "treeferry.dead";
/// Confirms that are waited for at once. (The broker confirms in batches: 100 outstanding are four times as fast as 10.)
const OUTSTANDING: usize = 200;
/// How long a confirm may take before the publication counts as failed; the ledger remembers it.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);
/// How long no thread may ask for a message until messages are left to others.
const BUSY_FOR: Duration = Duration::from_millis(20);
/// How long the broker may take to answer a request.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How often a connection is looked at over which nothing is published.
const LOOK_AFTER: Duration = Duration::from_millis(200);
const FIRST_PATIENCE: Duration = Duration::from_millis(100);
const MOST_PATIENCE: Duration = Duration::from_secs(5);

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Errand {
    /// Of which job.
    pub job: JobId,
    /// Which task; what there is to do stands in the ledger.
    pub task: TaskId,
}

/// A message that has arrived.
#[derive(Debug)]
pub struct Arrival {
    /// What it says.
    pub errand: Errand,
    /// Which queue it came by.
    pub lane: Lane,
    /// Settles it.
    pub slip: Slip,
    /// It has been somewhere before.
    pub redelivered: bool,
    /// As long as it is here.
    pub counted: Counted,
}

/// What settles a message with the broker. One that was taken back before the broker had it needs no settling.
#[derive(Clone, Debug)]
pub struct Slip(Option<Acker>);

impl Slip {
    /// The broker forgets the message.
    pub async fn ack(&self) {
        if let Some(acker) = &self.0 {
            // a false answer, none, or an error: the message will come again, and be found done
            let _ = within(acker.ack(Default::default())).await;
        }
    }

    /// Whether the broker takes us for the one who has the message. What was taken back nobody but the ledger knows of.
    pub fn is_valid(&self) -> bool {
        self.0.as_ref().is_some_and(Acker::usable)
    }

    /// The broker gives the message to somebody else.
    pub async fn give_back(&self) {
        if let Some(acker) = &self.0 {
            let _ = within(acker.reject(BasicRejectOptions { requeue: true })).await;
        }
    }
}

/// What the broker does not answer in time has failed: over a connection that breaks at that moment nothing comes, not
/// even an error.
async fn within<T>(call: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    match tokio::time::timeout(ANSWER_WITHIN, call).await {
        Ok(r) => r,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// The same for what is published: the time does not count for which the broker is short of memory or disk. It answers
/// nothing then over a connection that has published, not even its end: who made another would keep both.
async fn within_unblocked<T>(
    conn: &Connection,
    call: impl Future<Output = lapin::Result<T>>,
) -> lapin::Result<T> {
    let mut since = Instant::now();
    tokio::pin!(call);
    loop {
        match tokio::time::timeout(LOOK_AFTER, &mut call).await {
            Ok(r) => return r,
            Err(_) if conn.status().blocked() && conn.status().connected() => since = Instant::now(),
            Err(_) if since.elapsed() < ANSWER_WITHIN && conn.status().connected() => {}
            Err(_) => return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
}

/// Returns when a connection is found dead: its channels may not hear of it.
async fn dead(conn: &Connection) {
    while conn.status().connected() {
        tokio::time::sleep(LOOK_AFTER).await;
    }
}

/// Something to be published.
pub struct Post {
    /// Where.
    pub queue: &'static str,
    /// What.
    pub errand: Errand,
    /// Why nobody can work on it, for [`DEAD`].
    pub reason: Option<String>,
    /// Told whether the broker has confirmed it.
    pub done: tokio::sync::oneshot::Sender<bool>,
}

/// The broker, seen from one process.
pub struct Broker {
    url: String,
    posts: mpsc::Sender<Post>,
    /// The connection that publishes, while there is one.
    publisher: Arc<Mutex<Option<ConnectionStatus>>>,
    /// What was given to it and is not confirmed.
    unsent: Arc<Mutex<BTreeMap<(JobId, TaskId), Lane>>>,
    /// Messages that have arrived and are not settled, by lane.
    held: Arc<[AtomicU64; 4]>,
}

/// Counts a message from its arrival until it is dropped, which is when it is settled.
#[derive(Debug)]
pub struct Counted(Arc<[AtomicU64; 4]>, usize);

impl Counted {
    fn new(all: &Arc<[AtomicU64; 4]>, lane: Lane) -> Counted {
        let place = Lane::ALL.iter().position(|l| *l == lane).unwrap_or_default();
        all[place].fetch_add(1, Relaxed);
        Counted(Arc::clone(all), place)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0[self.1].fetch_sub(1, Relaxed);
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn properties(what: &str) -> ConnectionProperties {
    ConnectionProperties::default().with_connection_name(format!("treeferry {what}").into())
}

/// Arguments of a queue.
fn arguments(lane: Lane) -> FieldTable {
    let mut arguments = FieldTable::default();
    if lane == Lane::Links {
        // one hardlinker works; when it dies the broker turns to the next
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    }
    arguments
}

/// Declares the queues: durable, and with no argument that a later version might refuse. (Lazy ones by policy.)
async fn declare(ch: &Channel) -> lapin::Result<()> {
    for lane in Lane::ALL {
        ch.queue_declare(lane.queue().into(), QueueDeclareOptions::durable(), arguments(lane)).await?;
    }
    ch.queue_declare(DEAD.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    Ok(())
}

impl Broker {
    /// Connects; the first time must succeed.
    pub async fn connect(url: &str) -> lapin::Result<Broker> {
        let first = open(url, "publisher").await?;
        let (posts, queue) = mpsc::channel(10_000);
        let publisher = Arc::new(Mutex::new(Some(first.0.status().clone())));
        tokio::spawn(publish(url.to_owned(), first, queue, Arc::clone(&publisher)));
        let (unsent, held) = (Arc::default(), Arc::default());
        Ok(Broker { url: url.to_owned(), posts, publisher, unsent, held })
    }

    /// Whether it takes no messages at the moment: it is away, or short of memory or disk.
    pub fn is_blocked(&self) -> bool {
        lock(&self.publisher).as_ref().is_none_or(|s| s.blocked() || !s.connected())
    }

    /// Publishes; the answer comes with the broker's confirm.
    pub async fn post(&self, lane: Lane, errand: Errand) -> bool {
        let key = (errand.job, errand.task);
        lock(&self.unsent).insert(key, lane);
        let sent = self.send(lane.queue(), errand, None).await;
        if sent || !self.is_blocked() {
            lock(&self.unsent).remove(&key);
        }
        sent
    }

    /// Takes back a task that the broker did not take, for whoever has nothing else to do. Should the broker have it
    /// after all, whoever gets it there goes on with it: the ledger knows how far it came.
    pub fn take_back(&self, lanes: &[Lane]) -> Option<Arrival> {
        let mut unsent = lock(&self.unsent);
        let (key, lane) = unsent.iter().find(|(_, lane)| lanes.contains(lane)).map(|(k, l)| (*k, *l))?;
        unsent.remove(&key);
        if !self.is_blocked() {
            // it is published again from the ledger's outbox
            unsent.clear();
            return None;
        }
        let errand = Errand { job: key.0, task: key.1 };
        let counted = Counted::new(&self.held, lane);
        Some(Arrival { errand, lane, slip: Slip(None), redelivered: true, counted })
    }

    /// Puts a message that nobody can work on where somebody will look for it.
    pub async fn bury(&self, errand: Errand, why: &str) -> bool {
        tracing::warn!("a message went to {DEAD}: {why}");
        self.send(DEAD, errand, Some(why.to_owned())).await
    }

    async fn send(&self, queue: &'static str, errand: Errand, reason: Option<String>) -> bool {
        let (done, answer) = tokio::sync::oneshot::channel();
        if self.posts.send(Post { queue, errand, reason, done }).await.is_err() {
            return false;
        }
        answer.await.unwrap_or(false)
    }

    /// Brings what arrives by a lane, for ever, as long as somebody listens.
    pub fn listen(&self, lane: Lane, prefetch: u16, door: Door) {
        let consumer = Consumer { lane, door, held: Arc::clone(&self.held) };
        tokio::spawn(consume(self.url.clone(), prefetch, consumer));
    }

    /// Messages that have arrived here and are not settled, by queue.
    pub fn unacked(&self) -> BTreeMap<String, u64> {
        let count = |(i, l): (usize, &Lane)| (l.queue().to_owned(), self.held[i].load(Relaxed));
        Lane::ALL.iter().enumerate().map(count).filter(|(_, n)| *n > 0).collect()
    }

    /// The queues of some lanes, and that of dead letters.
    pub async fn look(&self, lanes: &[Lane]) -> lapin::Result<Vec<Depth>> {
        look(&self.url, lanes).await
    }
}

/// Of a queue its name, messages that wait, consumers.
pub type Depth = (&'static str, u32, u32);

/// The queues of some lanes, and that of dead letters.
pub async fn look(url: &str, lanes: &[Lane]) -> lapin::Result<Vec<Depth>> {
    within(look_at(url, lanes)).await
}

async fn look_at(url: &str, lanes: &[Lane]) -> lapin::Result<Vec<Depth>> {
    let (conn, ch) = open(url, "look").await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    let mut out = Vec::new();
    for name in lanes.iter().map(|l| l.queue()).chain([DEAD]) {
        let q = ch.queue_declare(name.into(), passive, FieldTable::default()).await?;
        out.push((name, q.message_count(), q.consumer_count()));
    }
    conn.close(200, "done".into()).await?;
    Ok(out)
}

async fn open(url: &str, what: &str) -> lapin::Result<(Connection, Channel)> {
    let opened = async {
        let conn = Connection::connect(url, properties(what)).await?;
        let ch = conn.create_channel().await?;
        declare(&ch).await?;
        Ok((conn, ch))
    };
    within(opened).await
}

/// A connection that can be used, however long that takes.
async fn open_at_last(url: &str, what: &str) -> (Connection, Channel) {
    let (mut patience, mut said) = (FIRST_PATIENCE, false);
    loop {
        match open(url, what).await {
            Ok(c) => {
                if said {
                    tracing::warn!("the broker is back ({what})");
                }
                return c;
            }
            Err(e) => {
                if !said {
                    said = true;
                    tracing::warn!("the broker is away ({what}: {e}): waiting for it");
                }
                tokio::time::sleep(patience).await;
                patience = (patience * 2).min(MOST_PATIENCE);
            }
        }
    }
}

async fn publish(
    url: String,
    first: (Connection, Channel),
    mut queue: mpsc::Receiver<Post>,
    status: Arc<Mutex<Option<ConnectionStatus>>>,
) {
    let mut open = Some(first);
    // found the connection dead, and is sent by the next
    let mut unsent: Option<Post> = None;
    let permits = Arc::new(tokio::sync::Semaphore::new(OUTSTANDING));
    loop {
        let (conn, ch) = match open.take() {
            Some(c) => c,
            None => {
                *lock(&status) = None;
                open_at_last(&url, "publisher").await
            }
        };
        *lock(&status) = Some(conn.status().clone());
        if within(ch.confirm_select(ConfirmSelectOptions::default())).await.is_err() {
            tokio::time::sleep(FIRST_PATIENCE).await;
            continue;
        }
        loop {
            let post = match unsent.take() {
                Some(p) => p,
                None => match tokio::time::timeout(LOOK_AFTER, queue.recv()).await {
                    Ok(Some(p)) => p,
                    Ok(None) => return,
                    // found dead by looking: while nothing is published nobody else would
                    Err(_) if !conn.status().connected() => break,
                    Err(_) => continue,
                },
            };
            if !conn.status().connected() {
                unsent = Some(post);
                break;
            }
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let payload = wire::encode(MessageKind::Errand, &post.errand);
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let persistent = match &post.reason {
                None => BasicProperties::default().with_delivery_mode(2),
                Some(why) => dead_letter(why),
            };
            let sent = ch.basic_publish("".into(), post.queue.into(), options, &payload, persistent);
            match within_unblocked(&conn, sent).await {
                Ok(confirm) => {
                    tokio::spawn(async move {
                        let r = tokio::time::timeout(CONFIRM_WITHIN, confirm).await;
                        let _ = post.done.send(matches!(r, Ok(Ok(Confirmation::Ack(None)))));
                        drop(permit);
                    });
                }
                Err(_) => {
                    unsent = Some(post);
                    break;
                }
            }
        }
    }
}

/// Where threads ask for messages, and get as many as they have asked for.
#[derive(Clone)]
pub struct Door {
    asking: watch::Sender<usize>,
    to: mpsc::UnboundedSender<Arrival>,
}

impl Door {
    /// A door, and what comes through it.
    pub fn new() -> (Door, mpsc::UnboundedReceiver<Arrival>) {
        let (to, arrivals) = mpsc::unbounded_channel();
        (Door { asking: watch::Sender::new(0), to }, arrivals)
    }

    /// Asks for one message.
    pub fn ask(&self) {
        self.asking.send_modify(|n| *n += 1);
    }

    /// Asks for one message less. `false`: all that were asked for have come or are about to.
    pub fn withdraw(&self) -> bool {
        self.asking.send_if_modified(|n| {
            let some = *n > 0;
            *n -= usize::from(some);
            some
        })
    }

    /// Returns when somebody asks.
    async fn asked(&self) {
        // the sender is ours, so there is one
        let _ = self.asking.subscribe().wait_for(|n| *n > 0).await;
    }

    /// Returns when nobody has asked for a while.
    async fn busy(&self) {
        loop {
            let _ = self.asking.subscribe().wait_for(|n| *n == 0).await;
            if tokio::time::timeout(BUSY_FOR, self.asked()).await.is_err() {
                return;
            }
        }
    }
}

/// One lane of one process.
struct Consumer {
    lane: Lane,
    door: Door,
    held: Arc<[AtomicU64; 4]>,
}

/// Why a consumer takes no more messages.
enum Ended {
    /// Nobody here has time for any.
    Busy,
    /// The connection is of no more use.
    Broken,
}

async fn consume(url: String, prefetch: u16, c: Consumer) {
    loop {
        let (conn, ch) = open_at_last(&url, c.lane.queue()).await;
        // A process takes messages of a lane while a thread asks for one, so that none waits here while threads
        // elsewhere have nothing to do. The hardlinker stays the one whom the broker has chosen.
        let taken = async {
            while let Ended::Busy = c.some(&ch, prefetch).await {
                c.door.asked().await;
            }
        };
        tokio::select! {
            () = taken => {}
            () = dead(&conn) => {}
        }
        drop(conn);
        tokio::time::sleep(FIRST_PATIENCE).await;
    }
}

impl Consumer {
    /// Consumes for as long as that is of use.
    async fn some(&self, ch: &Channel, prefetch: u16) -> Ended {
        let stays = self.lane == Lane::Links;
        let began = async {
            ch.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let (queue, tag) = (self.lane.queue().into(), "".into());
            ch.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default()).await
        };
        let Ok(mut consumer) = within(began).await else { return Ended::Broken };
        loop {
            tokio::select! {
                biased;
                next = consumer.next() => match next {
                    // what a dead channel had buffered will come again by another
                    Some(Ok(d)) if d.acker.usable() => {
                        if let Err(unwanted) = self.pass_on(ch, d, stays).await {
                            let _ = unwanted.reject(BasicRejectOptions { requeue: true }).await;
                            break;
                        }
                    }
                    _ => return Ended::Broken,
                },
                () = self.door.busy(), if !stays => break,
            }
        }
        let cancel = ch.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        if within(cancel).await.is_err() {
            return Ended::Broken;
        }
        // what came in between, for which there may be somebody after all
        while let Some(next) = consumer.next().await {
            let Ok(d) = next else { return Ended::Broken };
            if let Err(unwanted) = self.pass_on(ch, d, false).await {
                let _ = unwanted.reject(BasicRejectOptions { requeue: true }).await;
            }
        }
        Ended::Busy
    }

    /// Gives a message to whichever thread asks. An error: none does.
    async fn pass_on(&self, ch: &Channel, d: Delivery, stays: bool) -> Result<(), Acker> {
        let errand = match wire::decode::<Errand>(MessageKind::Errand, &d.data) {
            Ok(errand) => errand,
            Err(e) => {
                bury(ch, d, &e.to_string()).await;
                return Ok(());
            }
        };
        let counted = Counted::new(&self.held, self.lane);
        while !self.door.withdraw() {
            let asked = tokio::time::timeout(BUSY_FOR, self.door.asked()).await;
            if asked.is_err() && (!stays || !d.acker.usable()) {
                return Err(d.acker);
            }
        }
        let (lane, redelivered) = (self.lane, d.redelivered);
        // nobody listens any more: the process is about to end
        let _ = self.door.to.send(Arrival { errand, lane, slip: Slip(Some(d.acker)), redelivered, counted });
        Ok(())
    }
}

/// Properties of a dead letter.
fn dead_letter(why: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("treeferry-reason".into(), AMQPValue::LongString(why.into()));
    BasicProperties::default().with_delivery_mode(2).with_headers(headers)
}

/// Puts a message that nobody can read where somebody will look for it, with the reason.
async fn bury(ch: &Channel, delivery: Delivery, why: &str) {
    tracing::warn!("a message that is not ours went to {DEAD}: {why}");
    let sent = ch
        .basic_publish(
            "".into(),
            DEAD.into(),
            BasicPublishOptions::default(),
            &delivery.data,
            dead_letter(why),
        )
        .await;
    match sent {
        Ok(_) => drop(delivery.acker.ack(Default::default()).await),
        Err(_) => drop(delivery.acker.reject(BasicRejectOptions { requeue: true }).await),
    }
}
