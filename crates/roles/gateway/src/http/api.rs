//! The state that all requests share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tandem_http_api::{AccessToken, Problem};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::entity::Entity;
use crate::http::auth::Scope;
use crate::metrics::Metrics;
use crate::phases::Phases;
use crate::problem;
use crate::read::reads::Reads;
use crate::write::writes::Writes;

/// The state that all requests share.
pub(crate) struct Api {
    pub(crate) entities: BTreeMap<String, Arc<Entity>>,
    /// The entities that cannot be served before the gateway starts again.
    pub(crate) left_out: BTreeSet<String>,
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

impl Api {
    /// The entity with this name.
    pub(crate) fn entity(&self, name: &str) -> Result<Arc<Entity>, Problem> {
        match self.entities.get(name) {
            Some(entity) => Ok(Arc::clone(entity)),
            None if self.left_out.contains(name) => Err(problem::unavailable(
                "table-halted",
                "the entity's table had halted when this gateway started: start the gateway again once it is in order",
            )),
            None => Err(Problem::not_found("no entity has this name")),
        }
    }
}
