//! `forebay warm`.

mod sitemap;

use std::io::{BufReader, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::client::{Client, Failure};
use super::inspect::encoded;
use super::stats::list;
use super::table::plain;
use super::{Connection, failed};
use crate::admin::warm::access_log::{self, LogError, Site};
use crate::config::defaults::WARM_MOST_LOGGED;

/// Bytes of a list of URLs.
const LARGEST_LIST: u64 = 64 * 1024 * 1024;

/// URLs that are handed over at once.
const BATCH: usize = 5_000;

/// Between two questions how far it is.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Without a terminal a line is printed as often.
const LINE_EVERY: u32 = 20;

/// What is to be asked for, and how fast.
#[derive(Debug, Args)]
pub struct WarmOptions {
    /// URLs
    #[arg(value_name = "URL")]
    urls: Vec<String>,
    /// A file with a URL in each line, or { "url": ..., "priority": 1, "headers": { ... } }; `-` is standard input
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A sitemap or an index of them, by file or http:// URL; may be gzip
    #[arg(long = "sitemap", value_name = "FILE|URL")]
    sitemaps: Vec<String>,
    /// An access log, Forebay's own in JSON or the combined format: GETs that were answered with 2xx, the most frequent first;
    /// `-` is standard input
    #[arg(long = "access-log", value_name = "FILE")]
    access_logs: Vec<PathBuf>,
    /// Beside --access-log: scheme, and host where the log has none [default: http]
    #[arg(long, value_name = "http://HOST", requires = "access_logs")]
    site: Option<String>,
    /// Beside --access-log: so many URLs of each
    #[arg(long, value_name = "N", default_value_t = WARM_MOST_LOGGED)]
    most: u32,
    /// So many of the keys that are asked for most
    #[arg(long, value_name = "N")]
    hottest: Option<u32>,
    /// Requests at once
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Requests a second
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// How often a URL that failed is asked for again
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// Do not wait for the end
    #[arg(long)]
    detach: bool,
}

/// Hands the URLs over, and shows how far it is. Fails where a URL does.
pub fn run(warm: &WarmOptions, connection: &Connection) -> ExitCode {
    match warmed(warm, connection) {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Badly) => ExitCode::FAILURE,
        Err(failure) => failed(&failure),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Well,
    Badly,
}

fn warmed(warm: &WarmOptions, connection: &Connection) -> Result<Ended, Failure> {
    let mut urls: Vec<Value> = warm.urls.iter().map(|url| json!(url)).collect();
    for file in &warm.files {
        urls.extend(lines(&read(file)?)?);
    }
    for place in &warm.sitemaps {
        urls.extend(sitemap::urls(place)?);
    }
    for log in &warm.access_logs {
        urls.extend(logged(log, warm)?);
    }
    if urls.is_empty() && warm.hottest.is_none() {
        return Err(Failure::Usage(
            "there is nothing to ask for: give URLs, --file, --sitemap, --access-log or --hottest".to_owned(),
        ));
    }
    // What is most important goes first, also over the borders of batches.
    urls.sort_by_key(|url| std::cmp::Reverse(url["priority"].as_i64().unwrap_or_default()));
    let client = connection.client()?;
    let mut hottest = warm.hottest;
    let mut batches: Vec<&[Value]> = urls.chunks(BATCH).collect();
    if batches.is_empty() {
        batches.push(&[]);
    }
    let mut ended = Ended::Well;
    for batch in batches {
        let body = json!({
            "urls": batch,
            "hottest": hottest.take(),
            "concurrency": warm.concurrency,
            "rate": warm.rate,
            "retries": warm.retries,
        });
        let task = client.request(&Method::POST, "/warm", Some(&body))?;
        if warm.detach {
            match connection.json {
                true => println!("{task:#}"),
                false => println!("task {}: {}", plain(&task["id"]), plain(&task["about"])),
            }
            continue;
        }
        if follow(&client, &task, connection)? == Ended::Badly {
            ended = Ended::Badly;
        }
    }
    Ok(ended)
}

/// Shows a task until it is over.
fn follow(client: &Client, task: &Value, connection: &Connection) -> Result<Ended, Failure> {
    let target = format!("/tasks/{}", encoded(task["id"].as_str().unwrap_or_default()));
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} ETA {eta} {msg}");
    let bar = match (std::io::stderr().is_terminal() && !connection.json, style) {
        (true, Ok(style)) => ProgressBar::new(0).with_style(style),
        _ => ProgressBar::hidden(),
    };
    let mut asked = 0_u32;
    loop {
        let task = client.request(&Method::GET, &target, None)?;
        let progress = &task["progress"];
        let said = words(progress);
        if let (Some(total), Some(done)) = (progress["total"].as_u64(), progress["done"].as_u64()) {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(said.clone());
        }
        if task["state"] != "running" {
            bar.finish_and_clear();
            match connection.json {
                true => println!("{task:#}"),
                false => {
                    println!("{}: {said}", plain(&task["state"]));
                    for failure in list(&progress["failures"]) {
                        println!("{}: {}", plain(&failure["url"]), plain(&failure["reason"]));
                    }
                    if task["error"].is_string() {
                        println!("{}", plain(&task["error"]));
                    }
                }
            }
            let is_well = task["state"] == "done" && progress["failed"] == 0;
            return Ok(if is_well { Ended::Well } else { Ended::Badly });
        }
        if bar.is_hidden() && asked.is_multiple_of(LINE_EVERY) && asked > 0 && !connection.json {
            eprintln!("{}/{} {said}", progress["done"], progress["total"]);
        }
        asked += 1;
        pause(ASK_EVERY);
    }
}

