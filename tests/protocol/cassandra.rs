//! Cassandra's cells, small enough to be part of a state: the newest write of each cell wins, at one
//! timestamp a tombstone beats a value and the greater value the smaller, a row tombstone covers
//! everything at or below it, and a row exists while its marker or a cell does.
//!
//! `tests/e2e/cassandra_target/cells.rs` holds the same rules to a real node.

/// A cell: its timestamp and its value, or none for a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct CellState {
    at: i16,
    value: Option<u8>,
}

/// One row of one target: two cells at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Place {
    deleted_at: i16,
    marked_at: i16,
    cells: [CellState; 2],
}

/// A cell of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Put {
    Unset,
    Null,
    Value(u8),
}

/// A write of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Write {
    Delete,
    Upsert([Put; 2]),
    /// A cell alone, without a row marker: what an UPDATE of somebody else writes.
    Foreign(usize, u8),
}

impl Place {
    /// Applies a write at a timestamp.
    pub(crate) fn apply(&mut self, at: i16, write: Write) {
        match write {
            Write::Delete => self.deleted_at = self.deleted_at.max(at),
            Write::Upsert(cells) => {
                self.marked_at = self.marked_at.max(at);
                for (number, put) in cells.into_iter().enumerate() {
                    match put {
                        Put::Unset => {}
                        Put::Null => self.cells[number].take(at, None),
                        Put::Value(value) => self.cells[number].take(at, Some(value)),
                    }
                }
            }
            Write::Foreign(cell, value) => self.cells[cell].take(at, Some(value)),
        }
        // What a row tombstone covers is gone for good, so equal rows are equal states.
        if self.marked_at <= self.deleted_at {
            self.marked_at = 0;
        }
        for cell in &mut self.cells {
            if cell.at <= self.deleted_at {
                *cell = CellState::default();
            }
        }
    }

    /// The newest version of the row and of each cell, whoever wrote it and whatever it wrote.
    pub(crate) fn versions(&self) -> [i16; 3] {
        let [a, b] = self.cells.map(|cell| cell.at.max(self.deleted_at));
        [self.marked_at.max(self.deleted_at), a, b]
    }

    /// The cells as a reader sees them; nothing where there is no row.
    pub(crate) fn read(&self) -> Option<[Option<u8>; 2]> {
        let cells = self.cells.map(|cell| cell.value);
        (self.marked_at > 0 || cells.iter().any(Option::is_some)).then_some(cells)
    }
}

impl CellState {
    fn take(&mut self, at: i16, value: Option<u8>) {
        // A tombstone is the greatest of the values at one timestamp.
        let rank = |v: Option<u8>| (v.is_none(), v.unwrap_or(0));
        if (at, rank(value)) > (self.at, rank(self.value)) {
            *self = Self { at, value };
        }
    }
}

#[test]
fn the_small_cells_follow_cassandras_rules() {
    let run = |writes: &[(i16, Write)]| {
        let mut forwards = Place::default();
        let mut backwards = Place::default();
        for (at, write) in writes {
            forwards.apply(*at, *write);
        }
        for (at, write) in writes.iter().rev() {
            backwards.apply(*at, *write);
        }
        assert_eq!(forwards.read(), backwards.read(), "{writes:?}");
        forwards.read()
    };
    let up = |a, b| Write::Upsert([a, b]);
    let (v, unset, null) = (Put::Value, Put::Unset, Put::Null);
    assert_eq!(run(&[(5, up(v(1), unset)), (5, Write::Delete)]), None);
    assert_eq!(run(&[(5, up(v(1), unset)), (5, up(null, unset))]), Some([None, None]));
    assert_eq!(run(&[(5, up(v(1), unset)), (5, up(v(2), unset))]), Some([Some(2), None]));
    assert_eq!(run(&[(10, Write::Delete), (11, up(v(1), unset))]), Some([Some(1), None]));
    assert_eq!(run(&[(10, Write::Delete), (9, up(v(1), unset))]), None);
    assert_eq!(run(&[(1, up(v(1), v(2))), (2, up(v(3), unset))]), Some([Some(3), Some(2)]));
    assert_eq!(run(&[(1, up(unset, unset))]), Some([None, None]));
    assert_eq!(run(&[(1, Write::Foreign(0, 1)), (2, up(null, unset)), (2, Write::Delete)]), None);
    assert_eq!(
        run(&[(1, up(v(1), unset)), (2, Write::Delete), (3, Write::Foreign(1, 1))]),
        Some([None, Some(1)])
    );
}
