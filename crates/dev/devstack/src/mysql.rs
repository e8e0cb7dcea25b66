//! MySQL, run with the dynamic loader and the libraries that were downloaded with it.
//!
//! - The data folder appears by a rename once it is complete. It is copied from a template, which takes a
//!   tenth of the time of initialising one. No two servers share a UUID.
//! - The server logs every row change in full (`ROW`, `FULL` images and metadata) with GTIDs.
//! - It keeps MySQL's durable defaults, so acknowledged writes survive [`Server::kill`](crate::Server::kill).

use std::ffi::OsString;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, make_dir, remove_dir};
use crate::process::{run_within, tail_of};
use crate::server::{Recipe, Server};
use crate::{apt, ownership, say, socket};

const DEADLINE: Duration = Duration::from_mins(2);
/// Arguments that take effect only when the data folder is made.
const INIT_ARGS: [&str; 3] = ["--lower-case-table-names", "--innodb-page-size", "--innodb-data-file-path"];

/// How a MySQL is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MysqlOptions {
    /// Arguments for `mysqld`, such as `--binlog-row-metadata=MINIMAL`. They follow the built-in ones and
    /// override them.
    pub extra_args: Vec<String>,
}

/// A MySQL server; see [`Server`] for its life.
#[derive(Debug)]
pub struct Mysql {
    server: Server,
    install: Install,
}

impl Deref for Mysql {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Mysql {
    /// Starts the MySQL in `dir`, or finds it running there. A missing folder is created.
    ///
    /// # Errors
    /// If MySQL cannot be downloaded, initialised or started, or does not answer within 2 minutes.
    pub fn start(dir: &Path, options: &MysqlOptions) -> Result<Self> {
        let install = Install::ensure(&Cache::from_env()?)?;
        let recipe = MysqlRecipe { install: install.clone(), extra_args: options.extra_args.clone() };
        Ok(Self { server: Server::start(Box::new(recipe), dir)?, install })
    }

    /// Starts a new MySQL that is killed and removed on drop.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn ephemeral(options: &MysqlOptions) -> Result<Self> {
        ownership::ephemeral("mysql", |dir| Self::start(dir, options), |this| &mut this.server)
    }

    /// The MySQL whose state is in `dir`, running or not; `None` if there is none.
    ///
    /// # Errors
    /// If the state file cannot be read, or MySQL cannot be downloaded.
    pub fn attach(dir: &Path) -> Result<Option<Self>> {
        let install = Install::ensure(&Cache::from_env()?)?;
        let attached = Server::attach(MysqlRecipe::attach(&install, dir)?, dir)?;
        Ok(attached.map(|server| Self { server, install }))
    }

    /// `mysql://root@127.0.0.1:PORT`; the password is empty.
    pub fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}", self.port())
    }

    /// The bundled `mysql` client, connected to this server as root. Add `-e` and a statement, or write to
    /// stdin.
    pub fn client(&self) -> Command {
        self.install.client(self.port())
    }

    /// Runs statements with the bundled client and returns its output (tab-separated, no column names).
    ///
    /// # Errors
    /// If MySQL refuses a statement, or does not answer within 2 minutes.
    pub fn query(&self, sql: &str) -> Result<String> {
        run_within(self.client().args(["-N", "-B", "-e", sql]), DEADLINE)
            .with_context(|| format!("MySQL refused or did not answer: {sql}"))
    }

    pub(crate) fn into_server(self) -> Server {
        self.server
    }
}

/// The downloaded packages.
#[derive(Debug, Clone)]
struct Install {
    root: PathBuf,
    lib: PathBuf,
    loader: PathBuf,
}

pub(crate) fn ensure(cache: &Cache) -> Result<PathBuf> {
    cache.ensure("mysql", apt::fetch_mysql)
}

