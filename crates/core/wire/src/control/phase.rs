//! The encoding of the model's phase record.

use serde::{Deserialize, Serialize};
use tandem_model::{Cohort, DualWriteMode, PhaseRecord};

use super::record::sealed::Sealed;
use super::record::{ControlRecord, ControlSchema};

/// The key of the phase record in `<prefix>.control`.
pub const PHASE_KEY: &[u8] = b"phase";

/// The Avro fields of a phase record.
#[allow(clippy::struct_excessive_bools)] // the schema has these fields
#[derive(Debug, Serialize, Deserialize)]
pub struct PhaseFields {
    generation: i64,
    phase: String,
    cohort_by: String,
    cohort_percent: f64,
    cohort_values: Vec<CohortValue>,
    validate: f64,
    shadow: f64,
    fallback: bool,
    dual_write_behind: bool,
    auto: bool,
    paused: bool,
    by: String,
    reason: String,
    since_us: i64,
    mismatches_from: i64,
    at_us: i64,
}

/// The Avro fields of one value of a cohort.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CohortValue {
    fact: String,
    value: String,
}

impl Sealed for PhaseRecord {}

impl ControlRecord for PhaseRecord {
    type Fields = PhaseFields;

    fn schema() -> &'static ControlSchema {
        static SCHEMA: ControlSchema =
            ControlSchema::new("Phase", include_str!("../../../../../schemas/phase.avsc"));
        &SCHEMA
    }

    fn to_fields(&self) -> PhaseFields {
        let value = |(fact, value): &(_, String)| CohortValue {
            fact: tandem_model::CohortAttribute::to_string(fact),
            value: value.clone(),
        };
        PhaseFields {
            generation: self.generation as i64,
            phase: self.phase.to_string(),
            cohort_by: self.cohort.by.to_string(),
            cohort_percent: self.cohort.percent,
            cohort_values: self.cohort.values.iter().map(value).collect(),
            validate: self.validate,
            shadow: self.shadow,
            fallback: self.fallback,
            dual_write_behind: self.dual_write == DualWriteMode::Behind,
            auto: self.auto,
            paused: self.paused,
            by: self.by.clone(),
            reason: self.reason.clone(),
            since_us: self.since_us,
            mismatches_from: self.mismatches_from,
            at_us: self.at_us,
        }
    }

    fn from_fields(fields: PhaseFields) -> Result<Self, String> {
        let within = |what: &str, number: f64, limit: f64| {
            let fits = (0.0..=limit).contains(&number);
            if fits { Ok(number) } else { Err(format!("its {what} is not between 0 and {limit}")) }
        };
        let values = fields.cohort_values.into_iter().map(|v| Ok((v.fact.parse()?, v.value)));
        Ok(Self {
            generation: u64::try_from(fields.generation)
                .map_err(|_| "its generation is negative".to_owned())?,
            phase: fields.phase.parse()?,
            cohort: Cohort {
                by: fields.cohort_by.parse()?,
                percent: within("cohort's percentage", fields.cohort_percent, 100.0)?,
                values: values.collect::<Result<_, String>>()?,
            },
            validate: within("share to validate", fields.validate, 1.0)?,
            shadow: within("share to shadow", fields.shadow, 1.0)?,
            fallback: fields.fallback,
            dual_write: if fields.dual_write_behind {
                DualWriteMode::Behind
            } else {
                DualWriteMode::InRequest
            },
            auto: fields.auto,
            paused: fields.paused,
            by: fields.by,
            reason: fields.reason,
            since_us: fields.since_us,
            mismatches_from: fields.mismatches_from,
            at_us: fields.at_us,
        })
    }
}
