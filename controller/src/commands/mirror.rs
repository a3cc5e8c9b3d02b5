//! `treeferry mirror report`: how soon changes arrived, by the hour and the day.

use super::status::{explain, told};
use crate::args::control::{AskError, Reach, connect};
use crate::args::log;
use crate::args::{UsageError, config_of};
use crate::cluster::whole;
use crate::output::{complain, grouped, put, took};
use crate::report::moments::utc;
use crate::watching::diary::{self, Page, documents, pages};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use treeferry_core::{JobId, escape};
use treeferry_mirror::Latency;
use treeferry_queue::mirrors::MirrorRow;
use treeferry_service::{Exit, configuration};

/// What is known of mirrors
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Report(ReportArgs),
    Forget(ForgetArgs),
}

/// Ends a mirror of the cluster for good
///
/// 'treeferry watch' leaves a mirror where it is when it ends: agents go on telling what changes, and whoever keeps it next
/// goes on from there. This removes all that is kept of it in RabbitMQ and Redis, and agents and workers forget it. DST
/// stays as it is. Refused while somebody keeps the mirror.
#[derive(Debug, clap::Args)]
struct ForgetArgs {
    /// The directory that is mirrored
    #[arg(value_hint = clap::ValueHint::DirPath)]
    src: PathBuf,
    /// The directory that was kept like it
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dst: PathBuf,
    #[command(flatten)]
    reach: Reach,
}

/// Tells how soon changes arrived at the target, by the hour and the day
///
/// For each mirror that was kept on this machine, or for one: how many changes arrived, how long that took from the moment
/// they were heard of, and how many took longer than 300 and 600 seconds; the last hours, and the last days. Hours are
/// those of UTC and are kept for two months, days for ten years, also when `treeferry watch` is started anew for the same
/// SRC and DST. Its page is written each ten seconds.
#[derive(Debug, clap::Args)]
struct ReportArgs {
    /// Only the mirror of this directory
    #[arg(value_hint = clap::ValueHint::DirPath)]
    src: Option<PathBuf>,
    /// And only that which is kept here
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dst: Option<PathBuf>,
    /// Tell the last N hours in which something arrived
    #[arg(long, value_name = "N", default_value_t = 24)]
    hours: usize,
    /// Tell the last N days in which something arrived
    #[arg(long, value_name = "N", default_value_t = 31)]
    days: usize,
    /// Take the directory from FILE (TOML)
    ///
    /// An empty name means no file. Default: no file.
    #[arg(long, value_name = "FILE", env = configuration::VARIABLE, hide_env_values = true)]
    #[arg(value_parser = clap::builder::OsStringValueParser::new(), value_hint = clap::ValueHint::FilePath)]
    config: Option<OsString>,
    /// Look for mirrors in DIR
    ///
    /// Default: the environment variable TREEFERRY_LOG_DIR, else the configuration's `dir`, else /var/log/treeferry for
    /// root, and ~/.local/state/treeferry for others.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    #[arg(value_parser = clap::builder::OsStringValueParser::new())]
    log_dir: Option<OsString>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    let done = match &args.what {
        What::Report(args) => report(args),
        What::Forget(args) => forget(args),
    };
    match done {
        Ok(()) => Exit::Done,
        Err(e) => explain("mirror", &e),
    }
}

fn forget(args: &ForgetArgs) -> Result<(), AskError> {
    let site = args.reach.site()?.ok_or(UsageError::NoCluster)?;
    let (src, dst) = (whole(&args.src), whole(&args.dst));
    let control = connect(&site)?;
    let all = told(control.mirrors())?;
    let is =
        |m: &&MirrorRow| (whole(&m.record.spec.src), whole(&m.record.spec.dst)) == (src.clone(), dst.clone());
    // an older version could have several ways to write one
    let found = all.iter().filter(is).min_by_key(|m| m.kept_by.is_some());
    let Some(m) = found else {
        let shown = |p: &Path| escape::bytes(p.as_os_str().as_encoded_bytes()).to_string();
        return Err(AskError::Unknown(format!(
            "the cluster has no mirror {} -> {}",
            shown(&src),
            shown(&dst)
        )));
    };
    if let Some(who) = &m.kept_by {
        return Err(AskError::Unknown(format!("{who} keeps this mirror: stop it first")));
    }
    let node = crate::cluster::connect(&site, "forget").map_err(|e| AskError::Unreachable(e.to_string()))?;
    told(node.forget_mirror(m.id))
}

