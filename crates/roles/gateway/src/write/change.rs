//! Row changes: what a request asks for, and how it is executed in a transaction.

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::Value as Json;
use tandem_http_api::Problem;
use tandem_model::{ColumnType, Row, Value};
use tandem_mysql::{ClientTransaction, MysqlError};

use crate::entity::{ETag, Entity};
use crate::http::auth::Access;
use crate::problem;

/// Column indexes and their values.
pub(crate) type Values = Vec<(usize, Value)>;

/// The change that a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Inserts a row. Columns that are not named take their defaults.
    Insert(Values),
    /// Replaces the row with this key. Columns that are not named get their defaults, except for columns that
    /// clients do not see: those keep their values.
    Put(Vec<Value>, Values),
    /// Changes the named columns of the row with this key.
    Patch(Vec<Value>, Values),
    /// Deletes the row with this key.
    Delete(Vec<Value>),
}

impl Action {
    /// The name in metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Insert(_) => "insert",
            Self::Put(..) => "put",
            Self::Patch(..) => "patch",
            Self::Delete(_) => "delete",
        }
    }
}

/// The state that the row must be in before the change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    /// `If-Match`: the row has one of these tags. `*` matches any row.
    pub(crate) matches: Option<Vec<ETag>>,
    /// `If-None-Match: *`: the row does not exist.
    pub(crate) absent: bool,
}

impl Condition {
    /// Parses the headers.
    pub(crate) fn parse(if_match: Option<&str>, if_none_match: Option<&str>) -> Result<Self, Problem> {
        let matches = if_match.map(|text| text.split(',').map(|tag| tag.trim().to_owned()).collect());
        match if_none_match.map(str::trim) {
            None => Ok(Self { matches, absent: false }),
            Some("*") => Ok(Self { matches, absent: true }),
            Some(_) => Err(Problem::bad_request("writes support only `*` in If-None-Match")),
        }
    }

    fn check(&self, entity: &Entity, row: Option<&Row>) -> Result<(), Problem> {
        if self.absent && row.is_some() {
            return Err(problem::precondition("the row already exists"));
        }
        let Some(matches) = &self.matches else { return Ok(()) };
        let is = row.map(|row| entity.etag(row));
        let holds = is.is_some_and(|is| matches.iter().any(|tag| tag == "*" || *tag == is));
        if holds { Ok(()) } else { Err(problem::precondition("the row does not match If-Match")) }
    }
}

/// A change of one row, as requested.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) entity: Arc<Entity>,
    pub(crate) action: Action,
    pub(crate) condition: Condition,
    /// Whether the caller may write the entity but not read it. The answer then shows neither the row nor whether it
    /// existed. Only a write that was not done says why.
    pub(crate) blind: bool,
}

/// A change of one row that is executed but not committed yet.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) entity: Arc<Entity>,
    pub(crate) key: Vec<Value>,
    pub(crate) before: Option<Row>,
    pub(crate) after: Option<Row>,
    pub(crate) status: StatusCode,
    /// Whether the caller may not read the row.
    pub(crate) blind: bool,
}

impl Done {
    /// The row as the caller may see it.
    pub(crate) fn json(&self) -> Option<Json> {
        self.shown().map(|row| self.entity.json(row))
    }

    pub(crate) fn etag(&self) -> Option<ETag> {
        self.shown().map(|row| self.entity.etag(row))
    }

    fn shown(&self) -> Option<&Row> {
        self.after.as_ref().filter(|_| !self.blind)
    }

    /// Whether there was a row to change.
    pub(crate) fn is_change(&self) -> bool {
        self.before.is_some() || self.after.is_some()
    }
}

/// Why a change was not executed.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The whole transaction can be retried.
    Again(Problem),
    /// A retry would not help.
    Final(Problem),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Final(problem)
    }
}

impl Refused {
    /// Classifies the error of a statement by what it means for the transaction.
    pub(crate) fn by_mysql(error: &MysqlError, late: bool) -> Self {
        let problem = problem::from_mysql(error, late);
        match error {
            // Deadlock: the server has rolled back the transaction.
            MysqlError::Server { code: 1213, .. } => Self::Again(problem),
            _ => Self::Final(problem),
        }
    }
}

impl Change {
    /// Creates the change. A caller that may not read the row may set no condition on it: whether the condition holds
    /// would tell what the row is.
    pub(crate) fn new(
        entity: Arc<Entity>,
        action: Action,
        condition: Condition,
        blind: bool,
    ) -> Result<Self, Problem> {
        if blind && condition != Condition::default() {
            return Err(Problem::forbidden(format!("{}:{}", entity.name, Access::Read)));
        }
        Ok(Self { entity, action, condition, blind })
    }

