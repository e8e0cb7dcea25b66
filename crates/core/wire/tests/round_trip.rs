//! Checks the handwritten encoder and reader against each other and against apache-avro.

// Helpers of tests may panic like tests; clippy exempts only functions marked as tests.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Schema, schema::SchemaKind};
use proptest::prelude::*;
use proptest::strategy::Union;
use tandem_model::{
    Change, ColumnDef, ColumnType, Decimal, Epoch, NativeSource, Nonce, Op, Row, SourceInfo, TableDef,
    TableName, Value, Version,
};
use tandem_wire::{EncodedChange, Images, ReadKeySchema, ReadSchema, TableSchema, WireError, schema_id};

/// The size of the frame in bytes: a zero byte and the schema id.
const FRAME: usize = 5;

fn any_type() -> impl Strategy<Value = ColumnType> {
    let fsp = 0u8..=6;
    prop_oneof![
        (prop::sample::select(vec![8u8, 16, 24, 32, 64]), any::<bool>())
            .prop_map(|(bits, unsigned)| ColumnType::Int { bits, unsigned }),
        Just(ColumnType::Float),
        Just(ColumnType::Double),
        (1u8..=65)
            .prop_flat_map(|p| (Just(p), 0..=p.min(30)))
            .prop_map(|(precision, scale)| ColumnType::Decimal { precision, scale }),
        Just(ColumnType::Year),
        Just(ColumnType::Date),
        fsp.clone().prop_map(|fsp| ColumnType::Time { fsp }),
        fsp.clone().prop_map(|fsp| ColumnType::DateTime { fsp }),
        fsp.prop_map(|fsp| ColumnType::Timestamp { fsp }),
        (1u8..=64).prop_map(|bits| ColumnType::Bit { bits }),
        prop::sample::select(vec![ColumnType::Json, ColumnType::Geometry, ColumnType::Vector]),
        Just(ColumnType::Text),
        Just(ColumnType::Bytes { fixed: None }),
        (0u16..20).prop_map(|n| ColumnType::Bytes { fixed: Some(n) }),
        prop::collection::vec("[a-z',)é]{0,4}", 1..4).prop_map(ColumnType::Enum),
        prop::collection::vec("[a-z']{0,4}", 1..4).prop_map(ColumnType::Set),
    ]
}

fn int_of(bits: u8, unsigned: bool) -> BoxedStrategy<Value> {
    match (bits, unsigned) {
        (64, false) => any::<i64>().prop_map(Value::Int).boxed(),
        (64, true) => any::<u64>().prop_map(Value::UInt).boxed(),
        (_, false) => (-(1i64 << (bits - 1))..1i64 << (bits - 1)).prop_map(Value::Int).boxed(),
        (_, true) => (0..1u64 << bits).prop_map(Value::UInt).boxed(),
    }
}

fn value_of(column: &ColumnDef) -> BoxedStrategy<Value> {
    let invalid = prop::sample::select(vec!["0000-00-00", "2024-00-00 00:00:00"])
        .prop_map(|s| Value::InvalidDate(s.to_owned()));
    let plain = match &column.ty {
        &ColumnType::Int { bits, unsigned } => int_of(bits, unsigned),
        ColumnType::Float => any::<f32>().prop_map(Value::Float).boxed(),
        ColumnType::Double => any::<f64>().prop_map(Value::Double).boxed(),
        &ColumnType::Decimal { precision, scale } => {
            (prop::collection::vec(0u8..10, 1..=usize::from(precision)), any::<bool>())
                .prop_map(move |(digits, negative)| {
                    let digits: String = digits.iter().map(|d| char::from(b'0' + d)).collect();
                    let digits = format!("{digits:0>width$}", width = usize::from(scale) + 1);
                    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
                    let text = format!("{}{whole}.{fraction}", if negative { "-" } else { "" });
                    Value::Decimal(Decimal::parse(&text, u32::from(scale)).unwrap())
                })
                .boxed()
        }
        ColumnType::Year => (0i64..=2155).prop_map(Value::Int).boxed(),
        ColumnType::Date => prop_oneof![any::<i32>().prop_map(Value::Date), invalid].boxed(),
        ColumnType::Time { .. } => any::<i64>().prop_map(Value::Time).boxed(),
        ColumnType::DateTime { .. } => prop_oneof![any::<i64>().prop_map(Value::DateTime), invalid].boxed(),
        ColumnType::Timestamp { .. } => prop_oneof![any::<i64>().prop_map(Value::Timestamp), invalid].boxed(),
        ColumnType::Bit { bits } => {
            let unused = 64 - bits;
            any::<u64>().prop_map(move |v| Value::UInt(v >> unused)).boxed()
        }
        ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_) | ColumnType::Json => {
            ".{0,20}".prop_map(Value::Text).boxed()
        }
        ColumnType::Bytes { fixed: None } | ColumnType::Geometry | ColumnType::Vector => {
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes).boxed()
        }
        ColumnType::Bytes { fixed: Some(n) } => {
            prop::collection::vec(any::<u8>(), usize::from(*n)).prop_map(Value::Bytes).boxed()
        }
    };
    if column.nullable {
        Union::new_weighted(vec![(1, Just(Value::Null).boxed()), (4, plain)]).boxed()
    } else {
        plain
    }
}

