//! What is written is read back, for every type and table name. Mutations that cannot be written are named.

use std::collections::BTreeSet;

use tandem_cassandra::{ReadError, Rejection, TokenRange};
use tandem_model::{
    Cell, ClusteringOrder, CqlType, Mutation, StoredRow, TargetKey, TargetTable, Version, Write,
};

use super::{column, config, delete, drop_keyspace, key, plain, shown, target, text, upsert};

#[tokio::test]
async fn every_type_comes_back_byte_for_byte() -> anyhow::Result<()> {
    let config = config("types");
    let decimal = |scale: i32, unscaled: &[u8]| [&scale.to_be_bytes()[..], unscaled].concat();
    let samples: Vec<(CqlType, Vec<Vec<u8>>)> = vec![
        (CqlType::Tinyint, vec![vec![0x80], vec![0x7f]]),
        (CqlType::Smallint, vec![vec![0x80, 0], vec![0x7f, 0xff]]),
        (CqlType::Int, vec![i32::MIN.to_be_bytes().into(), 7i32.to_be_bytes().into()]),
        (CqlType::Bigint, vec![i64::MIN.to_be_bytes().into(), i64::MAX.to_be_bytes().into()]),
        (CqlType::Varint, vec![vec![0], vec![0xff], vec![0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]]),
        (CqlType::Float, vec![(-0.0f32).to_be_bytes().into(), f32::MIN_POSITIVE.to_be_bytes().into()]),
        (CqlType::Double, vec![(-0.0f64).to_be_bytes().into(), 1e300f64.to_be_bytes().into()]),
        // 1.50 and 1.5 are two values of one number. The scale is kept.
        (
            CqlType::Decimal,
            vec![decimal(2, &[0, 150]), decimal(1, &[15]), decimal(30, &[0x7f; 27]), decimal(0, &[0])],
        ),
        (CqlType::Text, vec![b"".into(), "Ünï \u{1f980}\0".as_bytes().into()]),
        (CqlType::Blob, vec![b"".into(), (0..=255).collect()]),
        // Days, with 1970-01-01 at 2³¹; milliseconds.
        (CqlType::Date, vec![(1u32 << 31).to_be_bytes().into(), 0u32.to_be_bytes().into()]),
        (CqlType::Timestamp, vec![(-1i64).to_be_bytes().into(), 1_700_000_000_123i64.to_be_bytes().into()]),
    ];
    // One table for each type, with the type in a clustering key and in a cell.
    let table = |ty: CqlType| TargetTable {
        name: format!("of_{ty}"),
        partition_key: vec![column("id", CqlType::Bigint)],
        clustering: vec![(column("k", ty), ClusteringOrder::Descending)],
        regular: vec![column("v", ty)],
    };
    let tables: Vec<_> = samples.iter().map(|(ty, _)| table(*ty)).collect();
    let target = target(&config, &tables).await?;
    for (ty, values) in samples {
        let name = format!("of_{ty}");
        assert_eq!(target.describe(&name).await?, Some(table(ty)));
        let keys: Vec<TargetKey> =
            (0i64..).zip(&values).map(|(i, v)| vec![i.to_be_bytes().to_vec(), v.clone()]).collect();
        let write = |(key, v): (&TargetKey, &Vec<u8>)| Mutation {
            target: name.as_str().into(),
            key: key.clone(),
            version: Version(1),
            write: Write::Upsert(vec![Cell::Value(v.clone())]),
        };
        target.write(keys.iter().zip(&values).map(write).collect()).await?;
        for (row, value) in target.read(&name, &keys).await?.into_iter().zip(values) {
            assert_eq!(row, Some(StoredRow { cells: vec![Some(value)], writetimes: vec![Some(1)] }), "{ty}");
        }
        let mut scan = target.scan_keys(&name, TokenRange::WHOLE)?;
        let mut scanned = BTreeSet::new();
        while let Some(page) = scan.next_page().await? {
            scanned.extend(page);
        }
        assert_eq!(scanned, keys.into_iter().collect(), "{ty}");
    }
    // Cassandra turns a literal into the same bytes.
    let insert = format!("INSERT INTO \"{}\".of_decimal (id, k, v) VALUES (9, 1.50, -1.5)", config.keyspace);
    target.execute_ddl(&insert).await?;
    let row = target.read("of_decimal", &[vec![9i64.to_be_bytes().into(), decimal(2, &[0, 150])]]).await?;
    assert_eq!(row[0].as_ref().expect("the row is there").cells, [Some(decimal(1, &[0xf1]))]);
    drop_keyspace(&target).await
}

