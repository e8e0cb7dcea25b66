//! The programs that are built on demand and started with the rest of the command line.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use tandem_devstack::{Endpoints, Package};

use crate::build::build;

/// Arguments of a program, `--help` included.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct PassedOn {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    args: Vec<OsString>,
}

/// A program that `cargo xtask` builds and starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Demo,
    Compare,
    Bench,
    Charsets,
    Seeds,
}

/// What a program needs for its command line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    /// Arguments of `cargo build`.
    build: Vec<&'static str>,
    /// Servers that are downloaded during the build.
    servers: Vec<Package>,
    /// The executable to be started.
    start: &'static str,
}

const ALL_THREE: [Package; 3] = [Package::Mysql, Package::Kafka, Package::Cassandra];
const BOTH_CAPTURES: [Package; 3] = [Package::Mysql, Package::Kafka, Package::Debezium];
const TANDEM: [&str; 2] = ["--bin", "tandem"];
/// The bench of the decoder, in its own crate.
const DECODE: [&str; 2] = ["--bench", "decode"];

/// Builds a program with everything that it runs, while the servers are downloaded. Then replaces this
/// process by the program.
pub(crate) fn start(program: Program, passed_on: &PassedOn) -> Result<ExitCode> {
    let args = &passed_on.args;
    let words: Vec<&str> = args.iter().filter_map(|a| a.to_str()).collect();
    let mut needs = program.needs(&words);
    // A binary that the environment names is not built.
    if std::env::var_os("TANDEM_BIN").is_some_and(|v| !v.is_empty()) {
        needs.without_tandem();
    }
    if needs.servers == ALL_THREE && Endpoints::from_env()?.is_some() {
        needs.servers.clear();
    }
    let built = build(&needs.build, &needs.servers)?;
    let path = built.named(needs.start)?;
    let mut command = Command::new(&path);
    match program {
        Program::Charsets => command.arg("charsets"),
        Program::Seeds => command.arg("seeds"),
        Program::Demo | Program::Compare | Program::Bench => &mut command,
    };
    if needs.build.ends_with(&DECODE) {
        command.env("TANDEM_DECODE_BENCH", built.named("decode")?);
    }
    // Returns only if it fails.
    Err(command.args(args).exec()).with_context(|| format!("run {}", path.display()))
}

impl Program {
    /// What the program needs for these arguments. With `--help` it needs only itself.
    fn needs(self, args: &[&str]) -> Needs {
        // Cargo chooses features for all selected packages at once. With the whole workspace selected, no
        // command compiles a dependency again with other features than the one before.
        let mut needs = Needs { build: vec!["--workspace"], ..Needs::default() };
        let mut also = |build: &[&'static str], servers: &[Package]| {
            needs.build.extend(build);
            needs.servers.extend(servers);
        };
        let helps = args.iter().any(|a| matches!(*a, "--help" | "-h")) || args.first() == Some(&"help");
        let what = if helps { None } else { Some(args.first().copied().unwrap_or_default()) };
        let start = match self {
            Self::Demo => {
                also(&["--bin", "tandem-demo"], &[]);
                if what.is_some() {
                    also(&["--bin", "tandem-checker"], &ALL_THREE);
                    also(&TANDEM, &[]);
                }
                "tandem-demo"
            }
            Self::Compare => {
                also(&["--bin", "tandem-compare"], &[]);
                if what == Some("debezium") {
                    also(&TANDEM, &BOTH_CAPTURES);
                }
                "tandem-compare"
            }
            Self::Bench => {
                also(&["--release", "--bin", "tandem-bench"], &[]);
                match what {
                    Some("decode") => also(&DECODE, &[Package::Mysql]),
                    Some("capture") => also(&TANDEM, &BOTH_CAPTURES),
                    Some("growth" | "reads") => also(&TANDEM, &ALL_THREE),
                    Some("gateway") => {
                        also(&["--bin", "tandem-bench-load"], &ALL_THREE);
                        also(&TANDEM, &[]);
                    }
                    _ => {}
                }
                "tandem-bench"
            }
            Self::Charsets | Self::Seeds => {
                let servers = if helps { &[][..] } else { &[Package::Mysql] };
                also(&["--bin", "tandem-fixtures"], servers);
                "tandem-fixtures"
            }
        };
        needs.start = start;
        if args.iter().any(|a| *a == "--bin" || a.starts_with("--bin=")) {
            needs.without_tandem();
        }
        if args.contains(&"--tandem-only") {
            needs.servers.retain(|s| *s != Package::Debezium);
        }
        needs
    }
}

impl Needs {
    fn without_tandem(&mut self) {
        if self.build.ends_with(&TANDEM) {
            self.build.truncate(self.build.len() - TANDEM.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(program: Program, args: &str) -> Needs {
        program.needs(&args.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn help_needs_neither_tandem_nor_servers() {
        for (program, args) in [
            (Program::Demo, "--rows 7 --help"),
            (Program::Compare, "debezium -h"),
            (Program::Bench, "help gateway"),
            (Program::Charsets, "--help"),
        ] {
            let needs = needs(program, args);
            assert!(needs.servers.is_empty() && !needs.build.contains(&"tandem"), "{program:?} {args}");
        }
    }

    #[test]
    fn each_command_builds_in_one_go_what_it_runs() {
        let demo = needs(Program::Demo, "--json f.json");
        assert_eq!(demo.servers, ALL_THREE);
        for bin in ["tandem-demo", "tandem-checker", "tandem"] {
            assert!(demo.build.windows(2).any(|w| w == ["--bin", bin]), "{bin}");
        }
        assert!(needs(Program::Compare, "--config tandem.toml").servers.is_empty());
        assert_eq!(needs(Program::Compare, "debezium --sql f.sql").servers, BOTH_CAPTURES);
        assert!(needs(Program::Bench, "decode").build.ends_with(&DECODE));
        assert_eq!(needs(Program::Bench, "capture --tandem-only").servers, [Package::Mysql, Package::Kafka]);
        assert_eq!(needs(Program::Seeds, "").servers, [Package::Mysql]);
    }

    #[test]
    fn a_binary_that_is_given_is_not_built() {
        for args in ["--bin /t/tandem", "--bin=/t/tandem"] {
            assert!(!needs(Program::Demo, args).build.contains(&"tandem"), "{args}");
        }
    }
}
