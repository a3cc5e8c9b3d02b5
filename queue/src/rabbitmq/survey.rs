//! What an AMQP client can see of a broker without changing anything: its version, round trips, our queues, and
//! whether it takes messages. What it cannot see: limits of memory and disk, policies, `consumer_timeout`.

use super::{DEAD, arguments, properties};
use crate::cluster::bundle::Lane;
use crate::cluster::checkup::{Trouble, TroubleKind, WITHIN, within};
use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::tcp::{AMQPUriTcpExt, OwnedTLSConfig};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Connection, ErrorKind, Event};
use std::time::{Duration, Instant};

/// How often a round trip is measured.
const ROUNDS: usize = 9;
/// Where a message goes that nobody is to get: no queue has this name, so the broker drops it.
const NOWHERE: &str = "treeferry.doctor";
/// The greeting of a server is no longer than this.
const GREETING_BYTES: usize = 1 << 16;

/// What the broker says, and how it takes what is asked of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerFacts {
    /// Its name and version, if it tells.
    pub version: Option<String>,
    /// The time of a round trip, the median of several.
    pub round_trip: Duration,
    /// Our queues and that of dead letters.
    pub queues: Vec<QueueFacts>,
    /// Why it takes no messages at the moment.
    pub alarm: Option<Alarm>,
}

/// Why a broker takes no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// It is short of something, in its words.
    Short(String),
    /// We may not publish, in its words.
    Forbidden(String),
    /// It says nothing.
    Silent,
}

/// One of our queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFacts {
    /// Its name.
    pub name: &'static str,
    /// How it is there.
    pub state: QueueState,
}

/// How a queue is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// It is not: the first worker makes it.
    Absent,
    /// As we would have made it.
    Ours {
        /// Messages that wait.
        ready: u32,
        /// Consumers that listen.
        consumers: u32,
    },
    /// Otherwise than we would make it, or out of our reach, in the broker's words.
    Different(String),
}

impl From<&lapin::Error> for Trouble {
    fn from(e: &lapin::Error) -> Trouble {
        let kind = match e.kind() {
            ErrorKind::IOError(io) => Trouble::of_io(io),
            ErrorKind::ProtocolError(p) => match p.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => TroubleKind::Denied,
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => TroubleKind::Denied,
                _ => TroubleKind::Other,
            },
            _ => TroubleKind::Other,
        };
        Trouble { kind, text: e.to_string() }
    }
}

type Res<T> = Result<T, Trouble>;

/// One question to the broker, which may fail and may be left without an answer.
async fn ask<T>(f: impl Future<Output = lapin::Result<T>>) -> Res<T> {
    within(f).await?.map_err(|e| Trouble::from(&e))
}

/// Looks at the broker.
pub async fn survey(url: &str, lanes: &[Lane]) -> Res<BrokerFacts> {
    let version = within(greeting(url)).await.ok().flatten();
    let conn = ask(Connection::connect(url, properties("doctor"))).await?;
    let round_trip = measure(&ask(conn.create_channel()).await?).await?;
    let mut queues = Vec::new();
    for (name, arguments) in
        lanes.iter().map(|l| (l.queue(), arguments(*l))).chain([(DEAD, FieldTable::default())])
    {
        queues.push(QueueFacts { name, state: look_at(&conn, name, arguments).await? });
    }
    // of a queue that is not there the broker says just that, whether we might make it or not
    if queues.iter().any(|q| q.state == QueueState::Absent)
        && let Some(why) = may_not_make(&conn).await?
    {
        let absent = queues.iter_mut().filter(|q| q.state == QueueState::Absent);
        absent.for_each(|q| q.state = QueueState::Different(why.clone()));
    }
    // last: when the broker has an alarm, it hears nothing any more of who has published
    let alarm = publish(&conn).await?;
    if alarm.is_none() {
        // politeness; all is known
        let _ = within(conn.close(200, "done".into())).await;
    }
    Ok(BrokerFacts { version, round_trip, queues, alarm })
}

async fn measure(ch: &Channel) -> Res<Duration> {
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        ask(ch.basic_qos(1, BasicQosOptions::default())).await?;
        all.push(began.elapsed());
    }
    all.sort_unstable();
    Ok(all.get(ROUNDS / 2).copied().unwrap_or_default())
}

/// A channel for each question: the broker closes it when the answer is no.
async fn look_at(conn: &Connection, name: &'static str, arguments: FieldTable) -> Res<QueueState> {
    let ch = ask(conn.create_channel()).await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    let found = within(ch.queue_declare(name.into(), passive, FieldTable::default())).await?;
    let (ready, consumers) = match found {
        Ok(q) => (q.message_count(), q.consumer_count()),
        Err(e) if is_absent(&e) => return Ok(QueueState::Absent),
        Err(e) => return different(e),
    };
    // of a queue that is there this changes nothing: either it is like that, or the answer is no
    match within(ch.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments)).await? {
        Ok(_) => Ok(QueueState::Ours { ready, consumers }),
        Err(e) => different(e),
    }
}

