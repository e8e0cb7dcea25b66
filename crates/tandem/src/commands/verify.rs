//! `tandem verify --full`: every row of every table, once.

use std::process::ExitCode;

use anyhow::{Result, bail};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use indicatif::{ProgressBar, ProgressStyle};
use tandem_apply::is_in_use;
use tandem_backfill::read_progress;
use tandem_kafka::{KafkaConfig, Producer};
use tandem_row_check::CheckMetrics;
use tandem_runtime::now_us;
use tandem_verify::{Scan, ScanReport};
use tandem_watermarks::Watermarks;
use tandem_wire::control::{FULL_SCAN_KEY, FullScan, encode_control};
use tandem_wire::log::OutRecord;

use crate::config::Config;
use crate::connect::row_checker::checker;
use crate::connect::servers::{Servers, target_tables};
use crate::role::Role;

/// Verifies and prints the result.
pub(crate) async fn run(config: &Config, json: bool, exit_code: bool) -> Result<ExitCode> {
    let servers = Servers::connect(config, &[Role::Verify]).await?;
    if let Some(target) = &servers.target {
        target.prepare(&target_tables(&servers.plans)).await?;
    }
    if !is_in_use(&servers.kafka, &servers.layouts).await? {
        bail!(
            "apply does not use the mapping of this tandem.toml yet, so the tables cannot be verified by it: `tandem status` \
             says what it waits for"
        );
    }
    let progress = read_progress(&servers.kafka).await?;
    let watermarks = Watermarks::follow(&servers.kafka, config.watermark_timeout()).await?;
    let metrics = CheckMetrics::default();
    let (checker, tables) = checker(&servers, &watermarks, &metrics, None).await?;
    let started_at_us = now_us();
    let scan = Scan { checker, tables, kafka: servers.kafka.clone() };

    let rows: u64 = servers
        .plans
        .iter()
        .map(|p| {
            let rows = progress.get(&p.source().name.to_string()).map_or(0, |p| p.rows.max(0) as u64);
            rows * (1 + p.targets().len() as u64)
        })
        .sum();
    let bar = ProgressBar::new(rows).with_style(ProgressStyle::with_template(
        "{bar:30} {human_pos}/{human_len} rows, {per_sec}, ETA {eta}  {msg}",
    )?);
    let topics = servers.kafka.topics();
    let (mut before, mut current, mut name) = (0, 0, String::new());
    let report = scan
        .run(
            &progress,
            |table| topics.backfill(&table.source().name),
            |table| {
                if table.name != name {
                    before += current;
                    name.clone_from(&table.name);
                    bar.set_message(name.clone());
                }
                current = table.mysql_rows + table.target_rows;
                bar.set_position(before + current);
            },
        )
        .await?;
    bar.finish_and_clear();
    for table in &scan.tables {
        scan.checker.is_in_use(table).await?;
    }
    record(&servers.kafka, started_at_us, &report).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    let halted = report.tables.iter().any(|table| table.halted);
    let failed = exit_code && (halted || report.mismatches + report.undecided + report.put_aside > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Stores the result for the controller's gates.
async fn record(kafka: &KafkaConfig, started_at_us: i64, report: &ScanReport) -> Result<()> {
    let scan = FullScan {
        started_at_us,
        ended_at_us: now_us(),
        rows: report.checked as i64,
        mismatches: report.mismatches as i64,
        // A row that was left out is not proven equal either.
        undecided: (report.undecided + report.put_aside) as i64,
    };
    let record = OutRecord {
        topic: kafka.topics().control().into(),
        partition: 0,
        key: FULL_SCAN_KEY.to_vec(),
        value: Some(encode_control(&scan)?),
        version: None,
        timestamp_ms: None,
    };
    Producer::start(kafka).await?.send(vec![record]).await?;
    Ok(())
}

fn print(report: &ScanReport) {
    let mut table = comfy_table::Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["table", "MySQL rows", "Cassandra rows", "mismatches", "undecided", "left out"]);
    for t in &report.tables {
        table.add_row([
            t.name.clone(),
            t.mysql_rows.to_string(),
            t.target_rows.to_string(),
            t.mismatches.to_string(),
            t.undecided.to_string(),
            if t.halted { "halted".to_owned() } else { t.put_aside.to_string() },
        ]);
    }
    println!("{table}");
    for halted in report.tables.iter().filter(|table| table.halted) {
        println!(
            "table {} has halted and was left out: `tandem table status` says what leads on. It is verified by itself before \
             it is live again",
            halted.name
        );
    }
    if report.put_aside > 0 {
        println!(
            "{} rows were left out, because they have dead letters or the mapping cannot convert them: correct them and \
             settle their dead letters (tandem dead-letters list), then verify again",
            report.put_aside
        );
    }
    match (report.mismatches, report.undecided) {
        (0, 0) if report.put_aside > 0 => println!("{} rows checked, no other row differs", report.checked),
        (0, 0) => println!("{} rows checked, both stores agree", report.checked),
        (found, 0) => {
            println!("{} rows checked, {found} mismatches (they are on the mismatch topic)", report.checked);
        }
        (found, open) => println!(
            "{} rows checked, {found} mismatches, {open} rows kept changing and were not decided: verify again",
            report.checked
        ),
    }
}
