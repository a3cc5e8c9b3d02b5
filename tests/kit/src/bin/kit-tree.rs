//! `kit-tree KIND DIR`: makes one of the kit's trees at DIR, which must not exist.

use std::path::PathBuf;
use std::process::ExitCode;

use treeferry_kit::caps::Caps;
use treeferry_kit::random;
use treeferry_kit::tree::{Kind, Spec};

const USAGE: &str = "\
usage: kit-tree KIND DIR [--scale F] [--count N] [--seed N] [--owner UID:GID]

KIND  S small files in a realistic fan-out (200 000)   G one flat directory (200 000)
      L large files (8 of 1 GiB)                       H awkward entries (50 000), wants root
      D a chain of directories (1 000)                 E a flat directory of empty files (2 000 000)
      W a directory of directories (100 000)           R a small random tree of every entry type (300)
--scale multiplies the size, --count sets it (of L: the bytes of a file).";

fn main() -> ExitCode {
    match make(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kit-tree: {error}");
            ExitCode::from(2)
        }
    }
}

fn make(args: Vec<String>) -> Result<(), String> {
    let mut places = Vec::new();
    let (mut scale, mut count, mut seed, mut owner) = (None, None, 1, None);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value"));
        match arg.as_str() {
            "--scale" => scale = Some(number::<f64>(&value()?)?),
            "--count" => count = Some(number::<u64>(&value()?)?),
            "--seed" => seed = number(&value()?)?,
            "--owner" => {
                let text = value()?;
                let (uid, gid) = text.split_once(':').ok_or("--owner takes UID:GID")?;
                owner = Some((number(uid)?, number(gid)?));
            }
            "-h" | "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            _ => places.push(arg),
        }
    }
    let [kind, dir] = &places[..] else {
        return Err(format!("KIND and DIR are wanted\n{USAGE}"));
    };
    let dir = PathBuf::from(dir);
    if kind == "R" {
        let size = count.unwrap_or((300.0 * scale.unwrap_or(1.0)) as u64);
        return random(&dir, seed, size as usize).map_err(|error| error.to_string());
    }
    let mut spec = Spec::new(kind.parse::<Kind>()?).seed(seed);
    if let Some(scale) = scale {
        spec = spec.scale(scale);
    }
    if let Some(count) = count {
        spec = spec.count(count);
    }
    if let Some((uid, gid)) = owner {
        spec = spec.owner(uid, gid);
    }
    spec.make(&dir).map_err(|error| error.to_string())
}

fn random(dir: &PathBuf, seed: u64, size: usize) -> std::io::Result<()> {
    std::fs::create_dir(dir)?;
    let caps = Caps::probe(dir)?;
    random::random_tree(dir, seed, size, &caps)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}
