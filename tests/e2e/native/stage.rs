//! A table with two targets, the log, and gateways that write it natively.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rand::seq::SliceRandom as _;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tandem_cassandra::{CassandraConfig, Target, TokenRange};
use tandem_kafka::{Admin, Cleanup, KafkaConfig, Producer, SchemaStore, TopicSpec, read_all};
use tandem_mapping::{TablePlan, TargetConfig, create_table, differences, fold, same_shape};
use tandem_model::{
    Change, ColumnDef, Epoch, Mutation, Nonce, Row, TableDef, TableName, Value, Version, Write,
};
use tandem_native_writes::{
    Decision, HeldLease, NativeConfig, NativeParts, NativeTable, NativeWriteError, NativeWrites, Outcome,
    Request, create_tables,
};
use tandem_wire::Image;
use tandem_wire::control::{GuardRecord, decode_control};
use tandem_wire::log::ChangeTopic;
use tokio::time::Instant;

use crate::support::{brokers, nodes, unique_id};

/// No native version is below it.
pub(crate) const FLOOR: Version = Version(1_700_000_000_000_000);

/// How long a request may take here. The servers share the machine with other tests.
const DEADLINE: Duration = Duration::from_mins(1);

pub(crate) struct Stage {
    cassandra: CassandraConfig,
    pub(crate) kafka: KafkaConfig,
    pub(crate) plan: Arc<TablePlan>,
    topic: ChangeTopic,
    pub(crate) schemas: SchemaStore,
    pub(crate) target: Target,
    session: Session,
}

/// A gateway: a session, a producer and a lease of its own.
pub(crate) struct Gateway {
    pub(crate) writes: NativeWrites,
    pub(crate) lease: Arc<HeldLease>,
    pub(crate) table: TableName,
}

/// A guard as it stands in Cassandra.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) version: i64,
    pub(crate) image: Option<Row>,
    pub(crate) is_tentative: bool,
    pub(crate) done: Option<i64>,
}

/// `t(id BIGINT PRIMARY KEY, k INT NOT NULL, a VARCHAR, n BIGINT NOT NULL)`, in Cassandra by `id` and by `k`.
fn plan(database: &str) -> anyhow::Result<Arc<TablePlan>> {
    let column = |name: &str, ty: &str, nullable| {
        Ok::<_, anyhow::Error>(ColumnDef { name: name.into(), ty: ty.parse()?, nullable })
    };
    let table = TableDef {
        name: TableName::new(database, "t"),
        columns: vec![
            column("id", "bigint", false)?,
            column("k", "int", false)?,
            column("a", "varchar(20)", true)?,
            column("n", "bigint", false)?,
        ],
        primary_key: vec![0],
    };
    let mut config = same_shape(&table);
    config.target.push(TargetConfig {
        table: "by_k".into(),
        partition_key: vec!["k".into()],
        clustering_key: vec!["id".into()],
        ..TargetConfig::default()
    });
    Ok(Arc::new(TablePlan::compile(&config, &Arc::new(table))?))
}

pub(crate) fn row(id: i64, k: i64, a: Option<&str>, n: i64) -> Row {
    vec![Value::Int(id), Value::Int(k), a.map_or(Value::Null, |a| Value::Text(a.into())), Value::Int(n)]
}

/// The value of `n`.
pub(crate) fn n_of(row: &Row) -> i64 {
    match row[3] {
        Value::Int(n) => n,
        _ => panic!("n is a BIGINT"),
    }
}

/// A request with a nonce of its own.
pub(crate) fn request() -> Request {
    again(Nonce(rand::random()))
}

/// A request, or its retry.
pub(crate) fn again(nonce: Nonce) -> Request {
    Request { nonce, deadline: Instant::now() + DEADLINE }
}

/// Adds one to `n`, moves the row to another `k` and changes whether `a` is NULL. A row that is absent is refused.
pub(crate) fn increment(row: Option<&Row>) -> Decision<&'static str> {
    let Some(row) = row else { return Decision::Refuse("absent") };
    let n = n_of(row) + 1;
    let a = if n % 2 == 0 { Value::Null } else { Value::Text(format!("at {n}")) };
    Decision::Become(Some(vec![row[0].clone(), Value::Int(n % 3), a, Value::Int(n)]))
}

