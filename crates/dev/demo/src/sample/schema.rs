//! The sample billing database's tables, and their targets in Cassandra.

use serde_json::json;

use crate::clients::Entity;

/// The tables, parents first.
pub(crate) const SCHEMA: [&str; 4] = [
    "CREATE TABLE accounts (
        id BIGINT NOT NULL PRIMARY KEY,
        public_id BINARY(16) NOT NULL,
        name VARCHAR(120) NOT NULL,
        email VARCHAR(160) NULL,
        country CHAR(2) NOT NULL,
        status ENUM('trial','active','past_due','closed') NOT NULL,
        credit_limit DECIMAL(12,2) NULL,
        tax_rate DECIMAL(6,4) NOT NULL,
        vip TINYINT(1) NOT NULL DEFAULT 0,
        crm_ref BIGINT UNSIGNED NULL,
        legacy_flags INT UNSIGNED NOT NULL DEFAULT 0,
        since DATE NOT NULL,
        created_at DATETIME(3) NOT NULL,
        updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
    ) DEFAULT CHARSET=utf8mb4",
    "CREATE TABLE invoices (
        id BIGINT NOT NULL PRIMARY KEY,
        account_id BIGINT NOT NULL,
        number VARCHAR(24) NOT NULL,
        status ENUM('draft','open','paid','void') NOT NULL,
        currency CHAR(3) NOT NULL,
        amount DECIMAL(12,2) NOT NULL,
        tax DECIMAL(12,2) NULL,
        issued_at DATETIME(3) NOT NULL,
        due_on DATE NULL,
        memo VARCHAR(255) NULL,
        attempts SMALLINT UNSIGNED NOT NULL DEFAULT 0,
        updated_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
        UNIQUE KEY (number),
        FOREIGN KEY (account_id) REFERENCES accounts (id)
    ) DEFAULT CHARSET=utf8mb4",
    "CREATE TABLE invoice_lines (
        invoice_id BIGINT NOT NULL,
        line_no INT UNSIGNED NOT NULL,
        sku VARCHAR(40) NOT NULL,
        description VARCHAR(200) NULL,
        quantity INT NOT NULL,
        unit_price DECIMAL(12,4) NOT NULL,
        discount DECIMAL(5,4) NULL,
        taxable TINYINT(1) NOT NULL DEFAULT 1,
        PRIMARY KEY (invoice_id, line_no),
        FOREIGN KEY (invoice_id) REFERENCES invoices (id)
    ) DEFAULT CHARSET=utf8mb4",
    "CREATE TABLE payments (
        id BIGINT NOT NULL PRIMARY KEY,
        invoice_id BIGINT NOT NULL,
        account_id BIGINT NOT NULL,
        method ENUM('card','transfer','sepa','wallet') NOT NULL,
        amount DECIMAL(12,2) NOT NULL,
        fee DECIMAL(8,4) NULL,
        received_at DATETIME(3) NOT NULL,
        settled_on DATE NULL,
        reference VARBINARY(24) NULL,
        risk DOUBLE NULL,
        FOREIGN KEY (invoice_id) REFERENCES invoices (id)
    ) DEFAULT CHARSET=utf8mb4",
];

/// The mapping part of `tandem.toml`. It is query-first: each query of the application has a table.
/// `{db}` stands for the database.
pub(crate) const MAPPING: &str = r#"
[[table]]
source = "{db}.accounts"

  # One account.
  [[table.target]]
  table = "accounts"
  partition_key = ["id"]
  exclude_from_target = ["legacy_flags"]

  # All accounts of a country in a state; the state changes, so rows move.
  [[table.target]]
  table = "accounts_by_country"
  partition_key = ["country"]
  clustering_key = ["status", "id"]
  exclude_from_target = ["legacy_flags", "public_id", "crm_ref"]

[[table]]
source = "{db}.invoices"
entity = "invoice"

  # One invoice.
  [[table.target]]
  table = "invoices"
  partition_key = ["id"]
  rename = { amount = "amount_due" }

  # The invoices of an account, newest first; an invoice may be issued anew or change hands.
  [[table.target]]
  table = "invoices_by_account"
  partition_key = ["account_id"]
  clustering_key = ["issued_at desc", "id"]
  rename = { amount = "amount_due" }
  exclude_from_target = ["memo", "attempts"]

[[table]]
source = "{db}.invoice_lines"

  # The lines of an invoice in order.
  [[table.target]]
  table = "invoice_lines"
  partition_key = ["invoice_id"]
  clustering_key = ["line_no"]

[[table]]
source = "{db}.payments"

  # One payment.
  [[table.target]]
  table = "payments"
  partition_key = ["id"]

  # The payments of an account, newest first.
  [[table.target]]
  table = "payments_by_account"
  partition_key = ["account_id"]
  clustering_key = ["received_at desc", "id"]
  exclude_from_target = ["reference", "risk"]
"#;

/// The clients' entity: invoices of two accounts. A write may move an invoice to the other account.
pub(crate) fn entity() -> Entity {
    Entity {
        name: "invoice",
        table: "invoices",
        target: "invoices",
        value: "memo",
        row: |id| {
            json!({
                "account_id": 1 + rand::random_range(0..2_u64), "number": format!("C-{id}"), "status": "open",
                "currency": "EUR", "amount": "12.50", "issued_at": "2024-02-29T12:00:00.000",
            })
        },
    }
}

/// Column lists of the INSERTs, in the order in which [`Generator`](super::Generator) makes the values.
pub(crate) const ACCOUNT: &str = "accounts (id, public_id, name, email, country, status, credit_limit, tax_rate, \
    vip, crm_ref, legacy_flags, since, created_at)";
pub(crate) const INVOICE: &str = "invoices (id, account_id, number, status, currency, amount, tax, issued_at, \
    due_on, memo, attempts)";
pub(crate) const LINE: &str =
    "invoice_lines (invoice_id, line_no, sku, description, quantity, unit_price, discount, taxable)";
pub(crate) const PAYMENT: &str = "payments (id, invoice_id, account_id, method, amount, fee, received_at, \
    settled_on, reference, risk)";

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_compare::stores::config::Config;

    #[test]
    fn the_mapping_reads() {
        let head = "[mysql]\nurl = \"u\"\n[cassandra]\nnodes = []\nkeyspace = \"k\"\n";
        let config = Config::parse(&format!("{head}{}", MAPPING.replace("{db}", "b"))).unwrap();
        assert_eq!(config.tables.iter().map(|t| t.targets.len()).sum::<usize>(), 7);
    }
}
