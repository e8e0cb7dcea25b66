//! The allowed dependencies between the folders of the workspace.

use std::collections::BTreeMap;

use cargo_metadata::DependencyKind;

use crate::packages::Package;

/// The layer of a folder. It determines what its packages may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// `crates/core/*`: pure decisions and formats.
    Core,
    /// `crates/base/*`: helpers of every loop, which know nothing of Tandem.
    Base,
    /// `crates/adapters/*`: one driver each.
    Adapter,
    /// `crates/services/*`: shared by several roles, over more than one adapter.
    Service,
    /// `crates/roles/*`: one long-lived loop each.
    Role,
    /// `crates/tandem`: the binary, which composes the roles.
    Binary,
    /// `crates/dev/*`: what only developers run.
    Dev,
    /// `tests`: the checker, and the end-to-end tests.
    Tests,
    /// `tests/protocol`: the model of the protocol.
    Model,
}

fn layer(package: &Package) -> Option<Layer> {
    let folder = package.folder.as_str();
    match folder {
        "crates/tandem" => return Some(Layer::Binary),
        "tests" => return Some(Layer::Tests),
        "tests/protocol" => return Some(Layer::Model),
        _ => {}
    }
    match folder.strip_prefix("crates/")?.split_once('/')?.0 {
        "base" => Some(Layer::Base),
        "core" => Some(Layer::Core),
        "adapters" => Some(Layer::Adapter),
        "services" => Some(Layer::Service),
        "roles" => Some(Layer::Role),
        "dev" => Some(Layer::Dev),
        _ => None,
    }
}

/// The crates of core, each with those that it may use. Values come first, then their formats, then plans,
/// then decisions.
const CORE: [(&str, &[&str]); 5] = [
    ("tandem-model", &[]),
    ("tandem-wire", &["tandem-model"]),
    ("tandem-binlog", &["tandem-model", "tandem-wire"]),
    ("tandem-mapping", &["tandem-model", "tandem-wire"]),
    ("tandem-protocol", &["tandem-model", "tandem-wire", "tandem-binlog", "tandem-mapping"]),
];

/// The services, each with those that it may use. Dead letters and the row check use watermarks, and the row check leaves
/// out the keys of dead letters and the tables that have halted. The HTTP APIs' shared code needs none of the others, and
/// native writes have neither watermarks nor dead letters.
const SERVICES: [(&str, &[&str]); 6] = [
    ("tandem-http-api", &[]),
    ("tandem-watermarks", &[]),
    ("tandem-dead-letters", &["tandem-watermarks", "tandem-table-states"]),
    ("tandem-table-states", &[]),
    ("tandem-row-check", &["tandem-watermarks", "tandem-dead-letters", "tandem-table-states"]),
    ("tandem-native-writes", &[]),
];

/// A package is named `tandem-` and its folder. So a path in an error message or a dependency list leads to
/// the code without a search.
///
/// The binary is `tandem`. The model is `tandem-protocol-model`, because it explores `tandem-protocol`.
pub(crate) fn names(packages: &[Package]) -> Vec<String> {
    let mut violations = Vec::new();
    for package in packages {
        let expected = match (layer(package), package.folder.rsplit('/').next()) {
            (Some(Layer::Binary), _) => "tandem".to_owned(),
            (Some(Layer::Model), _) => "tandem-protocol-model".to_owned(),
            (_, last) => format!("tandem-{}", last.unwrap_or_default()),
        };
        if package.name != expected {
            violations.push(format!("{} in {} is not named {expected}", package.name, package.folder));
        }
    }
    violations
}

/// Every dependency between packages of the workspace points in a direction that [`reason_against`] allows.
/// Development dependencies count: a test that reaches across a border binds both sides as code does.
pub(crate) fn directions(packages: &[Package]) -> Vec<String> {
    let by_name: BTreeMap<&str, &Package> = packages.iter().map(|p| (p.name.as_str(), p)).collect();
    let mut violations = Vec::new();
    for from in packages {
        let Some(from_layer) = layer(from) else {
            violations.push(format!("{} is in no known layer: {}", from.name, from.folder));
            continue;
        };
        for dependency in &from.dependencies {
            let Some(to) = by_name.get(dependency.name.as_str()) else { continue };
            let Some(to_layer) = layer(to) else { continue };
            if let Some(reason) = reason_against((from, from_layer), (to, to_layer), dependency.kind) {
                violations.push(format!("{} depends on {}: {reason}", from.name, to.name));
            }
        }
    }
    violations
}

