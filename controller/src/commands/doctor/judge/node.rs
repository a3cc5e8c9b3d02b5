//! This machine, this process, and the configuration.

use crate::commands::doctor::facts::{ConfigFacts, Facts};
use crate::commands::doctor::finding::{Area, Finding};
use treeferry_core::escape;
use treeferry_core::units::show_size;
use treeferry_fs::Host;
use treeferry_service::Exit;

use Area::{Configuration, Node};

/// A thread has some ten files and directories open, and deep nesting of tasks multiplies that; measured with 64
/// threads: some hundreds.
const FEW_FILES: u64 = 4096;
/// With fewer not even a small pool can work.
const TOO_FEW_FILES: u64 = 256;
/// The pool grows to 64 threads at most, and a daemon may be given more.
const FEW_THREADS: u64 = 256;
/// Buffers and tables take some tens of MiB, hard-link groups more.
const LITTLE_MEMORY: u64 = 256 << 20;
/// A table of the whole machine in which less than a tenth is left.
const NEARLY_FULL: u64 = 10;

/// Kernel, limits, memory, privileges.
pub fn judge(f: &Facts) -> Vec<Finding> {
    let h = &f.host;
    let mut found = vec![kernel(h)];
    if !h.proc {
        let text = "/proc is not mounted: temporary files of dead runs, modes of special files and much of this \
                    check need it";
        found.push(Finding::problem(Node, "proc", text, "mount it: mount -t proc proc /proc"));
    }
    found.push(open_files(h));
    found.extend(tables(h));
    found.push(memory(h));
    if let Some(n) = h.mapped_ids {
        let text = format!(
            "this is a user name space that knows {n} user ids: entries of others than those cannot be made, nor \
             devices and trusted attributes, whatever the capabilities say"
        );
        found.push(Finding::warning(
            Node,
            "user-namespace",
            text,
            "run it outside of the container, as root",
        ));
    }
    if f.missing_capabilities.is_empty() {
        found.push(Finding::ok(Node, "capabilities", "has every capability that a whole copy needs"));
    }
    for c in &f.missing_capabilities {
        let text = format!("user {} without {c}: {}", f.uid, lost_without(c));
        let advice =
            "run it as root, or give the unit the capability; nothing to do if all entries are this user's";
        found.push(Finding::warning(Node, capability_check(c), text, advice));
    }
    found
}

fn kernel(h: &Host) -> Finding {
    let mut lacks = Vec::new();
    if !h.openat2 {
        lacks.push("openat2 (5.6), so that paths are opened name by name");
    }
    if !h.mount_ids {
        lacks.push("statx with mount ids (5.8), so that a root that was mounted anew may not be noticed");
    }
    if lacks.is_empty() {
        // the only one of the three whose lack costs little
        let slow =
            if h.xattrat { "" } else { "; no listxattrat (6.13): attributes of names go through /proc" };
        return Finding::ok(Node, "kernel", format!("Linux {}, {} cores{slow}", h.kernel, h.cores));
    }
    let text = format!("Linux {} lacks {}", h.kernel, lacks.join("; and "));
    let advice = "use a newer kernel; in a container, a seccomp profile that knows these calls";
    Finding::warning(Node, "kernel", text, advice)
}

fn open_files(h: &Host) -> Finding {
    const CHECK: &str = "open-files";
    let advice = "raise the hard limit: LimitNOFILE=65536 in a unit, nofile in /etc/security/limits.conf, or ulimit -Hn \
                  as root";
    match h.open_files {
        Some(n) if n < TOO_FEW_FILES => {
            Finding::problem(Node, CHECK, format!("at most {n} open files (RLIMIT_NOFILE)"), advice)
        }
        Some(n) if n < FEW_FILES => Finding::warning(
            Node,
            CHECK,
            format!("at most {n} open files (RLIMIT_NOFILE): with many threads some have to be tried again"),
            advice,
        ),
        Some(n) => Finding::ok(Node, CHECK, format!("at most {n} open files (RLIMIT_NOFILE)")),
        None => Finding::ok(Node, CHECK, "no limit of open files (RLIMIT_NOFILE)"),
    }
}

