//! Prints the remedies that errors hold as data, with the commands of this binary.

use tandem_apply::ApplyError;
use tandem_backfill::{BackfillError, ProgressError};
use tandem_capture::CaptureError;
use tandem_controller::ControllerError;
use tandem_gateway::GatewayError;
use tandem_kafka::ConsumeError;
use tandem_model::{FollowUp, Remedy};
use tandem_mysql::BinlogError;
use tandem_reverse::ReverseError;
use tandem_row_check::{CheckError, TrackerError};
use tandem_watermarks::{WatermarkError, WatermarkReadError};

/// The command that follows a remedy, in backticks.
pub(crate) fn command(follow_up: FollowUp) -> &'static str {
    match follow_up {
        FollowUp::Resnapshot => "`tandem resnapshot`",
        FollowUp::RebuildTable => "`tandem table rebuild`",
        FollowUp::FullVerification => "`tandem verify --full`",
        FollowUp::Run => "`tandem run`",
    }
}

/// What an operator does about an error. `None` where its message says it all.
pub(crate) fn of(error: &anyhow::Error) -> Option<String> {
    find(error).map(|remedy| text(&remedy))
}

/// Finds the remedy of the error, or of one below it.
fn find(error: &anyhow::Error) -> Option<Remedy> {
    fn of<E: std::error::Error + 'static>(
        error: &(dyn std::error::Error + 'static),
        remedy: fn(&E) -> Option<Remedy>,
    ) -> Option<Remedy> {
        error.downcast_ref().and_then(remedy)
    }
    error.chain().find_map(|error| {
        of(error, CaptureError::remedy)
            .or_else(|| of(error, ApplyError::remedy))
            .or_else(|| of(error, BackfillError::remedy))
            .or_else(|| of(error, ProgressError::remedy))
            .or_else(|| of(error, CheckError::remedy))
            .or_else(|| of(error, TrackerError::remedy))
            .or_else(|| of(error, ReverseError::remedy))
            .or_else(|| of(error, GatewayError::remedy))
            .or_else(|| of(error, ControllerError::remedy))
            .or_else(|| of(error, WatermarkError::remedy))
            .or_else(|| of(error, WatermarkReadError::remedy))
            .or_else(|| of(error, BinlogError::remedy))
            .or_else(|| of(error, ConsumeError::remedy))
    })
}

fn text(remedy: &Remedy) -> String {
    let then = remedy.then.map(|follow_up| match follow_up {
        FollowUp::Resnapshot => format!(
            "{}, which continues the log behind the gap and has every table copied again",
            command(follow_up)
        ),
        FollowUp::RebuildTable | FollowUp::FullVerification | FollowUp::Run => command(follow_up).to_owned(),
    });
    let steps = [remedy.first.as_deref(), then.as_deref(), remedy.afterwards.as_deref()];
    let steps = steps.into_iter().flatten().collect::<Vec<_>>().join("; then ");
    match &remedy.instead {
        Some(instead) if steps.is_empty() => instead.clone().into_owned(),
        Some(instead) => format!("{steps}. Or {instead}"),
        None => steps,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_remedy_of_a_role_is_found_below_its_context_and_names_the_command() {
        let purged = CaptureError::from(BinlogError::Purged { message: "no more".into() });
        let error = Err::<(), _>(purged).context("capture stopped").unwrap_err();
        let remedy = of(&error).unwrap();
        assert!(remedy.starts_with("`tandem resnapshot`, which"), "{remedy}");
        assert!(remedy.contains("; then keep binlogs longer"), "{remedy}");
        assert!(!format!("{error:#}").contains("tandem resnapshot"));
    }

    #[test]
    fn the_same_loss_has_its_remedy_in_every_role() {
        let lost = || ConsumeError::OffsetOutOfRange("deleted".into());
        let errors: [anyhow::Error; 9] = [
            lost().into(),
            CaptureError::from(lost()).into(),
            ApplyError::from(lost()).into(),
            BackfillError::from(ProgressError::from(lost())).into(),
            CheckError::from(WatermarkError::from(WatermarkReadError::from(lost()))).into(),
            CheckError::from(TrackerError::from(lost())).into(),
            GatewayError::Control(lost()).into(),
            ControllerError::from(lost()).into(),
            WatermarkError::from(WatermarkReadError::from(lost())).into(),
        ];
        for error in errors {
            let remedy = of(&error).unwrap_or_default();
            assert!(remedy.contains("stop capture; then `tandem resnapshot`"), "{error:?}: {remedy}");
            assert!(remedy.contains("--reset-offsets") && remedy.contains(". Or for a process"), "{remedy}");
        }
    }

    #[test]
    fn other_errors_have_none() {
        assert_eq!(of(&anyhow::anyhow!("no")), None);
        assert_eq!(of(&CaptureError::StillCaptured.into()), None);
    }
}
