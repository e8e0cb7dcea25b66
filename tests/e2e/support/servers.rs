//! Where the servers and the programs are. The variables are set by `cargo xtask test`; a test that lacks one
//! fails.

/// The `tandem` binary under test.
pub(crate) const TANDEM_BIN: &str = "TANDEM_BIN";
/// The `tandem-compare` binary, which shares no code with `tandem`.
pub(crate) const COMPARE_BIN: &str = "TANDEM_COMPARE_BIN";

/// The value of a variable that `cargo xtask test` sets.
///
/// # Panics
///
/// Without it: a test whose servers are missing must not pass.
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

/// Whether the long tests were asked for; says so if not. The tests that depend on it do less then, and leave
/// nothing out.
pub(crate) fn full() -> bool {
    let full = std::env::var_os("TANDEM_TEST_FULL").is_some();
    if !full {
        eprintln!("the short form of this test: TANDEM_TEST_FULL=1 runs the long one");
    }
    full
}

/// Tells this run's databases, keyspaces, topics and accounts from those of others.
pub(crate) fn unique_id() -> String {
    format!("{:08x}", rand::random::<u32>())
}

/// The servers of one migration. A test may put servers of its own in place of the shared ones.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) mysql_url: String,
    pub(crate) brokers: String,
    pub(crate) nodes: Vec<String>,
}

impl Servers {
    /// The shared ones.
    ///
    /// # Panics
    ///
    /// Without servers or without a binary.
    pub(crate) fn from_env() -> Self {
        required(TANDEM_BIN);
        Self { mysql_url: mysql_url(), brokers: brokers(), nodes: nodes() }
    }
}
