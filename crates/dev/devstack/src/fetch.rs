//! Downloads servers ahead of their start, for example during a build.

use anyhow::Result;

use crate::ownership::at_once;
use crate::{Cache, apicurio, cassandra, debezium, kafka, mysql, tools};

/// A server that is downloaded once and kept in the cache folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    /// From Debian packages.
    Mysql,
    /// From Maven artifacts.
    Kafka,
    /// From Maven artifacts.
    Cassandra,
    /// From Maven artifacts.
    Debezium,
    /// From a Maven artifact.
    Apicurio,
}

/// Makes sure that these are in the cache folder, and that the machine has the Java that they need. Downloads
/// run in parallel.
///
/// # Errors
/// If a download fails, or a tool is missing and this process cannot install it. One error lists all
/// failures.
pub fn fetch(packages: &[Package]) -> Result<()> {
    let cache = Cache::from_env()?;
    at_once(packages.iter().map(|package| || package.ensure(&cache)))
}

impl Package {
    fn ensure(self, cache: &Cache) -> Result<()> {
        match self {
            Self::Mysql => mysql::ensure(cache).map(drop),
            Self::Kafka => kafka::ensure(cache).map(drop),
            Self::Cassandra => cassandra::ensure(cache).map(drop),
            Self::Debezium => debezium::ensure(cache).map(drop),
            Self::Apicurio => apicurio::ensure(cache).map(drop),
        }?;
        match self {
            Self::Mysql => Ok(()),
            Self::Kafka | Self::Cassandra | Self::Debezium => tools::java17().map(drop),
            Self::Apicurio => tools::java21(cache).map(drop),
        }
    }
}
