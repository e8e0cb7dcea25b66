//! Topics and the account's permissions.

pub(crate) mod client;
mod permissions;
mod topic_spec;

pub use client::{Admin, EnsuredTopic};
pub use permissions::{AclReport, MissingAcl, missing_acls};
pub(crate) use topic_spec::schemas_spec;
pub use topic_spec::{Cleanup, TopicSpec, topic_specs};
