//! What was found: about what, how grave it is, and what to do.

use treeferry_service::Exit;

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// This machine and this process.
    Node,
    /// The configuration file.
    Configuration,
    /// SRC.
    Source,
    /// DST.
    Target,
    /// RabbitMQ.
    Broker,
    /// Redis.
    Ledger,
    /// Daemons of the cluster.
    Workers,
}

impl Area {
    /// In the order in which they are told.
    pub const ALL: [Area; 7] = [
        Area::Node,
        Area::Configuration,
        Area::Source,
        Area::Target,
        Area::Broker,
        Area::Ledger,
        Area::Workers,
    ];

    /// Over its findings.
    pub fn title(self) -> &'static str {
        match self {
            Area::Node => "This node",
            Area::Configuration => "Configuration",
            Area::Source => "SRC",
            Area::Target => "DST",
            Area::Broker => "Broker (RabbitMQ)",
            Area::Ledger => "Ledger (Redis)",
            Area::Workers => "Workers",
        }
    }

    /// In JSON.
    pub fn name(self) -> &'static str {
        match self {
            Area::Node => "node",
            Area::Configuration => "configuration",
            Area::Source => "src",
            Area::Target => "dst",
            Area::Broker => "broker",
            Area::Ledger => "ledger",
            Area::Workers => "workers",
        }
    }
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, and is not what a whole or a fast copy needs.
    Warning,
    /// Does not work.
    Problem,
}

impl Severity {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Problem => "problem",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// About what.
    pub area: Area,
    /// A word for it that stays, for scripts.
    pub check: &'static str,
    /// How grave it is.
    pub severity: Severity,
    /// What was found.
    pub text: String,
    /// What to do; empty if nothing.
    pub advice: String,
    /// How the program ends for its sake.
    pub exit: Exit,
}

impl Finding {
    /// As it should be.
    pub fn ok(area: Area, check: &'static str, text: impl Into<String>) -> Finding {
        let (text, advice) = (text.into(), String::new());
        Finding { area, check, severity: Severity::Ok, text, advice, exit: Exit::Done }
    }

    /// Works, with a loss.
    pub fn warning(
        area: Area,
        check: &'static str,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        let (text, advice) = (text.into(), advice.into());
        Finding { area, check, severity: Severity::Warning, text, advice, exit: Exit::Done }
    }

    /// Does not work.
    pub fn problem(
        area: Area,
        check: &'static str,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        let (text, advice) = (text.into(), advice.into());
        Finding { area, check, severity: Severity::Problem, text, advice, exit: Exit::Failures }
    }

    /// Does not work, and has an exit code of its own.
    pub fn ends_with(self, exit: Exit) -> Finding {
        Finding { exit, ..self }
    }
}

/// How the program ends: as its gravest finding says.
pub fn exit_of(findings: &[Finding]) -> Exit {
    let has = |e: &Exit| findings.iter().any(|f| f.exit == *e);
    [Exit::Usage, Exit::Unusable, Exit::Unreachable, Exit::Failures]
        .into_iter()
        .find(has)
        .unwrap_or(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_problem_is_the_exit_code_and_warnings_are_none() {
        let ok = Finding::ok(Area::Node, "a", "");
        let warning = Finding::warning(Area::Node, "b", "", "");
        let problem = |e| Finding::problem(Area::Node, "c", "", "").ends_with(e);
        assert_eq!(exit_of(&[]), Exit::Done);
        assert_eq!(exit_of(&[ok, warning.clone()]), Exit::Done);
        assert_eq!(exit_of(&[warning, Finding::problem(Area::Broker, "d", "", "")]), Exit::Failures);
        assert_eq!(exit_of(&[problem(Exit::Failures), problem(Exit::Unreachable)]), Exit::Unreachable);
        assert_eq!(exit_of(&[problem(Exit::Unreachable), problem(Exit::Unusable)]), Exit::Unusable);
        assert_eq!(exit_of(&[problem(Exit::Unusable), problem(Exit::Usage)]), Exit::Usage);
    }
}
