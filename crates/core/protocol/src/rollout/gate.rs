//! Gates: conditions in CEL over the measurements.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::common::ast::Expr;
use cel::{Context, Env, ExecutionError, IdedExpr, Program, Value};
use tandem_model::Disposition;

use crate::rollout::measurement::{Measured, Measurements, NAMES, Named, named};

/// The CEL environment of gates: the standard functions, without macros and optional values.
static ENV: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

/// A gate that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gate `{name}` ({expression}): {cause}")]
pub struct GateError {
    /// The gate's name.
    pub name: String,
    /// The expression as configured.
    pub expression: String,
    /// Why it cannot be used.
    pub cause: String,
}

impl GateError {
    /// Somebody must correct the expression.
    pub fn retry(&self) -> Disposition {
        Disposition::Stop
    }
}

/// A condition over measurements that must be true before a transition.
#[derive(Clone)]
pub struct Gate {
    name: String,
    expression: String,
    program: Arc<Program>,
    /// The measurements that it uses.
    uses: Vec<&'static Named>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("name", &self.name)
            .field("expression", &self.expression)
            .finish_non_exhaustive()
    }
}

/// The result of evaluating a gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The gate's name.
    pub name: String,
    /// The expression as configured.
    pub expression: String,
    /// Whether the condition is true. It is false if a measurement that it uses is missing.
    pub met: bool,
    /// The measurements that it uses: each a value, or the reason why there is none.
    pub numbers: Vec<(&'static str, Result<Measured, String>)>,
    /// Why the expression could not be evaluated, if it could not.
    pub problem: Option<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.expression)?;
        let numbers = self.numbers.iter().map(|(name, value)| match value {
            Ok(value) => format!("{name} = {value}"),
            Err(why) => format!("{name} is not measured: {why}"),
        });
        let all: Vec<String> = numbers.chain(self.problem.clone()).collect();
        if all.is_empty() { Ok(()) } else { write!(f, " ({})", all.join(", ")) }
    }
}

impl Gate {
    /// Compiles an expression, and evaluates it once with placeholder values.
    ///
    /// # Errors
    ///
    /// The text is not CEL, uses an unknown measurement or function, mixes types, or does not yield a
    /// boolean.
    pub fn compile(name: &str, expression: &str) -> Result<Self, GateError> {
        let refused =
            |cause: String| GateError { name: name.to_owned(), expression: expression.to_owned(), cause };
        let program = ENV.compile(expression).map_err(|errors| {
            let errors: Vec<String> =
                errors.errors.iter().map(|e| format!("{}:{}: {}", e.pos.0, e.pos.1, e.msg)).collect();
            refused(format!("it is not valid CEL: {}", errors.join("; ")))
        })?;
        let mut uses = Vec::new();
        let references = program.references();
        let variables: BTreeSet<&str> = references.variables().into_iter().collect();
        for variable in variables {
            uses.push(named(variable).ok_or_else(|| {
                let known: Vec<&str> = NAMES.iter().map(|n| n.name).collect();
                refused(format!("there is no measurement `{variable}`: there are {}", known.join(", ")))
            })?);
        }
        let gate = Self {
            name: name.to_owned(),
            expression: expression.to_owned(),
            program: Arc::new(program),
            uses,
        };
        // Evaluation finds unknown functions and comparisons of numbers with texts. Each part is
        // evaluated by itself, because `&&`, `||` and `? :` may skip a part that is wrong.
        let placeholder = |named: &&'static Named| {
            let value = if named.flag { Measured::Flag(true) } else { Measured::Number(1.0) };
            (named.name, value)
        };
        let values: Vec<(&str, Measured)> = gate.uses.iter().map(placeholder).collect();
        every_part_evaluates(gate.program.expression(), &context(&values)).map_err(refused)?;
        gate.evaluate(&values).map_err(refused)?;
        Ok(gate)
    }

    /// Evaluates the gate.
    pub fn judge(&self, measurements: &Measurements) -> Verdict {
        let numbers: Vec<(&'static str, Result<Measured, String>)> =
            self.uses.iter().map(|n| (n.name, measurements.get(n.name).map_err(str::to_owned))).collect();
        let values: Option<Vec<(&str, Measured)>> =
            numbers.iter().map(|(name, value)| Some((*name, *value.as_ref().ok()?))).collect();
        let (met, problem) = match values.map(|values| self.evaluate(&values)) {
            None => (false, None),
            Some(Ok(met)) => (met, None),
            Some(Err(problem)) => (false, Some(problem)),
        };
        Verdict { name: self.name.clone(), expression: self.expression.clone(), met, numbers, problem }
    }

    fn evaluate(&self, values: &[(&str, Measured)]) -> Result<bool, String> {
        match self.program.execute(&context(values)) {
            Ok(Value::Bool(met)) => Ok(met),
            Ok(_) => Err("it is neither true nor false".to_owned()),
            Err(error) => Err(not_evaluated(&error)),
        }
    }

    /// The gate's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn context(values: &[(&str, Measured)]) -> Context<'static, 'static> {
    let mut context = Context::with_env(Arc::clone(&ENV));
    for (name, value) in values {
        match value {
            Measured::Number(number) => context.add_variable_from_value(*name, *number),
            Measured::Flag(flag) => context.add_variable_from_value(*name, *flag),
        }
    }
    context
}

