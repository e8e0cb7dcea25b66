//! The connection configuration.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tandem_runtime::Waits;

/// How many replicas must answer. Tandem uses one level for reads and writes.
///
/// A check is sound only if write replicas + read replicas > replication factor. So `LocalOne` and `One`
/// require a replication factor of 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// A majority of the local data centre's replicas.
    #[default]
    LocalQuorum,
    /// A majority of all replicas.
    Quorum,
    /// One replica of the local data centre.
    LocalOne,
    /// One replica.
    One,
    /// Every replica.
    All,
}

impl Consistency {
    const ALL: [(Self, &'static str); 5] = [
        (Self::LocalQuorum, "local_quorum"),
        (Self::Quorum, "quorum"),
        (Self::LocalOne, "local_one"),
        (Self::One, "one"),
        (Self::All, "all"),
    ];

    /// Whether a read at this level sees each write that was acknowledged at it, whatever the replication factor.
    pub fn is_quorum(self) -> bool {
        match self {
            Self::LocalQuorum | Self::Quorum | Self::All => true,
            Self::LocalOne | Self::One => false,
        }
    }

    /// The level that orders a compare-and-set among others: within the data centre for levels that stay there.
    pub(crate) fn serial(self) -> scylla::statement::SerialConsistency {
        use scylla::statement::SerialConsistency as Driver;
        match self {
            Self::LocalQuorum | Self::LocalOne => Driver::LocalSerial,
            Self::Quorum | Self::One | Self::All => Driver::Serial,
        }
    }

    /// The level of a read that sees each compare-and-set of [`Self::serial`].
    pub(crate) fn serial_read(self) -> scylla::statement::Consistency {
        use scylla::statement::{Consistency as Driver, SerialConsistency};
        match self.serial() {
            SerialConsistency::LocalSerial => Driver::LocalSerial,
            SerialConsistency::Serial => Driver::Serial,
        }
    }

    pub(crate) fn driver(self) -> scylla::statement::Consistency {
        use scylla::statement::Consistency as Driver;
        match self {
            Self::LocalQuorum => Driver::LocalQuorum,
            Self::Quorum => Driver::Quorum,
            Self::LocalOne => Driver::LocalOne,
            Self::One => Driver::One,
            Self::All => Driver::All,
        }
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(c, _)| c == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Consistency {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.iter().find(|(_, name)| name.eq_ignore_ascii_case(s)).map(|(c, _)| *c).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(_, name)| *name).collect();
            format!("`{s}` is not a consistency level that Tandem uses: {}", names.join(", "))
        })
    }
}

/// The configuration of a [`crate::Target`].
#[derive(Clone, PartialEq, Eq)]
pub struct CassandraConfig {
    /// The contact points, `host` or `host:port`. The default port is 9042. The first one's data centre is
    /// the local one.
    pub nodes: Vec<String>,
    /// The keyspace of all target tables. Case-sensitive.
    pub keyspace: String,
    /// The user, if the cluster requires one.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// The consistency level of reads and writes.
    pub consistency: Consistency,
    /// The replication factor in the local data centre, if Tandem creates the keyspace. The default is 3, or
    /// the number of nodes in the data centre if there are fewer.
    pub replication_factor: Option<u32>,
    /// Limit for one request, including the driver's retries on other nodes.
    pub request_timeout: Duration,
    /// The most concurrent writes, and separately the most concurrent reads.
    pub max_in_flight: usize,
    /// Where an outage is shown.
    pub waits: Waits,
}

impl CassandraConfig {
    /// A configuration without a user, with local quorum, a request timeout of 10 seconds and 256 concurrent
    /// requests.
    pub fn new(nodes: Vec<String>, keyspace: impl Into<String>) -> Self {
        Self {
            nodes,
            keyspace: keyspace.into(),
            user: None,
            password: None,
            consistency: Consistency::default(),
            replication_factor: None,
            request_timeout: Duration::from_secs(10),
            max_in_flight: 256,
            waits: Waits::default(),
        }
    }
}

impl fmt::Debug for CassandraConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CassandraConfig")
            .field("nodes", &self.nodes)
            .field("keyspace", &self.keyspace)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("consistency", &self.consistency)
            .field("replication_factor", &self.replication_factor)
            .field("request_timeout", &self.request_timeout)
            .field("max_in_flight", &self.max_in_flight)
            .field("waits", &self.waits)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consistency_names() {
        for (level, name) in Consistency::ALL {
            assert_eq!(name.parse(), Ok(level));
            assert_eq!(level.to_string(), name);
        }
        assert_eq!("LOCAL_QUORUM".parse(), Ok(Consistency::LocalQuorum));
        assert!("any".parse::<Consistency>().is_err());
    }

    #[test]
    fn the_password_is_not_printed() {
        let mut config = CassandraConfig::new(vec!["node".into()], "ks");
        config.password = Some("hunter2".into());
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
