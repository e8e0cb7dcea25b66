//! `test`: runs all tests of the workspace, end-to-end tests included, against fresh servers.
//!
//! The servers started here are stopped at the end, whatever the outcome. Ctrl-C reaches cargo as well,
//! because cargo is in the terminal's process group. SIGTERM and SIGHUP are forwarded to cargo. This process
//! outlives cargo to clean up.

use std::num::NonZero;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result};
use clap::Args;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use tandem_devstack::{Endpoints, Package, Stack, remove_instance, sweep_orphans};

use crate::build::{Executables, build, cargo};

const INSTANCE: &str = "test";

/// How many tests a test binary runs at a time.
const TEST_THREADS: &str = "RUST_TEST_THREADS";

/// Tests that need servers are built only with this feature: the end-to-end tests, and those of
/// tandem-devstack.
pub(crate) const END_TO_END: [&str; 2] = ["--features", "tandem-tests/e2e"];

/// All servers of the tests: the three of [`INSTANCE`], and those that tests start themselves.
const PACKAGES: [Package; 5] =
    [Package::Mysql, Package::Kafka, Package::Cassandra, Package::Debezium, Package::Apicurio];

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Run the long tests as well (sets TANDEM_TEST_FULL=1)
    #[arg(long)]
    full: bool,
    /// Run only the tests whose names contain this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Arguments for `cargo test`
    #[arg(last = true)]
    cargo_args: Vec<String>,
}

pub(crate) fn test(args: &TestArgs) -> Result<ExitCode> {
    let given = Endpoints::from_env()?; // before the build: it may be an error
    let all = [&["--workspace", "--bins", "--tests"], &END_TO_END[..]].concat();
    let built = build(&all, &PACKAGES)?;
    let endpoints = if let Some(given) = given {
        given
    } else {
        remove_instance(INSTANCE)?;
        Endpoints::of(Stack::up(INSTANCE)?)
    };
    let outcome = run_tests(args, &endpoints, &built);
    if let Some(stack) = &endpoints.stack {
        stack.down().context("stop the servers of the tests")?;
    }
    sweep_orphans()?; // of tests that were killed
    outcome
}

fn run_tests(args: &TestArgs, endpoints: &Endpoints, built: &Executables) -> Result<ExitCode> {
    let mut cargo = cargo();
    cargo
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(END_TO_END)
        .args(cargo_arguments(args))
        .envs(endpoints.env())
        .env("TANDEM_BIN", built.named("tandem")?)
        .env("TANDEM_COMPARE_BIN", built.named("tandem-compare")?);
    if args.full {
        cargo.env("TANDEM_TEST_FULL", "1");
    }
    if std::env::var_os(TEST_THREADS).is_none() {
        // A test on real servers waits for them half of its time.
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        cargo.env(TEST_THREADS, (cores + cores.div_ceil(2)).to_string());
    }
    let status = wait_whatever_happens(cargo)?;
    // A process that a signal ended has no code.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
    Ok(ExitCode::from(code))
}

/// The arguments of `cargo test`, with the filter after its `--`.
fn cargo_arguments(args: &TestArgs) -> Vec<&str> {
    let mut all: Vec<&str> = args.cargo_args.iter().map(String::as_str).collect();
    if let Some(only) = &args.only {
        if !all.contains(&"--") {
            all.push("--");
        }
        all.push(only);
    }
    all
}

/// Runs a command to its end. From here on, signals that would end this process do not.
fn wait_whatever_happens(mut command: Command) -> Result<ExitStatus> {
    // The child is started first. Otherwise it would inherit the blocked signals.
    let mut child = command.spawn().context("run cargo test")?;
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context("block signals")?;
    let pid = Pid::from_raw(child.id().cast_signed());
    // This thread inherits the blocked signals. The process has no other threads.
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            // The terminal sends SIGINT to cargo as well.
            if signal != Signal::SIGINT {
                let _ = kill(pid, Signal::SIGTERM); // it may be gone already
            }
        }
    });
    child.wait().context("wait for cargo test")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_stands_behind_the_dashes() {
        let args = |cargo_args: &[&str]| TestArgs {
            full: false,
            only: Some("gateway".to_owned()),
            cargo_args: cargo_args.iter().map(|&a| a.to_owned()).collect(),
        };
        assert_eq!(cargo_arguments(&args(&[])), ["--", "gateway"]);
        assert_eq!(
            cargo_arguments(&args(&["--test", "e2e", "--", "--nocapture"])),
            ["--test", "e2e", "--", "--nocapture", "gateway"]
        );
    }
}
