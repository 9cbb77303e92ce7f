//! JSON that passes, looked through for a few numbers and for how much text there is, in the memory of some words.
//!
//! It checks nothing: what is no JSON yields nonsense that nobody asks for, and never an error. A key that is written with escapes is not
//! known.

use arrayvec::ArrayVec;

/// Levels whose keys are known; `choices[0].delta.tool_calls[0].function.arguments` has seven.
const LEVELS: usize = 8;

/// Bytes of the longest key in [`Word::of`].
const LONGEST: usize = 27;

/// A string of so many bytes without a space is an image or a sound.
const MEDIA: u64 = 4096;

/// Tokens that an image or a sound is taken for.
const MEDIA_TOKENS: u64 = 1000;

/// Bytes of text that are taken for one token.
const BYTES_PER_TOKEN: u64 = 4;

/// Keys that matter, by what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// A place in a list, or no key yet.
    Item,
    Other,
    /// How many tokens an answer may have.
    MaxTokens,
    /// Where settings of a request stand.
    Settings,
    /// How many answers are asked for.
    Answers,
    Usage,
    Input,
    Output,
    Total,
    /// Tokens of the prompt beside [`Word::Input`], which are written into the model's cache.
    CacheWritten,
    /// What the model says.
    Text,
}

impl Word {
    fn of(key: &[u8]) -> Self {
        match key {
            b"max_tokens"
            | b"max_completion_tokens"
            | b"max_output_tokens"
            | b"maxOutputTokens"
            | b"maxTokens"
            | b"max_new_tokens"
            | b"num_predict" => Self::MaxTokens,
            b"generationConfig" | b"generation_config" | b"inferenceConfig" | b"options" | b"parameters" => {
                Self::Settings
            }
            b"n" | b"candidateCount" => Self::Answers,
            b"usage" | b"usageMetadata" => Self::Usage,
            b"prompt_tokens" | b"input_tokens" | b"inputTokens" | b"promptTokenCount" | b"prompt_eval_count" => {
                Self::Input
            }
            b"completion_tokens" | b"output_tokens" | b"outputTokens" | b"candidatesTokenCount" | b"eval_count" => {
                Self::Output
            }
            b"total_tokens" | b"totalTokens" | b"totalTokenCount" => Self::Total,
            b"cache_creation_input_tokens" => Self::CacheWritten,
            b"content" | b"text" | b"delta" | b"arguments" | b"thinking" | b"reasoning" | b"reasoning_content"
            | b"partial_json" | b"refusal" | b"response" => Self::Text,
            _ => Self::Other,
        }
    }
}

/// Takes what is found.
pub trait Visit {
    /// A whole number that is no less than 0, under these keys from the outermost on.
    fn number(&mut self, path: &[Word], value: u64);

    /// A string that is no key, and for how many tokens it is taken.
    fn text(&mut self, path: &[Word], tokens: f64);
}

/// How far it has come.
#[derive(Debug, Clone)]
pub struct Scanner {
    state: State,
    /// Open brackets.
    depth: usize,
    /// Under which key each of the first levels stands.
    path: [Word; LEVELS],
    /// The beginning of the string that is being read, or has been.
    word: ArrayVec<u8, { LONGEST + 1 }>,
    string: Option<Text>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Text,
    /// Behind a backslash.
    Escape,
    /// `None`: it is not a whole number, or less than 0.
    Number(Option<u64>),
}

#[derive(Debug, Clone, Copy)]
struct Text {
    bytes: u64,
    /// No space and nothing but ASCII so far.
    is_one_piece: bool,
}

impl Text {
    fn tokens(self) -> f64 {
        match self.is_one_piece && self.bytes >= MEDIA {
            true => MEDIA_TOKENS as f64,
            false => tokens_of(self.bytes),
        }
    }
}

/// For how many tokens so many bytes of text are taken.
pub fn tokens_of(bytes: u64) -> f64 {
    bytes as f64 / BYTES_PER_TOKEN as f64
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            state: State::Between,
            depth: 0,
            path: [Word::Item; LEVELS],
            word: ArrayVec::new(),
            string: None,
        }
    }
}

impl Scanner {
    /// Reads on.
    pub fn pass(&mut self, mut data: &[u8], found: &mut impl Visit) {
        while let Some((first, rest)) = data.split_first() {
            match self.state {
                State::Text => data = self.pass_text(data),
                State::Escape => {
                    self.add(&data[..1]);
                    self.state = State::Text;
                    data = rest;
                }
                State::Between => {
                    self.take(*first, found);
                    data = rest;
                }
                State::Number(value) => match first {
                    b'0'..=b'9' => {
                        let digit = u64::from(first - b'0');
                        let next = value.and_then(|value| value.checked_mul(10)?.checked_add(digit));
                        self.state = State::Number(next);
                        data = rest;
                    }
                    b'.' | b'e' | b'E' | b'+' | b'-' => {
                        self.state = State::Number(None);
                        data = rest;
                    }
                    _ => {
                        if let (Some(value), Some(path)) = (value, self.path.get(..self.depth)) {
                            found.number(path, value);
                        }
                        self.state = State::Between;
                    }
                },
            }
        }
    }

