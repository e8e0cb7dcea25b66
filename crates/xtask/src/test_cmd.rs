//! `test`: the whole workspace's tests against fresh servers.
//!
//! Invariant: the servers started here are stopped at the end, whatever the tests did. Ctrl-C
//! reaches cargo as well (it is in the terminal's process group), SIGTERM and SIGHUP are passed on
//! to it; this process outlives it to clean up.

use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tandem_devstack::{Endpoints, Stack, remove_instance, sweep_orphans};
use tokio::signal::unix::{SignalKind, signal};

const INSTANCE: &str = "test";

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Run the long tests as well (sets TANDEM_TEST_FULL=1)
    #[arg(long)]
    full: bool,
    /// Arguments for `cargo test`
    #[arg(last = true)]
    cargo_args: Vec<String>,
}

pub(crate) fn test(args: &TestArgs) -> Result<ExitCode> {
    let given = Endpoints::from_env()?; // before the build: it may be an error
    let tandem = build_tandem()?;
    let endpoints = if let Some(given) = given {
        given
    } else {
        remove_instance(INSTANCE)?;
        Endpoints::of(Stack::up(INSTANCE)?)
    };
    let outcome = run_tests(args, &endpoints, tandem);
    if let Some(stack) = &endpoints.stack {
        stack.down().context("stop the servers of the tests")?;
    }
    sweep_orphans()?; // of tests that were killed
    outcome
}

fn run_tests(args: &TestArgs, endpoints: &Endpoints, tandem: PathBuf) -> Result<ExitCode> {
    let mut cargo = Command::new(cargo());
    cargo
        .args(["test", "--workspace"])
        .args(&args.cargo_args)
        .envs(endpoints.env())
        .env("TANDEM_BIN", tandem)
        .env("TANDEM_XTASK_BIN", std::env::current_exe().context("find this program")?);
    if args.full {
        cargo.env("TANDEM_TEST_FULL", "1");
    }
    let status = wait_whatever_happens(cargo)?;
    // Without a code it died of a signal.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
    Ok(ExitCode::from(code))
}

/// Runs a command to its end. Signals that would end this process do not, from here on.
fn wait_whatever_happens(command: Command) -> Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start a runtime for signals")?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
        let mut hangup = signal(SignalKind::hangup()).context("handle SIGHUP")?;
        let mut child = tokio::process::Command::from(command).spawn().context("run cargo test")?;
        let pid = child.id().map(|pid| Pid::from_raw(pid as i32));
        loop {
            tokio::select! {
                status = child.wait() => return status.context("wait for cargo test"),
                _ = interrupt.recv() => {} // the terminal sent it to cargo as well
                _ = terminate.recv() => pass_on(pid),
                _ = hangup.recv() => pass_on(pid),
            }
        }
    })
}

fn pass_on(pid: Option<Pid>) {
    if let Some(pid) = pid {
        let _ = kill(pid, Signal::SIGTERM); // it may be gone already
    }
}

/// Builds the binary the tests run, and returns its path.
fn build_tandem() -> Result<PathBuf> {
    let output = Command::new(cargo())
        .args(["build", "--package", "tandem", "--bin", "tandem"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo build")?;
    if !output.status.success() {
        bail!("tandem does not build: see above");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages).context("cargo built tandem but named no executable")
}

/// The executable in cargo's JSON messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "tandem")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}
{"reason":"compiler-artifact","target":{"name":"tandem"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"tandem"},"executable":"/t/tandem"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some(PathBuf::from("/t/tandem")));
    }
}
