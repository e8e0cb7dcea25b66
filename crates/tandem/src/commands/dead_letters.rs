//! `tandem dead-letters`: lists, shows, retries and discards the changes that apply or reverse has put aside.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use serde_json::{Map, Value as Json, json};
use tandem_dead_letters::{OpenLetter, Retried, Retrier};
use tandem_gateway::to_json;
use tandem_kafka::{KafkaConfig, Producer, SchemaStore, read_all};
use tandem_model::{Change, Version};
use tandem_runtime::now_us;
use tandem_table_states::TableStates;
use tandem_watermarks::Watermarks;
use tandem_wire::control::{DeadLetter, Discarded, RecordPlace, decode_control};

use crate::cli::dead_letters::{DeadLettersCommand, DiscardArgs, ListArgs, Of, RetryArgs, ShowArgs, Which};
use crate::config::Config;
use crate::connect::servers::{Servers, target_tables};
use crate::role::Role;

pub(crate) async fn run(command: DeadLettersCommand) -> Result<ExitCode> {
    match command {
        DeadLettersCommand::List(args) => list(&args).await,
        DeadLettersCommand::Show(args) => show(&args).await,
        DeadLettersCommand::Retry(args) => Box::pin(retry(&args)).await,
        DeadLettersCommand::Discard(args) => discard(&args).await,
    }
}

/// A dead letter with the offset of its record on the topic.
struct Stored {
    offset: i64,
    letter: DeadLetter,
}

/// The dead letters on the topic, by place: those that are open, and those that were discarded.
async fn stored(kafka: &KafkaConfig, of: Of) -> Result<BTreeMap<RecordPlace, Stored>> {
    let mut letters = BTreeMap::new();
    for record in read_all(kafka, &of.topic(kafka)).await? {
        if let Some(value) = &record.value {
            let letter: DeadLetter = decode_control(value)?;
            letters.insert(letter.place(), Stored { offset: record.offset, letter });
        } else if let Some(key) = record.key
            && let Ok(Ok(place)) = String::from_utf8(key).map(|key| key.parse::<RecordPlace>())
        {
            letters.remove(&place);
        }
    }
    Ok(letters)
}

impl Of {
    fn topic(self, kafka: &KafkaConfig) -> String {
        match self {
            Self::Apply => kafka.topics().dead_letters(),
            Self::Reverse => kafka.topics().reverse_dead_letters(),
        }
    }
}

impl Which {
    /// The chosen open dead letters. A place that is not open is an error.
    fn choose(&self, all: BTreeMap<RecordPlace, Stored>) -> Result<Vec<Stored>> {
        let mut open: BTreeMap<RecordPlace, Stored> =
            all.into_iter().filter(|(_, stored)| stored.letter.discarded.is_none()).collect();
        if self.all || self.table.is_some() {
            let of_table =
                |stored: &Stored| self.table.as_ref().is_none_or(|t| t.to_string() == stored.letter.table);
            return Ok(open.into_values().filter(of_table).collect());
        }
        let mut chosen = Vec::new();
        for place in self.places.iter().collect::<BTreeSet<_>>() {
            let Some(stored) = open.remove(place) else {
                bail!("{place} is not an open dead letter: `tandem dead-letters list` shows those that are")
            };
            chosen.push(stored);
        }
        Ok(chosen)
    }
}

async fn list(args: &ListArgs) -> Result<ExitCode> {
    let config = Config::load(&args.config.config)?;
    let kafka = config.kafka()?;
    let letters = stored(&kafka, args.of.of).await?.into_values().filter(|stored| {
        let letter = &stored.letter;
        letter.discarded.is_some() == args.discarded
            && args.table.as_ref().is_none_or(|table| table.to_string() == letter.table)
    });
    let mut letters: Vec<DeadLetter> = letters.map(|stored| stored.letter).collect();
    letters.sort_by_key(|letter| letter.at_us);
    if args.json.json {
        let rows: Vec<Json> = letters.iter().map(summary).collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "dead_letters": rows }))?);
        return Ok(ExitCode::SUCCESS);
    }
    if letters.is_empty() {
        println!("no dead letters");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["dead letter", "table", "reason", "age"]);
    let now = now_us();
    for letter in &letters {
        let age = format!("{:.0} s", (now - letter.at_us).max(0) as f64 / 1e6);
        table.add_row([letter.place().to_string(), letter.table.clone(), letter.reason.clone(), age]);
    }
    println!("{table}");
    println!("`tandem dead-letters show` says more about one");
    Ok(ExitCode::SUCCESS)
}

/// A dead letter without its row.
fn summary(letter: &DeadLetter) -> Json {
    json!({
        "place": letter.place().to_string(),
        "table": letter.table,
        "version": letter.version,
        "reason": letter.reason,
        "cause": letter.cause,
        "at_us": letter.at_us,
        "discarded": letter.discarded.as_ref().map(|d| json!({ "at_us": d.at_us, "reason": d.reason })),
    })
}