/// Why `from` may not depend on `to`; `None` if it may.
fn reason_against(
    (from, from_layer): (&Package, Layer),
    (to, to_layer): (&Package, Layer),
    kind: DependencyKind,
) -> Option<&'static str> {
    use Layer::{Adapter, Base, Binary, Core, Dev, Model, Role, Service, Tests};
    let forbidden = match (from_layer, to_layer) {
        (Core, Core) => return reason_against_order(&CORE, from, to),
        (Service, Service) => return reason_against_order(&SERVICES, from, to),
        (Adapter | Service | Role | Binary | Model, Core)
        | (Adapter | Service | Role | Binary, Base)
        | (Service | Role | Binary, Adapter)
        | (Role | Binary, Service)
        | (Binary, Role)
        | (Dev, Dev) => return None,
        // End-to-end tests start and inspect everything. The checker in the same package is a binary, and
        // binaries cannot use development dependencies.
        (Tests, _) if kind == DependencyKind::Development => return None,
        (Tests, _) => "the checker shares no code with what it judges",
        (Core, _) => "core depends on core only: its decisions run in tests and in the model as they are",
        (Adapter, Adapter) => "an adapter knows one driver: what needs two belongs into a service",
        (Base, _) => "base is below everything: what knows Tandem belongs into another layer",
        (Adapter, _) => "adapters depend on core and base only",
        (Service, Role) => "services are below the roles that share them",
        (Role, Role) => "roles share services, the log and Cassandra, never code of each other",
        (Dev, _) => "what developers run shares no code with the product that it measures or compares",
        (Model, _) => "the model explores core: a decision that it needs from elsewhere belongs into core",
        (_, Dev | Tests | Model) => "the product does not know its tests and tools",
        (Service | Role | Binary, _) => "nothing is above the binary",
    };
    Some(forbidden)
}