fn any_table() -> impl Strategy<Value = Arc<TableDef>> {
    let names = prop::collection::hash_set("[a-cA-C1_ \\-é]{1,6}", 1..8);
    (names, "[a-z0-9\\-é]{1,8}", "[a-z0-9.]{1,8}").prop_flat_map(|(names, database, table)| {
        let columns: Vec<_> = names
            .into_iter()
            .map(|name| {
                (any_type(), any::<bool>()).prop_map(move |(ty, nullable)| ColumnDef {
                    name: name.clone(),
                    ty,
                    nullable,
                })
            })
            .collect();
        let count = columns.len();
        let key = Just((0..count).collect::<Vec<_>>()).prop_shuffle();
        (columns, key, 0..=count, Just(TableName::new(database, table))).prop_map(
            |(columns, mut primary_key, keep, name)| {
                primary_key.truncate(keep);
                Arc::new(TableDef { name, columns, primary_key })
            },
        )
    })
}

fn row_of(table: &TableDef) -> impl Strategy<Value = Row> + use<> {
    table.columns.iter().map(value_of).collect::<Vec<_>>()
}

fn any_source() -> impl Strategy<Value = SourceInfo> {
    prop_oneof![4 => captured_source(), 1 => native_source()]
}

fn native_source() -> impl Strategy<Value = SourceInfo> {
    (any::<u32>(), any::<Option<u128>>(), any::<i32>()).prop_map(|(epoch, request, ts_us)| SourceInfo {
        ts_us: ts_us.into(),
        native: Some(NativeSource { epoch: Epoch(epoch), request: request.map(Nonce) }),
        ..SourceInfo::default()
    })
}

fn captured_source() -> impl Strategy<Value = SourceInfo> {
    (
        prop::option::of("[0-9a-f\\-]{36}:[0-9]{1,9}"),
        "(binlog\\.[0-9]{6})?",
        0u64..1 << 40,
        0u64..1 << 40,
        any::<u32>(),
        -(1i64 << 60)..1i64 << 60,
    )
        .prop_map(|(gtid, file, pos, row, server_id, ts_us)| SourceInfo {
            gtid,
            file: file.into(),
            pos,
            row,
            server_id,
            ts_us,
            native: None,
        })
}

fn any_change() -> impl Strategy<Value = Change> {
    any_table().prop_flat_map(|table| {
        let op = prop::sample::select(vec![Op::Create, Op::Update, Op::Delete, Op::Snapshot, Op::Resnapshot]);
        (op, row_of(&table), row_of(&table), any_source(), any::<i64>(), Just(table)).prop_map(
            |(op, before, after, source, version, table)| Change {
                table,
                op,
                before: matches!(op, Op::Update | Op::Delete).then_some(before),
                after: (op != Op::Delete).then_some(after),
                version: Version(version),
                source,
            },
        )
    })
}