async fn show(args: &ShowArgs) -> Result<ExitCode> {
    let config = Config::load(&args.config.config)?;
    let kafka = config.kafka()?;
    let Some(Stored { letter, .. }) = stored(&kafka, args.of.of).await?.remove(&args.place) else {
        bail!("{} is not a dead letter: `tandem dead-letters list` shows those that are", args.place)
    };
    let mut shown = summary(&letter);
    // A discarded dead letter has no record any more.
    if letter.discarded.is_none() {
        let schemas = SchemaStore::open(&kafka).await?;
        let schema = schemas.get(tandem_wire::schema_id(&letter.record_value)?).await?;
        let change = schema.decode(&letter.record_value)?;
        shown["op"] = json!(change.op.letter());
        shown["gtid"] = json!(change.source.gtid);
        shown["binlog"] = json!(format!("{}:{}", change.source.file, change.source.pos));
        shown["key"] = key(&change);
        if args.values {
            shown["before"] = change.before.as_ref().map_or(Json::Null, |row| values(&change, row));
            shown["after"] = change.after.as_ref().map_or(Json::Null, |row| values(&change, row));
        }
    }
    if args.json.json {
        println!("{}", serde_json::to_string_pretty(&shown)?);
        return Ok(ExitCode::SUCCESS);
    }
    for (name, value) in shown.as_object().into_iter().flatten() {
        match value {
            Json::Null => {}
            Json::String(text) => println!("{name:<10} {text}"),
            other => println!("{name:<10} {other}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn values(change: &Change, row: &tandem_model::Row) -> Json {
    let cells = change.table.columns.iter().zip(row);
    Json::Object(cells.map(|(c, v)| (c.name.clone(), to_json(&c.ty, v))).collect::<Map<_, _>>())
}

fn key(change: &Change) -> Json {
    let columns = change.table.primary_key.iter().map(|&i| &change.table.columns[i]);
    let cells = columns.zip(change.table.key_of(change.image()));
    Json::Object(cells.map(|(c, v)| (c.name.clone(), to_json(&c.ty, &v))).collect::<Map<_, _>>())
}

async fn retry(args: &RetryArgs) -> Result<ExitCode> {
    let config = Config::load(&args.config.config)?;
    let chosen = args.which.choose(stored(&config.kafka()?, Of::Apply).await?)?;
    let servers = Servers::connect(&config, &[Role::Reconcile]).await?;
    let Some(target) = servers.target.clone() else { bail!("a retry needs Cassandra") };
    target.prepare(&target_tables(&servers.plans)).await?;
    let mapping = (TableStates::follow(&servers.kafka).await?, Arc::new(servers.layouts.clone()));
    let retrier = Retrier::start(
        (&servers.kafka, SchemaStore::open(&servers.kafka).await?),
        target,
        Watermarks::follow(&servers.kafka, config.watermark_timeout()).await?,
        mapping,
        servers.plans.iter().cloned(),
    )
    .await?;
    let (mut reader, mut outcomes, mut refused) = (None, Vec::new(), 0);
    for Stored { offset, letter } in chosen {
        let open = OpenLetter {
            place: letter.place(),
            table: letter.table.as_str().into(),
            key: letter.record_key.as_slice().into(),
            version: Version(letter.version),
            reason: letter.reason.as_str().into(),
            at_us: letter.at_us,
            offset,
        };
        let mut connected = match reader.take() {
            Some(reader) => reader,
            None => servers.mysql.reader().await?,
        };
        let cause = match retrier.retry(&mut connected, &open).await {
            Ok(outcome) => {
                reader = Some(connected);
                match outcome {
                    Retried::Settled => None,
                    Retried::Refused(cause) => Some(cause),
                }
            }
            // The others may succeed. The connection is not used again: it may be broken.
            Err(error) => Some(error.to_string()),
        };
        refused += usize::from(cause.is_some());
        if !args.json.json {
            match &cause {
                None => println!("{} is settled", open.place),
                Some(cause) => println!("{} stays open: {cause}", open.place),
            }
        }
        outcomes.push(json!({ "place": open.place.to_string(), "settled": cause.is_none(), "cause": cause }));
    }
    if args.json.json {
        println!("{}", serde_json::to_string_pretty(&json!({ "dead_letters": outcomes }))?);
    } else if outcomes.is_empty() {
        println!("no dead letters");
    }
    Ok(if refused > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn discard(args: &DiscardArgs) -> Result<ExitCode> {
    if args.reason.trim().is_empty() {
        bail!("--reason must not be empty: it is all that is left to explain the difference");
    }
    let config = Config::load(&args.config.config)?;
    let kafka = config.kafka()?;
    let topic = args.of.of.topic(&kafka);
    let chosen = args.which.choose(stored(&kafka, args.of.of).await?)?;
    let (at_us, mut records, mut places) = (now_us(), Vec::new(), Vec::new());
    for Stored { mut letter, .. } in chosen {
        letter.record_value.clear();
        letter.discarded = Some(Discarded { at_us, reason: args.reason.clone() });
        places.push(letter.place().to_string());
        records.push(letter.record(&topic)?);
    }
    Producer::start(&kafka).await?.send(records).await?;
    if args.json.json {
        println!("{}", serde_json::to_string_pretty(&json!({ "discarded": places }))?);
    } else if places.is_empty() {
        println!("no dead letters");
    } else {
        for place in &places {
            println!("{place} is discarded");
        }
    }
    if !args.json.json && !places.is_empty() && args.of.of == Of::Apply {
        println!("run `tandem verify --full`: earlier ones do not count any more");
    }
    Ok(ExitCode::SUCCESS)
}

/// What a topic of dead letters holds.
#[derive(Default)]
pub(crate) struct Counted {
    /// How many are open, by table.
    pub(crate) open: BTreeMap<Arc<str>, u64>,
    /// When the last one was discarded, in microseconds since the epoch.
    pub(crate) discarded_us: Option<i64>,
}

/// Counts the dead letters of a topic.
pub(crate) async fn count(kafka: &KafkaConfig, of: Of) -> Result<Counted> {
    let mut counted = Counted::default();
    for Stored { letter, .. } in stored(kafka, of).await?.into_values() {
        match letter.discarded {
            None => *counted.open.entry(letter.table.into()).or_default() += 1,
            Some(discarded) => counted.discarded_us = counted.discarded_us.max(Some(discarded.at_us)),
        }
    }
    Ok(counted)
}
