//! A whole migration by accounts that may do no more than README says, over secure connections.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use tandem_devstack::{Kafka, Mysql, MysqlOptions};

use super::kafka::{SASL_SSL, options};
use super::pki::Ca;
use crate::support::{Finished, Migration, Servers, ready};

const MAPPING: &str =
    "[[table]]\nsource = \"{db}.t\"\n[[table.target]]\ntable = \"t\"\npartition_key = [\"id\"]\n";
const TABLE: [&str; 2] =
    ["CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2)"];

/// Writes the configuration with the settings of secure connections.
fn configure(migration: &Migration, mysql_tls: &str, kafka_ca: &Path) -> anyhow::Result<()> {
    migration.configure("", MAPPING)?;
    let text = std::fs::read_to_string(migration.config())?;
    let kafka = format!(
        "[kafka]\nsecurity = \"sasl_ssl\"\ntls = {{ ca = \"{}\" }}\nsasl = {{ mechanism = \"SCRAM-SHA-512\", \
         username = \"alice\", password = \"file:{}\" }}\n",
        kafka_ca.display(),
        migration.folder.path().join("password").display()
    );
    let mysql = format!("[mysql]\ntls = {mysql_tls}\n");
    Ok(std::fs::write(migration.config(), text.replace("[kafka]\n", &kafka).replace("[mysql]\n", &mysql))?)
}

/// What README says the principal needs, on what begins with the prefix.
const ACLS: [(&str, &[&str]); 3] =
    [("topic", &["Create", "Read", "Write"]), ("group", &["Read"]), ("transactional-id", &["Write"])];

/// Allows `alice` these operations (`--add`), or takes them away (`--remove`).
fn acl(kafka: &Kafka, action: &str, prefix: &str, resource: &str, operations: &[&str]) -> anyhow::Result<()> {
    let (option, prefix) = (format!("--{resource}"), format!("{prefix}."));
    let mut arguments = vec![action, "--allow-principal", "User:alice", &option, &prefix];
    arguments.extend(["--resource-pattern-type", "prefixed", "--force"]);
    arguments.extend(operations.iter().flat_map(|operation| ["--operation", operation]));
    let done = kafka.tool("org.apache.kafka.tools.AclCommand", &arguments)?.output()?;
    anyhow::ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Takes these away, waits until `tandem check` names each of them with its remedy, and gives them back.
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
    // A broker learns of changed ACLs a little later.
    checked(migration, |said| {
        !said.success
            && remedies.iter().all(|remedy| said.stderr.contains(remedy))
            && said.stderr.contains(&format!("not ready: {} to mend", remedies.len()))
    })
    .await?;
    for (resource, operations) in acls {
        acl(kafka, "--add", prefix, resource, operations)?;
    }
    checked(migration, |said| said.success).await
}

/// Runs `tandem check` until it says so.
async fn checked(migration: &Migration, so: impl Fn(&Finished) -> bool) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let said = migration.tandem(&["check"]).await?;
        if so(&said) {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < Duration::from_mins(1), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_grants_are_enough_and_each_is_needed() -> anyhow::Result<()> {
    let Some(mut servers) = Servers::from_env() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let ca = Ca::new(folder.path(), "ours")?;
    let mut wanted = options(&ca, folder.path())?;
    wanted.properties.extend(
        [
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
        ]
        .map(str::to_owned),
    );
    let kafka = Kafka::ephemeral_with(&wanted)?;
    let mysql = Mysql::ephemeral(&MysqlOptions::default())?;
    servers.mysql_url = mysql.url();
    servers.brokers = kafka.listener(SASL_SSL).unwrap();
    let mut migration = Migration::new(servers, "grants", &TABLE).await?;
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
    std::fs::write(migration.folder.path().join("password"), "wonderland\n")?;
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
    // No topic is there yet.
    each_is_named(&migration, &kafka, &[("topic", &["Create", "Write"]), ("transactional-id", &["Write"])])
        .await?;
    each_is_named(&migration, &kafka, &[("group", &["Read"])]).await?;
    each_is_named(&migration, &kafka, &[("topic", &["Read"])]).await?;

    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("127.0.0.1:{port}");
    let mut running = migration.start(&["run", "--listen", &address])?;
    migration.drained(&mut running).await?;
    migration.mysql.query_drop("UPDATE t SET v = 3 WHERE id = 1").await?;
    migration.drained(&mut running).await?;
    migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    ready(&address, "ready").await?;

    // The broker comes back with a certificate that nobody trusts, and then with a right one.
    let other = Ca::new(folder.path(), "other")?;
    options(&other, folder.path())?;
    kafka.restart()?;
    ready(&address, "kafka.tls.ca").await?;
    running.check()?;
    options(&ca, folder.path())?;
    kafka.restart()?;
    ready(&address, "ready").await?;
    migration.mysql.query_drop("DELETE FROM t WHERE id = 2").await?;
    migration.drained(&mut running).await?;
    assert!(!running.log().contains("wonderland") && !running.log().contains("removal"));
    running.terminate().await?;
    each_is_named(&migration, &kafka, &[("topic", &["Read"])]).await?;

    std::fs::write(migration.folder.path().join("password"), "looking-glass")?;
    for command in ["check", "capture"] {
        let said = migration.tandem(&[command]).await?;
        assert!(!said.success && said.stderr.contains("kafka.sasl"), "{command}: {}", said.stderr);
    }
    migration.drop().await
}
