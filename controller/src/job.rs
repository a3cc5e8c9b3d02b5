//! What a job has around it, whichever engine runs it: log, signals, console, summary, exit code.

use crate::args::Output;
use crate::events::Telling;
use crate::output::{Console, Report, Summary, complain, harmless};
use crate::watching::{self, Wish};
use crate::{cluster, local};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::Instant;
use treeferry_core::{JobId, JobSpec, Stop, escape};
use treeferry_queue::Site;
use treeferry_service::metrics::Settings;
use treeferry_service::{Exit, logging, signals};
use treeferry_worker::{OpenError, PoolSize};

/// A job that was asked for.
pub struct Request {
    /// What is to be done.
    pub spec: JobSpec,
    /// By how many threads of this process.
    pub pool: PoolSize,
    /// By whom instead, if there is a cluster.
    pub site: Option<Site>,
    /// With a cluster: what is done of it.
    pub start: Start,
    /// With a cluster: register the job, say its id, and leave it to the workers.
    pub detach: bool,
    /// Where its events go.
    pub telling: Telling,
    /// Where metrics go, if anywhere.
    pub metrics: Option<Settings>,
    /// It is a mirror that is to be kept, and how.
    pub watch: Option<Wish>,
}

/// What of a job is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// All of it.
    Whole,
    /// What failed in another job.
    Again(JobId),
}

/// What the job is for; it decides what counts as success and how the summary speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To make DST like SRC.
    Sync,
    /// To tell the differences.
    Verify,
    /// To keep DST like SRC.
    Watch,
}

/// Runs a job to its end and reports it.
pub fn run(purpose: Purpose, request: Request, output: &Output) -> Exit {
    let (began, mut id) = (Instant::now(), draw_id());
    let console = Arc::new(Console::new(output));
    let sink = Arc::clone(&console);
    if let Err(e) = logging::start(logging::level(output.quiet, output.verbose), move |line| sink.log(line)) {
        complain(&e.to_string());
        return Exit::Usage;
    }
    let stop = Stop::default();
    let (told, teller) = (Arc::new(Once::new()), Arc::clone(&console));
    let tell = move || told.call_once(|| teller.say(signals::STOPPING));
    if let Err(e) = signals::watch(&stop, tell.clone()) {
        // without handlers a signal ends the process at once, which is safe too
        tracing::warn!("signals end this process at once: {e}");
    }

    // the engine is chosen here
    let ended = is_usable(purpose, &request).and_then(|()| match (&request.watch, &request.site) {
        (Some(wish), None) => watching::run(id, &request, wish, &stop, &console).map(Some),
        // one that was there before has its name from then
        (Some(wish), Some(site)) => {
            watching::far::run(site, &request, wish, &stop, &console).map(|(known, end)| {
                id = known;
                Some(end)
            })
        }
        (None, None) => local::run(id, &request, &stop, &console).map(Some),
        (None, Some(site)) => cluster::run(site, id, &request, &stop, &console),
    });

    if stop.is_set() {
        // the job may have ended before the thread of the signals had its turn
        tell();
    }
    let elapsed = began.elapsed();
    let summary = match ended {
        Ok(None) => {
            console.close();
            match output.json {
                true => console.print(&format!("{}\n", serde_json::json!({ "job": id.to_string() }))),
                false => console.print(&format!("{id}\n")),
            }
            return Exit::Done;
        }
        Ok(Some(end)) => {
            if let Some(why) = &end.aborted {
                console.say(&harmless(why, ""));
            }
            let s = Summary::new(id, &request.spec, elapsed, end);
            if purpose == Purpose::Verify { s.with_differences(console.changes_seen()) } else { s }
        }
        Err(why) => {
            let (exit, hint) = explain(purpose, &why);
            let why = harmless(&why.to_string(), "");
            console.say(&format!("{why}\n{hint}"));
            Summary::refused(id, &request.spec, elapsed, exit, why)
        }
    };
    console.close();
    if output.json {
        console.print(&summary.to_json());
    } else if !output.quiet && summary.is_of_a_run {
        console.print(&Report(&summary).to_string());
    }
    summary.exit
}

/// A verification needs both trees; a sync that is a dry run may do without its target.
fn is_usable(purpose: Purpose, request: &Request) -> Result<(), OpenError> {
    let missing = |p: &Path| {
        let shown = escape::bytes(p.as_os_str().as_encoded_bytes());
        std::fs::metadata(p).err().map(|e| OpenError::Unusable(format!("{shown}: {e}")))
    };
    match purpose {
        Purpose::Sync | Purpose::Watch => Ok(()),
        Purpose::Verify => missing(&request.spec.dst).map_or(Ok(()), Err),
    }
}

/// The exit code, and what the user can do about it.
fn explain(purpose: Purpose, why: &OpenError) -> (Exit, &'static str) {
    match (why, purpose) {
        (OpenError::Usage(_), Purpose::Sync) => {
            (Exit::Usage, "For more information, try 'treeferry sync --help'.")
        }
        (OpenError::Usage(_), Purpose::Verify) => {
            (Exit::Usage, "For more information, try 'treeferry verify --help'.")
        }
        (OpenError::Usage(_), Purpose::Watch) => {
            (Exit::Usage, "For more information, try 'treeferry watch --help'.")
        }
        (OpenError::Unreachable(_), _) => {
            (Exit::Unreachable, "Are RabbitMQ and Redis running, and do the URLs name them?")
        }
        (OpenError::Hindered(_), _) => (Exit::Unusable, "Nothing was begun."),
        (OpenError::Unusable(_), Purpose::Sync | Purpose::Watch) => (
            Exit::Unusable,
            "SRC must be a directory that you may read; DST one that you may write, or not there yet.",
        ),
        (OpenError::Unusable(_), Purpose::Verify) => {
            (Exit::Unusable, "SRC and DST must be directories that you may read.")
        }
    }
}

/// Draws the identity of a job: the keys of a new `RandomState` come from the system's random numbers.
fn draw_id() -> JobId {
    JobId(RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_jobs_do_not_share_an_id() {
        assert_ne!(draw_id(), draw_id());
    }

    #[test]
    fn a_verification_without_a_target_is_not_a_success() {
        let request = Request {
            spec: JobSpec::new("/", "/nonexistent/x"),
            pool: PoolSize::Auto,
            site: None,
            start: Start::Whole,
            detach: false,
            telling: crate::args::log::telling(&Default::default(), None).unwrap(),
            metrics: None,
            watch: None,
        };
        assert!(is_usable(Purpose::Sync, &request).is_ok());
        let e = is_usable(Purpose::Verify, &request).unwrap_err();
        assert_eq!(explain(Purpose::Verify, &e).0, Exit::Unusable);
        assert!(e.to_string().contains("/nonexistent/x: No such file"), "{e}");
    }
}
