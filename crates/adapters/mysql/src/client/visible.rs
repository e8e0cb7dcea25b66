//! Which transactions a read may have seen.
//!
//! MySQL commits in steps, each group of transactions in turn (`MYSQL_BIN_LOG::ordered_commit`):
//!
//! 1. flush: the transaction gets its GTID, which is *owned* from now on (`gtid_owned`), and goes to the
//!    binlog;
//! 2. sync;
//! 3. commit: InnoDB commits. Its changes are visible, its row locks are gone;
//! 4. the GTID goes from `gtid_owned` to `gtid_executed`;
//! 5. the client is told.
//!
//! So what a read saw may be in `gtid_owned` and not yet in `gtid_executed`, for as long as that thread
//! waits between 3 and 4. Both must be asked, and `gtid_owned` first: what is owned then is found there;
//! what is no longer owned then is executed, and stays so. The other way round a transaction could go
//! from one to the other between the two questions, and be in neither answer.
//!
//! The union may hold too much: transactions that nobody has seen yet. A token that holds them is applied
//! a moment later. One that holds a transaction that never ends (a GTID taken by hand and kept) is not
//! applied before that ends.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tandem_model::GtidSet;

use crate::connect::Server;
use crate::error::MysqlError;

/// A set that holds every transaction whose changes were visible before this was asked.
pub(crate) async fn visible(
    conn: &mut Conn,
    server: &Server,
    limit: Duration,
) -> Result<GtidSet, MysqlError> {
    let doing = "asking for the GTIDs of what is visible";
    let question = async {
        // One statement each, so that their order is certain.
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

/// `uuid:5#77:6#78` says which threads own which transactions; a set has no such numbers
/// (`Owned_gtids::to_string`).
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
