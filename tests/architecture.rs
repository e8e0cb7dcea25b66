//! The dependency directions of DESIGN: who may know whom, and who owns which driver.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Normal dependencies of each workspace package.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    metadata
        .packages
        .iter()
        .map(|p| {
            let normal = p.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
            (p.name.to_string(), normal.map(|d| d.name.clone()).collect())
        })
        .collect()
}

#[test]
fn each_driver_has_one_owner() {
    for (driver, owners) in [
        ("mysql_async", &["tandem-mysql"][..]),
        ("mysql_common", &["tandem-mysql"]),
        ("rdkafka", &["tandem-kafka"]),
        ("scylla", &["tandem-cassandra"]),
        ("apache-avro", &["tandem-wire"]),
        // Filters, and gates.
        ("cel", &["tandem-controller", "tandem-mapping"]),
    ] {
        // The comparisons, the demo, the benches and the checker (a program of tandem-tests) share no code with the
        // product: a shared mistake would go unnoticed. So they use the drivers themselves.
        let own_path = ["tandem-bench", "tandem-compare", "tandem-demo", "tandem-fixtures", "tandem-tests"];
        let users: Vec<String> = dependencies()
            .into_iter()
            .filter(|(name, deps)| !own_path.contains(&name.as_str()) && deps.contains(driver))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(users, owners, "{driver}");
    }
}

#[test]
fn directions() {
    let all = dependencies();
    for (package, allowed) in [
        ("tandem-model", &[][..]),
        ("tandem-wire", &["model"]),
        ("tandem-mapping", &["model", "wire"]),
        ("tandem-mysql", &["model", "wire"]),
        ("tandem-kafka", &["model", "wire"]),
        ("tandem-cassandra", &["model"]),
        ("tandem-watermarks", &["model", "wire", "mysql-source", "event-log"]),
        ("tandem-capture", &["model", "wire", "mysql-source", "event-log"]),
        ("tandem-backfill", &["model", "wire", "mysql-source", "event-log", "watermarks"]),
        ("tandem-apply", &["model", "wire", "mapping", "event-log", "cassandra-target"]),
        (
            "tandem-verify",
            &["model", "wire", "mapping", "mysql-source", "event-log", "cassandra-target", "watermarks"],
        ),
        (
            "tandem-gateway",
            &[
                "model",
                "wire",
                "mapping",
                "mysql-source",
                "event-log",
                "cassandra-target",
                "watermarks",
                "verify",
            ],
        ),
        ("tandem-controller", &["model", "wire", "event-log"]),
        ("tandem-devstack", &[]),
        ("tandem-compare", &["devstack"]),
        ("tandem-demo", &["compare", "devstack"]),
        ("tandem-bench", &["compare", "devstack"]),
        ("tandem-fixtures", &["devstack"]),
        ("tandem-xtask", &["devstack"]),
        // The checker shares no code with what it judges.
        ("tandem-tests", &[]),
    ] {
        let allowed: BTreeSet<String> = allowed.iter().map(|a| format!("tandem-{a}")).collect();
        let used: BTreeSet<String> =
            all[package].iter().filter(|d| d.starts_with("tandem-")).cloned().collect();
        assert!(used.is_subset(&allowed), "{package} uses {:?}", used.difference(&allowed));
    }
}
