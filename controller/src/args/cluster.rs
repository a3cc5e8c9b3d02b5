//! Where broker and ledger are.

use super::UsageError;
use std::time::Duration;
use treeferry_core::config::Config;
use treeferry_queue::Site;

// not a doc comment: clap would take it for the manual of the command that includes these options
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct Cluster {
    /// Use the cluster whose RabbitMQ is at URL (amqp:// or amqps://)
    ///
    /// A password in it can be seen by everybody on this machine: better have it in the configuration file or in
    /// the environment. Default: the configuration's `broker`.
    #[arg(long, value_name = "URL", env = "TREEFERRY_BROKER", hide_env_values = true)]
    broker: Option<String>,
    /// Use the cluster whose Redis is at URL (redis:// or rediss://)
    ///
    /// As for --broker. Default: the configuration's `ledger`.
    #[arg(long, value_name = "URL", env = "TREEFERRY_LEDGER", hide_env_values = true)]
    ledger: Option<String>,
}

impl Cluster {
    /// The cluster, if one is configured.
    pub fn site(&self, config: &Config) -> Result<Option<Site>, UsageError> {
        let given = |option: &Option<String>, configured: &Option<String>| {
            option.clone().or_else(|| configured.clone()).filter(|url| !url.is_empty())
        };
        let (broker, ledger) =
            (given(&self.broker, &config.cluster.broker), given(&self.ledger, &config.cluster.ledger));
        let (broker, ledger) = match (broker, ledger) {
            (None, None) => return Ok(None),
            (Some(b), Some(l)) => (b, l),
            (Some(_), None) => return Err(UsageError::HalfCluster("--ledger")),
            (None, Some(_)) => return Err(UsageError::HalfCluster("--broker")),
        };
        check("--broker", &broker, &["amqp://", "amqps://"])?;
        check("--ledger", &ledger, &["redis://", "rediss://"])?;
        let site = Site::new(broker, ledger);
        let given = config.cluster.acknowledge_after.map(Duration::from_secs);
        Ok(Some(Site { acknowledge_after: given.unwrap_or(site.acknowledge_after), ..site }))
    }
}

fn check(option: &'static str, url: &str, schemes: &'static [&'static str]) -> Result<(), UsageError> {
    match schemes.iter().any(|s| url.starts_with(s)) {
        true => Ok(()),
        // the URL itself is not shown: there may be a password in it
        false => Err(UsageError::Scheme { option, schemes }),
    }
}
