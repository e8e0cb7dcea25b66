//! Why capture stops.

use tandem_binlog::DecodeError;
use tandem_kafka::{ConsumeError, PublishError};
use tandem_model::{Disposition, FollowUp, GtidSet, Remedy, TableName};
use tandem_mysql::{BinlogError, MysqlError};
use tandem_protocol::assemble::AssembleError;
use tandem_protocol::captured_tables::{CAPTURE, TablesError};
use tandem_protocol::table_state::{Changes, TableFault};
use tandem_table_states::TableStatesError;
use tandem_watermarks::WatermarkReadError;

/// Why capture stopped.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Reading the binlog failed.
    #[error(transparent)]
    Binlog(#[from] BinlogError),
    /// A query to MySQL failed.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// Publishing to Kafka failed.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Reading the last watermark or the schemas failed.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// An event cannot be carried to the log.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The last watermark cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] WatermarkReadError),
    /// The server lacks transactions that were already published.
    #[error(
        "MySQL lacks transactions that were already published: {lost}. It is another server, or a fail-over lost \
         them"
    )]
    Lost {
        /// The missing transactions.
        lost: GtidSet,
    },
    /// The task that reads the binlog ended without reporting an error.
    #[error("the binlog is no longer read")]
    StreamEnded,
    /// The log would begin between the PREPARE and the decision of XA transactions.
    #[error(
        "{count} XA transactions are prepared on the server and neither committed nor rolled back: a log \
         cannot begin, or continue after a gap, without their rows. Commit or roll back each (XA RECOVER lists them)"
    )]
    PreparedBefore {
        /// The number of prepared XA transactions.
        count: usize,
    },
    /// The list of tables changed while a MySQL transaction was partly published.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// The states of tables cannot be read or written.
    #[error(transparent)]
    States(#[from] TableStatesError),
    /// A change topic is new to the log and is not empty.
    #[error(
        "topic `{topic}` holds changes of an earlier time, but the last watermark does not know it, so changes in \
         between are not on the log"
    )]
    LogGap {
        /// The change topic.
        topic: String,
    },
    /// A re-snapshot was ordered before anything was captured.
    #[error("there is no log under this kafka.prefix yet, so it has no gap")]
    NoLog,
    /// A re-snapshot was ordered while another capture publishes.
    #[error(
        "a capture publishes watermarks, so the log has no gap. To order a re-snapshot all the same, stop \
         every capture first"
    )]
    StillCaptured,
    /// Partitions were added to a change topic.
    #[error(
        "topic `{topic}` has {count} partitions and had {known} at the last watermark: keys would move to other \
         partitions, and their order would be lost. Migrate under another kafka.prefix"
    )]
    Repartitioned {
        /// The change topic.
        topic: String,
        /// Partitions at the last watermark.
        known: usize,
        /// Partitions now.
        count: i32,
    },
    /// MySQL's clock is far ahead of this machine's.
    #[error(
        "MySQL's clock is {ahead_s} s ahead of this machine's. A watermark at its time would raise every later \
         version. Correct the clocks (or raise capture.max_clock_ahead_seconds) and start again"
    )]
    ClockAhead {
        /// The difference in seconds.
        ahead_s: i64,
    },
}

impl CaptureError {
    /// Whether this error shows that another capture has taken over.
    pub(crate) fn is_displaced(&self) -> bool {
        matches!(
            self,
            Self::Publish(PublishError::Fenced { .. }) | Self::Binlog(BinlogError::ServerIdClash { .. })
        )
    }

    /// The tables that the error concerns, and their fault, if capture can go on without them.
    pub(crate) fn table_fault(&self) -> Option<(Vec<TableName>, TableFault)> {
        let (tables, reason) = match self {
            Self::Assemble(error) => error.tables().map(|(tables, reason)| (tables.to_vec(), reason))?,
            Self::Binlog(BinlogError::Decode(DecodeError::Table { table, .. })) => {
                (vec![table.clone()], "cannot-be-decoded")
            }
            _ => return None,
        };
        let (reason, cause) = (reason.to_lowercase().replace(' ', "-"), self.to_string());
        Some((tables, TableFault { reason, cause, by: CAPTURE.to_owned(), changes: Changes::NotCaptured }))
    }

    /// What the caller does next. A retry restarts from the last watermark. Capture skips no change, so it
    /// ends on one that is refused.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Binlog(error) => error.retry(),
            Self::Mysql(error) => error.retry(),
            Self::Publish(error) => error.retry(),
            Self::Consume(error) => error.retry(),
            Self::Assemble(error) => error.retry(),
            Self::Checkpoint(error) => error.retry(),
            Self::Tables(error) => error.retry(),
            Self::States(error) => error.retry(),
            Self::StreamEnded | Self::PreparedBefore { .. } => Disposition::Retry,
            Self::Lost { .. }
            | Self::LogGap { .. }
            | Self::NoLog
            | Self::StillCaptured
            | Self::Repartitioned { .. }
            | Self::ClockAhead { .. } => Disposition::Stop,
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Binlog(error) => error.remedy(),
            Self::Consume(error) => error.remedy(),
            Self::Checkpoint(error) => error.remedy(),
            Self::Assemble(error) => error.remedy(),
            Self::Lost { .. } => Some(
                Remedy::from(FollowUp::Resnapshot)
                    .afterwards("verify every table")
                    .or("point mysql.url at a server that has them, which needs no new copy"),
            ),
            Self::States(error) => error.remedy(),
            Self::Tables(TablesError::HaltedInPartial { .. }) => Some(FollowUp::Resnapshot.into()),
            Self::LogGap { .. } => {
                Some(Remedy::from(FollowUp::Resnapshot).or("take the table out of tandem.toml again"))
            }
            Self::NoLog => Some(FollowUp::Run.into()),
            Self::Mysql(_)
            | Self::Publish(_)
            | Self::StreamEnded
            | Self::PreparedBefore { .. }
            | Self::Tables(_)
            | Self::StillCaptured
            | Self::Repartitioned { .. }
            | Self::ClockAhead { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_follows() {
        use Disposition::{Retry, Stop};
        let cases: [(CaptureError, Disposition); 11] = [
            (BinlogError::Silent { seconds: 9 }.into(), Retry),
            (BinlogError::Purged { message: String::new() }.into(), Stop),
            (MysqlError::Unreachable { address: "h".into(), cause: "refused".into() }.into(), Retry),
            (PublishError::Failed("timed out".into()).into(), Retry),
            (ConsumeError::StoreEnded.into(), Stop),
            (WatermarkReadError::NoFull { topic: "t".into() }.into(), Retry),
            (CaptureError::StreamEnded, Retry),
            (CaptureError::PreparedBefore { count: 1 }, Retry),
            (CaptureError::LogGap { topic: "t".into() }, Stop),
            (TablesError::ChangedInPartial.into(), Stop),
            (CaptureError::ClockAhead { ahead_s: 99 }, Stop),
        ];
        for (error, expected) in cases {
            assert_eq!(error.retry(), expected, "{error:?}");
        }
    }
}
