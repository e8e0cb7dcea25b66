//! `tandem gateways`: lists the gateways that have announced themselves, and forgets one that is gone.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, bail};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use serde_json::{Value as Json, json};
use tandem_kafka::{KafkaConfig, Producer, read_all};
use tandem_runtime::now_us;
use tandem_wire::control::{
    Announcement, GATEWAY_ROLE, counter, decode_control, is_process_key, no_longer_announced,
};

use crate::cli::gateways::{ForgetArgs, GatewaysCommand, ListArgs};
use crate::config::Config;

/// A gateway that was heard within so many seconds still runs.
const STILL_THERE: f64 = 3.0;

pub(crate) async fn run(command: GatewaysCommand) -> Result<ExitCode> {
    match command {
        GatewaysCommand::List(args) => list(&args).await,
        GatewaysCommand::Forget(args) => forget(&args).await,
    }
}

/// The newest announcement of each gateway, by name.
async fn announced(kafka: &KafkaConfig) -> Result<Vec<Announcement>> {
    let mut known = BTreeMap::new();
    for record in read_all(kafka, &kafka.topics().announcements()).await? {
        let key = record.key.unwrap_or_default();
        if is_process_key(&key) {
            continue;
        }
        match &record.value {
            Some(value) => _ = known.insert(key, decode_control::<Announcement>(value)?),
            None => _ = known.remove(&key),
        }
    }
    Ok(known.into_values().filter(|announcement| announcement.role == GATEWAY_ROLE).collect())
}

async fn list(args: &ListArgs) -> Result<ExitCode> {
    let gateways = announced(&Config::load(&args.config.config)?.kafka()?).await?;
    let now = now_us();
    let seconds = |one: &Announcement| (now - one.at_us).max(0) as f64 / 1e6;
    if args.json.json {
        let rows: Vec<Json> = gateways
            .iter()
            .map(|one| {
                json!({
                    "name": one.name,
                    "address": one.address,
                    "version": one.version,
                    "generation": one.generation,
                    "started_at_us": one.started_at_us,
                    "heard_seconds_ago": seconds(one),
                    "counters": one.counters,
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "gateways": rows }))?);
        return Ok(ExitCode::SUCCESS);
    }
    if gateways.is_empty() {
        println!("no gateway has announced itself");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["gateway", "address", "version", "generation", "heard", "reads by Cassandra"]);
    for one in &gateways {
        let count = |name: &str| one.counters.get(name).copied().unwrap_or(0);
        let (routed, moved) = (count(counter::ROUTED_READS), count(counter::ROUTED_READS_BY_CASSANDRA));
        table.add_row([
            one.name.clone(),
            one.address.clone(),
            one.version.clone(),
            one.generation.unwrap_or(0).to_string(),
            format!("{:.0} s ago", seconds(one)),
            if routed == 0 { "–".to_owned() } else { format!("{moved} of {routed}") },
        ]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

async fn forget(args: &ForgetArgs) -> Result<ExitCode> {
    let kafka = Config::load(&args.config.config)?.kafka()?;
    let gateways = announced(&kafka).await?;
    let Some(known) = gateways.iter().find(|one| one.name == args.name) else {
        bail!(
            "no gateway `{}` has announced itself: `tandem gateways list` shows those that have",
            args.name
        );
    };
    let age = (now_us() - known.at_us) as f64 / 1e6;
    if age < STILL_THERE {
        bail!("{} announced itself {age:.1} s ago: stop it first, it would announce itself again", args.name);
    }
    let gone = no_longer_announced(&kafka.topics().announcements(), GATEWAY_ROLE, &args.name);
    Producer::start(&kafka).await?.send(vec![gone]).await?;
    println!("{} is forgotten", args.name);
    Ok(ExitCode::SUCCESS)
}
