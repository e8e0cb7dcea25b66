//! Parses raw events into [`BinlogEvent`]s. The parser tracks the position, the open transaction and the
//! table maps. No I/O.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tandem_model::{BinlogPosition, FollowUp, NameCase, Remedy, TableName};

use crate::cursor::{Cursor, Fault};
use crate::event::Origin;
use crate::event::header::{EventHeader, PAYLOAD};
use crate::event::payload::Payload;
use crate::event::statement::{Query, classify};
use crate::event::transaction::{Opened, QueryText};
use crate::rows::RowsHead;
use crate::rows::table_map::{Head, Plan, split_id};
use crate::types::charset::Collations;
use crate::{BinlogEvent, DecodeError, ExcludedColumns, RowsEvent, RowsKind, StatementKind};

/// Selects the tables whose rows are decoded.
pub(crate) type Wanted = Box<dyn Fn(&TableName) -> bool + Send>;

pub(crate) struct EventParser {
    wanted: Wanted,
    excluded: ExcludedColumns,
    names: NameCase,
    collations: Collations,
    at: BinlogPosition,
    state: State,
    maps: HashMap<u64, Mapped>,
    plans: HashMap<TableName, (Vec<u8>, Arc<Plan>)>,
    /// The compressed transaction that is being read.
    payload: Option<Payload>,
}

enum State {
    Outside,
    /// A GTID event has come, but not yet the statement that it belongs to.
    Opened(Opened),
    Inside,
    /// Inside an XA transaction.
    InsideXa,
}

/// The bytes of a TABLE_MAP event after the table id, and the plan if the table is wanted.
struct Mapped {
    bytes: Vec<u8>,
    plan: Option<Arc<Plan>>,
}

/// The type code of a heartbeat. Its body is the name of the binlog file that its position is in.
const HEARTBEAT: u8 = 27;

fn file_name(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault::Malformed("the file's name is not valid UTF-8".into()))
}

/// The limit for remembered table ids. The server assigns a table a new id from time to time.
const MAPS: usize = 4096;

/// The names of event types (`Log_event_type`), for messages.
fn kind_name(kind: u8) -> String {
    let name = match kind {
        2 => "QUERY",
        4 => "ROTATE",
        5 => "INTVAR",
        13 => "RAND",
        14 => "USER_VAR",
        16 => "XID",
        17 => "BEGIN_LOAD_QUERY",
        18 => "EXECUTE_LOAD_QUERY",
        19 => "TABLE_MAP",
        23..=25 => "rows (version 1)",
        26 => "INCIDENT",
        27 | 41 => "HEARTBEAT",
        30 => "WRITE_ROWS",
        31 => "UPDATE_ROWS",
        32 => "DELETE_ROWS",
        33 => "GTID",
        34 => "ANONYMOUS_GTID",
        38 => "XA_PREPARE",
        39 => "PARTIAL_UPDATE_ROWS",
        40 => "TRANSACTION_PAYLOAD",
        42 => "GTID_TAGGED",
        other => return format!("number {other}"),
    };
    name.to_owned()
}

/// For changes without row images.
fn row_based() -> Remedy {
    Remedy::new("SET GLOBAL binlog_format = ROW, have every session reconnect").then(FollowUp::Resnapshot)
}

/// For transactions without a GTID.
fn with_gtids() -> Remedy {
    Remedy::new("SET GLOBAL gtid_mode = ON").then(FollowUp::Resnapshot)
}

impl EventParser {
    pub(crate) fn new(wanted: Wanted, excluded: ExcludedColumns, collations: Collations) -> Self {
        Self {
            wanted,
            excluded,
            names: NameCase::default(),
            collations,
            at: BinlogPosition::default(),
            state: State::Outside,
            maps: HashMap::new(),
            plans: HashMap::new(),
            payload: None,
        }
    }

    /// Excludes these columns.
    pub(crate) fn exclude(&mut self, columns: ExcludedColumns) {
        self.excluded = columns;
    }

    /// Sets how the server compares names.
    pub(crate) fn compare_names(&mut self, names: NameCase) {
        self.names = names;
    }

    /// The end of the last event.
    pub(crate) fn position(&self) -> &BinlogPosition {
        &self.at
    }

    /// Parses the next raw event. [`more`](Self::more) must have returned `None` before.
    pub(crate) fn feed(
        &mut self,
        header: &EventHeader,
        body: &[u8],
    ) -> Result<Option<BinlogEvent>, DecodeError> {
        if header.kind == PAYLOAD {
            return self.feed_payload(header, &Bytes::copy_from_slice(body));
        }
        if self.payload.is_some() {
            let problem = "the compressed transaction before it has not been read to its end".to_owned();
            return Err(self.error(header.kind, problem.into()));
        }
        if header.kind != HEARTBEAT {
            self.move_to(header.log_pos);
        }
        self.event(header, body).map_err(|fault| self.error(header.kind, fault))
    }

