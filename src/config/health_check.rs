use std::ops::RangeInclusive;
use std::time::Duration;

/// How servers are asked whether they are well.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    pub question: Question,
    /// Between two questions to a server, give or take a tenth.
    pub interval: Duration,
    /// For connection and answer together.
    pub timeout: Duration,
    /// Bad answers in a row until a server is left out. At least 1.
    pub unhealthy_threshold: u32,
    /// Good answers in a row until it is used again. At least 1.
    pub healthy_threshold: u32,
    pub unchecked: Unchecked,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// Whether it accepts a connection, TLS included.
    Connection,
    /// What it answers to a GET.
    Http(HttpQuestion),
}

#[derive(Debug, Clone, PartialEq)]
pub struct HttpQuestion {
    /// In origin form, with a query if it has one.
    pub path: String,
    /// What is sent as `Host`. `None`: the name that the upstream sends, or the server's address.
    pub host: Option<String>,
    /// At least one.
    pub expect_status: Vec<RangeInclusive<u16>>,
    /// Has to be in the beginning of the body. `None`: the body does not matter.
    pub expect_body: Option<String>,
}

/// Servers that have not been asked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unchecked {
    /// They get requests.
    Use,
    LeaveOut,
}
