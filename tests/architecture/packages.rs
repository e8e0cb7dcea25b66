//! The workspace's manifests as data.

use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand, TargetKind};

use crate::source::Crate;

/// The packages of the workspace, and its folder.
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
    root: PathBuf,
}

/// One package, as its manifest describes it.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Relative to the workspace, with `/`: `crates/core/model`.
    pub(crate) folder: String,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) roots: Vec<Root>,
}

/// One dependency in a manifest.
#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: DependencyKind,
}

/// The root source file of a library, binary, test, bench or example.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    /// Relative to the workspace.
    pub(crate) file: PathBuf,
    pub(crate) is_library: bool,
}

impl Workspace {
    /// The workspace of this test.
    pub(crate) fn load() -> Self {
        let metadata = MetadataCommand::new().no_deps().exec().expect("cargo reads its own workspace");
        let root = metadata.workspace_root.as_std_path();
        let inside = |path: &Path| path.strip_prefix(root).expect("a member is inside").to_path_buf();
        let packages = metadata
            .packages
            .iter()
            .map(|p| Package {
                name: p.name.to_string(),
                folder: p
                    .manifest_path
                    .parent()
                    .map(|folder| inside(folder.as_std_path()).to_string_lossy().replace('\\', "/"))
                    .expect("a manifest has a folder"),
                dependencies: p
                    .dependencies
                    .iter()
                    .map(|d| Dependency { name: d.name.clone(), kind: d.kind })
                    .collect(),
                roots: p
                    .targets
                    .iter()
                    .filter(|t| !t.kind.contains(&TargetKind::CustomBuild))
                    .map(|t| Root {
                        file: inside(t.src_path.as_std_path()),
                        is_library: t.kind.contains(&TargetKind::Lib),
                    })
                    .collect(),
            })
            .collect();
        Self { packages, root: root.to_path_buf() }
    }

    /// The text of a file, relative to the workspace.
    pub(crate) fn read(&self, file: &Path) -> String {
        std::fs::read_to_string(self.root.join(file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    }

    /// Parses the crate whose root is `file`, relative to the workspace.
    pub(crate) fn parse(&self, file: &Path) -> Crate {
        Crate::parse(file, &|path| std::fs::read_to_string(self.root.join(path)).ok())
    }
}

#[cfg(test)]
pub(crate) mod made_up {
    //! Example packages for the tests of the rules.

    use super::{Dependency, DependencyKind, Package};

    /// A package in `folder`, named after it, with normal dependencies.
    pub(crate) fn package(folder: &str, dependencies: &[&str]) -> Package {
        let name = match folder.rsplit('/').next() {
            Some("tandem") | None => "tandem".to_owned(),
            Some(last) => format!("tandem-{last}"),
        };
        let dependencies = dependencies.iter().map(|d| on(d, DependencyKind::Normal)).collect();
        Package { name, folder: folder.to_owned(), dependencies, roots: Vec::new() }
    }

    /// The same, with development dependencies.
    pub(crate) fn package_in_tests(folder: &str, dependencies: &[&str]) -> Package {
        let dependencies = dependencies.iter().map(|d| on(d, DependencyKind::Development)).collect();
        Package { dependencies, ..package(folder, &[]) }
    }

    fn on(name: &str, kind: DependencyKind) -> Dependency {
        Dependency { name: name.to_owned(), kind }
    }
}
