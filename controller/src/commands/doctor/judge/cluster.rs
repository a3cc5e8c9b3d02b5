//! Broker, ledger and the daemons.

use crate::commands::doctor::facts::ClusterFacts;
use crate::commands::doctor::finding::{Area, Finding};
use std::time::Duration;
use treeferry_core::units::show_size;
use treeferry_queue::{
    Alarm, BrokerFacts, LedgerFacts, QueueFacts, QueueState, Trouble, TroubleKind, WorkerFacts,
};
use treeferry_service::Exit;

use Area::{Broker, Ledger, Workers};

/// RabbitMQ closes the channel of a consumer that has not acknowledged a message for so long, if nobody has changed
/// `consumer_timeout`; it looks once a minute.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(1800 - 60);
/// A commit waits for one round trip to the ledger, and a task is some seconds of work.
const SLOW: Duration = Duration::from_millis(20);
/// Tasks that wait for their message are looked for again after 3 s by the clock of whoever looks.
const SKEW_MS: i64 = 1000;
/// With that much, ages (`--min-age`) and times in reports say something wrong.
const MUCH_SKEW_MS: i64 = 60_000;
const DEAD: &str = "treeferry.dead";
const SERVERS: &str = "docs/services.md says what Treeferry expects of it";

/// All of it. `version`: ours.
pub fn judge(c: &ClusterFacts, version: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    match &c.broker {
        Ok(b) => broker(&c.broker_at, b, c.acknowledge_after, &mut found),
        Err(e) => found.push(unreachable(Broker, "broker", "RabbitMQ", &c.broker_at, e)),
    }
    match &c.ledger {
        Ok(l) => {
            ledger(&c.ledger_at, l, &mut found);
            found.extend(workers(&l.workers, l.running_jobs, version));
        }
        Err(e) => found.push(unreachable(Ledger, "ledger", "Redis", &c.ledger_at, e)),
    }
    found
}

fn unreachable(area: Area, check: &'static str, what: &str, at: &str, e: &Trouble) -> Finding {
    let advice = match e.kind {
        TroubleKind::Refused => {
            "nobody listens there: does it run (scripts/services status), at that address and port?"
        }
        TroubleKind::Silent => {
            "a firewall, a wrong address, or a server that hangs: try it from its own machine"
        }
        TroubleKind::Unresolved => {
            "the name is not known here: mend it in the configuration, or in /etc/hosts"
        }
        TroubleKind::Denied => {
            "user or password is wrong, or may not do that: is the configuration the one that this instance was started with?"
        }
        TroubleKind::Other => "is it the right kind of server there, with or without TLS as the URL says?",
    };
    let text = format!("{what} at {at} cannot be used: {}", e.text);
    Finding::problem(area, check, text, advice).ends_with(Exit::Unreachable)
}

fn ms(d: Duration) -> String {
    format!("{:.2} ms", d.as_secs_f64() * 1000.0)
}

fn reached(area: Area, check: &'static str, what: &str, at: &str, round_trip: Duration) -> Finding {
    let text = format!("{what} at {at}, {} for a round trip", ms(round_trip));
    if round_trip > SLOW {
        let advice = "work is spread more slowly over the nodes than it could be: put it nearer to them";
        return Finding::warning(area, check, text, advice);
    }
    Finding::ok(area, check, text)
}

