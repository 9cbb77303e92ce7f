//! Tokens of language models: what a request asks for, as far as it says, and what its answer says that it took.
//!
//! An estimate is taken from limits when the request comes, and set right when the answer is over. The answer is looked through as it
//! passes: nothing of it is held, or held up.

pub mod events;
pub mod json;
pub mod meter;

use self::json::{Scanner, Visit, Word, tokens_of};
use self::meter::is_json;
use crate::message::{Framing, RequestHead};

/// Bytes of a request body that is read before its limits are asked: a long conversation. Of a larger one its length counts.
pub const LARGEST_READ: u64 = 256 * 1024;

/// More than any model takes for one request; a number beyond is none.
const MOST: u64 = 100_000_000;

/// What a request is taken to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    pub prompt: u64,
    /// `None`: it does not say how many it wants.
    pub answer: Option<u64>,
}

impl Estimate {
    /// Of a request without a body. It is let in as long as there is something left.
    pub const NOTHING: Self = Self {
        prompt: 0,
        answer: Some(0),
    };

    /// Of a request whose body nobody has read.
    pub fn of_head(request: &RequestHead) -> Self {
        match request.framing {
            Framing::None => Self::NOTHING,
            Framing::Length(bytes) => Self::of_length(bytes),
            Framing::Chunked | Framing::Stream | Framing::Close => Self::of_length(0),
        }
    }

    /// Of a body of so many bytes.
    pub fn of_length(bytes: u64) -> Self {
        Self {
            prompt: rounded(tokens_of(bytes)),
            answer: None,
        }
    }
}

/// Whether the request's body is to be read before its limits are asked. One that its client sends only when it is told to is not: whether
/// it is wanted, the server says (RFC 9110 §10.1.1).
pub fn is_read(request: &RequestHead) -> bool {
    let fits = match request.framing {
        Framing::None => false,
        Framing::Length(bytes) => bytes <= LARGEST_READ,
        Framing::Chunked | Framing::Stream | Framing::Close => true,
    };
    let is_plain = !request.fields.contains("content-encoding");
    fits && is_plain && !request.expects_continue && request.fields.get("content-type").is_some_and(is_json)
}

/// What an answer has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    /// No server was asked, or it refused.
    Nothing,
    /// A server was asked and has said nothing.
    Prompt,
    /// Nobody can tell.
    Unknown,
    /// As the answer says.
    Told(u64),
    /// What came of it, where it does not say, or broke off before it did.
    Seen {
        /// `None`: it did not get that far.
        prompt: Option<u64>,
        answer: u64,
    },
}

/// Whole tokens, of which a part counts as one.
fn rounded(tokens: f64) -> u64 {
    // Saturates.
    tokens.ceil() as u64
}

/// Reads a request in JSON.
#[derive(Debug, Default)]
pub struct PromptReader {
    scanner: Scanner,
    asked: Asked,
}

#[derive(Debug, Default)]
struct Asked {
    text: f64,
    most: Option<u64>,
    answers: u64,
}

impl PromptReader {
    /// The next piece of the body.
    pub fn pass(&mut self, data: &[u8]) {
        self.scanner.pass(data, &mut self.asked);
    }

    /// The whole body has been read.
    pub fn finish(self) -> Estimate {
        let Asked { text, most, answers } = self.asked;
        Estimate {
            prompt: rounded(text),
            answer: most.map(|most| most.saturating_mul(answers.max(1)).min(MOST)),
        }
    }
}

impl Visit for Asked {
    fn number(&mut self, path: &[Word], value: u64) {
        match path {
            [Word::MaxTokens] | [Word::Settings, Word::MaxTokens] => {
                self.most = Some(self.most.map_or(value, |most| most.max(value)));
            }
            [Word::Answers] | [Word::Settings, Word::Answers] => self.answers = value,
            _ => {}
        }
    }

    fn text(&mut self, _: &[Word], tokens: f64) {
        self.text += tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_requests_ask_for() {
        for (body, prompt, answer) in [
            (
                r#"{"model":"m","messages":[{"role":"user","content":"12345678901234567890"}],"max_tokens":100}"#,
                7,
                Some(100),
            ),
            (
                r#"{"input":"1234","max_completion_tokens": 50 , "max_tokens":20}"#,
                1,
                Some(50),
            ),
            (r#"{"max_tokens":10,"n":3}"#, 0, Some(30)),
            (
                r#"{"generationConfig":{"maxOutputTokens":7,"candidateCount":2}}"#,
                0,
                Some(14),
            ),
            (r#"{"prompt":"1234","options":{"num_predict":9}}"#, 1, Some(9)),
            (r#"{"messages":[{"max_tokens":5,"content":"max_tokens"}]}"#, 3, None),
            (r#"{"max_tokens":18446744073709551615,"n":9}"#, 0, Some(MOST)),
            (r#"{"max_tokens":null}"#, 0, None),
            ("no JSON at all", 0, None),
        ] {
            let mut reader = PromptReader::default();
            body.as_bytes().chunks(3).for_each(|piece| reader.pass(piece));
            assert_eq!(reader.finish(), Estimate { prompt, answer }, "{body}");
        }
        assert_eq!(Estimate::of_length(4001).prompt, 1001);
    }
}