/// What is limited for the user, or for the whole machine: nothing is said of what is far from full.
fn tables(h: &Host) -> Vec<Finding> {
    let mut found = Vec::new();
    // root is not bound by it
    let bound = h.processes.filter(|n| *n < FEW_THREADS);
    if let Some(n) = bound {
        let text = format!("this user may have {n} processes and threads (RLIMIT_NPROC)");
        let advice = "raise it (LimitNPROC= in a unit, nproc in /etc/security/limits.conf), or give --pool N";
        found.push(Finding::warning(Node, "processes", text, advice));
    }
    for (check, what, table, key) in [
        ("all-files", "open files", h.all_files, "fs.file-max"),
        ("all-threads", "threads", h.all_threads, "kernel.threads-max"),
    ] {
        let Some((used, most)) = table.filter(|(used, most)| most - used.min(most) < most / NEARLY_FULL)
        else {
            continue;
        };
        let text = format!("{used} of the {most} {what} that this machine can have are in use ({key})");
        found.push(Finding::warning(Node, check, text, format!("raise it: sysctl {key}=N")));
    }
    found
}

fn memory(h: &Host) -> Finding {
    const CHECK: &str = "memory";
    let text = format!("{} of memory free, of {}", show_size(h.free_memory), show_size(h.memory));
    if h.free_memory < LITTLE_MEMORY {
        let advice = "end something else, or raise the memory.max of the control group; fewer threads need less (--pool)";
        return Finding::warning(Node, CHECK, text, advice);
    }
    Finding::ok(Node, CHECK, text)
}

/// What a copy lacks without a capability. Every name of [`treeferry_fs::privilege::missing`] is here.
fn lost_without(capability: &str) -> &'static str {
    match capability {
        "CAP_CHOWN" => "owners and groups of others are left out (left_out_owner)",
        "CAP_DAC_OVERRIDE" => "what permission bits keep from this user is a failure",
        "CAP_FOWNER" => {
            "modes, times and ACLs of what belongs to others cannot be repaired, and their access times change"
        }
        "CAP_FSETID" => "set-group-id bits are lost where the group is none of this user's",
        "CAP_MKNOD" => "devices are left out (left_out_devices)",
        "CAP_SETFCAP" => "capabilities of files are left out (left_out_xattrs)",
        "CAP_SYS_ADMIN" => "trusted.* attributes are neither seen nor kept",
        "CAP_SYS_RESOURCE" => "quotas and reserved blocks stop a copy before the disk is full",
        _ => "something is left out",
    }
}

fn capability_check(capability: &str) -> &'static str {
    match capability {
        "CAP_CHOWN" => "cap-chown",
        "CAP_DAC_OVERRIDE" => "cap-dac-override",
        "CAP_FOWNER" => "cap-fowner",
        "CAP_FSETID" => "cap-fsetid",
        "CAP_MKNOD" => "cap-mknod",
        "CAP_SETFCAP" => "cap-setfcap",
        "CAP_SYS_ADMIN" => "cap-sys-admin",
        "CAP_SYS_RESOURCE" => "cap-sys-resource",
        _ => "cap",
    }
}

