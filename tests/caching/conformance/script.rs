//! How a case is written down.

/// What becomes of a cache that does otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It breaks a requirement of a standard.
    Required,
    /// It is right, but gives something away.
    Optimal,
    /// It is right either way; Forebay does as the case says.
    Check,
}

/// A number of requests for one URI, one after the other.
#[derive(Debug, Clone)]
pub struct Case {
    pub id: String,
    pub kind: Kind,
    pub steps: Vec<Step>,
    /// `Some`: what the suite expects is not what Forebay does, for this reason; the case says what it does.
    pub otherwise: Option<&'static str>,
}

pub fn case(kind: Kind, id: impl Into<String>, steps: impl IntoIterator<Item = Step>) -> Case {
    Case {
        id: id.into(),
        kind,
        steps: steps.into_iter().collect(),
        otherwise: None,
    }
}

pub fn required(id: impl Into<String>, steps: impl IntoIterator<Item = Step>) -> Case {
    case(Kind::Required, id, steps)
}

pub fn optimal(id: impl Into<String>, steps: impl IntoIterator<Item = Step>) -> Case {
    case(Kind::Optimal, id, steps)
}

pub fn check(id: impl Into<String>, steps: impl IntoIterator<Item = Step>) -> Case {
    case(Kind::Check, id, steps)
}

impl Case {
    /// Forebay does otherwise than the suite expects.
    pub fn otherwise(mut self, reason: &'static str) -> Self {
        self.otherwise = Some(reason);
        self
    }
}

/// A field's value.
#[derive(Debug, Clone)]
pub enum Value {
    Text(String),
    /// So many seconds from the time of the reply at hand: in the origin's fields its own, in a client's or an expected field that
    /// of the reply before.
    Date(i64),
    /// The same in the obsolete form with a two-digit year (RFC 9110 §5.6.7).
    OldDate(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(offset: i64) -> Self {
        Self::Date(offset)
    }
}

/// One request, what the origin says to it, and what has to come of it.
#[derive(Debug, Clone)]
pub struct Step {
    pub method: &'static str,
    /// Behind the case's own path.
    pub suffix: String,
    pub request: Vec<(String, Value)>,
    pub request_body: &'static str,
    pub reply: Reply,
    pub expected: Expected,
    /// Seconds that pass afterwards.
    pub wait: u64,
}

/// What the origin says if it is asked.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The origin closes the connection instead.
    pub cut: bool,
    pub interim: Vec<(u16, Vec<(&'static str, &'static str)>)>,
    pub status: u16,
    pub fields: Vec<ReplyField>,
    /// `None`: text of the case's own.
    pub body: Option<String>,
    /// Seconds that it takes.
    pub takes: u64,
}

#[derive(Debug, Clone)]
pub struct ReplyField {
    pub name: String,
    pub value: Value,
    /// Whether whoever causes the reply has to see it.
    pub seen: bool,
}

