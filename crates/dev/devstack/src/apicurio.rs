//! Apicurio Registry: a schema registry with Confluent's API, to test Tandem's client against.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, make_dir, remove_dir};
use crate::probe::get;
use crate::server::{Recipe, Server};
use crate::{maven, ownership, tools};

const VERSION: &str = "3.3.3";
const DEADLINE: Duration = Duration::from_mins(2);
/// The path of Confluent's API.
const API: &str = "/apis/ccompat/v7";

/// How an Apicurio is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApicurioOptions {
    /// Whether schemas survive a restart. Otherwise they are in memory.
    pub lasting: bool,
    /// The files of a certificate and its key. With them it also serves TLS, see [`Apicurio::tls_url`].
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// An Apicurio Registry; see [`Server`] for its life.
#[derive(Debug)]
pub struct Apicurio {
    server: Server,
}

impl Deref for Apicurio {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Apicurio {
    /// Starts the Apicurio in `dir`, or finds it running there. A missing folder is created.
    ///
    /// # Errors
    /// If Apicurio cannot be downloaded, configured or started, or does not answer within 2 minutes.
    pub fn start(dir: &Path, options: &ApicurioOptions) -> Result<Self> {
        let recipe = ApicurioRecipe::new(&Cache::from_env()?, options)?;
        Ok(Self { server: Server::start(Box::new(recipe), dir)? })
    }

    /// Starts a new Apicurio that is killed and removed on drop.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn ephemeral(options: &ApicurioOptions) -> Result<Self> {
        ownership::ephemeral("apicurio", |dir| Self::start(dir, options), |this| &mut this.server)
    }

    /// The Apicurio whose state is in `dir`, running or not; `None` if there is none.
    ///
    /// # Errors
    /// If the state file cannot be read, or Apicurio cannot be downloaded.
    pub fn attach(dir: &Path) -> Result<Option<Self>> {
        let recipe = ApicurioRecipe::new(&Cache::from_env()?, &ApicurioOptions::default())?;
        Ok(Server::attach(Box::new(recipe), dir)?.map(|server| Self { server }))
    }

    /// The address of Confluent's API.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}{API}", self.port())
    }

    /// The address of Confluent's API over TLS, if it has a certificate.
    pub fn tls_url(&self) -> Option<String> {
        self.ports().get(2).map(|port| format!("https://127.0.0.1:{port}{API}"))
    }

    pub(crate) fn into_server(self) -> Server {
        self.server
    }
}

pub(crate) fn ensure(cache: &Cache) -> Result<PathBuf> {
    cache.ensure(&format!("apicurio-{VERSION}"), |dir| {
        let artifact = ("io.apicurio", "apicurio-registry-app", VERSION);
        let what = format!("Apicurio Registry {VERSION} (159 MB)");
        maven::fetch_archive(dir, &what, artifact, "tar.gz", "all")
    })
}

struct ApicurioRecipe {
    home: PathBuf,
    java: PathBuf,
    options: ApicurioOptions,
    /// The options as arguments, for the state file.
    args: Vec<String>,
}

impl ApicurioRecipe {
    fn new(cache: &Cache, options: &ApicurioOptions) -> Result<Self> {
        let java = tools::java21(cache)?;
        let home = ensure(cache)?;
        let mut args = Vec::new();
        if let Some((certificate, key)) = &options.identity {
            args.push(format!("-Dquarkus.http.ssl.certificate.files={}", certificate.display()));
            args.push(format!("-Dquarkus.http.ssl.certificate.key-files={}", key.display()));
        }
        if options.lasting {
            args.push("-Dapicurio.storage.sql.kind=h2".to_owned());
        }
        Ok(Self { home, java, options: options.clone(), args })
    }
}

impl Recipe for ApicurioRecipe {
    fn name(&self) -> &'static str {
        "Apicurio"
    }

    fn ports(&self) -> usize {
        2 + usize::from(self.options.identity.is_some())
    }

    fn extra_args(&self) -> &[String] {
        &self.args
    }

    fn prepare(&self, dir: &Path, _ports: &[u16]) -> Result<()> {
        remove_dir(&dir.join("tmp"))?;
        make_dir(&dir.join("tmp"))
    }

    fn command(&self, dir: &Path, ports: &[u16]) -> Result<Command> {
        let mut command = Command::new(&self.java);
        command.args(["-Xmx256m", "-XX:+ExitOnOutOfMemoryError", "-XX:+PerfDisableSharedMem"]);
        command.arg(format!("-Djava.io.tmpdir={}", dir.join("tmp").display()));
        command.arg("-Dquarkus.http.host=127.0.0.1").arg(format!("-Dquarkus.http.port={}", ports[0]));
        command.arg("-Dquarkus.management.host=127.0.0.1");
        command.arg(format!("-Dquarkus.management.port={}", ports[1]));
        if let Some(port) = ports.get(2) {
            command.arg(format!("-Dquarkus.http.ssl-port={port}"));
        }
        if self.options.lasting {
            let file = dir.join("data/registry");
            command.arg(format!("-Dapicurio.datasource.url=jdbc:h2:file:{}", file.display()));
        }
        command.args(&self.args).arg("-jar").arg(self.home.join("quarkus-run.jar"));
        command.current_dir(dir);
        Ok(command)
    }

    fn probe(&self, _dir: &Path, ports: &[u16]) -> Result<()> {
        let subjects = get(ports[0], &format!("{API}/subjects"))?;
        let subjects: serde_json::Value =
            serde_json::from_str(&subjects).with_context(|| format!("this is no registry: {subjects}"))?;
        if subjects.is_array() { Ok(()) } else { bail!("this is no list of subjects: {subjects}") }
    }

    fn deadline(&self) -> Duration {
        DEADLINE
    }
}
