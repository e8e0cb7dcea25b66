//! Traffic on the sample database: every kind of change that an application makes, and some that are
//! difficult for migrations.

use std::sync::atomic::{AtomicU64, Ordering};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Value};
use rand::Rng as _;

use super::rows::{Generator, QUIET, Size, insert};
use super::schema::{ACCOUNT, INVOICE, LINE, PAYMENT};
use crate::traffic::{Step, execute};

/// The keys in use and the next keys.
#[derive(Debug)]
pub(crate) struct SampleTraffic {
    /// Accounts up to this id are never deleted, so that a new invoice always finds one.
    first_accounts: u64,
    accounts: AtomicU64,
    invoices: AtomicU64,
    payments: AtomicU64,
}

type Outcome = Result<Step, Error>;

impl SampleTraffic {
    pub(crate) fn new(size: Size) -> Self {
        Self {
            first_accounts: size.accounts,
            accounts: AtomicU64::new(size.accounts),
            invoices: AtomicU64::new(size.invoices),
            payments: AtomicU64::new(size.payments),
        }
    }

    /// Performs one random step.
    pub(crate) async fn step(&self, conn: &mut Conn, g: &mut Generator) -> Outcome {
        match g.rng().random_range(0..100) {
            0..20 => self.new_invoice(conn, g).await,
            20..35 => self.update(conn, g).await,
            35..45 => self.null_and_back(conn, g).await,
            45..58 => self.move_row(conn, g).await,
            58..66 => self.delete(conn, g).await,
            66..73 => self.delete_and_insert(conn, g).await,
            73..80 => self.replace(conn, g).await,
            80..87 => self.many_rows(conn, g).await,
            87..93 => self.change_key(conn, g).await,
            93..97 => self.swap_keys(conn, g).await,
            _ => self.accounts(conn, g).await,
        }
    }

    /// A key that was used already and is not quiet. Its row may be deleted.
    fn some(g: &mut Generator, last: &AtomicU64) -> u64 {
        let id = g.rng().random_range(1..=last.load(Ordering::Relaxed));
        if !id.is_multiple_of(QUIET) {
            id
        } else if id > 1 {
            id - 1
        } else {
            id + 1
        }
    }

    /// A key that no row has had.
    fn next(last: &AtomicU64) -> u64 {
        loop {
            let id = last.fetch_add(1, Ordering::Relaxed) + 1;
            if !id.is_multiple_of(QUIET) {
                return id;
            }
        }
    }

    async fn new_invoice(&self, conn: &mut Conn, g: &mut Generator) -> Outcome {
        let id = Self::next(&self.invoices);
        let account = g.rng().random_range(1..=self.first_accounts);
        conn.query_drop("BEGIN").await?;
        let mut rows = insert_row(conn, "INSERT", INVOICE, g.invoice(id, account)).await?;
        for number in 1..=g.rng().random_range(1..=4) {
            rows += insert_row(conn, "INSERT", LINE, g.line(id, number)).await?;
        }
        if g.rng().random_range(0..10) < 7 {
            let payment = g.payment(Self::next(&self.payments), id, account);
            rows += insert_row(conn, "INSERT", PAYMENT, payment).await?;
        }
        commit(conn, "insert", rows).await
    }

    async fn update(&self, conn: &mut Conn, g: &mut Generator) -> Outcome {
        let rows = match g.rng().random_range(0..4) {
            0 => {
                let values = vec![g.money(9_000, 2), Self::some(g, &self.invoices).into()];
                execute(conn, "UPDATE invoices SET amount = ?, attempts = attempts + 1 WHERE id = ?", values)
                    .await?
            }
            1 => {
                let values = vec![g.memo(), Self::some(g, &self.accounts).into()];
                execute(conn, "UPDATE accounts SET name = ?, vip = 1 - vip WHERE id = ?", values).await?
            }
            2 => {
                let values = vec![g.memo(), g.money(500, 4), Self::some(g, &self.invoices).into()];
                let sql = "UPDATE invoice_lines SET description = ?, unit_price = ?, quantity = quantity + 1 \
                           WHERE invoice_id = ? AND line_no = 1";
                execute(conn, sql, values).await?
            }
            _ => {
                let values = vec![g.money(900, 2), g.bytes(24), Self::some(g, &self.payments).into()];
                execute(conn, "UPDATE payments SET amount = ?, reference = ? WHERE id = ?", values).await?
            }
        };
        Ok(Step { kind: "update", rows })
    }

