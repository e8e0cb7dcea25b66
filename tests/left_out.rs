//! Shows what a plain `cargo test` leaves out. It needs no servers. `cargo xtask test` starts them and runs
//! everything.
#![cfg(not(feature = "e2e"))]

#[test]
#[ignore = "needs servers: run `cargo xtask test`"]
fn end_to_end_tests() {
    panic!("tests/e2e needs servers: run `cargo xtask test`");
}

#[test]
#[ignore = "starts servers: run `cargo xtask test`"]
fn lifecycle_of_servers() {
    panic!("crates/dev/devstack/tests/lifecycle.rs starts servers: run `cargo xtask test`");
}