fn broker(at: &str, b: &BrokerFacts, acknowledge_after: Duration, found: &mut Vec<Finding>) {
    let version = b.version.as_deref().unwrap_or("a broker that does not tell its version");
    found.push(reached(Broker, "broker", version, at, b.round_trip));
    found.push(queues(&b.queues));
    found.extend(b.queues.iter().filter_map(waiting));
    found.push(match &b.alarm {
        None => Finding::ok(Broker, "publishing", "takes messages: no alarm of memory or disk"),
        Some(Alarm::Short(why)) => Finding::problem(
            Broker,
            "publishing",
            format!("takes no messages: {why}"),
            "make room (disk_free_limit, vm_memory_high_watermark); the alarm then ends by itself, and jobs go on",
        ),
        Some(Alarm::Forbidden(why)) => Finding::problem(
            Broker,
            "publishing",
            format!("does not let us publish: {why}"),
            format!("give the user the permission to write to the default exchange, amq.default; {SERVERS}"),
        ),
        Some(Alarm::Silent) => Finding::problem(
            Broker,
            "publishing",
            "does not answer to a message: an alarm that it does not tell, or a disk that hangs",
            "look at its log, and at 'rabbitmqctl list_connections name state': blocked means an alarm",
        ),
    });
    let s = acknowledge_after.as_secs();
    found.push(if acknowledge_after >= CONSUMER_TIMEOUT {
        let text = format!("acknowledge-after is {s} s, and RabbitMQ's consumer_timeout 1800 s, unless it was raised");
        let advice = "lower acknowledge-after: past consumer_timeout the broker takes a worker for dead";
        Finding::warning(Broker, "consumer-timeout", text, advice)
    } else {
        let text = format!(
            "acknowledge-after is {s} s; consumer_timeout, which cannot be seen from here, has to be above it (1800 s \
             if nobody has changed it)"
        );
        Finding::ok(Broker, "consumer-timeout", text)
    });
}

fn queues(all: &[QueueFacts]) -> Finding {
    let different: Vec<String> = all
        .iter()
        .filter_map(|q| match &q.state {
            QueueState::Different(why) => Some(format!("{}: {why}", q.name)),
            _ => None,
        })
        .collect();
    if !different.is_empty() {
        let advice = "if the user may do that ('configure' and 'read' of treeferry\\..*), somebody has made these queues \
                      otherwise: while no job runs, delete them (rabbitmqctl delete_queue NAME), and the next worker \
                      makes them anew";
        return Finding::problem(Broker, "queues", different.join("; "), advice);
    }
    let absent = all.iter().filter(|q| q.state == QueueState::Absent).count();
    let text = match absent {
        0 => format!("{} queues, durable and with our arguments", all.len()),
        n if n == all.len() => "no queues yet: the first worker makes them".to_owned(),
        n => format!("{} queues as they should be; {n} are not there yet", all.len() - n),
    };
    Finding::ok(Broker, "queues", text)
}

/// What waits in a queue and should not.
fn waiting(q: &QueueFacts) -> Option<Finding> {
    let QueueState::Ours { ready, consumers } = q.state else { return None };
    match (q.name, ready, consumers) {
        (_, 0, _) => None,
        (DEAD, n, _) => {
            let text = format!("{n} dead letters in {DEAD}: messages that no worker could read");
            let advice = "something else publishes here, or nodes have different versions; docs/operations.md, \"A message \
                          that nobody understands\", says how to look at them and how to remove them. No task is lost";
            Some(Finding::problem(Broker, "dead-letters", text, advice))
        }
        ("treeferry.links", n, 0) => {
            let text = format!("{n} messages in treeferry.links, and no hardlinker");
            Some(Finding::problem(Broker, "unserved-links", text, "start one: treeferry hardlinker"))
        }
        _ => None,
    }
}

fn ledger(at: &str, l: &LedgerFacts, found: &mut Vec<Finding>) {
    found.push(reached(Ledger, "ledger", &format!("Redis {}", l.version), at, l.round_trip));
    if l.loading {
        let text = "is still reading its data: everything waits for it";
        found.push(Finding::problem(Ledger, "loading", text, "wait, and ask again"));
    }
    if l.replica {
        let text = "is a replica, to which nothing can be written";
        found.push(Finding::problem(Ledger, "replica", text, "name the primary in the URL"));
    }
    if l.clustered {
        let text = "is a node of a Redis Cluster, which Treeferry does not know how to use";
        found.push(Finding::problem(
            Ledger,
            "redis-cluster",
            text,
            "use a Redis of its own; a small one is enough",
        ));
    }
    found.push(persistence(l));
    found.push(eviction(l));
    found.extend(memory(l));
    found.push(clock(Ledger, "ledger-clock", "its clock", l.clock_ms));
}