/// Why the order inside a layer forbids a dependency.
fn reason_against_order(order: &[(&str, &[&str])], from: &Package, to: &Package) -> Option<&'static str> {
    match order.iter().find(|(name, _)| *name == from.name) {
        Some((_, below)) if below.contains(&to.name.as_str()) => None,
        Some(_) => Some("it is not below it in the order of its layer"),
        None => Some("its place in the order of its layer is not written down: add it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::made_up::{package, package_in_tests};

    /// The whole tree with every dependency that is allowed.
    fn sound() -> Vec<Package> {
        vec![
            package("crates/core/model", &["serde"]),
            package("crates/core/wire", &["tandem-model"]),
            package("crates/core/binlog", &["tandem-model", "tandem-wire"]),
            package("crates/core/mapping", &["tandem-model", "tandem-wire"]),
            package(
                "crates/core/protocol",
                &["tandem-model", "tandem-wire", "tandem-binlog", "tandem-mapping"],
            ),
            package("crates/adapters/mysql", &["tandem-binlog", "tandem-model"]),
            package("crates/adapters/kafka", &["tandem-wire"]),
            package("crates/base/runtime", &["tokio"]),
            package("crates/adapters/cassandra", &["tandem-model", "tandem-runtime"]),
            package("crates/services/watermarks", &["tandem-mysql", "tandem-kafka", "tandem-wire"]),
            package("crates/services/row-check", &["tandem-watermarks", "tandem-protocol"]),
            package("crates/roles/gateway", &["tandem-row-check", "tandem-cassandra", "tandem-protocol"]),
            package("crates/roles/capture", &["tandem-mysql", "tandem-protocol"]),
            package("crates/tandem", &["tandem-gateway", "tandem-capture", "tandem-kafka", "tandem-model"]),
            package("crates/dev/devstack", &["nix"]),
            package("crates/dev/demo", &["tandem-devstack"]),
            package_in_tests("tests", &["tandem-devstack", "tandem-gateway", "tandem-wire"]),
            Package {
                name: "tandem-protocol-model".to_owned(),
                ..package_in_tests("tests/protocol", &["tandem-protocol", "tandem-mapping"])
            },
        ]
    }

    /// The violations after `changed` has replaced the package in the same folder.
    fn with(changed: Package) -> Vec<String> {
        let mut packages = sound();
        packages.retain(|p| p.folder != changed.folder);
        packages.push(changed);
        directions(&packages)
    }

    #[track_caller]
    fn refused(changed: Package, expected: &str) {
        let violations = with(changed);
        assert!(violations.len() == 1 && violations[0].starts_with(expected), "{violations:?}");
    }

    #[test]
    fn the_sound_tree_passes() {
        assert_eq!(directions(&sound()), [""; 0]);
        assert_eq!(names(&sound()), [""; 0]);
    }

    #[test]
    fn core_depends_on_core_only() {
        let expected = "tandem-protocol depends on tandem-kafka: core depends on core only";
        refused(package("crates/core/protocol", &["tandem-kafka"]), expected);
        refused(package_in_tests("crates/core/protocol", &["tandem-kafka"]), expected);
    }

    #[test]
    fn core_has_an_order() {
        refused(
            package("crates/core/model", &["tandem-wire"]),
            "tandem-model depends on tandem-wire: it is not",
        );
        refused(
            package("crates/core/binlog", &["tandem-mapping"]),
            "tandem-binlog depends on tandem-mapping",
        );
        refused(
            package("crates/core/new", &["tandem-model"]),
            "tandem-new depends on tandem-model: its place",
        );
    }

    #[test]
    fn no_adapter_in_an_adapter() {
        refused(
            package("crates/adapters/mysql", &["tandem-kafka"]),
            "tandem-mysql depends on tandem-kafka: an adapter knows one driver",
        );
    }

    #[test]
    fn base_is_below_everything_and_not_for_core() {
        refused(
            package("crates/base/runtime", &["tandem-model"]),
            "tandem-runtime depends on tandem-model: base is below everything",
        );
        refused(
            package("crates/core/model", &["tandem-runtime"]),
            "tandem-model depends on tandem-runtime: core depends on core only",
        );
    }

    #[test]
    fn services_are_below_roles_and_in_order() {
        refused(
            package("crates/services/watermarks", &["tandem-gateway"]),
            "tandem-watermarks depends on tandem-g",
        );
        refused(
            package("crates/services/watermarks", &["tandem-row-check"]),
            "tandem-watermarks depends on tandem-row-check: it is not below",
        );
    }

    #[test]
    fn no_role_in_a_role() {
        refused(
            package("crates/roles/gateway", &["tandem-capture"]),
            "tandem-gateway depends on tandem-capture: roles share services",
        );
    }

    #[test]
    fn only_the_binary_knows_roles() {
        refused(
            package("crates/dev/demo", &["tandem-capture"]),
            "tandem-demo depends on tandem-capture: what dev",
        );
        refused(
            package("crates/adapters/kafka", &["tandem-capture"]),
            "tandem-kafka depends on tandem-capture",
        );
        refused(
            package("crates/roles/gateway", &["tandem"]),
            "tandem-gateway depends on tandem: nothing is above",
        );
    }

    #[test]
    fn the_product_knows_no_tools_and_the_tools_no_product() {
        refused(
            package("crates/dev/demo", &["tandem-model"]),
            "tandem-demo depends on tandem-model: what dev",
        );
        refused(
            package("crates/tandem", &["tandem-devstack"]),
            "tandem depends on tandem-devstack: the product",
        );
        refused(
            package("crates/roles/capture", &["tandem-devstack"]),
            "tandem-capture depends on tandem-dev",
        );
    }

    #[test]
    fn the_checker_shares_no_code() {
        refused(
            package("tests", &["tandem-wire"]),
            "tandem-tests depends on tandem-wire: the checker shares",
        );
    }

    #[test]
    fn the_model_runs_core() {
        let model = Package {
            name: "tandem-protocol-model".to_owned(),
            ..package_in_tests("tests/protocol", &["tandem-gateway"])
        };
        refused(model, "tandem-protocol-model depends on tandem-gateway: the model explores core");
    }

    #[test]
    fn a_folder_without_a_layer_is_refused() {
        refused(package("crates/misc", &[]), "tandem-misc is in no known layer: crates/misc");
        refused(package("crates/shared/misc", &[]), "tandem-misc is in no known layer");
    }

    #[test]
    fn a_name_that_is_not_the_folders_is_refused() {
        let renamed = Package { name: "tandem-log".to_owned(), ..package("crates/adapters/kafka", &[]) };
        assert_eq!(names(&[renamed]), ["tandem-log in crates/adapters/kafka is not named tandem-kafka"]);
    }
}
