//! The commands that ask a running Forebay, over its admin listener.

mod client;
mod drain;
mod inspect;
mod purge;
mod stats;
mod table;
mod top;
mod warm;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use self::client::{Client, Failure};
use super::{NOT_PERMITTED, UNAVAILABLE, USAGE};

/// Where the admin listener is, and how to be let in.
#[derive(Debug, Args)]
pub struct Connection {
    /// The admin listener
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9191", global = true)]
    admin: String,
    /// Its token; better FOREBAY_ADMIN_TOKEN or --token-file: arguments can be seen by others
    #[arg(long, value_name = "TOKEN", global = true, conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the token
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Print what the listener answers
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Take stored responses out of use: by URL, tag, prefix, glob, host, route, or all of them
    Purge {
        #[command(flatten)]
        what: purge::PurgeOptions,
        #[command(flatten)]
        connection: Connection,
    },
    /// Fill the cache before clients ask
    Warm {
        #[command(flatten)]
        what: warm::WarmOptions,
        #[command(flatten)]
        connection: Connection,
    },
    /// Figures of a running Forebay: rates, latencies, hit ratios, memory, upstreams
    Stats {
        #[command(flatten)]
        connection: Connection,
    },
    /// The same on a screen that follows, with routes, upstreams and what is asked for most; without a terminal, once
    Top {
        #[command(flatten)]
        how: top::TopOptions,
        #[command(flatten)]
        connection: Connection,
    },
    /// What is stored for a URL, and what would become of a request for it
    Inspect {
        /// The URL: http://HOST/PATH?QUERY
        url: String,
        /// A field of the request, "Name: value"; can be repeated
        #[arg(short = 'H', long = "header", value_name = "FIELD")]
        header: Vec<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Give a server of an upstream no new requests
    Drain {
        /// The upstream's name
        upstream: String,
        /// The server's address, as in the configuration
        server: String,
        /// Give it requests again
        #[arg(long)]
        enable: bool,
        #[command(flatten)]
        connection: Connection,
    },
}

/// Asks, and says what was answered.
pub fn run(command: &AdminCommand) -> ExitCode {
    match command {
        AdminCommand::Purge { what, connection } => match purge::body(what) {
            Ok(body) => told(connection, Method::POST, "/purge", Some(&body), purge::text),
            Err(failure) => failed(&failure),
        },
        AdminCommand::Warm { what, connection } => warm::run(what, connection),
        AdminCommand::Stats { connection } => told(connection, Method::GET, "/stats", None, stats::text),
        AdminCommand::Top { how, connection } => top::run(how, connection),
        AdminCommand::Inspect {
            url,
            header,
            connection,
        } => told(
            connection,
            Method::GET,
            &inspect::target(url, header),
            None,
            inspect::text,
        ),
        AdminCommand::Drain {
            upstream,
            server,
            enable,
            connection,
        } => {
            let change = match enable {
                true => drain::Change::Enable,
                false => drain::Change::Drain,
            };
            let target = drain::target(upstream, server, change);
            told(connection, Method::POST, &target, None, drain::text)
        }
    }
}

/// One request, and its answer in words.
fn told(
    connection: &Connection,
    method: Method,
    target: &str,
    body: Option<&Value>,
    words: impl FnOnce(&Value) -> String,
) -> ExitCode {
    let answered = connection
        .client()
        .and_then(|client| client.request(&method, target, body));
    match answered {
        Ok(answer) => {
            let text = match connection.json {
                true => format!("{answer:#}\n"),
                false => words(&answer),
            };
            // Whoever reads it may stop doing so.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    eprintln!("forebay: {failure}");
    ExitCode::from(match failure {
        Failure::Usage(_) | Failure::Refused { status: 400, .. } => USAGE,
        Failure::Refused { status: 401 | 403, .. } => NOT_PERMITTED,
        Failure::Refused { .. } => 1,
        Failure::Unavailable(_) | Failure::Unintelligible => UNAVAILABLE,
    })
}

impl Connection {
    fn client(&self) -> Result<Client, Failure> {
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| Failure::Usage(format!("{}: cannot be read: {error}", file.display())))?;
                Some(text.trim().to_owned())
            }
            (None, None) => std::env::var("FOREBAY_ADMIN_TOKEN")
                .ok()
                .filter(|token| !token.is_empty()),
        };
        Client::new(&self.admin, token)
    }
}
