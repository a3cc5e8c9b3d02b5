//! The summary of a job: the one structure from which both voices are made, and the JSON voice.

use serde::{Serialize, Serializer};
use std::path::Path;
use std::time::Duration;
use treeferry_core::job::JobState;
use treeferry_core::{Counters, Failure, JobId, JobSpec, Side, escape};
use treeferry_service::Exit;

/// So many failures are listed; all of them are counted.
const LISTED: usize = 100;

/// How an engine says that a job has ended.
pub struct End {
    /// Where it stands.
    pub state: JobState,
    /// All that was counted.
    pub counters: Counters,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// Why it became impossible.
    pub aborted: Option<String>,
}

/// What is to be said about a job that has ended. The order of the fields is that of the JSON object.
#[derive(Debug, Serialize)]
pub struct Summary {
    #[serde(serialize_with = "as_text")]
    job: JobId,
    /// How it ended.
    pub state: JobState,
    /// Escaped: names are bytes and JSON is text.
    pub src: String,
    /// As `src`.
    pub dst: String,
    /// Which passes ran.
    pub passes: Vec<&'static str>,
    /// Nothing was touched; the counters say what would have been done.
    pub dry_run: bool,
    /// From the start of the command to the end of the job, in seconds.
    pub elapsed_s: f64,
    /// All that was counted.
    pub counters: Counters,
    /// How many differences a verification found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences: Option<u64>,
    failures: Vec<Named>,
    /// Why the job did not even begin, or became impossible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether there was a run to be summed up.
    #[serde(skip)]
    pub is_of_a_run: bool,
    /// What the process ends with.
    #[serde(rename = "exit_code", serialize_with = "as_code")]
    pub exit: Exit,
}

/// A failure in JSON.
#[derive(Debug, Serialize)]
struct Named {
    path: String,
    op: String,
    error: String,
    side: &'static str,
    errno: i32,
}

impl Summary {
    /// Of a job that was run.
    pub fn new(job: JobId, spec: &JobSpec, elapsed: Duration, end: End) -> Summary {
        let exit = Exit::of(end.state, &end.counters);
        Summary {
            state: end.state,
            counters: end.counters,
            failures: end.failures.iter().take(LISTED).map(Named::from).collect(),
            error: end.aborted,
            is_of_a_run: true,
            exit,
            ..Summary::blank(job, spec, elapsed)
        }
    }

    /// Of a job that could not begin.
    pub fn refused(job: JobId, spec: &JobSpec, elapsed: Duration, exit: Exit, why: String) -> Summary {
        Summary { exit, error: Some(why), ..Summary::blank(job, spec, elapsed) }
    }

    /// Of a verification: a difference is no success.
    pub fn with_differences(self, differences: u64) -> Summary {
        let exit = match self.exit {
            Exit::Done | Exit::Vanished | Exit::MaxDelete if differences > 0 => Exit::Failures,
            as_before => as_before,
        };
        Summary { differences: Some(differences), exit, ..self }
    }

    /// One object, and a line of its own.
    pub fn to_json(&self) -> String {
        // a structure of texts and numbers cannot fail to be written
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    fn blank(job: JobId, spec: &JobSpec, elapsed: Duration) -> Summary {
        Summary {
            job,
            state: JobState::Aborted,
            src: shown(&spec.src),
            dst: shown(&spec.dst),
            passes: spec.passes.names(),
            dry_run: spec.dry_run,
            elapsed_s: (elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
            counters: Counters::default(),
            differences: None,
            failures: Vec::new(),
            error: None,
            is_of_a_run: false,
            exit: Exit::Unusable,
        }
    }

    /// The job's id as text.
    pub fn id(&self) -> String {
        self.job.to_string()
    }
}

impl From<&Failure> for Named {
    fn from(f: &Failure) -> Named {
        Named {
            path: f.path.to_string(),
            op: f.op.clone(),
            error: f.error.clone(),
            side: match f.side {
                Side::Source => "source",
                Side::Target => "target",
            },
            errno: f.errno,
        }
    }
}

fn shown(p: &Path) -> String {
    escape::bytes(p.as_os_str().as_encoded_bytes()).to_string()
}

fn as_text<S: Serializer>(id: &JobId, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(id)
}

fn as_code<S: Serializer>(e: &Exit, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u8(e.code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use treeferry_core::RelPath;

    fn summary(end: End) -> Summary {
        let mut spec = JobSpec::new("/src", OsStr::from_bytes(b"/d\xffst\n"));
        spec.passes.delete = true;
        Summary::new(JobId(10), &spec, Duration::from_millis(1234), end)
    }
    fn end(state: JobState, counters: Counters, failures: Vec<Failure>) -> End {
        End { state, counters, failures, aborted: None }
    }
    fn json(s: &Summary) -> Value {
        serde_json::from_str(&s.to_json()).unwrap()
    }

    #[test]
    fn json_is_the_contract() {
        let counters = Counters { dirs: 2, failures: 150, ..Counters::default() };
        let f = Failure::errno(RelPath::new(&b"a\xff"[..]).unwrap(), Side::Target, "rename", 28);
        let v = json(&summary(end(JobState::Failed, counters, vec![f; 150])));
        assert_eq!(v["job"], "000000000000000a");
        assert_eq!(v["state"], "failed");
        assert_eq!((&v["src"], &v["dst"]), (&json!("/src"), &json!("/d\\#377st\\#012")));
        assert_eq!(v["passes"], json!(["copy", "delete", "dirtime"]));
        assert_eq!(v["elapsed_s"], 1.234);
        assert_eq!(v["exit_code"], 23);
        assert_eq!(v["failures"].as_array().unwrap().len(), LISTED);
        assert_eq!(
            v["failures"][0],
            json!({"path": "a\\#377", "op": "rename", "error": "No space left on device", "side": "target", "errno": 28})
        );
        for (name, _) in Counters::TABLE {
            assert!(v["counters"][name].is_u64(), "{name}");
        }
        assert!(v.get("differences").is_none() && v.get("error").is_none());
        assert_eq!(summary(end(JobState::Done, Counters::default(), vec![])).to_json().lines().count(), 1);
    }

    #[test]
    fn a_verification_succeeds_only_without_differences() {
        let exit = |state, counters, n| summary(end(state, counters, vec![])).with_differences(n).exit;
        let vanished = Counters { vanished: 1, ..Counters::default() };
        assert_eq!(exit(JobState::Done, Counters::default(), 0), Exit::Done);
        assert_eq!(exit(JobState::Done, Counters::default(), 1), Exit::Failures);
        assert_eq!(exit(JobState::Done, vanished.clone(), 0), Exit::Vanished);
        assert_eq!(exit(JobState::Done, vanished, 1), Exit::Failures);
        assert_eq!(exit(JobState::Interrupted, Counters::default(), 1), Exit::Interrupted);
        assert_eq!(exit(JobState::Aborted, Counters::default(), 1), Exit::Unusable);
        let v = json(&summary(end(JobState::Done, Counters::default(), vec![])).with_differences(7));
        assert_eq!(v["differences"], 7);
    }

    #[test]
    fn a_job_that_did_not_begin_says_why() {
        let spec = JobSpec::new("/a", "/b");
        let s = Summary::refused(JobId(1), &spec, Duration::ZERO, Exit::Unusable, "/a: gone".into());
        let v = json(&s);
        assert_eq!(
            (&v["error"], &v["state"], &v["exit_code"]),
            (&json!("/a: gone"), &json!("aborted"), &json!(3))
        );
        assert!(!s.is_of_a_run);
    }
}
