//! What an operator does about an error, as data.

use std::borrow::Cow;

/// What an operator does about an error.
///
/// Errors hold it as data, because only the binary knows the names of its commands. It prints the parts in
/// this order: `first`, `then`, `afterwards`, and `instead` as the alternative to all of them.
///
/// ```
/// use tandem_model::{FollowUp, Remedy};
///
/// let remedy = Remedy::new("SET GLOBAL binlog_row_image = FULL").then(FollowUp::Resnapshot);
/// assert_eq!(remedy.then, Some(FollowUp::Resnapshot));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remedy {
    /// The statement or action to begin with.
    pub first: Option<Cow<'static, str>>,
    /// The command that follows.
    pub then: Option<FollowUp>,
    /// What remains to do after the command.
    pub afterwards: Option<Cow<'static, str>>,
    /// What helps instead of all of this.
    pub instead: Option<Cow<'static, str>>,
}

/// What Tandem does once the cause is removed. The binary has a command for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowUp {
    /// The log continues behind the gap, and every table is copied again.
    Resnapshot,
    /// The table is captured again and copied again.
    RebuildTable,
    /// Every row of every table is compared.
    FullVerification,
    /// The roles run.
    Run,
}

impl Remedy {
    /// Begins with a statement or action.
    pub fn new(first: impl Into<Cow<'static, str>>) -> Self {
        Self { first: Some(first.into()), ..Self::default() }
    }

    /// The same, followed by a command.
    #[must_use]
    pub fn then(self, follow_up: FollowUp) -> Self {
        Self { then: Some(follow_up), ..self }
    }

    /// The same, with something to do after the command.
    #[must_use]
    pub fn afterwards(self, action: impl Into<Cow<'static, str>>) -> Self {
        Self { afterwards: Some(action.into()), ..self }
    }

    /// The same, with an alternative.
    #[must_use]
    pub fn or(self, instead: impl Into<Cow<'static, str>>) -> Self {
        Self { instead: Some(instead.into()), ..self }
    }
}

impl From<FollowUp> for Remedy {
    fn from(follow_up: FollowUp) -> Self {
        Self::default().then(follow_up)
    }
}
