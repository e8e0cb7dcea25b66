//! Which crates may use which external crates.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::DependencyKind;

use crate::packages::Package;

/// Clients of the three systems. Each of them brings its own runtime, threads and native libraries.
const DRIVERS: [&str; 5] = ["mysql_async", "mysql_common", "rdkafka", "rdkafka-sys", "scylla"];

/// External crates with an owner. An update or a replacement touches only the owner.
const OWNERS: [(&str, &[&str]); 6] = [
    ("mysql_async", &["tandem-mysql"]),
    ("mysql_common", &["tandem-mysql"]),
    ("rdkafka", &["tandem-kafka"]),
    ("scylla", &["tandem-cassandra"]),
    ("apache-avro", &["tandem-wire"]),
    // Row filters and phase gates: two languages with one evaluator.
    ("cel", &["tandem-mapping", "tandem-protocol"]),
];

/// Packages that may use the drivers besides the owners. They feed, compare and judge the product, and share
/// no code with it: a shared mistake would go unnoticed.
const OWN_PATH: [&str; 5] =
    ["tandem-demo", "tandem-bench", "tandem-compare", "tandem-fixtures", "tandem-tests"];

/// Crates that core may not depend on. They do I/O, read the clock, draw random numbers, or log.
///
/// Logging is output. A function of core returns its findings, and the caller decides what to log.
const IMPURE: [&str; 20] = [
    "async-std",
    "axum",
    "fastrand",
    "fd-lock",
    "futures",
    "getrandom",
    "hyper",
    "log",
    "mio",
    "native-tls",
    "nix",
    "openssl",
    "prometheus-client",
    "rand",
    "reqwest",
    "smol",
    "socket2",
    "tempfile",
    "tracing",
    "ureq",
];

/// Only its owners and [`OWN_PATH`] depend on an owned crate, and each owner does.
///
/// Development dependencies count, so that a test of a role does not bypass the adapter.
pub(crate) fn owners(packages: &[Package]) -> Vec<String> {
    let mut violations = Vec::new();
    for (driver, owners) in OWNERS {
        let users: BTreeSet<&str> = packages
            .iter()
            .filter(|p| p.dependencies.iter().any(|d| d.name == driver))
            .map(|p| p.name.as_str())
            .collect();
        for user in &users {
            if !owners.contains(user) && !OWN_PATH.contains(user) {
                violations
                    .push(format!("{user} depends on {driver}, which belongs to {}", owners.join(" and ")));
            }
        }
        for owner in owners.iter().filter(|o| !users.contains(**o)) {
            violations.push(format!("{owner} is an owner of {driver} and does not depend on it"));
        }
    }
    violations
}

/// Core depends on no runtime, no driver and no other crate of [`IMPURE`]. Its decisions are functions of
/// their arguments, so the model and property tests run the same code as production.
///
/// Development dependencies may be impure, as the generators of property tests are, but not drivers.
pub(crate) fn core_dependencies(packages: &[Package]) -> Vec<String> {
    let mut violations = Vec::new();
    for package in packages.iter().filter(|p| p.folder.starts_with("crates/core/")) {
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            let reason = if DRIVERS.contains(&name) {
                "a driver"
            } else if dependency.kind == DependencyKind::Development {
                continue;
            } else if name == "tokio" || name.starts_with("tokio-") {
                "a runtime"
            } else if IMPURE.contains(&name) {
                "I/O, time, randomness or logging"
            } else {
                continue;
            };
            violations.push(format!("{} in core depends on {name}: {reason}", package.name));
        }
    }
    violations
}

