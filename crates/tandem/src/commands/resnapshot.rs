//! `tandem resnapshot`: continues the log after a log gap, so that every table is copied again.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tandem_capture::{Capture, LogGap};
use tandem_kafka::{KafkaConfig, SchemaStore, read_all};
use tandem_model::{GtidSet, Phase, PhaseRecord};
use tandem_wire::control::{PHASE_KEY, Resnapshot, decode_phase};

use crate::cli::ResnapshotArgs;
use crate::config::Config;
use crate::connect::servers::Servers;
use crate::role::Role;
use crate::run::process::capture_of;

/// Longer than a round of the controller.
const ROUND: Duration = Duration::from_secs(3);

/// Shows the gap. With `--yes` it continues the log after it.
pub(crate) async fn run(config: &Config, args: &ResnapshotArgs) -> Result<ExitCode> {
    let servers = Servers::connect(config, &[Role::Capture]).await?;
    let schemas = SchemaStore::open(&servers.kafka).await?;
    let capture = capture_of(config, &servers, &schemas, tandem_capture::Metrics::default())?;
    let gap = capture.gap().await?;
    let resnapshot = if args.yes { Some(order(&capture, &servers.kafka, &args.reason).await?) } else { None };
    if args.json.json {
        println!("{}", serde_json::to_string_pretty(&report(&gap, resnapshot.as_ref()))?);
    } else {
        print(&gap, resnapshot.as_ref());
    }
    Ok(ExitCode::SUCCESS)
}

async fn order(capture: &Capture, kafka: &KafkaConfig, reason: &str) -> Result<Resnapshot> {
    let phase = phase(kafka).await?;
    if serves_reads(phase) {
        bail!(
            "in the phase `{phase}` Cassandra serves reads, and it lacks the changes in the gap until every table is copied \
             and verified: roll the migration back to `{}` first (tandem phase back)",
            Phase::Verify
        );
    }
    let resnapshot = capture.resnapshot(reason).await?;
    // A controller may still decide in a round that began before. After that round its gates require new copies.
    tokio::time::sleep(ROUND).await;
    let now = self::phase(kafka).await?;
    if serves_reads(now) {
        bail!(
            "the log continues at {} and no copy counts any more, but the migration has meanwhile advanced to `{now}`, where \
             Cassandra serves reads: roll it back to `{}` now (tandem phase back), then continue as `tandem resnapshot --help` says",
            resnapshot.to_gtid_set,
            Phase::Verify
        );
    }
    Ok(resnapshot)
}

fn serves_reads(phase: Phase) -> bool {
    phase > Phase::Verify
}

/// The phase that the gateways follow.
async fn phase(kafka: &KafkaConfig) -> Result<Phase> {
    let mut newest = PhaseRecord::default();
    for record in read_all(kafka, &kafka.topics().control()).await? {
        if let (Some(PHASE_KEY), Some(value)) = (record.key.as_deref(), &record.value) {
            let found = decode_phase(value)?;
            if found.supersedes(&newest) {
                newest = found;
            }
        }
    }
    Ok(newest.phase)
}

fn report(gap: &LogGap, resnapshot: Option<&Resnapshot>) -> serde_json::Value {
    json!({
        "captured_up_to": gap.last.gtid_set.to_string(),
        "captured_seconds_ago": gap.age().as_secs_f64(),
        "executed": gap.executed.to_string(),
        "not_captured": gap.not_captured.to_string(),
        "purged": gap.purged.to_string(),
        "lost": gap.lost.to_string(),
        "resnapshot": resnapshot.map(|resnapshot| json!({ "version": resnapshot.version, "goes_on_at": resnapshot.to_gtid_set })),
    })
}

fn print(gap: &LogGap, resnapshot: Option<&Resnapshot>) {
    let or_nothing = |set: &GtidSet| if set.is_empty() { "nothing".to_owned() } else { set.to_string() };
    println!("the log ends at                {}", gap.last.gtid_set);
    println!("  published                    {:.0} s ago", gap.age().as_secs_f64());
    println!("MySQL has executed             {}", gap.executed);
    println!("  not on the log               {}", or_nothing(&gap.not_captured));
    println!("  of that purged from binlogs  {}", or_nothing(&gap.purged));
    println!("on the log, but not in MySQL   {}", or_nothing(&gap.lost));
    if let Some(resnapshot) = resnapshot {
        println!(
            "the log continues at {}. Start the roles again (tandem run, or each role, including the backfill); they copy \
             every table again. When `tandem status` shows that every table is copied, run `tandem verify --full` until \
             it finds nothing: it finds the rows that were deleted in the gap, and reconcile deletes them",
            resnapshot.to_gtid_set
        );
        return;
    }
    if gap.purged.is_empty() && gap.lost.is_empty() {
        println!(
            "nothing is lost: unless capture stops with an error, it continues by itself when it is started"
        );
    }
    println!("nothing was changed: --yes continues the log at what MySQL has executed");
}
