//! Lines: durable queues for messages that the ledger does not know of. What is sent by one process to one line arrives in
//! that order, at least once for as long as the process lives, and everything that was not confirmed is sent again when
//! the broker is back.

use super::{FIRST_PATIENCE, LOOK_AFTER, OUTSTANDING, Slip, dead, open_at_last, within, within_unblocked};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// How long a confirm may take before the connection is taken for dead, not counting the time for which the broker is short of
/// memory or disk.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);
/// Who takes a line alone says so often that it is there, or the broker does, in seconds.
const HEARTBEAT_S: u16 = 10;
/// Between two looks whether somebody else still takes a line.
const TAKEN_PATIENCE: Duration = Duration::from_millis(500);
/// A line holds so many bytes; what is older goes then, and is missed by its number.
const MOST_BYTES: i64 = 4 << 30;

/// A message on its way.
struct Letter {
    line: String,
    body: Vec<u8>,
    /// It is to survive a restart of the broker.
    lasts: bool,
    confirmed: Option<oneshot::Sender<()>>,
}

/// Sends to lines, in order.
pub struct Sender {
    to: mpsc::UnboundedSender<Letter>,
    unsent: Arc<AtomicUsize>,
}

/// A message that has come by a line.
#[derive(Debug)]
pub struct Delivery {
    /// What it says.
    pub body: Vec<u8>,
    /// It has been somewhere before.
    pub redelivered: bool,
    /// Settles it.
    pub slip: Slip,
}

impl Sender {
    /// Must be called within the runtime.
    pub fn new(url: &str) -> Sender {
        let (to, letters) = mpsc::unbounded_channel();
        let unsent = Arc::new(AtomicUsize::new(0));
        tokio::spawn(send(url.to_owned(), letters, Arc::clone(&unsent)));
        Sender { to, unsent }
    }

    /// Sends; what comes back is told when the broker has it, and never if this process ends before.
    pub fn send(&self, line: &str, body: Vec<u8>, lasts: bool) -> oneshot::Receiver<()> {
        let (confirmed, answer) = oneshot::channel();
        self.unsent.fetch_add(body.len(), Relaxed);
        // the other end lives as long as the runtime
        let _ = self.to.send(Letter { line: line.to_owned(), body, lasts, confirmed: Some(confirmed) });
        answer
    }

    /// Bytes that were given to it and that the broker has not confirmed.
    pub fn unsent(&self) -> usize {
        self.unsent.load(Relaxed)
    }
}

async fn declare(ch: &Channel, line: &str) -> lapin::Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(MOST_BYTES));
    ch.queue_declare(line.into(), QueueDeclareOptions::durable(), arguments).await?;
    Ok(())
}

/// A line that cannot be used is said once.
#[derive(Default)]
struct Refused(bool);

impl Refused {
    /// What breaks with the connection is not the line's fault, and is said by whoever makes the next.
    fn say(&mut self, line: &str, e: &lapin::Error) {
        if soft(e).is_some() && !std::mem::replace(&mut self.0, true) {
            tracing::warn!(
                "the broker refuses the queue {line}, which is tried again and again: {e}; may the user of --broker configure, \
                 write and read it, and does a policy or another version of Treeferry give it other arguments?"
            );
        }
    }
}

