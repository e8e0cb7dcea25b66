//! The log against a real Kafka (`TANDEM_KAFKA_BROKERS`): when records are visible, who may publish, and
//! which offsets consumers have.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tandem_kafka::{
    Admin, Admission, Admitted, Cleanup, ConsumeError, GroupConsumer, GroupOffsets, KafkaConfig, Producer,
    PublishError, SchemaStore, TailReader, TopicSpec, TransactionalPublisher, Unapplied, read_all, read_last,
    read_unapplied, topic_specs,
};
use tandem_model::{ColumnDef, Disposition, TableDef, TableName, Version};
use tandem_wire::TableSchema;
use tandem_wire::log::{InRecord, OutRecord, Topics, VERSION_HEADER};

use crate::support::{Probe, brokers, eventually, free_port, unique_id};

/// How long records, offsets and errors may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A configuration with the test's own prefix.
fn config() -> KafkaConfig {
    KafkaConfig::new(brokers(), format!("evlog-{}", unique_id()))
}

async fn topic(config: &KafkaConfig, partitions: i32) -> (Admin, String) {
    let admin = Admin::connect(config).await.unwrap();
    let name = format!("{}.t", config.prefix);
    let spec = TopicSpec { name: name.clone(), partitions, cleanup: Cleanup::KeepAll };
    let ensured = admin.ensure_topics(&[spec]).await.unwrap();
    assert_eq!((ensured[0].partitions, ensured[0].created), (partitions, true));
    (admin, name)
}

fn record(topic: &str, partition: i32, text: &str) -> OutRecord {
    OutRecord {
        topic: topic.into(),
        partition,
        key: text.as_bytes().to_vec(),
        value: Some(text.as_bytes().to_vec()),
        version: Some(Version(7)),
        timestamp_ms: None,
    }
}

fn texts(records: &[InRecord]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8(r.value.clone().unwrap()).unwrap()).collect()
}

/// Reads until `count` records have arrived.
async fn take(reader: &mut TailReader, count: usize) -> Vec<InRecord> {
    let mut all = Vec::new();
    eventually(&format!("{count} records"), DEADLINE, async || {
        all.extend(reader.next_batch(1000, Duration::from_millis(200)).await?);
        Ok(Probe::when(all.len() >= count, format!("{} records", all.len())))
    })
    .await
    .unwrap();
    all
}

/// Reads until there is an error. Records are one kind of failure, silence another.
async fn until_error(
    mut next: impl AsyncFnMut() -> Result<Vec<InRecord>, ConsumeError>,
) -> anyhow::Result<ConsumeError> {
    eventually("an error", DEADLINE, async || match next().await {
        Ok(records) if records.is_empty() => Ok(Probe::Pending("no records".into())),
        Ok(records) => anyhow::bail!("records instead: {:?}", texts(&records)),
        Err(error) => Ok(Probe::Done(error)),
    })
    .await
}

