//! `GET /cache`: what is stored for a URL, and what would become of a request for it. `GET /cache/top`: what is asked for most.

use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::Serialize;

use super::Admin;
use super::answer::Refusal;
use crate::cache::Stored;
use crate::cache::label_names::{self, LabelName};
use crate::cli::explain::{self, Asked};
use crate::config::ListenAddress;
use crate::http1::{Limits, request};
use crate::message::RequestHead;
use crate::proxy::cached;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::reuse::{Forward, Reuse, reuse, without_stored};
use crate::rfc9111::vary::select;
use crate::transform::forwarding::client_address;

/// Bytes of a URL: what a request's head may hold.
const LONGEST_URL: usize = 8192;

/// Fields that may be given with it.
const MAX_HEADERS: usize = 32;

/// Keys that are listed when no number is given, and at most.
const TOP: usize = 20;
const MAX_TOP: usize = 1000;

/// What the cache has for a URL.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StoredReport {
    pub url: String,
    /// `null`: no route takes it.
    pub route: Option<String>,
    /// What a GET without further fields would get: `hit`, `stale`, `validate`, `forward`, or `gateway-timeout`. `null`: it is not
    /// looked up.
    pub decision: Option<String>,
    /// Why it would not be a hit, in the word of `Cache-Status` (RFC 9211 §2.2).
    pub reason: Option<String>,
    /// Requests for it in the last minutes, estimated.
    pub requests: u64,
    /// What Redis has that fits this request: `stored`, `none`, or `unavailable`, where it cannot be asked. `null`: there is no second tier.
    pub l2: Option<String>,
    /// All that are in memory, and the one in Redis that fits this request.
    pub variants: Vec<VariantReport>,
    /// The way of the request through Forebay, as `forebay explain` tells it.
    pub explanation: Vec<String>,
}

/// One stored response.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VariantReport {
    /// `l1` or `l2`.
    pub tier: String,
    pub status: u16,
    /// Seconds.
    pub age: u64,
    /// Seconds for which it is still fresh; negative when it is stale.
    pub ttl: i64,
    pub fresh: bool,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// Bytes in memory, or of the value in Redis.
    pub size_bytes: u64,
    /// Seconds until Redis lets it go. `null`: it is in memory.
    pub kept_seconds: Option<u64>,
    /// What it can be purged by. One whose name is not known here is shown by its hash, like `#0123456789abcdef`.
    pub tags: Vec<String>,
    /// The groups of its origin that it belongs to (RFC 9875).
    pub groups: Vec<String>,
    /// Request fields that it was chosen by, with the values that it is for.
    pub vary: Vec<VaryField>,
    pub content_type: Option<String>,
    pub etag: Option<String>,
    /// Whether a GET without further fields would be answered with it.
    pub selected: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct VaryField {
    pub name: String,
    /// `null`: the field was absent.
    pub value: Option<String>,
}

/// What is asked for most.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TopReport {
    pub top: Vec<TopKey>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct TopKey {
    /// As it was asked for first.
    pub url: String,
    /// Requests in the last minutes, estimated.
    pub requests: u64,
}

/// # Errors
/// The query is not what it has to be.
pub fn top(admin: &Admin, query: &[(String, String)]) -> Result<TopReport, Refusal> {
    let mut count = TOP;
    for (name, value) in query {
        count = match (name.as_str(), value.parse()) {
            ("n", Ok(count @ 1..=MAX_TOP)) => count,
            ("n", _) => return Err(Refusal::Query(format!("n must be a number from 1 to {MAX_TOP}."))),
            _ => return Err(unknown_parameter(name)),
        };
    }
    let top = admin.proxy.cache.hottest.top(count).into_iter();
    Ok(TopReport {
        top: top
            .map(|hot| TopKey {
                url: hot.url,
                requests: hot.requests,
            })
            .collect(),
    })
}

