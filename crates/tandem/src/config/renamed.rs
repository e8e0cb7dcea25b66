//! Renamed keys. A file that uses an old key is rejected with the new name, because a key that is ignored would be a
//! setting that silently does nothing.

use anyhow::{Result, bail};
use toml::{Table, Value};

/// Old and new names. `*` stands for each element of an array of tables, or for each key of a table.
const RENAMED: &[(&str, &str)] = &[
    ("kafka.replication", "kafka.replication_factor"),
    ("verify.watermark_patience_seconds", "kafka.watermark_timeout_seconds"),
    ("capture.delete_tombstones", "capture.tombstones_on_delete"),
    ("gateway.max_behind", "gateway.max_async_dual_writes"),
    ("controller.dwell_seconds", "controller.soak_seconds"),
    ("controller.step_back", "controller.rollback"),
    ("table.*.exclude_columns", "exclude_from_capture"),
    ("table.*.target.*.omit", "exclude_from_target"),
];

/// Keys that are gone, and why they are not needed any more.
const GONE: &[(&str, &str)] = &[
    ("controller.gateways", "gateways and capture announce themselves on Kafka"),
    ("controller.metric_names", "gateways and capture announce what they count on Kafka"),
];

/// Rejects a file that uses an old key.
///
/// # Errors
///
/// Names the first old key and its new name, or why it is gone. Text that is not TOML passes, because its own error says more.
pub(super) fn refuse(text: &str) -> Result<()> {
    let Ok(file) = text.parse::<Table>() else { return Ok(()) };
    for (old, new) in RENAMED {
        let path: Vec<&str> = old.split('.').collect();
        if has(&Value::Table(file.clone()), &path) {
            let shown = old.replace(".*", "");
            bail!("`{shown}` is now `{new}`: rename it");
        }
    }
    for (old, why) in GONE {
        if has(&Value::Table(file.clone()), &old.split('.').collect::<Vec<_>>()) {
            bail!("`{old}` is gone, because {why}: remove it");
        }
    }
    Ok(())
}

fn has(value: &Value, path: &[&str]) -> bool {
    match (path, value) {
        ([], _) => true,
        (["*", rest @ ..], Value::Array(elements)) => elements.iter().any(|element| has(element, rest)),
        ([key, rest @ ..], Value::Table(table)) => table.get(*key).is_some_and(|value| has(value, rest)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_is_rejected_with_its_new_name() {
        for (text, old, new) in [
            ("[kafka]\nreplication = 3", "kafka.replication", "kafka.replication_factor"),
            ("[verify]\nwatermark_patience_seconds = 3", "verify.watermark_patience_seconds", "kafka."),
            ("[[table]]\nexclude_columns = []", "table.exclude_columns", "exclude_from_capture"),
            ("[[table]]\n[[table.target]]\nomit = []", "table.target.omit", "exclude_from_target"),
            ("[controller.step_back.canary]\na = \"\"", "controller.step_back", "controller.rollback"),
        ] {
            let error = refuse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{old}`")) && error.contains(new), "{error}");
        }
        let gone = refuse("[controller]\ngateways = []").unwrap_err().to_string();
        assert!(gone.contains("`controller.gateways` is gone") && gone.contains("remove it"), "{gone}");
        assert!(refuse("[kafka]\nreplication_factor = 3").is_ok());
        assert!(refuse("no TOML").is_ok());
    }
}
