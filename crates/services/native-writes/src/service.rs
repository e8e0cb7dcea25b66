//! What the parts of this crate share: one epoch, its tables, and the clients of Cassandra and Kafka.

use std::sync::Arc;
use std::time::Duration;

use tandem_cassandra::{Freshness, Target};
use tandem_kafka::{Producer, SchemaStore};
use tandem_model::{Epoch, Nonce, Row, Value, Version};
use tandem_protocol::cutover::guard::{Guard, Known, Limits};
use tandem_runtime::{Backoff, now_us};
use tokio::time::Instant;

use crate::batches::Batches;
use crate::error::NativeWriteError;
use crate::guards::Guards;
use crate::key::GuardKey;
use crate::lease::HeldLease;
use crate::request::{Decision, Request};
use crate::tables::{NativeTable, Tables};

/// The settings of native writes.
#[derive(Debug, Clone)]
pub struct NativeConfig {
    /// How long a guard remembers a request. An attempt ends after half of this, if its deadline is later: the other half is
    /// for clocks that differ. All gateways have the same value.
    pub remember: Duration,
    /// How long one waits for the writer of an unfinished write before one finishes it.
    pub patience: Duration,
}

/// What native writes need.
pub struct NativeParts {
    /// The epoch. Its tables exist.
    pub epoch: Epoch,
    /// The epoch's floor.
    pub floor: Version,
    /// Cassandra, with the tables' targets prepared.
    pub target: Target,
    /// Publishes the records.
    pub producer: Producer,
    /// Where the tables' schemas are registered.
    pub schemas: SchemaStore,
    /// The tables.
    pub tables: Vec<NativeTable>,
    /// The lease.
    pub lease: Arc<HeldLease>,
    /// The settings.
    pub config: NativeConfig,
}

/// Makes native writes in one epoch. Clones share everything.
#[derive(Clone)]
pub struct NativeWrites {
    inner: Arc<Inner>,
}

struct Inner {
    epoch: Epoch,
    floor: Version,
    target: Target,
    producer: Producer,
    schemas: SchemaStore,
    tables: Tables,
    lease: Arc<HeldLease>,
    config: NativeConfig,
    guards: Guards,
    batches: Batches,
}

impl NativeWrites {
    /// Prepares native writes, and registers the schemas of their records.
    ///
    /// # Errors
    /// Cassandra's consistency level is below a quorum, a table of the epoch does not exist, or Cassandra or the schema store
    /// does not answer.
    pub async fn start(parts: NativeParts) -> Result<Self, NativeWriteError> {
        let NativeParts { epoch, floor, target, producer, schemas, tables, lease, config } = parts;
        if !target.consistency().is_quorum() {
            return Err(NativeWriteError::WeakConsistency { level: target.consistency().to_string() });
        }
        for table in &tables {
            schemas.register(table.topic.topic(), table.topic.schema()).await?;
        }
        let guards = Guards::open(&target, epoch).await?;
        let batches = Batches::open(&target, epoch).await?;
        let tables = Tables::new(tables);
        let inner = Inner { epoch, floor, target, producer, schemas, tables, lease, config, guards, batches };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.inner.epoch
    }

    pub(crate) fn target(&self) -> &Target {
        &self.inner.target
    }

    pub(crate) fn producer(&self) -> &Producer {
        &self.inner.producer
    }

    pub(crate) fn schemas(&self) -> &SchemaStore {
        &self.inner.schemas
    }

    pub(crate) fn guards(&self) -> &Guards {
        &self.inner.guards
    }

    pub(crate) fn batches(&self) -> &Batches {
        &self.inner.batches
    }

    pub(crate) fn patience(&self) -> Duration {
        self.inner.config.patience
    }

    pub(crate) fn lease(&self) -> &HeldLease {
        &self.inner.lease
    }

    pub(crate) fn table(&self, name: &str) -> Result<&NativeTable, NativeWriteError> {
        self.inner.tables.get(name)
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.inner.tables
    }