impl Stage {
    pub(crate) async fn new(test: &str) -> anyhow::Result<Self> {
        let name = format!("native_{test}_{}", unique_id());
        let mut cassandra = CassandraConfig::new(nodes(), &name);
        cassandra.replication_factor = Some(1);
        let target = Target::connect(&cassandra).await?;
        target.create_keyspace().await?;
        let plan = plan(&name)?;
        for table in plan.targets() {
            target.execute_ddl(&create_table(target.keyspace(), table.table(), 864_000)).await?;
        }
        target.prepare(&plan.targets().iter().map(|t| t.table().clone()).collect::<Vec<_>>()).await?;
        let kafka = KafkaConfig::new(brokers(), name.replace('_', "-"));
        let topics = kafka.topics();
        let topic = topics.changes(&plan.source().name);
        let spec = TopicSpec { name: topic.clone(), partitions: 2, cleanup: Cleanup::KeepAll };
        Admin::connect(&kafka).await?.ensure_topics(&[spec]).await?;
        let schema = Arc::new(topics.schema(Arc::clone(plan.source())));
        let topic = ChangeTopic::new(topic, 2, schema);
        let session = SessionBuilder::new().known_nodes(nodes()).build().await?;
        session.use_keyspace(&name, true).await?;
        let schemas = SchemaStore::open(&kafka).await?;
        Ok(Self { cassandra, kafka, plan, topic, schemas, target, session })
    }

    /// A gateway in an epoch, whose tables are created if they do not exist.
    pub(crate) async fn gateway(&self, epoch: u32) -> anyhow::Result<Gateway> {
        self.gateway_over(epoch, nodes()).await
    }

    /// A gateway whose Cassandra is reached at these addresses.
    pub(crate) async fn gateway_over(&self, epoch: u32, nodes: Vec<String>) -> anyhow::Result<Gateway> {
        let epoch = Epoch(epoch);
        create_tables(&self.target, epoch, Duration::from_hours(1)).await?;
        let target = Target::connect(&CassandraConfig { nodes, ..self.cassandra.clone() }).await?;
        target.prepare(&self.plan.targets().iter().map(|t| t.table().clone()).collect::<Vec<_>>()).await?;
        let lease = Arc::new(HeldLease::default());
        let parts = NativeParts {
            epoch,
            floor: FLOOR,
            target,
            producer: Producer::start(&self.kafka).await?,
            schemas: self.schemas.clone(),
            tables: vec![NativeTable::new(Arc::clone(&self.plan), self.topic.clone())?],
            lease: Arc::clone(&lease),
            config: NativeConfig { remember: 2 * DEADLINE, patience: Duration::from_millis(40) },
        };
        let writes = NativeWrites::start(parts).await?;
        let gateway = Gateway { writes, lease, table: self.plan.source().name.clone() };
        gateway.renew();
        Ok(gateway)
    }

    /// Writes rows below the floor, as apply did before the switch.
    pub(crate) async fn base(&self, rows: &[Row]) -> anyhow::Result<()> {
        let version = Version(FLOOR.0 - 1);
        let mut mutations = Vec::new();
        for row in rows {
            for expected in self.plan.expected(row)? {
                mutations.push(Mutation {
                    target: self.plan.targets()[expected.target].table().name.as_str().into(),
                    key: expected.key,
                    version,
                    write: Write::Upsert(expected.cells),
                });
            }
        }
        Ok(self.target.write(mutations).await?)
    }

    /// The log of the table, partition by partition.
    pub(crate) async fn log(&self) -> anyhow::Result<Vec<Change>> {
        let mut changes = Vec::new();
        for record in read_all(&self.kafka, self.topic.topic()).await? {
            let value = record.value.expect("a native write has a value");
            let change = self.schemas.get(tandem_wire::schema_id(&value)?).await?.decode(&value)?;
            assert_eq!(record.version, Some(change.version), "the header has the version");
            changes.push(change);
        }
        Ok(changes)
    }

