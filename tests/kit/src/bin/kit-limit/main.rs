//! `kit-limit`: a ruler. It does the fewest system calls that a faithful clone of a
//! tree needs, with a switch to price each choice by itself.
//!
//! It is not a product: no hard links, no holes, no special files, and any error ends
//! it. What it takes is what a clone on this machine can hope for, no more; a tool
//! that publishes under a temporary name compares with `--publish rename`.

mod config;
mod copy;
mod handles;
mod queue;
mod sys;
mod worker;

use std::ffi::CString;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use rustix::fs::Mode;

use config::{Config, USAGE};
use queue::{Queue, Task};
use worker::{Totals, Worker};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (config, places) = match Config::parse(&args) {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("kit-limit: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // It lives as long as the process, so that every task can point at it.
    let config: &'static Config = Box::leak(Box::new(config));
    let place = |i: usize| CString::new(places.get(i).cloned().unwrap_or_default()).unwrap_or_default();
    rustix::process::umask(Mode::empty());

    let began = Instant::now();
    let queue = Queue::default();
    queue.push(Task::Dir { parent: None, name: place(0), target: place(1) });
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for id in 1..config.threads {
            let (queue, totals) = (&queue, &totals);
            scope.spawn(move || Worker::new(config, queue, id).run(totals));
        }
        Worker::new(config, &queue, 0).run(&totals);
    });
    let seconds = began.elapsed().as_secs_f64();
    let totals = totals.into_inner().unwrap_or_default();
    eprintln!(
        "{} files {} dirs {} bytes {} differ {seconds:.3} s {:.0} files/s",
        totals.files,
        totals.dirs,
        totals.bytes,
        totals.differ,
        totals.files as f64 / seconds
    );
    ExitCode::SUCCESS
}
