//! `forebay explain`.
use std::process::ExitCode;
pub fn explain(_options: &super::Explain) -> ExitCode {
    ExitCode::SUCCESS
}
