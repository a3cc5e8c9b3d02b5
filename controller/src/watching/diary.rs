//! What is kept of a mirror beyond the life of its process: when changes arrived and how long that took, by the hour and the
//! day. A mirror is a pair of directories; whoever keeps it next goes on with the same page. Nothing depends on it.

use super::audit;
use crate::args::daemon::host;
use crate::cluster::whole;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use treeferry_core::{JobId, JobSpec, escape};
use treeferry_mirror::{Arrivals, Pending};
use treeferry_queue::Control;
use treeferry_service::state_dir::Documents;

/// How often it is written.
const EVERY: Duration = Duration::from_secs(10);
/// The form of the page; another one is left alone.
const FORMAT: u32 = 1;

/// The page of a mirror.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page {
    format: u32,
    /// The directory that is right, escaped.
    pub src: String,
    /// The one that is kept like it.
    pub dst: String,
    /// Who keeps it, or kept it last.
    pub host: String,
    /// When it was first kept (ms since 1970).
    pub began_ms: u64,
    /// When this was written.
    pub seen_ms: u64,
    /// Up to when it was complete then (µs since 1970).
    pub complete_up_to_us: Option<u64>,
    /// Paths that failed then.
    pub failing: u64,
    /// When changes arrived.
    pub arrivals: Arrivals,
    /// What its audits have found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<audit::Kept>,
}

/// Writes the page of one mirror.
pub struct Diary {
    documents: Option<Documents>,
    id: JobId,
    /// What was there before us.
    first: Page,
    audit: Option<Arc<audit::Book>>,
    next: Instant,
}

/// Where pages are, below the directory of events.
pub fn documents(dir: &Path) -> Documents {
    Documents::new(dir.join("mirrors"))
}

/// All pages that can be read, the one that was written last first. One that is damaged is left out, and `warn`
/// is told which file that is, and why.
pub fn pages(documents: &Documents, warn: impl Fn(&str)) -> std::io::Result<Vec<(JobId, Page)>> {
    let mut all = Vec::new();
    for id in documents.jobs()? {
        let page = documents.read(id).map_err(|e| e.to_string()).and_then(|text| match text {
            Some(text) => page_of(&text).map_err(|e| e.to_string()),
            None => Ok(None),
        });
        match page {
            Ok(page) => all.extend(page.map(|p| (id, p))),
            Err(e) => {
                let path = documents.dir().join(format!("{id}.json"));
                let path = escape::bytes(path.as_os_str().as_encoded_bytes());
                warn(&format!(
                    "{path}: {e}: what is known of a mirror cannot be read, and is left out; remove the file if it is damaged"
                ));
            }
        }
    }
    Ok(all)
}

/// `None`: it is of another version.
fn page_of(text: &str) -> serde_json::Result<Option<Page>> {
    let value: serde_json::Value = serde_json::from_str(text)?;
    if value["format"].as_u64().is_some_and(|f| f != u64::from(FORMAT)) {
        return Ok(None);
    }
    serde_json::from_value(value).map(Some)
}

/// A path as it is in a page, written in the one way: an older version had several.
pub fn path_of(shown: &str) -> PathBuf {
    whole(Path::new(OsStr::from_bytes(&escape::unescape(shown))))
}

impl Diary {
    /// Opens that of a mirror. `dir`: that of events; `None` means nowhere. `id`: what a page that is new goes by.
    pub fn open(dir: Option<&PathBuf>, id: JobId, spec: &JobSpec) -> Diary {
        let documents = dir.map(|d| documents(d));
        let (src, dst) = (whole(&spec.src), whole(&spec.dst));
        let shown = |p: &Path| escape::bytes(p.as_os_str().as_encoded_bytes()).to_string();
        let now = Control::now_ms();
        let known = documents
            .as_ref()
            .and_then(|d| pages(d, |text| tracing::warn!("{text}")).ok())
            .unwrap_or_default();
        let is = |p: &Page| path_of(&p.src) == src && path_of(&p.dst) == dst;
        let (id, page) = known.into_iter().find(|(_, p)| is(p)).unwrap_or_else(|| {
            let (host, arrivals) = (host(), Arrivals::default());
            let (complete_up_to_us, failing) = (None, 0);
            let page = Page {
                format: FORMAT,
                src: shown(&src),
                dst: shown(&dst),
                host,
                began_ms: now,
                seen_ms: now,
                complete_up_to_us,
                failing,
                arrivals,
                audit: None,
            };
            (id, page)
        });
        Diary { documents, id, first: Page { host: host(), ..page }, audit: None, next: Instant::now() }
    }

    /// What the audits of this mirror had found before.
    pub fn audited_before(&self) -> audit::Kept {
        self.first.audit.clone().unwrap_or_default()
    }

    /// From now on what this finds is kept.
    pub fn keep_audit(&mut self, book: &Arc<audit::Book>) {
        self.audit = Some(Arc::clone(book));
    }

    /// A file beside the page of this mirror; `None`: it has none.
    pub fn beside(&self, ending: &str) -> Option<PathBuf> {
        self.documents.as_ref().map(|d| d.dir().join(format!("{}.{ending}", self.id)))
    }

    /// Called some times a second.
    pub fn tick<'a, P: std::ops::Deref<Target = Pending> + 'a>(&mut self, pending: impl FnOnce() -> P) {
        if self.documents.is_some() && Instant::now() >= self.next {
            self.next = Instant::now() + EVERY;
            let page = self.page(&pending());
            self.write(&page);
        }
    }

    /// Writes the last of it.
    pub fn end(mut self, pending: &Pending) {
        let page = self.page(pending);
        self.write(&page);
        self.documents.iter().for_each(Documents::prune);
    }

    fn page(&self, pending: &Pending) -> Page {
        let f = pending.figures();
        let mut page = Page {
            seen_ms: Control::now_ms(),
            complete_up_to_us: f.complete_up_to,
            failing: f.failing as u64,
            ..self.first.clone()
        };
        page.arrivals.add(pending.arrivals());
        if let Some(book) = &self.audit {
            page.audit = Some(book.kept());
        }
        page
    }

    fn write(&mut self, page: &Page) {
        let Some(documents) = &self.documents else { return };
        // texts and numbers: cannot fail
        let text = serde_json::to_vec(page).unwrap_or_default();
        if let Err(e) = documents.write(self.id, &text) {
            let dir = escape::bytes(documents.dir().as_os_str().as_encoded_bytes());
            tracing::warn!("what 'treeferry mirror report' would tell cannot be written to {dir}: {e}");
            // once is enough
            self.documents = None;
        }
    }
}
