//! Gateways announce themselves: what the controller knows of them, and when.

use serde_json::{Value as Json, json};

use super::{Stage, is_ready};
use crate::support::{
    MINUTE, Migration, ORDERS, ORDERS_MAPPING, Probe, Running, Servers, eventually, free_port, http,
};

/// A controller, a capture, an apply and a gateway, and further gateways on other ports. Nothing but `listen` is
/// configured.
struct Fleet {
    stage: Stage,
    control: u16,
}

impl Fleet {
    async fn new() -> anyhow::Result<Self> {
        let migration = Migration::new(Servers::from_env(), "gwfleet", &[ORDERS]).await?;
        let (port, control) = (free_port()?, free_port()?);
        let sections = format!(
            "[gateway]\nlisten = \"127.0.0.1:{port}\"\n[controller]\nlisten = \"127.0.0.1:{control}\"\n"
        );
        migration.configure(&sections, ORDERS_MAPPING)?;
        let commands: [&[&str]; 4] = [&["capture"], &["apply"], &["gateway"], &["controller"]];
        Ok(Self { stage: Stage::started(migration, port, &commands).await?, control })
    }

    /// Starts another gateway. Returns its process and its name.
    async fn join(&mut self, file: &str) -> anyhow::Result<(Running, String)> {
        let port = free_port()?;
        let migration = &self.stage.migration;
        let first = format!("listen = \"127.0.0.1:{}\"", self.stage.port);
        let other = format!("name = \"gateway-{file}\"\nlisten = \"127.0.0.1:{port}\"");
        let config = migration.configure_as(file, "", |common| common.replace(&first, &other))?;
        let mut running = migration.start_with(&config, file, &["gateway"])?;
        eventually("another gateway to be ready", MINUTE, async || {
            running.check()?;
            Ok(Probe::when(is_ready(port).await, running.tail()))
        })
        .await?;
        Ok((running, format!("gateway-{file}")))
    }

    async fn phase(&self) -> anyhow::Result<Json> {
        let answer = http(self.control, "GET", "/v1/phase", &[], "").await;
        Ok(answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.json()).unwrap_or_default())
    }

    /// Waits until the controller's state meets the condition. `so` gets the gateways by name, and the state.
    async fn until(&self, event: &str, so: impl Fn(&[(String, Json)], &Json) -> bool) -> anyhow::Result<()> {
        eventually(event, MINUTE, async || {
            let found = self.phase().await?;
            let gateways: Vec<(String, Json)> = found["gateways"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|one| (one["name"].as_str().unwrap_or_default().to_owned(), one.clone()))
                .collect();
            Ok(Probe::when(so(&gateways, &found), format!("{found:#}")))
        })
        .await
    }

    async fn advance(&self) -> anyhow::Result<Json> {
        let body = json!({ "reason": "a test" }).to_string();
        Ok(http(self.control, "POST", "/v1/phase/advance", &[], &body).await?.json())
    }
}

/// Whether this gateway is known and silent.
fn is_silent(gateways: &[(String, Json)], name: &str) -> Option<bool> {
    let (_, known) = gateways.iter().find(|(known, _)| known == name)?;
    Some(!known["silent_seconds"].is_null())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_knows_every_gateway_until_it_is_gone() -> anyhow::Result<()> {
    let mut fleet = Fleet::new().await?;
    fleet.until("the first gateway to be known", |gateways, _| gateways.len() == 1).await?;
    let (stopped, stopped_name) = fleet.join("stopped").await?;
    let (mut killed, killed_name) = fleet.join("killed").await?;
    let (leaving, leaving_name) = fleet.join("leaving").await?;
    fleet.until("all gateways to be known", |gateways, _| gateways.len() == 4).await?;

    // A gateway that stands still does not learn the next phase. That shows first, and then that it is silent.
    stopped.signal("STOP")?;
    eventually("dual-write", MINUTE, async || {
        let answer = fleet.advance().await?;
        Ok(Probe::when(answer["phase"] == "dual-write", format!("{answer:#}")))
    })
    .await?;
    fleet
        .until("the stopped gateway to be silent", |gateways, state| {
            let others = gateways.iter().filter(|(name, _)| *name != stopped_name);
            is_silent(gateways, &stopped_name) == Some(true)
                && others.clone().count() == 3
                && others.clone().all(|(_, one)| one["generation"] == state["generation"])
                && gateways.iter().any(|(_, one)| one["generation"] != state["generation"])
        })
        .await?;
    let refused = fleet.advance().await?.to_string();
    assert!(refused.contains("gateways_follow") && refused.contains("silent"), "{refused}");
    stopped.signal("CONT")?;
    let follow = |state: &Json| state["measurements"]["gateways_behind"] == 0;
    fleet.until("the stopped gateway to be heard again", |_, state| follow(state)).await?;

    // One that was killed is silent until it is forgotten. One that ends by itself is gone at once.
    killed.kill()?;
    leaving.terminate().await?;
    fleet
        .until("one to be gone and the other to be silent", |gateways, _| {
            is_silent(gateways, &leaving_name).is_none() && is_silent(gateways, &killed_name) == Some(true)
        })
        .await?;
    let listed = fleet.stage.migration.json(&["gateways", "list", "--json"]).await?;
    assert_eq!(listed["gateways"].as_array().map(Vec::len), Some(3), "{listed:#}");
    let status = fleet.stage.migration.succeed(&["phase", "status"]).await?;
    assert!(status.contains(&format!("tandem gateways forget {killed_name}")), "{status}");
    let unknown = fleet.stage.migration.tandem(&["gateways", "forget", "nobody"]).await?;
    assert!(!unknown.success && unknown.stderr.contains("nobody"), "{}", unknown.stderr);
    fleet.stage.migration.succeed(&["gateways", "forget", &killed_name]).await?;
    fleet
        .until("the killed gateway to be forgotten", |gateways, state| gateways.len() == 2 && follow(state))
        .await?;
    stopped.terminate().await?;
    fleet.stage.end().await
}
