//! Target tables in Cassandra and their CQL types.

use std::fmt;
use std::str::FromStr;

/// The CQL types that Tandem writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the variants are CQL's own names
pub enum CqlType {
    Tinyint,
    Smallint,
    Int,
    Bigint,
    Varint,
    Float,
    Double,
    Decimal,
    Text,
    Blob,
    Date,
    Timestamp,
}

impl CqlType {
    const ALL: [(Self, &'static str); 12] = [
        (Self::Tinyint, "tinyint"),
        (Self::Smallint, "smallint"),
        (Self::Int, "int"),
        (Self::Bigint, "bigint"),
        (Self::Varint, "varint"),
        (Self::Float, "float"),
        (Self::Double, "double"),
        (Self::Decimal, "decimal"),
        (Self::Text, "text"),
        (Self::Blob, "blob"),
        (Self::Date, "date"),
        (Self::Timestamp, "timestamp"),
    ];

    /// The type's name in CQL.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(t, _)| *t == self).map_or("", |(_, n)| n)
    }
}

impl fmt::Display for CqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CqlType {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let s = if s == "varchar" { "text" } else { s };
        Self::ALL
            .iter()
            .find(|(_, n)| *n == s)
            .map(|(t, _)| *t)
            .ok_or_else(|| format!("CQL type `{s}` is not one that Tandem writes"))
    }
}

/// The sort order of a clustering column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusteringOrder {
    /// `ASC`.
    Ascending,
    /// `DESC`.
    Descending,
}

/// A column of a target table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CqlColumn {
    /// The column's name. Its case is significant: CQL writes it in double quotes.
    pub name: String,
    /// The column's type.
    pub ty: CqlType,
}

/// A Cassandra table as the mapping defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTable {
    /// The table's name within the keyspace. Its case is significant.
    pub name: String,
    /// The partition key.
    pub partition_key: Vec<CqlColumn>,
    /// The clustering columns with their sort orders.
    pub clustering: Vec<(CqlColumn, ClusteringOrder)>,
    /// All other columns.
    pub regular: Vec<CqlColumn>,
}

impl TargetTable {
    /// The columns of a [`crate::TargetKey`]: the partition key, then the clustering columns.
    pub fn key_columns(&self) -> impl Iterator<Item = &CqlColumn> {
        self.partition_key.iter().chain(self.clustering.iter().map(|(c, _)| c))
    }

    /// The number of columns in the primary key.
    pub fn key_len(&self) -> usize {
        self.partition_key.len() + self.clustering.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_their_names_in_cql() {
        for (ty, name) in CqlType::ALL {
            assert_eq!((ty.name(), ty.to_string().as_str(), name.parse()), (name, name, Ok(ty)));
        }
        assert_eq!((CqlType::Bigint.name(), CqlType::Blob.name()), ("bigint", "blob"));
        assert_eq!("varchar".parse(), Ok(CqlType::Text));
        assert!("counter".parse::<CqlType>().is_err());
    }

    #[test]
    fn the_key_is_the_partition_key_and_the_clustering_columns() {
        let column = |name: &str| CqlColumn { name: name.into(), ty: CqlType::Int };
        let table = TargetTable {
            name: "t".into(),
            partition_key: vec![column("a"), column("b")],
            clustering: vec![(column("c"), ClusteringOrder::Descending)],
            regular: vec![column("d")],
        };
        let names: Vec<&str> = table.key_columns().map(|c| c.name.as_str()).collect();
        assert_eq!((names, table.key_len()), (vec!["a", "b", "c"], 3));
    }
}
