//! The effects of a native write.

use tandem_model::Version;
use tandem_protocol::cutover::guard::Guard;

use crate::error::NativeWriteError;
use crate::guards::Answer;
use crate::key::GuardKey;
use crate::service::NativeWrites;
use crate::tables::NativeTable;

/// Whether this process may act now. Asked between what it has read or committed and what it writes.
pub(crate) type MayAct<'a> = &'a (dyn Fn() -> bool + Sync);

/// An error unless the process may act.
pub(crate) fn ask(may_act: MayAct<'_>) -> Result<(), NativeWriteError> {
    if may_act() { Ok(()) } else { Err(NativeWriteError::MayNotAct) }
}

impl NativeWrites {
    /// Makes the effects of the write that a guard holds, and marks its version as done. Whoever does that writes the same,
    /// so it may be done twice and by several at a time.
    ///
    /// The guard has no tentative write: what was before that one is complete.
    pub(crate) async fn complete(
        &self,
        table: &NativeTable,
        key: &GuardKey,
        guard: &Guard,
        may_act: MayAct<'_>,
    ) -> Result<Version, NativeWriteError> {
        ask(may_act)?;
        let record = guard.record();
        let mut mutations = record.mutations(&table.plan)?;
        let answer = Answer { epoch: self.epoch(), version: guard.version };
        mutations.extend(record.nonce.map(|request| self.guards().keep_answer(request, answer)));
        let publish = async {
            let Some(change) = record.change(&table.plan, self.epoch()) else { return Ok(()) };
            let mut records = vec![table.topic.record(&change)?];
            self.schemas().reframe(&mut records)?;
            self.producer().send(records).await?;
            Ok::<_, NativeWriteError>(())
        };
        let write = async { Ok(self.target().write(mutations).await?) };
        tokio::try_join!(publish, write)?;
        self.target().write(vec![self.guards().mark(key, guard.version)]).await?;
        Ok(guard.version)
    }
}