#[tokio::test]
async fn a_table_of_keys_only_with_names_in_quotes() -> anyhow::Result<()> {
    let config = config("names");
    let tracks = TargetTable {
        name: "PlaylistTrack".into(),
        partition_key: vec![column("Playlist \"Id\"", CqlType::Bigint)],
        clustering: vec![(column("select", CqlType::Bigint), ClusteringOrder::Descending)],
        regular: vec![],
    };
    let odd = TargetTable {
        name: "MixedCase".into(),
        regular: vec![column("Ünit; --", CqlType::Text)],
        ..tracks.clone()
    };
    let target = target(&config, &[tracks.clone(), odd.clone()]).await?;
    assert_eq!(target.describe("PlaylistTrack").await?, Some(tracks));
    assert_eq!(target.describe("MixedCase").await?, Some(odd));
    assert_eq!(target.describe("playlisttrack").await?, None);
    let key = |track: i64| vec![1i64.to_be_bytes().to_vec(), track.to_be_bytes().to_vec()];
    let mutation = |table: &str, track, version, write| Mutation {
        target: table.into(),
        key: key(track),
        version: Version(version),
        write,
    };
    target
        .write(vec![
            mutation("PlaylistTrack", 1, 1, Write::Upsert(vec![])),
            mutation("PlaylistTrack", 2, 1, Write::Upsert(vec![])),
            mutation("PlaylistTrack", 2, 2, Write::DeleteRow),
            mutation("MixedCase", 1, 1, Write::Upsert(vec![text("x")])),
        ])
        .await?;
    let there = Some(StoredRow { cells: vec![], writetimes: vec![] });
    assert_eq!(target.read("PlaylistTrack", &[key(2), key(1), key(3)]).await?, [None, there, None]);
    assert_eq!(shown(target.read("MixedCase", &[key(1)]).await?[0].as_ref()), "x@1");
    drop_keyspace(&target).await
}

#[tokio::test]
async fn a_scan_finds_every_key_once() -> anyhow::Result<()> {
    let config = config("scan");
    let table = TargetTable {
        name: "t".into(),
        partition_key: vec![column("p", CqlType::Bigint), column("q", CqlType::Text)],
        clustering: vec![(column("c", CqlType::Bigint), ClusteringOrder::Ascending)],
        regular: vec![column("v", CqlType::Text)],
    };
    let target = target(&config, &[table]).await?;
    let keys: Vec<TargetKey> = (0..12_000i64)
        .map(|i| vec![(i % 700).to_be_bytes().to_vec(), b"q".to_vec(), i.to_be_bytes().to_vec()])
        .collect();
    let write = |key: &TargetKey| Mutation {
        target: "t".into(),
        key: key.clone(),
        version: Version(1),
        write: Write::Upsert(vec![text("v")]),
    };
    target.write(keys.iter().map(write).collect()).await?;
    let expected: BTreeSet<TargetKey> = keys.iter().cloned().collect();
    for parts in [1, 7] {
        let (mut found, mut pages) = (vec![], 0);
        for range in TokenRange::WHOLE.split(parts) {
            let mut scan = target.scan_keys("t", range)?;
            while let Some(page) = scan.next_page().await? {
                found.extend(page);
                pages += 1;
            }
            assert_eq!(scan.next_page().await?, None);
        }
        assert_eq!(found.len(), keys.len());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
        assert!(pages >= 12);
    }
    let rows = target.read("t", &keys).await?;
    assert!(rows.iter().all(|row| shown(row.as_ref()) == "v@1"));
    drop_keyspace(&target).await
}

#[tokio::test]
async fn what_cannot_be_written_is_named_and_the_rest_is_written() -> anyhow::Result<()> {
    let config = config("reject");
    let texts = TargetTable { partition_key: vec![column("id", CqlType::Text)], ..plain("texts") };
    let target = target(&config, &[plain("t"), plain("gone"), texts]).await?;
    let cells = || vec![text("x"), Cell::Unset];
    let named = |key: Vec<u8>| Mutation {
        target: "texts".into(),
        key: vec![key],
        version: Version(1),
        write: Write::Upsert(cells()),
    };
    target.execute_ddl(&format!("DROP TABLE \"{}\".gone", config.keyspace)).await?;
    let error = target
        .write(vec![
            upsert("t", 1, 1, cells()),
            upsert("t", 2, 1, vec![text("too few")]),
            upsert("t", 3, 1, vec![Cell::Value(vec![0xff]), Cell::Unset]),
            upsert("nowhere", 4, 1, cells()),
            upsert("gone", 5, 1, cells()),
            delete("gone", 5, 2),
            named(vec![]),
            named(vec![b'k'; 70_000]),
            upsert("t", 6, 1, cells()),
        ])
        .await
        .unwrap_err();
    let failed: Vec<_> = error.failed.iter().map(|f| (f.mutations.clone(), &f.rejection)).collect();
    let [
        (few, Rejection::Shape(_)),
        (utf8, Rejection::Row(_)),
        (nowhere, Rejection::NotPrepared),
        (gone, Rejection::SchemaChanged(_)),
        (empty, Rejection::Row(_)),
        (long, Rejection::Row(_)),
    ] = &failed[..]
    else {
        panic!("{failed:?}")
    };
    assert_eq!(
        [few, utf8, nowhere, gone, empty, long],
        [&(1..2), &(2..3), &(3..4), &(4..6), &(6..7), &(7..8)]
    );
    let rows = target.read("t", &[key(1), key(2), key(3), key(6)]).await?;
    let rows: Vec<_> = rows.iter().map(|row| shown(row.as_ref())).collect();
    assert_eq!(rows, ["x@1 -", "no row", "no row", "x@1 -"]);
    let unknown = target.read("nowhere", &[key(1)]).await;
    assert!(matches!(unknown, Err(ReadError::NotPrepared { .. })), "{unknown:?}");
    let gone = target.read("gone", &[key(1)]).await;
    assert!(matches!(gone, Err(ReadError::Refused { .. })), "{gone:?}");
    drop_keyspace(&target).await
}
