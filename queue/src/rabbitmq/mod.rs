//! The broker: RabbitMQ moves the names of tasks to workers, and may lose or repeat them without harm.
//!
//! Publishing and consuming have a connection each, for one that publishes is blocked as a whole while the broker is
//! short of memory or disk, acknowledgements included. Both are made again, for ever, when they break.

use crate::cluster::bundle::Lane;
use futures_util::StreamExt;
use lapin::Acker;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, BasicRejectOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{JobId, TaskId};

/// Queue of what nobody can read, with the reason in the header `treeferry-reason`.
pub const DEAD: &str = "treeferry.dead";
/// Confirms that are waited for at once. (The broker confirms in batches: 100 outstanding are four times as fast as 10.)
const OUTSTANDING: usize = 200;
/// How long a confirm may take before the publication counts as failed; the ledger remembers it.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);
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
    /// Acknowledges it.
    pub acker: Acker,
}

/// Something to be published.
pub struct Post {
    /// Where.
    pub lane: Lane,
    /// What.
    pub errand: Errand,
    /// Told whether the broker has confirmed it.
    pub done: tokio::sync::oneshot::Sender<bool>,
}

/// The broker, seen from one process.
pub struct Broker {
    url: String,
    posts: mpsc::Sender<Post>,
    /// It does not take messages at the moment: it is away, or short of memory or disk.
    pub blocked: Arc<AtomicBool>,
}

fn properties(what: &str) -> ConnectionProperties {
    ConnectionProperties::default().with_connection_name(format!("treeferry {what}").into())
}

/// Declares the queues: durable, and with no argument that a later version might refuse. (Lazy ones by policy.)
async fn declare(ch: &Channel) -> lapin::Result<()> {
    for lane in Lane::ALL {
        let mut arguments = FieldTable::default();
        if lane == Lane::Links {
            // one hardlinker works; when it dies the broker turns to the next
            arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        }
        ch.queue_declare(lane.queue().into(), QueueDeclareOptions::durable(), arguments).await?;
    }
    ch.queue_declare(DEAD.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    Ok(())
}

impl Broker {
    /// Connects; the first time must succeed.
    pub async fn connect(url: &str) -> lapin::Result<Broker> {
        let first = open(url, "publisher").await?;
        let (posts, queue) = mpsc::channel(10_000);
        let blocked = Arc::new(AtomicBool::new(false));
        tokio::spawn(publish(url.to_owned(), first, queue, Arc::clone(&blocked)));
        Ok(Broker { url: url.to_owned(), posts, blocked })
    }

    /// Publishes; the answer comes with the broker's confirm.
    pub async fn post(&self, lane: Lane, errand: Errand) -> bool {
        let (done, answer) = tokio::sync::oneshot::channel();
        if self.posts.send(Post { lane, errand, done }).await.is_err() {
            return false;
        }
        answer.await.unwrap_or(false)
    }

    /// Brings what arrives by a lane, for ever, as long as somebody listens.
    pub fn listen(&self, lane: Lane, prefetch: u16, to: mpsc::Sender<Arrival>) {
        tokio::spawn(consume(self.url.clone(), lane, prefetch, to));
    }

    /// How many messages wait in a lane, as far as the broker tells.
    pub async fn ready(&self, lanes: &[Lane]) -> lapin::Result<Vec<u32>> {
        let (conn, ch) = open(&self.url, "look").await?;
        let mut out = Vec::new();
        for lane in lanes {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
            out.push(
                ch.queue_declare(lane.queue().into(), passive, FieldTable::default()).await?.message_count(),
            );
        }
        conn.close(200, "done".into()).await?;
        Ok(out)
    }
}

async fn open(url: &str, what: &str) -> lapin::Result<(Connection, Channel)> {
    let conn = Connection::connect(url, properties(what)).await?;
    let ch = conn.create_channel().await?;
    declare(&ch).await?;
    Ok((conn, ch))
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
    blocked: Arc<AtomicBool>,
) {
    let mut open = Some(first);
    let permits = Arc::new(tokio::sync::Semaphore::new(OUTSTANDING));
    loop {
        let (conn, ch) = match open.take() {
            Some(c) => c,
            None => {
                blocked.store(true, Relaxed);
                open_at_last(&url, "publisher").await
            }
        };
        blocked.store(false, Relaxed);
        if ch.confirm_select(ConfirmSelectOptions::default()).await.is_err() {
            tokio::time::sleep(FIRST_PATIENCE).await;
            continue;
        }
        while let Some(post) = queue.recv().await {
            blocked.store(conn.status().blocked(), Relaxed);
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let payload = wire::encode(MessageKind::Errand, &post.errand);
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let persistent = BasicProperties::default().with_delivery_mode(2);
            let sent =
                ch.basic_publish("".into(), post.lane.queue().into(), options, &payload, persistent).await;
            match sent {
                Ok(confirm) => {
                    tokio::spawn(async move {
                        let r = tokio::time::timeout(CONFIRM_WITHIN, confirm).await;
                        let _ = post.done.send(matches!(r, Ok(Ok(Confirmation::Ack(None)))));
                        drop(permit);
                    });
                }
                Err(_) => {
                    let _ = post.done.send(false);
                    break;
                }
            }
            if !conn.status().connected() {
                break;
            }
        }
        if queue.is_closed() {
            return;
        }
    }
}

async fn consume(url: String, lane: Lane, prefetch: u16, to: mpsc::Sender<Arrival>) {
    loop {
        let (conn, ch) = open_at_last(&url, lane.queue()).await;
        let began = async {
            ch.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let tag = "".into();
            ch.basic_consume(lane.queue().into(), tag, BasicConsumeOptions::default(), FieldTable::default())
                .await
        };
        if let Ok(mut consumer) = began.await {
            while let Some(Ok(delivery)) = consumer.next().await {
                // what a dead channel had buffered will come again by another
                if !delivery.acker.usable() {
                    break;
                }
                match wire::decode::<Errand>(MessageKind::Errand, &delivery.data) {
                    Ok(errand) => {
                        if to.send(Arrival { errand, lane, acker: delivery.acker }).await.is_err() {
                            let _ = conn.close(200, "done".into()).await;
                            return;
                        }
                    }
                    Err(e) => bury(&ch, delivery, &e.to_string()).await,
                }
            }
        }
        if to.is_closed() {
            return;
        }
        drop(conn);
        tokio::time::sleep(FIRST_PATIENCE).await;
    }
}

/// Puts a message that nobody can read where somebody will look for it, with the reason.
async fn bury(ch: &Channel, delivery: Delivery, why: &str) {
    tracing::warn!("a message that is not ours went to {DEAD}: {why}");
    let mut headers = FieldTable::default();
    headers.insert("treeferry-reason".into(), AMQPValue::LongString(why.into()));
    let properties = BasicProperties::default().with_delivery_mode(2).with_headers(headers);
    let sent = ch
        .basic_publish("".into(), DEAD.into(), BasicPublishOptions::default(), &delivery.data, properties)
        .await;
    match sent {
        Ok(_) => drop(delivery.acker.ack(Default::default()).await),
        Err(_) => drop(delivery.acker.reject(BasicRejectOptions { requeue: true }).await),
    }
}
