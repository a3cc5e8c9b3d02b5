//! The pulse of a process: it says what it has and what it lacks, and hears what is wanted of it.

use super::node::{Shared, lock};
use super::report::{CONTROL, JobNow, Wanted};
use crate::redis::prefix;
use redis::AsyncCommands;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};
use treeferry_core::event::micros;
use treeferry_core::job::JobState;
use treeferry_core::{Counters, Event, JobId};

/// How often a process says how many idle threads it has, and asks how many there are.
const PULSE: Duration = Duration::from_millis(50);
/// The same while no job runs. Who begins with one asks at once.
const QUIET: Duration = Duration::from_millis(250);
/// How often a daemon says what it is doing.
const REPORT: Duration = Duration::from_secs(1);

/// Says how many idle threads there are here, and hears how many there are everywhere, how jobs stand and what is
/// wanted of us; and now and then, what we are doing.
pub(super) async fn pulse(s: Arc<Shared>) {
    let script = redis::Script::new(include_str!("../redis/pulse.lua"));
    let mut reported: Option<Instant> = None;
    // what a process of our name was told that is no more: in a container each has the same number
    let orders = s.own_orders();
    let forgotten = s.ledger.stubborn(|mut c| {
        let orders = orders.clone();
        async move { c.hdel::<_, _, ()>(CONTROL, orders).await }
    });
    if let Err(e) = forgotten.await {
        tracing::error!("{e}");
    }
    while !s.gone.load(Relaxed) {
        let idle = match s.shares.load(Relaxed) && !lock(&s.wanted).paused {
            true => s.idle.load(Relaxed).to_string(),
            false => "-".to_owned(),
        };
        let daemon = lock(&s.report).is_some();
        let answer = s
            .ledger
            .stubborn(|mut c| {
                let (script, name, idle, weight) = (&script, &s.name, &idle, s.weight.load(Relaxed));
                async move {
                    let mut call = script.key("treeferry:");
                    call.arg(name).arg(idle).arg(weight).arg(random()).arg(u8::from(daemon));
                    call.invoke_async::<Heard>(&mut c).await
                }
            })
            .await;
        let mut nodes = 0;
        match answer {
            Ok(heard) => {
                nodes = heard.1;
                let ended = hear(&s, heard);
                if daemon {
                    for job in ended {
                        s.telling.promised.fetch_add(1, Relaxed);
                        tokio::spawn(tell_end(Arc::clone(&s), job));
                    }
                }
            }
            Err(e) => tracing::error!("{e}"),
        }
        if reported.is_none_or(|t| t.elapsed() > REPORT) {
            let said = lock(&s.report).as_ref().and_then(|f| serde_json::to_string(&f()).ok());
            if let Some(said) = said {
                reported = Some(Instant::now());
                let key = format!("treeferry:node:{}", s.name);
                let _: Result<(), _> = s.ledger.conn().set_ex(key, said, 15).await;
            }
        }
        // a thousand processes must not keep the ledger busy with this alone
        let often = if lock(&s.jobs).is_empty() { QUIET } else { PULSE };
        let rest = often.max(Duration::from_millis(nodes));
        tokio::time::sleep(rest / 5).await;
        // that a thread has nothing to do is said soon
        let _ = tokio::time::timeout(rest - rest / 5, s.news.notified()).await;
    }
}

/// A number from 0 to 1.
fn random() -> f64 {
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1u64 << 53) as f64
}

/// Bundles to give away, processes, control fields, five values for each job.
type Heard = (usize, u64, Vec<String>, Vec<redis::Value>);

/// Returns jobs that have ended: the first daemon to ask after that hears of it, and no other.
fn hear(s: &Shared, heard: Heard) -> Vec<(JobId, JobState)> {
    let (asked, _, control, jobs) = heard;
    s.asked.store(asked, Relaxed);
    let fields = control.chunks_exact(2).map(|p| (p[0].clone(), p[1].clone())).collect();
    *lock(&s.wanted) = Wanted::read(&fields, &s.name, &s.node);
    let text = |v: &redis::Value| redis::from_redis_value_ref::<String>(v).unwrap_or_default();
    let (mut now, mut ended) = (Vec::new(), Vec::new());
    let (mut states, at) = (lock(&s.states), Instant::now());
    for five in jobs.chunks_exact(5) {
        let number = |v: &redis::Value| text(v).parse().unwrap_or(0);
        if let (Ok(id), Some(state)) = (text(&five[0]).parse(), JobState::from_name(&text(&five[1]))) {
            states.heard(at, id, state);
            if state != JobState::Running {
                ended.push((id, state));
            }
            let paused = text(&five[2]) == "pause";
            now.push(JobNow { id, paused, queued: number(&five[3]), running: number(&five[4]) });
        }
    }
    states.forget_old(at);
    *lock(&s.jobs) = now;
    ended
}

