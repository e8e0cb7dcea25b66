//! Mismatch events.

use std::collections::HashMap;

use tandem_kafka::{KafkaConfig, Producer, read_all};
use tandem_mapping::{Difference, printable};
use tandem_model::Value;
use tandem_runtime::now_us;
use tandem_wire::WireError;
use tandem_wire::control::{FoundBy, Mismatch, MismatchKind, MismatchState, decode_control, encode_control};
use tandem_wire::log::OutRecord;

use crate::check::{CheckError, CheckedTable, Checker, Confirmed, Outcome, Suspect};

impl Checker {
    /// Publishes every confirmed mismatch among the checked rows: one event for each target row that differs.
    /// Reconcile takes them up. Returns how many events there were, once Kafka has acknowledged them.
    ///
    /// # Errors
    /// A key cannot be encoded, or Kafka does not take the events.
    pub async fn publish_mismatches<'a>(
        &self,
        kafka: &KafkaConfig,
        producer: &Producer,
        table: &CheckedTable,
        checked: impl Iterator<Item = (&'a Suspect, &'a Outcome, FoundBy)>,
    ) -> Result<usize, CheckError> {
        let mut records = Vec::new();
        for (suspect, outcome, found_by) in checked {
            let Outcome::Mismatch(confirmed) = outcome else { continue };
            for event in found(table, &suspect.key, confirmed, found_by)? {
                self.metrics.mismatches.get_or_create(&event.kind.into()).inc();
                records.push(mismatch_record(kafka, &event)?);
            }
        }
        let count = records.len();
        if count > 0 {
            tracing::warn!(table = %table.source().name, target_rows = count, "mismatches confirmed");
            producer.send(records).await?;
        }
        Ok(count)
    }
}

fn found(
    table: &CheckedTable,
    key: &[Value],
    confirmed: &Confirmed,
    found_by: FoundBy,
) -> Result<Vec<Mismatch>, WireError> {
    let source_key = table.framed_key(key)?;
    let events = confirmed.differences.iter().map(|d| {
        let target = table.plan.targets()[d.target].table();
        let (kind, columns) = match &d.difference {
            Difference::Missing => (MismatchKind::Missing, Vec::new()),
            Difference::Extra => (MismatchKind::Extra, Vec::new()),
            Difference::Cells(cells) => {
                let names = cells.iter().filter_map(|&i| target.regular.get(i)).map(|c| c.name.clone());
                (MismatchKind::Different, names.collect())
            }
        };
        Mismatch {
            table: table.source().name.to_string(),
            target: target.name.clone(),
            source_key: source_key.clone(),
            target_key: target.key_columns().zip(&d.key).map(|(c, bytes)| printable(c.ty, bytes)).collect(),
            kind,
            columns,
            state: MismatchState::Found,
            lower: confirmed.lower.version.0,
            upper: confirmed.upper.version.0,
            writetimes: d.writetimes.clone(),
            detected_at_us: now_us(),
            raw_target_key: d.key.clone(),
            found_by,
        }
    });
    Ok(events.collect())
}

/// The record of an event. All events of one target row have one key and one partition.
///
/// # Errors
/// The event cannot be encoded.
pub fn mismatch_record(kafka: &KafkaConfig, event: &Mismatch) -> Result<OutRecord, CheckError> {
    Ok(OutRecord::control(kafka.topics().mismatches(), record_key(event), encode_control(event)?))
}

/// The key of an event's record: the target and the target key, as a JSON array. Two rows never have one key, whatever
/// their texts contain.
fn record_key(event: &Mismatch) -> Vec<u8> {
    let parts = std::iter::once(&event.target).chain(&event.target_key);
    parts.map(String::as_str).collect::<serde_json::Value>().to_string().into_bytes()
}

/// How many mismatches the log holds, by what has become of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MismatchCounts {
    /// Confirmed.
    pub found: u64,
    /// Repaired, or found equal since.
    pub resolved: u64,
    /// Not mended by repairs.
    pub unrepairable: u64,
    /// Target rows whose last event says that they differ.
    pub open: u64,
}

/// Counts the events of the whole mismatch topic.
pub async fn count_mismatches(kafka: &KafkaConfig) -> Result<MismatchCounts, CheckError> {
    let records = read_all(kafka, &kafka.topics().mismatches()).await?;
    let mut counts = MismatchCounts::default();
    let mut open = HashMap::new();
    for record in records {
        let Some(value) = &record.value else { continue };
        let event: Mismatch = decode_control(value)?;
        match event.state {
            MismatchState::Found => counts.found += 1,
            MismatchState::Resolved => counts.resolved += 1,
            MismatchState::Unrepairable => counts.unrepairable += 1,
        }
        open.insert(record.key, event.state != MismatchState::Resolved);
    }
    counts.open = open.values().filter(|open| **open).count() as u64;
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rows_never_have_one_record_key() {
        let event = |target: &str, key: &[&str]| Mismatch {
            table: "d.t".into(),
            target: target.into(),
            source_key: vec![],
            target_key: key.iter().map(|part| (*part).to_owned()).collect(),
            kind: MismatchKind::Missing,
            columns: vec![],
            state: MismatchState::Found,
            lower: 1,
            upper: 2,
            writetimes: vec![],
            detected_at_us: 3,
            raw_target_key: vec![],
            found_by: FoundBy::Verification,
        };
        let keys = [
            event("t", &["a/b", "c"]),
            event("t", &["a", "b/c"]),
            event("t", &["a", "b", "c"]),
            event("t", &["a\",\"b", "c"]),
            event("t/a", &["b", "c"]),
        ]
        .map(|event| record_key(&event));
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(keys[0], br#"["t","a/b","c"]"#);
    }
}
