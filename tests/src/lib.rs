//! End-to-end tests live in the test targets beside this file.
//!
//! A plain `cargo test` leaves out what needs servers, and a test of this library says so.

#[cfg(all(test, not(feature = "e2e")))]
mod tests {
    #[test]
    #[ignore = "needs MySQL, Kafka and Cassandra: `cargo xtask test` starts them and runs all"]
    fn end_to_end() {
        panic!("run `cargo xtask test`");
    }
}