/// Why we may not make a queue of ours, if that is so. One that is made for this is gone with the connection.
async fn may_not_make(conn: &Connection) -> Res<Option<String>> {
    let ch = ask(conn.create_channel()).await?;
    let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let name = format!("{NOWHERE}.{}", std::process::id());
    match within(ch.queue_declare(name.into(), own, FieldTable::default())).await? {
        Ok(_) => Ok(None),
        Err(e) => match different(e)? {
            QueueState::Different(why) => Ok(Some(why)),
            _ => Ok(None),
        },
    }
}

fn is_absent(e: &lapin::Error) -> bool {
    matches!(e.kind(), ErrorKind::ProtocolError(p)
        if matches!(p.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)))
}

/// What the broker says to a question is an answer; that the connection breaks is none.
fn different(e: lapin::Error) -> Res<QueueState> {
    match e.kind() {
        ErrorKind::ProtocolError(p) => Ok(QueueState::Different(p.get_message().to_string())),
        _ => Err(Trouble::from(&e)),
    }
}

/// Publishes a message to nobody. A broker that is short of memory or disk tells only those who publish, and then
/// hears them no more.
async fn publish(conn: &Connection) -> Res<Option<Alarm>> {
    let mut events = conn.events_listener();
    let ch = ask(conn.create_channel()).await?;
    ask(ch.confirm_select(ConfirmSelectOptions::default())).await?;
    let sent = async {
        let none = BasicProperties::default();
        let options = BasicPublishOptions::default();
        let confirm = ch.basic_publish("".into(), NOWHERE.into(), options, b"", none).await?;
        confirm.await?;
        // one that was just told to wait does not get this answer
        ch.basic_qos(1, BasicQosOptions::default()).await
    };
    match tokio::time::timeout(WITHIN, sent).await {
        Ok(Ok(())) => Ok(None),
        Ok(Err(e)) => match e.kind() {
            ErrorKind::ProtocolError(p) => Ok(Some(Alarm::Forbidden(p.get_message().to_string()))),
            _ => Err(Trouble::from(&e)),
        },
        Err(_) => {
            let mut why = Alarm::Silent;
            while let Some(Some(event)) = events.next().now_or_never() {
                if let Event::ConnectionBlocked(reason) = event {
                    why = Alarm::Short(reason);
                }
            }
            Ok(Some(why))
        }
    }
}

/// Product and version, out of the first frame that a server sends to anybody who speaks AMQP (`connection.start`).
async fn greeting(url: &str) -> Option<String> {
    let uri: AMQPUri = url.parse().ok()?;
    let runtime = lapin::runtime::default_runtime().ok()?;
    let tls = OwnedTLSConfig::default();
    let mut stream = uri.connect_with_config_async(tls.as_ref(), &runtime).await.ok()?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    let mut body = vec![0; Some(length).filter(|l| head[0] == 1 && *l < GREETING_BYTES)?];
    stream.read_exact(&mut body).await.ok()?;
    read_greeting(&body)
}

fn read_greeting(body: &[u8]) -> Option<String> {
    // class 10, method 10, version 0-9
    let table = body.strip_prefix(&[0, 10, 0, 10, 0, 9])?;
    let (_, table) = lapin::types::parsing::parse_field_table(table).ok()?;
    let text = |k: &str| match table.inner().get(k)? {
        AMQPValue::LongString(s) => Some(s.to_string()),
        _ => None,
    };
    Some(format!("{} {}", text("product")?, text("version")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_tells_product_and_version() {
        let mut body = vec![0, 10, 0, 10, 0, 9];
        let mut table = Vec::new();
        for (k, v) in [("product", "RabbitMQ"), ("version", "3.10.8")] {
            table.push(k.len() as u8);
            table.extend(k.bytes());
            table.push(b'S');
            table.extend((v.len() as u32).to_be_bytes());
            table.extend(v.bytes());
        }
        body.extend((table.len() as u32).to_be_bytes());
        body.extend(table);
        body.extend([0, 0, 0, 5]);
        body.extend(b"PLAIN");
        assert_eq!(read_greeting(&body).as_deref(), Some("RabbitMQ 3.10.8"));
        for cut in 0..40 {
            assert_eq!(read_greeting(&body[..cut]), None, "{cut}");
        }
        assert_eq!(read_greeting(b"HTTP/1.1 400 Bad Request"), None);
    }
}
