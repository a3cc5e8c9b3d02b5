//! `treeferry doctor`: looks at a node, and says in words what is to be done.
//!
//! Facts are gathered first (`gather`), then judged (`judge`), which asks nobody anything and is tried out finding by
//! finding.

mod facts;
mod finding;
mod gather;
mod judge;

use crate::args::control::Ask;
use crate::cli;
use crate::output::{harmless, put};
use facts::Facts;
use finding::{Area, Finding, Severity, exit_of};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;

use treeferry_service::Exit;

/// Checks this node, the trees and the cluster, and says what to do
///
/// Looks at kernel, limits, memory and capabilities of this node and at the configuration; with SRC and DST at their
/// mounts, at the room they have, and at what the file system of DST can hold, which is tried there on entries that are
/// removed at once; with a cluster at RabbitMQ and Redis, their round-trip times and settings, the queues, and the
/// versions and clocks of the daemons.
///
/// Each finding is ok, a warning or a problem, and what is not ok says what to do. The exit code is 0 if there is no
/// problem, however many warnings; else that of the gravest: 1 for the configuration, 3 for SRC and DST, 69 for a broker
/// or ledger that cannot be reached, 23 for all others. Run it as the user who will run `sync` or the daemons.
#[derive(Debug, clap::Args)]
#[command(after_long_help = cli::exit_codes())]
pub struct Args {
    /// The directory that is to be copied from
    #[arg(value_hint = clap::ValueHint::DirPath, requires = "dst")]
    src: Option<PathBuf>,
    /// The directory that is to be copied to
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dst: Option<PathBuf>,
    #[command(flatten)]
    ask: Ask,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    let facts = gather::gather(args.src.as_deref().zip(args.dst.as_deref()), &args.ask);
    let findings = judge::judge(&facts);
    let exit = exit_of(&findings);
    let text = match args.ask.json {
        true => format!("{}\n", object(&facts, &findings, exit)),
        false => page(&facts, &findings),
    };
    put(text.as_bytes());
    exit
}

fn page(facts: &Facts, findings: &[Finding]) -> String {
    let host = &facts.host;
    let mut t = format!("treeferry {} on {}\n", env!("CARGO_PKG_VERSION"), harmless(&host.name, ""));
    for area in Area::ALL {
        let of_it: Vec<&Finding> = findings.iter().filter(|f| f.area == area).collect();
        if !of_it.is_empty() {
            let _ = writeln!(t, "\n{}", area.title());
        }
        for f in of_it {
            let _ = writeln!(t, "  {:<8} {}", f.severity.name(), harmless(&f.text, ""));
            if !f.advice.is_empty() {
                let _ = writeln!(t, "           {}", harmless(&f.advice, ""));
            }
        }
    }
    let (problems, warnings) = (count(findings, Severity::Problem), count(findings, Severity::Warning));
    let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let _ = writeln!(t, "\n{}, {}", many(problems, "problem"), many(warnings, "warning"));
    t
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|f| f.severity == severity).count()
}

fn object(facts: &Facts, findings: &[Finding], exit: Exit) -> Value {
    let one = |f: &Finding| {
        json!({
            "area": f.area.name(),
            "check": f.check,
            "severity": f.severity.name(),
            "text": f.text,
            "advice": Some(&f.advice).filter(|a| !a.is_empty()),
        })
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": facts.host.name,
        "problems": count(findings, Severity::Problem),
        "warnings": count(findings, Severity::Warning),
        "findings": findings.iter().map(one).collect::<Vec<_>>(),
        "measured": facts.measured(),
        "exit_code": exit.code(),
    })
}
