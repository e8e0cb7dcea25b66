//! `tandem table`: shows the tables that are not live, and leads them on.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use serde_json::json;
use tandem_kafka::KafkaConfig;
use tandem_model::{TableName, Watermark};
use tandem_mysql::Mysql;
use tandem_protocol::table_state::{
    Changes, NEW_COLUMN, TableFault, add, is_captured, is_live, rebuild, resume,
};
use tandem_runtime::now_us;
use tandem_table_states::{change, halt, read_states};
use tandem_watermarks::NewestWatermark;
use tandem_wire::control::{TableCondition, TableState};

use crate::cli::table::{OrderArgs, StatusArgs, TableArgs, TableCommand};
use crate::config::Config;

/// How long a rebuild waits until capture has left the table out.
const LEFT_OUT: Duration = Duration::from_secs(30);

/// The reason of a table that an operator has taken out.
const REMOVED: &str = "removed";

/// Who writes the states.
const BY: &str = "tandem table";

pub(crate) async fn run(command: TableCommand) -> Result<ExitCode> {
    match command {
        TableCommand::Status(args) => status(&args).await,
        TableCommand::Add(args) => added(&args).await,
        TableCommand::Remove(args) => removed(&args).await,
        TableCommand::Halt(args) => halted(&args).await,
        TableCommand::Resume(args) => resumed(&args).await,
        TableCommand::Rebuild(args) => rebuilt(&args).await,
    }
}

/// The command that leads a table on, or what it waits for.
pub(crate) fn what_leads_on(state: &TableState) -> String {
    let table = &state.table;
    match state.condition {
        TableCondition::Live => String::new(),
        TableCondition::Halted if state.reason == NEW_COLUMN => {
            "apply starts again, adds the column to the targets, and resumes".to_owned()
        }
        TableCondition::Halted if state.replayable => format!(
            "remove the cause, then `tandem table resume {table}`, or `rebuild` if its old records do not fit any more"
        ),
        TableCondition::Halted if state.reason == REMOVED => format!(
            "take its section out of tandem.toml and start the roles again, or put it back with `tandem table add {table}`"
        ),
        TableCondition::Halted => format!("`tandem table rebuild {table}`"),
        TableCondition::Replaying => "apply replays what was not applied".to_owned(),
        TableCondition::Verifying => {
            "verify compares the table, once its copy is applied if one was ordered, and reconcile repairs it"
                .to_owned()
        }
    }
}

