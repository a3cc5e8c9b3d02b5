//! What this process may do that an ordinary user may not.

use rustix::thread::CapabilitySet;
use std::sync::OnceLock;

/// Effective privileges, asked once at the start.
#[derive(Clone, Debug)]
pub struct Privilege {
    /// Effective user.
    pub uid: u32,
    /// Effective group: what a new file gets where its directory does not say otherwise.
    pub gid: u32,
    /// Groups that we may give files to.
    pub groups: Vec<u32>,
    /// May give files to anybody (CAP_CHOWN).
    pub chown: bool,
    /// May set modes, times and ACLs of others' files (CAP_FOWNER).
    pub fowner: bool,
    /// Read, write and search permissions do not apply (CAP_DAC_OVERRIDE).
    pub dac_override: bool,
    /// May make devices (CAP_MKNOD).
    pub mknod: bool,
    /// May set trusted and most security attributes (CAP_SYS_ADMIN).
    pub sys_admin: bool,
    /// May set file capabilities (CAP_SETFCAP).
    pub setfcap: bool,
}

impl Privilege {
    /// Asks the kernel.
    pub fn of_this_process() -> Privilege {
        let set = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |c| c.effective);
        Privilege {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: rustix::process::getgroups()
                .map_or(Vec::new(), |g| g.iter().map(|g| g.as_raw()).collect()),
            chown: set.contains(CapabilitySet::CHOWN),
            fowner: set.contains(CapabilitySet::FOWNER),
            dac_override: set.contains(CapabilitySet::DAC_OVERRIDE),
            mknod: set.contains(CapabilitySet::MKNOD),
            sys_admin: set.contains(CapabilitySet::SYS_ADMIN),
            setfcap: set.contains(CapabilitySet::SETFCAP),
        }
    }

    /// Whether we may give a file that we own to this group.
    pub fn may_give_group(&self, gid: u32) -> bool {
        self.chown || gid == self.gid || self.groups.contains(&gid)
    }
}

/// What a process needs for a full copy, by its names in capabilities(7).
const NEEDED: [(&str, CapabilitySet); 8] = [
    ("CAP_CHOWN", CapabilitySet::CHOWN),
    ("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
    ("CAP_FOWNER", CapabilitySet::FOWNER),
    ("CAP_FSETID", CapabilitySet::FSETID),
    ("CAP_MKNOD", CapabilitySet::MKNOD),
    ("CAP_SETFCAP", CapabilitySet::SETFCAP),
    ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
    ("CAP_SYS_RESOURCE", CapabilitySet::SYS_RESOURCE),
];

/// Capabilities that a full copy needs, and that are not effective in this process.
pub fn missing() -> Vec<&'static str> {
    let set = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |c| c.effective);
    NEEDED.iter().filter(|(_, c)| !set.contains(*c)).map(|(name, _)| *name).collect()
}

/// Lets modes given at creation be what they say. Returns the bits that the umask took away before; the first
/// call's answer is remembered, so that asking twice does not lose it.
pub fn clear_umask() -> u32 {
    static BEFORE: OnceLock<u32> = OnceLock::new();
    *BEFORE.get_or_init(|| rustix::process::umask(rustix::fs::Mode::empty()).as_raw_mode())
}

/// Raises the limit of open files as far as it goes.
pub fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut l = getrlimit(Resource::Nofile);
    l.current = l.maximum;
    // best effort: with the old limit fewer threads can work at once, and EMFILE is tried again
    let _ = setrlimit(Resource::Nofile, l);
}
