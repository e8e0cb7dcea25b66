//! The sample billing database: accounts, invoices, invoice lines, payments. The same seed makes the same
//! database, row by row.

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Value};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use tandem_compare::stores::schema::tick;

use super::schema::{ACCOUNT, INVOICE, LINE, PAYMENT, SCHEMA};

/// The traffic never touches rows whose id is a multiple of this. A corruption of such a row in Cassandra
/// stays until verification finds it.
pub(crate) const QUIET: u64 = 97;

const SEED: u64 = 0x7A4D_E301;
const BATCH: usize = 500;

const COUNTRIES: [(&str, &str, &str); 12] = [
    ("DE", "EUR", "0.1900"),
    ("FR", "EUR", "0.2000"),
    ("PL", "PLN", "0.2300"),
    ("GB", "GBP", "0.2000"),
    ("US", "USD", "0.0725"),
    ("CA", "CAD", "0.0500"),
    ("BR", "BRL", "0.1700"),
    ("JP", "JPY", "0.1000"),
    ("KR", "KRW", "0.1000"),
    ("IN", "INR", "0.1800"),
    ("TR", "TRY", "0.2000"),
    ("ZA", "ZAR", "0.1500"),
];
const FIRST: [&str; 14] = [
    "Müller",
    "Łódzka",
    "Société",
    "Ørsted",
    "東京",
    "서울",
    "Çelik",
    "São Paulo",
    "Mumbai",
    "Khumalo",
    "O'Brien",
    "Smith \\ Sons",
    "Zażółć",
    "🦀 Crab",
];
const SECOND: [&str; 10] = [
    "GmbH",
    "S.A.",
    "Sp. z o.o.",
    "Ltd",
    "株式会社",
    "Logistics",
    "Studio",
    "& Co",
    "Holding \"A\"",
    "Foods",
];
const ITEMS: [&str; 10] = [
    "Seat, monthly",
    "Storage 100 GB",
    "Support – gold",
    "Überstunden",
    "Ćwiczenia",
    "追加ユーザー",
    "Domain",
    "API calls",
    "Café tokens ☕",
    "Onboarding",
];

/// The initial number of rows of each table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) accounts: u64,
    pub(crate) invoices: u64,
    pub(crate) payments: u64,
}

impl Size {
    /// The size for this number of invoices.
    pub(crate) fn of(invoices: u64) -> Self {
        let invoices = invoices.max(1);
        Self { accounts: (invoices / 20).max(12), invoices, payments: (invoices * 7 / 10).max(1) }
    }
}

/// Makes rows, for the first fill and for the traffic.
#[derive(Debug)]
pub(crate) struct Generator {
    rng: StdRng,
}

