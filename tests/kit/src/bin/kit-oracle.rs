//! `kit-oracle SRC DST`: says in what two trees differ; exits 0 if they are alike, 1
//! if they are not, 2 on wrong usage.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use treeferry_kit::oracle::{self, Options};

const USAGE: &str = "usage: kit-oracle SRC DST [--show N] [--atime]";

fn main() -> ExitCode {
    let mut options = Options { keep: 0, ..Options::default() };
    let mut places: Vec<OsString> = Vec::new();
    let mut args = std::env::args_os().skip(1);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--atime") => options.atime = true,
            Some("--show") => {
                let number = args.next().and_then(|n| n.to_str()?.parse().ok());
                let Some(number) = number else {
                    return usage();
                };
                options.keep = number;
            }
            Some("-h" | "--help") => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            _ => places.push(arg),
        }
    }
    let [src, dst] = &places[..] else {
        return usage();
    };
    let found = oracle::compare(Path::new(src), Path::new(dst), &options);
    println!("{found}");
    ExitCode::from(u8::from(!found.is_empty()))
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