    /// Sets columns to NULL, or from NULL to a value.
    async fn null_and_back(&self, conn: &mut Conn, g: &mut Generator) -> Outcome {
        let invoice = Self::some(g, &self.invoices);
        let rows = match g.rng().random_range(0..3) {
            0 => {
                let values = vec![g.memo(), g.date(), g.money(900, 2), invoice.into()];
                let sql = "UPDATE invoices SET memo = IF(memo IS NULL, ?, NULL), \
                           due_on = IF(due_on IS NULL, ?, NULL), tax = IF(tax IS NULL, ?, NULL) WHERE id = ?";
                execute(conn, sql, values).await?
            }
            1 => {
                let values = vec![g.money(1, 4), invoice.into()];
                let sql =
                    "UPDATE invoice_lines SET discount = IF(discount IS NULL, ?, NULL) WHERE invoice_id = ?";
                execute(conn, sql, values).await?
            }
            _ => {
                let values = vec![g.date(), g.money(20, 4), Self::some(g, &self.payments).into()];
                let sql = "UPDATE payments SET settled_on = IF(settled_on IS NULL, ?, NULL), \
                           fee = IF(fee IS NULL, ?, NULL) WHERE id = ?";
                execute(conn, sql, values).await?
            }
        };
        Ok(Step { kind: "update to or from NULL", rows })
    }

    /// Changes clustering or partition columns of a target, so that the target row moves.
    async fn move_row(&self, conn: &mut Conn, g: &mut Generator) -> Outcome {
        let rows = match g.rng().random_range(0..4) {
            0 => {
                let values = vec![g.moment(), Self::some(g, &self.invoices).into()];
                execute(conn, "UPDATE invoices SET issued_at = ? WHERE id = ?", values).await?
            }
            1 => {
                let account = g.rng().random_range(1..=self.first_accounts);
                let values = vec![account.into(), Self::some(g, &self.invoices).into()];
                execute(conn, "UPDATE invoices SET account_id = ? WHERE id = ?", values).await?
            }
            2 => {
                let values = vec![g.account_status(), Self::some(g, &self.accounts).into()];
                execute(conn, "UPDATE accounts SET status = ? WHERE id = ?", values).await?
            }
            _ => {
                let values = vec![g.moment(), Self::some(g, &self.payments).into()];
                execute(conn, "UPDATE payments SET received_at = ? WHERE id = ?", values).await?
            }
        };
        Ok(Step { kind: "update of a target's key", rows })
    }

    async fn delete(&self, conn: &mut Conn, g: &mut Generator) -> Outcome {
        let kind = "delete";
        match g.rng().random_range(0..4) {
            0 => {
                // A whole invoice, children first. If a payment of it is quiet, the invoice stays.
                let id = Self::some(g, &self.invoices);
                let quiet =
                    format!("SELECT 1 FROM payments WHERE invoice_id = {id} AND id % {QUIET} = 0 LIMIT 1");
                if conn.query_first::<u8, _>(quiet).await?.is_some() {
                    return Ok(Step { kind, rows: 0 });
                }
                conn.query_drop("BEGIN").await?;
                let mut rows =
                    execute(conn, "DELETE FROM invoice_lines WHERE invoice_id = ?", vec![id.into()]).await?;
                rows += execute(conn, "DELETE FROM payments WHERE invoice_id = ?", vec![id.into()]).await?;
                rows += execute(conn, "DELETE FROM invoices WHERE id = ?", vec![id.into()]).await?;
                commit(conn, kind, rows).await
            }
            1 => {
                let key = vec![Self::some(g, &self.payments).into()];
                Ok(Step { kind, rows: execute(conn, "DELETE FROM payments WHERE id = ?", key).await? })
            }
            _ => {
                let sql = "DELETE FROM invoice_lines WHERE invoice_id = ? AND line_no > 2";
                let key = vec![Self::some(g, &self.invoices).into()];
                Ok(Step { kind, rows: execute(conn, sql, key).await? })
            }
        }
    }

    /// Deletes a row and inserts the same key again, in one transaction or in two.
    async fn delete_and_insert(&self, conn: &mut Conn, g: &mut Generator) -> Outcome {
        let kind = "delete and insert again";
        let Some(invoice) = self.living_invoice(conn, g).await? else { return Ok(Step { kind, rows: 0 }) };
        let number = g.rng().random_range(1..=3_u64);
        let together = g.rng().random_range(0..2) == 0;
        let times = g.rng().random_range(1..=2);
        if together {
            conn.query_drop("BEGIN").await?;
        }
        let mut rows = 0;
        for _ in 0..times {
            let key = vec![invoice.into(), number.into()];
            rows +=
                execute(conn, "DELETE FROM invoice_lines WHERE invoice_id = ? AND line_no = ?", key).await?;
            rows += insert_row(conn, "INSERT", LINE, g.line(invoice, number)).await?;
        }
        if together { commit(conn, kind, rows).await } else { Ok(Step { kind, rows }) }
    }

