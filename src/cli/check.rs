//! `forebay check`: everything that is wrong with a configuration, without serving.

use std::path::Path;
use std::process::ExitCode;

use super::CONFIGURATION;
use crate::clock::Clock;
use crate::config::{Config, Environment};
use crate::generation::Generation;
use crate::metrics::Metrics;

pub fn check(file: &Path) -> ExitCode {
    let loaded = match Config::load(file, &Environment::Process) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(CONFIGURATION);
        }
    };
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let (listeners, routes, upstreams) = (
        loaded.config.listeners.len(),
        loaded.config.routes.len(),
        loaded.config.upstreams.len(),
    );
    if let Err(errors) = Generation::new(loaded.config, &Metrics::new(), &Clock::new(), None) {
        for error in errors {
            eprintln!("{}: {error}", file.display());
        }
        return ExitCode::from(CONFIGURATION);
    }
    let (name, plural) = (file.display(), |count: usize| if count == 1 { "" } else { "s" });
    println!(
        "{name}: ok ({listeners} listener{}, {routes} route{}, {upstreams} upstream{})",
        plural(listeners),
        plural(routes),
        plural(upstreams)
    );
    ExitCode::SUCCESS
}