/// Evaluates an expression and each of its subexpressions.
fn every_part_evaluates(expr: &IdedExpr, context: &Context<'_, '_>) -> Result<(), String> {
    match &expr.expr {
        Expr::Call(call) => {
            let mut parts = call.target.as_deref().into_iter().chain(&call.args);
            parts.try_for_each(|part| every_part_evaluates(part, context))?;
        }
        Expr::List(list) => {
            list.elements.iter().try_for_each(|element| every_part_evaluates(element, context))?;
        }
        _ => {}
    }
    Value::resolve(expr, context).map(|_| ()).map_err(|error| not_evaluated(&error))
}

fn not_evaluated(error: &ExecutionError) -> String {
    format!("it cannot be evaluated: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(values: &[(&str, f64)]) -> Measurements {
        let mut all = Measurements::none("not asked for");
        for (name, value) in values {
            all.set(name, Ok(*value));
        }
        all
    }

    #[test]
    fn integers_and_decimals_compare() {
        for limit in ["5", "5.0"] {
            let gate = Gate::compile("g", &format!("apply_lag_seconds < {limit}")).unwrap();
            assert!(gate.judge(&measured(&[("apply_lag_seconds", 4.9)])).met, "{limit}");
            assert!(!gate.judge(&measured(&[("apply_lag_seconds", 5.0)])).met, "{limit}");
        }
        let gate = Gate::compile("g", "open_mismatches == 0").unwrap();
        assert!(gate.judge(&measured(&[("open_mismatches", 0.0)])).met);
    }

    #[test]
    fn a_missing_measurement_fails_the_gate() {
        let gate = Gate::compile("g", "open_mismatches == 0 || canary_reads >= 0").unwrap();
        let verdict = gate.judge(&measured(&[("open_mismatches", 0.0)]));
        assert!(!verdict.met);
        let said = verdict.to_string();
        assert!(
            said.contains("open_mismatches = 0") && said.contains("canary_reads is not measured"),
            "{said}"
        );
        let mut nothing = measured(&[("open_mismatches", 0.0)]);
        nothing.set("canary_reads", Ok(f64::NAN));
        assert!(!gate.judge(&nothing).met);
    }

    #[test]
    fn a_flag_is_a_condition_by_itself() {
        let gate = Gate::compile("g", "full_scan_clean").unwrap();
        let mut all = Measurements::none("x");
        all.set_flag("full_scan_clean", Ok(true));
        assert!(gate.judge(&all).met);
        all.set_flag("full_scan_clean", Ok(false));
        assert!(!gate.judge(&all).met);
    }

    #[test]
    fn invalid_expressions_are_refused() {
        let refused = |text: &str| Gate::compile("g", text).unwrap_err().to_string();
        let unknown = refused("apply_lag < 5");
        assert!(unknown.contains("`apply_lag`") && unknown.contains("apply_lag_seconds"), "{unknown}");
        for text in [
            "",
            "1 <",
            "apply_lag_seconds",
            "apply_lag_seconds < 'x'",
            "no_such(fallbacks) > 0",
            "5",
            // Parts that short-circuiting skips for the placeholder values.
            "canary_reads > 20 && fallback_rate > 'x'",
            "canary_reads < 20 || no_such(fallback_rate)",
            "full_scan_clean || fallback_rate > 'x'",
            "canary_reads in [1, no_such(2)]",
            "full_scan_clean in [true || no_such(1)]",
        ] {
            assert!(refused(text).contains("gate `g`"), "{text}");
        }
        let undeclared = refused("no_such(fallbacks) > 0");
        assert!(
            undeclared.contains("it cannot be evaluated") && undeclared.contains("no_such"),
            "{undeclared}"
        );
    }
}