#[derive(Debug, Clone)]
pub struct Expected {
    pub source: Source,
    /// `None`: the reply's.
    pub status: Option<u16>,
    pub fields: Vec<(String, Value)>,
    pub missing: Vec<&'static str>,
    /// More than so many seconds.
    pub age_above: Option<u64>,
    pub body: ExpectedBody,
    /// What the origin has to be asked, and how.
    pub asked: Vec<(&'static str, String)>,
    pub asked_method: Option<&'static str>,
}

/// Who has to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Anybody,
    /// An earlier reply.
    Store,
    /// This step's reply.
    Origin,
    /// An earlier reply, which the origin has confirmed with a 304 to `If-None-Match`.
    ConfirmedByTag,
    /// The same with `If-Modified-Since`.
    ConfirmedByDate,
    /// Forebay itself, as there is nobody else.
    Nobody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedBody {
    /// That of the reply that answers.
    Its,
    Text(String),
    Any,
}

/// A GET, answered 200.
pub fn get() -> Step {
    Step {
        method: "GET",
        suffix: String::new(),
        request: Vec::new(),
        request_body: "",
        reply: Reply {
            cut: false,
            interim: Vec::new(),
            status: 200,
            fields: Vec::new(),
            body: None,
            takes: 0,
        },
        expected: Expected {
            source: Source::Anybody,
            status: None,
            fields: Vec::new(),
            missing: Vec::new(),
            age_above: None,
            body: ExpectedBody::Its,
            asked: Vec::new(),
            asked_method: None,
        },
        wait: 0,
    }
}

/// A GET whose response is fresh for long.
pub fn fresh() -> Step {
    get().says("Cache-Control", "max-age=100000")
}

/// A GET whose response is fresh for two seconds, and three seconds later.
pub fn soon_stale() -> Step {
    get().says("Cache-Control", "max-age=2").says("Template-A", "1").wait()
}

impl Step {
    pub fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// A method with content.
    pub fn sending(mut self, method: &'static str) -> Self {
        self.method = method;
        self.request_body = "abc";
        self
    }

    pub fn to(mut self, suffix: &str) -> Self {
        suffix.clone_into(&mut self.suffix);
        self
    }

    /// A field of the request.
    pub fn asks(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.request.push((name.to_owned(), value.into()));
        self
    }

    /// A field of the reply, that its client sees.
    pub fn says(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.reply.fields.push(ReplyField {
            name: name.to_owned(),
            value: value.into(),
            seen: true,
        });
        self
    }

    /// A field of the reply, whoever sees it.
    pub fn mentions(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.reply.fields.push(ReplyField {
            name: name.to_owned(),
            value: value.into(),
            seen: false,
        });
        self
    }

    pub fn status(mut self, status: u16) -> Self {
        self.reply.status = status;
        self
    }

    pub fn body(mut self, body: &str) -> Self {
        self.reply.body = Some(body.to_owned());
        self
    }

    pub fn interim(mut self, status: u16, fields: &[(&'static str, &'static str)]) -> Self {
        self.reply.interim.push((status, fields.to_vec()));
        self
    }

    /// The origin closes the connection instead of a reply.
    pub fn cut(mut self) -> Self {
        self.reply.cut = true;
        self
    }

    /// The origin takes so many seconds.
    pub fn takes(mut self, seconds: u64) -> Self {
        self.reply.takes = seconds;
        self
    }

    /// Three seconds pass afterwards.
    pub fn wait(mut self) -> Self {
        self.wait = 3;
        self
    }

    pub fn stored(self) -> Self {
        self.from(Source::Store)
    }

    pub fn fetched(self) -> Self {
        self.from(Source::Origin)
    }

    pub fn from(mut self, source: Source) -> Self {
        self.expected.source = source;
        self
    }

    pub fn gives(mut self, status: u16) -> Self {
        self.expected.status = Some(status);
        self
    }

    /// A field that the client has to get.
    pub fn shows(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.expected.fields.push((name.to_owned(), value.into()));
        self
    }

    /// A field that the client must not get.
    pub fn hides(mut self, name: &'static str) -> Self {
        self.expected.missing.push(name);
        self
    }

    pub fn older_than(mut self, seconds: u64) -> Self {
        self.expected.age_above = Some(seconds);
        self
    }

    pub fn text(mut self, body: &str) -> Self {
        self.expected.body = ExpectedBody::Text(body.to_owned());
        self
    }

    pub fn any_body(mut self) -> Self {
        self.expected.body = ExpectedBody::Any;
        self
    }

    /// A field that the origin has to be asked with.
    pub fn origin_sees(mut self, name: &'static str, value: &str) -> Self {
        self.expected.asked.push((name, value.to_owned()));
        self
    }

    pub fn origin_method(mut self, method: &'static str) -> Self {
        self.expected.asked_method = Some(method);
        self
    }
}
