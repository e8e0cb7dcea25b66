//! The names that the sources of core may use.

use std::collections::BTreeSet;

use crate::source::Crate;

/// Paths that make a function depend on more than its arguments, or have an effect. Each covers everything
/// below it.
const IMPURE: [(&str, &str); 27] = [
    ("std::time::SystemTime", "the clock"),
    ("std::time::Instant", "the clock"),
    ("chrono::Utc::now", "the clock"),
    ("chrono::Local", "the clock"),
    ("time::OffsetDateTime::now_utc", "the clock"),
    ("std::env", "the environment"),
    ("std::fs", "files"),
    ("std::os", "files and sockets"),
    ("std::io::stdin", "standard input"),
    ("std::io::stdout", "output"),
    ("std::io::stderr", "output"),
    ("std::net", "the network"),
    ("std::process", "processes"),
    ("std::thread", "threads"),
    ("rand", "randomness"),
    ("getrandom", "randomness"),
    ("fastrand", "randomness"),
    ("uuid::Uuid::new_v4", "randomness"),
    ("uuid::Uuid::now_v7", "the clock"),
    ("tokio", "a runtime"),
    ("tokio_util", "a runtime"),
    ("mysql_async", "a driver"),
    ("mysql_common", "a driver"),
    ("rdkafka", "a driver"),
    ("scylla", "a driver"),
    ("tracing", "logging is output: return what was found, and the caller logs it"),
    ("log", "logging is output: return what was found, and the caller logs it"),
];

/// Macros of the standard library that write output.
const OUTPUT: [&str; 5] = ["print!", "println!", "eprint!", "eprintln!", "dbg!"];

/// A decision of core is a function of its arguments: the same input gives the same answer in production, in
/// a test and in the model. So its sources name no clock, no randomness, no environment and no I/O.
///
/// The check reads names. It follows `use` and renames. It does not look into external crates.
pub(crate) fn impure_names(sources: &Crate) -> Vec<String> {
    let mut violations = BTreeSet::new();
    for (index, module) in sources.modules.iter().enumerate() {
        let file = module.file.display();
        for import in &module.imports {
            let Some(path) = sources.outside(index, &import.path) else { continue };
            let path = path.join("::");
            for (name, reason) in IMPURE {
                let is_whole = import.name.is_none() && is_below(name, &path);
                if is_whole || is_below(&path, name) {
                    violations.insert(format!("{file} imports {name}: {reason}"));
                }
            }
        }
        for mention in &module.mentions {
            if let [name] = mention.as_slice() {
                if OUTPUT.contains(&name.as_str()) {
                    violations.insert(format!("{file} calls {name}: output"));
                }
                continue;
            }
            let Some(path) = sources.outside(index, mention) else { continue };
            let path = path.join("::");
            for (name, reason) in IMPURE.iter().filter(|(name, _)| is_below(&path, name)) {
                violations.insert(format!("{file} names {name}: {reason}"));
            }
        }
    }
    violations.into_iter().collect()
}

/// Whether `path` is `name` or below it.
fn is_below(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::made_up::sources;

    fn found(text: &str) -> Vec<String> {
        impure_names(&sources(&[("src/lib.rs", text)]))
    }

    #[test]
    fn pure_code_passes() {
        let text = "use std::time::Duration; use std::collections::HashMap; use chrono::Utc;
            mod log { pub fn length() {} }
            fn f(rand: u8, print: fn(u8), d: Duration) -> std::io::Result<()> { print(rand); log::length(); Ok(()) }
            #[cfg(test)] mod tests { use std::time::Instant; fn g() { println!(); std::env::var(\"A\"); } }
            struct S; impl S { #[cfg(test)] fn now() { std::time::Instant::now(); } }";
        assert_eq!(found(text), [""; 0]);
    }

    #[test]
    fn each_way_to_name_something_impure_is_refused() {
        for (text, expected) in [
            ("use std::time::Instant;", "imports std::time::Instant: the clock"),
            ("use std::time::{Duration, SystemTime as T};", "imports std::time::SystemTime: the clock"),
            ("use std::{collections, env};", "imports std::env: the environment"),
            ("use std::env::var;", "imports std::env: the environment"),
            ("use std::time; fn f() { time::Instant::now(); }", "names std::time::Instant: the clock"),
            ("fn f() { use std::fs; }", "imports std::fs: files"),
            ("fn f() { std::fs::read(\"a\"); }", "names std::fs: files"),
            ("fn f(a: std::net::IpAddr) {}", "names std::net: the network"),
            ("fn f() { let v: Vec<std::thread::Thread>; }", "names std::thread: threads"),
            ("fn f() { assert!(rand::random::<bool>()); }", "names rand: randomness"),
            ("use chrono::Utc; fn f() { Utc::now(); }", "names chrono::Utc::now: the clock"),
            ("use tokio as t; ", "imports tokio: a runtime"),
            ("async fn f() { tokio::spawn(g()); }", "names tokio: a runtime"),
            ("async fn f() { tokio::select! {} }", "names tokio: a runtime"),
            ("use scylla::Session;", "imports scylla: a driver"),
            ("fn f() { println!(); }", "calls println!: output"),
        ] {
            assert_eq!(found(text), [format!("src/lib.rs {expected}")], "{text}");
        }
        let logs = found("fn f() { tracing::warn!(\"a\"); }");
        assert!(logs.len() == 1 && logs[0].starts_with("src/lib.rs names tracing: logging"), "{logs:?}");
        let whole = found("use std::time::*;");
        assert_eq!(whole.len(), 2, "{whole:?}");
    }

    #[test]
    fn every_module_is_read() {
        let tree = sources(&[
            ("src/lib.rs", "mod a;"),
            ("src/a.rs", "mod b;"),
            ("src/a/b.rs", "pub use std::time::Instant;"),
        ]);
        assert_eq!(impure_names(&tree), ["src/a/b.rs imports std::time::Instant: the clock"]);
    }
}