/// # Errors
/// The query is not what it has to be.
pub async fn stored(admin: &Admin, query: &[(String, String)]) -> Result<StoredReport, Refusal> {
    let mut url = None;
    let mut headers = Vec::new();
    let mut from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for (name, value) in query {
        match name.as_str() {
            "url" if value.len() > LONGEST_URL => {
                return Err(Refusal::Query(format!("url is longer than {LONGEST_URL} bytes.")));
            }
            "url" => url = Some(value.clone()),
            "header" if headers.len() >= MAX_HEADERS => {
                return Err(Refusal::Query(format!("There are more than {MAX_HEADERS} headers.")));
            }
            "header" => headers.push(value.clone()),
            "from" => {
                let wrong = |_| Refusal::Query("from must be an IP address.".to_owned());
                from = value.parse().map_err(wrong)?;
            }
            _ => return Err(unknown_parameter(name)),
        }
    }
    let url = url.ok_or_else(|| Refusal::Query("url is missing, like ?url=http://example.com/.".to_owned()))?;
    let asked = Asked::get(&url, headers, from).map_err(|wrong| Refusal::Query(format!("{wrong}.")))?;
    let generation = admin.proxy.generation();
    let now = Timestamp::from(admin.proxy.clock.now());
    let mut report = StoredReport {
        url,
        route: None,
        decision: None,
        reason: None,
        requests: 0,
        l2: admin.proxy.cache.l2.as_ref().map(|_| "unavailable".to_owned()),
        variants: Vec::new(),
        explanation: explain::explanation(&asked, &generation, now)
            .lines()
            .map(str::to_owned)
            .collect(),
    };
    let Ok(Some((request, _))) = request::parse(&asked.request_text(), &Limits::DEFAULT, asked.url.scheme) else {
        return Ok(report);
    };
    let Ok(selected) = generation.router.select(&request) else {
        return Ok(report);
    };
    let Some(route) = generation.routes.get(selected.index) else {
        return Ok(report);
    };
    report.route = Some(route.name.to_string());
    let Some(rules) = &route.cache else {
        return Ok(report);
    };
    if let Some((reason, _)) = cached::passed_by(&request) {
        report.decision = Some("forward".to_owned());
        report.reason = Some(reason.as_str().to_owned());
        return Ok(report);
    }
    let is_tcp = generation
        .config
        .listeners
        .iter()
        .any(|listener| matches!(listener.address, ListenAddress::Tcp(_)));
    let peer = is_tcp.then_some(asked.from);
    let client = client_address(peer, &request.fields, &generation.config.trusted_proxies);
    let key = cached::key(&request, rules, client.trust);
    report.requests = admin.proxy.cache.hottest.requests(&key);
    let variants = admin.proxy.cache.memory.peek(&key);
    let chosen = variants
        .as_ref()
        .and_then(|variants| select(variants.iter().map(|stored| (stored, &stored.meta)), &request.fields));
    let decision = match (&chosen, &variants) {
        (Some(stored), _) => reuse(&request, &stored.meta, now, &rules.reuse),
        (None, Some(_)) => without_stored(&request.fields, Forward::VaryMiss, &rules.reuse),
        (None, None) => without_stored(&request.fields, Forward::UriMiss, &rules.reuse),
    };
    let inspected = match admin.proxy.cache.l2.as_ref().filter(|l2| l2.is_available()) {
        Some(l2) => {
            let inspected = l2.inspect(&key, &route.name, &request.fields).await;
            report.l2 = Some(if inspected.is_some() { "stored" } else { "none" }.to_owned());
            inspected
        }
        None => None,
    };
    // As a request is: memory first.
    let from_l2 = inspected
        .as_ref()
        .filter(|_| !matches!(decision, Reuse::Fresh(_)))
        .map(|inspected| reuse(&request, &inspected.stored.meta, now, &rules.reuse))
        .filter(|decision| matches!(decision, Reuse::Fresh(_)));
    let chosen = chosen.filter(|_| from_l2.is_none());
    let from_l2 = from_l2.as_ref();
    let (decision, reason) = match from_l2.unwrap_or(&decision) {
        Reuse::Fresh(_) => ("hit", None),
        Reuse::Stale(why, _) => ("stale", Some(why.as_str())),
        Reuse::Validate(reason) => ("validate", Some(reason.as_str())),
        Reuse::Forward(reason) => ("forward", Some(reason.as_str())),
        Reuse::GatewayTimeout => ("gateway-timeout", None),
    };
    report.decision = Some(decision.to_owned());
    report.reason = reason.map(str::to_owned);
    for stored in variants.iter().flat_map(|variants| variants.iter()) {
        let is_chosen = chosen.is_some_and(|chosen| std::sync::Arc::ptr_eq(chosen, stored));
        report.variants.push(variant(stored, now, is_chosen));
    }
    if let Some(inspected) = &inspected {
        report.variants.push(VariantReport {
            tier: "l2".to_owned(),
            size_bytes: inspected.bytes,
            kept_seconds: Some(inspected.kept_for.as_secs()),
            ..variant(&inspected.stored, now, from_l2.is_some())
        });
    }
    Ok(report)
}

/// A GET for a URL, as the front door would read it.
///
/// # Errors
/// In words: there cannot be such a request.
pub fn request_for(url: &str) -> Result<RequestHead, String> {
    request_with(url, Vec::new())
}

/// As [`request_for`], with these fields (`Name: value`).
///
/// # Errors
/// In words: there cannot be such a request.
pub fn request_with(url: &str, fields: Vec<String>) -> Result<RequestHead, String> {
    let asked = Asked::get(url, fields, IpAddr::V4(Ipv4Addr::LOCALHOST)).map_err(|wrong| wrong.to_string())?;
    match request::parse(&asked.request_text(), &Limits::DEFAULT, asked.url.scheme) {
        Ok(Some((request, _))) => Ok(request),
        Ok(None) => Err(format!("the URL {url:?} is none that can be asked for")),
        Err(error) => Err(format!("the URL {url:?} is none that can be asked for ({error})")),
    }
}

fn variant(stored: &Stored, now: Timestamp, selected: bool) -> VariantReport {
    let fields = stored.fields.unpack();
    let field = |name: &str| {
        fields
            .get(name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let (mut tags, mut groups) = (Vec::new(), Vec::new());
    for label in stored.meta.labels().map_or(&[][..], |labels| labels.as_slice()) {
        match label_names::of(*label) {
            Some(LabelName::Tag(name)) => tags.push(name.into()),
            Some(LabelName::Group(name)) => groups.push(name.into()),
            None => tags.push(format!("#{:016x}", label.as_u64())),
        }
    }
    tags.sort_unstable();
    groups.sort_unstable();
    VariantReport {
        kept_seconds: None,
        tags,
        groups,
        tier: "l1".to_owned(),
        status: stored.meta.status,
        age: u64::from(stored.meta.age_seconds(now).get()),
        ttl: stored.meta.ttl(now),
        fresh: stored.meta.is_fresh(now),
        body_bytes: stored.body.len() as u64,
        size_bytes: stored.size(),
        vary: stored
            .meta
            .variant
            .nominated()
            .map(|(name, value)| VaryField {
                name: name.to_owned(),
                value: value.map(|value| String::from_utf8_lossy(value).into_owned()),
            })
            .collect(),
        content_type: field("content-type"),
        etag: field("etag"),
        selected,
    }
}

fn unknown_parameter(name: &str) -> Refusal {
    Refusal::Query(format!("{name:?} is not a parameter of this endpoint."))
}
