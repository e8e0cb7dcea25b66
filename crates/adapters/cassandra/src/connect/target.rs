//! The session with the cluster.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::statement::prepared::PreparedStatement;
use tokio::sync::Semaphore;

use crate::connect::config::{CassandraConfig, Consistency};
use crate::error::{ConnectError, Failure};
use crate::retry::Outage;
use crate::statement::prepared::PreparedTable;

const MURMUR3: &str = "org.apache.cassandra.dht.Murmur3Partitioner";
const DEFAULT_PORT: u16 = 9042;

/// A session with the cluster and the prepared statements of the target tables. Clones share both, and the
/// limits on concurrent requests.
#[derive(Clone)]
pub struct Target {
    inner: Arc<Inner>,
}

struct Inner {
    session: Session,
    keyspace: String,
    replication_factor: u32,
    consistency: Consistency,
    request_timeout: Duration,
    datacenter: String,
    tables: Tables,
    slices: Statements,
    writes: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    outage: Outage,
}

/// Prepared tables by name.
#[derive(Debug, Default)]
pub(crate) struct Tables(RwLock<HashMap<Arc<str>, Arc<PreparedTable>>>);

impl Tables {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<PreparedTable>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn insert(&self, name: Arc<str>, table: Arc<PreparedTable>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, table);
    }
}

/// Statements that are prepared at first use, by their text. There are a few for each table.
#[derive(Debug, Default)]
pub(crate) struct Statements(RwLock<HashMap<String, Arc<PreparedStatement>>>);

impl Statements {
    pub(crate) fn get(&self, text: &str) -> Option<Arc<PreparedStatement>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(text).cloned()
    }

    pub(crate) fn insert(&self, text: String, statement: Arc<PreparedStatement>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(text, statement);
    }
}

impl Target {
    /// Connects to the first contact point that answers and discovers the cluster from it. The keyspace need
    /// not exist yet.
    ///
    /// # Errors
    /// The configuration is invalid, the cluster refuses the credentials, or no node answers within the
    /// request timeout times the number of contact points plus one.
    pub async fn connect(config: &CassandraConfig) -> Result<Self, ConnectError> {
        check(config)?;
        let profile = ExecutionProfile::builder()
            .consistency(config.consistency.driver())
            .request_timeout(Some(config.request_timeout))
            .build();
        let mut handle = profile.into_handle();
        let mut builder = SessionBuilder::new()
            .known_nodes(&config.nodes)
            .keyspaces_to_fetch([&config.keyspace])
            .fetch_full_schema_metadata(false)
            .connection_timeout(config.request_timeout)
            .hostname_resolution_timeout(Some(config.request_timeout))
            .default_execution_profile_handle(handle.clone());
        if let Some(user) = &config.user {
            builder = builder.user(user, config.password.as_deref().unwrap_or_default());
        }
        let limit = config.request_timeout.saturating_mul(config.nodes.len() as u32 + 1);
        let session = tokio::time::timeout(limit, builder.build())
            .await
            .map_err(|_| ConnectError::Unreachable {
                nodes: config.nodes.clone(),
                cause: format!("no answer within {} s", limit.as_secs_f32()),
            })?
            .map_err(|e| ConnectError::new_session(&e, &config.nodes))?;
        check_partitioner(&session, config).await?;
        let datacenter = local_datacenter(&session, &config.nodes[0]).await?;
        let replication_factor =
            config.replication_factor.unwrap_or_else(|| default_replication(&session, &datacenter));
        let policy = DefaultPolicy::builder().prefer_datacenter(datacenter.clone()).token_aware(true).build();
        handle.map_to_another_profile(handle.pointee_to_builder().load_balancing_policy(policy).build());
        Ok(Self {
            inner: Arc::new(Inner {
                session,
                keyspace: config.keyspace.clone(),
                replication_factor,
                consistency: config.consistency,
                request_timeout: config.request_timeout,
                datacenter,
                tables: Tables::default(),
                slices: Statements::default(),
                writes: Arc::new(Semaphore::new(config.max_in_flight)),
                reads: Arc::new(Semaphore::new(config.max_in_flight)),
                outage: Outage::reporting_to(&config.waits),
            }),
        })
    }

    /// The keyspace of all target tables.
    pub fn keyspace(&self) -> &str {
        &self.inner.keyspace
    }

    pub(crate) fn session(&self) -> &Session {
        &self.inner.session
    }

    pub(crate) fn datacenter(&self) -> &str {
        &self.inner.datacenter
    }

    /// The replication factor of a keyspace that Tandem creates.
    pub fn replication_factor(&self) -> u32 {
        self.inner.replication_factor
    }

    /// The consistency level of its reads and writes.
    pub fn consistency(&self) -> Consistency {
        self.inner.consistency
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.inner.tables
    }

    pub(crate) fn slices(&self) -> &Statements {
        &self.inner.slices
    }

    pub(crate) fn writes(&self) -> &Arc<Semaphore> {
        &self.inner.writes
    }

    pub(crate) fn reads(&self) -> &Arc<Semaphore> {
        &self.inner.reads
    }

