//! The addresses of the three servers: from the environment, or of servers started here.

use anyhow::{Result, bail};

use crate::Stack;

/// Environment variable with MySQL's URL.
pub const MYSQL_ENV: &str = "TANDEM_MYSQL_URL";
/// Environment variable with Kafka's bootstrap servers.
pub const KAFKA_ENV: &str = "TANDEM_KAFKA_BROKERS";
/// Environment variable with Cassandra's contact points.
pub const CASSANDRA_ENV: &str = "TANDEM_CASSANDRA_NODES";

/// Addresses of the three servers.
#[derive(Debug)]
pub struct Endpoints {
    /// `mysql://user:password@host:port`.
    pub mysql_url: String,
    /// `host:port`, several separated by commas.
    pub kafka_brokers: String,
    /// `host:port`, several separated by commas.
    pub cassandra_nodes: String,
    /// The instance, if this crate started the servers.
    pub stack: Option<Stack>,
}

impl Endpoints {
    /// The servers that the environment names. If it names none, starts instance `name` if it is not running.
    ///
    /// # Errors
    /// If the environment names some of the three but not all, or the instance does not start.
    pub fn from_env_or_up(name: &str) -> Result<Self> {
        match Self::from_env()? {
            Some(given) => Ok(given),
            None => Ok(Self::of(Stack::up(name)?)),
        }
    }

    /// The servers that the environment names; `None` if it names none.
    ///
    /// # Errors
    /// If it names some of the three but not all.
    pub fn from_env() -> Result<Option<Self>> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let set = |name| get(name).filter(|value| !value.trim().is_empty());
        match (set(MYSQL_ENV), set(KAFKA_ENV), set(CASSANDRA_ENV)) {
            (Some(mysql_url), Some(kafka_brokers), Some(cassandra_nodes)) => {
                Ok(Some(Self { mysql_url, kafka_brokers, cassandra_nodes, stack: None }))
            }
            (None, None, None) => Ok(None),
            _ => {
                let all = [MYSQL_ENV, KAFKA_ENV, CASSANDRA_ENV];
                let (there, missing): (Vec<&str>, Vec<&str>) = all.iter().partition(|n| set(n).is_some());
                bail!(
                    "{} set, but not {}: set all three to use your own servers, or none to have them started",
                    there.join(" and "),
                    missing.join(" and ")
                )
            }
        }
    }

    /// The addresses of an instance.
    pub fn of(stack: Stack) -> Self {
        Self {
            mysql_url: stack.mysql.url(),
            kafka_brokers: stack.kafka.brokers(),
            cassandra_nodes: stack.cassandra.node(),
            stack: Some(stack),
        }
    }

    /// The environment variables that name these servers, with their values.
    pub fn env(&self) -> [(&'static str, &str); 3] {
        [
            (MYSQL_ENV, &self.mysql_url),
            (KAFKA_ENV, &self.kafka_brokers),
            (CASSANDRA_ENV, &self.cassandra_nodes),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_none() {
        assert!(Endpoints::from_lookup(|_| None).unwrap().is_none());
        assert!(Endpoints::from_lookup(|_| Some(" ".to_owned())).unwrap().is_none());
        let given = Endpoints::from_lookup(|name| Some(format!("value of {name}"))).unwrap().unwrap();
        assert_eq!(given.kafka_brokers, "value of TANDEM_KAFKA_BROKERS");
        assert!(given.stack.is_none());
    }

    #[test]
    fn some_is_an_error_that_names_what_is_missing() {
        let get = |name: &str| (name != KAFKA_ENV).then(|| "x".to_owned());
        let error = Endpoints::from_lookup(get).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "TANDEM_MYSQL_URL and TANDEM_CASSANDRA_NODES set, but not TANDEM_KAFKA_BROKERS:"
            ),
            "{error}"
        );
    }
}