/// The package called `name` reaches no driver through its normal and build dependencies in the workspace.
///
/// So `cargo xtask` starts in seconds on an empty cache. Programs that need drivers are separate.
pub(crate) fn reached_by(name: &str, packages: &[Package]) -> Vec<String> {
    let by_name: BTreeMap<&str, &Package> = packages.iter().map(|p| (p.name.as_str(), p)).collect();
    let mut violations = Vec::new();
    let mut seen = BTreeSet::from([name]);
    let mut next = vec![vec![name]];
    while let Some(path) = next.pop() {
        let Some(package) = path.last().and_then(|last| by_name.get(last)) else { continue };
        let compiled = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        for dependency in compiled.map(|d| d.name.as_str()) {
            let longer: Vec<&str> = path.iter().copied().chain([dependency]).collect();
            if DRIVERS.contains(&dependency) {
                violations.push(format!("{name} compiles a driver: {}", longer.join(" -> ")));
            } else if seen.insert(dependency) {
                next.push(longer);
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::made_up::{package, package_in_tests};

    fn sound() -> Vec<Package> {
        vec![
            package("crates/core/model", &["serde"]),
            package("crates/core/wire", &["apache-avro"]),
            package("crates/core/mapping", &["cel"]),
            package("crates/core/protocol", &["cel"]),
            package("crates/adapters/mysql", &["mysql_async", "mysql_common", "tokio"]),
            package("crates/adapters/kafka", &["rdkafka", "tokio"]),
            package("crates/adapters/cassandra", &["scylla", "tokio"]),
            package("crates/dev/demo", &["mysql_async", "scylla"]),
            package("crates/dev/xtask", &["tandem-devstack"]),
            package("crates/dev/devstack", &["nix"]),
        ]
    }

    fn with(added: Package) -> Vec<Package> {
        let mut packages = sound();
        packages.push(added);
        packages
    }

    #[test]
    fn the_sound_tree_passes() {
        assert_eq!(owners(&sound()), [""; 0]);
        assert_eq!(core_dependencies(&sound()), [""; 0]);
        assert_eq!(reached_by("tandem-xtask", &sound()), [""; 0]);
    }

    #[test]
    fn a_driver_in_a_role_is_refused() {
        let expected = ["tandem-gateway depends on scylla, which belongs to tandem-cassandra"];
        assert_eq!(owners(&with(package("crates/roles/gateway", &["scylla"]))), expected);
        assert_eq!(owners(&with(package_in_tests("crates/roles/gateway", &["scylla"]))), expected);
    }

    #[test]
    fn an_owner_that_no_longer_uses_its_driver_is_named() {
        let mut packages = sound();
        packages.retain(|p| p.name != "tandem-protocol");
        assert_eq!(owners(&packages), ["tandem-protocol is an owner of cel and does not depend on it"]);
    }

    #[test]
    fn a_driver_in_core_is_refused() {
        let expected = ["tandem-binlog in core depends on mysql_common: a driver"];
        let packages = with(package("crates/core/binlog", &["mysql_common"]));
        assert_eq!(core_dependencies(&packages), expected);
        assert_eq!(
            owners(&packages),
            ["tandem-binlog depends on mysql_common, which belongs to tandem-mysql"]
        );
        let in_tests = with(package_in_tests("crates/core/binlog", &["mysql_common"]));
        assert_eq!(core_dependencies(&in_tests), expected);
    }

    #[test]
    fn a_runtime_in_core_is_refused() {
        for (name, reason) in [
            ("tokio", "a runtime"),
            ("tokio-util", "a runtime"),
            ("rand", "I/O, time, randomness or logging"),
            ("tracing", "I/O, time, randomness or logging"),
        ] {
            let packages = with(package("crates/core/binlog", &[name]));
            assert_eq!(
                core_dependencies(&packages),
                [format!("tandem-binlog in core depends on {name}: {reason}")]
            );
        }
        assert_eq!(core_dependencies(&with(package_in_tests("crates/core/binlog", &["rand"]))), [""; 0]);
    }

    #[test]
    fn a_driver_behind_xtask_is_refused() {
        let mut packages = sound();
        packages.retain(|p| p.name != "tandem-xtask");
        packages.push(package("crates/dev/xtask", &["tandem-devstack", "tandem-demo"]));
        assert_eq!(
            reached_by("tandem-xtask", &packages),
            [
                "tandem-xtask compiles a driver: tandem-xtask -> tandem-demo -> mysql_async",
                "tandem-xtask compiles a driver: tandem-xtask -> tandem-demo -> scylla",
            ]
        );
    }
}
