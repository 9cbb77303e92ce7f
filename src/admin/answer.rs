//! What the listener answers, and every way in which it refuses.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use schemars::JsonSchema;
use serde::Serialize;

/// One answer.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    content_type: &'static str,
    fields: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Answer {
    pub fn ok(value: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, value)
    }

    pub fn json(status: StatusCode, value: &impl Serialize) -> Self {
        Self::of(status, "application/json", value)
    }

    /// A page, with the policy that holds for it (Content Security Policy Level 3).
    pub fn page(body: &'static str, policy: HeaderValue) -> Self {
        let fields = vec![
            (http::header::CONTENT_SECURITY_POLICY, policy),
            (http::header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
            (http::header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ];
        Self {
            status: StatusCode::OK,
            content_type: "text/html; charset=utf-8",
            fields,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    fn of(status: StatusCode, content_type: &'static str, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self {
                status,
                content_type,
                fields: Vec::new(),
                body: body.into(),
            },
            Err(error) => {
                tracing::error!(%error, "an answer of the admin listener cannot be written");
                Self {
                    status: StatusCode::INTERNAL_SERVER_ERROR,
                    content_type: "text/plain",
                    fields: Vec::new(),
                    body: Bytes::new(),
                }
            }
        }
    }

    pub fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
        for (name, value) in self.fields {
            headers.insert(name, value);
        }
        response
    }
}

/// Problem details (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
pub struct Problem {
    /// Always `about:blank`: the title is that of the status.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// One word for programs.
    pub reason: String,
}

/// Why a request is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// `Host` is missing, or a name that anybody could point here.
    Host,
    /// A page of another origin sent it.
    Origin,
    Token,
    NotFound,
    /// With the methods that there are.
    Method(String),
    MediaType,
    BodyTooLarge,
    BodyTimeout,
    /// The body is not what it has to be.
    Body(String),
    /// The same for the query.
    Query(String),
    /// What the path names is not there.
    Unknown(String),
    /// What is asked for cannot be done now.
    Conflict(String),
    TooManyTasks,
}

impl Refusal {
    fn describe(&self) -> (StatusCode, &'static str, &str) {
        match self {
            Self::Host => (
                StatusCode::FORBIDDEN,
                "host",
                "Host must be an address or localhost: a name could have been pointed here by anybody.",
            ),
            Self::Origin => (
                StatusCode::FORBIDDEN,
                "origin",
                "The request comes from a page of another origin.",
            ),
            Self::Token => (
                StatusCode::UNAUTHORIZED,
                "token",
                "The request needs the token of this listener: Authorization: Bearer TOKEN.",
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not-found",
                "There is no such endpoint: see /openapi.json.",
            ),
            Self::Method(_) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "The endpoint has other methods.",
            ),
            Self::MediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "media-type",
                "The body must be application/json, and say so in Content-Type.",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "The body is larger than 4 MiB: send it in several requests.",
            ),
            Self::BodyTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "body-timeout",
                "The body did not come in time.",
            ),
            Self::Body(detail) => (StatusCode::BAD_REQUEST, "body", detail),
            Self::Query(detail) => (StatusCode::BAD_REQUEST, "query", detail),
            Self::Unknown(detail) => (StatusCode::NOT_FOUND, "unknown", detail),
            Self::Conflict(detail) => (StatusCode::CONFLICT, "conflict", detail),
            Self::TooManyTasks => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-tasks",
                "Too many tasks are waiting or running.",
            ),
        }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let (status, reason, detail) = refusal.describe();
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: detail.to_owned(),
            reason: reason.to_owned(),
        };
        let mut answer = Self::of(status, "application/problem+json", &problem);
        match &refusal {
            Refusal::Method(allowed) => {
                if let Ok(allowed) = HeaderValue::from_str(allowed) {
                    answer.fields.push((ALLOW, allowed));
                }
            }
            Refusal::Token => {
                let challenge = HeaderValue::from_static("Bearer realm=\"forebay\"");
                answer.fields.push((WWW_AUTHENTICATE, challenge));
            }
            _ => {}
        }
        answer
    }
}