    /// Within a string: as much of it as is there. Answers the rest.
    fn pass_text<'d>(&mut self, data: &'d [u8]) -> &'d [u8] {
        let end = memchr::memchr2(b'"', b'\\', data).unwrap_or(data.len());
        let (text, rest) = data.split_at(end);
        self.add(text);
        match rest.split_first() {
            Some((b'"', rest)) => {
                self.state = State::Between;
                rest
            }
            Some((_, rest)) => {
                self.add(b"\\");
                self.state = State::Escape;
                rest
            }
            None => rest,
        }
    }

    fn add(&mut self, text: &[u8]) {
        if let Some(string) = &mut self.string {
            string.bytes += text.len() as u64;
            string.is_one_piece = string.is_one_piece && text.is_ascii() && memchr::memchr(b' ', text).is_none();
        }
        let room = self.word.remaining_capacity().min(text.len());
        // It fits.
        let _ = self.word.try_extend_from_slice(&text[..room]);
    }

    fn take(&mut self, byte: u8, found: &mut impl Visit) {
        match byte {
            b'"' => {
                self.word.clear();
                self.string = Some(Text {
                    bytes: 0,
                    is_one_piece: true,
                });
                self.state = State::Text;
            }
            b':' => {
                // So it was a key.
                self.string = None;
                self.key(Word::of(&self.word));
            }
            b'{' | b'[' => {
                self.depth += 1;
                self.key(Word::Item);
            }
            b'}' | b']' => {
                self.end_text(found);
                self.depth = self.depth.saturating_sub(1);
            }
            b',' => self.end_text(found),
            b'0'..=b'9' => self.state = State::Number(Some(u64::from(byte - b'0'))),
            b'-' => self.state = State::Number(None),
            _ => {}
        }
    }

    /// The string that was read last was no key.
    fn end_text(&mut self, found: &mut impl Visit) {
        if let Some(string) = self.string.take() {
            let known = self.depth.min(LEVELS);
            found.text(&self.path[..known], string.tokens());
        }
    }

    fn key(&mut self, word: Word) {
        if let Some(level) = self.depth.checked_sub(1).and_then(|level| self.path.get_mut(level)) {
            *level = word;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Found {
        numbers: Vec<(Vec<Word>, u64)>,
        texts: Vec<(Vec<Word>, f64)>,
    }

    impl Visit for Found {
        fn number(&mut self, path: &[Word], value: u64) {
            self.numbers.push((path.to_vec(), value));
        }

        fn text(&mut self, path: &[Word], tokens: f64) {
            self.texts.push((path.to_vec(), tokens));
        }
    }

    fn found(pieces: &[&[u8]]) -> Found {
        let (mut scanner, mut found) = (Scanner::default(), Found::default());
        for piece in pieces {
            scanner.pass(piece, &mut found);
        }
        found
    }

    const ANSWER: &str = r#"{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"a \"usage\": {\"total_tokens\": 9}"}}],
        "usage":{"prompt_tokens":12,"completion_tokens":30,"total_tokens":42,"prompt_tokens_details":{"cached_tokens":1}},"x":-1,"y":1.5,"z":7e2}"#;

    #[test]
    fn numbers_are_found_where_they_stand() {
        let found = found(&[ANSWER.as_bytes()]);
        let usage = |word, value| (vec![Word::Usage, word], value);
        let known = found
            .numbers
            .iter()
            .filter(|(path, _)| path.first() == Some(&Word::Usage));
        assert_eq!(
            known.cloned().collect::<Vec<_>>(),
            [
                usage(Word::Input, 12),
                usage(Word::Output, 30),
                usage(Word::Total, 42),
                (vec![Word::Usage, Word::Other, Word::Other], 1)
            ]
        );
        let others = found.numbers.iter().filter(|(path, _)| *path == [Word::Other]);
        assert_eq!(others.count(), 0, "no parts, nothing below 0, no exponents");
        let said: Vec<_> = found
            .texts
            .iter()
            .filter(|(path, _)| path.last() == Some(&Word::Text))
            .collect();
        assert_eq!(
            said,
            [&(vec![Word::Other, Word::Item, Word::Other, Word::Text], 34.0 / 4.0)]
        );
    }

    #[test]
    fn every_cut_finds_the_same() {
        let whole = found(&[ANSWER.as_bytes()]);
        for at in 0..ANSWER.len() {
            let (a, b) = ANSWER.as_bytes().split_at(at);
            assert_eq!(found(&[a, b]), whole, "cut at {at}");
        }
        let bytes: Vec<&[u8]> = ANSWER.as_bytes().chunks(1).collect();
        assert_eq!(found(&bytes), whole);
    }

    #[test]
    fn an_image_is_not_its_bytes() {
        let image = format!(
            r#"{{"url":"data:image/png;base64,{}","content":"{}"}}"#,
            "A".repeat(100_000),
            "a b ".repeat(2000)
        );
        let tokens: Vec<f64> = found(&[image.as_bytes()])
            .texts
            .into_iter()
            .map(|(_, tokens)| tokens)
            .collect();
        assert_eq!(tokens, [1000.0, 2000.0]);
    }

    #[test]
    fn a_large_number_is_none() {
        assert!(
            found(&[br#"{"usage":{"total_tokens":99999999999999999999999}}"#])
                .numbers
                .is_empty()
        );
    }

    proptest! {
        #[test]
        fn nothing_upsets_it(data in prop::collection::vec(any::<u8>(), 0..400), deep in 0_usize..100) {
            let mut data = data;
            data.splice(0..0, std::iter::repeat_n(b'[', deep));
            data.extend(std::iter::repeat_n(b']', 2 * deep));
            let whole = found(&[&data]);
            let (a, b) = data.split_at(data.len() / 2);
            prop_assert_eq!(found(&[a, b]), whole);
        }
    }
}
