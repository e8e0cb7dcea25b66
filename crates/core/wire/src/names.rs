//! Avro names for MySQL names.
//!
//! An Avro name matches `[A-Za-z_][A-Za-z0-9_]*` (Avro specification, "Names").

use std::collections::HashSet;

/// Whether the name is a legal Avro name.
pub(crate) fn is_legal(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A legal and unique name for each column, in order.
///
/// Legal names stay. In other names, each illegal character becomes `_`, and a number is appended if the
/// result is already taken.
pub(crate) fn of_columns<'a>(columns: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let mut taken: HashSet<String> = columns.clone().filter(|c| is_legal(c)).map(str::to_owned).collect();
    columns
        .map(|column| {
            if is_legal(column) {
                return column.to_owned();
            }
            let mut plain: String =
                column.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            if !plain.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                plain.insert(0, '_');
            }
            let mut name = plain.clone();
            let mut number = 2u32;
            while !taken.insert(name.clone()) {
                name = format!("{plain}_{number}");
                number += 1;
            }
            name
        })
        .collect()
}

/// A legal namespace component. Each illegal byte becomes `_x` and two hexadecimal digits.
pub(crate) fn of_namespace(component: &str) -> String {
    let mut out = String::with_capacity(component.len());
    for (i, b) in component.bytes().enumerate() {
        if b.is_ascii_alphabetic() || b == b'_' || (b.is_ascii_digit() && i > 0) {
            out.push(char::from(b));
        } else {
            out.push_str("_x");
            for nibble in [b >> 4, b & 15] {
                out.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sanitised_names_are_unique() {
        let columns = ["a-b", "a_b", "a b", "a_b_2", "1st", "naïve", "", "ok"];
        let names = of_columns(columns.iter().copied());
        assert_eq!(names, ["a_b_3", "a_b", "a_b_4", "a_b_2", "_1st", "na_ve", "_", "ok"]);
        assert!(names.iter().all(|n| is_legal(n)));
    }

    #[test]
    fn namespace_components_are_escaped() {
        assert_eq!(of_namespace("shop"), "shop");
        assert_eq!(of_namespace("2024-x"), "_x32024_x2dx");
    }
}