/// The configuration file, and whether there is a cluster.
pub fn configuration(c: &ConfigFacts, cluster: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let shown = |p: &std::path::Path| escape::bytes(p.as_os_str().as_encoded_bytes()).to_string();
    if let Some(e) = &c.error {
        let advice = "mend it, or name another file by --config or TREEFERRY_CONFIG; nothing that is said there is used";
        found.push(Finding::problem(Configuration, "configuration", e, advice).ends_with(Exit::Usage));
        return found;
    }
    match (&c.file, c.mode) {
        (Some(f), Some(mode)) if mode & 0o022 != 0 => {
            let text = format!("{} can be written by others (mode {mode:04o})", shown(f));
            let advice = "chmod go-w it: whoever writes there says where the tasks come from";
            found.push(Finding::warning(Configuration, "configuration", text, advice));
        }
        (Some(f), Some(mode)) => {
            found.push(Finding::ok(
                Configuration,
                "configuration",
                format!("{} (mode {mode:04o})", shown(f)),
            ));
        }
        (Some(f), None) => found.push(Finding::ok(Configuration, "configuration", shown(f))),
        (None, _) => match &c.unnamed {
            Some(f) => {
                let text = format!("no file is named, so {} is not read", shown(f));
                let advice = format!("if it is meant: export TREEFERRY_CONFIG={}", shown(f));
                found.push(Finding::warning(Configuration, "configuration", text, advice));
            }
            None => {
                found.push(Finding::ok(Configuration, "configuration", "no file is named: defaults hold"))
            }
        },
    }
    if !cluster {
        let text = "no broker and ledger are named: jobs run on this machine alone";
        found.push(Finding::ok(Configuration, "cluster", text));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::judge::tests::{fails, is_ok, is_silent, the, warns};
    use std::path::PathBuf;

    fn good() -> Facts {
        let host = Host {
            kernel: "6.13".into(),
            openat2: true,
            mount_ids: true,
            xattrat: true,
            proc: true,
            open_files: Some(65536),
            all_files: Some((1000, 1_000_000)),
            all_threads: Some((100, 30_000)),
            memory: 8 << 30,
            free_memory: 4 << 30,
            cores: 2,
            ..Host::default()
        };
        Facts { host, ..Facts::default() }
    }

    fn found(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
        let mut f = good();
        change(&mut f);
        judge(&f)
    }

    #[test]
    fn a_good_node_is_ok() {
        let all = found(|_| ());
        for check in ["kernel", "open-files", "memory", "capabilities"] {
            is_ok(&all, check);
        }
        assert_eq!(all.len(), 4, "{all:?}");
        assert!(the(&all, "kernel").text.contains("6.13"));
        is_ok(&found(|f| f.host.open_files = None), "open-files");
    }

    #[test]
    fn an_old_kernel_is_told_with_what_it_costs() {
        warns(&found(|f| f.host.openat2 = false), "kernel", "openat2");
        warns(&found(|f| f.host.mount_ids = false), "kernel", "mount ids");
        let all = found(|f| f.host.xattrat = false);
        is_ok(&all, "kernel");
        assert!(the(&all, "kernel").text.contains("listxattrat"));
    }

    #[test]
    fn without_proc_little_works() {
        fails(&found(|f| f.host.proc = false), "proc", Exit::Failures, "mount -t proc");
    }

    #[test]
    fn limits_that_are_low_are_told() {
        warns(&found(|f| f.host.open_files = Some(1024)), "open-files", "LimitNOFILE");
        fails(&found(|f| f.host.open_files = Some(64)), "open-files", Exit::Failures, "64 open files");
        warns(&found(|f| f.host.processes = Some(100)), "processes", "--pool");
        is_silent(&found(|f| f.host.processes = Some(4000)), "processes");
        warns(&found(|f| f.host.all_files = Some((950, 1000))), "all-files", "fs.file-max");
        warns(&found(|f| f.host.all_threads = Some((1000, 1000))), "all-threads", "threads-max");
        is_silent(&found(|f| f.host.all_threads = Some((800, 1000))), "all-threads");
    }

    #[test]
    fn little_memory_is_told() {
        warns(&found(|f| f.host.free_memory = 10 << 20), "memory", "10.0 MiB");
    }

    #[test]
    fn a_user_name_space_is_told() {
        warns(&found(|f| f.host.mapped_ids = Some(1)), "user-namespace", "knows 1 user");
    }

    #[test]
    fn each_capability_that_is_missing_says_what_is_lost() {
        let names = [
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_MKNOD",
            "CAP_SETFCAP",
            "CAP_SYS_ADMIN",
            "CAP_SYS_RESOURCE",
        ];
        for c in names {
            let all = found(|f| f.missing_capabilities = vec![c]);
            warns(&all, capability_check(c), c);
            assert!(capability_check(c) != "cap" && lost_without(c) != "something is left out", "{c}");
            is_silent(&all, "capabilities");
        }
        // those of this process, whatever they are, are among them
        assert!(treeferry_fs::privilege::missing().iter().all(|c| names.contains(c)));
    }

    #[test]
    fn the_configuration_is_told() {
        let file = |mode| ConfigFacts { file: Some("/x".into()), mode: Some(mode), ..ConfigFacts::default() };
        let all = configuration(&ConfigFacts::default(), false);
        is_ok(&all, "configuration");
        is_ok(&all, "cluster");
        let all = configuration(&file(0o600), true);
        assert!(the(&all, "configuration").text.contains("/x (mode 0600)"));
        is_silent(&all, "cluster");
        warns(&configuration(&file(0o662), true), "configuration", "0662");
        let unnamed = ConfigFacts { unnamed: Some(PathBuf::from("/etc/y")), ..ConfigFacts::default() };
        warns(&configuration(&unnamed, false), "configuration", "TREEFERRY_CONFIG=/etc/y");
        let broken = ConfigFacts { error: Some("others can read it".into()), ..file(0o644) };
        fails(&configuration(&broken, false), "configuration", Exit::Usage, "others can read it");
    }
}