impl Install {
    fn ensure(cache: &Cache) -> Result<Self> {
        let root = ensure(cache)?;
        let (triplet, loader) = match std::env::consts::ARCH {
            "x86_64" => ("x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
            "aarch64" => ("aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
            other => bail!("Debian has no MySQL that this crate knows for the processor {other}"),
        };
        let lib = root.join("usr/lib").join(triplet);
        let loader = lib.join(loader);
        if !loader.exists() {
            bail!("{} is not there: remove {} to download anew", loader.display(), root.display());
        }
        Ok(Self { root, lib, loader })
    }

    /// A program of the packages, run with the C library of the packages.
    fn program(&self, path: &str) -> Command {
        let mut command = Command::new(&self.loader);
        command.arg("--library-path").arg(&self.lib).arg(self.root.join(path)).arg("--no-defaults");
        command
    }

    fn client(&self, port: u16) -> Command {
        let mut command = self.program("usr/bin/mysql");
        command.args(["--protocol=TCP", "-h127.0.0.1", "-uroot", "--connect-timeout=5"]);
        command.arg(format!("-P{port}")).env_remove("MYSQL_PWD");
        command
    }

    /// A fresh data folder of this MySQL version, as a template.
    fn template(&self, cache: &Cache) -> Result<PathBuf> {
        let packages = fs::read_to_string(self.root.join("packages.txt")).context("read packages.txt")?;
        let version = packages
            .lines()
            .find_map(|line| line.strip_prefix("mysql-server-core "))
            .context("packages.txt names no MySQL")?;
        let made = cache.ensure(&format!("mysql-data-{version}"), |dir| {
            self.initialise(&dir.join("data"), &dir.join("initialize.log"), &[])
        })?;
        Ok(made.join("data"))
    }

    fn initialise(&self, data: &Path, log: &Path, args: &[&String]) -> Result<()> {
        say("initialising a data folder for MySQL ...");
        let output = fs::File::create(log).with_context(|| format!("create {}", log.display()))?;
        let status = self
            .server(data)
            .arg("--initialize-insecure")
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("duplicate the log's handle")?)
            .stderr(output)
            .status()
            .context("run mysqld")?;
        if status.success() {
            return Ok(());
        }
        let tail = tail_of(log, 0, 30);
        bail!("MySQL cannot initialise a data folder ({status})\n--- end of {}:\n{tail}\n---", log.display())
    }

    fn server(&self, datadir: &Path) -> Command {
        let mut command = self.program("usr/sbin/mysqld");
        command
            .arg(option("--basedir", &self.root.join("usr")))
            .arg(option("--plugin-dir", &self.root.join("usr/lib/mysql/plugin")))
            .arg(option("--datadir", datadir))
            .arg("--secure-file-priv=NULL");
        if nix::unistd::geteuid().is_root() {
            command.arg("--user=root");
        }
        command
    }
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    make_dir(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry.with_context(|| format!("list {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_dir(&source, &target)?;
        } else {
            fs::copy(&source, &target).with_context(|| format!("copy {}", source.display()))?;
        }
    }
    Ok(())
}

struct MysqlRecipe {
    install: Install,
    extra_args: Vec<String>,
}

impl MysqlRecipe {
    fn attach(install: &Install, dir: &Path) -> Result<Box<dyn Recipe>> {
        let extra_args = crate::state::State::load(dir)?.map(|s| s.extra_args).unwrap_or_default();
        Ok(Box::new(Self { install: install.clone(), extra_args }))
    }

    /// Makes the data folder: a copy of the template, unless an argument takes effect only on initialising.
    fn make_data(&self, dir: &Path, data: &Path) -> Result<()> {
        let new = dir.join("data.new");
        remove_dir(&new)?; // left by an interrupted attempt
        let args: Vec<&String> = self
            .extra_args
            .iter()
            .filter(|arg| {
                let name = arg.split('=').next().unwrap_or_default().replace('_', "-");
                INIT_ARGS.contains(&name.as_str())
            })
            .collect();
        if args.is_empty() {
            let template = self.install.template(&Cache::from_env()?)?;
            copy_dir(&template, &new)?;
            // The copied UUID would make two servers use the same GTIDs. The server makes a new one.
            fs::remove_file(new.join("auto.cnf")).context("remove the copied auto.cnf")?;
        } else {
            self.install.initialise(&new, &dir.join("initialize.log"), &args)?;
        }
        fs::rename(&new, data).with_context(|| format!("rename {} to {}", new.display(), data.display()))
    }
}

impl Recipe for MysqlRecipe {
    fn name(&self) -> &'static str {
        "MySQL"
    }

    fn ports(&self) -> usize {
        1
    }

    fn extra_args(&self) -> &[String] {
        &self.extra_args
    }

    fn prepare(&self, dir: &Path, _ports: &[u16]) -> Result<()> {
        self.clean(dir); // a socket's lock left by a crash could name a process id in use again
        make_dir(&dir.join("tmp"))?;
        let data = dir.join("data");
        if data.is_dir() {
            return Ok(());
        }
        self.make_data(dir, &data)
    }

    fn command(&self, dir: &Path, ports: &[u16]) -> Result<Command> {
        let mut command = self.install.server(&dir.join("data"));
        command
            .args([
                "--bind-address=127.0.0.1",
                "--mysqlx=OFF",
                "--server-id=1",
                "--gtid-mode=ON",
                "--enforce-gtid-consistency=ON",
                "--binlog-row-image=FULL",
                "--binlog-row-metadata=FULL",
                "--max-allowed-packet=1G",
                "--innodb-buffer-pool-size=256M",
            ])
            .arg(format!("--port={}", ports[0]))
            .arg(option("--tmpdir", &dir.join("tmp")))
            .arg(option("--pid-file", &dir.join("mysqld.pid")))
            .arg(option("--socket", &socket::path(dir)))
            .args(&self.extra_args);
        Ok(command)
    }

    fn probe(&self, _dir: &Path, ports: &[u16]) -> Result<()> {
        run_within(self.install.client(ports[0]).args(["-e", "SELECT 1"]), Duration::from_secs(10)).map(drop)
    }

    fn clean(&self, dir: &Path) {
        socket::remove(dir);
    }

    fn deadline(&self) -> Duration {
        DEADLINE
    }
}

fn option(name: &str, value: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push("=");
    option.push(value);
    option
}