    /// Executes the change: locks the row, changes it, and reads it back under the lock.
    pub(crate) async fn run(&self, transaction: &mut ClientTransaction) -> Result<Done, Refused> {
        let (entity, table) = (&self.entity, self.entity.table());
        let blind = self.blind;
        let done = |key, before, after, status| {
            // A blind PUT does not tell whether it inserted or replaced.
            let hides = blind && !matches!(self.action, Action::Insert(_));
            let status = if hides { StatusCode::NO_CONTENT } else { status };
            Done { entity: Arc::clone(entity), key, before, after, status, blind }
        };
        match &self.action {
            Action::Insert(values) => {
                self.condition.check(entity, None)?;
                let (key, row) = self.insert(transaction, values).await?;
                Ok(done(key, None, Some(row), StatusCode::CREATED))
            }
            Action::Put(key, values) => {
                let values = self.without_key(key, values)?;
                let before = transaction
                    .lock(table, key)
                    .await
                    .map_err(|e| Refused::by_mysql(&e, transaction.is_late()))?;
                self.condition.check(entity, before.as_ref())?;
                if before.is_some() {
                    let set = self.replacing(values);
                    transaction
                        .update(table, key, &set)
                        .await
                        .map_err(|e| Refused::by_mysql(&e, transaction.is_late()))?;
                    let after = self.read_back(transaction, key).await?;
                    return Ok(done(key.clone(), before, Some(after), StatusCode::OK));
                }
                let mut all: Values = table.primary_key.iter().copied().zip(key.iter().cloned()).collect();
                all.extend(values);
                match self.insert(transaction, &all).await {
                    Ok((key, row)) => Ok(done(key, None, Some(row), StatusCode::CREATED)),
                    // A concurrent request may have inserted the row. The retry then replaces it.
                    Err(Refused::Final(problem)) if problem.status == StatusCode::CONFLICT => {
                        Err(Refused::Again(problem))
                    }
                    Err(refused) => Err(refused),
                }
            }
            Action::Patch(key, values) => {
                let values = self.without_key(key, values)?;
                let Some(before) = self.lock(transaction, key).await? else {
                    return Ok(done(key.clone(), None, None, StatusCode::NO_CONTENT));
                };
                let set: Vec<_> = values.into_iter().map(|(column, value)| (column, Some(value))).collect();
                transaction
                    .update(table, key, &set)
                    .await
                    .map_err(|e| Refused::by_mysql(&e, transaction.is_late()))?;
                let after = self.read_back(transaction, key).await?;
                Ok(done(key.clone(), Some(before), Some(after), StatusCode::OK))
            }
            Action::Delete(key) => {
                let Some(before) = self.lock(transaction, key).await? else {
                    return Ok(done(key.clone(), None, None, StatusCode::NO_CONTENT));
                };
                transaction
                    .delete(table, key)
                    .await
                    .map_err(|e| Refused::by_mysql(&e, transaction.is_late()))?;
                Ok(done(key.clone(), Some(before), None, StatusCode::NO_CONTENT))
            }
        }
    }

    /// Locks the row that must exist. Returns `None` where it does not, and the caller may not learn that.
    async fn lock(&self, transaction: &mut ClientTransaction, key: &[Value]) -> Result<Option<Row>, Refused> {
        let before = transaction
            .lock(self.entity.table(), key)
            .await
            .map_err(|e| Refused::by_mysql(&e, transaction.is_late()))?;
        if before.is_none() && self.blind {
            return Ok(None);
        }
        if before.is_none() && self.condition.matches.is_none() {
            let detail = format!("{} has no row with this key", self.entity.name);
            return Err(Problem::not_found(detail).into());
        }
        self.condition.check(&self.entity, before.as_ref())?;
        Ok(Some(before.ok_or_else(|| problem::precondition("the row does not exist"))?))
    }

    async fn read_back(&self, transaction: &mut ClientTransaction, key: &[Value]) -> Result<Row, Refused> {
        let row = transaction
            .lock(self.entity.table(), key)
            .await
            .map_err(|e| Refused::by_mysql(&e, transaction.is_late()))?;
        let gone =
            || problem::internal("the row was not found after it was written: does a trigger move it?");
        Ok(row.ok_or_else(gone)?)
    }

    /// Inserts the row, and reads it back with the key under which MySQL stored it.
    async fn insert(
        &self,
        transaction: &mut ClientTransaction,
        values: &Values,
    ) -> Result<(Vec<Value>, Row), Refused> {
        let (entity, table) = (&self.entity, self.entity.table());
        let given = |column: usize| values.iter().find(|(i, _)| *i == column).map(|(_, value)| value.clone());
        let mut key: Vec<Option<Value>> = table.primary_key.iter().map(|&column| given(column)).collect();
        for (place, &column) in table.primary_key.iter().enumerate() {
            if key[place].is_none() && entity.generated != Some(column) {
                let name = &table.columns[column].name;
                return Err(problem::invalid(name, "it is required: MySQL does not generate it").into());
            }
        }
        let generated = transaction
            .insert(table, values)
            .await
            .map_err(|e| Refused::by_mysql(&e, transaction.is_late()))?;
        for (value, &column) in key.iter_mut().zip(&table.primary_key) {
            // MySQL generates a key if the column is 0 or not given.
            let asks = matches!(value, None | Some(Value::Int(0) | Value::UInt(0)));
            if asks && entity.generated == Some(column) && generated != 0 {
                let unsigned = matches!(table.columns[column].ty, ColumnType::Int { unsigned: true, .. });
                *value = Some(if unsigned { Value::UInt(generated) } else { Value::Int(generated as i64) });
            }
        }
        let key: Option<Vec<Value>> = key.into_iter().collect();
        let key = key.ok_or_else(|| problem::internal("MySQL did not report the key that it generated"))?;
        let row =
            transaction.image(table, &key).await.map_err(|e| Refused::by_mysql(&e, transaction.is_late()))?;
        let row =
            row.ok_or_else(|| problem::internal("the row was not found under its key after the insert"))?;
        Ok((table.key_of(&row), row))
    }

