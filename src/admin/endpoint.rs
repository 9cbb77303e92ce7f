//! Every endpoint there is: out of this table requests are dispatched, and the OpenAPI document is made.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Method;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::answer::{Answer, Refusal};
use super::{Admin, openapi, page, purge, stats, stored, tasks, upstreams, warm};

macro_rules! endpoints {
    ($($(#[doc = $summary:literal])+ $id:ident = $method:ident $path:literal $guard:ident;)*) => {
        /// One thing that can be asked for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Endpoint { $($(#[doc = $summary])+ $id,)* }

        impl Endpoint {
            pub const ALL: &'static [Self] = &[$(Self::$id),*];

            pub fn method(self) -> Method {
                match self { $(Self::$id => Method::$method,)* }
            }

            /// The path; `{name}` stands for any one segment.
            pub fn path(self) -> &'static str {
                match self { $(Self::$id => $path,)* }
            }

            pub fn guard(self) -> Guard {
                match self { $(Self::$id => Guard::$guard,)* }
            }

            /// One line about it.
            pub fn summary(self) -> &'static str {
                match self { $(Self::$id => concat!($($summary),+).trim_ascii(),)* }
            }

            /// Its name in the document.
            pub fn id(self) -> &'static str {
                match self { $(Self::$id => stringify!($id),)* }
            }
        }
    };
}

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Everybody who reaches the listener: it says nothing about this Forebay.
    Open,
    /// Whoever has the token, where there is one.
    Token,
}

endpoints! {
    /// The dashboard, a page for browsers.
    Page = GET "/" Open;
    /// This description.
    OpenApi = GET "/openapi.json" Open;
    /// Figures: requests, rates, latencies, hit ratios, memory, upstreams.
    Stats = GET "/stats" Token;
    /// The configuration in force as it was typed, secrets masked.
    Config = GET "/config" Token;
    /// What is stored for a URL, and what would become of a request for it.
    Stored = GET "/cache" Token;
    /// The keys that are asked for most.
    Top = GET "/cache/top" Token;
    /// Take stored responses out of use.
    Purge = POST "/purge" Token;
    /// Fill the cache before clients ask; the answer is a task.
    Warm = POST "/warm" Token;
    /// Upstreams with their servers.
    Upstreams = GET "/upstreams" Token;
    /// Give a server no new requests; those under way go on.
    Drain = POST "/upstreams/{upstream}/servers/{server}/drain" Token;
    /// Give a drained server requests again.
    Enable = POST "/upstreams/{upstream}/servers/{server}/enable" Token;
    /// What works, or has worked, in the background.
    Tasks = GET "/tasks" Token;
    /// One task.
    Task = GET "/tasks/{id}" Token;
    /// Cancel a task that waits or runs.
    CancelTask = DELETE "/tasks/{id}" Token;
}

/// The values of a path's `{name}` segments.
pub type Parameters = BTreeMap<&'static str, String>;

/// An endpoint with what the path says.
#[derive(Debug)]
pub struct Found {
    pub endpoint: Endpoint,
    pub parameters: Parameters,
}

impl Endpoint {
    /// Which endpoint a request is for.
    pub fn find(method: &Method, path: &str) -> Result<Found, Refusal> {
        let mut allowed = Vec::new();
        for endpoint in Self::ALL.iter().copied() {
            let Some(parameters) = matched(endpoint.path(), path) else {
                continue;
            };
            if endpoint.method() == *method {
                return Ok(Found { endpoint, parameters });
            }
            allowed.push(endpoint.method());
        }
        match allowed.is_empty() {
            true => Err(Refusal::NotFound),
            false => {
                if allowed.contains(&Method::GET) {
                    allowed.push(Method::HEAD);
                }
                let names: Vec<_> = allowed.iter().map(Method::as_str).collect();
                Err(Refusal::Method(names.join(", ")))
            }
        }
    }

    pub fn takes_body(self) -> bool {
        openapi::body(self).is_some()
    }
}

