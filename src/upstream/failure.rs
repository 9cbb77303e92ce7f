//! What a failed attempt at a server is called: in the answer to the client, and in the metrics.

use std::time::Duration;

use super::connect::ConnectError;
use super::origin::OriginError;
use super::retry::Failed;
use super::tls;
use crate::http1::SyntaxError;
use crate::http1::response::ResponseError;
use crate::metrics::Outcome;
use crate::respond::error::ProxyError;

/// When a client may ask again that found every server busy. They are at work, so it will not be long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl ConnectError {
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Timeout(_) | Self::Tls(tls::ConnectError::Timeout) => Outcome::ConnectTimeout,
            Self::Tls(_) => Outcome::TlsError,
            Self::Shared(error) => error.outcome(),
            Self::NoServer
            | Self::QueueFull
            | Self::QueueTimeout(_)
            | Self::Name(..)
            | Self::Refused
            | Self::Unreachable(_)
            | Self::Http2(_) => Outcome::ConnectError,
        }
    }
}

impl ConnectError {
    /// Whether a server was tried, and could not be connected to.
    pub fn speaks_against_servers(&self) -> bool {
        !matches!(self, Self::NoServer | Self::QueueFull | Self::QueueTimeout(_))
    }
}

impl From<&ConnectError> for ProxyError {
    fn from(error: &ConnectError) -> Self {
        match error {
            ConnectError::NoServer => Self::NoServer,
            ConnectError::QueueFull | ConnectError::QueueTimeout(_) => Self::Overloaded {
                retry_after: Some(RETRY_AFTER),
            },
            ConnectError::Name(..) => Self::UpstreamName,
            ConnectError::Refused => Self::UpstreamRefused,
            ConnectError::Timeout(_) | ConnectError::Tls(tls::ConnectError::Timeout) => Self::ConnectTimeout,
            ConnectError::Unreachable(_) => Self::UpstreamUnreachable,
            ConnectError::Tls(tls::ConnectError::Certificate(_)) => Self::UpstreamCertificate,
            ConnectError::Tls(_) => Self::UpstreamTls,
            ConnectError::Http2(_) => Self::UpstreamProtocol,
            ConnectError::Shared(error) => Self::from(&**error),
        }
    }
}

impl OriginError {
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Closed(_) | Self::Untaken(_) => Outcome::Reset,
            Self::Cut(_) | Self::Body(_) => Outcome::Incomplete,
            Self::Head(_) | Self::Http2(_) => Outcome::InvalidResponse,
            Self::FirstByteTimeout(_) | Self::BetweenBytesTimeout(_) | Self::SendTimeout(_) => Outcome::Timeout,
        }
    }

    /// What it means for another attempt, at a server that has got `written` bytes of an HTTP/1.1 request.
    pub fn failed(&self, written: Option<u64>) -> Failed {
        match self {
            Self::Untaken(_) => Failed::Untaken,
            Self::Closed(_) | Self::SendTimeout(_) if written == Some(0) => Failed::Untaken,
            Self::Closed(_) | Self::Cut(_) => Failed::Lost,
            Self::FirstByteTimeout(_) | Self::BetweenBytesTimeout(_) | Self::SendTimeout(_) => Failed::TimedOut,
            // The same would come again.
            Self::Head(_) | Self::Body(_) | Self::Http2(_) => Failed::Finally,
        }
    }

    /// Why a response that had begun broke off.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BetweenBytesTimeout(_) => "upstream-silent",
            Self::Body(error) => error.as_str(),
            _ => "upstream-cut",
        }
    }
}

impl From<&OriginError> for ProxyError {
    fn from(error: &OriginError) -> Self {
        match error {
            OriginError::Closed(_) | OriginError::Untaken(_) => Self::UpstreamClosed,
            OriginError::Cut(_) => Self::UpstreamCut,
            OriginError::Head(ResponseError::Syntax(SyntaxError::HeadTooLarge | SyntaxError::TooManyFields)) => {
                Self::UpstreamHeadTooLarge
            }
            OriginError::Head(_) | OriginError::Body(_) => Self::UpstreamMalformed,
            OriginError::Http2(_) => Self::UpstreamProtocol,
            OriginError::FirstByteTimeout(_) => Self::FirstByteTimeout,
            OriginError::BetweenBytesTimeout(_) => Self::UpstreamSilent,
            OriginError::SendTimeout(_) => Self::SendTimeout,
        }
    }
}
