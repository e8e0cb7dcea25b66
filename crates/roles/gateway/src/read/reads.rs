//! Reads from either store, with comparison and fallback.

use std::sync::Arc;
use std::time::Duration;

use tandem_cassandra::Target;
use tandem_dead_letters::DeadLetters;
use tandem_http_api::Problem;
use tandem_mapping::RowError;
use tandem_model::{CohortAttribute, Phase, PhaseRecord, Row, Value};
use tandem_mysql::{ClientPool, MysqlError};
use tandem_protocol::route::{ReadFacts, Reason, Route, route};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::circuit_breaker::CircuitBreaker;
use crate::entity::Entity;
use crate::entity::json::text_of;
use crate::metrics::{Metrics, ReadLabel, RoutedLabel};
use crate::phases::Phases;
use crate::problem;
use crate::read::compare::{Found, compare};
use crate::read::live::Live;
use crate::read::page::Page;
use crate::read::recheck::{Divergence, DivergenceSource, Rechecks};
use crate::write_tokens::{WriteToken, WriteTokens};

/// How long a comparison that no client waits for waits for the read's token.
const SHADOW_WAIT: Duration = Duration::from_secs(2);

/// The rows that a read asks for.
#[derive(Debug, Clone)]
pub(crate) enum Query {
    /// One row by the primary key.
    Key(Vec<Value>),
    /// A part of a partition.
    Page(Page),
}

/// A read with the attributes of its request.
#[derive(Clone)]
pub(crate) struct Read {
    pub(crate) entity: Arc<Entity>,
    pub(crate) query: Query,
    pub(crate) token: Option<WriteToken>,
    pub(crate) deadline: Instant,
}

/// The result of a read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) rows: Vec<Row>,
    /// `mysql` or `cassandra`.
    pub(crate) served_by: &'static str,
    pub(crate) fallback: Option<Reason>,
}

impl Query {
    /// `get` or `list`.
    fn operation(&self) -> &'static str {
        match self {
            Self::Key(_) => "get",
            Self::Page(_) => "list",
        }
    }
}

impl Read {
    /// The target that can serve the query.
    fn target(&self) -> Option<usize> {
        match &self.query {
            Query::Key(_) => self.entity.by_key,
            Query::Page(page) => Some(page.target),
        }
    }

    /// The value of a cohort attribute, except for those of headers.
    pub(crate) fn fact(&self, fact: &CohortAttribute) -> Option<String> {
        let table = self.entity.table();
        let text = |column: usize, value: &Value| text_of(&table.columns[column].ty, value);
        match (fact, &self.query) {
            (CohortAttribute::Key, Query::Key(key)) => Some(self.entity.key_text(key)),
            (CohortAttribute::Column(name), Query::Key(key)) => {
                let place = table.primary_key.iter().position(|&i| table.columns[i].name == *name)?;
                Some(text(table.primary_key[place], &key[place]))
            }
            (CohortAttribute::Column(name), Query::Page(page)) => page
                .facts(&self.entity)
                .find(|(column, _)| table.columns[*column].name == *name)
                .map(|(column, value)| text(column, value)),
            (CohortAttribute::Key, Query::Page(_)) | (CohortAttribute::Header(_), _) => None,
        }
    }

    /// How Cassandra's rows differ from MySQL's rows under the mapping's equality.
    fn compare(&self, rows: &[Row], found: &Found) -> Option<Divergence> {
        let target = self.target()?;
        // MySQL's row has no form in Cassandra: its change is a dead letter that is not known yet, or was discarded.
        if rows.iter().any(|row| self.entity.plan.expected(row).is_err()) {
            return Some(Divergence { reason: Reason::DeadLetter, suspects: Vec::new() });
        }
        // An unreadable row has no key to recheck.
        let unreadable = Some(Divergence { reason: Reason::Failed, suspects: Vec::new() });
        compare(&self.entity.plan, target, rows, found).unwrap_or(unreadable)
    }

    /// Whether Cassandra lacks the requested row.
    fn is_gone(&self, found: &Found) -> bool {
        matches!(self.query, Query::Key(_)) && found.is_empty()
    }

