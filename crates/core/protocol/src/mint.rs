//! Mints the versions of row changes and watermarks, in binlog order.

use tandem_model::Version;

/// Mints versions in binlog order. Only capture owns a minter.
///
/// Every version is greater than the one before, whatever the clocks do. A version depends only on the last
/// version and the binlog. So a capture that resumes from a watermark mints the same versions for the same
/// row changes again.
///
/// ```
/// use tandem_model::Version;
/// use tandem_protocol::mint::Minter;
///
/// let mut minter = Minter::after(Version(100));
/// assert_eq!(minter.first_of_transaction(500), Version(500));
/// assert_eq!(minter.further(), Version(501));
/// // MySQL's clock steps back. The versions do not.
/// assert_eq!(minter.first_of_transaction(400), Version(502));
/// ```
#[derive(Debug, Clone)]
pub struct Minter {
    last: Version,
}

impl Minter {
    /// A minter that continues after `last`, the version of the last committed watermark.
    pub fn after(last: Version) -> Self {
        Self { last }
    }

    /// The last version minted.
    pub fn last(&self) -> Version {
        self.last
    }

    /// The version of a transaction's first row change: `max(last + 1, commit time)`.
    pub fn first_of_transaction(&mut self, commit_us: i64) -> Version {
        self.last = Version((self.last.0 + 1).max(commit_us));
        self.last
    }

    /// The version of each further row change of a transaction: `last + 1`.
    pub fn further(&mut self) -> Version {
        self.last = Version(self.last.0 + 1);
        self.last
    }

    /// A watermark's version: above every change before it and below every change after it.
    ///
    /// It is at least MySQL's clock. So a write that borrows it replaces whatever an out-of-band writer left
    /// in a cell before.
    pub fn watermark(&mut self, clock_us: i64) -> Version {
        self.first_of_transaction(clock_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_clock_that_steps_back_does_not_lower_versions() {
        let mut minter = Minter::after(Version(100));
        assert_eq!(minter.first_of_transaction(500), Version(500));
        assert_eq!(minter.further(), Version(501));
        assert_eq!(minter.first_of_transaction(400), Version(502));
        assert_eq!(minter.watermark(450), Version(503));
    }

    proptest! {
        #[test]
        fn versions_strictly_increase_and_are_repeatable(
            start in 0i64..1000,
            transactions in proptest::collection::vec((0i64..2000, 1usize..5, any::<bool>()), 0..50),
        ) {
            let run = |mut minter: Minter| {
                let mut out = Vec::new();
                for &(commit, rows, watermark) in &transactions {
                    out.push(minter.first_of_transaction(commit));
                    out.extend((1..rows).map(|_| minter.further()));
                    if watermark {
                        out.push(minter.watermark(commit));
                    }
                }
                out
            };
            let versions = run(Minter::after(Version(start)));
            prop_assert!(versions.first().is_none_or(|v| *v > Version(start)));
            prop_assert!(versions.windows(2).all(|w| w[0] < w[1]));
            prop_assert_eq!(&versions, &run(Minter::after(Version(start))));
        }
    }

    #[test]
    fn a_minter_knows_its_last_version() {
        let mut minter = Minter::after(Version(7));
        assert_eq!((minter.last(), minter.further(), minter.last()), (Version(7), Version(8), Version(8)));
        assert_eq!(minter.last().to_string(), "8");
    }
}
