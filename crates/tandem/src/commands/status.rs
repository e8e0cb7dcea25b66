//! `tandem status`: the progress of the migration, and what is proven. It comes from the log alone, whichever roles run.

mod print;
mod processes;
mod proofs;
mod report;
mod statements;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tandem_apply::{layout_of, read_mapping_in_use};
use tandem_backfill::read_progress;
use tandem_kafka::{
    Admin, ConsumeError, GroupMembers, GroupOffsets, KafkaConfig, PartitionLag, partition_lags, read_all,
    read_unapplied,
};
use tandem_model::TableName;
use tandem_protocol::table_state::{is_checked, is_live};
use tandem_protocol::verified::is_covered;
use tandem_row_check::{MismatchCounts, count_mismatches};
use tandem_runtime::now_us;
use tandem_table_states::{States, read_states};
use tandem_watermarks::NewestWatermark;
use tandem_wire::control::{BackfillProgress, FULL_SCAN_KEY, FullScan, TableCondition, decode_control};
use tandem_wire::fingerprint;
use tandem_wire::log::{InRecord, TableOfKey};

use self::processes::processes;
use self::report::{
    Backfill, Lag, Mapping, NotLive, ReverseStatus, Source, Status, TableStatus, TopicStatus, Totals,
};
use self::statements::{Statement, Verified};
use crate::cli::dead_letters::Of;
use crate::commands::dead_letters::{Counted, count};
use crate::commands::table::what_leads_on;
use crate::config::Config;

/// How long the unapplied records are counted by table.
const COUNTING: Duration = Duration::from_millis(500);

/// Prints the status.
pub(crate) async fn run(config: &Config, json: bool, all: bool) -> Result<ExitCode> {
    let status = status(config).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print::print(&status, all);
    }
    Ok(ExitCode::SUCCESS)
}

/// What the log says about the tables.
#[derive(Default)]
struct Log {
    progress: HashMap<String, BackfillProgress>,
    states: States,
    letters: Counted,
    mismatches: MismatchCounts,
    scan: Option<FullScan>,
}

impl Log {
    async fn read(kafka: &KafkaConfig) -> Result<Self> {
        let progress = async { read_progress(kafka).await.map_err(anyhow::Error::from) };
        let states = async { read_states(kafka).await.map_err(anyhow::Error::from) };
        let mismatches = async { count_mismatches(kafka).await.map_err(anyhow::Error::from) };
        let letters = count(kafka, Of::Apply);
        let (progress, states, mismatches, letters, scan) =
            tokio::try_join!(progress, states, mismatches, letters, full_scan(kafka))?;
        Ok(Self { progress, states, letters, mismatches, scan })
    }
}

/// The newest full verification.
async fn full_scan(kafka: &KafkaConfig) -> Result<Option<FullScan>> {
    let records = read_all(kafka, &kafka.topics().control()).await?;
    let newest = records.into_iter().rfind(|record| record.key.as_deref() == Some(FULL_SCAN_KEY));
    Ok(newest.and_then(|record| record.value).map(|value| decode_control(&value)).transpose()?)
}

