//! Looks whether broker and ledger are as this program needs them, and changes nothing there. Nothing here waits for
//! ever: what does not answer within [`WITHIN`] is said to be silent.

use super::bundle::Lane;
use super::record::Site;
use super::report::NodeReport;
use crate::rabbitmq::survey::{self, BrokerFacts};
use crate::redis::now_ms;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::time::{Duration, Instant};

/// How long a server may take for each thing that it is asked.
pub(crate) const WITHIN: Duration = Duration::from_secs(5);
/// How often a round trip is measured.
const ROUNDS: usize = 9;
/// A daemon reports each second: for so long we listen, to know its clock.
const LISTEN: Duration = Duration::from_millis(2500);
/// Between two looks for a new report; the clock of a daemon is known no better.
const LOOK: Duration = Duration::from_millis(25);

/// Why a server could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind of reason.
    pub kind: TroubleKind,
    /// In the words of the system or of the server.
    pub text: String,
}

/// What kind of reason it is that a server could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// Nobody listens there.
    Refused,
    /// There is no answer.
    Silent,
    /// The name of the host is not known.
    Unresolved,
    /// It answers, and does not let us in.
    Denied,
    /// Something else.
    Other,
}

/// What the ledger says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerFacts {
    /// Version of Redis.
    pub version: String,
    /// The time of a round trip, the median of several.
    pub round_trip: Duration,
    /// Its clock less ours, in milliseconds.
    pub clock_ms: i64,
    /// It keeps a log of changes (`appendonly`).
    pub append_only: bool,
    /// When the log is written to storage (`appendfsync`); `None`: it does not tell.
    pub fsync: Option<String>,
    /// The last write of that log, or of a snapshot, failed.
    pub cannot_write: bool,
    /// What it forgets when its memory is full.
    pub eviction: String,
    /// Most memory it takes; 0: no limit.
    pub most_memory: u64,
    /// Memory that it has taken.
    pub memory: u64,
    /// Memory of its machine; 0: it does not tell.
    pub machine_memory: u64,
    /// It copies another and cannot be written to.
    pub replica: bool,
    /// It is one of a Redis Cluster.
    pub clustered: bool,
    /// It has not read all its data yet.
    pub loading: bool,
    /// Daemons that are alive.
    pub workers: Vec<WorkerFacts>,
    /// Jobs that run.
    pub running_jobs: u64,
}

/// What a daemon says of itself, and what its clock says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerFacts {
    /// Its words.
    pub report: NodeReport,
    /// Its clock less ours, in milliseconds; `None`: nothing new was heard of it while we listened.
    pub clock_ms: Option<i64>,
}

/// What the broker of a site says, and how it takes what is asked of it.
pub fn check_broker(site: &Site) -> Result<BrokerFacts, Trouble> {
    run(survey::survey(&site.broker, &Lane::ALL))
}

/// What the ledger of a site says, and the daemons through it. Listens for some seconds if there are any.
pub fn check_ledger(site: &Site) -> Result<LedgerFacts, Trouble> {
    run(async { ask_ledger(&site.ledger).await.map_err(|e| Trouble::from(&e)) })
}

fn run<T>(asking: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let rt =
        rt.map_err(|e| Trouble { kind: TroubleKind::Other, text: format!("cannot start a thread: {e}") })?;
    let r = rt.block_on(asking);
    // what hangs is not waited for: a name server, a connection that is blocked
    rt.shutdown_background();
    r
}

impl Trouble {
    /// No answer in time.
    pub(crate) fn silent() -> Trouble {
        Trouble { kind: TroubleKind::Silent, text: format!("no answer within {} s", WITHIN.as_secs()) }
    }

    /// What an error of the system stands for.
    pub(crate) fn of_io(e: &std::io::Error) -> TroubleKind {
        use std::io::ErrorKind as E;
        match e.kind() {
            E::ConnectionRefused => TroubleKind::Refused,
            E::TimedOut | E::HostUnreachable | E::NetworkUnreachable => TroubleKind::Silent,
            // what getaddrinfo(3) says has no kind of its own
            _ if e.to_string().contains("lookup address") => TroubleKind::Unresolved,
            _ => TroubleKind::Other,
        }
    }
}

impl From<&RedisError> for Trouble {
    fn from(e: &RedisError) -> Trouble {
        let denied = |c: &str| ["NOAUTH", "WRONGPASS", "NOPERM"].contains(&c);
        let text = e.to_string();
        let kind = match e.kind() {
            _ if e.is_connection_refusal() && text.contains("refused") => TroubleKind::Refused,
            _ if e.is_timeout() => TroubleKind::Silent,
            _ if text.contains("lookup address") => TroubleKind::Unresolved,
            ErrorKind::AuthenticationFailed => TroubleKind::Denied,
            _ if e.code().is_some_and(denied) => TroubleKind::Denied,
            _ => TroubleKind::Other,
        };
        Trouble { kind, text }
    }
}

type Res<T> = Result<T, RedisError>;

async fn ask_ledger(url: &str) -> Res<LedgerFacts> {
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(WITHIN)).set_response_timeout(Some(WITHIN));
    let mut c = Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?;
    let (round_trip, clock_ms) = measure(&mut c).await?;
    let info: String = redis::cmd("INFO").query_async(&mut c).await?;
    let mut facts = LedgerFacts { round_trip, clock_ms, ..read_info(&info) };
    // a hosted Redis may refuse it, which is no fault
    let configured: Res<HashMap<String, String>> =
        redis::cmd("CONFIG").arg("GET").arg("appendfsync").query_async(&mut c).await;
    facts.fsync = configured.ok().and_then(|mut all| all.remove("appendfsync"));
    if !facts.loading {
        facts.running_jobs = redis::cmd("SCARD").arg("treeferry:running").query_async(&mut c).await?;
        facts.workers = listen(&mut c).await?;
    }
    Ok(facts)
}