    /// Starts a compressed transaction. Each of its events gets its end as position, because their own
    /// positions are not positions in a file.
    pub(crate) fn feed_payload(
        &mut self,
        header: &EventHeader,
        body: &Bytes,
    ) -> Result<Option<BinlogEvent>, DecodeError> {
        self.move_to(header.log_pos);
        let opened = matches!(self.state, State::Opened(_)) && self.payload.is_none();
        let payload = match Payload::open(body) {
            _ if !opened => Err(Fault::Malformed("it comes where no transaction begins".into())),
            payload => payload,
        };
        self.payload = Some(payload.map_err(|fault| self.error(PAYLOAD, fault))?);
        self.more()
    }

    /// The next event of the current compressed transaction. `None` at its end, or if there is none.
    pub(crate) fn more(&mut self) -> Result<Option<BinlogEvent>, DecodeError> {
        let Some(mut payload) = self.payload.take() else { return Ok(None) };
        loop {
            let next = payload.next().map_err(|problem| self.error(PAYLOAD, problem.into()))?;
            let Some((header, body)) = next else {
                let ended = self.outside("its payload ends");
                return ended.map(|()| None).map_err(|fault| self.error(PAYLOAD, fault));
            };
            // QUERY, XID, TABLE_MAP, rows, comments and XA_PREPARE. No other event can be part of a
            // transaction.
            let allowed = matches!(header.kind, 2 | 5 | 13 | 14 | 16..=19 | 23..=26 | 28..=32 | 38 | 39);
            let event = if allowed {
                self.event(&header, body)
            } else {
                Err(Fault::Malformed("it is inside a compressed transaction".into()))
            };
            if let Some(event) = event.map_err(|fault| self.error(header.kind, fault))? {
                self.payload = Some(payload);
                return Ok(Some(event));
            }
        }
    }

    /// An error about the current event.
    pub(crate) fn error(&self, kind: u8, fault: Fault) -> DecodeError {
        let (event, at) = (kind_name(kind), self.at.to_string());
        match fault {
            Fault::Malformed(problem) => DecodeError::Malformed { event, at, problem },
            Fault::Unsupported { problem, remedy } => DecodeError::Unsupported { event, at, problem, remedy },
            Fault::OfTable { table, problem, remedy } => DecodeError::Table { table, at, problem, remedy },
        }
    }

    /// Moves the position within the file. `log_pos` has only 32 bits, but a large transaction can make a
    /// file larger than that. So the upper bits follow from the previous position.
    fn move_to(&mut self, log_pos: u32) {
        if log_pos == 0 {
            return;
        }
        let mut pos = self.at.pos & !0xffff_ffff | u64::from(log_pos);
        if pos.saturating_add(1 << 31) < self.at.pos {
            pos = pos.saturating_add(1 << 32);
        }
        self.at.pos = self.at.pos.max(pos);
    }

    fn event(&mut self, header: &EventHeader, body: &[u8]) -> Result<Option<BinlogEvent>, Fault> {
        match header.kind {
            2 => self.query(QueryText::read(body, &self.collations)?),
            16 => self.commit(),
            19 => self.table_map(body),
            30 => self.rows(body, RowsKind::Write),
            31 => self.rows(body, RowsKind::Update),
            32 => self.rows(body, RowsKind::Delete),
            33 | 42 => {
                if !matches!(self.state, State::Outside) {
                    return Err(Fault::Malformed(
                        "a transaction begins before the last one has ended".into(),
                    ));
                }
                let read = if header.kind == 33 { Opened::read } else { Opened::read_tagged };
                self.state = State::Opened(read(body, header.timestamp, header.server_id)?);
                Ok(None)
            }
            38 => self.xa_prepare(body),
            4 => {
                self.outside("a new file begins")?;
                let mut cursor = Cursor::new(body);
                let pos = cursor.uint(8)?;
                self.at = BinlogPosition { file: file_name(cursor.rest())?.into(), pos };
                Ok(self.idle())
            }
            HEARTBEAT => {
                let file = file_name(body)?;
                if *file == *self.at.file {
                    self.move_to(header.log_pos);
                } else {
                    self.outside("a new file begins")?;
                    self.at = BinlogPosition { file: file.into(), pos: header.log_pos.into() };
                }
                Ok(self.idle())
            }
            41 => {
                self.heartbeat_2(body)?;
                Ok(self.idle())
            }
            // STOP, FORMAT_DESCRIPTION and PREVIOUS_GTIDS are at the begin or end of a file.
            3 | 15 | 35 => Ok(self.idle()),
            // IGNORABLE, ROWS_QUERY (the statement as a comment), and a membership change of a replication
            // group.
            28 | 29 | 37 => Ok(None),
            5 | 13 | 14 | 17 | 18 => Err(Fault::unsupported(
                "it belongs to a statement that changes rows without row images",
                row_based(),
            )),
            23..=25 => Err(Fault::unsupported(
                "rows are in the old format (version 1)",
                Remedy::new("SET GLOBAL log_bin_use_v1_row_events = OFF").then(FollowUp::Resnapshot),
            )),
            26 => Err(Fault::unsupported(
                "the server says that it may have lost changes here",
                FollowUp::Resnapshot.into(),
            )),
            34 => Err(Fault::unsupported("the transaction has no GTID", with_gtids())),
            39 => self.partial_rows(body),
            _ => Err(Fault::unsupported(
                "this type of event is unknown",
                Remedy::new("use a version of Tandem that knows this version of MySQL"),
            )),
        }
    }

