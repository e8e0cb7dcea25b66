//! Capture: row changes and watermarks to the log, one Kafka transaction at a time.

use tandem_model::Version;
use tandem_protocol::mint::Minter;

use crate::protocol::{Protocol, Rule};
use crate::state::{Action, Record, State};

impl Protocol {
    pub(crate) fn capture_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut batches = Vec::new();
        let (captured, partial) = state.captured();
        let mut left = 0;
        for (number, transaction) in state.binlog.iter().enumerate().skip(captured as usize) {
            let out = if number == captured as usize { partial.unwrap_or(0) as usize } else { 0 };
            for row in out + 1..=transaction.records() {
                left += 1;
                // Between its last row and its end a transaction is still cut.
                batches.push((left, false));
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
    pub(crate) fn capture(&self, state: &mut State, mut rows: usize, whole: bool) {
        let (mut transaction, partial) = state.captured();
        let mut minter = state.minter();
        let mut out = partial.unwrap_or(0);
        while rows > 0 {
            let current = state.binlog[transaction as usize].clone();
            while rows > 0 && (out as usize) < current.records() {
                let version = match out {
                    0 if self.broken(Rule::NeverBelowTheLast) => {
                        minter = Minter::after(Version(current.commit_us.into()));
                        minter.last()
                    }
                    0 => minter.first_of_transaction(current.commit_us.into()),
                    _ if self.broken(Rule::VersionPerChange) => minter.last(),
                    _ => minter.further(),
                };
                let version = version.0 as i16;
                state.log.push(match current.changes.get(out as usize) {
                    Some(&of) => Record::Change { of, version },
                    None => Record::Ddl { version },
                });
                out += 1;
                rows -= 1;
            }
            if out as usize == current.records() && (rows > 0 || whole) {
                (transaction, out) = (transaction + 1, 0);
            }
        }
        if whole && out > 0 {
            // All rows of a transaction that was cut are out, and now its end is there as well.
            (transaction, out) = (transaction + 1, 0);
        }
        let clock = state.binlog[..transaction as usize].iter().map(|t| t.commit_us).max().unwrap_or(0);
        let partial = (out > 0).then_some(out);
        self.mark(state, minter, clock, transaction, partial);
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
        let (transactions, partial) = state.captured();
        let caught_up = transactions as usize == state.binlog.len();
        let clock = if caught_up { 10 * i16::from(transactions) + 5 } else { 0 };
        self.mark(state, state.minter(), clock, transactions, partial);
        state.idle_left -= 1;
    }

    fn mark(&self, state: &mut State, mut minter: Minter, clock: i16, transactions: u8, partial: Option<u8>) {
        let version =
            if self.broken(Rule::WatermarkMints) { minter.last() } else { minter.watermark(clock.into()) };
        (state.remembered, state.ahead) = (None, None);
        state.log.push(Record::Mark { transactions, partial, version: version.0 as i16 });
    }
}

impl State {
    fn minter(&self) -> Minter {
        let (.., version) = self.last_mark();
        Minter::after(Version(self.remembered.unwrap_or(version).into()))
    }
}
