//! Capture: row changes and watermarks to the log, one Kafka transaction at a time.

use tandem_model::Version;
use tandem_protocol::mint::Minter;

use crate::capture_log::{End, Published, Resume, publish};
use crate::protocol::{Protocol, Rule};
use crate::state::{Action, Record, State, Transaction};

impl Protocol {
    pub(crate) fn capture_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut batches = Vec::new();
        let Resume { transactions: captured, partial, .. } = state.resume();
        let mut left = 0;
        for (number, transaction) in state.binlog.iter().enumerate().skip(captured as usize) {
            let out = if number == captured as usize { partial.unwrap_or(0) as usize } else { 0 };
            for row in out + 1..=transaction.records() {
                left += 1;
                // Between its last row and its end a transaction is still partial. A statement is never partial.
                if transaction.ddl.is_none() {
                    batches.push((left, false));
                }
                if row == transaction.records() {
                    batches.push((left, true));
                }
            }
            if out == transaction.records() && out > 0 {
                batches.push((0, true));
            }
        }
        for &(rows, whole) in &batches {
            actions.push(Action::Capture { rows, whole });
            if self.broken(Rule::AbortedIsForgotten) {
                actions.push(Action::Abort { rows, whole });
            }
        }
        if state.idle_left > 0 {
            actions.push(Action::IdleWatermark);
        }
        if self.broken(Rule::LastFromTheWatermark) && state.remembered.is_none() {
            actions.push(Action::Crash);
        }
    }

    /// Capture's next batch: so many rows, and the watermark behind them.
    pub(crate) fn capture(&self, state: &mut State, rows: usize, whole: bool) {
        self.publish(state, End::Rows { rows, whole });
    }

    /// The Kafka transaction of a batch is aborted, and capture goes on behind it all the same.
    pub(crate) fn abort(&self, state: &mut State, rows: usize, whole: bool) {
        let mut lost = state.clone();
        self.capture(&mut lost, rows, whole);
        let (transactions, partial, version) = lost.last_mark();
        state.ahead = Some((transactions, partial));
        state.remembered = Some(version);
    }

    pub(crate) fn idle_watermark(&self, state: &mut State) {
        let transactions = state.resume().transactions;
        let caught_up = transactions as usize == state.binlog.len();
        let clock = caught_up.then_some(10 * i16::from(transactions) + 5);
        self.publish(state, End::Idle { clock });
        state.idle_left -= 1;
    }

    fn publish(&self, state: &mut State, end: End) {
        let from = state.resume();
        let published = self.renumbered(&state.binlog, from, end, publish(&state.binlog, from, end));
        let Published { records, transactions, partial, version } = published;
        (state.remembered, state.ahead) = (None, None);
        state.log.extend(records);
        state.log.push(Record::Mark { transactions, partial, version });
    }

    /// The batch with the versions that a capture would mint that breaks a rule of minting.
    fn renumbered(&self, binlog: &[Transaction], from: Resume, end: End, batch: Published) -> Published {
        let minting = [Rule::NeverBelowTheLast, Rule::VersionPerChange, Rule::WatermarkMints];
        if !minting.into_iter().any(|rule| self.broken(rule)) {
            return batch;
        }
        let mut minter = Minter::after(Version(from.version.into()));
        let (mut number, mut out) = (from.transactions as usize, from.partial.unwrap_or(0) as usize);
        let mut records = batch.records;
        for record in &mut records {
            if out == binlog[number].records() {
                (number, out) = (number + 1, 0);
            }
            let commit_us = i64::from(binlog[number].commit_us);
            let minted = match out {
                0 if self.broken(Rule::NeverBelowTheLast) => {
                    minter = Minter::after(Version(commit_us));
                    minter.last()
                }
                0 => minter.first_of_transaction(commit_us),
                _ if self.broken(Rule::VersionPerChange) => minter.last(),
                _ => minter.further(),
            };
            match record {
                Record::Change { version, .. } | Record::Ddl { version } => *version = minted.0 as i16,
                Record::Mark { .. } => {}
            }
            out += 1;
        }
        let captured = binlog[..batch.transactions as usize].iter().map(|t| t.commit_us).max();
        let clock = match end {
            End::Idle { clock: Some(clock) } => clock,
            _ => captured.unwrap_or(0),
        };
        let version =
            if self.broken(Rule::WatermarkMints) { minter.last() } else { minter.watermark(clock.into()) };
        Published { records, version: version.0 as i16, ..batch }
    }
}

impl State {
    /// The watermark that capture resumes from: the last on the log, unless a broken rule lets it remember another.
    fn resume(&self) -> Resume {
        let (.., version) = self.last_mark();
        let (transactions, partial) = self.captured();
        Resume { transactions, partial, version: self.remembered.unwrap_or(version) }
    }
}