impl Generator {
    /// A generator with a separate sequence for each `stream`.
    pub(crate) fn new(stream: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(SEED.wrapping_add(stream)) }
    }

    pub(crate) fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.choose(&mut self.rng).expect("the lists of this module are not empty")
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn maybe(&mut self, null_percent: u32, value: impl FnOnce(&mut Self) -> Value) -> Value {
        if self.chance(null_percent) { Value::NULL } else { value(self) }
    }

    /// An amount with this number of digits after the point.
    pub(crate) fn money(&mut self, below: u32, digits: usize) -> Value {
        let whole = self.rng.random_range(0..below);
        let fraction = self.rng.random_range(0..10_u32.pow(digits as u32));
        format!("{whole}.{fraction:0digits$}").into()
    }

    /// A date of recent years.
    pub(crate) fn date(&mut self) -> Value {
        let (y, m, d) =
            (self.rng.random_range(2018..2026), self.rng.random_range(1..=12), self.rng.random_range(1..=28));
        Value::Date(y, m, d, 0, 0, 0, 0)
    }

    /// A moment of recent years, to the millisecond.
    pub(crate) fn moment(&mut self) -> Value {
        let mut moment = self.date();
        if let Value::Date(_, _, _, hour, minute, second, micros) = &mut moment {
            *hour = self.rng.random_range(0..24);
            *minute = self.rng.random_range(0..60);
            *second = self.rng.random_range(0..60);
            *micros = self.rng.random_range(0..1000) * 1000;
        }
        moment
    }

    /// A short free text.
    pub(crate) fn memo(&mut self) -> Value {
        let (what, who, n) = (self.pick(&ITEMS), self.pick(&FIRST), self.rng.random_range(1..10_000));
        format!("{what} / {who} #{n}").into()
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Value {
        let mut bytes = vec![0_u8; n];
        self.rng.fill(bytes.as_mut_slice());
        Value::Bytes(bytes)
    }

    pub(crate) fn account_status(&mut self) -> Value {
        self.pick(&["trial", "active", "active", "active", "past_due", "closed"]).into()
    }

    /// The columns of [`ACCOUNT`].
    pub(crate) fn account(&mut self, id: u64) -> Vec<Value> {
        let (country, _, tax) = self.pick(&COUNTRIES);
        let name = format!("{} {} {id}", self.pick(&FIRST), self.pick(&SECOND));
        vec![
            id.into(),
            self.bytes(16),
            name.into(),
            self.maybe(15, |_| format!("billing+{id}@example.com").into()),
            country.into(),
            self.account_status(),
            self.maybe(40, |g| g.money(100_000, 2)),
            tax.into(),
            i8::from(self.chance(5)).into(),
            self.maybe(30, |g| g.rng.random::<u64>().into()),
            self.rng.random_range(0..16_u32).into(),
            self.date(),
            self.moment(),
        ]
    }

    /// The columns of [`INVOICE`].
    pub(crate) fn invoice(&mut self, id: u64, account: u64) -> Vec<Value> {
        let (_, currency, _) = self.pick(&COUNTRIES);
        vec![
            id.into(),
            account.into(),
            format!("INV-{id:09}").into(),
            self.pick(&["draft", "open", "open", "paid", "paid", "paid", "void"]).into(),
            currency.into(),
            self.money(9_000, 2),
            self.maybe(10, |g| g.money(900, 2)),
            self.moment(),
            self.maybe(20, Self::date),
            self.maybe(60, Self::memo),
            self.rng.random_range(0..4_u16).into(),
        ]
    }

    /// The columns of [`LINE`].
    pub(crate) fn line(&mut self, invoice: u64, number: u64) -> Vec<Value> {
        vec![
            invoice.into(),
            number.into(),
            format!("SKU-{:05}", self.rng.random_range(0..40_000)).into(),
            self.maybe(10, |g| g.pick(&ITEMS).into()),
            self.rng.random_range(-2..50_i32).into(),
            self.money(500, 4),
            self.maybe(70, |g| g.money(1, 4)),
            i8::from(self.chance(90)).into(),
        ]
    }

    /// The columns of [`PAYMENT`].
    pub(crate) fn payment(&mut self, id: u64, invoice: u64, account: u64) -> Vec<Value> {
        let length = self.rng.random_range(0..24);
        vec![
            id.into(),
            invoice.into(),
            account.into(),
            self.pick(&["card", "transfer", "sepa", "wallet"]).into(),
            self.money(9_000, 2),
            self.maybe(30, |g| g.money(20, 4)),
            self.moment(),
            self.maybe(25, Self::date),
            self.maybe(20, |g| g.bytes(length)),
            self.maybe(30, |g| g.rng.random_range(0.0..1.0_f64).into()),
        ]
    }
}

