//! The body of `POST /v1/batch`.

use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use tandem_http_api::Problem;

use crate::body::{self, Bounded, Object};
use crate::entity::Entity;
use crate::problem::OfField;
use crate::write::change::{Action, Change, Condition};

/// Operations in a batch at most.
const OPERATIONS: usize = 100;
/// Parts of a key at most: MySQL's limit for the columns of a primary key.
const KEY_PARTS: usize = 16;

/// The changes that a batch requests. A problem names the operation by its index.
///
/// `entity` finds the entity of an operation, and says whether the caller may write but not read it. Values are parsed
/// only for a caller that may write them.
pub(crate) fn changes(
    body: &[u8],
    entity: impl Fn(&str) -> Result<(Arc<Entity>, bool), Problem>,
) -> Result<Vec<Change>, Problem> {
    let Batch { operations: Bounded(operations) } = body::parse(body)?;
    if operations.is_empty() {
        return Err(Problem::bad_request(format!("a batch has 1 to {OPERATIONS} operations")));
    }
    let changes = operations.into_iter().enumerate().map(|(place, operation)| {
        let entity = entity(&operation.entity);
        let change = entity.and_then(|(entity, blind)| operation.change(entity, blind));
        change.map_err(|problem| problem.at(place))
    });
    changes.collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    operations: Bounded<Operation, OPERATIONS>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    op: Op,
    entity: String,
    /// The parts of the key in the order of the path, without percent-encoding.
    #[serde(default)]
    key: Bounded<String, KEY_PARTS>,
    #[serde(default)]
    values: Object,
    if_match: Option<String>,
    if_none_match: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Insert,
    Put,
    Patch,
    Delete,
}

impl Operation {
    fn change(self, entity: Arc<Entity>, blind: bool) -> Result<Change, Problem> {
        let condition = Condition::parse(self.if_match.as_deref(), self.if_none_match.as_deref())?;
        let values = entity.parse_values(&self.values).map_err(OfField::of_values)?;
        let encoded: Vec<String> =
            self.key.0.iter().map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string()).collect();
        let key = || entity.parse_key(encoded.iter().map(String::as_str)).map_err(|p| p.of_field("key"));
        let action = match self.op {
            Op::Insert if self.key.0.is_empty() => Action::Insert(values),
            Op::Insert => {
                return Err(Problem::bad_request("an insert names its key in `values`").of_field("key"));
            }
            Op::Put => Action::Put(key()?, values),
            Op::Patch => Action::Patch(key()?, values),
            Op::Delete => Action::Delete(key()?),
        };
        Change::new(entity, action, condition, blind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::Value;

    fn of(body: &str) -> Result<Vec<Change>, Problem> {
        let orders = Arc::new(crate::entity::tests::orders());
        let one = |name: &str| (name == "orders").then(|| (Arc::clone(&orders), false));
        let unknown = || Problem::not_found("no entity has this name").of_field("entity");
        changes(body.as_bytes(), |name| one(name).ok_or_else(unknown))
    }

    #[test]
    fn keys_are_not_percent_encoded_and_keep_their_order() {
        let body = r#"{"operations": [{"op": "delete", "entity": "orders", "key": ["7", "a/%2F"]}]}"#;
        let key = vec![Value::Int(7), Value::Text("a/%2F".into())];
        assert_eq!(of(body).unwrap()[0].action, Action::Delete(key));
    }

    #[test]
    fn values_are_parsed_only_for_a_caller_that_may_write_them() {
        let body = r#"{"operations": [{"op": "insert", "entity": "orders", "values": {"id": "no number"}}]}"#;
        let refused = changes(body.as_bytes(), |_| Err(Problem::forbidden("orders:write"))).unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.field()), (403, Some("/operations/0")));
    }

    #[test]
    fn the_invalid_operation_is_named() {
        for (operation, field) in [
            (r#"{"op": "insert", "entity": "nope"}"#, "entity"),
            (r#"{"op": "insert", "entity": "orders", "key": ["7", "a"]}"#, "key"),
            (r#"{"op": "patch", "entity": "orders", "key": ["7"]}"#, "key"),
            (r#"{"op": "insert", "entity": "orders", "values": {"id": "x"}}"#, "values/id"),
        ] {
            let body = format!(r#"{{"operations": [{operation}]}}"#);
            let found = of(&body).unwrap_err();
            assert_eq!(found.field(), Some(format!("/operations/0/{field}").as_str()));
        }
        let many = vec![r#"{"op": "insert", "entity": "orders"}"#; OPERATIONS + 1].join(",");
        for bad in [
            "[]",
            &format!("[{many}]"),
            r#"[{"op": "drop", "entity": "orders"}]"#,
            r#"[{"op": "put", "entity": "orders", "if_macth": "x"}]"#,
        ] {
            assert_eq!(of(&format!(r#"{{"operations": {bad}}}"#)).unwrap_err().status.as_u16(), 400);
        }
    }
}