/// Waits until the group has committed these offsets.
async fn until_committed(offsets: &GroupOffsets, topic: &str, expected: &[Option<i64>]) {
    eventually("the group's offsets to be committed", DEADLINE, async || {
        let found = committed(offsets, topic, expected.len() as i32).await;
        Ok(Probe::when(found == expected, format!("{found:?} instead of {expected:?}")))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_visible_whole_or_never() {
    let config = config();
    let (admin, topic) = topic(&config, 2).await;
    let publisher = TransactionalPublisher::start(&config, &config.prefix).await.unwrap();
    let mut reader =
        TailReader::start(&config, vec![(topic.clone(), 0, 0), (topic.clone(), 1, 0)]).await.unwrap();

    let batch = (0..100).map(|i| record(&topic, i % 2, &format!("first {i}"))).collect();
    let of = topic.clone();
    let ends = publisher
        .publish(batch, move |ends| {
            // The watermark's record is made from the offsets of the records before it.
            assert_eq!(ends[&(of.as_str().into(), 0)], 50);
            assert_eq!(ends[&(of.as_str().into(), 1)], 50);
            Ok(vec![record(&of, 1, "last")])
        })
        .await
        .unwrap();
    assert_eq!(ends.into_values().collect::<Vec<_>>(), [50, 51]);
    let read = take(&mut reader, 101).await;
    assert_eq!(read.len(), 101);
    assert_eq!(read[0].version, Some(Version(7)));

    let batch = (0..100).map(|i| record(&topic, i % 2, &format!("aborted {i}"))).collect();
    let error = publisher.publish(batch, |_| Err("no watermark".into())).await.unwrap_err();
    assert!(matches!(&error, PublishError::Finish(e) if e.to_string() == "no watermark"), "{error}");
    assert_eq!(error.retry(), Disposition::Stop);

    // Too large for any topic: the client refuses it, and with it the transaction.
    let mut huge = record(&topic, 0, "huge");
    huge.value = Some(vec![0; 70 << 20]);
    let error = publisher.publish(vec![record(&topic, 0, "with a huge one"), huge], |_| Ok(vec![])).await;
    assert!(
        matches!(error, Err(PublishError::Aborted { retry: Disposition::Stop | Disposition::Refuse, .. })),
        "{error:?}"
    );

    // The publisher continues, with offsets after the aborted records.
    let ends = publisher.publish(vec![record(&topic, 0, "after")], |_| Ok(vec![])).await.unwrap();
    assert!(ends[&(topic.as_str().into(), 0)] > 100);
    assert_eq!(texts(&take(&mut reader, 1).await), ["after"]);
    assert_eq!(reader.next_batch(10, Duration::from_millis(300)).await.unwrap(), []);

    // The reader reaches the end, past markers and aborted records.
    let ends = admin.end_offsets(&topic, 2).await.unwrap();
    for (partition, end) in ends.into_iter().enumerate() {
        eventually("the reader to come to the end", DEADLINE, async || {
            let _ = reader.next_batch(1, Duration::from_millis(1)).await?;
            let consumed = reader.consumed_to(&topic, partition as i32);
            Ok(Probe::when(consumed == Some(end), format!("{consumed:?} of {end}")))
        })
        .await
        .unwrap();
    }
    assert_eq!(reader.consumed_to(&topic, 2), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_does_not_wait_for_a_flush() {
    let config = config();
    let (_admin, topic) = topic(&config, 1).await;
    let publisher = TransactionalPublisher::start(&config, &config.prefix).await.unwrap();
    let mut fastest = Duration::MAX;
    for i in 0..50 {
        let began = Instant::now();
        let batch = vec![record(&topic, 0, &i.to_string())];
        publisher.publish(batch, |_| Ok(vec![])).await.unwrap();
        fastest = fastest.min(began.elapsed());
    }
    // librdkafka's own flush takes at least 100 ms, on any machine. The fastest of many is what load disturbs least.
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_publisher_fences_the_old_one() {
    let config = config();
    let (_admin, topic) = topic(&config, 1).await;
    let old = TransactionalPublisher::start(&config, &config.prefix).await.unwrap();
    old.publish(vec![record(&topic, 0, "old")], |_| Ok(vec![])).await.unwrap();
    let new = TransactionalPublisher::start(&config, &config.prefix).await.unwrap();
    let error = old.publish(vec![record(&topic, 0, "too late")], |_| Ok(vec![])).await.unwrap_err();
    assert!(matches!(error, PublishError::Fenced { .. }), "{error}");
    assert_eq!(error.retry(), Disposition::Stop);
    let error = old.publish(vec![record(&topic, 0, "too late")], |_| Ok(vec![])).await.unwrap_err();
    assert!(matches!(error, PublishError::Fenced { .. }), "{error}");
    new.publish(vec![record(&topic, 0, "new")], |_| Ok(vec![])).await.unwrap();
    assert_eq!(texts(&read_all(&config, &topic).await.unwrap()), ["old", "new"]);
}

/// The committed offsets of a topic's partitions.
async fn committed(offsets: &GroupOffsets, topic: &str, partitions: i32) -> Vec<Option<i64>> {
    let all = offsets.committed(&[topic.to_owned()]).await.unwrap();
    (0..partitions).map(|p| all[&(topic.to_owned(), p)]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_commits_what_is_done_and_reaches_the_end() {
    let config = config();
    let (admin, topic) = topic(&config, 3).await;
    let publisher = TransactionalPublisher::start(&config, &config.prefix).await.unwrap();
    // Partition 2 stays empty.
    for round in 0..3 {
        let batch = (0..10).map(|i| record(&topic, i % 2, &format!("{round}/{i}"))).collect();
        publisher.publish(batch, |_| Ok(vec![])).await.unwrap();
    }
    publisher.publish(vec![record(&topic, 0, "aborted")], |_| Err("no".into())).await.unwrap_err();

    let group = format!("{}.group", config.prefix);
    let offsets = GroupOffsets::new(&config, &group).unwrap();
    assert_eq!(committed(&offsets, &topic, 3).await, [None; 3]);
    let consumer = GroupConsumer::start(&config, &group, std::slice::from_ref(&topic)).await.unwrap();
    let mut records = Vec::new();
    while records.len() < 30 {
        records.extend(consumer.next_batch(7, Duration::from_secs(10)).await.unwrap());
    }
    // The partitions are assigned and no record is done: only the start is committed.
    until_committed(&offsets, &topic, &[Some(0); 3]).await;

    // All but the fourth record of partition 0 are done, so its offset is committed there.
    let fourth = records.iter().filter(|r| r.partition == 0).nth(3).unwrap().clone();
    let others: Vec<InRecord> = records.iter().filter(|r| **r != fourth).cloned().collect();
    consumer.done(&others).unwrap();
    let ends = admin.end_offsets(&topic, 3).await.unwrap();
    assert_eq!(ends[2], 0);
    let so_far = [Some(fourth.offset), Some(ends[1]), Some(0)];
    until_committed(&offsets, &topic, &so_far).await;
    // Time for a commit that must not come.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(committed(&offsets, &topic, 3).await, so_far);

    // With the last record done, the group is at the end: no lag is left, despite the markers.
    consumer.done(&[fourth]).unwrap();
    let all: Vec<Option<i64>> = ends.iter().copied().map(Some).collect();
    until_committed(&offsets, &topic, &all).await;
    consumer.close().await;
    assert_eq!(committed(&offsets, &topic, 3).await, all);

    // The next member of the group gets no old record, only new ones.
    let consumer = GroupConsumer::start(&config, &group, std::slice::from_ref(&topic)).await.unwrap();
    assert_eq!(consumer.next_batch(10, Duration::from_millis(1500)).await.unwrap(), []);
    publisher.publish(vec![record(&topic, 2, "later")], |_| Ok(vec![])).await.unwrap();
    assert_eq!(texts(&consumer.next_batch(10, Duration::from_secs(10)).await.unwrap()), ["later"]);
    assert_eq!(consumer.last_error(), None);
    // The record was not done, so it is delivered again.
    consumer.close().await;
    let consumer = GroupConsumer::start(&config, &group, std::slice::from_ref(&topic)).await.unwrap();
    assert_eq!(texts(&consumer.next_batch(10, Duration::from_secs(10)).await.unwrap()), ["later"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_and_nothing_is_skipped() {
    let config = config();
    let (admin, topic) = topic(&config, 6).await;
    let publisher = TransactionalPublisher::start(&config, &config.prefix).await.unwrap();
    let group = format!("{}.group", config.prefix);
    let published = AtomicBool::new(false);
    let publishing = async {
        for round in 0..60 {
            let batch = (0..60).map(|i| record(&topic, i % 6, &format!("{round}/{i}"))).collect();
            publisher.publish(batch, |_| Ok(vec![])).await.unwrap();
            // Publishing takes longer than the members take to come and go.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        published.store(true, Ordering::Relaxed);
    };
    // The last member stays until everything is published and no record has arrived for a while.
    let stays = |began: Instant, quiet_since: Instant, lives: Option<u64>| match lives {
        Some(lives) => began.elapsed() < Duration::from_millis(lives),
        None => !published.load(Ordering::Relaxed) || quiet_since.elapsed() < Duration::from_secs(3),
    };
    // Each member loses its unfinished records when it leaves.
    let member = async |delay: u64, lives: Option<u64>, seen: &mut BTreeSet<String>| {
        // The time before it joins.
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let consumer = GroupConsumer::start(&config, &group, std::slice::from_ref(&topic)).await.unwrap();
        let began = Instant::now();
        let mut quiet_since = began;
        while stays(began, quiet_since, lives) {
            assert!(began.elapsed() < Duration::from_mins(2), "records go on coming");
            let records = consumer.next_batch(20, Duration::from_millis(50)).await.unwrap();
            if !records.is_empty() {
                quiet_since = Instant::now();
            }
            // The time that its work takes.
            tokio::time::sleep(Duration::from_millis(5)).await;
            if stays(began, quiet_since, lives) {
                seen.extend(texts(&records));
                consumer.done(&records).unwrap();
            }
        }
        consumer.close().await;
    };
    let (mut a, mut b, mut c) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    tokio::join!(
        publishing,
        member(0, None, &mut a),
        member(700, Some(3000), &mut b),
        member(1200, Some(3500), &mut c)
    );
    eprintln!("members did {}, {} and {} records", a.len(), b.len(), c.len());
    assert!(!b.is_empty() && !c.is_empty());
    a.extend(b);
    a.extend(c);
    assert_eq!(a.len(), 3600);
    let offsets = GroupOffsets::new(&config, &group).unwrap();
    let ends: Vec<Option<i64>> = admin.end_offsets(&topic, 6).await.unwrap().into_iter().map(Some).collect();
    assert_eq!(committed(&offsets, &topic, 6).await, ends);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_waited_for() {
    let config = config();
    let (_admin, topic) = topic(&config, 2).await;
    let producer = Producer::start(&config).await.unwrap();
    let filler = "x".repeat(1000);
    let count = 60_000;
    for chunk in 0..count / 2000 {
        let batch = (0..2000).map(|i| record(&topic, i % 2, &format!("{chunk}/{i} {filler}"))).collect();
        producer.send(batch).await.unwrap();
    }
    let group = format!("{}.group", config.prefix);
    let consumer = GroupConsumer::start(&config, &group, std::slice::from_ref(&topic)).await.unwrap();
    let mut last: HashMap<i32, i64> = HashMap::new();
    let mut seen = 0;
    while seen < count {
        let records = consumer.next_batch(5000, Duration::from_secs(10)).await.unwrap();
        assert!(!records.is_empty(), "{seen} of {count} records came");
        if seen == 0 {
            // Long enough for the partitions to be paused.
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        for record in &records {
            let last = last.entry(record.partition).or_insert(-1);
            assert_eq!(record.offset, *last + 1);
            *last = record.offset;
        }
        seen += records.len() as i32;
        consumer.done(&records).unwrap();
    }
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_starts_at_a_given_offset() {
    let config = config();
    let (_admin, topic) = topic(&config, 1).await;
    let producer = Producer::start(&config).await.unwrap();
    let batch = (0..10).map(|i| record(&topic, 0, &i.to_string())).collect();
    assert_eq!(producer.send(batch).await.unwrap(), (0..10).collect::<Vec<i64>>());

    let group = format!("{}.reader", config.prefix);
    let mut reader = TailReader::start_as(&config, &group, vec![(topic.clone(), 0, 4)]).await.unwrap();
    assert_eq!(reader.consumed_to(&topic, 0), Some(4));
    let first = reader.next_batch(3, Duration::from_secs(10)).await.unwrap();
    assert_eq!(texts(&first)[0], "4");
    let at = 4 + first.len() as i64;
    assert_eq!(reader.consumed_to(&topic, 0), Some(at));
    reader.commit(vec![(topic.clone(), 0, at)]).await.unwrap();
    let offsets = GroupOffsets::new(&config, &group).unwrap();
    assert_eq!(committed(&offsets, &topic, 1).await, [Some(at)]);

    let mut reader = TailReader::start(&config, vec![(topic.clone(), 0, 11)]).await.unwrap();
    let error = until_error(async || reader.next_batch(10, Duration::from_secs(1)).await).await.unwrap();
    assert!(matches!(error, ConsumeError::OffsetOutOfRange(_)), "{error}");
    assert!(matches!(reader.next_batch(10, Duration::from_secs(1)).await, Err(ConsumeError::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_record_is_a_committed_one() {
    let config = config();
    let (_admin, topic) = topic(&config, 1).await;
    assert_eq!(read_last(&config, &topic, 0).await.unwrap(), None);
    assert_eq!(read_all(&config, &topic).await.unwrap(), []);
    let publisher = TransactionalPublisher::start(&config, &config.prefix).await.unwrap();
    let aborted = |count: usize| {
        let batch: Vec<OutRecord> = (0..count).map(|i| record(&topic, 0, &format!("aborted {i}"))).collect();
        publisher.publish(batch, |_| Err("no".into()))
    };
    aborted(20).await.unwrap_err();
    assert_eq!(read_last(&config, &topic, 0).await.unwrap(), None);
    let batch = (0..3).map(|i| record(&topic, 0, &i.to_string())).collect();
    publisher.publish(batch, |_| Ok(vec![])).await.unwrap();
    assert_eq!(texts(&[read_last(&config, &topic, 0).await.unwrap().unwrap()]), ["2"]);
    aborted(1000).await.unwrap_err();
    for _ in 0..20 {
        aborted(1).await.unwrap_err();
    }
    let last = read_last(&config, &topic, 0).await.unwrap().unwrap();
    assert_eq!((texts(std::slice::from_ref(&last))[0].as_str(), last.version), ("2", Some(Version(7))));
    assert_eq!(texts(&read_all(&config, &topic).await.unwrap()), ["0", "1", "2"]);
    let missing = read_all(&config, &format!("{topic}.missing")).await.unwrap_err();
    assert!(matches!(missing, ConsumeError::NoTopic(_)), "{missing}");
}

fn table(name: &str) -> Arc<TableDef> {
    let column =
        |name: &str, ty: &str| ColumnDef { name: name.into(), ty: ty.parse().unwrap(), nullable: false };
    Arc::new(TableDef {
        name: TableName::new("shop", name),
        columns: vec![column("id", "bigint"), column("name", "text")],
        primary_key: vec![0],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_known_everywhere() {
    let config = config();
    let writer = SchemaStore::open(&config).await.unwrap();
    let reader = SchemaStore::open(&config).await.unwrap();
    let topic = Topics::new(&config.prefix).changes(&table("orders").name);

    // The schema is requested before it exists.
    let schema = TableSchema::new(table("orders"), &config.prefix);
    let waiting = tokio::spawn({
        let (reader, id) = (reader.clone(), schema.value_id());
        async move { reader.get(id).await.unwrap() }
    });
    // Long enough for the request to come first.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let registered = writer.register_table(&topic, &schema).await.unwrap();
    assert_eq!((registered.value_id(), registered.salt()), (schema.value_id(), 0));
    assert_eq!(waiting.await.unwrap().table(), &table("orders"));
    assert_eq!(reader.json(schema.value_id()).as_deref(), Some(schema.value_json()));

    // Both register the same schema again: nothing is written.
    let count = read_all(&config, &Topics::new(&config.prefix).schemas()).await.unwrap().len();
    assert_eq!(count, 2);
    for store in [&writer, &reader] {
        store.register_table(&topic, &schema).await.unwrap();
    }
    assert_eq!(read_all(&config, &Topics::new(&config.prefix).schemas()).await.unwrap().len(), 2);

    // Another table whose id is taken gets a salt.
    let other = TableSchema::new(table("items"), &config.prefix);
    let taken = serde_json::json!({ "subject": "elsewhere", "id": other.value_id() });
    let plant = OutRecord {
        topic: Topics::new(&config.prefix).schemas().into(),
        key: taken.to_string().into_bytes(),
        value: Some(b"{\"type\":\"string\"}".to_vec()),
        ..record("", 0, "")
    };
    Producer::start(&config).await.unwrap().send(vec![plant]).await.unwrap();
    let taken = reader.register("items", &other).await;
    assert!(matches!(taken, Err(ConsumeError::SchemaCollision { .. })), "{taken:?}");
    let salted = reader.register_table("items", &other).await.unwrap();
    assert_eq!(salted.salt(), 1);
    assert_eq!(writer.get(salted.value_id()).await.unwrap().table(), &table("items"));

    // A store that is opened later has all of them.
    let late = SchemaStore::open(&config).await.unwrap();
    assert!(late.json(salted.key_id()).is_some() && late.json(schema.key_id()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_once() {
    let mut config = config();
    config.partitions = 2;
    let admin = Admin::connect(&config).await.unwrap();
    let specs = topic_specs(&config, &[TableName::new("shop", "a-b")]);
    let made = admin.ensure_topics(&specs).await.unwrap();
    assert!(made.iter().all(|t| t.created));
    config.partitions = 5;
    let specs = topic_specs(&config, &[TableName::new("shop", "a-b")]);
    let found = admin.ensure_topics(&specs).await.unwrap();
    assert!(found.iter().all(|t| !t.created));
    let counts: BTreeMap<&str, i32> = found.iter().map(|t| (t.name.as_str(), t.partitions)).collect();
    assert_eq!(counts[Topics::new(&config.prefix).changes(&TableName::new("shop", "a-b")).as_str()], 2);
    let missing = admin.partitions(&format!("{}.missing", config.prefix)).await;
    assert!(matches!(missing, Err(ConsumeError::NoTopic(_))), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_is_an_error_that_names_it() {
    // A port without a listener.
    let port = free_port().unwrap();
    let config = KafkaConfig::new(format!("127.0.0.1:{port}"), "nowhere");
    let began = Instant::now();
    let (admin, publisher, producer, group, tail, last) = tokio::join!(
        Admin::connect(&config),
        TransactionalPublisher::start(&config, "id"),
        Producer::start(&config),
        GroupConsumer::start(&config, "group", &[]),
        TailReader::start(&config, vec![]),
        read_last(&config, "topic", 0),
    );
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let messages = [
        admin.err().unwrap().to_string(),
        publisher.err().unwrap().to_string(),
        producer.err().unwrap().to_string(),
        group.err().unwrap().to_string(),
        tail.err().unwrap().to_string(),
        last.err().unwrap().to_string(),
    ];
    for message in messages {
        assert!(message.starts_with("no Kafka broker answered at 127.0.0.1:"), "{message}");
        assert!(message.contains("refused"), "{message}");
    }
}

/// A group whose offsets have expired looks like a new one. If records were deleted meanwhile, it must not
/// continue after them as if it had handled them.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_offsets_does_not_skip_deleted_records() {
    let config = config();
    let (_admin, topic) = topic(&config, 1).await;
    let producer = Producer::start(&config).await.unwrap();
    producer.send((0..10).map(|i| record(&topic, 0, &format!("{i}"))).collect()).await.unwrap();
    let client: rdkafka::admin::AdminClient<rdkafka::client::DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &config.brokers).create().unwrap();
    let mut upto = rdkafka::TopicPartitionList::new();
    upto.add_partition_offset(&topic, 0, rdkafka::Offset::Offset(4)).unwrap();
    client.delete_records(&upto, &rdkafka::admin::AdminOptions::new()).await.unwrap();

    let group = format!("{}.late", config.prefix);
    let consumer = GroupConsumer::start(&config, &group, &[topic]).await.unwrap();
    let error =
        until_error(async || consumer.next_batch(100, Duration::from_millis(200)).await).await.unwrap();
    assert!(matches!(&error, ConsumeError::OffsetOutOfRange(_)), "{error:?}");
    assert_eq!(error.retry(), Disposition::Stop);
}

/// A record whose version cannot be read is not skipped: its offset is not committed, and the next member meets it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_with_a_bad_version_is_not_skipped() {
    let config = config();
    let (_admin, topic) = topic(&config, 1).await;
    let producer = Producer::start(&config).await.unwrap();
    producer.send(vec![record(&topic, 0, "good")]).await.unwrap();
    let raw: rdkafka::producer::FutureProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &config.brokers).create().unwrap();
    let headers = rdkafka::message::OwnedHeaders::new()
        .insert(rdkafka::message::Header { key: VERSION_HEADER, value: Some("not a number") });
    let bad = rdkafka::producer::FutureRecord::to(&topic).partition(0).key("k").payload("v").headers(headers);
    raw.send(bad, DEADLINE).await.unwrap();
    producer.send(vec![record(&topic, 0, "behind it")]).await.unwrap();

    let group = format!("{}.bad", config.prefix);
    for _ in 0..2 {
        let consumer = GroupConsumer::start(&config, &group, std::slice::from_ref(&topic)).await.unwrap();
        let error = until_error(async || {
            let records = consumer.next_batch(100, Duration::from_millis(200)).await?;
            consumer.done(&records)?;
            Ok(Vec::new())
        });
        let error = error.await.unwrap();
        assert!(matches!(&error, ConsumeError::BadVersion { offset: 1, .. }), "{error:?}");
        consumer.close().await;
    }
    let offsets = GroupOffsets::new(&config, &group).unwrap();
    assert_eq!(committed(&offsets, &topic, 1).await, [Some(1)]);
}

/// The thread that asks holds up the group's rebalances and hears nothing of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_gets_no_answer_leaves_and_can_join_again() {
    let config = config();
    let (_admin, topic) = topic(&config, 1).await;
    Producer::start(&config).await.unwrap().send(vec![record(&topic, 0, "first")]).await.unwrap();
    let group = format!("{}.asked", config.prefix);
    let member = async |admission| {
        let topics = std::slice::from_ref(&topic);
        GroupConsumer::start_admitted(&config, &group, topics, admission).await.unwrap()
    };
    let unanswered = member(Admission::new("a", Arc::new(|_| Err("no answer".into())))).await;
    let error =
        until_error(async || unanswered.next_batch(100, Duration::from_millis(200)).await).await.unwrap();
    assert!(matches!(error, ConsumeError::NotAdmitted), "{error:?}");
    unanswered.close().await;
    let admitted = member(Admission::new("b", Arc::new(|_| Ok(Admitted::Yes)))).await;
    let found = eventually("the record", DEADLINE, async || {
        let records = admitted.next_batch(100, Duration::from_millis(200)).await?;
        Ok(if records.is_empty() { Probe::Pending("no records".into()) } else { Probe::Done(records) })
    });
    assert_eq!(texts(&found.await.unwrap()), ["first"]);
    admitted.close().await;
}

/// The lag is that of the oldest record that is not applied, in any partition. A partition without such
/// records does not count. A partition that cannot be read is an error, not a smaller lag.
#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_record_of_a_lag_is_found_or_it_is_an_error() {
    let config = config();
    let (admin, topic) = topic(&config, 3).await;
    let publisher = TransactionalPublisher::start(&config, &config.prefix).await.unwrap();
    let at = |partition, ms| OutRecord { timestamp_ms: Some(ms), ..record(&topic, partition, "x") };
    publisher.publish(vec![at(0, 3_000), at(0, 1_000)], |_| Ok(vec![])).await.unwrap();
    publisher.publish(vec![at(1, 2_000)], |_| Ok(vec![])).await.unwrap();
    publisher.publish(vec![at(2, 500)], |_| Err("no".into())).await.unwrap_err();
    let ends = admin.end_offsets(&topic, 3).await.unwrap();
    let ranges = |from: [i64; 3]| -> Vec<(String, i32, std::ops::Range<i64>)> {
        (0..3).map(|p| (topic.clone(), p, from[p as usize]..ends[p as usize])).collect()
    };
    let oldest = async |places| {
        let seen = read_unapplied(&config, places, Duration::ZERO, |_| {}).await?;
        Ok::<_, ConsumeError>(seen.oldest_ms)
    };
    assert_eq!(oldest(ranges([0, 0, 0])).await.unwrap(), Some(2_000));
    assert_eq!(oldest(ranges([1, 0, 0])).await.unwrap(), Some(1_000));
    assert_eq!(oldest(ranges([2, 1, 0])).await.unwrap(), None);
    let never = vec![(topic.clone(), 2, 0..1_000)];
    assert_eq!(oldest(never).await.unwrap_err().retry(), Disposition::Retry);
    let mut count = 0;
    let seen = read_unapplied(&config, ranges([0, 0, 0]), DEADLINE, |_| count += 1).await.unwrap();
    assert_eq!((seen, count), (Unapplied { oldest_ms: Some(2_000), complete: true }, 3));
}