    fn by_cassandra(&self, found: Result<Found, Reason>) -> Result<Answer, Problem> {
        let unavailable = |why: &str| problem::unavailable("cassandra-unavailable", why);
        let found = found.map_err(|reason| {
            unavailable(&format!("Cassandra's answer is {reason}, and the fallback is disabled"))
        })?;
        let target = self.target().ok_or_else(|| problem::internal("no target can serve this query"))?;
        let rows = found.iter().map(|(key, stored)| self.entity.plan.row(target, key, stored));
        let rows: Result<Vec<Row>, RowError> = rows.collect();
        let rows = rows.map_err(|_| unavailable("a row in Cassandra cannot be read"))?;
        Ok(Answer { rows, served_by: "cassandra", fallback: None })
    }
}

/// Serves reads.
pub(crate) struct Reads {
    pub(crate) pool: ClientPool,
    pub(crate) target: Target,
    pub(crate) health: Arc<CircuitBreaker>,
    pub(crate) phases: Phases,
    pub(crate) write_tokens: WriteTokens,
    /// How long a read waits until its token is applied. It leaves half of the request's time to the stores.
    pub(crate) token_wait: Duration,
    pub(crate) letters: DeadLetters,
    pub(crate) live: Live,
    pub(crate) rechecks: Rechecks,
    pub(crate) metrics: Metrics,
    /// How long Cassandra may take before MySQL answers.
    pub(crate) cassandra_limit: Duration,
    /// The headers that cohorts can use, in lower case.
    pub(crate) cohort_headers: Vec<String>,
    /// Permits for the concurrent shadow reads.
    pub(crate) shadows: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
}

impl Reads {
    /// Serves a read from the store that the phase names. `headers` returns request headers by name. `admit` lets the read
    /// use the stores; a read that waits for its token uses none, and keeps nobody out.
    ///
    /// A read that the phase gives to Cassandra waits until its token is applied. Everything else that the route rests on
    /// is asked for after the wait, the phase too. Returns the phase record that the read has followed.
    pub(crate) async fn read(
        self: &Arc<Self>,
        read: Read,
        admit: impl FnOnce() -> Result<OwnedSemaphorePermit, Problem>,
        headers: impl Fn(&str) -> Option<String>,
    ) -> Result<(Arc<PhaseRecord>, Answer), Problem> {
        let has_target = read.target().is_some();
        let wait =
            has_target && self.is_live(&read) && self.is_cassandras(&self.phases.now(), &read, &headers);
        let patience = wait.then_some(self.token_wait);
        let applied = match &read.token {
            None => true,
            Some(token) => {
                let now = Instant::now();
                let half = now + read.deadline.saturating_duration_since(now) / 2;
                let applied = self.write_tokens.applied(token, &read.entity, patience, half).await;
                if wait {
                    self.metrics.token_wait(applied, now.elapsed());
                }
                applied
            }
        };
        let _permit = admit()?;
        // After `applied`, which waits for the dead letters among the token's changes, and for the state of a table that
        // halted before them.
        let (put_aside, live) = (self.is_put_aside(&read), self.is_live(&read));
        let record = self.phases.now();
        let cassandras = self.is_cassandras(&record, &read, &headers);
        let sample = rand::random();
        // A request that will not ask Cassandra must not use up the one probe of an open circuit.
        let may_ask = has_target
            && live
            && applied
            && !put_aside
            && (cassandras || record.phase.writes_both() && sample < record.shadow);
        let healthy = may_ask && self.health.ask(Instant::now());
        let facts =
            ReadFacts { in_cohort: cassandras, has_target, live, applied, put_aside, healthy, sample };
        let answer = match route(&record, facts) {
            Route::Mysql { shadow, instead } => {
                let rows = self.ask_mysql(&read).await?;
                if shadow {
                    self.shadow(record.phase, &read, &rows, applied);
                }
                Answer { rows, served_by: "mysql", fallback: instead }
            }
            Route::Cassandra { validate: true, fallback } => {
                self.validated(record.phase, &read, fallback).await?
            }
            Route::Cassandra { validate: false, fallback } => {
                self.trusted(record.phase, &read, fallback).await?
            }
        };
        // What no target can serve stays in MySQL by the mapping, and a table that is not live stays there alone: neither
        // says anything about Cassandra.
        if cassandras && has_target && live {
            self.metrics.routed(&RoutedLabel {
                entity: read.entity.name.clone(),
                operation: read.query.operation(),
                token: if read.token.is_some() { "yes" } else { "no" },
                outcome: answer.fallback.map_or(answer.served_by, Reason::name),
            });
        }
        if answer.served_by == "cassandra" {
            self.metrics.tally.by_cassandra();
        }
        if let Some(reason) = answer.fallback {
            self.metrics.tally.fallback(reason);
            Metrics::count(&self.metrics.fallbacks, &read.entity.name, reason.name());
        }
        let label = ReadLabel { entity: read.entity.name.clone(), served_by: answer.served_by };
        self.metrics.reads.get_or_create(&label).inc();
        Ok((record, answer))
    }

