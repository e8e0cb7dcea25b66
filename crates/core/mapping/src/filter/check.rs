//! The type check of filters.
//!
//! A checked filter cannot fail, whatever the row. The crate `cel` checks nothing before it evaluates, so
//! this check restricts expressions to a subset of CEL:
//!
//! - `&&`, `||`, `!`, `? :` over booleans;
//! - `==` and `!=` between values of one type (int and uint compare by value), and with `null`;
//! - `<`, `<=`, `>`, `>=` between values of one type that are not null;
//! - `in` with a list of values of the same type;
//! - `%` by a positive literal, to select a part of the rows;
//! - `startsWith`, `endsWith`, `contains`, `size`, and `timestamp` of a text literal.
//!
//! A nullable column is allowed in `==`, `!=` and `in`. Elsewhere, the expression itself must guard it.
//! Examples: `amount != null && amount > 5`, and `amount == null || amount > 5`.

use std::collections::BTreeSet;
use std::sync::Arc;

use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use cel::{Context, IdedExpr, Program, Value};
use tandem_model::TableDef;

use super::env::ENV;
use super::form::Form;
use super::problem::FilterProblem;

/// A CEL type that filters support.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ty {
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Null,
}

impl Ty {
    fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "timestamp",
            Self::Null => "null",
        }
    }

    fn of(form: Form) -> Self {
        match form {
            Form::Int => Self::Int,
            Form::Uint => Self::Uint,
            Form::Double => Self::Double,
            Form::Text => Self::String,
            Form::Bytes => Self::Bytes,
            Form::Timestamp | Form::DateTime | Form::Date => Self::Timestamp,
        }
    }

    fn compares_with(self, other: Self) -> bool {
        let whole = |ty| matches!(ty, Self::Int | Self::Uint);
        self == other || whole(self) && whole(other)
    }
}

/// The type of a subexpression.
#[derive(Debug, Clone, Copy)]
struct Typed {
    ty: Ty,
    /// Whether it may be null.
    nullable: bool,
}

/// Columns that are not NULL, by their index in the row.
type NotNull = BTreeSet<usize>;

/// Checks an expression against a table.
pub(super) struct Checker<'a> {
    table: &'a TableDef,
    program: &'a Program,
    /// The columns that the expression uses, by their index in the row.
    pub(super) columns: BTreeSet<usize>,
    /// The problems, each with its position as `line:column`.
    pub(super) problems: Vec<(String, FilterProblem)>,
}

impl<'a> Checker<'a> {
    /// Checks `program` against the columns of `table`.
    pub(super) fn check(program: &'a Program, table: &'a TableDef) -> Self {
        let mut checker = Self { table, program, columns: BTreeSet::new(), problems: Vec::new() };
        let root = program.expression();
        checker.expect(root, &NotNull::new(), &[Ty::Bool], "where");
        checker
    }

    fn add(&mut self, expr: &IdedExpr, problem: FilterProblem) {
        let info = self.program.source_info();
        // The parser's offsets count bytes.
        let offset = info.offset_for(expr.id).map_or(0, |(start, _)| start as usize);
        let before = info.source.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        self.problems.push((format!("{line}:{column}"), problem));
    }

