//! Arguments → what to do → exit status.

mod admin;
mod check;
pub mod demo;
pub(crate) mod explain;
mod run;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// The command line was wrong (EX_USAGE of sysexits.h).
const USAGE: u8 = 64;
/// An address cannot be bound, a file cannot be written (EX_UNAVAILABLE).
const UNAVAILABLE: u8 = 69;
/// The token is missing or wrong (EX_NOPERM).
const NOT_PERMITTED: u8 = 77;
/// The configuration was wrong (EX_CONFIG).
const CONFIGURATION: u8 = 78;

/// A caching reverse proxy in front of an application that already works.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 success, 64 wrong usage, 69 an address or file cannot be used, 77 not permitted, \
    78 wrong configuration; 1 the admin listener refuses.\n\n\
    Example:\n  forebay run --upstream http://127.0.0.1:3000 --listen 127.0.0.1:8080"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve, until SIGTERM. SIGHUP takes up a changed configuration without dropping a connection
    Run(Run),
    /// Read a configuration file and tell everything that is wrong with it
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Tell what would become of a request, without sending anything
    Explain(Explain),
    #[command(flatten)]
    Admin(admin::AdminCommand),
    /// Try it out: a small built-in application with Forebay in front of it
    Demo {
        /// Where Forebay listens
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// The configuration file
    #[arg(long, value_name = "FILE", required_unless_present = "upstream", conflicts_with_all = ["upstream", "listen"])]
    config: Option<PathBuf>,
    /// Where the application is: http://HOST:PORT, https://HOST or unix:/PATH. Does without a file
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Where to listen [default: 0.0.0.0:8080]
    #[arg(long, value_name = "ADDRESS", requires = "upstream")]
    listen: Option<String>,
    /// Take up the file whenever it changes, as on SIGHUP
    #[arg(long, requires = "config")]
    watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The configuration file
    file: PathBuf,
    /// The request's method
    method: String,
    /// The request's URL: http://HOST/PATH?QUERY
    url: String,
    /// A field of the request, "Name: value"; can be repeated
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    header: Vec<String>,
    /// The address that the request comes from
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    from: IpAddr,
    /// The upstream's answer, "HTTP/1.1 200 OK" or 200: tells whether it is stored, and for how long
    #[arg(long, value_name = "STATUS")]
    response: Option<String>,
    /// A field of the upstream's answer, "Name: value"; can be repeated
    #[arg(short = 'R', long = "response-header", value_name = "FIELD")]
    response_header: Vec<String>,
}

/// Reads the arguments of this process and does what they say.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let wrong = error.use_stderr();
            // A closed terminal is no reason to fail differently.
            let _ = error.print();
            return if wrong {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match cli.command {
        Command::Run(options) => run::run(&options),
        Command::Check { file } => check::check(&file),
        Command::Schema => {
            // A reader that has seen enough is no error.
            let _ = writeln!(io::stdout(), "{}", crate::config::schema());
            ExitCode::SUCCESS
        }
        Command::Explain(options) => explain::explain(&options),
        Command::Admin(command) => admin::run(&command),
        Command::Demo { listen } => run::demo(listen),
    }
}