async fn status(config: &Config) -> Result<Status> {
    let kafka = config.kafka()?;
    let topics = kafka.topics();
    let admin = Admin::connect(&kafka).await?;
    let watermarks = topics.watermarks();
    let source = match admin.partitions(&watermarks).await {
        Ok(_) => NewestWatermark::read(&kafka).await?.map(|newest| newest.watermark),
        Err(ConsumeError::NoTopic(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let mapping = match &source {
        Some(_) => mapping(config, &kafka).await?,
        None => None,
    };
    let group = GroupOffsets::new(&kafka, &topics.apply_group())?;
    let mut behind = Vec::new();
    let names = config.tables()?;
    let (mut topic_status, mut applied) = (Vec::new(), HashMap::new());
    let topic_names = topics.of_tables(&names);
    let lags = partition_lags(&admin, &group, &topic_names).await?;
    for (name, partitions) in topic_names.into_iter().zip(lags) {
        let lagging = partitions.iter().enumerate().filter(|(_, p)| p.records() > 0);
        behind.extend(lagging.map(|(number, p)| (name.clone(), number as i32, p.applied()..p.end)));
        topic_status.push(TopicStatus {
            published: partitions.iter().map(|p| p.end - p.first).sum(),
            applied: partitions.iter().map(|p| p.applied() - p.first).sum(),
            lag_records: partitions.iter().map(PartitionLag::records).sum(),
            name: name.clone(),
        });
        applied.insert(name, partitions.iter().map(PartitionLag::applied).collect::<Vec<_>>());
    }
    // After the offsets: a record that apply has put aside or skipped is known as such before its offset is committed.
    let log = if source.is_some() { Log::read(&kafka).await? } else { Log::default() };
    let finder = TableOfKey::new(&topics, &names);
    let mut unapplied: HashMap<Arc<TableName>, i64> = HashMap::new();
    let mut count = |record: &InRecord| {
        if let Some(table) = record.key.as_ref().and_then(|key| finder.table(&record.topic, key)) {
            *unapplied.entry(Arc::clone(table)).or_default() += 1;
        }
    };
    let oldest = match read_unapplied(&kafka, behind, COUNTING, &mut count).await {
        Ok(seen) => Some(seen),
        // The records could not be read in time. Their number is still known.
        Err(ConsumeError::Unreachable { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let counted = oldest.is_some_and(|seen| seen.complete);
    let now = now_us();
    let age = |us: i64| (now - us).max(0) as f64 / 1e6;
    let mut uncovered = Vec::new();
    let tables = names.iter().zip(&config.table).map(|(name, table)| {
        let mapping = fingerprint(&table.spelling());
        let state = log.states.get(name);
        let progress = log.progress.get(&name.to_string()).filter(|p| p.configured == mapping);
        if !log.scan.as_ref().is_some_and(|scan| is_covered(scan, state, progress)) {
            uncovered.push(name.to_string());
        }
        let applied = applied.get(&topics.backfill(name));
        let whole =
            |copy: &BackfillProgress| applied.is_some_and(|applied| is_reached(applied, &copy.end_offsets));
        TableStatus {
            state: state.map_or(TableCondition::Live, |state| state.condition).name(),
            not_live: state.filter(|state| !is_live(Some(state))).map(|state| NotLive {
                reason: state.reason.clone(),
                cause: state.cause.clone(),
                by: state.by.clone(),
                since_seconds: age(state.since_us),
                remedy: what_leads_on(state),
            }),
            lag_records: counted.then(|| unapplied.get(name).copied().unwrap_or(0)),
            topic: topics.changes(name),
            dead_letters: log.letters.open.get(name.to_string().as_str()).copied().unwrap_or(0),
            backfill: Backfill::of(progress, is_checked(state) && progress.is_some_and(whole)),
            name: name.to_string(),
        }
    });
    let tables: Vec<TableStatus> = tables.collect();
    let seconds = oldest.and_then(|seen| {
        let oldest = seen.oldest_ms.map_or(0.0, |ms| age(ms * 1000));
        source.as_ref().map(|w| oldest.max(age(w.clock_us)))
    });
    let lag = Lag { records: topic_status.iter().map(|t| t.lag_records).sum(), seconds };
    let mut status = Status {
        source: source.map(|w| Source::of(&w, age(w.clock_us))),
        mapping,
        totals: Totals::of(&tables),
        tables,
        topics: topic_status,
        lag,
        mismatches: log.mismatches.into(),
        dead_letters: log.letters.open.values().sum(),
        reverse: match &config.reverse {
            Some(_) => Some(reverse(&kafka, &admin, &config.tables()?).await?),
            None => None,
        },
        processes: processes(&kafka).await?,
        caught_up: Statement::default(),
        copied: Statement::default(),
        verified: Verified::default(),
    };
    let uncovered: Vec<&str> = uncovered.iter().map(String::as_str).collect();
    status.caught_up = status.caught_up();
    status.copied = status.copied();
    status.verified = Verified::of(log.scan.as_ref(), log.letters.discarded_us, &uncovered, &status);
    Ok(status)
}

/// Whether everything below `ends` is applied. A topic that has grown partitions since then has none of it there.
fn is_reached(applied: &[i64], ends: &[i64]) -> bool {
    applied.len() >= ends.len() && applied.iter().zip(ends).all(|(applied, end)| applied >= end)
}

async fn reverse(kafka: &KafkaConfig, admin: &Admin, tables: &[TableName]) -> Result<ReverseStatus> {
    let topics = kafka.topics();
    let group = GroupOffsets::new(kafka, &topics.reverse_group())?;
    // Before the first start of any role there are no topics.
    let letters = match admin.partitions(&topics.reverse_dead_letters()).await {
        Ok(_) => count(kafka, Of::Reverse).await?,
        Err(ConsumeError::NoTopic(_)) => Counted::default(),
        Err(error) => return Err(error.into()),
    };
    let lags = partition_lags(admin, &group, &topics.of_tables(tables)).await?;
    Ok(ReverseStatus {
        lag_records: lags.iter().flatten().map(PartitionLag::records).sum(),
        dead_letters: letters.open.values().sum(),
    })
}

/// The mapping by which apply writes, and the processes that do it.
async fn mapping(config: &Config, kafka: &KafkaConfig) -> Result<Option<Mapping>> {
    let Some(in_use) = read_mapping_in_use(kafka).await? else { return Ok(None) };
    let members = GroupMembers::new(kafka, &kafka.topics().apply_group())?.read().await?;
    let applies = members.into_iter().filter(|member| layout_of(member) == Some(&in_use.layout));
    let mut applies: Vec<String> = applies.map(|member| member.host).collect();
    applies.sort_unstable();
    let in_use_here = in_use.configured == config.mapping();
    Ok(Some(Mapping { generation: in_use.generation, in_use: in_use_here, applies }))
}