    /// Whether the phase and its cohort give the read to Cassandra.
    fn is_cassandras(
        &self,
        record: &PhaseRecord,
        read: &Read,
        headers: impl Fn(&str) -> Option<String>,
    ) -> bool {
        match record.phase {
            Phase::ReadSwitch => true,
            Phase::Canary => record.cohort.admits(|fact| match fact {
                CohortAttribute::Header(name) if self.cohort_headers.contains(name) => headers(name),
                _ => read.fact(fact),
            }),
            Phase::Prepare | Phase::DualWrite | Phase::Backfill | Phase::Verify => false,
        }
    }

    /// Whether Cassandra lacks a change of the requested rows, because it is a dead letter.
    fn is_put_aside(&self, read: &Read) -> bool {
        let table = &read.entity.table().name;
        match &read.query {
            // A key that cannot be encoded is not in the log. MySQL says what is wrong with it.
            Query::Key(key) => {
                read.entity.framed_key(key).is_ok_and(|framed| self.letters.is_open(table, &framed))
            }
            // The row could belong on the page.
            Query::Page(_) => self.letters.any_open(table),
        }
    }

    fn is_live(&self, read: &Read) -> bool {
        self.live.is_live(&read.entity.table().name)
    }

    /// Reads both stores. MySQL's answer wins where they differ.
    async fn validated(&self, phase: Phase, read: &Read, fallback: bool) -> Result<Answer, Problem> {
        let (found, mysql) = tokio::join!(self.ask_cassandra(read), self.ask_mysql(read));
        let count = |outcome| Metrics::count(&self.metrics.validated, &read.entity.name, outcome);
        let reason = match (&found, &mysql) {
            (Ok(found), Ok(rows)) => self.compared(DivergenceSource::Validated, phase, read, rows, found),
            (Err(reason), _) => {
                count(reason.name());
                Some(*reason)
            }
            // In `canary`, an answer that could not be compared is not served. With the fallback, a row that
            // MySQL may have is not reported as missing.
            (Ok(found), Err(problem)) if phase == Phase::Canary || fallback && read.is_gone(found) => {
                return Err(problem.clone());
            }
            (Ok(_), Err(_)) => {
                count("mysql-unavailable");
                return read.by_cassandra(found);
            }
        };
        match reason {
            Some(reason) if fallback => Ok(by_mysql(mysql?, reason)),
            _ => read.by_cassandra(found),
        }
    }

    /// Compares the answers of both stores. A difference does not count before a recheck confirms it.
    fn compared(
        &self,
        source: DivergenceSource,
        phase: Phase,
        read: &Read,
        rows: &[Row],
        found: &Found,
    ) -> Option<Reason> {
        let family = match source {
            DivergenceSource::Validated => &self.metrics.validated,
            DivergenceSource::Shadow => &self.metrics.shadowed,
        };
        let divergence = read.compare(rows, found);
        let reason = divergence.as_ref().map(|divergence| divergence.reason);
        match divergence {
            Some(divergence) if !divergence.suspects.is_empty() => {
                self.rechecks.add(source, phase, &read.entity, divergence);
            }
            _ => Metrics::count(family, &read.entity.name, reason.map_or("equal", Reason::name)),
        }
        reason
    }

    /// Reads Cassandra only. MySQL serves rows that Cassandra lacks.
    async fn trusted(&self, phase: Phase, read: &Read, fallback: bool) -> Result<Answer, Problem> {
        let found = self.ask_cassandra(read).await;
        let gone = found.as_ref().is_ok_and(|found| read.is_gone(found));
        let reason = match &found {
            Err(reason) => Some(*reason),
            Ok(_) if gone => Some(Reason::Missing),
            Ok(_) => None,
        };
        let Some(reason) = reason.filter(|_| fallback) else { return read.by_cassandra(found) };
        // Without MySQL's answer a row is not reported as missing: apply may not have written it yet.
        let rows = self.ask_mysql(read).await?;
        if gone && rows.is_empty() {
            return read.by_cassandra(found);
        }
        if let Ok(found) = &found {
            self.compared(DivergenceSource::Validated, phase, read, &rows, found);
        }
        Ok(by_mysql(rows, reason))
    }

