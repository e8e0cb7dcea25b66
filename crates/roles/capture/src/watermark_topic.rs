//! The records that end capture's Kafka transactions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tandem_model::Watermark;
use tandem_protocol::watermark_log::WatermarkWriter;
use tandem_wire::control::{WatermarkRecord, encode_watermark};
use tandem_wire::log::{EndOffsets, OutRecord, Topics};

/// The watermark topic, for one session of capture. Cheap to clone.
#[derive(Clone)]
pub(crate) struct WatermarkTopic {
    topic: Arc<str>,
    state: Arc<Mutex<State>>,
}

struct State {
    /// For every change topic and each of its partitions: the offset after the last published record.
    ends: BTreeMap<String, Vec<i64>>,
    writer: WatermarkWriter,
    /// The last record and its whole watermark, until they are committed.
    open: Option<(Watermark, WatermarkRecord)>,
}

impl WatermarkTopic {
    /// Begins a session. `ends` has the offsets after the last published records.
    pub(crate) fn new(topics: &Topics, ends: BTreeMap<String, Vec<i64>>) -> Self {
        let state = State { ends, writer: WatermarkWriter::default(), open: None };
        Self { topic: topics.watermarks().into(), state: Arc::new(Mutex::new(state)) }
    }

    /// The record of a watermark, with the offsets that Kafka assigned to the other records of its transaction.
    pub(crate) fn record(&self, watermark: Watermark, offsets: &EndOffsets) -> OutRecord {
        let mut state = self.lock();
        for ((topic, partition), &end) in offsets {
            let known = state.ends.get_mut(topic.as_ref());
            if let Some(slot) = known.and_then(|ends| ends.get_mut(*partition as usize)) {
                *slot = end;
            }
        }
        let watermark = Watermark { offsets: state.ends.clone(), ..watermark };
        let record = state.writer.record(&watermark);
        let out = OutRecord {
            topic: Arc::clone(&self.topic),
            partition: 0,
            key: record.key(),
            value: Some(encode_watermark(&record)),
            version: Some(watermark.version),
            timestamp_ms: Some(watermark.clock_us / 1000),
        };
        state.open = Some((watermark, record));
        out
    }

    /// Notes that the transaction with the last record is committed. `offsets` has the offsets after its records.
    pub(crate) fn committed(&self, offsets: &EndOffsets) {
        let mut state = self.lock();
        // A record without a known offset is not completed by others: the next one is full.
        if let Some((watermark, record)) = state.open.take()
            && let Some(&end) = offsets.get(&(Arc::clone(&self.topic), 0))
            && end > 0
        {
            state.writer.committed(watermark, &record, end - 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
