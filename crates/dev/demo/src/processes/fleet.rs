//! The processes besides `tandem run`: two gateways and the controller.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;
use time::format_description::well_known::Rfc3339;

use tandem_compare::process::Tandem;

use super::metrics;
use crate::names::{Names, free_port};

const READY: Duration = Duration::from_mins(1);
/// How long the controller may give no status. After a kill, its leadership is free after some seconds.
const STATUS_TIMEOUT: Duration = Duration::from_mins(1);

/// Short times, so that a migration that takes weeks takes minutes here.
const CONTROLLER: &str = "auto = true\ninterval_ms = 300\ncanary_percents = [50, 100]\n\
    soak_seconds = { dual-write = 2, verify = 1, canary = 4 }\n";
/// Generous timeouts. A machine that runs all servers and a release build is slow at times, and that alone
/// must not cause a fallback.
const GATEWAY: &str = "cassandra_read_ms = 2000\ncassandra_write_ms = 5000\n";

/// A process and its port.
struct Member {
    tandem: Tandem,
    port: u16,
}

impl Member {
    /// Starts it and waits until it is ready.
    async fn start(&mut self) -> Result<()> {
        self.tandem.start()?;
        let begun = Instant::now();
        while !matches!(metrics::get(self.port, "/readyz").await, Ok(Some(_))) {
            self.tandem.check()?;
            if begun.elapsed() > READY {
                bail!("not ready within {} s. {}", READY.as_secs(), self.tandem.tail());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Kills it with SIGKILL and starts it again. Returns the old process id.
    async fn kill(&mut self) -> Result<u32> {
        let pid = self.tandem.pid().unwrap_or_default();
        self.tandem.kill9().await?;
        self.start().await?;
        Ok(pid)
    }
}

/// Two gateways and a controller.
pub(crate) struct Fleet {
    gateways: Vec<Member>,
    controller: Member,
    /// When the controller was started, as RFC 3339 writes it.
    pub(crate) begun: String,
}

impl Fleet {
    /// Writes their configurations (the common one and a section each) and starts them.
    pub(crate) async fn start(binary: &Path, names: &Names) -> Result<Self> {
        let common = std::fs::read_to_string(names.config()).context("read tandem.toml again")?;
        let member = |role: &'static str, name: &str, port: u16, listen: u16, section: &str| {
            let (config, log) =
                (names.folder.join(format!("{name}.toml")), names.folder.join(format!("{name}.log")));
            let text = format!("[{role}]\nlisten = \"127.0.0.1:{port}\"\n{section}\n{common}");
            std::fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
            let tandem = Tandem::new(binary.to_path_buf(), config, log).role(role, listen);
            Ok::<_, anyhow::Error>(Member { tandem, port })
        };
        let mut gateways = Vec::new();
        for name in ["gateway-1", "gateway-2"] {
            gateways.push(member("gateway", name, free_port()?, free_port()?, GATEWAY)?);
        }
        let controller = member("controller", "controller", free_port()?, free_port()?, CONTROLLER)?;
        let begun = time::OffsetDateTime::now_utc().format(&Rfc3339).context("the time of the start")?;
        let mut fleet = Self { gateways, controller, begun };
        for member in fleet.gateways.iter_mut().chain([&mut fleet.controller]) {
            member.start().await?;
        }
        Ok(fleet)
    }

    /// The ports of the gateways.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.gateways.iter().map(|gateway| gateway.port).collect()
    }

    /// Returns an error if one of them ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.gateways.iter_mut().chain([&mut self.controller]).try_for_each(|member| member.tandem.check())
    }

    /// Kills the first gateway and the controller with SIGKILL and starts both again. Returns their
    /// descriptions for the report.
    pub(crate) async fn kill_two(&mut self) -> Result<Vec<String>> {
        let gateway = self.gateways[0].kill().await.context("the killed gateway")?;
        let controller = self.controller.kill().await.context("the killed controller")?;
        Ok(vec![format!("gateway {gateway}"), format!("controller {controller}")])
    }

    /// `tandem phase …`.
    pub(crate) async fn phase(&self, arguments: &[&str]) -> Result<String> {
        self.controller.tandem.cli(&[&["phase"], arguments].concat(), Duration::from_secs(40)).await
    }

    /// The rollout's status. Waits while no controller is active.
    pub(crate) async fn status(&mut self) -> Result<Json> {
        let begun = Instant::now();
        loop {
            self.check()?;
            match self.phase(&["status", "--json"]).await {
                Ok(text) => return serde_json::from_str(&text).context("understand `tandem phase status`"),
                Err(error) if begun.elapsed() > STATUS_TIMEOUT => {
                    return Err(
                        error.context(format!("no controller is active. {}", self.controller.tandem.tail()))
                    );
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// The audit trail, oldest first.
    pub(crate) async fn history(&self) -> Result<Vec<Json>> {
        let text = self.phase(&["history", "--json"]).await?;
        let history: Json = serde_json::from_str(&text).context("understand `tandem phase history`")?;
        Ok(history["history"].as_array().cloned().unwrap_or_default())
    }

    /// Sends SIGTERM to all of them.
    pub(crate) async fn terminate(&mut self) -> Result<()> {
        for member in self.gateways.iter_mut().chain([&mut self.controller]) {
            member.tandem.terminate().await?;
        }
        Ok(())
    }
}