    /// Compares the stores in the background. A read whose token is not applied yet waits for it here, where no client
    /// waits.
    fn shadow(self: &Arc<Self>, phase: Phase, read: &Read, rows: &[Row], applied: bool) {
        let Ok(permit) = Arc::clone(&self.shadows).try_acquire_owned() else { return };
        let (this, mut read, rows) = (Arc::clone(self), read.clone(), rows.to_vec());
        self.tasks.spawn(async move {
            let ready = if applied { Ok(()) } else { this.applied_later(&mut read).await };
            let found = match ready {
                Ok(()) => this.ask_cassandra(&read).await,
                Err(reason) => Err(reason),
            };
            match found {
                Ok(found) => _ = this.compared(DivergenceSource::Shadow, phase, &read, &rows, &found),
                Err(reason) => Metrics::count(&this.metrics.shadowed, &read.entity.name, reason.name()),
            }
            drop(permit);
        });
    }

    /// Waits until the token of a read is applied that MySQL has served. The read's time starts again after that.
    ///
    /// # Errors
    ///
    /// Returns the reason why Cassandra is not asked.
    async fn applied_later(&self, read: &mut Read) -> Result<(), Reason> {
        if let Some(token) = &read.token
            && !self.write_tokens.applied_within(token, &read.entity, SHADOW_WAIT).await
        {
            return Err(Reason::Token);
        }
        read.deadline = Instant::now() + self.cassandra_limit;
        if !self.is_live(read) {
            return Err(Reason::TableNotLive);
        }
        if self.is_put_aside(read) {
            return Err(Reason::DeadLetter);
        }
        if self.health.ask(Instant::now()) { Ok(()) } else { Err(Reason::Down) }
    }

    async fn ask_mysql(&self, read: &Read) -> Result<Vec<Row>, Problem> {
        let (begun, table) = (Instant::now(), read.entity.table());
        let rows = match &read.query {
            Query::Key(key) => {
                self.pool.read(table, key, read.deadline).await.map(|row| row.into_iter().collect())
            }
            Query::Page(page) => {
                self.pool.read_partition(table, &page.mysql(&read.entity), read.deadline).await
            }
        };
        self.metrics.store_request(
            "read",
            "mysql",
            if rows.is_ok() { "ok" } else { "failed" },
            begun.elapsed(),
        );
        rows.map_err(|error: MysqlError| problem::from_mysql(&error, Instant::now() >= read.deadline))
    }

    async fn ask_cassandra(&self, read: &Read) -> Result<Found, Reason> {
        let begun = Instant::now();
        let limit = begun + self.cassandra_limit;
        let deadline = read.deadline.min(limit);
        let found = match tokio::time::timeout_at(deadline, self.try_cassandra(read)).await {
            Ok(found) => found,
            Err(_) => Err(Reason::Late),
        };
        // A timeout from a client's own short deadline says nothing about Cassandra.
        if found != Err(Reason::Late) || deadline == limit {
            self.health.note(found.is_ok(), Instant::now());
        }
        let outcome = found.as_ref().map_or_else(|reason| reason.name(), |_| "ok");
        self.metrics.store_request("read", "cassandra", outcome, begun.elapsed());
        found
    }

    async fn try_cassandra(&self, read: &Read) -> Result<Found, Reason> {
        let (plan, target) = (&read.entity.plan, read.target().ok_or(Reason::NoTarget)?);
        let table = plan.targets()[target].table();
        let failed = |error: &dyn std::error::Error| {
            tracing::debug!(error = %error, "a read from Cassandra failed");
            Reason::Failed
        };
        match &read.query {
            Query::Key(key) => {
                // Cassandra has no row with a key that it cannot hold.
                let Ok(key) = plan.key_by_primary_key(target, key) else { return Ok(Vec::new()) };
                let row = self.target.get(&table.name, &key).await.map_err(|e| failed(&e))?;
                Ok(row.map(|row| (key, row)).into_iter().collect())
            }
            Query::Page(page) => {
                let mut found = Vec::new();
                let wanted = page.limit + 1;
                for mut slice in page.slices(&read.entity).map_err(|e| failed(&e))? {
                    slice.limit = (wanted - found.len()) as i32;
                    found.extend(self.target.slice(table, &slice).await.map_err(|e| failed(&e))?);
                    if found.len() >= wanted {
                        break;
                    }
                }
                Ok(found)
            }
        }
    }
}

fn by_mysql(rows: Vec<Row>, reason: Reason) -> Answer {
    Answer { rows, served_by: "mysql", fallback: Some(reason) }
}
