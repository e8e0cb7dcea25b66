//! When the copies are made: while apply uses the mapping of this process ([`tandem_protocol::mapping_in_use`]).
//!
//! What apply processes with another layout have applied is covered by a copy that begins after them. So a copy waits
//! until its mapping is in use, and its progress counts for that use only.

use std::time::Duration;

use tandem_model::Version;
use tandem_protocol::mapping_in_use::{copy_hash, since};
use tandem_protocol::table_state::is_applied;

use crate::progress::Copies;
use crate::{Backfill, BackfillTable, ProgressError};

/// The pause before the mapping in use is read again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl BackfillTable {
    /// The hash in the progress of its copy, if its layout has been in use since then.
    pub(crate) fn hash(&self, since: Option<Version>) -> String {
        copy_hash(&self.layout, since)
    }
}

impl Backfill {
    /// Reads the copies that count, once apply uses the mapping of this process or none yet.
    pub(crate) async fn copies_in_turn(&self) -> Result<Copies, ProgressError> {
        let mut waits = false;
        loop {
            let copies = Copies::read(&self.kafka).await?;
            if self.is_in_turn(&copies) {
                return Ok(copies);
            }
            if !waits {
                tracing::warn!(
                    "the backfill waits until apply uses the mapping of this tandem.toml: the apply processes with another \
                     one must end first"
                );
                waits = true;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether there is nothing to copy now: every table is copied or halted, or another mapping is in use.
    ///
    /// # Errors
    ///
    /// Fails if the control topic cannot be read or holds an invalid record.
    pub async fn is_complete(&self) -> Result<bool, ProgressError> {
        let copies = Copies::read(&self.kafka).await?;
        let counts = |table: &BackfillTable| {
            let name = table.def.name.to_string();
            let hash = table.hash(since(copies.in_use.as_ref(), &name));
            let copied = copies.tables.get(&name);
            let copied =
                copied.is_some_and(|p| p.done && p.mapping == hash && p.configured == table.configured);
            copied || !is_applied(copies.state(&table.def.name))
        };
        Ok(!self.is_in_turn(&copies) || self.tables.iter().all(counts))
    }

    fn is_in_turn(&self, copies: &Copies) -> bool {
        self.layouts.are_in_use(copies.in_use.as_ref())
    }
}
