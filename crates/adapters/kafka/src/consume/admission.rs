//! Who may read as a member of a group.
//!
//! Kafka lets everybody join who knows the group's name. A member with an [`Admission`] has a label in its client id, sees
//! the labels of all members whenever the group assigns it partitions, and decides before it reads a record whether it
//! takes them. If it does not, it leaves the group.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

use crate::connect::client::REQUEST;
use crate::connect::config::KafkaConfig;
use crate::connect::requests::RequestClient;
use crate::consume::fetch::Shared;
use crate::error::{BoxError, ConsumeError};

/// The pause before a member is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// A member without an answer after so long leaves the group, to join it anew. The group may have expelled it meanwhile,
/// and it cannot hear of that while it is being asked.
const WITHOUT_ANSWER: Duration = Duration::from_secs(10);

/// Stands in a client id before the label.
const LABEL: &str = "-label-";

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupMember {
    /// The label. `None` for a member that joined without an [`Admission`].
    pub label: Option<String>,
    /// The address of its client, as the broker sees it.
    pub host: String,
}

/// Whether a member takes the partitions that it is assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// It takes them.
    Yes,
    /// It leaves the group.
    No,
    /// It is asked again soon. Nobody reads its partitions meanwhile.
    Later,
}

/// Decides for a member. It runs in the member's own thread, which does not poll meanwhile: a rebalance of the group waits for
/// it. If it fails or panics, it is asked again.
pub type Decide = Arc<dyn Fn(&[GroupMember]) -> Result<Admitted, BoxError> + Send + Sync>;

/// The admission of one member.
#[derive(Clone)]
pub struct Admission {
    label: String,
    decide: Decide,
}

impl Admission {
    /// The admission of a member with this label. Use only characters that may stand in a client id.
    pub fn new(label: impl Into<String>, decide: Decide) -> Self {
        Self { label: label.into(), decide }
    }

    /// Puts the label into the client id, also if that is configured.
    pub(crate) fn label(&self, client: &mut ClientConfig) {
        let id = format!("{}{LABEL}{}", client.get("client.id").unwrap_or_default(), self.label);
        client.set("client.id", id);
    }

    /// Asks until there is an answer. `false` also if the member is stopped, and if there is none for 10 s.
    pub(crate) fn admitted<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        group: &str,
        shared: &Shared,
    ) -> bool {
        let began = Instant::now();
        while !shared.stopped() {
            // A panic must not go on into librdkafka, which called this.
            let decide = || (self.decide)(&members(consumer, group)?);
            let decided = catch_unwind(AssertUnwindSafe(decide))
                .unwrap_or_else(|_| Err(BoxError::from("the decision ended with a panic")));
            match decided {
                Ok(Admitted::Yes) => return true,
                Ok(Admitted::No) => return false,
                Ok(Admitted::Later) => {}
                Err(error) => shared.health.failed(format!("asking whether to take partitions: {error}")),
            }
            if began.elapsed() >= WITHOUT_ANSWER {
                return false;
            }
            std::thread::sleep(AGAIN);
        }
        false
    }
}

/// Reads the members of a group without joining it.
pub struct GroupMembers {
    requests: RequestClient,
    group: String,
}

impl GroupMembers {
    /// Reads the members of `group`. Connects at the first request.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub fn new(config: &KafkaConfig, group: &str) -> Result<Self, ConsumeError> {
        let requests = RequestClient::new(config.client(&[]), config)?;
        Ok(Self { requests, group: group.to_owned() })
    }

    /// Returns the members. A member that has died counts until its session times out.
    ///
    /// # Errors
    /// The request fails.
    pub async fn read(&self) -> Result<Vec<GroupMember>, ConsumeError> {
        let group = self.group.clone();
        self.requests.ask(move |consumer| members(consumer.as_ref(), &group)).await
    }
}

fn members<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    group: &str,
) -> Result<Vec<GroupMember>, ConsumeError> {
    let list = consumer
        .fetch_group_list(Some(group), REQUEST)
        .map_err(|e| ConsumeError::request("asking for the members of a group", &e))?;
    let of_group = list.groups().iter().filter(|found| found.name() == group);
    let members = of_group.flat_map(rdkafka::groups::GroupInfo::members).map(|member| GroupMember {
        label: member.client_id().rsplit_once(LABEL).map(|(_, label)| label.to_owned()),
        host: member.client_host().trim_start_matches('/').to_owned(),
    });
    Ok(members.collect())
}
