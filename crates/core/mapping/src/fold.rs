//! Folding: fewer writes with the same result.

use std::collections::HashMap;
use std::sync::Arc;

use tandem_model::{Cell, Mutation, TargetKey, Version, Write};

/// Folds the mutations of each target row into at most two writes with the same result.
///
/// The first is the newest row tombstone. The second is an upsert with the newest image, if that image is
/// above the tombstone. Rows keep the order of their first mutation.
///
/// Every upsert is a full image of its row, so the newest image replaces all older ones, with one exception:
/// a column is unset in it if it was NULL before. If an older image above the tombstone has a value or NULL
/// in that column, then the column became NULL in between. The folded upsert writes NULL there. Example: `{a:
/// 1}` at version 1 and `{a: unset}` at version 2 fold into `{a: NULL}` at version 2.
///
/// The order of the mutations and duplicates do not matter. Images of the same version (two reads that
/// borrowed the same watermark) are merged cell by cell as Cassandra does it: null beats a value, and the
/// larger value beats the smaller.
///
/// The remaining writes cover all others. The tombstone covers every image or NULL at or below it, and the
/// newer image covers older cells at its version.
pub fn fold(mutations: Vec<Mutation>) -> Vec<Mutation> {
    let mut groups: HashMap<(&str, &[Vec<u8>]), usize> = HashMap::with_capacity(mutations.len());
    let group_of: Vec<usize> = mutations
        .iter()
        .map(|m| {
            let next = groups.len();
            *groups.entry((&m.target, &m.key)).or_insert(next)
        })
        .collect();
    let mut rows: Vec<FoldedRow> = Vec::with_capacity(groups.len());
    drop(groups);
    for (mutation, group) in mutations.into_iter().zip(group_of) {
        if group == rows.len() {
            rows.push(FoldedRow {
                target: mutation.target,
                key: mutation.key,
                tombstone: None,
                images: Vec::with_capacity(1),
            });
        }
        let row = &mut rows[group];
        match mutation.write {
            Write::DeleteRow => row.tombstone = row.tombstone.max(Some(mutation.version)),
            Write::Upsert(cells) => row.images.push((mutation.version, cells)),
        }
    }
    let mut out = Vec::with_capacity(rows.len());
    for row in rows {
        row.finish(&mut out);
    }
    out
}

struct FoldedRow {
    target: Arc<str>,
    key: TargetKey,
    tombstone: Option<Version>,
    images: Vec<(Version, Vec<Cell>)>,
}

impl FoldedRow {
    fn finish(self, out: &mut Vec<Mutation>) {
        let Self { target, key, tombstone, images } = self;
        let image = newest_image(images.into_iter().filter(|(version, _)| Some(*version) > tombstone));
        match (tombstone, image) {
            (Some(version), Some((image_version, cells))) => {
                out.push(Mutation {
                    target: Arc::clone(&target),
                    key: key.clone(),
                    version,
                    write: Write::DeleteRow,
                });
                out.push(Mutation { target, key, version: image_version, write: Write::Upsert(cells) });
            }
            (Some(version), None) => out.push(Mutation { target, key, version, write: Write::DeleteRow }),
            (None, Some((version, cells))) => {
                out.push(Mutation { target, key, version, write: Write::Upsert(cells) });
            }
            (None, None) => {}
        }
    }
}

/// The newest image. A cell that is unset in it but not in an older image is NULL.
fn newest_image(images: impl Iterator<Item = (Version, Vec<Cell>)>) -> Option<(Version, Vec<Cell>)> {
    let mut images: Vec<_> = images.collect();
    images.sort_by_key(|(version, _)| *version);
    let (newest, mut cells) = images.pop()?;
    while images.last().is_some_and(|(version, _)| *version == newest) {
        let (_, tied) = images.pop()?;
        for (cell, other) in cells.iter_mut().zip(tied) {
            if strength(&other) > strength(cell) {
                *cell = other;
            }
        }
    }
    for (_, older) in &images {
        for (cell, other) in cells.iter_mut().zip(older) {
            if *cell == Cell::Unset && *other != Cell::Unset {
                *cell = Cell::Null;
            }
        }
    }
    Some((newest, cells))
}

/// Orders cells with the same timestamp. Cassandra keeps the greater one.
fn strength(cell: &Cell) -> (u8, &[u8]) {
    match cell {
        Cell::Unset => (0, &[]),
        Cell::Value(bytes) => (1, bytes),
        Cell::Null => (2, &[]),
    }
}