    /// The records of one row, in their order.
    pub(crate) async fn log_of(&self, id: i64) -> anyhow::Result<Vec<Change>> {
        Ok(self.log().await?.into_iter().filter(|change| change.image()[0] == Value::Int(id)).collect())
    }

    /// The guards of an epoch by the row's id, read past the product.
    pub(crate) async fn guards(&self, epoch: u32) -> anyhow::Result<BTreeMap<i64, Stored>> {
        let marks = self.session.query_unpaged(format!("SELECT key, version FROM tandem_done_{epoch}"), ());
        let marks = marks.await?.into_rows_result()?;
        let marks: BTreeMap<Vec<u8>, i64> = marks.rows::<(Vec<u8>, i64)>()?.collect::<Result<_, _>>()?;
        let text = format!("SELECT key, version, guard FROM tandem_guards_{epoch}");
        let found = self.session.query_unpaged(text, ()).await?.into_rows_result()?;
        let mut guards = BTreeMap::new();
        for guard in found.rows::<(Vec<u8>, i64, Vec<u8>)>()? {
            let (key, version, record) = guard?;
            let record: GuardRecord = decode_control(&record)?;
            assert_eq!(record.version, version);
            let row = |row: &Vec<u8>| Image { key: &[], row }.decode(self.plan.source());
            let image = record.image.as_ref().map(row).transpose()?;
            // An Avro long of one key column.
            let id = key.iter().rev().fold(0_u64, |id, byte| id << 7 | u64::from(byte & 0x7f));
            let id = (id >> 1) as i64 ^ -((id & 1) as i64);
            let done = marks.get(&key).copied();
            guards.insert(id, Stored { version, image, is_tentative: record.tentative.is_some(), done });
        }
        Ok(guards)
    }

    /// How many batches of an epoch have a row.
    pub(crate) async fn batches(&self, epoch: u32) -> anyhow::Result<usize> {
        let text = format!("SELECT state FROM tandem_batches_{epoch}");
        let found = self.session.query_unpaged(text, ()).await?.into_rows_result()?;
        Ok(found.rows_num())
    }

    /// The row in the base target.
    pub(crate) async fn stored(&self, id: i64) -> anyhow::Result<Option<Row>> {
        let key = self.plan.key_by_primary_key(0, &[Value::Int(id)])?;
        let stored = self.target.read("t", std::slice::from_ref(&key)).await?.pop().flatten();
        Ok(stored.map(|stored| self.plan.row(0, &key, &stored)).transpose()?)
    }

    /// Fails unless every write is complete, and targets, guards and the newest records of the log hold the same. A row
    /// without a guard has no cell of the epoch.
    pub(crate) async fn assert_at_rest(&self, epoch: u32) -> anyhow::Result<()> {
        let guards = self.guards(epoch).await?;
        let log = self.log().await?;
        let mut expected_rows = BTreeMap::new();
        for (id, guard) in &guards {
            anyhow::ensure!(!guard.is_tentative, "the guard of {id} belongs to a batch");
            anyhow::ensure!(guard.done == Some(guard.version), "the write of {id} is not done: {guard:?}");
            let of_row = log.iter().filter(|change| change.image()[0] == Value::Int(*id));
            if let Some(newest) = of_row.max_by_key(|change| change.version) {
                anyhow::ensure!(newest.version.0 == guard.version, "{id}: the log ends with {newest:?}");
                anyhow::ensure!(newest.after == guard.image, "{id}: the log ends with {newest:?}");
            } else {
                anyhow::ensure!(guard.image.is_none(), "the log has no record of {id}");
            }
            for expected in guard.image.as_ref().map_or(Ok(Vec::new()), |row| self.plan.expected(row))? {
                expected_rows.insert((expected.target, expected.key), expected.cells);
            }
        }
        for (number, target) in self.plan.targets().iter().enumerate() {
            let name = &target.table().name;
            let mut scan = self.target.scan_keys(name, TokenRange::WHOLE)?;
            while let Some(keys) = scan.next_page().await? {
                let rows = self.target.read(name, &keys).await?;
                for (key, stored) in keys.into_iter().zip(rows) {
                    let is_guarded = match self.plan.source_key(number, &key)?[..] {
                        [Value::Int(id)] => guards.contains_key(&id),
                        _ => anyhow::bail!("{name} at {key:?} has another key"),
                    };
                    let below = |at: &Option<i64>| at.is_none_or(|at| at < FLOOR.0);
                    let is_old = stored.as_ref().is_some_and(|row| row.writetimes.iter().all(below));
                    if !is_guarded && is_old {
                        continue;
                    }
                    let expected = expected_rows.remove(&(number, key.clone()));
                    let difference = differences(expected.as_deref(), stored.as_ref());
                    anyhow::ensure!(difference.is_none(), "{name} at {key:?}: {difference:?}");
                }
            }
        }
        anyhow::ensure!(expected_rows.is_empty(), "rows are missing: {:?}", expected_rows.keys());
        Ok(())
    }

