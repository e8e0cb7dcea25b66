//! Clocks that are set back: MySQL's, and a gateway's.

use std::path::{Path, PathBuf};
use std::process::Command;

use mysql_async::prelude::Queryable;
use tandem_model::{Phase, PhaseRecord};

use super::{Stage, everything};
use crate::support::{Migration, ORDERS_MAPPING, Running, Servers, free_port, http};

/// An hour ago, as `original_commit_timestamp`.
const HOUR_AGO: &str = "SET SESSION original_commit_timestamp = (UNIX_TIMESTAMP() - 3600) * 1000000";

/// Transactions with commit times an hour ago, as if MySQL's clock had been set back after the gateway's
/// writes. Each must still win over the earlier ones.
#[tokio::test(flavor = "multi_thread")]
async fn mysqls_clock_stepped_back() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwclock", &["capture", "apply", "gateway"]).await?;
    stage.order(PhaseRecord { validate: 0.0, ..everything(Phase::ReadSwitch) }).await?;
    for id in [1, 2, 3] {
        let path = format!("/v1/order/{id}");
        let written = stage.done("PUT", &path, r#"{"customer": 1, "note": "before"}"#).await?;
        stage.until_applied(&path, written.header("tandem-token")).await?;
    }
    for statement in [
        "UPDATE orders SET note = 'after' WHERE id = 1",
        "DELETE FROM orders WHERE id = 2",
        "REPLACE INTO orders (id, customer, note) VALUES (3, 2, 'again')",
    ] {
        stage.sql(HOUR_AGO).await?;
        // The setting applies to the next transaction.
        let back = "SELECT @@SESSION.original_commit_timestamp < (UNIX_TIMESTAMP() - 3000) * 1000000";
        let back: Option<u64> = stage.migration.mysql.query_first(back).await?;
        assert_eq!(back, Some(1), "MySQL did not take the commit time");
        stage.sql(statement).await?;
    }
    // The gateway continues. It borrows its versions from watermarks, which must not fall either.
    let token = stage.done("PUT", "/v1/order/4", r#"{"customer": 1, "note": "later"}"#).await?;
    let token = token.header("tandem-token").to_owned();
    stage.until_applied("/v1/order/4", &token).await?;
    for (id, note) in [(1, Some("after")), (2, None), (3, Some("again")), (4, Some("later"))] {
        assert_eq!(stage.in_cassandra(id).await?.as_deref(), note, "{id}");
        let read = stage.get_with(&format!("/v1/order/{id}"), &[("Tandem-Token", &token)]).await?;
        assert_eq!(read.served_by(), "cassandra", "{read:?}");
        assert_eq!(read.status, if note.is_some() { 200 } else { 404 }, "{read:?}");
    }
    stage.end().await
}

/// A library that sets a process's clock back by the number of seconds in a file.
fn clock(folder: &Path) -> anyhow::Result<PathBuf> {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    let text = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <time.h>
        int clock_gettime(clockid_t id, struct timespec *now) {
            static int (*real)(clockid_t, struct timespec *);
            if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
            int done = real(id, now);
            long back = 0;
            if (id == CLOCK_REALTIME && getenv("BACK_FILE")) {
                FILE *file = fopen(getenv("BACK_FILE"), "r");
                if (file) { if (fscanf(file, "%ld", &back) != 1) back = 0; fclose(file); }
                now->tv_sec -= back;
            }
            return done;
        }"#;
    std::fs::write(&source, text)?;
    let mut compiler = Command::new("cc");
    let built = compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").output()?;
    anyhow::ensure!(built.status.success(), "cc: {}", String::from_utf8_lossy(&built.stderr));
    Ok(library)
}

/// One of two gateways has its clock set back by a day while it runs. Its writes win over the earlier writes
/// of the other gateway, and the reverse. Apply does not run, so only the gateways write.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_clock_stepped_back() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwback", &["capture", "gateway"]).await?;
    let folder = stage.migration.folder.path().to_owned();
    let (library, back, second) = (clock(&folder)?, folder.join("back"), free_port()?);
    std::fs::write(&back, "0")?;
    stage.migration.configure(&format!("[gateway]\nlisten = \"127.0.0.1:{second}\"\n"), ORDERS_MAPPING)?;
    let mut command = Migration::command_with(&stage.migration.config(), &["gateway"]);
    command.env("LD_PRELOAD", library).env("BACK_FILE", &back);
    stage.running.push(Running::of(command, folder.join("second.log"))?);
    stage.until_ready(second).await?;
    stage.phase(Phase::DualWrite).await?;
    stage.until_generation(second, 1).await?;
    for (seconds, first) in [("0", "one"), ("86400", "two"), ("172800", "three")] {
        std::fs::write(&back, seconds)?;
        for (port, note) in [(stage.port, first.to_owned()), (second, format!("{first} behind"))] {
            let body = format!(r#"{{"customer": 1, "note": "{note}"}}"#);
            // Two writes at one watermark tie. The next watermark decides.
            stage
                .until("the write to be in Cassandra", async |stage| {
                    let written = http(port, "PUT", "/v1/order/1", &[], &body).await?;
                    anyhow::ensure!(matches!(written.status, 200 | 201), "{written:?}");
                    Ok(stage.in_cassandra(1).await?.as_deref() == Some(note.as_str()))
                })
                .await?;
        }
    }
    // The log shows that it had the other clock: it ends before it began.
    if let Some(second) = stage.running.pop() {
        second.terminate().await?;
    }
    let log = std::fs::read_to_string(folder.join("second.log"))?;
    let day = |line: Option<&str>| line.and_then(|line| line.get(..10)).unwrap_or_default().to_owned();
    assert!(day(log.lines().last()) < day(log.lines().next()), "{log}");
    stage.end().await
}