    /// The type of `expr`, given that the columns `known` are not NULL. `None` if there is a problem.
    fn typed(&mut self, expr: &IdedExpr, known: &NotNull) -> Option<Typed> {
        let sure = |ty| Some(Typed { ty, nullable: false });
        match &expr.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => sure(Ty::Bool),
                LiteralValue::Bytes(_) => sure(Ty::Bytes),
                LiteralValue::Double(_) => sure(Ty::Double),
                LiteralValue::Int(_) => sure(Ty::Int),
                LiteralValue::UInt(_) => sure(Ty::Uint),
                LiteralValue::String(_) => sure(Ty::String),
                LiteralValue::Null => Some(Typed { ty: Ty::Null, nullable: true }),
            },
            Expr::Ident(name) => self.column(expr, name, known),
            Expr::Call(call) => self.call(expr, call, known),
            Expr::List(_) => self.unsupported(expr, "a list except after `in`"),
            Expr::Select(_) => self.unsupported(expr, "a field of a value"),
            Expr::Map(_) | Expr::Struct(_) => self.unsupported(expr, "a map or message"),
            Expr::Comprehension(_) | Expr::Unspecified => self.unsupported(expr, "a macro"),
        }
    }

    fn unsupported(&mut self, expr: &IdedExpr, what: impl Into<String>) -> Option<Typed> {
        self.add(expr, FilterProblem::Unsupported { what: what.into() });
        None
    }

    fn column(&mut self, expr: &IdedExpr, name: &str, known: &NotNull) -> Option<Typed> {
        let Some(i) = self.table.column(name) else {
            let columns = self.table.columns.iter().map(|c| c.name.clone()).collect();
            self.add(expr, FilterProblem::UnknownColumn { column: name.to_owned(), columns });
            return None;
        };
        let column = &self.table.columns[i];
        let Some(form) = Form::of(&column.ty) else {
            let (column, ty) = (name.to_owned(), column.ty.clone());
            self.add(expr, FilterProblem::NoForm { column, ty });
            return None;
        };
        self.columns.insert(i);
        Some(Typed { ty: Ty::of(form), nullable: column.nullable && !known.contains(&i) })
    }

    fn call(&mut self, expr: &IdedExpr, call: &CallExpr, known: &NotNull) -> Option<Typed> {
        let bool = Some(Typed { ty: Ty::Bool, nullable: false });
        let name = call.func_name.as_str();
        match (name, call.target.as_deref(), call.args.as_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, None, [left, right]) => {
                let left_fine = self.expect(left, known, &[Ty::Bool], shown(name));
                let reached = with(known, self.facts(left, name == operators::LOGICAL_AND));
                self.expect(right, &reached, &[Ty::Bool], shown(name))?;
                left_fine.and(bool)
            }
            (operators::LOGICAL_NOT, None, [only]) => self.expect(only, known, &[Ty::Bool], "!").and(bool),
            (operators::CONDITIONAL, None, [condition, yes, no]) => {
                self.expect(condition, known, &[Ty::Bool], "?")?;
                let yes_known = with(known, self.facts(condition, true));
                let no_known = with(known, self.facts(condition, false));
                let yes_typed = self.typed(yes, &yes_known);
                let no_typed = self.typed(no, &no_known);
                let (yes_typed, no_typed) = (yes_typed?, no_typed?);
                if yes_typed.ty != no_typed.ty {
                    return self.mixed(expr, "? :", (yes, yes_typed), (no, no_typed));
                }
                Some(Typed { nullable: yes_typed.nullable || no_typed.nullable, ..yes_typed })
            }
            (operators::EQUALS | operators::NOT_EQUALS, None, [left, right]) => {
                let (l, r) = (self.typed(left, known), self.typed(right, known));
                self.same(expr, shown(name), (left, l?), (right, r?))?;
                bool
            }
            (
                operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
                None,
                [left, right],
            ) => {
                let ordered = [Ty::Int, Ty::Uint, Ty::Double, Ty::String, Ty::Bytes, Ty::Timestamp];
                let l = self.expect(left, known, &ordered, shown(name));
                let r = self.expect(right, known, &ordered, shown(name));
                self.same(expr, shown(name), (left, l?), (right, r?))?;
                bool
            }
            (operators::IN, None, [value, IdedExpr { expr: Expr::List(list), .. }]) => {
                let typed = self.typed(value, known);
                for element in &list.elements {
                    let element_typed = self.typed(element, known)?;
                    self.same(element, "in", (value, typed?), (element, element_typed))?;
                }
                typed.and(bool)
            }
            (operators::IN, None, _) => self.unsupported(expr, "`in` without a list in brackets"),
            (operators::MODULO, None, [left, right]) => {
                let typed = self.expect(left, known, &[Ty::Int, Ty::Uint], "%")?;
                let by = self.typed(right, known)?;
                if typed.ty != by.ty {
                    return self.mixed(expr, "%", (left, typed), (right, by));
                }
                match &right.expr {
                    Expr::Literal(LiteralValue::Int(n)) if *n.inner() > 0 => Some(typed),
                    Expr::Literal(LiteralValue::UInt(n)) if *n.inner() > 0 => Some(typed),
                    _ => self.unsupported(right, "`%` by anything but a positive number"),
                }
            }
            ("startsWith" | "endsWith" | "contains", Some(target), [part]) => {
                let text = self.expect(target, known, &[Ty::String], name);
                self.expect(part, known, &[Ty::String], name)?;
                text.and(bool)
            }
            ("size", Some(of), []) | ("size", None, [of]) => {
                self.expect(of, known, &[Ty::String, Ty::Bytes], name)?;
                Some(Typed { ty: Ty::Int, nullable: false })
            }
            ("timestamp", None, [text]) => self.timestamp(expr, text),
            (
                operators::ADD
                | operators::SUBSTRACT
                | operators::MULTIPLY
                | operators::DIVIDE
                | operators::NEGATE,
                ..,
            ) => self.unsupported(expr, "arithmetic, which can overflow"),
            _ => self.unsupported(expr, format!("`{}`", shown(name))),
        }
    }

    /// Checks a timestamp literal by evaluating it.
    fn timestamp(&mut self, expr: &IdedExpr, text: &IdedExpr) -> Option<Typed> {
        let Expr::Literal(LiteralValue::String(_)) = &text.expr else {
            return self.unsupported(expr, "`timestamp` of anything but a text literal");
        };
        let value = Value::resolve(expr, &Context::with_env(Arc::clone(&ENV)));
        if matches!(value, Ok(Value::Timestamp(_))) {
            return Some(Typed { ty: Ty::Timestamp, nullable: false });
        }
        self.add(text, FilterProblem::BadTimestamp);
        None
    }

    /// The type of `expr`. It must be one of `wanted` and must not be null.
    fn expect(&mut self, expr: &IdedExpr, known: &NotNull, wanted: &[Ty], operator: &str) -> Option<Typed> {
        let typed = self.typed(expr, known)?;
        let operator = operator.to_owned();
        if !wanted.contains(&typed.ty) {
            let wanted = wanted.iter().map(|ty| ty.name()).collect::<Vec<_>>().join(", ");
            let found = self.describe(expr, typed);
            self.add(expr, FilterProblem::WrongType { operator, wanted, found });
            return None;
        }
        if typed.nullable {
            let found = self.describe(expr, typed);
            self.add(expr, FilterProblem::MayBeNull { operator, found });
            return None;
        }
        Some(typed)
    }

    /// Checks that both sides have the same type, or that one of them is null.
    fn same(
        &mut self,
        expr: &IdedExpr,
        operator: &str,
        left: (&IdedExpr, Typed),
        right: (&IdedExpr, Typed),
    ) -> Option<()> {
        let (l, r) = (left.1.ty, right.1.ty);
        if l.compares_with(r) || l == Ty::Null || r == Ty::Null {
            Some(())
        } else {
            self.mixed(expr, operator, left, right).map(|_| ())
        }
    }

    fn mixed(
        &mut self,
        expr: &IdedExpr,
        operator: &str,
        (left, left_typed): (&IdedExpr, Typed),
        (right, right_typed): (&IdedExpr, Typed),
    ) -> Option<Typed> {
        let problem = FilterProblem::Mixed {
            operator: operator.to_owned(),
            left: self.describe(left, left_typed),
            right: self.describe(right, right_typed),
        };
        self.add(expr, problem);
        None
    }

    /// Describes a subexpression in a message: its type and, for a column, its type in MySQL.
    fn describe(&self, expr: &IdedExpr, typed: Typed) -> String {
        let column = match &expr.expr {
            Expr::Ident(name) => self.table.column(name),
            _ => None,
        };
        match column.map(|i| &self.table.columns[i]) {
            Some(column) => format!("column `{}` ({}, {} in CEL)", column.name, column.ty, typed.ty.name()),
            None if typed.ty == Ty::Null => "null".to_owned(),
            None => format!("a value of type {}", typed.ty.name()),
        }
    }

    /// The columns that cannot be NULL when `expr` is `truth`.
    fn facts(&self, expr: &IdedExpr, truth: bool) -> NotNull {
        let Expr::Call(call) = &expr.expr else { return NotNull::new() };
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_NOT, [only]) => self.facts(only, !truth),
            (name @ (operators::LOGICAL_AND | operators::LOGICAL_OR), [left, right]) => {
                let (left, right) = (self.facts(left, truth), self.facts(right, truth));
                if (name == operators::LOGICAL_AND) == truth { &left | &right } else { &left & &right }
            }
            (name @ (operators::EQUALS | operators::NOT_EQUALS), [left, right]) => {
                let equal = (name == operators::EQUALS) == truth;
                let one_way = |column: &IdedExpr, value: &IdedExpr| {
                    let Expr::Literal(literal) = &value.expr else { return None };
                    // The column differs from null, or equals a value that is not null.
                    self.column_at(column).filter(|_| (*literal == LiteralValue::Null) != equal)
                };
                one_way(left, right).or_else(|| one_way(right, left)).into_iter().collect()
            }
            (operators::IN, [value, IdedExpr { expr: Expr::List(list), .. }]) if truth => {
                let some = |e: &IdedExpr| matches!(&e.expr, Expr::Literal(literal) if *literal != LiteralValue::Null);
                self.column_at(value).filter(|_| list.elements.iter().all(some)).into_iter().collect()
            }
            _ => NotNull::new(),
        }
    }

    fn column_at(&self, expr: &IdedExpr) -> Option<usize> {
        match &expr.expr {
            Expr::Ident(name) => self.table.column(name),
            _ => None,
        }
    }
}

fn with(known: &NotNull, more: NotNull) -> NotNull {
    known.iter().copied().chain(more).collect()
}

/// An operator in source form. For example, `_==_` becomes `==`.
fn shown(name: &str) -> &str {
    name.trim_matches('_')
}
