//! The API over TLS, with the test's own certificate.

use super::*;
use crate::support::{SelfSigned, silent_clients};

const SECRET: &str = "operate-operate-op";

#[tokio::test(flavor = "multi_thread")]
async fn phases_are_ordered_over_tls_only() -> anyhow::Result<()> {
    let stage = Stage::new("ctltls").await?;
    let own = SelfSigned::new(stage.migration.folder.path(), "own", "127.0.0.1")?;
    let foreign = SelfSigned::new(stage.migration.folder.path(), "foreign", "127.0.0.1")?;
    let secret = stage.migration.write("secret", SECRET)?.display().to_string();
    let text = |path: &std::path::Path| path.display().to_string();
    let (certificate, key, other) = (text(&own.certificate), text(&own.key), text(&foreign.certificate));
    let served = format!("tls_certificate = {certificate:?}\ntls_key = {key:?}\nca = {certificate:?}\n");
    let gates = format!(
        "{QUICK}{NO_GATES}[[controller.token]]\nname = 'olga'\nsecret = 'file:{secret}'\nscopes = ['operate']\n"
    );
    let mut controller = stage.start("tls", &format!("{served}{gates}"))?;
    let plain = controller.url();
    let token = format!("file:{secret}");
    let status = eventually("an answer over TLS", MINUTE, async || {
        controller.running.check()?;
        let status = controller.phase(&["status", "--json", "--token", &token]).await?;
        let seen = format!("{status:?} {}", controller.running.tail());
        Ok(Probe::some(status.success.then_some(status), seen))
    })
    .await?;
    assert_eq!(stage_of(&serde_json::from_str(&status.stdout)?), "prepare 0");
    let silent = silent_clients(controller.port).await?;
    let advanced = controller.phase(&["advance", "--token", &token, "--reason", "over TLS"]).await?;
    assert!(advanced.success && advanced.stdout.contains("dual-write (generation 1)"), "{advanced:?}");
    drop(silent);

    // Another CA, and the system's.
    let distrusted = controller.phase(&["advance", "--token", &token, "--ca", &other]).await?;
    assert!(!distrusted.success && distrusted.stderr.contains("certificate"), "{distrusted:?}");
    assert!(distrusted.stderr.contains("--ca"), "{distrusted:?}");
    let unread = controller.phase(&["status", "--ca", &key]).await?;
    assert!(!unread.success && unread.stderr.contains("holds no certificate"), "{unread:?}");
    // Without TLS there is no answer.
    let unanswered = controller.phase(&["advance", "--token", &token, "--url", &plain]).await?;
    assert!(!unanswered.success && unanswered.stderr.contains("did not answer"), "{unanswered:?}");
    let asked = controller.ask("GET", "phase", None, Some(SECRET)).await;
    assert!(asked.is_err(), "{asked:?}");
    // A token is never sent where others could read it.
    let open = controller.phase(&["status", "--token", &token, "--url", "http://192.0.2.1:9465"]).await?;
    assert!(!open.success && open.stderr.contains("without TLS"), "{open:?}");
    let records = stage.records().await?;
    assert_eq!(records.iter().map(|record| record.reason.as_str()).collect::<Vec<_>>(), ["over TLS"]);
    controller.running.terminate().await?;

    // The key of another certificate is an error at the start.
    std::fs::copy(&foreign.key, &own.key)?;
    let refused = finish(Migration::command_with(&controller.config, &["controller"])).await?;
    assert!(!refused.success && refused.stderr.contains("controller.tls_key"), "{refused:?}");
    stage.migration.drop().await
}
