//! Which transactions a read may have seen.
//!
//! MySQL commits each group of transactions in steps (`MYSQL_BIN_LOG::ordered_commit`):
//!
//! 1. Flush: the transaction gets its GTID and goes to the binlog. From now on the GTID is *owned*
//!    (`gtid_owned`).
//! 2. Sync.
//! 3. Commit: InnoDB commits. The changes become visible and the row locks are released.
//! 4. The GTID moves from `gtid_owned` to `gtid_executed`.
//! 5. The server answers the client.
//!
//! While a thread waits between steps 3 and 4, a read can see changes whose GTID is in `gtid_owned` and not
//! yet in `gtid_executed`. So both sets are needed, and `gtid_owned` must be read first. A GTID that is no
//! longer owned by then is executed, and stays executed. In the other order, a GTID could move from one set
//! to the other between the two queries and be in neither answer.
//!
//! The union may contain transactions that no read has seen yet. A token with such a transaction is applied a
//! moment later. A token with a transaction that never ends (a GTID assigned by hand and never committed) is
//! not applied until that transaction ends.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tandem_model::GtidSet;

use crate::connect::Server;
use crate::error::MysqlError;

/// Returns a set that contains every transaction whose changes were visible before this call.
pub(crate) async fn visible(
    conn: &mut Conn,
    server: &Server,
    limit: Duration,
) -> Result<GtidSet, MysqlError> {
    let doing = "asking for the GTIDs of what is visible";
    let question = async {
        // Two statements guarantee the order.
        let both = "SELECT @@GLOBAL.gtid_owned; SELECT @@GLOBAL.gtid_executed";
        let mut answers = conn.query_iter(both).await?;
        let owned: Vec<String> = answers.collect().await?;
        let executed: Vec<String> = answers.collect().await?;
        answers.drop_result().await?;
        Ok((owned.concat(), executed.concat()))
    };
    let (owned, executed) = server.answer(limit, doing, question).await?;
    let union = format!("{executed},{}", without_owners(&owned));
    union.parse().map_err(|_| MysqlError::Server {
        code: 0,
        message: "the answer has an unexpected form".into(),
        doing: doing.into(),
    })
}

/// Removes the owners from `gtid_owned`. MySQL prints each GTID with its owning thread: `uuid:5#77:6#78`
/// (`Owned_gtids::to_string`). A GTID set has no threads: `uuid:5:6`.
fn without_owners(owned: &str) -> String {
    let mut parts = owned.split('#');
    let mut set = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        set.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_transactions_are_a_set() {
        const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";
        for (owned, set) in [
            (String::new(), String::new()),
            (format!("{A}:5#77"), format!("{A}:5")),
            (format!("{A}:5#77:6#78#79,\n{B}:1#80"), format!("{A}:5-6,{B}:1")),
        ] {
            assert_eq!(without_owners(&owned).parse::<GtidSet>().unwrap(), set.parse().unwrap(), "{owned}");
        }
    }
}
