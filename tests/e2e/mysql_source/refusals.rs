//! Unsupported tables and settings are refused.

use tandem_binlog::DecodeError;
use tandem_model::TableDef;
use tandem_mysql::{BinlogError, Severity, TableError, TableProblem};

use super::Source;
use crate::support::own_server;

#[tokio::test]
async fn unsupported_tables_are_refused() -> anyhow::Result<()> {
    let mut source = Source::new("refused").await?;
    let errors: Vec<_> =
        source.mysql.preflight().await?.into_iter().filter(|f| f.severity == Severity::Error).collect();
    assert_eq!(errors, []);

    source.sql("CREATE TABLE parent (id INT PRIMARY KEY)").await?;
    source
        .sql(
            "CREATE TABLE bad (e ENUM('a') NOT NULL, f FLOAT NOT NULL, s SET('x') NOT NULL,
             PRIMARY KEY (e, f, s)) ENGINE=MyISAM",
        )
        .await?;
    source.sql("CREATE TABLE keyless (a INT)").await?;
    source.sql("CREATE VIEW v AS SELECT 1 AS one").await?;
    let refused = |result: Result<TableDef, TableError>| match result {
        Err(TableError::Refused { problems, .. }) => problems,
        other => panic!("{other:?}"),
    };
    let problems = refused(source.mysql.table_def(&source.table("bad")).await);
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert!(matches!(
        refused(source.mysql.table_def(&source.table("keyless")).await)[..],
        [TableProblem::NoPrimaryKey(_)]
    ));
    assert!(matches!(
        refused(source.mysql.table_def(&source.table("v")).await)[..],
        [TableProblem::NotATable(_)]
    ));
    assert_eq!(refused(source.mysql.table_def(&source.table("none")).await), [TableProblem::NoSuchTable]);
    let listed = source.mysql.list_tables(&source.database).await?;
    assert_eq!(listed, ["bad", "keyless", "parent"].map(|t| source.table(t)));

    source.sql("CREATE TABLE i (id INT PRIMARY KEY, a INT, b INT)").await?;
    source.sql("INSERT INTO i VALUES (1, 2, 3)").await?;
    let mut stream = source.stream("i").await?;
    source.sql("SET SESSION binlog_row_image = MINIMAL").await?;
    source.sql("UPDATE i SET a = 5").await?;
    let error = source.upto_now(&mut stream).await.unwrap_err();
    let remedy = remedy(&error);
    assert!(
        remedy.contains("binlog_row_image = FULL") && error.to_string().contains(".i "),
        "{error}: {remedy}"
    );
    // The stream does not pass the error.
    assert!(matches!(stream.next().await, Err(BinlogError::Decode(DecodeError::Table { .. }))));
    source.drop().await
}

/// Sessions may choose settings that the server's configuration does not allow. Their changes stop the
/// stream, with the position, before any of their rows.
#[tokio::test]
async fn unsupported_session_settings_stop_the_stream() -> anyhow::Result<()> {
    // A server of its own: a statement may change any table, so it stops every capture.
    let server = own_server(&[])?;
    let mut source = Source::at(server.url(), "sessions").await?;
    source.sql("CREATE TABLE i (id INT PRIMARY KEY, a INT, j JSON)").await?;
    source.sql("INSERT INTO i VALUES (1, 2, '{\"a\": \"a text that is long enough\", \"b\": 1}')").await?;
    for (setting, back, statement, text) in [
        (
            "binlog_row_image = MINIMAL",
            "binlog_row_image = FULL",
            "UPDATE i SET a = a + 1",
            "binlog_row_image",
        ),
        (
            "binlog_row_value_options = PARTIAL_JSON",
            "binlog_row_value_options = ''",
            "UPDATE i SET j = JSON_SET(j, '$.b', 7)",
            "binlog_row_value_options",
        ),
        ("binlog_format = STATEMENT", "binlog_format = ROW", "UPDATE i SET a = a + 1", "binlog_format"),
    ] {
        let mut stream = source.stream("i").await?;
        source.sql(&format!("SET SESSION {setting}")).await?;
        source.sql("BEGIN").await?;
        source.sql(statement).await?;
        source.sql("COMMIT").await?;
        source.sql(&format!("SET SESSION {back}")).await?;
        let error = source.upto_now(&mut stream).await.unwrap_err();
        let remedy = remedy(&error);
        assert!(
            remedy.contains(text) && error.to_string().contains("binlog."),
            "{setting}: {error}: {remedy}"
        );
        assert!(stream.next().await.is_err(), "{setting}: it passed the error");
    }
    // A table that is not captured may be logged with any of these settings, as long as it is logged in rows.
    let mut stream = source.stream("another").await?;
    source.sql("SET SESSION binlog_row_image = MINIMAL, binlog_row_value_options = PARTIAL_JSON").await?;
    source.sql("UPDATE i SET j = JSON_SET(j, '$.b', 8), a = 9").await?;
    source.upto_now(&mut stream).await?;
    Ok(())
}

/// What to do first about an error of the stream.
fn remedy(error: &anyhow::Error) -> String {
    let remedy = error.downcast_ref::<BinlogError>().and_then(BinlogError::remedy);
    remedy.and_then(|remedy| remedy.first).unwrap_or_default().into_owned()
}
