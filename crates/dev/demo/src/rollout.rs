//! The rollout through the phases, in minutes instead of weeks: automatic advances, a rollback because of a
//! corruption, the death of a gateway and of the controller, and a rollback by an operator's order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value as Json, json};

use tandem_compare::stores::config::Config;
use tandem_compare::stores::schema::{self, quote};

use crate::clients::{Clients, Entity, Seen};
use crate::processes::{Fleet, Watch};
use crate::traffic::Traffic;
use crate::ui::Ui;

/// How long a phase or another condition may take to come.
const TIMEOUT: Duration = Duration::from_mins(3);
/// Reads that Cassandra must serve in the canary and after the switch before the rollout continues.
const READS: u64 = 100;

/// The parts that the rollout works with.
pub(crate) struct Rollout<'a, 'w> {
    pub(crate) ui: &'a Ui,
    pub(crate) fleet: &'a mut Fleet,
    pub(crate) clients: &'a Clients,
    pub(crate) traffic: &'a Traffic,
    pub(crate) watch: &'a mut Watch<'w>,
    pub(crate) config: &'a Config,
    /// Rows in MySQL. The deadline of a verification depends on it.
    pub(crate) rows: u64,
    /// The killed processes.
    pub(crate) killed: Vec<String>,
}

/// A phase with the time that the migration spent in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stay {
    name: String,
    /// The percentage of the canary.
    percent: Json,
    /// The generation with which it began.
    generation: u64,
    entered_at: String,
    left_at: Option<String>,
    reason: String,
}

impl Stay {
    pub(crate) fn json(&self) -> Json {
        json!({
            "name": self.name, "percent": self.percent, "entered_at": self.entered_at, "left_at": self.left_at,
            "reason": self.reason,
        })
    }

    /// The phase's name for people.
    pub(crate) fn text(&self) -> String {
        let of = if self.name == "canary" { format!(" at {} %", self.percent) } else { String::new() };
        format!("{}{of}", self.name)
    }

    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }
}

/// The phases in an audit trail, in order. The first is the phase before all records, since `begun`.
pub(crate) fn stays(begun: &str, history: &[Json]) -> Vec<Stay> {
    let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    let mut stays = vec![Stay {
        name: "prepare".to_owned(),
        percent: json!(0),
        generation: 0,
        entered_at: begun.to_owned(),
        left_at: None,
        reason: "the beginning".to_owned(),
    }];
    for entry in history.iter().filter(|entry| entry["action"] == "advance" || entry["action"] == "back") {
        if let Some(last) = stays.last_mut() {
            last.left_at = Some(text(&entry["at"]));
        }
        stays.push(Stay {
            name: text(&entry["phase"]),
            percent: entry["percent"].clone(),
            generation: entry["generation"].as_u64().unwrap_or_default(),
            entered_at: text(&entry["at"]),
            left_at: None,
            reason: format!(
                "{} by {}: {}",
                text(&entry["action"]),
                text(&entry["by"]),
                text(&entry["reason"])
            ),
        });
    }
    stays
}

/// Reads that Cassandra served, by the phase in which the gateway served them.
pub(crate) fn reads_by_cassandra(stays: &[Stay], seen: &Seen) -> BTreeMap<String, u64> {
    let mut reads = BTreeMap::from([("canary".to_owned(), 0), ("read-switch".to_owned(), 0)]);
    for ((generation, _), count) in seen.reads.iter().filter(|((_, by), _)| by == "cassandra") {
        if let Some(stay) = stays.iter().rev().find(|stay| stay.generation <= *generation) {
            *reads.entry(stay.name.clone()).or_default() += count;
        }
    }
    reads
}

impl Rollout<'_, '_> {
    /// Waits for a phase that the controller enters by itself.
    pub(crate) async fn until_phase(&mut self, phases: &[&str]) -> Result<Json> {
        self.until(&format!("the phase {}", phases.join(" or ")), async |this: &mut Self| {
            let status = this.fleet.status().await?;
            Ok(phases.iter().any(|phase| status["phase"] == **phase).then_some(status))
        })
        .await
    }

