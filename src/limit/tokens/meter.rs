//! What an answer of a language model says that it took, read as it passes.

use super::events::{EventData, Piece};
use super::json::{Scanner, Visit, Word};
use super::{MOST, Used, rounded};
use crate::message::Fields;
use crate::transform::compress::decode::Decoder;
use crate::transform::events::is_event_stream;
use crate::transform::negotiate::Coding;

/// Bytes of an answer that came compressed although it was asked for without a coding: beyond, nobody looks at it.
const LARGEST_DECODED: u64 = 256 * 1024 * 1024;

/// Looks through one answer.
#[derive(Debug)]
pub struct Meter {
    form: Form,
    /// `Some`: it came compressed.
    decoder: Option<Decoder>,
    scanner: Scanner,
    seen: Seen,
    is_error: bool,
}

#[derive(Debug)]
enum Form {
    Json,
    Events(EventData),
    /// Nothing that could be read.
    Other,
}

/// Each is what was said last: events tell sums.
#[derive(Debug, Default)]
struct Seen {
    prompt: Option<u64>,
    cache_written: u64,
    answer: Option<u64>,
    total: Option<u64>,
    /// What the model says, for so many tokens.
    text: f64,
}

impl Meter {
    /// For an answer with these fields, as it came from the server.
    pub fn new(status: u16, fields: &Fields) -> Self {
        let form = match fields.get("content-type") {
            Some(kind) if is_event_stream(kind) => Form::Events(EventData::default()),
            Some(kind) if is_json(kind) => Form::Json,
            _ => Form::Other,
        };
        let (form, decoder) = match (form, fields.get("content-encoding")) {
            (Form::Other, _) => (Form::Other, None),
            (form, None) => (form, None),
            (form, Some(coding)) => match coding.trim_ascii() {
                coding if coding.eq_ignore_ascii_case(b"identity") => (form, None),
                coding => match Coding::parse(coding).map(|coding| Decoder::new(coding, LARGEST_DECODED)) {
                    Some(Ok(decoder)) => (form, Some(decoder)),
                    Some(Err(_)) | None => (Form::Other, None),
                },
            },
        };
        Self {
            form,
            decoder,
            scanner: Scanner::default(),
            seen: Seen::default(),
            is_error: status >= 400,
        }
    }

    /// The next piece of the body.
    pub fn pass(&mut self, data: &[u8]) {
        match (&self.form, &mut self.decoder) {
            (Form::Other, _) => {}
            (_, None) => self.read(data),
            (_, Some(decoder)) => match decoder.decode(data) {
                Ok(data) => self.read(&data),
                Err(_) => (self.form, self.decoder) = (Form::Other, None),
            },
        }
    }

    fn read(&mut self, data: &[u8]) {
        let (scanner, seen) = (&mut self.scanner, &mut self.seen);
        match &mut self.form {
            Form::Json => scanner.pass(data, seen),
            Form::Events(events) => events.pass(data, |piece| match piece {
                Piece::Data(data) => scanner.pass(data, seen),
                // Ends a number.
                Piece::LineEnd => scanner.pass(b"\n", seen),
                Piece::EventEnd => *scanner = Scanner::default(),
            }),
            Form::Other => {}
        }
    }

    /// What it has taken, as far as can be seen.
    pub fn finish(&self, end: End) -> Used {
        let seen = &self.seen;
        if let Some(total) = seen.total {
            return Used::Told(total);
        }
        let prompt = seen.prompt.map(|prompt| prompt.saturating_add(seen.cache_written));
        let text = rounded(seen.text);
        if prompt.is_some() || seen.answer.is_some() {
            return Used::Seen {
                prompt,
                answer: match (seen.answer, end) {
                    (Some(answer), End::Whole) => answer,
                    // A stream begins with how little it has said so far.
                    (Some(answer), End::Broken) => answer.max(text),
                    (None, _) => text,
                },
            };
        }
        match self.form {
            _ if self.is_error => Used::Nothing,
            Form::Other => Used::Unknown,
            Form::Json | Form::Events(_) => Used::Seen {
                prompt: None,
                answer: text,
            },
        }
    }
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Whole,
    /// The server or the client broke it off.
    Broken,
}

impl End {
    /// Of what came of passing it on.
    pub fn of<T, E>(result: &Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::Whole,
            Err(_) => Self::Broken,
        }
    }
}

impl Visit for Seen {
    fn number(&mut self, path: &[Word], value: u64) {
        let word = match path {
            // In the answer, or in what an event tells of it (`message`, `response`).
            [Word::Usage, word] | [_, Word::Usage, word] => *word,
            // Ollama.
            [word @ (Word::Input | Word::Output)] => *word,
            _ => return,
        };
        if value > MOST {
            return;
        }
        match word {
            Word::Input => self.prompt = Some(value),
            Word::Output => self.answer = Some(value),
            Word::Total => self.total = Some(value),
            Word::CacheWritten => self.cache_written = value,
            _ => {}
        }
    }

    fn text(&mut self, path: &[Word], tokens: f64) {
        if path.last() == Some(&Word::Text) {
            self.text += tokens;
        }
    }
}