    /// The position as an event, if it is known and no transaction is open.
    fn idle(&self) -> Option<BinlogEvent> {
        let outside = matches!(self.state, State::Outside) && !self.at.file.is_empty();
        outside.then(|| BinlogEvent::Idle { position: self.at.clone() })
    }

    fn outside(&self, what: &str) -> Result<(), Fault> {
        match self.state {
            State::Outside => Ok(()),
            _ => Err(Fault::Malformed(format!("{what} inside a transaction"))),
        }
    }

    /// Reads HEARTBEAT version 2. Its fields are type, length and value. Type 1 is the file's name, type 2
    /// the position.
    fn heartbeat_2(&mut self, body: &[u8]) -> Result<(), Fault> {
        let mut cursor = Cursor::new(body);
        while !cursor.is_empty() {
            let kind = cursor.u8()?;
            if kind == 0 {
                break;
            }
            let mut field = Cursor::new(cursor.lenenc_bytes()?);
            if kind == 2 {
                self.at.pos = self.at.pos.max(field.lenenc()?);
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<Option<BinlogEvent>, Fault> {
        match self.state {
            State::Inside => {
                self.end();
                Ok(Some(BinlogEvent::Commit { position: self.at.clone() }))
            }
            _ => Err(Fault::Malformed("a transaction ends that has not begun".into())),
        }
    }

    fn end(&mut self) {
        self.state = State::Outside;
        if self.maps.len() > MAPS {
            self.maps.clear();
        }
    }

    /// Reads XA_PREPARE: whether the transaction committed in one phase, and its xid, which is known from XA
    /// START.
    fn xa_prepare(&mut self, body: &[u8]) -> Result<Option<BinlogEvent>, Fault> {
        let one_phase = Cursor::new(body).u8()? != 0;
        match self.state {
            State::InsideXa => {
                self.end();
                let position = self.at.clone();
                Ok(Some(if one_phase {
                    BinlogEvent::Commit { position }
                } else {
                    BinlogEvent::Prepared { position }
                }))
            }
            _ => Err(Fault::Malformed("an XA transaction ends that has not begun".into())),
        }
    }

    fn query(&mut self, text: QueryText<'_>) -> Result<Option<BinlogEvent>, Fault> {
        let query = classify(&text.sql, &text.database);
        match (&self.state, query) {
            (State::Outside, _) => Err(Fault::unsupported("a statement has no GTID", with_gtids())),
            (State::Opened(_), Query::Begin | Query::CreateAndRows) => {
                Ok(self.begin(Origin::of_locale(text.locale), None))
            }
            (State::Opened(_), Query::XaStart(xid)) => {
                Ok(self.begin(Origin::of_locale(text.locale), Some(xid)))
            }
            (State::Opened(_), Query::XaCommit(xid)) => Ok(self.decided(xid, true)),
            (State::Opened(_), Query::XaRollback(xid)) => Ok(self.decided(xid, false)),
            (State::InsideXa, Query::XaEnd) => Ok(None),
            (State::Inside, Query::Commit) => self.commit(),
            (State::Inside | State::InsideXa, Query::Savepoint | Query::CreateAndRows | Query::Temporary) => {
                Ok(None)
            }
            (State::Inside | State::InsideXa, Query::Rollback) => Err(Fault::unsupported(
                "a transaction that was rolled back has changed tables that are not transactional",
                Remedy::new("convert the tables to ENGINE=InnoDB").then(FollowUp::Resnapshot),
            )),
            (_, Query::Other { kind: StatementKind::DataChange, .. }) => {
                Err(Fault::unsupported("a statement changes rows without row images", row_based()))
            }
            (State::Inside | State::InsideXa, _) => Err(Fault::unsupported(
                "a statement stands inside a transaction",
                FollowUp::Resnapshot.into(),
            )),
            (State::Opened(_), Query::Other { kind, tables, dropped }) => {
                Ok(self.statement(text, kind, tables, dropped))
            }
            (State::Opened(_), _) => Ok(self.statement(text, StatementKind::Other, Vec::new(), None)),
        }
    }

    fn begin(&mut self, origin: Origin, xa: Option<String>) -> Option<BinlogEvent> {
        let inside = if xa.is_some() { State::InsideXa } else { State::Inside };
        match std::mem::replace(&mut self.state, inside) {
            State::Opened(Opened { gtid, commit_us, server_id }) => {
                Some(BinlogEvent::Begin { gtid, commit_us, server_id, origin, xa })
            }
            State::Outside | State::Inside | State::InsideXa => None,
        }
    }

    fn decided(&mut self, xid: String, committed: bool) -> Option<BinlogEvent> {
        match std::mem::replace(&mut self.state, State::Outside) {
            State::Opened(Opened { gtid, commit_us, server_id }) => Some(BinlogEvent::Decided {
                gtid,
                commit_us,
                server_id,
                xid,
                committed,
                position: self.at.clone(),
            }),
            State::Outside | State::Inside | State::InsideXa => None,
        }
    }

    fn statement(
        &mut self,
        text: QueryText<'_>,
        kind: StatementKind,
        tables: Vec<TableName>,
        dropped: Option<String>,
    ) -> Option<BinlogEvent> {
        match std::mem::replace(&mut self.state, State::Outside) {
            State::Opened(Opened { gtid, commit_us, .. }) => Some(BinlogEvent::Statement {
                gtid,
                commit_us,
                database: self.names.fold(dropped.unwrap_or_else(|| text.database.into_owned())),
                sql: text.sql.into_owned(),
                kind,
                tables: tables.into_iter().map(|table| self.names.fold_table(table)).collect(),
                position: self.at.clone(),
            }),
            State::Outside | State::Inside | State::InsideXa => None,
        }
    }

    fn table_map(&mut self, body: &[u8]) -> Result<Option<BinlogEvent>, Fault> {
        let (id, bytes) = split_id(body)?;
        if self.maps.get(&id).is_some_and(|known| known.bytes == bytes) {
            return Ok(None);
        }
        let mut head = Head::read(body)?;
        head.name = self.names.fold_table(head.name);
        let plan = if (self.wanted)(&head.name) {
            match self.plans.get(&head.name) {
                Some((same, plan)) if same == bytes => Some(Arc::clone(plan)),
                _ => {
                    let name = head.name.clone();
                    let plan = head.plan(&self.collations, &self.excluded);
                    let plan = Arc::new(plan.map_err(|fault| fault.of_table(&name))?);
                    self.plans.insert(name, (bytes.to_vec(), Arc::clone(&plan)));
                    Some(plan)
                }
            }
        } else {
            None
        };
        self.maps.insert(id, Mapped { bytes: bytes.to_vec(), plan });
        Ok(None)
    }

    /// The plan for an event's table, if the table is wanted.
    fn plan_of(&self, head: &RowsHead<'_>) -> Result<Option<Arc<Plan>>, Fault> {
        match self.maps.get(&head.table_id) {
            Some(mapped) => Ok(mapped.plan.clone()),
            None => Err(Fault::Malformed("its rows are of a table that has not been mapped".into())),
        }
    }

    /// Reads the head of PARTIAL_UPDATE_ROWS, which is that of other rows events. Such rows are refused for
    /// wanted tables.
    fn partial_rows(&mut self, body: &[u8]) -> Result<Option<BinlogEvent>, Fault> {
        match self.plan_of(&RowsHead::read(body)?)? {
            None => Ok(None),
            Some(plan) => Err(Fault::unsupported(
                "they hold parts of JSON documents",
                Remedy::new("SET GLOBAL binlog_row_value_options = '', have every session reconnect")
                    .then(FollowUp::Resnapshot),
            )
            .of_table(&plan.table.name)),
        }
    }

    fn rows(&mut self, body: &[u8], kind: RowsKind) -> Result<Option<BinlogEvent>, Fault> {
        if !matches!(self.state, State::Inside | State::InsideXa) {
            return Err(Fault::Malformed("rows stand outside a transaction".into()));
        }
        let head = RowsHead::read(body)?;
        if head.is_dummy() {
            return Ok(None);
        }
        let Some(plan) = self.plan_of(&head)? else { return Ok(None) };
        let images = head.images(&plan, kind).map_err(|fault| fault.of_table(&plan.table.name))?;
        Ok(Some(BinlogEvent::Rows(RowsEvent {
            table: Arc::clone(&plan.table),
            kind,
            images,
            end: self.at.pos,
            file: Arc::clone(&self.at.file),
        })))
    }
}

#[cfg(test)]
mod tests;
