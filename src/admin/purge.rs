//! `POST /purge`.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Admin;
use super::answer::{Answer, Refusal};
use super::tasks::{TaskKind, TaskReport, Tasks};
use super::{stored, warm};
use crate::cache::purge::{How, Pattern, What};
use crate::config::units;
use crate::proxy::Proxy;
pub use crate::proxy::purging::PurgeReport;
use crate::rfc9111::invalidation::ResourceUri;

/// Names of one request, all kinds together.
const MAX_NAMES: usize = 10_000;

/// Prefixes, globs, hosts and routes of one request: each has the whole cache looked through.
const MAX_PATTERNS: usize = 100;

/// Bytes of one name.
const LONGEST_NAME: usize = 8192;

/// The longest time that a purge can be put off.
const LONGEST_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is to be purged: at least one of these.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeRequest {
    /// `http://HOST/PATH`, all variants.
    pub urls: Vec<String>,
    /// Exact names of tags.
    pub tags: Vec<String>,
    /// This path and all below it; with scheme and host in front only there.
    pub prefixes: Vec<String>,
    /// Path and query, or the whole URL where it begins with a scheme; `*` stands for any characters.
    pub globs: Vec<String>,
    pub hosts: Vec<String>,
    /// What these routes have stored.
    pub routes: Vec<String>,
    pub everything: bool,
    /// Make it stale instead: it is validated before it is used again, and may stand in for an origin that fails.
    pub soft: bool,
    /// Only count.
    pub dry_run: bool,
    /// Ask for it again when it is purged, up to 10,000 URLs, those first that are asked for most. Default: as `cache.warm.after_purge`
    /// says.
    pub rewarm: Option<bool>,
    /// Not now but after this time, like `5s`: the answer is a task.
    pub after: Option<String>,
}

/// What is not done everywhere yet.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Pending {
    /// It was put off.
    Task(TaskReport),
    /// The other instances do not know of it yet.
    Report(PurgeReport),
}

/// # Errors
/// The request is not what it has to be.
pub async fn purge(admin: &Admin, request: PurgeRequest) -> Result<Answer, Refusal> {
    let delay = match &request.after {
        None => None,
        Some(text) => match units::duration(text) {
            Ok(delay) if delay <= LONGEST_DELAY => Some(delay),
            Ok(_) => return Err(Refusal::Body("after: must be at most 1d.".to_owned())),
            Err(_) => return Err(Refusal::Body("after: must be a duration, like 5s.".to_owned())),
        },
    };
    let what = wanted(&request, admin)?;
    let Some(delay) = delay else {
        let report = carried_out(&admin.proxy, &admin.tasks, &request, what).await;
        return Ok(match report.waiting {
            0 => Answer::ok(&report),
            _ => Answer::json(StatusCode::ACCEPTED, &Pending::Report(report)),
        });
    };
    let about = about(&request);
    let (proxy, tasks) = (Arc::clone(&admin.proxy), Arc::clone(&admin.tasks));
    let report = admin.tasks.start(TaskKind::Purge, about, |work| async move {
        work.progress(json!({ "waits_seconds": delay.as_secs_f64() }));
        tokio::time::sleep(delay).await;
        Ok(json!(carried_out(&proxy, &tasks, &request, what).await))
    })?;
    Ok(Answer::json(StatusCode::ACCEPTED, &Pending::Task(report)))
}

async fn carried_out(proxy: &Arc<Proxy>, tasks: &Arc<Tasks>, request: &PurgeRequest, all: Vec<What>) -> PurgeReport {
    if !request.dry_run {
        let how = match request.soft {
            true => How::Soft,
            false => How::Hard,
        };
        // What it is about is only known before.
        let again = match request.rewarm.unwrap_or_else(|| proxy.warms_after_purges()) {
            true => proxy.again(&all).await,
            false => Vec::new(),
        };
        let mut report = proxy.purge_all(all, how).await;
        report.rewarm = warm::rewarm(proxy, tasks, again).map(|task| task.id);
        return report;
    }
    let mut report = PurgeReport {
        soft: request.soft,
        dry_run: true,
        ..PurgeReport::default()
    };
    for what in &all {
        report.responses += proxy.count_purged(what).await;
        if let What::Labels(labels) = what {
            report.tags += labels.len() as u64;
        }
    }
    report
}

/// What the request names, checked.
fn wanted(request: &PurgeRequest, admin: &Admin) -> Result<Vec<What>, Refusal> {
    let lists = [
        &request.urls,
        &request.tags,
        &request.prefixes,
        &request.globs,
        &request.hosts,
        &request.routes,
    ];
    let names = lists.iter().map(|list| list.len()).sum::<usize>();
    if names == 0 && !request.everything {
        return Err(Refusal::Body(
            "The body must name something in urls, tags, prefixes, globs, hosts or routes, or say everything."
                .to_owned(),
        ));
    }
    if names > MAX_NAMES {
        return Err(Refusal::Body(format!("The body names more than {MAX_NAMES} things.")));
    }
    if names - request.urls.len() - request.tags.len() > MAX_PATTERNS {
        return Err(Refusal::Body(format!(
            "The body has more than {MAX_PATTERNS} prefixes, globs, hosts and routes."
        )));
    }
    for name in lists.into_iter().flatten() {
        if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
            return Err(Refusal::Body(format!(
                "A name must have 1 to {LONGEST_NAME} bytes and no control characters."
            )));
        }
    }
    let mut what = Vec::new();
    if request.everything {
        what.push(What::Pattern(Pattern::Everything));
    }
    if !request.urls.is_empty() {
        let parsed = |url: &String| {
            let request = stored::request_for(url).map_err(|wrong| Refusal::Body(format!("urls: {wrong}.")))?;
            Ok(ResourceUri::of(&request))
        };
        let uris = request.urls.iter().map(parsed).collect::<Result<_, _>>()?;
        what.push(What::Uris(uris));
    }
    if !request.tags.is_empty() {
        what.push(What::tags(&request.tags));
    }
    for prefix in &request.prefixes {
        let is_uri = prefix.starts_with("http://") || prefix.starts_with("https://");
        if !is_uri && !prefix.starts_with('/') {
            return Err(Refusal::Body(format!(
                "prefixes: {prefix:?} must begin with / or a scheme."
            )));
        }
        what.push(What::Pattern(Pattern::Prefix(prefix.clone())));
    }
    what.extend(request.globs.iter().cloned().map(Pattern::Glob).map(What::Pattern));
    what.extend(request.hosts.iter().cloned().map(Pattern::Host).map(What::Pattern));
    let generation = admin.proxy.generation();
    for route in &request.routes {
        // One that the configuration does not have any more may still have responses stored; a typing error has none.
        if !generation.routes.iter().any(|known| *known.name == **route) {
            return Err(Refusal::Body(format!("routes: there is no route {route:?}.")));
        }
        what.push(What::Pattern(Pattern::Route(route.clone())));
    }
    Ok(what)
}

/// What it is about, in a few words.
fn about(request: &PurgeRequest) -> String {
    let lists = [
        ("urls", &request.urls),
        ("tags", &request.tags),
        ("prefixes", &request.prefixes),
        ("globs", &request.globs),
        ("hosts", &request.hosts),
        ("routes", &request.routes),
    ];
    let named = lists.iter().filter(|(_, list)| !list.is_empty());
    let mut parts: Vec<String> = named.map(|(name, list)| format!("{} {name}", list.len())).collect();
    if request.everything {
        parts.push("everything".to_owned());
    }
    parts.join(", ")
}
