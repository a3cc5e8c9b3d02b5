//! Sees what there is. What cannot be seen is a fact, too, and no error.

use super::facts::{ClusterFacts, ConfigFacts, Facts, Refused, RootFacts, Tree, Trees};
use crate::args::control::Ask;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use treeferry_core::{JobSpec, Stop};
use treeferry_fs::{Abilities, Host, Privilege, Root, RootError, TempNames, mounts, privilege};
use treeferry_queue::{Site, checkup};
use treeferry_worker::{Job, OpenError};

/// Where packages put the configuration; nothing reads it unless it is named.
const USUAL: &str = "/etc/treeferry/treeferry.toml";

/// Gathers all facts: of SRC and DST if they are given, of the cluster if one is configured.
pub fn gather(trees: Option<(&Path, &Path)>, ask: &Ask) -> Facts {
    let privilege = Privilege::of_this_process();
    let (config, site) = configuration(ask);
    Facts {
        host: Host::look(),
        uid: privilege.uid,
        missing_capabilities: privilege::missing(),
        config,
        trees: trees.map(|(src, dst)| of_trees(src, dst, &privilege)),
        cluster: site.map(|s| of_cluster(&s)),
    }
}

fn configuration(ask: &Ask) -> (ConfigFacts, Option<Site>) {
    let file = ask.reach.file().map(Path::to_owned);
    let mode =
        file.as_deref().and_then(|f| std::fs::metadata(f).ok()).map(|m| m.permissions().mode() & 0o7777);
    let unnamed = (file.is_none() && Path::new(USUAL).exists()).then(|| PathBuf::from(USUAL));
    let (error, site) = match ask.reach.site() {
        Ok(site) => (None, site),
        Err(e) => (Some(e.to_string()), None),
    };
    (ConfigFacts { file, mode, error, unnamed }, site)
}

fn of_trees(src: &Path, dst: &Path, privilege: &Privilege) -> Trees {
    let from = Root::open(src).map(Root::quietly);
    let (to, dst_is_missing) = match Root::open(dst) {
        Err(RootError::Open(_, e)) if e.is_gone() => {
            let path = std::path::absolute(dst).unwrap_or_else(|_| dst.to_owned());
            (Root::open(path.parent().unwrap_or(&path)), true)
        }
        r => (r, false),
    };
    let same_device = matches!((&from, &to), (Ok(s), Ok(d)) if s.identity().dev == d.identity().dev);
    let temp = TempNames::of_this_process();
    let abilities =
        to.as_ref().ok().map(|d| Abilities::probe(d.fd(), &temp, privilege).map_err(|e| e.to_string()));
    Trees {
        src: Tree { path: src.to_owned(), root: of_root(&from) },
        dst: Tree { path: dst.to_owned(), root: of_root(&to) },
        dst_is_missing,
        same_device,
        guards: guards(src, dst),
        abilities,
    }
}

fn of_root(root: &Result<Root, RootError>) -> Result<RootFacts, String> {
    let root = root.as_ref().map_err(ToString::to_string)?;
    let mount = mounts::of(root.fd());
    let path = root.path().canonicalize().unwrap_or_else(|_| root.path().to_owned());
    let first = std::fs::read_dir(&path).map_err(|e| format!("{}: {e}", root.path().display()))?.next();
    Ok(RootFacts {
        is_mount_point: mount.as_ref().is_some_and(|m| m.point == path),
        mount,
        room: mounts::room(root.fd()).ok(),
        mounts_below: mounts::below(&path),
        is_empty: first.is_none(),
    })
}

/// What `sync` checks before it begins, by a dry run that does not begin.
fn guards(src: &Path, dst: &Path) -> Result<(), Refused> {
    let mut spec = JobSpec::new(src, dst);
    spec.dry_run = true;
    let refused = |text, is_usage| Err(Refused { text, is_usage });
    match Job::open(spec, Stop::default()) {
        Ok(_) => Ok(()),
        Err(OpenError::Usage(text)) => refused(text, true),
        Err(OpenError::Unusable(text) | OpenError::Hindered(text) | OpenError::Unreachable(text)) => {
            refused(text, false)
        }
    }
}

fn of_cluster(site: &Site) -> ClusterFacts {
    ClusterFacts {
        broker_at: place(&site.broker),
        broker: checkup::check_broker(site),
        ledger_at: place(&site.ledger),
        ledger: checkup::check_ledger(site),
        acknowledge_after: site.acknowledge_after,
    }
}

/// Host and port of a URL, without what is secret.
fn place(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, r)| r);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, r)| r);
    rest.split(['/', '?']).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_no_password() {
        assert_eq!(place("amqp://u:p@ss@h.example.org:5672/%2f?x=1"), "h.example.org:5672");
        assert_eq!(place("redis://:secret@[::1]:6379/0"), "[::1]:6379");
        assert_eq!(place("rediss://h"), "h");
        assert_eq!(place("nonsense"), "nonsense");
    }

    #[test]
    fn two_trees_are_seen_and_left_alone() {
        let place = std::env::temp_dir().join(format!("treeferry-doctor-{}", std::process::id()));
        std::fs::create_dir_all(place.join("src/d")).unwrap();
        let p = Privilege::of_this_process();
        let t = of_trees(&place.join("src"), &place.join("dst"), &p);
        assert!(t.dst_is_missing && t.same_device && t.guards.is_ok(), "{t:?}");
        assert!(!place.join("dst").exists());
        let root = t.src.root.unwrap();
        assert!(!root.is_empty && !root.is_mount_point && root.room.is_some(), "{root:?}");
        assert!(t.abilities.unwrap().is_ok());
        let t = of_trees(&place.join("src"), &place.join("src/d"), &p);
        assert!(t.guards.is_err_and(|r| r.is_usage) && t.dst.root.unwrap().is_empty);
        let t = of_trees(&place.join("nowhere"), &place.join("no/where"), &p);
        assert!(t.guards.is_err_and(|r| !r.is_usage) && t.src.root.is_err() && t.dst.root.is_err());
        assert!(t.abilities.is_none());
        std::fs::remove_dir_all(&place).unwrap();
    }
}
