//! The state of the migration as JSON.

use serde_json::{Map, Value as Json, json};
use tandem_wire::control::Audit;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::measure::presence::KnownGateway;
use crate::order::Standing;
use tandem_protocol::rollout::Measured;
use tandem_protocol::rollout::Stage;
use tandem_protocol::rollout::Verdict;

/// The response of `GET /v1/phase`.
pub(crate) fn phase(standing: &Standing) -> Json {
    let Standing { record, outlook, measured, gateways, at_us, .. } = standing;
    let (mut numbers, mut unmeasured) = (Map::new(), Map::new());
    for (name, value) in measured.iter() {
        match value {
            Ok(value) => numbers.insert(name.to_owned(), measured_json(value)),
            Err(reason) => unmeasured.insert(name.to_owned(), reason.into()),
        };
    }
    let values: Vec<Json> = record
        .cohort
        .values
        .iter()
        .map(|(fact, value)| json!({ "fact": fact.to_string(), "value": value }))
        .collect();
    json!({
        "generation": record.generation,
        "phase": record.phase.name(),
        "percent": number(record.cohort.percent),
        "since": time_or_null(record.since_us),
        "held_seconds": number(outlook.held.as_secs_f64()),
        "soak_seconds": number(outlook.soak.as_secs_f64()),
        "auto": record.auto,
        "paused": record.paused,
        "by": record.by,
        "reason": record.reason,
        "cohort": { "by": record.cohort.by.to_string(), "values": values },
        "validate": record.validate,
        "shadow": record.shadow,
        "fallback": record.fallback,
        "next": stage(outlook.next),
        "previous": stage(outlook.previous),
        "gates": outlook.gates.iter().map(verdict).collect::<Vec<_>>(),
        "rollback": outlook.rollback.iter().map(verdict).collect::<Vec<_>>(),
        "obstacles": outlook.obstacles.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "measurements": numbers,
        "unmeasured": unmeasured,
        "gateways": gateways.iter().map(gateway).collect::<Vec<_>>(),
        "at": time_or_null(*at_us),
    })
}

/// A gateway that has announced itself.
fn gateway(known: &KnownGateway) -> Json {
    json!({
        "name": known.name,
        "address": known.address,
        "version": known.version,
        "generation": known.generation,
        "silent_seconds": known.silent.map(|silent| silent.as_secs()),
    })
}

/// An entry in the response of `GET /v1/history`.
pub(crate) fn entry(audit: &Audit) -> Json {
    let (mut numbers, mut unmeasured) = (Map::new(), Map::new());
    for measured in &audit.measurements {
        match measured.value {
            Some(value) => numbers.insert(measured.name.clone(), number(value)),
            None => unmeasured.insert(measured.name.clone(), measured.unmeasured.clone().into()),
        };
    }
    let gates: Vec<Json> = audit
        .gates
        .iter()
        .map(|gate| json!({ "name": gate.name, "expression": gate.expression, "met": gate.met }))
        .collect();
    json!({
        "generation": audit.generation,
        "action": audit.action,
        "from": { "phase": audit.from_phase, "percent": number(audit.from_percent) },
        "phase": audit.phase,
        "percent": number(audit.percent),
        "auto": audit.auto,
        "paused": audit.paused,
        "by": audit.by,
        "reason": audit.reason,
        "at": time_or_null(audit.at_us),
        "gates": gates,
        "measurements": numbers,
        "unmeasured": unmeasured,
    })
}

/// A gate and its verdict.
pub(crate) fn verdict(verdict: &Verdict) -> Json {
    let (mut numbers, mut unmeasured) = (Map::new(), Map::new());
    for (name, value) in &verdict.numbers {
        match value {
            Ok(value) => numbers.insert((*name).to_owned(), measured_json(*value)),
            Err(reason) => unmeasured.insert((*name).to_owned(), reason.as_str().into()),
        };
    }
    let mut body = json!({
        "name": verdict.name,
        "expression": verdict.expression,
        "met": verdict.met,
        "numbers": numbers,
    });
    if !unmeasured.is_empty() {
        body["unmeasured"] = unmeasured.into();
    }
    if let Some(problem) = &verdict.problem {
        body["problem"] = problem.as_str().into();
    }
    body
}

/// A number as JSON. Whole numbers have no decimal point.
pub(crate) fn number(value: f64) -> Json {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

fn measured_json(value: Measured) -> Json {
    match value {
        Measured::Number(value) => number(value),
        Measured::Flag(flag) => flag.into(),
    }
}

fn stage(stage: Option<Stage>) -> Json {
    stage.map_or(Json::Null, |p| json!({ "phase": p.phase.name(), "percent": number(p.percent) }))
}

/// Microseconds since the epoch in RFC 3339. 0 becomes `null`.
fn time_or_null(us: i64) -> Json {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1000);
    match time.ok().filter(|_| us > 0).and_then(|time| time.format(&Rfc3339).ok()) {
        Some(text) => text.into(),
        None => Json::Null,
    }
}
