//! Gateways: a client's transaction to MySQL and then, at a version borrowed before, to Cassandra;
//! and what a client reads that shows the token of its write.

use tandem_model::{Phase, PhaseRecord};
use tandem_protocol::route::{ReadFacts, Route, route};

use crate::protocol::{Protocol, Rule};
use crate::state::{Action, Asked, Copying, Gateway, State};
use crate::table::{
    IDS, Rows, Small, SmallChange, passes_the_filter, placed, secondary_writes, stored_by_id,
};

impl Protocol {
    pub(crate) fn gateway_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (gateway, now) in state.gateways.iter().enumerate() {
            match now {
                Gateway::Idle if self.broken(Rule::GatewayBorrowsBeforeCommit) => {
                    self.client(state, gateway, actions);
                }
                Gateway::Idle | Gateway::CommittedFirst { .. } => {
                    actions.push(Action::GatewayBorrow { gateway });
                }
                Gateway::Borrowed { .. } => self.client(state, gateway, actions),
                Gateway::Committed { writes, .. } => {
                    actions.extend((0..writes.len()).map(|row| Action::GatewayWrite { gateway, row }));
                    actions.push(Action::GatewayLose { gateway });
                }
                Gateway::Done { .. } => {
                    if self.broken(Rule::AskedAfterTheWait) && state.asked.is_none() {
                        actions.push(Action::ReadAsks);
                    }
                }
            }
        }
    }

    /// What a client may do next: a transaction, which may fail.
    fn client(&self, state: &State, gateway: usize, actions: &mut Vec<Action>) {
        if state.binlog.len() >= self.bounds.transactions {
            return;
        }
        for transaction in 0..state.choices() {
            actions.push(Action::GatewayCommit { gateway, transaction });
            if self.broken(Rule::GatewayWritesOnlyWhatIsCommitted) {
                actions.push(Action::GatewayFail { gateway, transaction });
            }
        }
    }

    pub(crate) fn gateway_borrow(state: &mut State, gateway: usize) {
        // The row's lock orders it: neither `gtid_executed` nor a partial watermark matters to a gateway.
        let (.., version) = state.last_mark();
        state.gateways[gateway] = match state.gateways[gateway].clone() {
            Gateway::CommittedFirst { changes, token } => Gateway::committed(&changes, version, token),
            _ => Gateway::Borrowed { version, seen: state.rows(state.visible as usize) },
        };
    }

    pub(crate) fn gateway_commit(&self, state: &mut State, gateway: usize, transaction: usize) {
        let changes = state.choice(transaction);
        state.flush(changes.clone(), None, None);
        let token = state.binlog.len() as u8;
        state.gateways[gateway] = match state.gateways[gateway] {
            Gateway::Borrowed { version, seen } => {
                Gateway::committed(&self.written(changes, &seen), version, token)
            }
            _ => Gateway::CommittedFirst { changes, token },
        };
    }

    /// A COMMIT fails, and what it would have brought is written all the same.
    pub(crate) fn gateway_fail(state: &mut State, gateway: usize, transaction: usize) {
        let changes = state.choice(transaction);
        state.gateways[gateway] = match state.gateways[gateway] {
            Gateway::Borrowed { version, .. } => Gateway::committed(&changes, version, 0),
            _ => Gateway::Done { token: 0 },
        };
    }

    pub(crate) fn gateway_write(state: &mut State, gateway: usize, row: usize) -> Option<()> {
        let Gateway::Committed { mut writes, token } = state.gateways[gateway].clone() else {
            return None;
        };
        state.write(writes.remove(row));
        state.gateways[gateway] =
            if writes.is_empty() { Gateway::Done { token } } else { Gateway::Committed { writes, token } };
        Some(())
    }

    /// The changes as the gateway plans them: with the images that it read back under the rows' locks. Where that
    /// rule is broken, with what the client last saw, and what the client changed of it.
    fn written(&self, changes: Vec<SmallChange>, seen: &Rows) -> Vec<SmallChange> {
        if !self.broken(Rule::GatewayWritesTheImageReadBack) {
            return changes;
        }
        let of_the_client = |change: SmallChange| {
            let (Some(before), Some(after), Some(seen)) =
                (change.before, change.after, seen[change.id as usize - 1])
            else {
                return change;
            };
            let k = if before.k == after.k { seen.k } else { after.k };
            let a = if before.a == after.a { seen.a } else { after.a };
            SmallChange { after: Some(Small { k, a }), ..change }
        };
        net(&changes).into_iter().map(of_the_client).collect()
    }

    /// Whether a client that shows its token reads something older than its own write from Cassandra.
    ///
    /// It may see a mixture of its write and later ones, but in no column a value from before it. A read that waits for its
    /// token is one that begins later: everything is asked for after the wait.
    pub(crate) fn reads_something_older(&self, state: &State) -> bool {
        let copied = state.backfill == Copying::Done
            && (!state.resnapshot_is_due() || self.broken(Rule::ResnapshotBeforeReads));
        if !copied || state.corruption.is_some() {
            return false;
        }
        let aside = if self.broken(Rule::AskedAfterTheWait) {
            let Some(Asked(asked)) = state.asked else { return false };
            asked
        } else {
            state.put_aside().map(|of| of.id)
        };
        state.gateways.iter().filter_map(Gateway::token).any(|token| {
            let applied = self.token_is_applied(state, token);
            (1..=IDS).any(|id| {
                let put_aside = aside == Some(id) && !self.broken(Rule::AsideIsReadFromMysql);
                if !matches!(route(&switched(), facts(applied, put_aside)), Route::Cassandra { .. }) {
                    return false;
                }
                let states = state.row_since(id, token);
                match stored_by_id(id, &state.cassandra) {
                    None => !states.iter().any(|row| !in_by_id(*row)),
                    Some((k, a)) => {
                        let rows = || states.iter().flatten();
                        !rows().any(|row| Some(row.k) == k) || !rows().any(|row| row.a == a)
                    }
                }
            })
        })
    }

    /// Whether the first watermark that holds a transaction is applied.
    fn token_is_applied(&self, state: &State, token: u8) -> bool {
        let first = state.marks().find(|(_, transactions, ..)| *transactions >= token);
        self.broken(Rule::TokenIsApplied) || first.is_some_and(|(place, ..)| self.applied(state, place as u8))
    }
}

/// The phase in which Cassandra serves every read that it can.
fn switched() -> PhaseRecord {
    PhaseRecord { phase: Phase::ReadSwitch, ..PhaseRecord::default() }
}

/// A read of a healthy Cassandra that MySQL does not validate.
fn facts(applied: bool, put_aside: bool) -> ReadFacts {
    ReadFacts {
        in_cohort: true,
        has_target: true,
        live: true,
        applied,
        put_aside,
        healthy: true,
        sample: 1.0,
    }
}

impl Gateway {
    /// The secondary writes that a transaction leaves to be made.
    fn committed(changes: &[SmallChange], version: i16, token: u8) -> Self {
        let writes = secondary_writes(changes, version).into_iter().map(placed).collect();
        Self::Committed { writes, token }
    }
}

/// Whether a row stands in the target by id.
fn in_by_id(row: Option<Small>) -> bool {
    row.is_some_and(passes_the_filter)
}

/// What a transaction has made of each of its rows.
fn net(changes: &[SmallChange]) -> Vec<SmallChange> {
    let mut out: Vec<SmallChange> = Vec::new();
    for change in changes {
        match out.iter_mut().find(|known| known.id == change.id) {
            Some(known) => known.after = change.after,
            None => out.push(*change),
        }
    }
    out
}
