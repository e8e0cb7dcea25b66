//! The binlog stream.

use tandem_model::{GtidSet, TableName};

use crate::{BinlogError, BinlogEvent, MysqlConfig};

/// The binlog of a server from a GTID set on.
pub struct BinlogStream {
    wanted: Box<dyn Fn(&TableName) -> bool + Send>,
}

impl BinlogStream {
    /// Asks the server for every transaction that is not in `from`. Rows come only of tables that
    /// are `wanted`; everything else comes whole.
    pub async fn open(
        config: &MysqlConfig,
        from: &GtidSet,
        wanted: impl Fn(&TableName) -> bool + Send + 'static,
    ) -> Result<Self, BinlogError> {
        let _ = (config, from);
        Ok(Self { wanted: Box::new(wanted) })
    }

    /// Waits for the next event. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Result<BinlogEvent, BinlogError> {
        unimplemented!()
    }

    /// The next event if one has arrived already.
    pub fn try_next(&mut self) -> Result<Option<BinlogEvent>, BinlogError> {
        let _ = &self.wanted;
        unimplemented!()
    }
}