/// The change as text for comparisons. Floats are printed as bits, because NaN is not equal to itself.
fn bits(change: &Change) -> String {
    let rows = [&change.before, &change.after].map(|row| {
        row.as_ref().map(|row| {
            row.iter()
                .map(|value| match value {
                    Value::Float(v) => format!("f{:x}", v.to_bits()),
                    Value::Double(v) => format!("d{:x}", v.to_bits()),
                    other => format!("{other:?}"),
                })
                .collect::<Vec<_>>()
        })
    });
    format!("{:?} {rows:?} {:?} {:?} {:?}", change.table, change.op, change.version, change.source)
}

/// Converts a value read by apache-avro to the model's value.
fn model_value(avro: &Avro, column: &ColumnDef) -> Value {
    let time = matches!(column.ty, ColumnType::Time { .. });
    let unsigned = matches!(column.ty, ColumnType::Int { unsigned: true, .. } | ColumnType::Bit { .. });
    match avro {
        Avro::Union(_, inner) => match (&**inner, &column.ty) {
            (
                Avro::String(s),
                ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. },
            ) => Value::InvalidDate(s.clone()),
            (inner, _) => model_value(inner, column),
        },
        Avro::Null => Value::Null,
        Avro::Int(v) if unsigned => Value::UInt(*v as u64),
        Avro::Int(v) => Value::Int(i64::from(*v)),
        Avro::Long(v) if time => Value::Time(*v),
        Avro::Long(v) if unsigned => Value::UInt(*v as u64),
        Avro::Long(v) => Value::Int(*v),
        Avro::Float(v) => Value::Float(*v),
        Avro::Double(v) => Value::Double(*v),
        Avro::Date(v) => Value::Date(*v),
        Avro::LocalTimestampMicros(v) => Value::DateTime(*v),
        Avro::TimestampMicros(v) => Value::Timestamp(*v),
        Avro::String(v) => Value::Text(v.clone()),
        Avro::Bytes(v) => Value::Bytes(v.clone()),
        Avro::Decimal(v) => {
            let bytes = <Vec<u8>>::try_from(v).unwrap();
            match column.ty {
                ColumnType::Decimal { scale, .. } => {
                    Value::Decimal(Decimal::from_be_bytes(&bytes, u32::from(scale)))
                }
                _ => Value::UInt(Decimal::from_be_bytes(&bytes, 0).to_string().parse().unwrap()),
            }
        }
        other => panic!("{other:?} for {column:?}"),
    }
}

fn field<'a>(record: &'a Avro, name: &str) -> &'a Avro {
    match record {
        Avro::Record(fields) => &fields.iter().find(|f| f.0 == name).unwrap().1,
        other => panic!("{other:?} is no record"),
    }
}

fn image(envelope: &Avro, name: &str, table: &TableDef) -> Option<Row> {
    match field(envelope, name) {
        Avro::Union(0, _) => None,
        Avro::Union(_, row) => match &**row {
            Avro::Record(fields) => {
                Some(fields.iter().zip(&table.columns).map(|((_, v), c)| model_value(v, c)).collect())
            }
            other => panic!("{other:?} is no record"),
        },
        other => panic!("{other:?} is no union"),
    }
}

fn read(schema: &Schema, mut bytes: &[u8]) -> Avro {
    let value = GenericDatumReader::builder(schema).build().unwrap().read_value(&mut bytes).unwrap();
    assert!(bytes.is_empty());
    value
}

fn write(schema: &Schema, value: &Avro) -> Vec<u8> {
    let mut out = Vec::new();
    GenericDatumWriter::builder(schema).build().unwrap().write_value_ref(&mut out, value).unwrap();
    out
}

fn encode_value(schema: &TableSchema, change: &Change, out: &mut Vec<u8>) -> Result<(), WireError> {
    schema.put_value(&EncodedChange::of(change, &schema.images(change)?), out)
}

fn encode_key(schema: &TableSchema, row: &Row, out: &mut Vec<u8>) -> Result<(), WireError> {
    let mut images = Images::default();
    images.push(schema.table(), row)?;
    schema.put_key(images.iter().next().unwrap(), out);
    Ok(())
}