/// Tells those who watch that a job has ended.
async fn tell_end(s: Arc<Shared>, (id, state): (JobId, JobState)) {
    let p = prefix(id);
    type Answer = (HashMap<String, Vec<u8>>, HashMap<String, u64>);
    let answer = s
        .ledger
        .stubborn(|mut c| {
            let p = p.clone();
            async move {
                let mut pipe = redis::pipe();
                pipe.atomic().hgetall(format!("{p}job")).hgetall(format!("{p}counters"));
                pipe.query_async::<Answer>(&mut c).await
            }
        })
        .await;
    let (fields, counted) = answer.unwrap_or_default();
    let word = |k: &str| fields.get(k).map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default();
    let ms = |k: &str| word(k).parse::<u64>().unwrap_or(0);
    let mut counters = Counters::default();
    counted.iter().for_each(|(name, n)| counters.set(name, *n));
    let took = Duration::from_millis(ms("ended").saturating_sub(ms("created")));
    let time_us = match ms("ended") {
        0 => micros(SystemTime::now()),
        ms => ms * 1000,
    };
    let told = Event { time_us, ..Event::job_ended(id, state, &counters, took, &word("why")) };
    s.telling.outbox.put([told]);
    s.telling.promised.fetch_sub(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::Ledger;
    use treeferry_kit::services::Services;

    const IDLE: &str = "treeferry:idle";
    const SUMS: &str = "treeferry:sums";

    struct Pulses {
        rt: tokio::runtime::Runtime,
        ledger: Ledger,
        script: redis::Script,
    }

    impl Pulses {
        /// Bundles that a process is asked for.
        fn of(&self, name: &str, idle: &str, weight: u64, random: f64) -> usize {
            let mut c = self.ledger.conn();
            let mut call = self.script.key("treeferry:");
            call.arg(name).arg(idle).arg(weight).arg(random).arg(0);
            let heard: Heard = self.rt.block_on(call.invoke_async(&mut c)).unwrap();
            heard.0
        }
    }

    #[test]
    fn what_idle_threads_need_is_divided_by_what_each_has() {
        let services = Services::start();
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ledger = rt.block_on(Ledger::connect(&services.ledger)).unwrap();
        let p = Pulses { rt, ledger, script: redis::Script::new(include_str!("../redis/pulse.lua")) };

        assert_eq!(p.of("a", "4", 0, 0.99), 0, "it has nothing");
        assert_eq!(p.of("b", "0", 300, 0.0), 4, "nobody else has anything");
        assert_eq!(p.of("c", "0", 100, 0.0), 1);
        assert_eq!(p.of("b", "0", 300, 0.0), 3);
        assert_eq!(p.of("b", "0", 100, 0.0), 2, "its part has become smaller");
        assert_eq!(p.of("b", "-", 50, 0.5), 1, "a third of four, and the fraction by chance");
        assert_eq!(p.of("b", "-", 50, 0.9), 2);
        assert_eq!(p.of("a", "0", 0, 0.0), 0);
        assert_eq!(p.of("c", "0", 100, 0.9), 0, "nobody is idle any more");

        // one that is silent counts no more, when everything is added up again
        let mut c = p.ledger.conn();
        let forget = async {
            let _: () = c.hset(IDLE, "gone", "50:9000:1").await.unwrap();
            let _: () = c.del(SUMS).await.unwrap();
        };
        p.rt.block_on(forget);
        assert_eq!(p.of("c", "0", 100, 0.0), 0);
        for n in 0..13 {
            p.of(&format!("n{n}"), "0", 0, 0.0);
        }
        assert_eq!(p.of("b", "0", 0, 0.0), 0);
        assert_eq!(p.of("c", "0", 100, 0.0), 2, "sixteen processes have a reserve of two");
    }
}