    async fn replace(&self, conn: &mut Conn, g: &mut Generator) -> Outcome {
        let kind = "replace";
        let Some(invoice) = self.living_invoice(conn, g).await? else { return Ok(Step { kind, rows: 0 }) };
        let rows = if g.rng().random_range(0..2) == 0 {
            let number = g.rng().random_range(1..=4);
            insert_row(conn, "REPLACE", LINE, g.line(invoice, number)).await?
        } else {
            let account = g.rng().random_range(1..=self.first_accounts);
            let payment = Self::some(g, &self.payments);
            insert_row(conn, "REPLACE", PAYMENT, g.payment(payment, invoice, account)).await?
        };
        Ok(Step { kind, rows })
    }

    /// One statement that changes many rows.
    async fn many_rows(&self, conn: &mut Conn, g: &mut Generator) -> Outcome {
        let from = Self::some(g, &self.invoices);
        let span = g.rng().random_range(2..12);
        let values = vec![from.into(), (from + span).into()];
        let sql = if g.rng().random_range(0..2) == 0 {
            format!(
                "UPDATE invoice_lines SET quantity = quantity + 1, taxable = 1 - taxable \
                 WHERE invoice_id BETWEEN ? AND ? AND invoice_id % {QUIET} <> 0"
            )
        } else {
            format!(
                "UPDATE invoices SET status = IF(status = 'open', 'paid', 'open'), \
                 issued_at = issued_at + INTERVAL 1 SECOND WHERE id BETWEEN ? AND ? AND id % {QUIET} <> 0"
            )
        };
        Ok(Step { kind: "update of many rows", rows: execute(conn, &sql, values).await? })
    }

    /// Changes primary keys.
    async fn change_key(&self, conn: &mut Conn, g: &mut Generator) -> Outcome {
        let rows = if g.rng().random_range(0..2) == 0 {
            let old = Self::some(g, &self.payments);
            let values = vec![Self::next(&self.payments).into(), old.into()];
            execute(conn, "UPDATE payments SET id = ? WHERE id = ?", values).await?
        } else {
            let key = vec![Self::some(g, &self.invoices).into()];
            let sql = "UPDATE invoice_lines SET line_no = line_no + 100 WHERE invoice_id = ? AND line_no = 2";
            execute(conn, sql, key).await?
        };
        Ok(Step { kind: "change of the primary key", rows })
    }

    /// Two rows exchange their keys.
    async fn swap_keys(&self, conn: &mut Conn, g: &mut Generator) -> Outcome {
        let invoice = Self::some(g, &self.invoices);
        let sql = "UPDATE invoice_lines SET line_no = ? WHERE invoice_id = ? AND line_no = ?";
        let aside = 1_000_000_u64;
        conn.query_drop("BEGIN").await?;
        let mut rows = 0;
        for (to, from) in [(aside, 1), (1, 2), (2, aside)] {
            rows += execute(conn, sql, vec![to.into(), invoice.into(), from.into()]).await?;
        }
        commit(conn, "swap of two keys", rows).await
    }

    /// Inserts an account, or deletes one that has no invoices.
    async fn accounts(&self, conn: &mut Conn, g: &mut Generator) -> Outcome {
        if g.rng().random_range(0..3) > 0 {
            let account = g.account(Self::next(&self.accounts));
            return Ok(Step { kind: "insert", rows: insert_row(conn, "INSERT", ACCOUNT, account).await? });
        }
        let id = Self::some(g, &self.accounts).max(self.first_accounts + 1);
        if id.is_multiple_of(QUIET) {
            return Ok(Step { kind: "delete", rows: 0 });
        }
        Ok(Step {
            kind: "delete",
            rows: execute(conn, "DELETE FROM accounts WHERE id = ?", vec![id.into()]).await?,
        })
    }

    async fn living_invoice(&self, conn: &mut Conn, g: &mut Generator) -> Result<Option<u64>, Error> {
        let id = Self::some(g, &self.invoices);
        conn.exec_first("SELECT id FROM invoices WHERE id = ?", (id,)).await
    }
}

async fn insert_row(conn: &mut Conn, verb: &str, into: &str, row: Vec<Value>) -> Result<u64, Error> {
    execute(conn, &insert(verb, into, row.len(), 1), row).await
}

async fn commit(conn: &mut Conn, kind: &'static str, rows: u64) -> Outcome {
    conn.query_drop("COMMIT").await?;
    Ok(Step { kind, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_keys_are_never_handed_out() {
        let traffic = SampleTraffic::new(Size { accounts: 12, invoices: 95, payments: 1 });
        let fresh: Vec<u64> = (0..3).map(|_| SampleTraffic::next(&traffic.invoices)).collect();
        assert_eq!(fresh, [96, 98, 99]);
        let mut g = Generator::new(1);
        for _ in 0..2000 {
            assert!(!SampleTraffic::some(&mut g, &traffic.invoices).is_multiple_of(QUIET));
        }
    }
}