fn persistence(l: &LedgerFacts) -> Finding {
    const CHECK: &str = "persistence";
    if l.cannot_write {
        let text = "could not write its data to disk the last time";
        let advice = "look at its log, and at the room on its disk; changes may be refused until it can";
        return Finding::problem(Ledger, CHECK, text, advice);
    }
    if !l.append_only {
        let text = "keeps no log of changes (appendonly no): a restart would lose the running jobs";
        let advice = format!("redis-cli config set appendonly yes, and in its configuration; {SERVERS}");
        return Finding::problem(Ledger, CHECK, text, advice);
    }
    match l.fsync.as_deref() {
        Some("no") => Finding::warning(
            Ledger,
            CHECK,
            "keeps a log of changes, but leaves it to the kernel when it is written (appendfsync no)",
            "appendfsync everysec: a power cut then takes one second, not half a minute",
        ),
        Some(how) => {
            Finding::ok(Ledger, CHECK, format!("keeps a log of changes (appendonly yes, appendfsync {how})"))
        }
        None => Finding::ok(Ledger, CHECK, "keeps a log of changes (appendonly yes)"),
    }
}

fn eviction(l: &LedgerFacts) -> Finding {
    const CHECK: &str = "eviction";
    let advice =
        format!("redis-cli config set maxmemory-policy noeviction, and in its configuration; {SERVERS}");
    match l.eviction.as_str() {
        "noeviction" => Finding::ok(Ledger, CHECK, "forgets nothing when its memory is full (noeviction)"),
        policy if l.most_memory > 0 => {
            let text = format!(
                "forgets keys when its memory is full (maxmemory-policy {policy}): jobs would never end"
            );
            Finding::problem(Ledger, CHECK, text, advice)
        }
        policy => {
            let text = format!("would forget keys if it had a limit of memory (maxmemory-policy {policy})");
            Finding::warning(Ledger, CHECK, text, advice)
        }
    }
}

fn memory(l: &LedgerFacts) -> Option<Finding> {
    const CHECK: &str = "ledger-memory";
    let used = show_size(l.memory);
    let advice = "give it more, or find out what else is in it: Treeferry needs some hundred bytes for each open task \
                  and each hard-link group";
    if l.most_memory > 0 && l.memory > l.most_memory / 5 * 4 {
        let text = format!("uses {used} of the {} that it may (maxmemory)", show_size(l.most_memory));
        return Some(Finding::warning(Ledger, CHECK, text, advice));
    }
    // a rewrite of the log of changes can take as much again
    if l.machine_memory > 0 && l.memory > l.machine_memory / 2 {
        let text = format!("uses {used} of the {} of its machine", show_size(l.machine_memory));
        return Some(Finding::warning(Ledger, CHECK, text, advice));
    }
    None
}

fn clock(area: Area, check: &'static str, what: &str, clock_ms: i64) -> Finding {
    let s = clock_ms as f64 / 1000.0;
    let apart = clock_ms.saturating_abs();
    let way = if clock_ms < 0 { "behind" } else { "ahead of" };
    let text = format!("{what} is {:.3} s {way} ours", s.abs());
    let advice = "see that chrony or ntpd runs on both, and that they agree: ages and times in reports go by these clocks";
    match apart {
        _ if apart >= MUCH_SKEW_MS => Finding::problem(area, check, text, advice),
        _ if apart >= SKEW_MS => Finding::warning(area, check, text, advice),
        _ => Finding::ok(area, check, text),
    }
}

fn workers(all: &[WorkerFacts], running_jobs: u64, version: &str) -> Vec<Finding> {
    let kind = |k: &str| all.iter().filter(|w| w.report.kind == k).count();
    let (workers, hardlinkers) = (kind("worker"), kind("hardlinker"));
    let threads: usize = all.iter().filter(|w| w.report.kind == "worker").map(|w| w.report.pool).sum();
    let mut found = Vec::new();
    let jobs = if running_jobs == 1 { "1 job runs".to_owned() } else { format!("{running_jobs} jobs run") };
    found.push(match workers {
        0 => Finding::warning(
            Workers,
            "workers",
            format!("no worker is alive; {jobs}"),
            "start some, on each node that has both file systems mounted: treeferry worker",
        ),
        n => Finding::ok(Workers, "workers", format!("{n} workers with {threads} threads; {jobs}")),
    });
    found.push(match hardlinkers {
        0 => Finding::warning(
            Workers,
            "hardlinkers",
            "no hardlinker is alive: jobs with hard links wait for one",
            "start two, on different nodes: treeferry hardlinker",
        ),
        1 => Finding::ok(Workers, "hardlinkers", "1 hardlinker; a second one would stand by"),
        n => Finding::ok(Workers, "hardlinkers", format!("{n} hardlinkers, one of them works")),
    });
    found.extend(versions(all, version));
    found.extend(clocks(all));
    found.extend(states(all));
    found
}