/// This many cases, unless `PROPTEST_CASES` is set.
fn cases(cases: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(cases),
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn images_decode_to_their_rows(change in any_change()) {
        let schema = TableSchema::new(Arc::clone(&change.table), "p");
        let images = schema.images(&change).unwrap();
        let rows: Vec<&Row> = [&change.before, &change.after].into_iter().flatten().collect();
        prop_assert_eq!(images.len(), rows.len());
        for (image, row) in images.iter().zip(rows) {
            prop_assert_eq!(format!("{:?}", image.decode(&change.table).unwrap()), format!("{row:?}"));
            let mut key = Vec::new();
            schema.encode_key_values(&change.table.key_of(row), &mut key).unwrap();
            prop_assert_eq!(image.key, &key[FRAME..]);
        }
    }

    #[test]
    fn changes_round_trip_and_avro_agrees(change in any_change(), salt in 0u32..3) {
        let schema = TableSchema::new(Arc::clone(&change.table), "pre.fix-1").with_salt(salt);
        let mut value = vec![7];
        encode_value(&schema, &change, &mut value).unwrap();
        prop_assert_eq!(value.remove(0), 7);
        prop_assert_eq!(schema_id(&value).unwrap(), schema.value_id());

        let ours = ReadSchema::parse(schema.value_json()).unwrap();
        prop_assert_eq!(ours.table(), &change.table);
        prop_assert_eq!(ours.id(), schema.value_id());
        prop_assert_eq!(bits(&ours.decode(&value).unwrap()), bits(&change));

        let avro = Schema::parse_str(schema.value_json()).unwrap();
        let envelope = read(&avro, &value[FRAME..]);
        prop_assert_eq!(&write(&avro, &envelope)[..], &value[FRAME..]);
        let theirs = Change {
            before: image(&envelope, "before", &change.table),
            after: image(&envelope, "after", &change.table),
            ..change.clone()
        };
        prop_assert_eq!(bits(&theirs), bits(&change));
        let source = field(&envelope, "source");
        prop_assert_eq!(field(source, "tandem_version"), &Avro::Long(change.version.0));
        prop_assert_eq!(field(source, "ts_us"), &Avro::Long(change.source.ts_us));
        prop_assert_eq!(field(source, "ts_ms"), &Avro::Long(change.source.ts_us.div_euclid(1000)));
        prop_assert_eq!(field(source, "row"), &Avro::Long(change.source.row as i64));
        prop_assert_eq!(field(source, "table"), &Avro::String(change.table.name.table.clone()));
        let snapshot = match change.op {
            Op::Snapshot => "incremental",
            Op::Resnapshot => "true",
            Op::Create | Op::Update | Op::Delete => "false",
        };
        prop_assert_eq!(field(source, "snapshot"), &Avro::String(snapshot.into()));
        let Avro::Union(_, transaction) = field(&envelope, "transaction") else { panic!("no union") };
        let native = change.source.native;
        let connector = if native.is_some() { "cassandra" } else { "mysql" };
        prop_assert_eq!(field(source, "connector"), &Avro::String(connector.to_owned()));
        let Avro::Union(_, sequence) = field(source, "sequence") else { panic!("sequence is a union") };
        let expected = native.map(|n| Avro::String(format!(r#"["{}","{}"]"#, n.epoch, change.version)));
        prop_assert_eq!(&**sequence, &expected.unwrap_or(Avro::Null));
        let id = change.source.gtid.clone().or(native.and_then(|n| n.request).map(|nonce| nonce.to_string()));
        match id {
            None => prop_assert_eq!(&**transaction, &Avro::Null),
            Some(id) => {
                prop_assert_eq!(field(transaction, "id"), &Avro::String(id));
                prop_assert_eq!(field(transaction, "total_order"), &Avro::Long(change.source.row as i64 + 1));
            }
        }
        prop_assert_eq!(field(&envelope, "op"), &Avro::String(change.op.letter().to_owned()));
    }

    #[test]
    fn keys_round_trip_and_avro_agrees(change in any_change()) {
        let table = &change.table;
        let row = change.image();
        let schema = TableSchema::new(Arc::clone(table), "p");
        let (mut key, mut again) = (Vec::new(), Vec::new());
        encode_key(&schema, row, &mut key).unwrap();
        schema.encode_key_values(&table.key_of(row), &mut again).unwrap();
        prop_assert_eq!(&key, &again);
        prop_assert_eq!(schema_id(&key).unwrap(), schema.key_id());
        let reader = ReadKeySchema::parse(schema.key_json()).unwrap();
        prop_assert_eq!((reader.table(), reader.id()), (&table.name, schema.key_id()));
        let key_columns: Vec<ColumnDef> =
            table.primary_key.iter().map(|&column| table.columns[column].clone()).collect();
        prop_assert_eq!(reader.columns(), &key_columns[..]);
        let read_back = reader.decode(&key).unwrap();
        prop_assert_eq!(format!("{read_back:?}"), format!("{:?}", table.key_of(row)));
        prop_assert_eq!(format!("{read_back:?}"), format!("{:?}", schema.decode_key(&key).unwrap()));
        let avro = Schema::parse_str(schema.key_json()).unwrap();
        let record = read(&avro, &key[FRAME..]);
        prop_assert_eq!(&write(&avro, &record)[..], &key[FRAME..]);
    }

    #[test]
    fn truncated_records_are_errors(change in any_change()) {
        let schema = TableSchema::new(Arc::clone(&change.table), "p");
        let (mut key, mut value) = (Vec::new(), Vec::new());
        encode_key(&schema, change.image(), &mut key).unwrap();
        encode_value(&schema, &change, &mut value).unwrap();
        let reader = ReadSchema::parse(schema.value_json()).unwrap();
        for len in 0..value.len() {
            prop_assert!(reader.decode(&value[..len]).is_err());
        }
        for len in 0..key.len() {
            prop_assert!(schema.decode_key(&key[..len]).is_err());
        }
        value.push(0);
        key.push(0);
        prop_assert!(reader.decode(&value).is_err());
        prop_assert!(schema.decode_key(&key).is_err());
    }

    #[test]
    fn corrupt_records_do_not_panic(
        change in any_change(),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let schema = TableSchema::new(Arc::clone(&change.table), "p");
        let mut value = Vec::new();
        encode_value(&schema, &change, &mut value).unwrap();
        for (index, byte) in noise {
            let at = FRAME + index.index(value.len() - FRAME);
            value[at] = byte;
        }
        // The result is an error or a change with an image.
        if let Ok(read) = ReadSchema::parse(schema.value_json()).unwrap().decode(&value) {
            read.image();
        }
    }
}

fn orders() -> Arc<TableDef> {
    let column =
        |name: &str, ty: &str, nullable| ColumnDef { name: name.into(), ty: ty.parse().unwrap(), nullable };
    Arc::new(TableDef {
        name: TableName::new("shop", "order-items"),
        columns: vec![
            column("id", "bigint unsigned", false),
            column("line no", "int", false),
            column("amount", "decimal(10,2)", true),
            column("placed", "datetime(6)", true),
            column("state", "enum('new','it''s done')", false),
        ],
        primary_key: vec![1, 0],
    })
}

/// The schemas of one table as on every log written so far. A change of these bytes is a change of the format
/// and of every id.
#[test]
fn schemas_are_stable() {
    let schema = TableSchema::new(orders(), "tandem");
    assert_eq!(schema.value_json(), include_str!("order-items.value.avsc").trim_end());
    assert_eq!(schema.key_json(), include_str!("order-items.key.avsc").trim_end());
    assert_eq!((schema.value_id(), schema.key_id()), (140_724_500, 1_499_283_173));
    let subjects = (schema.key_subject("topic"), schema.value_subject("topic"));
    assert_eq!(subjects, ("topic-key".to_owned(), "topic-value".to_owned()));
    assert!(Schema::parse_str(schema.value_json()).unwrap().name().is_some());
    assert_eq!(SchemaKind::from(&Schema::parse_str(schema.key_json()).unwrap()), SchemaKind::Record);
}

#[test]
fn a_salt_changes_only_the_ids() {
    let plain = TableSchema::new(orders(), "tandem");
    let salted = plain.with_salt(7);
    assert_eq!((plain.salt(), salted.salt()), (0, 7));
    assert_ne!((plain.value_id(), plain.key_id()), (salted.value_id(), salted.key_id()));
    assert_eq!(salted.with_salt(0).value_json(), plain.value_json());
    let (reader, other) =
        (ReadSchema::parse(salted.value_json()).unwrap(), ReadSchema::parse(plain.value_json()).unwrap());
    assert_eq!(reader.table(), other.table());
    assert_ne!(reader.id(), other.id());
}

#[test]
fn a_registry_may_assign_other_ids() {
    let schema = TableSchema::new(orders(), "tandem");
    let value = ReadSchema::parse(schema.value_json()).unwrap().under(7);
    let key = ReadKeySchema::parse(schema.key_json()).unwrap().under(8);
    assert_eq!((value.id(), key.id()), (7, 8));
    assert_eq!(*value.table(), orders());
}

#[test]
fn foreign_schemas_are_refused() {
    let schema = TableSchema::new(orders(), "tandem");
    let spaced = schema.value_json().replace(",\"", " ,\n\"");
    assert_eq!(ReadSchema::parse(&spaced).unwrap().id(), schema.value_id());
    // Avro's own library, and with it registries, print names without the namespace that they are in.
    let reference = "tandem.shop.order_x2ditems.Value\"";
    assert!(schema.value_json().contains(reference), "{}", schema.value_json());
    let short = schema.value_json().replace(reference, "Value\"");
    assert_eq!(ReadSchema::parse(&short).unwrap().id(), schema.value_id());
    let elsewhere = schema.value_json().replace(reference, "other.Value\"");
    assert!(ReadSchema::parse(&elsewhere).is_err());
    // A primitive type has no namespace.
    let named =
        schema.value_json().replace("\"type\":\"int\"", "\"type\":\"tandem.shop.order_x2ditems.int\"");
    assert_ne!(named, schema.value_json());
    assert!(ReadSchema::parse(&named).is_err());
    for foreign in [
        "{".to_owned(),
        r#"{"type":"record","name":"x","fields":[]}"#.to_owned(),
        schema.key_json().to_owned(),
        schema.value_json().replace("\"tandem.format\":1", "\"tandem.format\":2"),
        schema.value_json().replace("decimal(10,2)", "decimal(11,2)"),
        schema.value_json().replace("\"long\"", "\"int\""),
    ] {
        assert!(matches!(ReadSchema::parse(&foreign), Err(WireError::ForeignSchema(_))), "{foreign}");
    }
    assert!(matches!(ReadKeySchema::parse(schema.value_json()), Err(WireError::ForeignSchema(_))));
}

#[test]
fn rows_that_do_not_fit_leave_the_buffer_unchanged() {
    let schema = TableSchema::new(orders(), "tandem");
    let mut change = Change {
        table: orders(),
        op: Op::Create,
        before: None,
        after: Some(vec![Value::UInt(1)]),
        version: Version(1),
        source: SourceInfo::default(),
    };
    let mut out = b"before".to_vec();
    assert!(matches!(encode_value(&schema, &change, &mut out), Err(WireError::CellCount { .. })));
    assert!(matches!(encode_key(&schema, change.image(), &mut out), Err(WireError::CellCount { .. })));
    assert!(matches!(schema.encode_key_values(&[], &mut out), Err(WireError::CellCount { .. })));
    change.after = Some(vec![Value::Null; 5]);
    let error = encode_value(&schema, &change, &mut out).unwrap_err();
    assert_eq!(error.to_string(), "a NULL does not fit column `id` of type bigint unsigned");
    change.after = None;
    assert!(matches!(encode_value(&schema, &change, &mut out), Err(WireError::MissingImage { .. })));
    change.op = Op::Update;
    assert!(matches!(encode_value(&schema, &change, &mut out), Err(WireError::MissingImage { .. })));
    assert_eq!(out, b"before");
    let elsewhere = ReadSchema::parse(TableSchema::new(orders(), "other").value_json()).unwrap();
    let mut key = Vec::new();
    schema.encode_key_values(&[Value::Int(1), Value::UInt(2)], &mut key).unwrap();
    assert!(matches!(elsewhere.decode(&key), Err(WireError::OtherSchema { .. })));
}
