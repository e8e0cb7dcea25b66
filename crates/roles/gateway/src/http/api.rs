//! The state that all requests share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tandem_http_api::AccessToken;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::entity::Entity;
use crate::http::auth::Scope;
use crate::metrics::Metrics;
use crate::phases::Phases;
use crate::read::reads::Reads;
use crate::write::writes::Writes;

/// The state that all requests share.
pub(crate) struct Api {
    pub(crate) entities: BTreeMap<String, Arc<Entity>>,
    pub(crate) phases: Phases,
    pub(crate) reads: Arc<Reads>,
    pub(crate) writes: Arc<Writes>,
    /// The access tokens and their scopes. Empty means that every caller may do everything.
    pub(crate) access_tokens: Vec<AccessToken<Scope>>,
    /// How long a request may take if it sets no deadline.
    pub(crate) deadline: Duration,
    /// How long the body of a request may take.
    pub(crate) body_timeout: Duration,
    /// The largest body, in bytes.
    pub(crate) max_body: usize,
    /// The largest page of a list, in bytes.
    pub(crate) max_page: usize,
    pub(crate) metrics: Metrics,
    /// Permits for the requests that use the stores.
    pub(crate) admission: Arc<Semaphore>,
    /// Writes, which continue if their clients disconnect.
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}