/// Names of those of whom something holds, for one line.
fn names(all: &[WorkerFacts], holds: impl Fn(&WorkerFacts) -> bool) -> Option<String> {
    let names: Vec<&str> = all.iter().filter(|w| holds(w)).map(|w| w.report.worker.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn versions(all: &[WorkerFacts], ours: &str) -> Vec<Finding> {
    let others: Vec<String> = all
        .iter()
        .filter(|w| w.report.version != ours)
        .map(|w| format!("{} has {}", w.report.worker, w.report.version))
        .collect();
    if others.is_empty() {
        let fine = Finding::ok(Workers, "versions", format!("all have our version, {ours}"));
        return if all.is_empty() { Vec::new() } else { vec![fine] };
    }
    let text = format!("this is {ours}, and {}", others.join(", "));
    let advice = "stop all, put one version everywhere, start them again: different versions may not understand each other";
    vec![Finding::problem(Workers, "versions", text, advice)]
}

fn clocks(all: &[WorkerFacts]) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(silent) = names(all, |w| w.clock_ms.is_none()) {
        let text = format!("nothing was heard of {silent} while we listened");
        let advice = "it has just ended, or hangs, or cannot reach Redis: look at its log";
        found.push(Finding::warning(Workers, "silent", text, advice));
    }
    let heard = all.iter().filter_map(|w| Some((w.clock_ms?, w)));
    if let Some((worst, w)) = heard.max_by_key(|(ms, _)| ms.saturating_abs()) {
        found.push(clock(
            Workers,
            "clocks",
            &format!("the clock of {}, the one farthest off,", w.report.node),
            worst,
        ));
    }
    found
}

fn states(all: &[WorkerFacts]) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(paused) = names(all, |w| w.report.paused) {
        let text = format!("paused: {paused}");
        found.push(Finding::warning(Workers, "paused", text, "treeferry resume"));
    }
    for w in all {
        if let Some(r) = w.report.refused.first() {
            let more = w.report.refused.len() - 1;
            let and = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            let text = format!("{} refuses job {}{and}: {}", w.report.worker, r.job, r.why);
            let advice = "mount there what is missing; it looks again every few seconds";
            found.push(Finding::problem(Workers, "refused", text, advice));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::judge::tests::{fails, is_ok, is_silent, the, warns};
    use treeferry_queue::{NodeReport, Refusal};

    const OURS: &str = "1.2.3";

    fn worker(name: &str, kind: &str) -> WorkerFacts {
        let report = NodeReport {
            worker: format!("{name}-7"),
            node: name.to_owned(),
            kind: kind.to_owned(),
            version: OURS.to_owned(),
            pool: 4,
            ..NodeReport::default()
        };
        WorkerFacts { report, clock_ms: Some(-12) }
    }

    fn good() -> ClusterFacts {
        let queue = |name| QueueFacts { name, state: QueueState::Ours { ready: 0, consumers: 1 } };
        let names = ["treeferry.walk", "treeferry.links", DEAD];
        let broker = BrokerFacts {
            version: Some("RabbitMQ 3.10.8".into()),
            round_trip: Duration::from_micros(400),
            queues: names.map(queue).to_vec(),
            alarm: None,
        };
        let ledger = LedgerFacts {
            version: "7.0.15".into(),
            append_only: true,
            fsync: Some("everysec".into()),
            eviction: "noeviction".into(),
            machine_memory: 1 << 30,
            memory: 1 << 20,
            workers: vec![worker("a", "worker"), worker("b", "hardlinker")],
            running_jobs: 1,
            ..LedgerFacts::default()
        };
        ClusterFacts {
            broker_at: "h:5672".into(),
            broker: Ok(broker),
            ledger_at: "h:6379".into(),
            ledger: Ok(ledger),
            acknowledge_after: Duration::from_secs(600),
        }
    }

    fn found(change: impl FnOnce(&mut ClusterFacts)) -> Vec<Finding> {
        let mut c = good();
        change(&mut c);
        judge(&c, OURS)
    }

    fn of_broker(change: impl FnOnce(&mut BrokerFacts)) -> Vec<Finding> {
        found(|c| change(c.broker.as_mut().unwrap()))
    }

    fn of_ledger(change: impl FnOnce(&mut LedgerFacts)) -> Vec<Finding> {
        found(|c| change(c.ledger.as_mut().unwrap()))
    }

    #[test]
    fn a_good_cluster_is_ok() {
        let all = found(|_| ());
        let checks = [
            "broker",
            "queues",
            "publishing",
            "consumer-timeout",
            "ledger",
            "persistence",
            "eviction",
            "ledger-clock",
            "workers",
            "hardlinkers",
            "versions",
            "clocks",
        ];
        checks.iter().for_each(|c| is_ok(&all, c));
        assert_eq!(all.len(), checks.len(), "{all:?}");
        assert!(the(&all, "broker").text.contains("RabbitMQ 3.10.8 at h:5672, 0.40 ms"), "{all:?}");
        assert!(the(&all, "workers").text.contains("1 workers with 4 threads; 1 job runs"), "{all:?}");
        assert!(the(&of_broker(|b| b.version = None), "broker").text.contains("does not tell"));
    }

    #[test]
    fn servers_that_cannot_be_reached_are_69_with_advice_for_each_reason() {
        for (kind, words) in [
            (TroubleKind::Refused, "nobody listens"),
            (TroubleKind::Silent, "firewall"),
            (TroubleKind::Unresolved, "not known"),
            (TroubleKind::Denied, "password"),
            (TroubleKind::Other, "TLS"),
        ] {
            let trouble = || Trouble { kind, text: "so says it".into() };
            let all = found(|c| c.broker = Err(trouble()));
            fails(&all, "broker", Exit::Unreachable, words);
            assert!(
                the(&all, "broker").text.contains("h:5672")
                    && the(&all, "broker").text.contains("so says it")
            );
            is_silent(&all, "queues");
            let all = found(|c| c.ledger = Err(trouble()));
            fails(&all, "ledger", Exit::Unreachable, words);
            is_silent(&all, "workers");
        }
    }

    #[test]
    fn slow_servers_are_told() {
        warns(&of_broker(|b| b.round_trip = Duration::from_millis(50)), "broker", "50.00 ms");
        warns(&of_ledger(|l| l.round_trip = Duration::from_millis(50)), "ledger", "nearer");
    }

    #[test]
    fn queues_that_are_not_ours_are_told_and_missing_ones_are_not() {
        let state = |b: &mut BrokerFacts, i: usize, s| b.queues[i].state = s;
        let all = of_broker(|b| state(b, 0, QueueState::Different("inequivalent arg 'durable'".into())));
        fails(&all, "queues", Exit::Failures, "treeferry.walk: inequivalent arg 'durable'");
        let all = of_broker(|b| (0..3).for_each(|i| state(b, i, QueueState::Absent)));
        assert!(the(&all, "queues").text.contains("no queues yet"));
        is_ok(&all, "queues");
        let all = of_broker(|b| state(b, 1, QueueState::Absent));
        assert!(the(&all, "queues").text.contains("1 are not there yet"), "{all:?}");
    }

    #[test]
    fn what_waits_where_nobody_takes_it_is_told() {
        let waits = |b: &mut BrokerFacts, i: usize, ready, consumers| {
            b.queues[i].state = QueueState::Ours { ready, consumers };
        };
        fails(&of_broker(|b| waits(b, 2, 3, 0)), "dead-letters", Exit::Failures, "3 dead letters");
        fails(&of_broker(|b| waits(b, 1, 3, 0)), "unserved-links", Exit::Failures, "treeferry hardlinker");
        is_silent(&of_broker(|b| waits(b, 1, 3, 1)), "unserved-links");
        // workers take messages as their threads ask for them: none may listen at this moment
        assert_eq!(of_broker(|b| waits(b, 0, 3, 0)).len(), found(|_| ()).len());
    }

    #[test]
    fn a_broker_that_takes_no_messages_is_told() {
        let alarm = |a| of_broker(|b| b.alarm = Some(a));
        fails(&alarm(Alarm::Short("low on disk".into())), "publishing", Exit::Failures, "low on disk");
        fails(&alarm(Alarm::Forbidden("ACCESS_REFUSED".into())), "publishing", Exit::Failures, "amq.default");
        fails(&alarm(Alarm::Silent), "publishing", Exit::Failures, "list_connections");
    }

    #[test]
    fn an_acknowledgement_that_comes_too_late_is_told() {
        let all = found(|c| c.acknowledge_after = Duration::from_secs(1750));
        warns(&all, "consumer-timeout", "lower acknowledge-after");
    }

    #[test]
    fn a_ledger_that_may_lose_something_is_told() {
        fails(&of_ledger(|l| l.append_only = false), "persistence", Exit::Failures, "appendonly yes");
        fails(&of_ledger(|l| l.cannot_write = true), "persistence", Exit::Failures, "disk");
        warns(&of_ledger(|l| l.fsync = Some("no".into())), "persistence", "everysec");
        is_ok(&of_ledger(|l| l.fsync = None), "persistence");
        warns(&of_ledger(|l| l.eviction = "allkeys-lru".into()), "eviction", "allkeys-lru");
        let all = of_ledger(|l| (l.eviction, l.most_memory) = ("volatile-ttl".into(), 1 << 30));
        fails(&all, "eviction", Exit::Failures, "noeviction");
    }

    #[test]
    fn a_ledger_that_cannot_work_is_told() {
        fails(&of_ledger(|l| l.loading = true), "loading", Exit::Failures, "wait");
        fails(&of_ledger(|l| l.replica = true), "replica", Exit::Failures, "primary");
        fails(&of_ledger(|l| l.clustered = true), "redis-cluster", Exit::Failures, "Redis Cluster");
    }

    #[test]
    fn a_ledger_that_is_nearly_full_is_told() {
        let all = of_ledger(|l| (l.memory, l.most_memory) = (900 << 20, 1 << 30));
        warns(&all, "ledger-memory", "maxmemory");
        warns(&of_ledger(|l| l.memory = 600 << 20), "ledger-memory", "of its machine");
        is_silent(&of_ledger(|l| l.machine_memory = 0), "ledger-memory");
    }

    #[test]
    fn clocks_that_differ_are_told() {
        warns(&of_ledger(|l| l.clock_ms = -1500), "ledger-clock", "1.500 s behind ours");
        fails(&of_ledger(|l| l.clock_ms = 61_000), "ledger-clock", Exit::Failures, "ahead of ours");
        let all = of_ledger(|l| l.workers[1].clock_ms = Some(-2000));
        warns(&all, "clocks", "the clock of b");
        fails(&of_ledger(|l| l.workers[0].clock_ms = Some(i64::MIN)), "clocks", Exit::Failures, "of a");
        warns(&of_ledger(|l| l.workers[0].clock_ms = None), "silent", "a-7");
    }

    #[test]
    fn daemons_that_are_missing_are_told() {
        let all = of_ledger(|l| l.workers.clear());
        warns(&all, "workers", "no worker is alive; 1 job runs");
        warns(&all, "hardlinkers", "treeferry hardlinker");
        is_silent(&all, "versions");
        let all = of_ledger(|l| l.workers.push(worker("c", "hardlinker")));
        assert!(the(&all, "hardlinkers").text.starts_with("2 hardlinkers"));
        assert!(the(&of_ledger(|l| l.running_jobs = 2), "workers").text.contains("2 jobs run"));
    }

    #[test]
    fn daemons_of_another_version_are_told() {
        let all = of_ledger(|l| l.workers[0].report.version = "1.0.0".into());
        fails(&all, "versions", Exit::Failures, "this is 1.2.3, and a-7 has 1.0.0");
    }

    #[test]
    fn daemons_that_do_not_work_are_told() {
        warns(&of_ledger(|l| l.workers[0].report.paused = true), "paused", "treeferry resume");
        let refusal = || Refusal { job: "00ff".into(), why: "SRC is not here".into() };
        let all = of_ledger(|l| l.workers[0].report.refused = vec![refusal(), refusal()]);
        fails(&all, "refused", Exit::Failures, "a-7 refuses job 00ff (and 1 more): SRC is not here");
    }
}
