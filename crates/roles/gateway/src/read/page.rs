//! Lists: the rows of one partition of a target table, page by page, the same from either store.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use tandem_cassandra::Slice;
use tandem_http_api::Problem;
use tandem_mapping::RowError;
use tandem_model::{ClusteringOrder, Row, Value};
use tandem_mysql::{Bound, PartitionRead};

use crate::entity::Entity;
use crate::entity::json::{from_text, text_of};
use crate::problem::OfField as _;

/// Rows of a page: the default without `limit`, and the maximum.
const ROWS: (usize, usize) = (100, 1000);

/// A requested page of a list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Page {
    /// The target's index.
    pub(crate) target: usize,
    /// The values of the partition key, followed by those of leading clustering columns.
    equal: Vec<Value>,
    lower: Option<Bound>,
    upper: Option<Bound>,
    /// The clustering values of the last row of the previous page.
    after: Option<Vec<Value>>,
    /// The number of rows in the page.
    pub(crate) limit: usize,
}

impl Page {
    /// Parses a query: `target`, `limit`, `page`, columns by value, and bounds of one clustering column by
    /// `NAME.gt`, `NAME.gte`, `NAME.lt`, `NAME.lte`.
    pub(crate) fn parse(entity: &Entity, query: &str) -> Result<Self, Problem> {
        let (mut name, mut page, mut limit) = (None, None, ROWS.0);
        let mut columns: Vec<(String, String)> = Vec::new();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "target" => name = Some(value),
                "page" => page = Some(value),
                "limit" => {
                    limit = value.parse().ok().filter(|n| (1..=ROWS.1).contains(n)).ok_or_else(|| {
                        Problem::bad_request(format!("limit must be from 1 to {}", ROWS.1)).of_field("limit")
                    })?;
                }
                _ => columns.push((key.into_owned(), value.into_owned())),
            }
        }
        let targets = entity.plan.targets();
        let names = || targets.iter().map(|t| t.table().name.as_str()).collect::<Vec<_>>().join(", ");
        let target = match (&name, targets) {
            (None, [_]) => Some(0),
            (None, _) => None,
            (Some(name), _) => targets.iter().position(|t| t.table().name == **name),
        };
        let target = target.ok_or_else(|| {
            Problem::bad_request(format!("name a target of {}: {}", entity.name, names())).of_field("target")
        })?;
        if targets[target].is_filtered() {
            let detail = "a filter excludes rows from this target, so it cannot list all rows";
            return Err(Problem::bad_request(detail).of_field("target"));
        }
        let mut page = Self { target, equal: vec![], lower: None, upper: None, after: None, limit }
            .with_page(entity, page.as_deref())?;
        page.take_columns(entity, columns)?;
        Ok(page)
    }

    fn take_columns(&mut self, entity: &Entity, mut columns: Vec<(String, String)>) -> Result<(), Problem> {
        let plan = &entity.plan.targets()[self.target];
        let table = entity.table();
        let mut take = |name: &str| {
            let at = columns.iter().position(|(given, _)| given == name)?;
            Some(columns.swap_remove(at).1)
        };
        for (place, &column) in plan.key_columns().iter().enumerate() {
            let column = &table.columns[column];
            if let Some(text) = take(&column.name) {
                self.equal.push(from_text(column, &text)?);
            } else if place < plan.table().partition_key.len() {
                let detail = "the list of a target needs every column of its partition key";
                return Err(Problem::bad_request(detail).of_field(&column.name));
            } else {
                break;
            }
        }
        if let Some(&column) = plan.key_columns().get(self.equal.len()) {
            let column = &table.columns[column];
            let mut bound = |suffix: &str, inclusive| {
                let text = take(&format!("{}.{suffix}", column.name));
                text.map(|text| Ok(Bound { value: from_text(column, &text)?, inclusive })).transpose()
            };
            let (gt, gte) = (bound("gt", false)?, bound("gte", true)?);
            let (lt, lte) = (bound("lt", false)?, bound("lte", true)?);
            if gt.is_some() && gte.is_some() || lt.is_some() && lte.is_some() {
                let detail = "a range has at most one lower and one upper bound";
                return Err(Problem::bad_request(detail).of_field(&column.name));
            }
            (self.lower, self.upper) = (gt.or(gte), lt.or(lte));
        }
        match columns.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::bad_request(
                "it is neither the next column of the target's key nor a bound of that column",
            )
            .of_field(name)),
        }
    }

    /// The clustering columns: the source column, and whether the order is descending.
    fn order(&self, entity: &Entity) -> Vec<(usize, bool)> {
        let target = &entity.plan.targets()[self.target];
        let clustering = &target.key_columns()[target.table().partition_key.len()..];
        let orders = target.table().clustering.iter().map(|(_, order)| *order == ClusteringOrder::Descending);
        clustering.iter().copied().zip(orders).collect()
    }

    fn with_page(mut self, entity: &Entity, page: Option<&str>) -> Result<Self, Problem> {
        let Some(page) = page else { return Ok(self) };
        let bad = || Problem::bad_request("the page is not one that a response returned").of_field("page");
        let bytes = BASE64.decode(page).map_err(|_| bad())?;
        let texts: Vec<String> = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        let order = self.order(entity);
        if texts.len() != order.len() {
            return Err(bad());
        }
        let columns = &entity.table().columns;
        let values = texts.iter().zip(&order).map(|(text, (i, _))| from_text(&columns[*i], text));
        self.after = Some(values.collect::<Result<_, _>>().map_err(|_| bad())?);
        Ok(self)
    }

    /// The token of the page that follows a page with the last row `last`.
    pub(crate) fn next(&self, entity: &Entity, last: &Row) -> String {
        let columns = &entity.table().columns;
        let texts: Vec<String> =
            self.order(entity).iter().map(|(i, _)| text_of(&columns[*i].ty, &last[*i])).collect();
        BASE64.encode(serde_json::json!(texts).to_string())
    }

    /// The columns that the target stores, in the table's order.
    pub(crate) fn shown(&self, entity: &Entity) -> Vec<usize> {
        let mut shown: Vec<usize> = entity.plan.targets()[self.target].columns().collect();
        shown.sort_unstable();
        shown
    }

    /// The columns that the request gives by value.
    pub(crate) fn facts<'a>(&'a self, entity: &'a Entity) -> impl Iterator<Item = (usize, &'a Value)> {
        entity.plan.targets()[self.target].key_columns().iter().copied().zip(&self.equal)
    }

    /// The read for MySQL. It asks for one row more than the page has, to see whether another page follows.
    pub(crate) fn mysql(&self, entity: &Entity) -> PartitionRead {
        let keys = entity.plan.targets()[self.target].key_columns();
        let range = keys.get(self.equal.len()).filter(|_| self.lower.is_some() || self.upper.is_some());
        PartitionRead {
            equal: keys.iter().copied().zip(self.equal.iter().cloned()).collect(),
            range: range.map(|&column| (column, self.lower.clone(), self.upper.clone())),
            order: self.order(entity),
            after: self.after.clone(),
            limit: self.limit + 1,
        }
    }

    /// The reads for Cassandra, made in this order until there are enough rows.
    ///
    /// With several clustering columns, the rows after a given row are not a single range. They are the rest of
    /// the innermost range, then the rest of the next outer range, and so on.
    pub(crate) fn slices(&self, entity: &Entity) -> Result<Vec<Slice>, RowError> {
        let target = &entity.plan.targets()[self.target];
        let (keys, partition) = (target.key_columns(), target.table().partition_key.len());
        let stored = |place: usize, value: &Value| entity.plan.stored(keys[place], value);
        let bound = |bound: &Option<Bound>| {
            let at = self.equal.len();
            bound.as_ref().map(|b| Ok((stored(at, &b.value)?, b.inclusive))).transpose()
        };
        let (lower, upper) = (bound(&self.lower)?, bound(&self.upper)?);
        let equal: Vec<Vec<u8>> =
            self.equal.iter().enumerate().map(|(i, value)| stored(i, value)).collect::<Result<_, _>>()?;
        let limit = self.limit as i32 + 1;
        let Some(after) = &self.after else { return Ok(vec![Slice { equal, lower, upper, limit }]) };
        let order = self.order(entity);
        // The last row is outside the requested range, so no rows follow.
        if self.equal[partition..].iter().zip(after).any(|(asked, last)| asked != last) {
            return Ok(Vec::new());
        }
        let mut slices = Vec::new();
        for place in (self.equal.len()..keys.len()).rev() {
            let level = place - partition;
            let mut slice = Slice { equal: equal.clone(), limit, ..Slice::default() };
            for (i, value) in after[..level].iter().enumerate().skip(self.equal.len() - partition) {
                slice.equal.push(stored(partition + i, value)?);
            }
            if place == self.equal.len() {
                (slice.lower, slice.upper) = (lower.clone(), upper.clone());
            }
            let beyond = Some((stored(place, &after[level])?, false));
            if order[level].1 {
                slice.upper = beyond;
            } else {
                slice.lower = beyond;
            }
            slices.push(slice);
        }
        Ok(slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tandem_mapping::{TablePlan, TargetConfig, same_shape};
    use tandem_model::{ColumnDef, TableDef, TableName};
    use tandem_wire::log::Topics;

    /// `(a, b, c, d)`, all INT, in the target `t`: partition `a`, clustering `b desc, c, d`.
    fn entity() -> Entity {
        filtered(None)
    }

    fn filtered(filter: Option<&str>) -> Entity {
        let column =
            |name: &str| ColumnDef { name: name.into(), ty: "int".parse().unwrap(), nullable: false };
        let table = TableDef {
            name: TableName::new("d", "t"),
            columns: ["a", "b", "c", "d"].map(column).to_vec(),
            primary_key: vec![3],
        };
        let mut config = same_shape(&table);
        config.target = vec![TargetConfig {
            table: "t".into(),
            partition_key: vec!["a".into()],
            clustering_key: vec!["b desc".into(), "c".into(), "d".into()],
            r#where: filter.map(str::to_owned),
            ..TargetConfig::default()
        }];
        let plan = TablePlan::compile(&config, &Arc::new(table)).unwrap();
        Entity::new(None, Arc::new(plan), &Topics::new("t"), None)
    }

    fn int(n: i32) -> Vec<u8> {
        n.to_be_bytes().to_vec()
    }

    fn row(values: [i64; 4]) -> Row {
        values.map(Value::Int).to_vec()
    }

    #[test]
    fn a_target_that_lacks_rows_is_not_listed() {
        let refused = Page::parse(&filtered(Some("c > 1")), "target=t&a=1").unwrap_err();
        assert_eq!(refused.field(), Some("target"));
    }

    #[test]
    fn the_ranges_after_a_row_go_from_the_innermost_outwards() {
        let entity = entity();
        let first = Page::parse(&entity, "target=t&a=1&b.gte=2&b.lt=9&limit=3").unwrap();
        let whole = Slice {
            equal: vec![int(1)],
            lower: Some((int(2), true)),
            upper: Some((int(9), false)),
            limit: 4,
        };
        assert_eq!(first.slices(&entity), Ok(vec![whole.clone()]));
        let next = first.next(&entity, &row([1, 5, 6, 7]));
        let second = Page::parse(&entity, &format!("a=1&b.gte=2&b.lt=9&limit=3&page={next}")).unwrap();
        let beyond = |equal: &[i32], from: i32| Slice {
            equal: equal.iter().copied().map(int).collect(),
            lower: Some((int(from), false)),
            upper: None,
            limit: 4,
        };
        let outer = Slice { upper: Some((int(5), false)), ..whole };
        assert_eq!(second.slices(&entity), Ok(vec![beyond(&[1, 5, 6], 7), beyond(&[1, 5], 6), outer]));
        let read = second.mysql(&entity);
        assert_eq!(read.order, [(1, true), (2, false), (3, false)]);
        assert_eq!((read.after, read.limit), (Some(row([0, 5, 6, 7])[1..].to_vec()), 4));

        let narrow = Page::parse(&entity, &format!("a=1&b=5&page={next}")).unwrap();
        assert_eq!(narrow.slices(&entity).unwrap().len(), 2);
        let elsewhere = Page::parse(&entity, &format!("a=1&b=4&page={next}")).unwrap();
        assert_eq!(elsewhere.slices(&entity), Ok(vec![]));
    }

    #[test]
    fn queries_outside_one_partition_are_rejected() {
        let entity = entity();
        for (query, field) in [
            ("", "a"),
            ("b=1", "a"),
            ("target=x&a=1", "target"),
            ("a=1&c=1", "c"),
            ("a=1&c.gt=1", "c.gt"),
            ("a=1&b.gt=1&b.gte=1", "b"),
            ("a=1&b.gt=1&c=1", "c"),
            ("a=x", "a"),
            ("a=1&a=2", "a"),
            ("a=1&limit=0", "limit"),
            ("a=1&limit=1001", "limit"),
            ("a=1&page=!", "page"),
            ("a=1&page=W10", "page"),
            ("a=1&nope=1", "nope"),
        ] {
            assert_eq!(Page::parse(&entity, query).unwrap_err().field(), Some(field), "{query}");
        }
    }
}
