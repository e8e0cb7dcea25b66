//! MySQL: a commit is in the binlog first, then SELECT shows it, then it is in `gtid_executed`.

use crate::protocol::Protocol;
use crate::state::{Action, Ddl, State, Transaction};
use crate::table::{IDS, Rows, Small, SmallChange};

/// The transactions that can come next.
pub(crate) fn transactions(rows: &Rows) -> Vec<Vec<SmallChange>> {
    let mut all = Vec::new();
    for id in 1..=IDS {
        let change = |before, after| SmallChange { id, before, after };
        match rows[id as usize - 1] {
            Some(row) => {
                let old = Some(row);
                if row.a.is_some() {
                    all.push(vec![change(old, Some(Small { a: None, ..row }))]);
                }
                let two = Some(Small { a: Some(2), ..row });
                if two != old {
                    all.push(vec![change(old, two)]);
                    // A value that comes and goes within one transaction.
                    all.push(vec![change(old, two), change(two, Some(Small { a: None, ..row }))]);
                }
                all.push(vec![change(old, Some(Small { k: 1 - row.k, ..row }))]);
                all.push(vec![change(old, None)]);
                // REPLACE.
                all.push(vec![change(old, None), change(None, Some(Small { a: None, ..row }))]);
            }
            None => {
                all.push(vec![change(None, Some(Small { k: 0, a: Some(1) }))]);
                all.push(vec![change(None, Some(Small { k: 1, a: None }))]);
            }
        }
    }
    // A changed primary key is two row changes; a swap of two is four.
    let gone = |id, row| SmallChange { id, before: row, after: None };
    let come = |id, row| SmallChange { id, before: None, after: row };
    match *rows {
        [one @ Some(_), None] => all.push(vec![gone(1, one), come(2, one)]),
        [None, two @ Some(_)] => all.push(vec![gone(2, two), come(1, two)]),
        [one @ Some(_), two @ Some(_)] => {
            all.push(vec![gone(1, one), gone(2, two), come(1, two), come(2, one)]);
        }
        [None, None] => {}
    }
    all
}

impl State {
    /// The number of transactions that can come next.
    pub(crate) fn choices(&self) -> usize {
        transactions(&self.rows(self.binlog.len())).len()
    }

    /// The changes of one of the transactions that can come next.
    pub(crate) fn choice(&self, transaction: usize) -> Vec<SmallChange> {
        transactions(&self.rows(self.binlog.len())).swap_remove(transaction)
    }

    /// Flushes a transaction to the binlog, committed at its turn.
    pub(crate) fn flush(&mut self, changes: Vec<SmallChange>, ddl: Option<Ddl>, commit_us: Option<i16>) {
        let in_turn = 10 * (self.binlog.len() as i16 + 1);
        self.binlog.push(Transaction { changes, ddl, commit_us: commit_us.unwrap_or(in_turn) });
    }
}

impl Protocol {
    pub(crate) fn mysql_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.binlog.len() < self.bounds.transactions {
            let back = self.bounds.clock_steps_back && !state.binlog.is_empty();
            for transaction in 0..state.choices() {
                actions.push(Action::Flush { transaction, clock_back: false });
                if back {
                    actions.push(Action::Flush { transaction, clock_back: true });
                }
            }
            if self.bounds.alter && state.binlog.iter().all(|t| t.ddl.is_none()) {
                actions.extend([None, Some(2)].map(|default| Action::Alter(Ddl { default })));
            }
        }
        if (state.visible as usize) < state.binlog.len() {
            actions.push(Action::Visible);
        }
        if state.executed < state.visible {
            actions.push(Action::Executed);
        }
    }
}