    /// The values without the key. A body may repeat the key but not change it.
    fn without_key(&self, key: &[Value], values: &Values) -> Result<Values, Problem> {
        let table = self.entity.table();
        let mut others = Vec::with_capacity(values.len());
        for (column, value) in values {
            match table.primary_key.iter().position(|i| i == column) {
                None => others.push((*column, value.clone())),
                Some(place) if key[place] == *value => {}
                Some(_) => {
                    let detail = "the key of a row cannot change: delete the row and insert another";
                    return Err(problem::invalid(&table.columns[*column].name, detail));
                }
            }
        }
        Ok(others)
    }

    /// What a PUT sets: its values, and the default of every visible column that it does not name.
    fn replacing(&self, values: Values) -> Vec<(usize, Option<Value>)> {
        let table = self.entity.table();
        let mut set: Vec<(usize, Option<Value>)> =
            values.into_iter().map(|(column, value)| (column, Some(value))).collect();
        for &column in self.entity.visible() {
            let known = set.iter().any(|(named, _)| *named == column);
            if !known && !table.primary_key.contains(&column) {
                set.push((column, None));
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::tests::orders;
    use crate::problem::OfField as _;

    fn change(action: Action) -> Change {
        Change { entity: Arc::new(orders()), action, condition: Condition::default(), blind: false }
    }

    #[test]
    fn a_put_sets_every_visible_column() {
        let null = || Value::Null;
        let put = change(Action::Put(vec![], vec![]));
        assert_eq!(put.replacing(vec![]), [(2, None)]);
        assert_eq!(put.replacing(vec![(2, null()), (3, null())]), [(2, Some(null())), (3, Some(null()))]);
    }

    #[test]
    fn a_blind_change_has_no_condition_and_shows_nothing() {
        let entity = Arc::new(orders());
        let create = |if_match, blind| {
            let condition = Condition::parse(if_match, None).unwrap();
            Change::new(Arc::clone(&entity), Action::Delete(vec![]), condition, blind)
        };
        assert!(create(Some("\"x\""), false).is_ok() && create(None, true).is_ok());
        assert_eq!(create(Some("\"x\""), true).unwrap_err(), Problem::forbidden("orders:read"));
        let done = |blind| Done {
            entity: Arc::clone(&entity),
            key: vec![],
            before: None,
            after: Some(vec![Value::Int(1), Value::Text("a".into()), Value::Null, Value::Null]),
            status: StatusCode::OK,
            blind,
        };
        assert!(done(false).json().is_some() && done(false).etag().is_some());
        assert!(done(true).json().is_none() && done(true).etag().is_none());
    }

    #[test]
    fn a_key_cannot_change() {
        let key = vec![Value::Int(1), Value::Text("a".into())];
        let patch = change(Action::Patch(key.clone(), vec![]));
        let total = (2, Value::Null);
        let same = vec![(0, Value::Int(1)), total.clone()];
        assert_eq!(patch.without_key(&key, &same), Ok(vec![total]));
        let other = patch.without_key(&key, &vec![(1, Value::Text("b".into()))]).unwrap_err();
        assert_eq!(other.field(), Some("region"));
    }

    #[test]
    fn conditions() {
        let entity = orders();
        let row = vec![Value::Int(1), Value::Text("a".into()), Value::Null, Value::Null];
        let tag = entity.etag(&row);
        let holds = |if_match: Option<&str>, if_none: Option<&str>, row: Option<&Row>| {
            Condition::parse(if_match, if_none).unwrap().check(&entity, row).is_ok()
        };
        assert!(holds(None, None, None) && holds(None, None, Some(&row)));
        assert!(holds(Some("*"), None, Some(&row)) && !holds(Some("*"), None, None));
        let list = format!("\"x\", {tag}");
        assert!(holds(Some(&list), None, Some(&row)) && !holds(Some("\"x\""), None, Some(&row)));
        assert!(holds(None, Some("*"), None) && !holds(None, Some("*"), Some(&row)));
        assert!(Condition::parse(None, Some("\"x\"")).is_err());
    }
}
