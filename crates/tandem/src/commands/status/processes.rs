//! The processes of the migration, by their own reports.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde::Serialize;
use tandem_kafka::{ConsumeError, KafkaConfig, read_all};
use tandem_runtime::now_us;
use tandem_wire::control::{ProcessReport, ProcessRole, ProcessWait, decode_control, is_process_key};

use super::statements::utc;

/// A process that has said nothing for so long is silent. It reports each second.
const SILENT_US: i64 = 5_000_000;

/// A process.
#[derive(Debug, Serialize)]
pub(super) struct ProcessStatus {
    /// The address of its metrics, or its host and process id.
    pub(super) name: String,
    pub(super) version: String,
    pub(super) started_at: String,
    /// For how long it has said nothing.
    pub(super) said_seconds_ago: f64,
    /// Whether it may have been killed, or is cut off from Kafka.
    pub(super) silent: bool,
    pub(super) roles: Vec<RoleStatus>,
    pub(super) waits: Vec<WaitStatus>,
}

/// A role of a process.
#[derive(Debug, Serialize)]
pub(super) struct RoleStatus {
    pub(super) role: String,
    /// `starting`, `running`, `standby`, `down` or `done`; `silent` if its process is.
    pub(super) state: String,
    pub(super) since_seconds: f64,
    /// Why it is down. Empty in other states.
    pub(super) cause: String,
    pub(super) next_try_seconds: Option<f64>,
}

/// Something that a process waits for.
#[derive(Debug, Serialize)]
pub(super) struct WaitStatus {
    pub(super) what: String,
    pub(super) since_seconds: f64,
    pub(super) cause: String,
    pub(super) next_try_seconds: Option<f64>,
}

/// The processes that have not said that they ended. A silent one is left out if each of its roles runs in another process.
pub(super) async fn processes(kafka: &KafkaConfig) -> Result<Vec<ProcessStatus>> {
    let records = match read_all(kafka, &kafka.topics().announcements()).await {
        Ok(records) => records,
        // No role has ever run.
        Err(ConsumeError::NoTopic(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut reports: BTreeMap<Vec<u8>, ProcessReport> = BTreeMap::new();
    for record in records {
        let key = record.key.unwrap_or_default();
        if !is_process_key(&key) {
            continue;
        }
        match &record.value {
            // One of another release may say it in another way: it is silent for this one.
            Some(value) => _ = decode_control(value).map(|report| reports.insert(key, report)),
            None => _ = reports.remove(&key),
        }
    }
    Ok(known(reports.into_values().collect(), now_us()))
}

fn known(reports: Vec<ProcessReport>, now_us: i64) -> Vec<ProcessStatus> {
    let silent = |report: &ProcessReport| now_us - report.at_us > SILENT_US;
    let run: BTreeSet<String> = reports
        .iter()
        .filter(|report| !silent(report))
        .flat_map(|report| report.roles.iter().map(|role| role.role.clone()))
        .collect();
    let missed = |report: &ProcessReport| report.roles.iter().any(|role| !run.contains(&role.role));
    let shown = reports.into_iter().filter(|report| !silent(report) || missed(report));
    shown.map(|report| ProcessStatus::of(silent(&report), report, now_us)).collect()
}

impl ProcessStatus {
    fn of(silent: bool, report: ProcessReport, now_us: i64) -> Self {
        let role = |role| RoleStatus::of(role, silent.then_some(report.at_us), now_us);
        Self {
            said_seconds_ago: seconds(now_us - report.at_us),
            silent,
            started_at: utc(report.started_at_us),
            roles: report.roles.into_iter().map(role).collect(),
            // Nobody knows what a silent process waits for.
            waits: report
                .waits
                .into_iter()
                .filter(|_| !silent)
                .map(|wait| WaitStatus::of(wait, now_us))
                .collect(),
            name: report.name,
            version: report.version,
        }
    }
}

impl RoleStatus {
    fn of(role: ProcessRole, silent_since_us: Option<i64>, now_us: i64) -> Self {
        if let Some(since_us) = silent_since_us {
            return Self {
                role: role.role,
                state: "silent".to_owned(),
                since_seconds: seconds(now_us - since_us),
                cause: String::new(),
                next_try_seconds: None,
            };
        }
        Self {
            role: role.role,
            state: role.state,
            since_seconds: seconds(now_us - role.since_us),
            cause: role.cause,
            next_try_seconds: role.next_try_us.map(|next| seconds(next - now_us)),
        }
    }
}

impl WaitStatus {
    fn of(wait: ProcessWait, now_us: i64) -> Self {
        Self {
            what: wait.what,
            since_seconds: seconds(now_us - wait.since_us),
            cause: wait.cause,
            next_try_seconds: wait.next_try_us.map(|next| seconds(next - now_us)),
        }
    }
}

fn seconds(us: i64) -> f64 {
    us.max(0) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, at_us: i64, roles: &[(&str, &str)]) -> ProcessReport {
        let role = |(role, state): &(&str, &str)| ProcessRole {
            role: (*role).to_owned(),
            state: (*state).to_owned(),
            since_us: 0,
            cause: if *state == "down" { "why" } else { "" }.to_owned(),
            next_try_us: None,
        };
        let wait =
            ProcessWait { what: "w".into(), since_us: 1, cause: "c".into(), next_try_us: Some(30_000_000) };
        ProcessReport {
            name: name.to_owned(),
            version: "1".to_owned(),
            started_at_us: 0,
            roles: roles.iter().map(role).collect(),
            waits: vec![wait],
            at_us,
        }
    }

    #[test]
    fn a_role_is_silent_unless_a_live_process_has_it() {
        let now = 20_000_000;
        let reports = vec![
            report("a", 14_000_000, &[("apply", "down")]),
            report("b", 14_000_000, &[("apply", "running"), ("capture", "running")]),
            report("c", 15_000_000, &[("apply", "down")]),
        ];
        let shown = known(reports, now);
        let names: Vec<_> = shown.iter().map(|p| (p.name.as_str(), p.silent, p.waits.len())).collect();
        assert_eq!(names, [("b", true, 0), ("c", false, 1)]);
        let roles = |n: usize| -> Vec<_> {
            shown[n].roles.iter().map(|r| (r.role.as_str(), r.state.as_str())).collect()
        };
        assert_eq!(roles(0), [("apply", "silent"), ("capture", "silent")]);
        assert_eq!(roles(1), [("apply", "down")]);
        assert_eq!((shown[0].roles[0].since_seconds, shown[1].roles[0].since_seconds), (6.0, 20.0));
        assert_eq!(
            (shown[1].roles[0].cause.as_str(), shown[1].waits[0].next_try_seconds),
            ("why", Some(10.0))
        );
    }
}