/// There is nothing else that this thread could do.
#[expect(
    clippy::disallowed_methods,
    reason = "a command line tool with one thread, not a runtime's"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn words(progress: &Value) -> String {
    let names = ["stored", "fresh", "not_stored", "no_route", "failed", "retries"];
    let came_up = names.iter().filter_map(|name| {
        let count = progress[*name].as_u64().filter(|count| *count > 0)?;
        Some(format!("{count} {}", name.replace('_', " ")))
    });
    let said: Vec<_> = came_up.collect();
    if said.is_empty() {
        "nothing yet".to_owned()
    } else {
        said.join(", ")
    }
}

/// What a log says is asked for most.
fn logged(file: &Path, warm: &WarmOptions) -> Result<Vec<Value>, Failure> {
    let site = match &warm.site {
        None => Site::default(),
        Some(text) => Site::parse(text)
            .ok_or_else(|| Failure::Usage(format!("--site {text:?} must be like http://example.com")))?,
    };
    let most = warm.most as usize;
    let ranked = match file.to_str() {
        Some("-") => access_log::ranked(std::io::stdin().lock(), &site, most),
        _ => std::fs::File::open(file)
            .map_err(LogError::from)
            .and_then(|file| access_log::ranked(BufReader::new(file), &site, most)),
    };
    let ranked = ranked.map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?;
    let entries = ranked.into_iter();
    Ok(entries
        .map(|(url, count)| json!({ "url": url, "priority": i32::try_from(count).unwrap_or(i32::MAX) }))
        .collect())
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let result = match file.to_str() {
        Some("-") => std::io::stdin().take(LARGEST_LIST).read_to_string(&mut text),
        _ => std::fs::File::open(file).and_then(|file| file.take(LARGEST_LIST).read_to_string(&mut text)),
    };
    match result {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::Usage(format!("{}: cannot be read: {error}", file.display()))),
    }
}

/// What each line asks for; empty ones and those that begin with `#` ask for nothing.
fn lines(text: &str) -> Result<Vec<Value>, Failure> {
    let lines = text.lines().map(str::trim).enumerate();
    let said = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    said.map(|(index, line)| match line.starts_with('{') {
        false => Ok(json!(line)),
        true => serde_json::from_str(line)
            .map_err(|error| Failure::Usage(format!("line {} of the list is no JSON: {error}", index + 1))),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_urls_objects_and_comments() {
        let text = "# hot\nhttp://a/\n\n {\"url\":\"http://a/b\",\"priority\":2}\n";
        assert_eq!(
            lines(text).unwrap(),
            [json!("http://a/"), json!({ "url": "http://a/b", "priority": 2 })]
        );
        assert!(lines("{").is_err());
    }
}