/// The values of the template's names, if the path is of its form.
fn matched(template: &'static str, path: &str) -> Option<Parameters> {
    let mut parameters = Parameters::new();
    let mut segments = path.split('/');
    for wanted in template.split('/') {
        let segment = segments.next()?;
        match wanted.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => {
                let value = percent_decode_str(segment).decode_utf8().ok()?;
                if value.is_empty() {
                    return None;
                }
                parameters.insert(name, value.into_owned());
            }
            None if wanted == segment => {}
            None => return None,
        }
    }
    match segments.next() {
        Some(_) => None,
        None => Some(parameters),
    }
}

impl Admin {
    /// Does what is asked for.
    pub(super) async fn endpoint(
        &self,
        endpoint: Endpoint,
        parameters: &Parameters,
        query: &str,
        body: &Bytes,
    ) -> Result<Answer, Refusal> {
        let named = |name| parameters.get(name).map(String::as_str).unwrap_or_default();
        Ok(match endpoint {
            Endpoint::Page => page::page(),
            Endpoint::OpenApi => Answer::ok(&openapi::document()),
            Endpoint::Stats => Answer::ok(&stats::stats(self)),
            Endpoint::Config => Answer::ok(&*self.proxy.generation().config.shown.0),
            Endpoint::Stored => Answer::ok(&stored::stored(self, &pairs(query)?).await?),
            Endpoint::Top => Answer::ok(&stored::top(self, &pairs(query)?)?),
            Endpoint::Purge => purge::purge(self, parsed(body)?).await?,
            Endpoint::Warm => warm::warm(self, parsed(body)?).await?,
            Endpoint::Upstreams => Answer::ok(&upstreams::upstreams(&self.proxy.generation())),
            Endpoint::Drain => {
                let generation = self.proxy.generation();
                let change = upstreams::Change::Drain;
                Answer::ok(&upstreams::change(
                    &generation,
                    named("upstream"),
                    named("server"),
                    change,
                )?)
            }
            Endpoint::Enable => {
                let generation = self.proxy.generation();
                let change = upstreams::Change::Enable;
                Answer::ok(&upstreams::change(
                    &generation,
                    named("upstream"),
                    named("server"),
                    change,
                )?)
            }
            Endpoint::Tasks => Answer::ok(&tasks::TaskList {
                tasks: self.tasks.all(),
            }),
            Endpoint::Task => Answer::ok(&self.tasks.one(named("id"))?),
            Endpoint::CancelTask => Answer::ok(&self.tasks.cancel(named("id"))?),
        })
    }
}

/// Reads a body, which is always an object: members by position would be another interface.
fn parsed<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refusal::Body("The body must be a JSON object.".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| Refusal::Body(format!("The body is not what it has to be: {error}.")))
}

/// The pairs of a query (application/x-www-form-urlencoded).
fn pairs(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        let decoded = percent_decode_str(&spaced)
            .decode_utf8()
            .map(std::borrow::Cow::into_owned);
        decoded.map_err(|_| Refusal::Query("The query is not UTF-8.".to_owned()))
    };
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_endpoints() {
        for (method, path, expected) in [
            (Method::GET, "/stats", Some(Endpoint::Stats)),
            (Method::GET, "/cache/top", Some(Endpoint::Top)),
            (Method::GET, "/tasks/t1", Some(Endpoint::Task)),
            (Method::DELETE, "/tasks/t1", Some(Endpoint::CancelTask)),
            (
                Method::POST,
                "/upstreams/app/servers/127.0.0.1%3A80/drain",
                Some(Endpoint::Drain),
            ),
            (Method::GET, "/stats/", None),
            (Method::GET, "//stats", None),
            (Method::GET, "/tasks/", Option::None),
            (Method::GET, "/tasks/%FF", None),
            (Method::POST, "/stats", None),
        ] {
            let found = Endpoint::find(&method, path);
            assert_eq!(found.ok().map(|found| found.endpoint), expected, "{method} {path}");
        }
        let found = Endpoint::find(&Method::POST, "/upstreams/app/servers/unix%3A%2Frun%2Fa/drain").unwrap();
        assert_eq!(found.parameters["server"], "unix:/run/a");
        let refused = Endpoint::find(&Method::PUT, "/tasks/1").unwrap_err();
        assert_eq!(refused, Refusal::Method("GET, DELETE, HEAD".to_owned()));
    }
}
