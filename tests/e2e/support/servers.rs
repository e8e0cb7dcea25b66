//! The addresses of the servers and the paths of the programs. `cargo xtask test` sets the variables. A test
//! without a variable that it needs fails.

/// The `tandem` binary under test.
pub(crate) const TANDEM_BIN: &str = "TANDEM_BIN";
/// The `tandem-compare` binary, which shares no code with `tandem`.
pub(crate) const COMPARE_BIN: &str = "TANDEM_COMPARE_BIN";

/// The value of a variable that `cargo xtask test` sets.
///
/// # Panics
///
/// If it is not set. A test without its servers must not pass.
pub(crate) fn required(name: &str) -> String {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.unwrap_or_else(|| {
        panic!(
            "{name} is not set. End-to-end tests need real servers and the built binaries: run them with \
             `cargo xtask test`, which starts the servers and sets {name}"
        )
    })
}

pub(crate) fn mysql_url() -> String {
    required("TANDEM_MYSQL_URL")
}

pub(crate) fn brokers() -> String {
    required("TANDEM_KAFKA_BROKERS")
}

/// Cassandra's nodes.
pub(crate) fn nodes() -> Vec<String> {
    required("TANDEM_CASSANDRA_NODES").split(',').map(str::to_owned).collect()
}

/// Whether the long tests were requested. Prints a note if not. The tests that depend on it then do less, but
/// skip no check.
pub(crate) fn full() -> bool {
    let full = std::env::var_os("TANDEM_TEST_FULL").is_some();
    if !full {
        eprintln!("the short form of this test: TANDEM_TEST_FULL=1 runs the long one");
    }
    full
}

/// Distinguishes this run's databases, keyspaces, topics and accounts from those of other runs.
/// It begins with a letter: MySQL reads an unquoted `1e77508581` as a number and a name.
pub(crate) fn unique_id() -> String {
    format!("r{:08x}", rand::random::<u32>())
}

/// The servers of one migration. A test may replace a shared server by one of its own.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) mysql_url: String,
    pub(crate) brokers: String,
    pub(crate) nodes: Vec<String>,
}

impl Servers {
    /// The shared servers.
    ///
    /// # Panics
    ///
    /// If a server or a binary is missing.
    pub(crate) fn from_env() -> Self {
        required(TANDEM_BIN);
        Self { mysql_url: mysql_url(), brokers: brokers(), nodes: nodes() }
    }
}