    /// Writes what apply makes of the log, every record twice and in a random order.
    pub(crate) async fn replay(&self) -> anyhow::Result<()> {
        let mut changes = self.log().await?;
        changes.extend_from_within(..);
        changes.shuffle(&mut rand::rng());
        for batch in changes.chunks(7) {
            let mut mutations = Vec::new();
            for change in batch {
                self.plan.mutations(change, &mut mutations)?;
            }
            self.target.write(fold(mutations)).await?;
        }
        Ok(())
    }

    pub(crate) async fn drop(self) -> anyhow::Result<()> {
        Ok(self.target.execute_ddl(&format!("DROP KEYSPACE \"{}\"", self.target.keyspace())).await?)
    }
}

impl Gateway {
    /// Renews the lease for an hour.
    pub(crate) fn renew(&self) {
        self.lease.renew(tandem_runtime::boot_us(), Duration::from_hours(1));
    }

    /// Ends the lease.
    pub(crate) fn lapse(&self) {
        self.lease.renew(0, Duration::ZERO);
    }

    pub(crate) async fn write<R>(
        &self,
        id: i64,
        request: Request,
        decide: impl FnMut(Option<&Row>) -> Decision<R>,
    ) -> Result<Outcome<R>, NativeWriteError> {
        self.writes.write(&self.table, &[Value::Int(id)], request, decide).await
    }

    pub(crate) async fn batch<R>(
        &self,
        ids: &[i64],
        request: Request,
        decide: impl FnMut(usize, Option<&Row>) -> Decision<R>,
    ) -> Result<Outcome<R>, NativeWriteError> {
        let rows: Vec<_> = ids.iter().map(|id| (self.table.clone(), vec![Value::Int(*id)])).collect();
        self.writes.write_batch(&rows, request, decide).await
    }

    /// Writes a row whatever was before. `None` deletes it.
    pub(crate) async fn put(&self, id: i64, image: Option<Row>) -> anyhow::Result<()> {
        let outcome = self.write(id, request(), |_| Decision::<()>::Become(image.clone())).await?;
        anyhow::ensure!(matches!(outcome, Outcome::Written { replayed: false, .. }), "{outcome:?}");
        Ok(())
    }
}

/// Polls a future until it has waited `waits` times, then drops it. `None` if it was dropped before its end.
pub(crate) async fn stopped_after<F: Future>(waits: usize, future: F) -> Option<F::Output> {
    paused_after(waits, pin!(future)).await
}

/// Polls a future until it has waited `waits` times. `None` if it has not ended by then.
pub(crate) async fn paused_after<F: Future>(waits: usize, mut future: Pin<&mut F>) -> Option<F::Output> {
    let mut waited = 0;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => {
            waited += 1;
            if waited >= waits { Poll::Ready(None) } else { Poll::Pending }
        }
    })
    .await
}