fn report(args: &ReportArgs) -> Result<(), AskError> {
    let config = config_of(args.config.as_deref())?;
    let Some(dir) = log::dir(args.log_dir.as_deref(), &config.log) else {
        return Err(AskError::Usage(UsageError::NoLogDir));
    };
    let shown_dir = escape::bytes(dir.as_os_str().as_encoded_bytes()).to_string();
    let mut all =
        pages(&documents(&dir), complain).map_err(|e| AskError::Unknown(format!("{shown_dir}: {e}")))?;
    let is = |given: &Option<PathBuf>, have: &str| {
        given.as_deref().is_none_or(|p| whole(p) == diary::path_of(have))
    };
    all.retain(|(_, p)| is(&args.src, &p.src) && is(&args.dst, &p.dst));
    if args.json {
        let mirrors: Vec<Value> = all.iter().map(|(id, p)| as_json(*id, p, args)).collect();
        put(format!("{}\n", json!({ "mirrors": mirrors })).as_bytes());
    }
    if all.is_empty() && args.src.is_some() {
        return Err(AskError::Unknown(format!("no mirror of these directories is known in {shown_dir}")));
    }
    if args.json {
        return Ok(());
    }
    if all.is_empty() {
        complain(&format!("no mirror is known in {shown_dir}"));
    }
    let text: Vec<String> = all.iter().map(|(_, p)| as_text(p, args)).collect();
    put(text.join("\n").as_bytes());
    Ok(())
}

const LIMITS_S: [u64; 2] = [300, 600];

fn rows(p: &Page, args: &ReportArgs) -> [Vec<(u64, Latency)>; 2] {
    let mut hours: Vec<_> = p.arrivals.hourly().rev().take(args.hours).map(|(t, l)| (t, l.clone())).collect();
    let mut days: Vec<_> = p.arrivals.daily().into_iter().rev().take(args.days).collect();
    hours.reverse();
    days.reverse();
    [hours, days]
}

fn as_json(id: JobId, p: &Page, args: &ReportArgs) -> Value {
    let row = |(t, l): &(u64, Latency)| {
        let ms = |share| l.quantile(share).as_secs_f64() * 1000.0;
        json!({
            "begin_s": t, "count": l.total(),
            "p50_ms": ms(0.5), "p90_ms": ms(0.9), "p99_ms": ms(0.99), "max_ms": l.most().as_secs_f64() * 1000.0,
            "over_300_s": l.above(Duration::from_secs(300)), "over_600_s": l.above(Duration::from_secs(600)),
        })
    };
    let [hours, days] = rows(p, args).map(|rows| rows.iter().map(row).collect::<Vec<_>>());
    json!({
        "id": id.to_string(), "src": p.src, "dst": p.dst, "host": p.host, "began_ms": p.began_ms, "seen_ms": p.seen_ms,
        "complete_up_to_us": p.complete_up_to_us, "failing": p.failing, "hours": hours, "days": days,
    })
}

fn as_text(p: &Page, args: &ReportArgs) -> String {
    let mut text = format!("{} -> {}, first kept {}, last by {}\n", p.src, p.dst, utc(p.began_ms), p.host);
    let complete = p.complete_up_to_us.map_or_else(|| "no moment".to_owned(), |us| utc(us / 1000));
    // into memory: cannot fail
    let _ =
        writeln!(text, "at {} complete up to {complete}, {} paths fail", utc(p.seen_ms), grouped(p.failing));
    let [hours, days] = rows(p, args);
    for (name, length, rows) in [("hour", 13, hours), ("day", 10, days)] {
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(
            text,
            "\n{name:13} {:>12} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8}",
            "arrived", "p50", "p90", "p99", "max", "> 300 s", "> 600 s"
        );
        for (t, l) in rows {
            let when = &utc(t * 1000)[..length];
            let of = |share| shown(l.quantile(share));
            let [a, b] = LIMITS_S.map(|s| grouped(l.above(Duration::from_secs(s))));
            let _ = writeln!(
                text,
                "{when:13} {:>12} {:>10} {:>10} {:>10} {:>10} {a:>8} {b:>8}",
                grouped(l.total()),
                of(0.5),
                of(0.9),
                of(0.99),
                shown(l.most()),
            );
        }
    }
    text
}

fn shown(d: Duration) -> String {
    let ms = d.as_secs_f64() * 1000.0;
    if ms < 1000.0 { format!("{ms:.1} ms") } else { took(d.as_secs_f64()) }
}