/// Times of round trips, and how far its clock is ahead of ours: as the quickest of them tells, in whose middle it was
/// asked.
async fn measure(c: &mut MultiplexedConnection) -> Res<(Duration, i64)> {
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        let (began, before) = (Instant::now(), now_ms());
        let (s, us): (u64, u64) = redis::cmd("TIME").query_async(c).await?;
        let took = began.elapsed();
        let there = (s * 1000 + us / 1000) as i64;
        all.push((took, there - before as i64 - took.as_millis() as i64 / 2));
    }
    all.sort_unstable();
    let clock_ms = all.first().map_or(0, |a| a.1);
    Ok((all.get(ROUNDS / 2).map_or(Duration::ZERO, |a| a.0), clock_ms))
}

/// The daemons. A report that is new since the last look was made just then, by the clock of who made it.
async fn listen(c: &mut MultiplexedConnection) -> Res<Vec<WorkerFacts>> {
    let began = Instant::now();
    let mut all: BTreeMap<String, WorkerFacts> = BTreeMap::new();
    for n in reports(c).await? {
        all.insert(n.worker.clone(), WorkerFacts { report: n, clock_ms: None });
    }
    while all.values().any(|w| w.clock_ms.is_none()) && began.elapsed() < LISTEN {
        tokio::time::sleep(LOOK).await;
        let found = reports(c).await?;
        let now = now_ms() as i64;
        for n in found {
            let Some(known) = all.get_mut(&n.worker) else { continue };
            if n.seen_ms != known.report.seen_ms {
                known.clock_ms.get_or_insert(n.seen_ms as i64 - now);
                known.report = n;
            }
        }
    }
    Ok(all.into_values().collect())
}

async fn reports(c: &mut MultiplexedConnection) -> Res<Vec<NodeReport>> {
    let names: Vec<String> = redis::cmd("SMEMBERS").arg("treeferry:workers").query_async(c).await?;
    let mut out = Vec::new();
    for some in names.chunks(100) {
        let mut get = redis::cmd("MGET");
        get.arg(some.iter().map(|n| format!("treeferry:node:{n}")).collect::<Vec<_>>());
        let raw: Vec<Option<String>> = get.query_async(c).await?;
        out.extend(raw.into_iter().flatten().filter_map(|t| serde_json::from_str::<NodeReport>(&t).ok()));
    }
    Ok(out)
}

/// What INFO tells.
fn read_info(info: &str) -> LedgerFacts {
    let all: HashMap<&str, &str> = info.lines().filter_map(|l| l.trim_end().split_once(':')).collect();
    let word = |k: &str| all.get(k).copied().unwrap_or_default();
    let number = |k: &str| word(k).parse::<u64>().unwrap_or(0);
    let failed = |k: &str| !["ok", ""].contains(&word(k));
    LedgerFacts {
        version: word("redis_version").to_owned(),
        append_only: word("aof_enabled") == "1",
        cannot_write: failed("aof_last_write_status") || failed("rdb_last_bgsave_status"),
        eviction: word("maxmemory_policy").to_owned(),
        most_memory: number("maxmemory"),
        memory: number("used_memory"),
        machine_memory: number("total_system_memory"),
        replica: word("role") == "slave",
        clustered: word("cluster_enabled") == "1",
        loading: word("loading") == "1",
        ..LedgerFacts::default()
    }
}

/// Waits for an answer, but not for ever.
pub(crate) async fn within<T>(f: impl Future<Output = T>) -> Result<T, Trouble> {
    tokio::time::timeout(WITHIN, f).await.map_err(|_| Trouble::silent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_tells_of_itself_is_understood() {
        let info = "# Server\r\nredis_version:7.0.15\r\n\r\n# Memory\r\nused_memory:900\r\nmaxmemory:1000\r\n\
                    maxmemory_policy:allkeys-lru\r\ntotal_system_memory:4000\r\nloading:0\r\naof_enabled:1\r\n\
                    aof_last_write_status:err\r\nrdb_last_bgsave_status:ok\r\nrole:master\r\ncluster_enabled:0\r\n";
        let f = read_info(info);
        assert_eq!((f.version.as_str(), f.eviction.as_str()), ("7.0.15", "allkeys-lru"));
        assert_eq!((f.memory, f.most_memory, f.machine_memory), (900, 1000, 4000));
        assert!(f.append_only && f.cannot_write && !f.replica && !f.clustered && !f.loading);
        let f = read_info("role:slave\r\ncluster_enabled:1\r\nloading:1\r\nrdb_last_bgsave_status:err");
        assert!(f.replica && f.clustered && f.loading && f.cannot_write && !f.append_only);
        assert_eq!(read_info(""), LedgerFacts::default());
    }

    #[test]
    fn an_error_of_the_system_has_a_kind() {
        let io = |k: std::io::ErrorKind| Trouble::of_io(&k.into());
        assert_eq!(io(std::io::ErrorKind::ConnectionRefused), TroubleKind::Refused);
        assert_eq!(io(std::io::ErrorKind::TimedOut), TroubleKind::Silent);
        let e = std::io::Error::other("failed to lookup address information: Name or service not known");
        assert_eq!(Trouble::of_io(&e), TroubleKind::Unresolved);
        assert_eq!(io(std::io::ErrorKind::BrokenPipe), TroubleKind::Other);
    }
}
