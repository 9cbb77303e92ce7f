//! In which coding the response goes out, and why in no other.

use super::text::{self, Text};
use crate::config::{Compression, UseDictionaries};
use crate::message::{Fields, Framing, ResponseHead};
use crate::proxy::Decided;
use crate::proxy::compression::of_response;
use crate::transform::compress::rules::{Body, Declined, Untouched, dictionary_coding, wish};
use crate::transform::compress::{Recoding, recode_fields, vary};
use crate::transform::dictionary::available;
use crate::transform::negotiate::{Coding, DictionaryCoding};

/// What the request could get, whatever the response is.
pub fn of_request(decided: &Decided<'_>, text: &mut Text) {
    let Some(rules) = decided.route.compression.as_deref() else {
        return text.line("compression", "off: bodies are passed on as they are");
    };
    let request = &decided.request.fields;
    match wish(rules, request, Body::Plain) {
        Ok(Recoding::To(coding)) => {
            text.line(
                "compression",
                format_args!("{}: the best that is accepted of {}", coding.as_str(), codings(rules)),
            );
            text.more(format_args!(
                "if the response is of a listed type, and not below {}",
                text::size(rules.min_size)
            ));
            with_dictionary(rules, request, text);
        }
        Ok(Recoding::Against(..) | Recoding::Undone) => {}
        Err(why) => text.line("compression", format_args!("none: {}", declined(why, rules))),
    }
}

/// What becomes of this response. Changes its head as it is changed on its way.
pub fn of_response_given(decided: &Decided<'_>, head: &mut ResponseHead, text: &mut Text) {
    let Some(rules) = decided.route.compression.as_deref() else {
        return;
    };
    if head.status == 304 {
        return;
    }
    let body = match of_response(rules, decided, head) {
        Ok(body) => body,
        Err(why) => return text.line("compression", format_args!("none: {}", untouched(why, rules))),
    };
    vary(&mut head.fields, body, rules.dictionaries);
    let request = &decided.request.fields;
    match wish(rules, request, body) {
        Err(why) => text.line("compression", format_args!("none: {}", declined(why, rules))),
        Ok(recoding) => {
            match recoding {
                Recoding::Undone => text.line("compression", "undone: the client does not read the response's coding"),
                recoding => text.line(
                    "compression",
                    format_args!("{}: the best that is accepted of {}", recoding.as_str(), codings(rules)),
                ),
            }
            if body == Body::Plain {
                text.more("once for all where it is stored, if that makes it a tenth smaller; else as it passes");
                with_dictionary(rules, request, text);
            }
            recode_fields(&mut head.fields, recoding);
            head.declared_length = None;
            if head.framing != Framing::None {
                head.framing = Framing::Chunked;
            }
        }
    }
}

fn with_dictionary(rules: &Compression, request: &Fields, text: &mut Text) {
    if rules.dictionaries == UseDictionaries::Never {
        return;
    }
    match (available(request), dictionary_coding(rules, request)) {
        (Some(_), Some(coding)) => text.more(format_args!(
            "what is stored{} as {}, if the dictionary that the client has is known, and meant for it (RFC 9842)",
            match coding {
                DictionaryCoding::Dcz => ", or just being fetched for that,",
                DictionaryCoding::Dcb => "",
            },
            coding.as_str()
        )),
        (None, _) => text.more("without a dictionary: there is no Available-Dictionary"),
        (Some(_), None) if request.contains("authorization") => {
            text.more("without the client's dictionary: the request has Authorization");
        }
        (Some(_), None) => text.more("without the client's dictionary: Accept-Encoding does not name dcz or dcb"),
    }
}

fn codings(rules: &Compression) -> String {
    let names: Vec<&str> = rules.codings.iter().copied().map(Coding::as_str).collect();
    names.join(", ")
}

fn declined(why: Declined, rules: &Compression) -> String {
    match why {
        Declined::NotAccepted => return format!("Accept-Encoding asks for none of {}", codings(rules)),
        Declined::OptOut => "the request has X-No-Compression",
        Declined::Range => "the request has Range, and parts are those of the origin's body",
        Declined::NoTransform => "the request's Cache-Control says no-transform",
        Declined::Credentials => "the request has Cookie or Authorization, and the route says authenticated: none",
        Declined::AsItCame => "the client reads the response as it comes",
    }
    .to_owned()
}

fn untouched(why: Untouched, rules: &Compression) -> String {
    match why {
        Untouched::Status => "its status has no body, or only a part of one",
        Untouched::NoTransform => "Cache-Control says no-transform",
        Untouched::Coding => "it has a coding that is not known here",
        Untouched::NoType => "it has no Content-Type",
        Untouched::Events => "it is a stream, and the route does not say events: true",
        Untouched::Size => return format!("it is shorter than {} (min_size)", text::size(rules.min_size)),
        Untouched::Type => "its type is not among those that are compressed (types)",
        Untouched::Secret => {
            "it is private, sets a cookie or varies by Cookie or Authorization (authenticated: public)"
        }
    }
    .to_owned()
}
