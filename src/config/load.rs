//! From a file, a text or the command line to a [`Config`].

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Complaint, Cure, Diagnostic, Diagnostics};
use super::environment::Environment;
use super::file::scalar::{ListenText, UpstreamText};
use super::file::{self, FileConfig};
use super::report::Report;
use super::resolve::resolve;
use super::yaml::{MAX_FILE_SIZE, Node};
use super::{Config, ListenAddress, Shown, address, defaults, later, shown};
use crate::log::redact;

/// A configuration that can be used, and what is odd about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// In the order of the file.
    pub warnings: Vec<Diagnostic>,
}

impl Config {
    /// Reads a configuration file, and looks at the certificate files that it names.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path, environment: &Environment) -> Result<Loaded, Diagnostics> {
        let name = path.display().to_string();
        match read_file(path) {
            Ok(text) => Self::parse(&name, &text, environment),
            Err(error) => Err(whole(&name, format!("cannot be read: {error}")).into()),
        }
    }

    /// As [`Self::load`], from a text; `name` stands before every message.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(name: &str, text: &str, environment: &Environment) -> Result<Loaded, Diagnostics> {
        let (typed, mut report) = file::read(name, text, environment)?;
        let mut config = resolve(&typed, &mut report);
        config.shown = Shown(Arc::new(shown::shown(report.root())));
        later::refuse(&mut report);
        let warnings = report.finish()?;
        Ok(Loaded { config, warnings })
    }

    /// What `--upstream URL [--listen ADDRESS]` says; without an address, port 8080 of every interface.
    ///
    /// # Errors
    /// A flag's value is not what it has to be.
    pub fn from_flags(upstream: &str, listen: Option<&str>) -> Result<Loaded, Diagnostics> {
        let mut diagnostics = Vec::new();
        let mut typed = FileConfig::default();
        match address::upstream_url(upstream) {
            Ok(url) => typed.upstream = Some(UpstreamText(url)),
            Err(complaint) => diagnostics.push(flag("--upstream", upstream, complaint)),
        }
        match listen.map(address::listen_address) {
            None => typed.listen = Some(ListenText(ListenAddress::Tcp(defaults::LISTEN))),
            Some(Ok(address)) => typed.listen = Some(ListenText(address)),
            Some(Err(complaint)) => diagnostics.push(flag("--listen", listen.unwrap_or_default(), complaint)),
        }
        if !diagnostics.is_empty() {
            return Err(Diagnostics::new(diagnostics));
        }
        let mut report = Report::new("command line", Node::empty());
        let mut config = resolve(&typed, &mut report);
        let listen = listen.map_or_else(|| defaults::LISTEN.to_string(), str::to_owned);
        let shown = serde_json::json!({ "listen": listen, "upstream": redact::url_text(upstream) });
        config.shown = Shown(Arc::new(shown));
        let warnings = report.finish()?;
        Ok(Loaded { config, warnings })
    }
}

fn flag(name: &str, value: &str, complaint: Complaint) -> Diagnostic {
    let cure = match complaint.cure {
        Cure::General(cure) | Cure::Rewritten(cure) => cure,
    };
    Diagnostic {
        got: Some(format!("{value:?}")),
        cure,
        ..whole(name, complaint.what)
    }
}

fn whole(source: &str, what: String) -> Diagnostic {
    Diagnostic {
        source: source.to_owned(),
        position: None,
        key: String::new(),
        what,
        got: None,
        cure: String::new(),
    }
}

/// One byte beyond the limit is read, so that a file that is too large is known to be.
fn read_file(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_FILE_SIZE + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}