/// Creates and fills the database. `progress` is called with the number of rows written so far and the table
/// that is being filled.
pub(crate) async fn create(
    conn: &mut Conn,
    database: &str,
    size: Size,
    mut progress: impl FnMut(u64, &str),
) -> Result<u64> {
    let name = tick(database);
    conn.query_drop(format!("CREATE DATABASE {name} DEFAULT CHARACTER SET utf8mb4"))
        .await
        .with_context(|| format!("create database {database}"))?;
    conn.query_drop(format!("USE {name}")).await?;
    for table in SCHEMA {
        conn.query_drop(table).await.context("create the sample tables")?;
    }
    let mut generator = Generator::new(0);
    let mut total = 0;
    let mut batch = Batch::new(ACCOUNT);
    for id in 1..=size.accounts {
        total += batch.add(conn, generator.account(id)).await?;
        progress(total, "accounts");
    }
    total += batch.flush(conn).await?;
    let mut batch = Batch::new(INVOICE);
    let mut account_of = Vec::with_capacity(size.invoices as usize);
    for id in 1..=size.invoices {
        let account = generator.rng.random_range(1..=size.accounts);
        account_of.push(account);
        total += batch.add(conn, generator.invoice(id, account)).await?;
        progress(total, "invoices");
    }
    total += batch.flush(conn).await?;
    let mut batch = Batch::new(LINE);
    for invoice in 1..=size.invoices {
        for number in 1..=generator.rng.random_range(1..=5) {
            total += batch.add(conn, generator.line(invoice, number)).await?;
        }
        progress(total, "invoice lines");
    }
    total += batch.flush(conn).await?;
    let mut batch = Batch::new(PAYMENT);
    for id in 1..=size.payments {
        let invoice = generator.rng.random_range(1..=size.invoices);
        let account = account_of[invoice as usize - 1];
        total += batch.add(conn, generator.payment(id, invoice, account)).await?;
        progress(total, "payments");
    }
    total += batch.flush(conn).await?;
    progress(total, "payments");
    Ok(total)
}

/// `INSERT INTO … VALUES (?, …), …` with this number of rows and columns.
pub(crate) fn insert(verb: &str, into: &str, columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    format!("{verb} INTO {into} VALUES {}", vec![row.as_str(); rows].join(", "))
}

/// Rows waiting to be inserted into one table.
struct Batch {
    into: &'static str,
    values: Vec<Value>,
    rows: usize,
}

impl Batch {
    fn new(into: &'static str) -> Self {
        Self { into, values: Vec::new(), rows: 0 }
    }

    /// Adds a row. Returns how many rows this call wrote to MySQL.
    async fn add(&mut self, conn: &mut Conn, row: Vec<Value>) -> Result<u64> {
        self.values.extend(row);
        self.rows += 1;
        if self.rows < BATCH { Ok(0) } else { self.flush(conn).await }
    }

    async fn flush(&mut self, conn: &mut Conn) -> Result<u64> {
        let rows = std::mem::take(&mut self.rows);
        if rows == 0 {
            return Ok(0);
        }
        let values = std::mem::take(&mut self.values);
        let sql = insert("INSERT", self.into, values.len() / rows, rows);
        conn.exec_drop(sql, Params::Positional(values))
            .await
            .with_context(|| format!("insert into {}", self.into.split(' ').next().unwrap_or(self.into)))?;
        Ok(rows as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rows_every_time() {
        let rows = |stream| {
            let mut g = Generator::new(stream);
            (g.account(1), g.invoice(2, 1), g.line(2, 1), g.payment(3, 2, 1))
        };
        assert_eq!(rows(0), rows(0));
        assert_ne!(rows(0), rows(1));
    }

    #[test]
    fn rows_fit_their_column_lists() {
        let mut g = Generator::new(0);
        let columns = |list: &str| list.split(',').count();
        assert_eq!(g.account(1).len(), columns(ACCOUNT));
        assert_eq!(g.invoice(1, 1).len(), columns(INVOICE));
        assert_eq!(g.line(1, 1).len(), columns(LINE));
        assert_eq!(g.payment(1, 1, 1).len(), columns(PAYMENT));
    }

    #[test]
    fn statements_of_many_rows() {
        assert_eq!(insert("REPLACE", "t (a, b)", 2, 2), "REPLACE INTO t (a, b) VALUES (?, ?), (?, ?)");
    }
}