    async fn until<T>(
        &mut self,
        what: &str,
        mut so: impl AsyncFnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let begun = Instant::now();
        loop {
            self.traffic.check()?;
            self.clients.check()?;
            self.watch.look().await?;
            if let Some(found) = so(self).await? {
                return Ok(found);
            }
            if begun.elapsed() > TIMEOUT {
                let status = self.fleet.status().await?;
                bail!("waited {} s for {what}; the controller's status is {status:#}", TIMEOUT.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Verifies everything until nothing differs, as the gate before the canary requires.
    pub(crate) async fn until_clean(&mut self) -> Result<()> {
        for _ in 0..5 {
            let report = self.watch.verify(self.rows).await?;
            let report: Json = serde_json::from_str(&report).context("understand `tandem verify --json`")?;
            if report["mismatches"] == 0 && report["undecided"] == 0 {
                return Ok(());
            }
            self.watch.until_repaired(1, self.traffic).await?;
        }
        bail!("five verifications in a row found mismatches");
    }

    /// The canary. A gateway and the controller are killed, and a row is corrupted. The controller rolls
    /// back, the row is found and repaired, and the rollout continues.
    pub(crate) async fn canary(&mut self) -> Result<()> {
        let status = self.until_phase(&["canary"]).await?;
        self.ui.phase(&format!("the canary: {} % of the rows are read from Cassandra", status["percent"]));
        let killed = self.fleet.kill_two().await?;
        self.ui.note(&format!("kill -9 of {}, during the transition", killed.join(" and ")));
        self.killed.extend(killed);

        self.clients.forget_served();
        let id = self
            .until("Cassandra to serve a settled row", async |this: &mut Self| {
                Ok(this.clients.seen().served.first().copied())
            })
            .await?;
        let before = self.fleet.history().await?.len();
        corrupt(self.config, self.clients.entity(), id).await.context("corrupting a row in the canary")?;
        self.ui.note(&format!("row {id} was changed out-of-band in Cassandra"));
        let reason = self
            .until("the rollback of the canary", async |this: &mut Self| {
                let history = this.fleet.history().await?;
                let back = history[before.min(history.len())..].iter().find(|e| e["action"] == "back");
                Ok(back.map(|entry| entry["reason"].as_str().unwrap_or_default().to_owned()))
            })
            .await?;
        self.ui.note(&format!("the controller rolled back: {reason}"));
        self.fleet.phase(&["pause", "--reason", "a row is corrupt: verifying"]).await?;
        self.ui.phase("verifying and repairing");
        self.until_clean().await?;
        self.fleet.phase(&["resume", "--reason", "what was found is repaired"]).await?;
        Ok(())
    }

    /// The read switch, a rollback by an operator's order, and the read switch again.
    pub(crate) async fn read_switch(&mut self) -> Result<()> {
        let switched = self.until_phase(&["read-switch"]).await?;
        self.ui.phase("the read switch: Cassandra serves every read");
        self.until_read(&switched).await?;
        self.fleet.phase(&["back", "--reason", "to show that it can be"]).await?;
        let back = self.until_phase(&["canary"]).await?;
        self.ui.note(&format!("rolled back at once: the canary at {} %", back["percent"]));
        let again = self.until_phase(&["read-switch"]).await?;
        self.ui.note("the controller advances again by itself");
        self.until_read(&again).await
    }

    /// Waits until Cassandra has served enough reads in the generation of `status` or later ones.
    async fn until_read(&mut self, status: &Json) -> Result<()> {
        let since = status["generation"].as_u64().unwrap_or_default();
        self.until("Cassandra to serve", async |this: &mut Self| {
            let seen = this.clients.seen();
            let of =
                seen.reads.iter().filter(|((generation, by), _)| *generation >= since && by == "cassandra");
            Ok((of.map(|(_, count)| count).sum::<u64>() >= READS).then_some(()))
        })
        .await
    }
}

/// Changes the value of a row in Cassandra.
async fn corrupt(config: &Config, entity: &Entity, id: u64) -> Result<()> {
    let session = schema::cassandra(&config.cassandra.nodes).await?;
    let cql = format!(
        "UPDATE {}.{} SET {} = 'forged' WHERE id = {id}",
        quote(&config.cassandra.keyspace),
        quote(entity.target),
        quote(entity.value)
    );
    session.query_unpaged(cql, ()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(action: &str, phase: &str, generation: u64) -> Json {
        json!({ "action": action, "phase": phase, "percent": 50, "generation": generation, "by": "auto",
                "reason": "w", "at": format!("t{generation}") })
    }

    #[test]
    fn phases_follow_each_other() {
        let history = [
            entry("advance", "verify", 1),
            entry("advance", "canary", 2),
            entry("pause", "canary", 3),
            entry("back", "verify", 4),
        ];
        let stays = stays("t0", &history);
        let names: Vec<String> = stays.iter().map(Stay::text).collect();
        assert_eq!(names, ["prepare", "verify", "canary at 50 %", "verify"]);
        let left: Vec<Option<&str>> = stays.iter().map(|stay| stay.left_at.as_deref()).collect();
        assert_eq!(left, [Some("t1"), Some("t2"), Some("t4"), None]);
        assert_eq!(stays[3].json()["reason"], "back by auto: w");

        let mut seen = Seen::default();
        for (generation, by, count) in [(1, "mysql", 7), (2, "cassandra", 5), (3, "cassandra", 1)] {
            seen.reads.insert((generation, by.to_owned()), count);
        }
        assert_eq!(reads_by_cassandra(&stays, &seen)["canary"], 6);
        assert_eq!(reads_by_cassandra(&stays, &seen)["read-switch"], 0);
    }
}
