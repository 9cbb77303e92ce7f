//! Why an exchange did not come to a good end, as far as the client is concerned.

use super::recode::RecodeError;
use super::relay::RelayError;
use crate::cache::filling::Broken;
use crate::edge::client::ClientError;
use crate::limit::rate::TooMany;
use crate::respond::error::ProxyError;
use crate::respond::refusal;
use crate::transform::fields::ForwardRefusal;
use crate::upstream::ConnectError;

#[derive(Debug)]
pub enum Failure {
    /// The client gets an error response, if none has begun.
    Refused(ProxyError),
    /// It is told which of its limits the request is too much for.
    TooMany(TooMany),
    /// The client left: there is nobody to tell.
    ClientGone,
    /// The response had begun and is not whole.
    Broken(&'static str),
}

impl Failure {
    /// One word for log and metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(error) => error.reason(),
            Self::TooMany(_) => refusal::REASON,
            Self::ClientGone => "client-gone",
            Self::Broken(reason) => reason,
        }
    }
}

impl From<ProxyError> for Failure {
    fn from(error: ProxyError) -> Self {
        Self::Refused(error)
    }
}

impl From<TooMany> for Failure {
    fn from(too_many: TooMany) -> Self {
        Self::TooMany(too_many)
    }
}

impl From<&ConnectError> for Failure {
    fn from(error: &ConnectError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<&RelayError> for Failure {
    /// Before the response's head was sent.
    fn from(error: &RelayError) -> Self {
        match error {
            RelayError::Client(ClientError::Gone(_)) => Self::ClientGone,
            RelayError::Client(ClientError::Body(error)) => Self::Refused(ProxyError::MalformedBody(*error)),
            RelayError::RequestTimeout(_) => Self::Refused(ProxyError::BodyTimeout),
            RelayError::RequestTooLarge(_) => Self::Refused(ProxyError::BodyTooLarge),
            RelayError::ClientStalled(_) => Self::Broken("client-stalled"),
            RelayError::Origin(error) => Self::Refused(error.into()),
            RelayError::Fill(Broken::Cut(_)) => Self::Refused(ProxyError::UpstreamCut),
            RelayError::Fill(Broken::Silent) => Self::Refused(ProxyError::UpstreamSilent),
            RelayError::Fill(Broken::Deserted | Broken::Aborted) => Self::Refused(ProxyError::Internal),
            RelayError::Recode(RecodeError::Decode(_)) => Self::Refused(ProxyError::UpstreamMalformed),
            RelayError::Recode(RecodeError::Encode(_) | RecodeError::Aborted) => Self::Refused(ProxyError::Internal),
        }
    }
}

impl Failure {
    /// After the response's head was sent.
    pub(super) fn within_response(error: &RelayError) -> Self {
        match error {
            RelayError::Client(ClientError::Gone(_)) => Self::ClientGone,
            RelayError::Client(ClientError::Body(error)) => Self::Broken(error.as_str()),
            RelayError::RequestTimeout(_) => Self::Broken(ProxyError::BodyTimeout.reason()),
            RelayError::RequestTooLarge(_) => Self::Broken(ProxyError::BodyTooLarge.reason()),
            RelayError::ClientStalled(_) => Self::Broken("client-stalled"),
            RelayError::Origin(error) => Self::Broken(error.reason()),
            RelayError::Fill(broken) => Self::Broken(broken.reason()),
            RelayError::Recode(error) => Self::Broken(error.reason()),
        }
    }
}

impl From<ForwardRefusal> for ProxyError {
    fn from(refusal: ForwardRefusal) -> Self {
        match refusal {
            ForwardRefusal::Loop => Self::Loop,
            ForwardRefusal::Path(ambiguity) => Self::AmbiguousPath(ambiguity.reason()),
            ForwardRefusal::FinalRecipient => Self::Internal,
        }
    }
}
