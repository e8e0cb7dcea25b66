//! The API over TLS, with a certificate of the test's own.

use tokio::net::TcpStream;

use super::*;

const SECRET: &str = "operate-operate-op";

#[tokio::test(flavor = "multi_thread")]
async fn phases_are_ordered_over_tls_and_over_nothing_else() -> anyhow::Result<()> {
    let Some(stage) = Stage::new("ctltls").await? else { return Ok(()) };
    let made = || rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]);
    let (own, foreign) = (made()?, made()?);
    let write = |name: &str, text: &str| {
        let path = stage.migration.folder.path().join(name);
        std::fs::write(&path, text).map(|()| path.display().to_string())
    };
    let (certificate, key) =
        (write("own.pem", &own.cert.pem())?, write("own.key", &own.signing_key.serialize_pem())?);
    let (other, secret) = (write("foreign.pem", &foreign.cert.pem())?, write("secret", SECRET)?);
    let served = format!("tls_certificate = {certificate:?}\ntls_key = {key:?}\nca = {certificate:?}\n");
    let gates = format!(
        "{QUICK}{NO_GATES}[[controller.token]]\nname = 'olga'\nsecret = 'file:{secret}'\nscopes = ['operate']\n"
    );
    let mut seated = stage.start("tls", &format!("{served}{gates}"))?;
    let plain = seated.url.clone();
    let token = format!("file:{secret}");
    let began = Instant::now();
    let status = loop {
        seated.running.check()?;
        let status = seated.phase(&["status", "--json", "--token", &token]).await?;
        if status.success {
            break status;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "{status:?} {}", seated.running.tail());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(stage(&serde_json::from_str(&status.stdout)?), "prepare 0");
    // Clients that connect and say nothing.
    let address = plain.trim_start_matches("http://");
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(address).await?);
    }
    let advanced = seated.phase(&["advance", "--token", &token, "--reason", "over TLS"]).await?;
    assert!(advanced.success && advanced.stdout.contains("dual-write (generation 1)"), "{advanced:?}");
    drop(silent);

    // A CA that is not its own, and the system's.
    let distrusted = seated.phase(&["advance", "--token", &token, "--ca", &other]).await?;
    assert!(!distrusted.success && distrusted.stderr.contains("certificate"), "{distrusted:?}");
    assert!(distrusted.stderr.contains("--ca"), "{distrusted:?}");
    let unread = seated.phase(&["status", "--ca", &key]).await?;
    assert!(!unread.success && unread.stderr.contains("holds no certificate"), "{unread:?}");
    // Without TLS there is no answer.
    let told = seated.phase(&["advance", "--token", &token, "--url", &plain]).await?;
    assert!(!told.success && told.stderr.contains("did not answer"), "{told:?}");
    let asked = seated.ask("GET", "phase", None, Some(SECRET));
    assert!(asked.is_err(), "{asked:?}");
    // Nobody is asked where others could read the token.
    let open = seated.phase(&["status", "--token", &token, "--url", "http://192.0.2.1:9465"]).await?;
    assert!(!open.success && open.stderr.contains("without TLS"), "{open:?}");
    let records = stage.records().await?;
    assert_eq!(records.iter().map(|record| record.reason.as_str()).collect::<Vec<_>>(), ["over TLS"]);
    seated.running.terminate().await?;

    // A key that is another certificate's is an error of the start.
    std::fs::write(&key, foreign.signing_key.serialize_pem())?;
    let refused = finish(Migration::command_with(&seated.config, &["controller"])).await?;
    assert!(!refused.success && refused.stderr.contains("controller.tls_key"), "{refused:?}");
    stage.migration.drop().await
}
