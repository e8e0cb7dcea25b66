//! MySQL, Kafka and Cassandra together, as a named instance.
//!
//! Up and down of one instance exclude each other, across processes as well. Servers that run already are
//! left as they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::ownership::{at_once, destroy, own_instance};
use crate::server::Server;
use crate::{Cache, Cassandra, Kafka, Mysql, MysqlOptions, say};

/// A named set of the three servers. They run on after a drop, except those of [`Stack::ephemeral`].
#[derive(Debug)]
pub struct Stack {
    /// The source database.
    pub mysql: Mysql,
    /// The log.
    pub kafka: Kafka,
    /// The target database.
    pub cassandra: Cassandra,
    name: String,
    dir: PathBuf,
    ephemeral: bool,
}

impl Stack {
    /// Starts instance `name`: downloads what is missing and starts what is not running.
    ///
    /// # Errors
    /// If a server cannot be downloaded or started. The error lists all servers that failed.
    pub fn up(name: &str) -> Result<Self> {
        let cache = Cache::from_env()?;
        let dir = cache.instance(name)?;
        cache.with_instance_lock(name, || Self::start(name, &dir))
    }

    /// Starts a new instance, named after `name`, that is killed and removed on drop. If this process dies
    /// first, a later `ephemeral` of any process removes it.
    ///
    /// # Errors
    /// As for [`Self::up`].
    pub fn ephemeral(name: &str) -> Result<Self> {
        let dir = own_instance(&Cache::from_env()?, name)?;
        let full_name = dir.file_name().map_or_else(|| name.to_owned(), |n| n.to_string_lossy().into_owned());
        match Self::start(&full_name, &dir) {
            Ok(mut stack) => {
                stack.ephemeral = true;
                Ok(stack)
            }
            Err(e) => {
                destroy(&dir)?;
                Err(e)
            }
        }
    }

    /// Finds instance `name`, running or not.
    ///
    /// # Errors
    /// If the instance does not exist, or lacks one of the three servers.
    pub fn load(name: &str) -> Result<Self> {
        let dir = Cache::from_env()?.instance(name)?;
        let (Some(mysql), Some(kafka), Some(cassandra)) = (
            Mysql::attach(&dir.join("mysql"))?,
            Kafka::attach(&dir.join("kafka"))?,
            Cassandra::attach(&dir.join("cassandra"))?,
        ) else {
            bail!("there is no whole instance {name:?}: start it with `cargo xtask up --name {name}`");
        };
        Ok(Self { mysql, kafka, cassandra, name: name.to_owned(), dir, ephemeral: false })
    }

    fn start(name: &str, dir: &Path) -> Result<Self> {
        say(&format!("starting MySQL, Kafka and Cassandra of instance {name:?} ..."));
        let (mysql, kafka, cassandra) = std::thread::scope(|scope| {
            let mysql = scope.spawn(|| {
                announced(Mysql::start(&dir.join("mysql"), &MysqlOptions::default()), |s| (s.name(), s.url()))
            });
            let kafka =
                scope.spawn(|| announced(Kafka::start(&dir.join("kafka")), |s| (s.name(), s.brokers())));
            let cassandra =
                scope.spawn(|| announced(Cassandra::start(&dir.join("cassandra")), |s| (s.name(), s.node())));
            (mysql.join(), kafka.join(), cassandra.join())
        });
        let (mysql, kafka, cassandra) = (joined(mysql), joined(kafka), joined(cassandra));
        match (mysql, kafka, cassandra) {
            (Ok(mysql), Ok(kafka), Ok(cassandra)) => {
                let (name, dir) = (name.to_owned(), dir.to_owned());
                Ok(Self { mysql, kafka, cassandra, name, dir, ephemeral: false })
            }
            (mysql, kafka, cassandra) => {
                let errors: Vec<String> = [mysql.err(), kafka.err(), cassandra.err()]
                    .into_iter()
                    .flatten()
                    .map(|e| format!("{e:#}"))
                    .collect();
                bail!("instance {name:?} did not come up:\n{}", errors.join("\n"))
            }
        }
    }

    /// The instance's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The instance's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The three servers, for code that treats them alike.
    pub fn servers(&self) -> [&Server; 3] {
        [&self.mysql, &self.kafka, &self.cassandra]
    }

    /// Stops the three servers and keeps their data.
    ///
    /// # Errors
    /// If a server cannot be stopped. The others are stopped nevertheless.
    pub fn down(&self) -> Result<()> {
        self.locked(|| at_once(self.servers().into_iter().map(|server| || server.stop())))
    }

    /// Kills the three servers and deletes their data.
    ///
    /// # Errors
    /// If a server cannot be killed, or its data cannot be deleted.
    pub fn remove(self) -> Result<()> {
        self.locked(|| {
            at_once(self.servers().into_iter().map(|server| || server.kill()))?;
            destroy(&self.dir)
        })
    }

    /// A command that runs a class of Kafka's tools against this broker; see [`Kafka::tool`].
    ///
    /// # Errors
    /// As for [`Kafka::tool`].
    pub fn kafka_tool(&self, class: &str, args: &[&str]) -> Result<Command> {
        self.kafka.tool(class, args)
    }

    fn locked<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        Cache::from_env()?.with_instance_lock(&self.name, work)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if !self.ephemeral {
            return;
        }
        let gone = at_once(self.servers().into_iter().map(|server| || server.kill()))
            .and_then(|()| destroy(&self.dir));
        if let Err(e) = gone {
            say(&format!("cannot clean up {}: {e:#}", self.dir.display()));
        }
    }
}

fn announced<T>(started: Result<T>, what: impl FnOnce(&T) -> (&'static str, String)) -> Result<T> {
    if let Ok(server) = &started {
        let (name, address) = what(server);
        say(&format!("{name} is up: {address}"));
    }
    started
}

fn joined<T>(thread: std::thread::Result<Result<T>>) -> Result<T> {
    thread.ok().context("a thread of devstack panicked")?
}
