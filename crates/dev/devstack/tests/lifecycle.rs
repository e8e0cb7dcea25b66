//! A real MySQL through its life: readiness, crash, pause, restart, and the contents of errors.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tandem_devstack::{Condition, Mysql, MysqlOptions, list};

#[test]
fn a_mysql_survives_kill_pause_and_restart() -> Result<()> {
    let mysql =
        Mysql::ephemeral(&MysqlOptions { extra_args: vec!["--binlog-row-metadata=MINIMAL".to_owned()] })?;
    ensure!(mysql.condition() == Condition::Ready);
    ensure!(mysql.url() == format!("mysql://root@127.0.0.1:{}", mysql.port()));
    let variables =
        mysql.query("SELECT @@gtid_mode, @@binlog_row_image, @@binlog_row_metadata, @@sync_binlog")?;
    ensure!(variables.trim() == "ON\tFULL\tMINIMAL\t1", "{variables}");
    ensure!(list()?.iter().any(|row| row.port == mysql.port() && row.condition == Condition::Ready));

    // A crash loses no committed change, and the ports stay.
    mysql.query("CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY); INSERT INTO d.t VALUES (7)")?;
    let (port, first) = (mysql.port(), mysql.pid().context("no process")?);
    mysql.kill()?;
    ensure!(mysql.condition() == Condition::Down && mysql.pid().is_none() && !mysql.is_ready());
    ensure!(mysql.query("SELECT 1").is_err());
    mysql.restart()?;
    ensure!(mysql.port() == port && mysql.pid().is_some_and(|pid| pid != first) && mysql.is_ready());
    ensure!(mysql.query("SELECT id FROM d.t")?.trim() == "7");

    // A paused one keeps its process, and answers again after it is resumed.
    mysql.pause()?;
    ensure!(mysql.condition() == Condition::Paused && mysql.pid().is_some());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| mysql.wait_until_ready());
        std::thread::sleep(Duration::from_millis(100));
        mysql.resume().and_then(|()| waiter.join().expect("the waiter does not panic"))
    })?;
    ensure!(mysql.is_ready());

    // Another handle on the same folder finds the server. What it does is visible in the first handle.
    let other = Mysql::attach(mysql.dir())?.context("no state file")?;
    ensure!(other.pid() == mysql.pid());
    other.stop()?;
    ensure!(mysql.condition() == Condition::Down);
    other.restart()?;
    ensure!(mysql.is_ready() && mysql.pid() == other.pid());

    let dir = mysql.dir().to_owned();
    drop(mysql);
    ensure!(!dir.exists() && other.pid().is_none());
    Ok(())
}

#[test]
fn a_paused_mysql_can_be_stopped() -> Result<()> {
    let mysql = Mysql::ephemeral(&MysqlOptions::default())?;
    mysql.pause()?;
    mysql.stop()?;
    ensure!(mysql.condition() == Condition::Down);
    ensure!(mysql.log_tail(5).contains("Shutdown complete"), "{}", mysql.log_tail(30));
    Ok(())
}

#[test]
fn an_argument_mysql_does_not_know_is_in_the_error() {
    let options = MysqlOptions { extra_args: vec!["--no-such-option=1".to_owned()] };
    let error = format!("{:#}", Mysql::ephemeral(&options).expect_err("mysqld must refuse the argument"));
    assert!(error.starts_with("MySQL is not running (exit status: "), "{error}");
    assert!(error.contains("unknown variable 'no-such-option=1'"), "{error}");
}

#[test]
fn a_failed_initialisation_shows_its_log() {
    let options = MysqlOptions { extra_args: vec!["--innodb_data_file_path=nonsense".to_owned()] };
    let error = format!("{:#}", Mysql::ephemeral(&options).expect_err("mysqld must refuse the path"));
    assert!(error.starts_with("MySQL cannot initialise a data folder (exit status: "), "{error}");
    assert!(error.contains("initialize.log:"), "{error}");
    assert!(error.contains("[ERROR]"), "{error}");
}
