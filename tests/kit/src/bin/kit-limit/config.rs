//! The command line: what to do, and the price of which choices to pay.

/// Shown on wrong usage.
pub const USAGE: &str = "\
usage: kit-limit clone SRC DST | noop SRC DST | walk SRC | read SRC | rm DIR   [options]
  clone   DST must not exist            noop   walk both, compare size, mtime, mode, owner
  walk    listing and one stat a file   read   the same, and read every file (warms the cache)
  rm      delete the tree
  -t N                             threads (2)
  --copy rw|cfr                    how data moves: read and write, or copy_file_range (rw)
  --buf BYTES                      buffer of rw (262144)
  --eof                            read once more to see the end of file, instead of trusting the size
  --chown need|always|never        need: only when the owner is not ourselves
  --chmod create|always|never      create: the mode goes into openat, umask 0
  --times fd|path|never
  --publish direct|rename|tmpfile|mknod   rename: a temporary name first
  --stat fd|path                   fstat after open, or stat by name before it
  --xattr                          clone: list each file's and directory's extended attributes and copy
                                   them; noop: list both sides'
  --batch N                        names in one task when a directory is big (256)
  --chunk BYTES                    cut larger files over the threads (never)
  --falloc                         fallocate files over 1 MiB first
  --direct                         O_DIRECT for files over 1 MiB
  --sort                           visit files in inode order (for cold caches)";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Clone,
    Noop,
    Walk,
    Read,
    Rm,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CopyBy {
    ReadWrite,
    CopyFileRange,
}

/// When an attribute is set by a call of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    Needed,
    Always,
    Never,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Times {
    ByFd,
    ByPath,
    Never,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    Direct,
    Rename,
    Tmpfile,
    Mknod,
}

pub struct Config {
    pub command: Command,
    pub threads: usize,
    pub copy: CopyBy,
    pub buf_bytes: usize,
    pub eof: bool,
    pub chown: When,
    pub chmod: When,
    pub times: Times,
    pub publish: Publish,
    pub stat_by_path: bool,
    pub xattr: bool,
    pub batch: usize,
    pub chunk_bytes: u64,
    pub falloc: bool,
    pub direct: bool,
    pub sort: bool,
    pub uid: u32,
    pub gid: u32,
}

impl Config {
    /// Takes the command line apart: the configuration and the one or two places.
    pub fn parse(args: &[String]) -> Result<(Self, Vec<String>), String> {
        let mut args = args.iter();
        let command = match args.next().map(String::as_str) {
            Some("clone") => Command::Clone,
            Some("noop") => Command::Noop,
            Some("walk") => Command::Walk,
            Some("read") => Command::Read,
            Some("rm") => Command::Rm,
            _ => return Err("say what to do".to_owned()),
        };
        let mut config = Self::new(command);
        let mut places = Vec::new();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} wants a value"));
            match arg.as_str() {
                "-t" => config.threads = number(value()?)?,
                "--copy" => {
                    let words = [("rw", CopyBy::ReadWrite), ("cfr", CopyBy::CopyFileRange)];
                    config.copy = one_of(value()?, &words)?;
                }
                "--buf" => config.buf_bytes = number(value()?)?,
                "--eof" => config.eof = true,
                "--chown" => config.chown = when(value()?, "need")?,
                "--chmod" => config.chmod = when(value()?, "create")?,
                "--times" => {
                    let words = [("fd", Times::ByFd), ("path", Times::ByPath), ("never", Times::Never)];
                    config.times = one_of(value()?, &words)?;
                }
                "--publish" => {
                    let words = [
                        ("direct", Publish::Direct),
                        ("rename", Publish::Rename),
                        ("tmpfile", Publish::Tmpfile),
                        ("mknod", Publish::Mknod),
                    ];
                    config.publish = one_of(value()?, &words)?;
                }
                "--stat" => config.stat_by_path = one_of(value()?, &[("fd", false), ("path", true)])?,
                "--xattr" => config.xattr = true,
                "--batch" => config.batch = number(value()?)?,
                "--chunk" => config.chunk_bytes = number(value()?)?,
                "--falloc" => config.falloc = true,
                "--direct" => config.direct = true,
                "--sort" => config.sort = true,
                other if other.starts_with('-') => return Err(format!("no option {other}")),
                _ => places.push(arg.clone()),
            }
        }
        let wanted = if matches!(command, Command::Clone | Command::Noop) { 2 } else { 1 };
        if places.len() != wanted {
            return Err(format!("{wanted} places are wanted"));
        }
        Ok((config, places))
    }

    fn new(command: Command) -> Self {
        Self {
            command,
            threads: 2,
            copy: CopyBy::ReadWrite,
            buf_bytes: 256 << 10,
            eof: false,
            chown: When::Needed,
            chmod: When::Needed,
            times: Times::ByFd,
            publish: Publish::Direct,
            stat_by_path: false,
            xattr: false,
            batch: 256,
            // Half of all numbers, so that a chunk's end can be computed.
            chunk_bytes: u64::MAX >> 1,
            falloc: false,
            direct: false,
            sort: false,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn when(text: &str, needed: &str) -> Result<When, String> {
    one_of(text, &[(needed, When::Needed), ("always", When::Always), ("never", When::Never)])
}

fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        format!("{text:?} is none of {:?}", words.iter().map(|(word, _)| word).collect::<Vec<_>>())
    })
}
