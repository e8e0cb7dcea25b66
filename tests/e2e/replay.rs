//! Assembles a part of the binlog again, undisturbed, and compares it with the log.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tandem_kafka::read_all;
use tandem_model::Watermark;
use tandem_mysql::BinlogStream;
use tandem_protocol::assemble::{Assembler, AssemblerConfig};
use tandem_protocol::watermark_log::WatermarkReader;
use tandem_watermarks::read_watermark;
use tandem_wire::log::InRecord;

use crate::support::Migration;

/// The assembler config of a migration with the one table `t` on three partitions.
pub(crate) fn outline(migration: &Migration) -> AssemblerConfig {
    let (topics, table) = (migration.topics(), migration.table("t"));
    AssemblerConfig {
        truncatable: HashSet::new(),
        tables: HashSet::from([table.clone()]),
        partitions: HashMap::from([(topics.changes(&table), 3)]),
        topics,
        max_clock_ahead_us: 60_000_000,
        prepared_bytes: 1 << 20,
        tombstones: false,
    }
}

/// Every committed watermark, in order.
pub(crate) async fn watermarks(migration: &Migration) -> anyhow::Result<Vec<Watermark>> {
    let topic = migration.topics().watermarks();
    let (mut reader, mut watermarks) = (WatermarkReader::default(), Vec::new());
    for record in read_all(&migration.kafka(), &topic).await? {
        let watermark = read_watermark(&mut reader, &record)?;
        watermarks.push(Arc::unwrap_or_clone(watermark.context("a delta's full record is not on the log")?));
    }
    Ok(watermarks)
}

/// Every committed change of the table, by version.
pub(crate) async fn changes(migration: &Migration) -> anyhow::Result<Vec<InRecord>> {
    let topic = migration.topics().changes(&migration.table("t"));
    let mut records = read_all(&migration.kafka(), &topic).await?;
    records.sort_by_key(|r| r.version);
    Ok(records)
}

/// Requires that an undisturbed capture that begins at the `from`th watermark, with its watermarks at the
/// same positions, writes the same bytes and versions as on the log. Returns how many changes were compared.
pub(crate) async fn same_again(
    migration: &Migration,
    watermarks: &[Watermark],
    from: usize,
    log: &[InRecord],
) -> anyhow::Result<usize> {
    let first = &watermarks[from];
    let config = migration.mysql_config();
    let outline = outline(migration);
    let tables = outline.tables.clone();
    let mut stream = BinlogStream::open(&config, &first.gtid_set, move |t| tables.contains(t)).await?;
    let mut assembler = Assembler::resume(outline, first);
    let mut compared = 0;
    for pair in watermarks[from..].windows(2) {
        let between: Vec<&InRecord> = log
            .iter()
            .filter(|r| r.version > Some(pair[0].version) && r.version < Some(pair[1].version))
            .collect();
        while assembler.len() < between.len() {
            let event = tokio::time::timeout(Duration::from_secs(30), stream.next()).await??;
            assembler.on_event(event, i64::MAX / 2)?;
        }
        let (batch, watermark) = assembler.take(Some(pair[1].clock_us));
        assert_eq!(watermark.version, pair[1].version, "after watermark {}", pair[0].version);
        assert_eq!(batch.records.len(), between.len(), "after watermark {}", pair[0].version);
        for (again, published) in batch.records.iter().zip(&between) {
            assert_eq!(again.version, published.version);
            assert_eq!(again.partition, published.partition);
            assert!(
                Some(&again.key) == published.key.as_ref() && again.value == published.value,
                "another record at {:?}",
                again.version
            );
        }
        compared += between.len();
    }
    Ok(compared)
}