/// What the broker says that refuses one request, and not the connection.
fn soft(e: &lapin::Error) -> Option<(&lapin::protocol::AMQPSoftError, &str)> {
    use lapin::protocol::AMQPErrorKind;
    match e.kind() {
        lapin::ErrorKind::ProtocolError(e) => match e.kind() {
            AMQPErrorKind::Soft(kind) => Some((kind, e.get_message().as_str())),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

async fn send(url: String, mut letters: mpsc::UnboundedReceiver<Letter>, unsent: Arc<AtomicUsize>) {
    // what the broker has not confirmed, in order; the first `published` of them are on their way
    let mut waiting: VecDeque<Letter> = VecDeque::new();
    let mut refused = Refused::default();
    loop {
        let (conn, ch) = open_at_last(&url, "lines").await;
        if within(ch.confirm_select(ConfirmSelectOptions::default())).await.is_err() {
            tokio::time::sleep(FIRST_PATIENCE).await;
            continue;
        }
        let (mut published, mut known) = (0, HashSet::new());
        let mut confirms = FuturesOrdered::new();
        // when the broker last confirmed something, or could not
        let mut confirmed = Instant::now();
        let mut looks = tokio::time::interval(LOOK_AFTER);
        loop {
            if published < waiting.len() && confirms.len() < OUTSTANDING {
                let l = &waiting[published];
                if !known.contains(&l.line) {
                    match within_unblocked(&conn, declare(&ch, &l.line)).await {
                        Ok(()) => drop(known.insert(l.line.clone())),
                        Err(e) => {
                            refused.say(&l.line, &e);
                            break;
                        }
                    }
                }
                let mode = if l.lasts { 2 } else { 1 };
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let properties = BasicProperties::default().with_delivery_mode(mode);
                let sent = ch.basic_publish("".into(), l.line.as_str().into(), options, &l.body, properties);
                if confirms.is_empty() {
                    confirmed = Instant::now();
                }
                match within_unblocked(&conn, sent).await {
                    Ok(confirm) => confirms.push_back(confirm),
                    Err(e) => {
                        refused.say(&l.line, &e);
                        break;
                    }
                }
                published += 1;
                continue;
            }
            tokio::select! {
                Some(r) = confirms.next(), if !confirms.is_empty() => match r {
                    Ok(Confirmation::Ack(None)) => {
                        (published, confirmed) = (published - 1, Instant::now());
                        refused = Refused::default();
                        if let Some(mut l) = waiting.pop_front() {
                            unsent.fetch_sub(l.body.len(), Relaxed);
                            l.confirmed.take().map(|c| c.send(()));
                        }
                    }
                    // refused, or the line is gone: from the beginning
                    _ => break,
                },
                next = letters.recv() => match next {
                    Some(l) => waiting.push_back(l),
                    None => return,
                },
                _ = looks.tick() => {
                    if conn.status().blocked() {
                        confirmed = Instant::now();
                    }
                    if !conn.status().connected() || !confirms.is_empty() && confirmed.elapsed() > CONFIRM_WITHIN {
                        break;
                    }
                }
            }
        }
        drop(conn);
        tokio::time::sleep(FIRST_PATIENCE).await;
    }
}

/// Who takes what comes by a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// One of several, who has at most so many unsettled messages at a time.
    OneOf(u16),
    /// One alone, in order. Who comes while there is another waits until that is gone; if it is silent, for half a minute.
    Alone,
}

/// Brings what comes by a line, for ever, as long as somebody takes it.
pub fn listen(url: &str, line: &str, taker: Taker) -> mpsc::UnboundedReceiver<Delivery> {
    let (to, deliveries) = mpsc::unbounded_channel();
    let url = if taker == Taker::Alone { with_heartbeat(url) } else { url.to_owned() };
    tokio::spawn(consume(url, line.to_owned(), taker, to));
    deliveries
}

/// The same broker, which takes for gone who is silent for twice [`HEARTBEAT_S`], unless the address says after how long
/// (<https://www.rabbitmq.com/docs/heartbeats>). By default it is some minutes.
fn with_heartbeat(url: &str) -> String {
    let query = url.split_once('?').map(|(_, query)| query);
    if query.is_some_and(|q| q.split('&').any(|p| p.starts_with("heartbeat="))) {
        return url.to_owned();
    }
    format!("{url}{}heartbeat={HEARTBEAT_S}", if query.is_some() { '&' } else { '?' })
}

/// Who may not use a line at all is told the same with another text.
fn is_taken(e: &lapin::Error) -> bool {
    use lapin::protocol::AMQPSoftError::ACCESSREFUSED;
    matches!(soft(e), Some((ACCESSREFUSED, text)) if text.contains("exclusive"))
}

async fn consume(url: String, line: String, taker: Taker, to: mpsc::UnboundedSender<Delivery>) {
    let prefetch = match taker {
        Taker::OneOf(n) => n,
        Taker::Alone => 0,
    };
    let (mut said, mut refused) = (false, Refused::default());
    while !to.is_closed() {
        let (conn, ch) = open_at_last(&url, &line).await;
        let began = async {
            declare(&ch, &line).await?;
            ch.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let (queue, tag) = (line.as_str().into(), "".into());
            let options = BasicConsumeOptions { exclusive: taker == Taker::Alone, ..Default::default() };
            ch.basic_consume(queue, tag, options, FieldTable::default()).await
        };
        let began = within(began).await;
        if began.as_ref().is_err_and(is_taken) {
            if !std::mem::replace(&mut said, true) {
                tracing::warn!(
                    "another process still takes what comes by {line}: waiting until the broker says that it is gone"
                );
            }
            drop(conn);
            tokio::time::sleep(TAKEN_PATIENCE).await;
            continue;
        }
        if let Err(e) = &began {
            refused.say(&line, e);
        }
        if let Ok(mut consumer) = began {
            (said, refused) = (false, Refused::default());
            let dead = dead(&conn);
            tokio::pin!(dead);
            loop {
                tokio::select! {
                    next = consumer.next() => match next {
                        Some(Ok(d)) if d.acker.usable() => {
                            let (redelivered, slip) = (d.redelivered, Slip(Some(d.acker)));
                            if to.send(Delivery { body: d.data, redelivered, slip }).is_err() {
                                break;
                            }
                        }
                        _ => break,
                    },
                    () = to.closed() => break,
                    () = &mut dead => break,
                }
            }
        }
        if to.is_closed() {
            // what was brought and not settled comes back to the line at once
            let _ = within(conn.close(200, "done".into())).await;
            return;
        }
        drop(conn);
        tokio::time::sleep(FIRST_PATIENCE).await;
    }
}

/// Messages of a line that wait, and its consumers; `None`: there is no such line.
pub async fn depth(url: &str, line: &str) -> lapin::Result<Option<(u32, u32)>> {
    let (conn, ch) = super::open(url, "look").await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    let answer = match within(ch.queue_declare(line.into(), passive, FieldTable::default())).await {
        Ok(q) => Some((q.message_count(), q.consumer_count())),
        Err(e) if matches!(e.kind(), lapin::ErrorKind::ProtocolError(_)) => None,
        Err(e) => return Err(e),
    };
    let _ = within(conn.close(200, "done".into())).await;
    Ok(answer)
}

/// Whether there is such a line.
pub async fn exists(url: &str, line: &str) -> lapin::Result<bool> {
    let (conn, ch) = super::open(url, "look").await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    let answer = match within(ch.queue_declare(line.into(), passive, FieldTable::default())).await {
        Ok(_) => Ok(true),
        Err(e) if matches!(soft(&e), Some((lapin::protocol::AMQPSoftError::NOTFOUND, _))) => Ok(false),
        Err(e) => Err(e),
    };
    let _ = within(conn.close(200, "done".into())).await;
    answer
}

/// Removes a line with all that is in it.
pub async fn remove(url: &str, line: &str) -> lapin::Result<()> {
    let (conn, ch) = super::open(url, "remove").await?;
    within(ch.queue_delete(line.into(), QueueDeleteOptions::default())).await?;
    within(conn.close(200, "done".into())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_says_how_soon_silence_is_death_is_left_alone() {
        let heartbeat = |url: &str| {
            let uri: lapin::uri::AMQPUri = with_heartbeat(url).parse().expect("an address");
            uri.query.heartbeat
        };
        assert_eq!(heartbeat("amqp://u:p@host:5672/%2f"), Some(HEARTBEAT_S));
        assert_eq!(heartbeat("amqps://host/v?frame_max=8192"), Some(HEARTBEAT_S));
        assert_eq!(heartbeat("amqp://host/%2f?frame_max=8192&heartbeat=3"), Some(3));
    }
}
