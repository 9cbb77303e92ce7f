//! `forebay purge`.

use std::io::Read as _;

use clap::Args;
use serde_json::{Value, json};

use super::client::Failure;
use super::table::{number, plain};

/// Bytes that are read from standard input: a list that the listener would take.
const LARGEST_LIST: u64 = 4 * 1024 * 1024;

/// What is to be purged, and how.
#[derive(Debug, Args)]
pub struct PurgeOptions {
    /// URLs, all their variants; `-` reads a URL from each line of standard input
    #[arg(value_name = "URL")]
    urls: Vec<String>,
    /// Everything that has this tag
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// This path and all below it, or with http://HOST in front only there
    #[arg(long = "prefix", value_name = "PATH")]
    prefixes: Vec<String>,
    /// `*` stands for any characters
    #[arg(long = "glob", value_name = "GLOB")]
    globs: Vec<String>,
    /// Everything of this host
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Everything that this route has stored
    #[arg(long = "route", value_name = "NAME")]
    routes: Vec<String>,
    /// Everything
    #[arg(long)]
    everything: bool,
    /// Make it stale instead of removing it
    #[arg(long)]
    soft: bool,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Ask for it again when it is purged
    #[arg(long, conflicts_with = "no_rewarm")]
    rewarm: bool,
    /// Do not, whatever cache.warm.after_purge says
    #[arg(long)]
    no_rewarm: bool,
    /// Not now but after this time, like 5s; prints a task
    #[arg(long, value_name = "DURATION")]
    after: Option<String>,
}

/// # Errors
/// The list on standard input cannot be read.
pub fn body(purge: &PurgeOptions) -> Result<Value, Failure> {
    let mut urls = Vec::new();
    for url in &purge.urls {
        match url.as_str() {
            "-" => {
                let mut text = String::new();
                std::io::stdin().take(LARGEST_LIST).read_to_string(&mut text)?;
                urls.extend(
                    text.lines()
                        .map(str::trim)
                        .filter(|line| !line.is_empty())
                        .map(str::to_owned),
                );
            }
            url => urls.push(url.to_owned()),
        }
    }
    Ok(json!({
        "urls": urls,
        "tags": purge.tags,
        "prefixes": purge.prefixes,
        "globs": purge.globs,
        "hosts": purge.hosts,
        "routes": purge.routes,
        "everything": purge.everything,
        "soft": purge.soft,
        "dry_run": purge.dry_run,
        "rewarm": match (purge.rewarm, purge.no_rewarm) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        },
        "after": purge.after,
    }))
}

pub fn text(report: &Value) -> String {
    if report["id"].is_string() {
        return format!("task {}: {}\n", plain(&report["id"]), plain(&report["about"]));
    }
    let done = match (report["dry_run"] == true, report["soft"] == true) {
        (true, _) => "would be purged",
        (false, true) => "made stale",
        (false, false) => "purged",
    };
    let responses = match report["responses"].as_u64() {
        Some(1) => "1 response".to_owned(),
        _ => format!("{} responses", number(&report["responses"])),
    };
    let mut text = match report["tags"].as_u64() {
        Some(tags @ 1..) if report["dry_run"] == false => {
            let tags = if tags == 1 {
                "1 tag".to_owned()
            } else {
                format!("{tags} tags")
            };
            format!("{responses} and those of {tags} {done}\n")
        }
        _ => format!("{responses} {done}\n"),
    };
    if let Some(waiting @ 1..) = report["waiting"].as_u64() {
        text.push_str(&format!(
            "by this instance alone: {waiting} purges wait for Redis to be told to the others\n"
        ));
    }
    if report["rewarm"].is_string() {
        text.push_str(&format!("asked for again: task {}\n", plain(&report["rewarm"])));
    }
    text
}
