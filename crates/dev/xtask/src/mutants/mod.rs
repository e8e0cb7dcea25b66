//! `mutants`: changes the product and requires that a test notices.

mod args;
mod generated;
mod patches;

use std::process::ExitCode;

use anyhow::Result;
pub(crate) use args::MutantsArgs;

pub(crate) fn mutants(args: &MutantsArgs) -> Result<ExitCode> {
    let root = crate::build::root();
    if args.generated {
        return generated::run(root, &args.package, args.only.as_deref(), args.jobs);
    }
    patches::run(root, args)
}
