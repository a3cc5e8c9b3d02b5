//! From facts to findings. Asks nobody anything.

mod cluster;
mod node;
mod trees;

use super::facts::Facts;
use super::finding::Finding;

/// All findings.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = node::judge(facts);
    found.extend(node::configuration(&facts.config, facts.cluster.is_some()));
    if let Some(t) = &facts.trees {
        found.extend(trees::judge(t));
    }
    if let Some(c) = &facts.cluster {
        found.extend(cluster::judge(c, env!("CARGO_PKG_VERSION")));
    }
    found
}

/// What the tests of all parts have in common.
#[cfg(test)]
pub mod tests {
    use super::super::finding::{Finding, Severity};
    use treeferry_service::Exit;

    /// The one finding of a check.
    #[track_caller]
    pub fn the<'a>(found: &'a [Finding], check: &str) -> &'a Finding {
        let mut of_it = found.iter().filter(|f| f.check == check);
        let f = of_it.next().unwrap_or_else(|| panic!("no {check} in {found:#?}"));
        assert!(of_it.next().is_none(), "{check} more than once");
        f
    }

    /// Fails unless a check is as it should be.
    #[track_caller]
    pub fn is_ok(found: &[Finding], check: &str) {
        let f = the(found, check);
        assert!(f.severity == Severity::Ok && f.advice.is_empty() && f.exit == Exit::Done, "{f:?}");
    }

    /// Fails unless a check is a warning, with advice, that has these words.
    #[track_caller]
    pub fn warns(found: &[Finding], check: &str, words: &str) {
        let f = the(found, check);
        assert!(f.severity == Severity::Warning && !f.advice.is_empty() && f.exit == Exit::Done, "{f:?}");
        assert!(format!("{} {}", f.text, f.advice).contains(words), "{f:?}");
    }

    /// Fails unless a check is a problem, with advice and this exit code, that has these words.
    #[track_caller]
    pub fn fails(found: &[Finding], check: &str, exit: Exit, words: &str) {
        let f = the(found, check);
        assert!(f.severity == Severity::Problem && !f.advice.is_empty() && f.exit == exit, "{f:?}");
        assert!(format!("{} {}", f.text, f.advice).contains(words), "{f:?}");
    }

    /// Fails if a check says anything.
    #[track_caller]
    pub fn is_silent(found: &[Finding], check: &str) {
        assert!(found.iter().all(|f| f.check != check), "{found:#?}");
    }
}