async fn status(args: &StatusArgs) -> Result<ExitCode> {
    let config = Config::load(&args.config.config)?;
    let states = read_states(&config.kafka()?).await?;
    let names = config.tables()?;
    let shown = names.iter().map(|name| (name, states.get(name)));
    let shown: Vec<_> = shown.filter(|(_, state)| args.all || !is_live(*state)).collect();
    if args.json.json {
        let rows: Vec<_> = shown
            .iter()
            .map(|(name, state)| {
                json!({
                    "table": name.to_string(),
                    "state": state.map_or(TableCondition::Live, |s| s.condition).name(),
                    "captured": is_captured(*state),
                    "reason": state.map(|s| &s.reason),
                    "cause": state.map(|s| &s.cause),
                    "by": state.map(|s| &s.by),
                    "since_us": state.map(|s| s.since_us),
                    "remedy": state.map(what_leads_on),
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "tables": rows }))?);
        return Ok(ExitCode::SUCCESS);
    }
    if shown.is_empty() {
        println!("every table is live");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["table", "state", "since", "reason", "by", "what leads on"]);
    let now = now_us();
    for (name, state) in &shown {
        let Some(state) = state else {
            table.add_row([name.to_string().as_str(), "live", "", "", "", ""]);
            continue;
        };
        let since = format!("{:.0} s", (now - state.since_us).max(0) as f64 / 1e6);
        let condition = state.condition.name().to_owned();
        let row = [
            name.to_string(),
            condition,
            since,
            state.reason.clone(),
            state.by.clone(),
            what_leads_on(state),
        ];
        table.add_row(row);
    }
    println!("{table}");
    for (name, state) in &shown {
        if let Some(state) = state.filter(|state| !is_live(Some(state)) && !state.cause.is_empty()) {
            println!("{name}: {}", state.cause);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads the configuration. Refuses a table that it does not map.
fn mapped(args: &TableArgs) -> Result<KafkaConfig> {
    let config = Config::load(&args.config.config)?;
    if !config.tables()?.contains(&args.table) {
        bail!("table {} is not in {}", args.table, args.config.config.display());
    }
    config.kafka()
}

async fn resumed(args: &TableArgs) -> Result<ExitCode> {
    let kafka = mapped(args)?;
    let table = &args.table;
    change(&kafka, |states| Ok::<_, anyhow::Error>(Some(resume(states.get(table), table, BY, now_us())?)))
        .await?;
    report(
        args,
        TableCondition::Replaying,
        "the changes that were not applied are replayed, then the table is verified",
    )
}

async fn halted(args: &OrderArgs) -> Result<ExitCode> {
    let kafka = mapped(&args.of)?;
    let fault = TableFault {
        reason: "by-hand".to_owned(),
        cause: args.reason.clone(),
        by: BY.to_owned(),
        changes: Changes::Wait,
    };
    if halt(&kafka, &args.of.table, &fault).await?.is_none() {
        bail!("table {} has halted already: `tandem table status`", args.of.table);
    }
    report(&args.of, TableCondition::Halted, "its changes wait on the log, and its reads come from MySQL")
}

/// Adds a table that is new, or one that was removed. A new one needs no watermark that passes it: capture has never had it.
async fn added(args: &TableArgs) -> Result<ExitCode> {
    let kafka = mapped(args)?;
    let table = &args.table;
    let Some(newest) = NewestWatermark::read(&kafka).await? else {
        bail!("capture has not begun: `tandem run` begins with every table of tandem.toml")
    };
    // What capture takes up later has a state before that.
    if newest.watermark.tables.captured.contains_key(table) && read_states(&kafka).await?.get(table).is_none()
    {
        bail!("table {table} is there already, and live: `tandem table status --all`");
    }
    let newest = left_out(&Config::load(&args.config.config)?, &kafka, table).await?;
    change(&kafka, |states| match states.get(table) {
        Some(state) if state.captured => {
            bail!("table {table} is there already: it is {}. `tandem table status`", state.condition)
        }
        state => Ok::<_, anyhow::Error>(Some(add(state, table, newest.version.0, BY, now_us()))),
    })
    .await?;
    report(
        args,
        TableCondition::Verifying,
        "capture takes it up once the roles run with this tandem.toml. Then it is copied and verified, and MySQL serves its \
         reads until it is live",
    )
}

async fn removed(args: &OrderArgs) -> Result<ExitCode> {
    let kafka = mapped(&args.of)?;
    let fault = TableFault {
        reason: REMOVED.to_owned(),
        cause: args.reason.clone(),
        by: BY.to_owned(),
        changes: Changes::NotCaptured,
    };
    if halt(&kafka, &args.of.table, &fault).await?.is_none() {
        bail!("table {} is not captured already: `tandem table status`", args.of.table);
    }
    report(
        &args.of,
        TableCondition::Halted,
        "it is no longer captured, and MySQL serves its reads. Its rows stay in Cassandra. Take its section out of tandem.toml \
         when you next start the roles, or put it back with `tandem table add`",
    )
}

async fn rebuilt(args: &OrderArgs) -> Result<ExitCode> {
    let kafka = mapped(&args.of)?;
    let table = &args.of.table;
    let newest = left_out(&Config::load(&args.of.config.config)?, &kafka, table).await?;
    change(&kafka, |states| {
        let state = states.get(table);
        if !is_captured(state) && newest.tables.captured.contains_key(table) {
            bail!("capture has just left the table out: order the rebuild again");
        }
        Ok::<_, anyhow::Error>(Some(rebuild(state, table, newest.version.0, BY, &args.reason, now_us())))
    })
    .await?;
    report(&args.of, TableCondition::Verifying, "the table is copied again, then verified")
}

/// The newest watermark. If capture does not publish the table, it is one that says so, and that covers what MySQL has
/// executed by now: capture has passed whatever halted the table, and takes it up behind that.
async fn left_out(config: &Config, kafka: &KafkaConfig, table: &TableName) -> Result<Watermark> {
    let begun = Instant::now();
    let mut executed = None;
    loop {
        let newest = NewestWatermark::read(kafka).await?.context("capture has not begun: `tandem run`")?;
        let watermark = newest.watermark.as_ref().clone();
        if is_captured(read_states(kafka).await?.get(table)) {
            return Ok(watermark);
        }
        if executed.is_none() {
            let mut reader = Mysql::connect(&config.mysql()?).await?.reader().await?;
            executed = Some(reader.executed().await?);
        }
        let passed = executed.as_ref().is_some_and(|executed| executed.is_subset(&watermark.gtid_set));
        if passed && !watermark.tables.captured.contains_key(table) {
            return Ok(watermark);
        }
        if begun.elapsed() > LEFT_OUT {
            bail!(
                "capture has not passed what halted the table yet: is it running, or far behind? (`tandem status`)"
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn report(args: &TableArgs, condition: TableCondition, then: &str) -> Result<ExitCode> {
    if args.json.json {
        let told = json!({ "table": args.table.to_string(), "state": condition.name() });
        println!("{}", serde_json::to_string_pretty(&told)?);
    } else {
        println!("table {} is {condition}: {then}. `tandem table status` shows it", args.table);
    }
    Ok(ExitCode::SUCCESS)
}