    pub(crate) fn outage(&self) -> &Outage {
        &self.inner.outage
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.inner.request_timeout
    }

    /// How long every request but a write is retried.
    pub(crate) fn retry_timeout(&self) -> Duration {
        self.inner.request_timeout * 5
    }
}

/// Checks settings that would otherwise fail later or never. A keyspace name follows CQL's grammar and has at
/// most 48 characters.
fn check(config: &CassandraConfig) -> Result<(), ConnectError> {
    let fault = |text: &str| Err(ConnectError::Config(text.to_owned()));
    let keyspace = &config.keyspace;
    if config.nodes.is_empty() {
        return fault("`nodes` is empty; name at least one node");
    }
    if keyspace.is_empty()
        || keyspace.len() > 48
        || !keyspace.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    {
        return fault("`keyspace` must have 1 to 48 letters, digits or underscores");
    }
    if config.replication_factor == Some(0) || config.max_in_flight == 0 || config.request_timeout.is_zero() {
        return fault("`replication_factor`, `max_in_flight` and `request_timeout` must be above 0");
    }
    Ok(())
}

async fn check_partitioner(session: &Session, config: &CassandraConfig) -> Result<(), ConnectError> {
    let unreachable = |cause: String| ConnectError::Unreachable { nodes: config.nodes.clone(), cause };
    let rows = session
        .query_unpaged("SELECT partitioner FROM system.local", ())
        .await
        .map_err(|e| match Failure::from(&e) {
            Failure::Transient(cause) => unreachable(cause),
            Failure::Permanent(rejection) => ConnectError::Authentication { cause: rejection.to_string() },
        })?
        .into_rows_result()
        .map_err(|e| unreachable(e.to_string()))?;
    let (partitioner,) = rows.single_row::<(String,)>().map_err(|e| unreachable(e.to_string()))?;
    if partitioner == MURMUR3 { Ok(()) } else { Err(ConnectError::Partitioner { partitioner }) }
}

/// Returns the data centre of the first contact point. All reads and writes must use the same data centre, or
/// local quorums would not overlap.
async fn local_datacenter(session: &Session, first: &str) -> Result<String, ConnectError> {
    let state = session.get_cluster_state();
    let nodes: Vec<(SocketAddr, String)> = state
        .get_nodes_info()
        .iter()
        .filter_map(|n| Some((SocketAddr::new(n.address.ip(), n.address.port()), n.datacenter.clone()?)))
        .collect();
    let addresses: Vec<SocketAddr> = if let Ok(found) = tokio::net::lookup_host(first).await {
        found.collect()
    } else {
        tokio::net::lookup_host((first, DEFAULT_PORT)).await.map(Iterator::collect).unwrap_or_default()
    };
    choose_datacenter(&nodes, &addresses)
}

/// The default replication factor: 3, or the number of nodes if there are fewer.
fn default_replication(session: &Session, datacenter: &str) -> u32 {
    let state = session.get_cluster_state();
    let nodes = state.get_nodes_info().iter().filter(|n| n.datacenter.as_deref() == Some(datacenter));
    (nodes.count() as u32).clamp(1, 3)
}

fn choose_datacenter(nodes: &[(SocketAddr, String)], first: &[SocketAddr]) -> Result<String, ConnectError> {
    let all: BTreeSet<&String> = nodes.iter().map(|(_, dc)| dc).collect();
    let mut local = nodes.iter().filter(|(address, _)| first.contains(address)).map(|(_, dc)| dc);
    match (all.len(), all.first(), local.next()) {
        (1, Some(only), _) => Ok((*only).clone()),
        (_, _, Some(dc)) => Ok(dc.clone()),
        _ => Err(ConnectError::Datacenter { datacenters: all.into_iter().cloned().collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(address: &str, dc: &str) -> (SocketAddr, String) {
        (address.parse().unwrap(), dc.to_owned())
    }

    #[test]
    fn the_local_data_centre_is_that_of_the_first_node() {
        let two = [node("10.0.0.1:9042", "a"), node("10.1.0.1:9042", "b")];
        assert_eq!(choose_datacenter(&two, &["10.1.0.1:9042".parse().unwrap()]).unwrap(), "b");
        let unknown = choose_datacenter(&two, &["127.0.0.1:9042".parse().unwrap()]);
        assert!(
            matches!(unknown, Err(ConnectError::Datacenter { datacenters }) if datacenters == ["a", "b"])
        );
        assert_eq!(choose_datacenter(&two[..1], &[]).unwrap(), "a");
    }

    #[test]
    fn invalid_keyspace_names_are_refused() {
        let with = |keyspace: &str| check(&CassandraConfig::new(vec!["n".into()], keyspace));
        assert!(with("Tandem_1").is_ok());
        for name in ["", "a-b", "a\"b", &"x".repeat(49)] {
            assert!(matches!(with(name), Err(ConnectError::Config(_))));
        }
        assert!(matches!(check(&CassandraConfig::new(vec![], "k")), Err(ConnectError::Config(_))));
    }
}
