//! A complete migration with the privileges in README only, over secure connections.

use std::path::Path;

use mysql_async::prelude::Queryable;
use tandem_devstack::Kafka;

use super::kafka::{SASL_SSL, options};
use crate::support::{
    Authority, Finished, MINUTE, Migration, Probe, Servers, T, T_MAPPING, eventually, free_port, own_server,
    until_readyz,
};

/// Writes the configuration with the settings of secure connections.
fn configure(migration: &Migration, mysql_tls: &str, kafka_ca: &Path) -> anyhow::Result<()> {
    migration.configure("", T_MAPPING)?;
    let text = std::fs::read_to_string(migration.config())?;
    let kafka = format!(
        "[kafka]\nsecurity = \"sasl_ssl\"\ntls = {{ ca = \"{}\" }}\nsasl = {{ mechanism = \"SCRAM-SHA-512\", \
         username = \"alice\", password = \"file:{}\" }}\n",
        kafka_ca.display(),
        migration.path("password").display()
    );
    let mysql = format!("[mysql]\ntls = {mysql_tls}\n");
    Ok(std::fs::write(migration.config(), text.replace("[kafka]\n", &kafka).replace("[mysql]\n", &mysql))?)
}

/// The ACLs that the principal needs according to README, on names that begin with the prefix.
const ACLS: [(&str, &[&str]); 3] =
    [("topic", &["Create", "Read", "Write"]), ("group", &["Read"]), ("transactional-id", &["Write"])];

/// Allows `alice` these operations (`--add`), or revokes them (`--remove`).
fn acl(kafka: &Kafka, action: &str, prefix: &str, resource: &str, operations: &[&str]) -> anyhow::Result<()> {
    let (option, prefix) = (format!("--{resource}"), format!("{prefix}."));
    let mut arguments = vec![action, "--allow-principal", "User:alice", &option, &prefix];
    arguments.extend(["--resource-pattern-type", "prefixed", "--force"]);
    arguments.extend(operations.iter().flat_map(|operation| ["--operation", operation]));
    let done = kafka.tool("org.apache.kafka.tools.AclCommand", &arguments)?.output()?;
    anyhow::ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Revokes these ACLs, waits until `tandem check` names each of them with its remedy, and adds them again.
async fn each_is_named(migration: &Migration, kafka: &Kafka, acls: &[(&str, &[&str])]) -> anyhow::Result<()> {
    let prefix = &migration.prefix;
    for (resource, operations) in acls {
        acl(kafka, "--remove", prefix, resource, operations)?;
    }
    let remedies = acls.iter().flat_map(|(resource, operations)| {
        operations.iter().map(move |operation| {
            format!("--allow-principal 'User:alice' --operation {operation} --{resource} {prefix}. --resource-pattern-type prefixed")
        })
    });
    let remedies: Vec<String> = remedies.collect();
    // A broker applies changed ACLs with a delay.
    until_check(migration, |said| {
        !said.success
            && remedies.iter().all(|remedy| said.stderr.contains(remedy))
            && said.stderr.contains(&format!("not ready: {} to fix", remedies.len()))
    })
    .await?;
    for (resource, operations) in acls {
        acl(kafka, "--add", prefix, resource, operations)?;
    }
    until_check(migration, |said| said.success).await
}

/// Runs `tandem check` until its output meets the condition.
async fn until_check(migration: &Migration, so: impl Fn(&Finished) -> bool) -> anyhow::Result<()> {
    eventually("`tandem check` to say so", MINUTE, async || {
        let said = migration.tandem(&["check"]).await?;
        Ok(Probe::when(so(&said), format!("{said:?}")))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_grants_are_enough_and_each_is_needed() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let folder = tempfile::tempdir()?;
    let ca = Authority::new(folder.path(), "ours")?;
    let mut wanted = options(&ca, folder.path())?;
    wanted.properties.extend(
        [
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
        ]
        .map(str::to_owned),
    );
    let kafka = Kafka::ephemeral_with(&wanted)?;
    let mysql = own_server(&[])?;
    servers.mysql_url = mysql.url();
    servers.brokers = kafka.listener(SASL_SSL).unwrap();
    let mut migration =
        Migration::new(servers, "grants", &[T, "INSERT INTO t VALUES (1, 1), (2, 2)"]).await?;
    for (resource, operations) in ACLS {
        acl(&kafka, "--add", &migration.prefix, resource, operations)?;
    }
    let table = format!("`{}`.`t`", migration.database);
    for statement in [
        "CREATE USER 'mover'@'%' IDENTIFIED BY 'removal' REQUIRE X509".to_owned(),
        format!("GRANT SELECT ON {table} TO 'mover'@'%'"),
        "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'mover'@'%'".to_owned(),
    ] {
        migration.mysql.query_drop(statement).await?;
    }
    migration.servers.mysql_url = format!("mysql://mover:removal@127.0.0.1:{}", mysql.port());
    let data = mysql.dir().join("data");
    let tls = format!(
        "{{ mode = \"verify_ca\", ca = {:?}, certificate = {:?}, key = {:?} }}",
        data.join("ca.pem"),
        data.join("client-cert.pem"),
        data.join("client-key.pem")
    );
    migration.write("password", "wonderland\n")?;
    configure(&migration, &tls, &ca.file())?;
    migration.succeed(&["schema", "create"]).await?;
    migration.succeed(&["check"]).await?;

    for (privilege, on) in
        [("SELECT", table.as_str()), ("REPLICATION SLAVE", "*.*"), ("REPLICATION CLIENT", "*.*")]
    {
        migration.mysql.query_drop(format!("REVOKE {privilege} ON {on} FROM 'mover'@'%'")).await?;
        let remedy = format!("GRANT {privilege} ON {on} TO 'mover'@'%'");
        let said = migration.tandem(&["check"]).await?;
        assert!(!said.success && said.stderr.contains(&remedy), "{remedy} is not in: {}", said.stderr);
        migration.mysql.query_drop(&remedy).await?;
    }
    // No topic exists yet.
    each_is_named(&migration, &kafka, &[("topic", &["Create", "Write"]), ("transactional-id", &["Write"])])
        .await?;
    each_is_named(&migration, &kafka, &[("group", &["Read"])]).await?;
    each_is_named(&migration, &kafka, &[("topic", &["Read"])]).await?;

    let port = free_port()?;
    let mut running = migration.start(&["run", "--listen", &format!("127.0.0.1:{port}")])?;
    migration.drained(&mut running).await?;
    migration.mysql.query_drop("UPDATE t SET v = 3 WHERE id = 1").await?;
    migration.drained(&mut running).await?;
    migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    until_readyz(port, "ready").await?;

    // The broker comes back with a certificate of an unknown CA, and then with a valid one.
    let other = Authority::new(folder.path(), "other")?;
    options(&other, folder.path())?;
    kafka.restart()?;
    until_readyz(port, "kafka.tls.ca").await?;
    running.check()?;
    options(&ca, folder.path())?;
    kafka.restart()?;
    until_readyz(port, "ready").await?;
    migration.mysql.query_drop("DELETE FROM t WHERE id = 2").await?;
    migration.drained(&mut running).await?;
    assert!(!running.log().contains("wonderland") && !running.log().contains("removal"));
    running.terminate().await?;
    each_is_named(&migration, &kafka, &[("topic", &["Read"])]).await?;

    migration.write("password", "looking-glass")?;
    for command in ["check", "capture"] {
        let said = migration.tandem(&[command]).await?;
        assert!(!said.success && said.stderr.contains("kafka.sasl"), "{command}: {}", said.stderr);
    }
    migration.drop().await
}