    /// When an attempt of a request ends that begins now.
    pub(crate) fn deadline(&self, request: Request) -> Instant {
        request.deadline.min(Instant::now() + self.inner.config.remember / 2)
    }

    pub(crate) fn limits(&self) -> Limits {
        let remember_us = self.inner.config.remember.as_micros() as i64;
        Limits { now_us: now_us(), floor: self.inner.floor, remember_us }
    }

    /// The row in the base target.
    pub(crate) async fn base_row(
        &self,
        table: &NativeTable,
        key: &[Value],
    ) -> Result<Option<Row>, NativeWriteError> {
        let target = table.plan.targets()[table.base].table();
        let key = table.plan.key_by_primary_key(table.base, key)?;
        let stored = self.target().read(&target.name, std::slice::from_ref(&key)).await?.pop().flatten();
        Ok(stored.map(|stored| table.plan.row(table.base, &key, &stored)).transpose()?)
    }

    /// Asks what a row becomes, given its guard.
    ///
    /// Without a guard, the row is the base target's. It may already be that of a write whose guard was set meanwhile, and
    /// whose other effects are not there yet. A CAS finds that out by itself. A refusal looks at the guard again: effects
    /// begin only after their CAS.
    pub(crate) async fn decided<R>(
        &self,
        table: &NativeTable,
        key: &[Value],
        guard_key: &GuardKey,
        guard: Option<&Guard>,
        mut decide: impl FnMut(Option<&Row>) -> Decision<R>,
    ) -> Result<Decided<R>, NativeWriteError> {
        let base = match guard {
            Some(_) => None,
            None => self.base_row(table, key).await?,
        };
        let known = guard.map_or(Known::Base(base.as_ref()), Known::Guard);
        let image = match decide(known.image()) {
            Decision::Become(image) => image,
            Decision::Refuse(refusal) => {
                let is_alone = guard.is_some()
                    || self.guards().read(table, guard_key, Freshness::Serial).await?.is_none();
                return Ok(if is_alone { Decided::Refused(refusal) } else { Decided::LookAgain });
            }
        };
        if image.as_ref().is_some_and(|row| !table.has_key(row, key)) {
            return Err(NativeWriteError::KeyChanged { table: table.name.clone() });
        }
        Ok(Decided::Becomes { base, image })
    }

    /// The guard of a key, and whether its write is done.
    pub(crate) async fn look(
        &self,
        table: &NativeTable,
        key: &GuardKey,
        freshness: Freshness,
    ) -> Result<(Option<Guard>, Option<Version>), NativeWriteError> {
        let guard = self.guards().read(table, key, freshness).await?;
        let done = match guard {
            Some(_) => self.guards().done(std::slice::from_ref(key)).await?.pop().flatten(),
            None => None,
        };
        Ok((guard, done))
    }
}

/// What a writer makes of a row.
pub(crate) enum Decided<R> {
    /// The row becomes `image`. `base` is the base target's row, if there is no guard.
    Becomes { base: Option<Row>, image: Option<Row> },
    /// The caller refuses.
    Refused(R),
    /// The caller refuses, but by a row that another write has changed meanwhile.
    LookAgain,
}

/// Whether a guard says that an attempt of this request has written, or may still.
pub(crate) fn names(guard: &Guard, request: Nonce) -> bool {
    guard.recent.iter().any(|accepted| accepted.nonce == request)
        || guard.tentative.as_ref().is_some_and(|tentative| tentative.request == request)
}

/// The pauses between attempts that another writer has beaten.
pub(crate) fn pauses() -> Backoff {
    Backoff::new(Duration::from_millis(10), Duration::from_millis(320))
}

/// A write that waits for the writer of an unfinished one before it.
#[derive(Debug, Default)]
pub(crate) struct Patience(Option<(Version, Instant)>);

impl Patience {
    /// Whether the write of this version has had its time.
    pub(crate) fn is_over(&mut self, version: Version, patience: Duration) -> bool {
        match self.0 {
            Some((met, since)) if met == version => since.elapsed() >= patience,
            _ => {
                self.0 = Some((version, Instant::now()));
                patience.is_zero()
            }
        }
    }
}
