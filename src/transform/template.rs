//! The field rewriting that a route asks for.

use crate::config::{FieldEdits, ValuePart, ValueTemplate};
use crate::message::{Lines, is_field_value};
use crate::route::Captures;
use crate::transform::names::{Kind, kind};

/// What templates may name.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// An address, or `unix`.
    pub client_ip: &'a str,
    /// Without port, lower case.
    pub host: &'a str,
    pub method: &'a str,
    /// As received, without the query.
    pub path: &'a str,
    pub request_id: &'a [u8],
    pub captures: Captures<'a>,
}

/// First `remove`, then `set`, then `add`. Fields that say how the message itself is framed are left alone: they are not
/// the route's to write.
pub fn edit(fields: &mut impl Lines, edits: &FieldEdits, values: &Values<'_>) {
    for name in edits.remove.iter().filter(|name| is_editable(name)) {
        fields.remove(name);
    }
    for (name, template) in edits.set.iter().filter(|(name, _)| is_editable(name)) {
        fields.set(name, render(template, values));
    }
    for (name, template) in edits.add.iter().filter(|(name, _)| is_editable(name)) {
        fields.push(name, render(template, values));
    }
}

fn is_editable(name: &str) -> bool {
    kind(name).0 != Kind::HopByHop
}

/// The value, always one that may stand in a field (RFC 9110 §5.5).
fn render(template: &ValueTemplate, values: &Values<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for part in &template.parts {
        let text = match part {
            ValuePart::Text(text) => text.as_bytes(),
            ValuePart::ClientIp => values.client_ip.as_bytes(),
            ValuePart::Host => values.host.as_bytes(),
            ValuePart::Method => values.method.as_bytes(),
            ValuePart::Path => values.path.as_bytes(),
            ValuePart::RequestId => values.request_id,
            ValuePart::Capture(name) => values.captures.value(name).unwrap_or_default().as_bytes(),
        };
        out.extend_from_slice(text);
    }
    if !is_field_value(&out) {
        out.retain(|byte| is_field_value(&[*byte]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Fields;

    fn text(value: &str) -> ValueTemplate {
        ValueTemplate {
            parts: vec![ValuePart::Text(value.into())],
        }
    }

    const VALUES: Values<'static> = Values {
        client_ip: "192.0.2.1",
        host: "example.com",
        method: "GET",
        path: "/a",
        request_id: b"r1",
        captures: Captures::NONE,
    };

    #[test]
    fn fields_are_removed_then_set_then_added() {
        let mut fields = Fields::new();
        fields.push("A", "1");
        fields.push("a", "2");
        fields.push("B", "3");
        let edits = FieldEdits {
            remove: vec!["b".into()],
            set: vec![("a".into(), text("4")), ("b".into(), text("5"))],
            add: vec![("a".into(), text("6")), ("content-length".into(), text("7"))],
            always: false,
        };
        edit(&mut fields, &edits, &VALUES);
        let lines: Vec<_> = fields.iter().collect();
        assert_eq!(lines, [("a", &b"4"[..]), ("b", b"5"), ("a", b"6")]);
    }

    #[test]
    fn templates_are_filled_in_and_stay_field_values() {
        let template = ValueTemplate {
            parts: vec![
                ValuePart::ClientIp,
                ValuePart::Text(" ".into()),
                ValuePart::Host,
                ValuePart::Text("\r\n".into()),
                ValuePart::Method,
                ValuePart::Path,
                ValuePart::RequestId,
                ValuePart::Capture("absent".into()),
            ],
        };
        assert_eq!(render(&template, &VALUES), b"192.0.2.1 example.comGET/ar1");
    }
}