/// Whether a `Content-Type` is JSON, or lines of it.
pub fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|b| *b == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    matches!(
        essence.as_slice(),
        b"application/json" | b"application/x-ndjson" | b"application/jsonl" | b"application/json-seq"
    ) || essence.ends_with(b"+json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::compress::encode::encode;

    fn meter(status: u16, kind: &str, coding: Option<&str>) -> Meter {
        let mut fields = Fields::new();
        fields.push("Content-Type", kind);
        if let Some(coding) = coding {
            fields.push("Content-Encoding", coding);
        }
        Meter::new(status, &fields)
    }

    fn used(kind: &str, pieces: &[&[u8]], end: End) -> Used {
        let mut meter = meter(200, kind, None);
        pieces.iter().for_each(|piece| meter.pass(piece));
        meter.finish(end)
    }

    const SSE: &str = "text/event-stream";

    const OPENAI: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"12345678\"}}],\"usage\":null}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}}\n\n\
        data: [DONE]\n\n";

    const ANTHROPIC: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":\
        {\"input_tokens\":25,\"cache_creation_input_tokens\":5,\"cache_read_input_tokens\":900,\"output_tokens\":1}}}\n\n\
        event: content_block_delta\ndata: {\"delta\":{\"type\":\"text_delta\",\"text\":\"1234567890ab\"}}\n\n\
        event: message_delta\ndata: {\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":15}}\n\n";

    #[test]
    fn usage_is_found_at_every_cut() {
        let responses = "data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":4,\"output_tokens\":2,\"total_tokens\":6}}}\r\n\r\n";
        let anthropic = Used::Seen {
            prompt: Some(30),
            answer: 15,
        };
        let json = "application/json; charset=utf-8";
        for (kind, body, expected) in [
            (SSE, OPENAI, Used::Told(15)),
            (SSE, ANTHROPIC, anthropic),
            (SSE, responses, Used::Told(6)),
            (
                json,
                "{\"usage\":{\"prompt_tokens\":1,\"total_tokens\":3}}",
                Used::Told(3),
            ),
            (
                json,
                "[{\"usageMetadata\":{\"totalTokenCount\":4}},{\"usageMetadata\":{\"totalTokenCount\":9}}]",
                Used::Told(9),
            ),
            (
                "application/x-ndjson",
                "{\"response\":\"a\"}\n{\"prompt_eval_count\":7,\"eval_count\":8}\n",
                Used::Seen {
                    prompt: Some(7),
                    answer: 8,
                },
            ),
        ] {
            for at in 0..body.len() {
                let (a, b) = body.as_bytes().split_at(at);
                assert_eq!(used(kind, &[a, b], End::Whole), expected, "{body} cut at {at}");
            }
            let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
            assert_eq!(used(kind, &bytes, End::Whole), expected);
        }
    }

    #[test]
    fn what_broke_off_is_counted_by_what_was_seen() {
        let cut = |body: &'static str, at: &str| &body.as_bytes()[..body.find(at).unwrap()];
        let seen = |prompt, answer| Used::Seen { prompt, answer };
        assert_eq!(
            used(SSE, &[cut(OPENAI, "data: {\"choices\":[],")], End::Broken),
            seen(None, 2)
        );
        assert_eq!(
            used(SSE, &[cut(ANTHROPIC, "event: message_delta")], End::Broken),
            seen(Some(30), 3)
        );
        assert_eq!(
            used(SSE, &[cut(ANTHROPIC, "event: content")], End::Broken),
            seen(Some(30), 1)
        );
        assert_eq!(used(SSE, &[], End::Broken), seen(None, 0));
    }

    #[test]
    fn what_cannot_be_read_is_unknown_and_an_error_took_nothing() {
        assert_eq!(
            used("image/png", &[b"{\"usage\":{\"total_tokens\":3}}"], End::Whole),
            Used::Unknown
        );
        assert_eq!(
            used(
                SSE,
                &[b"data: {\"usage\":{\"total_tokens\":999999999999}}\n\n"],
                End::Whole
            ),
            Used::Seen {
                prompt: None,
                answer: 0
            }
        );
        let mut meter = meter(400, "application/json", None);
        meter.pass(b"{\"error\":{\"message\":\"no\"}}");
        assert_eq!(meter.finish(End::Whole), Used::Nothing);
    }

    #[test]
    fn compressed_answers_are_read_piece_by_piece() {
        for coding in Coding::ALL {
            let body = encode(OPENAI.as_bytes(), coding, 3).unwrap();
            let mut whole = meter(200, SSE, Some(coding.as_str()));
            body.chunks(1).for_each(|piece| whole.pass(piece));
            assert_eq!(whole.finish(End::Whole), Used::Told(15), "{coding:?}");
            let mut broken = meter(200, SSE, Some(coding.as_str()));
            broken.pass(b"not compressed at all");
            assert_eq!(broken.finish(End::Whole), Used::Unknown, "{coding:?}");
        }
        assert_eq!(meter(200, SSE, Some("gzip, br")).finish(End::Whole), Used::Unknown);
    }
}
