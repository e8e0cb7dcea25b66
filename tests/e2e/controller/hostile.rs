//! What a web page must not do.

use super::*;
use crate::support::http;

/// Without tokens, whoever reaches the controller may give orders. A page in a browser on the same machine may not.
#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_cannot_pause_the_migration() -> anyhow::Result<()> {
    let stage = Stage::new("ctlpage").await?;
    let mut controller = stage.start("page", &format!("{QUICK}{NO_GATES}"))?;
    controller.active().await?;
    let body = r#"{"reason": "a page"}"#;
    for (header, status) in [
        (("Origin", "https://evil.example.com"), 403),
        (("Origin", "null"), 403),
        // A name of the page's own that leads to this machine.
        (("Host", "rebound.example.com"), 421),
        // What a form can send.
        (("Content-Type", "text/plain"), 415),
        (("Content-Type", "application/x-www-form-urlencoded"), 415),
    ] {
        let refused = http(controller.port, "POST", "/v1/phase/pause", &[header], body).await?;
        assert_eq!(refused.status, status, "{header:?} {refused:?}");
    }
    assert!(stage.records().await?.is_empty());
    let paused = http(controller.port, "POST", "/v1/phase/pause", &[], body).await?;
    assert_eq!(paused.status, 200, "{paused:?}");
    controller.running.terminate().await?;
    stage.migration.drop().await
}
