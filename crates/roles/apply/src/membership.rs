//! When this process is a member of apply's group: only while no member has another layout of the target tables.
//!
//! The rules, and why nothing is lost by them, are in [`tandem_protocol::mapping_in_use`]. Here is what they need: the
//! members of the group by their labels, and the record of the mapping in use.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tandem_kafka::{
    Admission, Admitted, BoxError, ConsumeError, GroupConsumer, GroupMember, GroupMembers, KafkaConfig,
    Producer, read_all,
};
use tandem_model::{Disposition, GtidSet, Watermark};
use tandem_protocol::mapping_in_use::{Layouts, Turn, begin, turn};
use tandem_runtime::now_us;
use tandem_watermarks::NewestWatermark;
use tandem_wire::control::{MAPPING_KEY, MappingInUse, decode_control, encode_control};
use tandem_wire::log::OutRecord;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::error::ApplyError;
use crate::metrics::Metrics;

/// The pause before the group is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Reads the mapping in use. `None` before the first apply has started.
///
/// # Errors
///
/// Fails if the control topic cannot be read or holds an invalid record.
pub async fn read_mapping_in_use(kafka: &KafkaConfig) -> Result<Option<MappingInUse>, ApplyError> {
    let mut newest = None;
    for record in read_all(kafka, &kafka.topics().control()).await? {
        if record.key.as_deref() == Some(MAPPING_KEY) {
            newest = record.value;
        }
    }
    Ok(newest.map(|value| decode_control(&value)).transpose()?)
}

/// Whether apply uses these layouts, or none yet.
///
/// # Errors
///
/// As for [`read_mapping_in_use`].
pub async fn is_in_use(kafka: &KafkaConfig, layouts: &Layouts) -> Result<bool, ApplyError> {
    Ok(layouts.are_in_use(read_mapping_in_use(kafka).await?.as_ref()))
}

/// The layout of a member of apply's group. `None` for a member of an earlier release.
pub fn layout_of(member: &GroupMember) -> Option<&str> {
    member.label.as_ref()?.split_once('.').map(|(layout, _)| layout)
}

/// This process's way into the group.
pub(crate) struct Membership {
    kafka: KafkaConfig,
    layouts: Arc<Layouts>,
    /// What MySQL had executed before the layouts were read from its definitions.
    executed: GtidSet,
    /// The layout and what tells this process from others with the same one.
    label: String,
    metrics: Metrics,
}

impl Membership {
    pub(crate) fn new(
        kafka: &KafkaConfig,
        layouts: &Arc<Layouts>,
        executed: &GtidSet,
        metrics: &Metrics,
    ) -> Self {
        let label = format!("{}.{:x}-{:x}", layouts.layout(), std::process::id(), now_us());
        let (layouts, executed) = (Arc::clone(layouts), executed.clone());
        Self { kafka: kafka.clone(), layouts, executed, label, metrics: metrics.clone() }
    }

    /// Joins the group once it has no member with another layout. Returns `None` at `stop`.
    pub(crate) async fn join(
        &self,
        topics: &[String],
        stop: &CancellationToken,
    ) -> Result<Option<GroupConsumer>, ApplyError> {
        let waited = stop.run_until_cancelled(self.until_alone()).await;
        self.metrics.waits_for_mapping.set(0);
        match waited {
            Some(outcome) => outcome?,
            None => return Ok(None),
        }
        let group = self.kafka.topics().apply_group();
        let consumer = GroupConsumer::start_admitted(&self.kafka, &group, topics, self.admission()).await?;
        Ok(Some(consumer))
    }

    /// Waits while the group has members with another layout.
    async fn until_alone(&self) -> Result<(), ApplyError> {
        let group = GroupMembers::new(&self.kafka, &self.kafka.topics().apply_group())?;
        let mut said = BTreeSet::new();
        loop {
            match group.read().await {
                Ok(members) => {
                    let others = members.into_iter().filter(|member| self.is_other(member));
                    let hosts: BTreeSet<String> = others.map(|member| member.host).collect();
                    if hosts.is_empty() {
                        return Ok(());
                    }
                    self.metrics.waits_for_mapping.set(1);
                    if hosts != said {
                        tracing::warn!(
                            ?hosts,
                            "apply waits: it has another mapping than the apply processes on these hosts, and takes over \
                             when the last of them has ended. Restart them with the same tandem.toml"
                        );
                        said = hosts;
                    }
                }
                Err(error) if error.retry() == Disposition::Retry => {
                    tracing::warn!(%error, "apply cannot see the members of its group and tries again");
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn is_other(&self, member: &GroupMember) -> bool {
        layout_of(member) != Some(self.layouts.layout())
    }

    /// What decides whenever the group assigns partitions to this process.
    fn admission(&self) -> Admission {
        let (kafka, layouts, label) = (self.kafka.clone(), Arc::clone(&self.layouts), self.label.clone());
        let executed = self.executed.clone();
        let runtime = Handle::current();
        let decide = move |members: &[GroupMember]| {
            let layout = Some(layouts.layout());
            let others = members.iter().any(|member| layout_of(member) != layout);
            if !members.iter().any(|member| member.label.as_ref() == Some(&label)) {
                return Err(BoxError::from("the brokers do not list this member of the group"));
            }
            runtime.block_on(admitted(&kafka, &layouts, &executed, others))
        };
        Admission::new(&self.label, Arc::new(decide))
    }
}

async fn admitted(
    kafka: &KafkaConfig,
    layouts: &Layouts,
    executed: &GtidSet,
    others: bool,
) -> Result<Admitted, BoxError> {
    let in_use = read_mapping_in_use(kafka).await?;
    Ok(match turn(layouts, in_use.as_ref(), others) {
        Turn::Apply => Admitted::Yes,
        Turn::Leave => Admitted::No,
        Turn::Begin => {
            let newest = NewestWatermark::read(kafka).await?.map(|newest| newest.watermark);
            let covers = |watermark: &Arc<Watermark>| executed.is_subset(&watermark.gtid_set);
            if !layouts.are_in_use(in_use.as_ref()) && !newest.as_ref().is_none_or(covers) {
                tracing::info!(
                    "a new mapping comes into use once capture has read the ALTER statements before it"
                );
                return Ok(Admitted::Later);
            }
            let mapping = begin(layouts, in_use.as_ref(), newest.map(|w| w.version), now_us());
            let was_in_use = in_use.is_some_and(|in_use| in_use.layout == mapping.layout);
            tracing::info!(generation = mapping.generation, "the mapping of this process comes into use");
            let (topic, value) = (kafka.topics().control(), encode_control(&mapping)?);
            let record = OutRecord::control(topic, MAPPING_KEY.to_vec(), value);
            Producer::start(kafka).await?.send(vec![record]).await?;
            // Asked again, so that it is the record on the log that admits this member. Only the spelling needs no answer.
            if was_in_use { Admitted::Yes } else { Admitted::Later }
        }
    })
}

/// Whether apply goes on as soon as it is its turn again.
pub(crate) fn is_not_admitted(error: &ApplyError) -> bool {
    matches!(error, ApplyError::Consume(ConsumeError::NotAdmitted))
}
