//! What of an entry is kept, besides its content.

use treeferry_core::JobSpec;
use treeferry_core::spec::Keep;

// not a doc comment: clap would take it for the manual of the command that includes these options
// -t -p -o -g are psync's: naming one names all that is kept.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What is kept")]
pub struct Attributes {
    /// Keep modification and access times, to the nanosecond
    ///
    /// If any of -t, -p, -o and -g is given, only the named ones of these four are kept, and one that cannot
    /// be set is a failure. Default: all four, as far as this user may; what only root may do is counted.
    #[arg(short = 't', long)]
    times: bool,
    /// Keep the mode, with setuid, setgid and sticky bits
    ///
    /// See --times for what naming it means.
    #[arg(short = 'p', long)]
    perms: bool,
    /// Keep the owner, by number
    ///
    /// See --times for what naming it means.
    #[arg(short = 'o', long)]
    owner: bool,
    /// Keep the group, by number
    ///
    /// See --times for what naming it means.
    #[arg(short = 'g', long)]
    group: bool,
    /// Leave out POSIX ACLs [default: kept]
    #[arg(long)]
    no_acls: bool,
    /// Leave out extended attributes, file capabilities among them [default: kept]
    #[arg(long)]
    no_xattrs: bool,
    /// Copy each name of a hard-linked file by itself [default: hard links are kept]
    #[arg(long)]
    no_hardlinks: bool,
    /// Fill holes with zeros [default: holes are kept]
    #[arg(long)]
    no_sparse: bool,
    /// Leave out FIFOs, sockets and devices [default: they are made]
    #[arg(long)]
    no_specials: bool,
}

impl Attributes {
    /// Writes them into a job.
    pub fn apply(&self, spec: &mut JobSpec) {
        let any = self.times || self.perms || self.owner || self.group;
        let keep = |named| match (any, named) {
            (false, _) => Keep::WhereAllowed,
            (true, true) => Keep::Strictly,
            (true, false) => Keep::No,
        };
        spec.times = keep(self.times);
        spec.perms = keep(self.perms);
        spec.owner = keep(self.owner);
        spec.group = keep(self.group);
        spec.acls = !self.no_acls;
        spec.xattrs = !self.no_xattrs;
        spec.hardlinks = !self.no_hardlinks;
        spec.sparse = !self.no_sparse;
        spec.specials = !self.no_specials;
    }
}
