//! What a response is labelled with: tags that its origin or its route gives it, and the groups of RFC 9875.

use super::label_names;
use crate::config::{ValuePart, ValueTemplate};
use crate::key::normalise_target;
use crate::message::{FieldName, FieldNames, Fields, RequestHead};
use crate::rfc9111::labels::{GROUPS, Label, Labels, groups};
use crate::route::Captures;

/// Fields in which origins write tags. Those of others are written with spaces or with commas between them; no tag has either.
pub const TAG_FIELDS: [&str; 3] = ["cache-tag", "surrogate-key", "xkey"];

/// The fields that say anything of labels.
static LABELLING: FieldNames = FieldNames::new(&[
    FieldName::new(TAG_FIELDS[0]),
    FieldName::new(TAG_FIELDS[1]),
    FieldName::new(TAG_FIELDS[2]),
    FieldName::new(GROUPS),
]);

/// Whether clients see the fields with tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TagFields {
    /// They are nobody else's business.
    #[default]
    Strip,
    /// Another cache in front reads them, too.
    Pass,
}

/// What one response says of its labels.
#[derive(Debug, Default)]
pub struct Told {
    labels: Vec<Label>,
    /// Whether it names tags itself: then it names all of them.
    names_tags: bool,
}

/// Reads the labels of a response to this request, before anything of it is stored or sent on.
pub fn take(
    request: &RequestHead,
    response: &mut Fields,
    given: &[ValueTemplate],
    captures: Captures<'_>,
    shown: TagFields,
) -> Told {
    let mut told = Told::default();
    if given.is_empty() && !response.contains_any(&LABELLING) {
        return told;
    }
    for name in TAG_FIELDS {
        if !response.contains(name) {
            continue;
        }
        told.names_tags = true;
        for line in response.get_all(name) {
            let names = line.split(|byte| matches!(byte, b' ' | b'\t' | b','));
            told.labels
                .extend(names.filter(|name| !name.is_empty()).map(label_names::tag));
        }
        if shown == TagFields::Strip {
            response.remove(name);
        }
    }
    let given = given.iter().map(|template| render(template, captures));
    told.labels.extend(given.map(|tag| label_names::tag(tag.as_bytes())));
    told.labels.extend(groups_of(request, response));
    told
}

fn groups_of(request: &RequestHead, response: &Fields) -> Vec<Label> {
    let groups = groups(response);
    let label = |name: &String| {
        let label = Label::group(request.scheme, &request.authority, name);
        label_names::group(label, name)
    };
    groups.iter().map(label).collect()
}

impl Told {
    /// The labels of the response itself, compared with all purges up to `began`.
    pub fn labels(self, began: u64) -> Option<Labels> {
        let labels = Labels::new(self.labels)?;
        labels.set_seen(began);
        Some(labels)
    }

    /// The labels of a stored response that this one freshens to these fields. What a 304 does not say stays as it was
    /// (RFC 9111 §3.2).
    pub fn freshened(
        &self,
        request: &RequestHead,
        stored: Option<&Labels>,
        fields: &Fields,
        began: u64,
    ) -> Option<Labels> {
        let mut labels = self.labels.clone();
        labels.extend(groups_of(request, fields));
        if !self.names_tags {
            labels.extend_from_slice(stored.map_or(&[], Labels::as_slice));
        }
        let labels = Labels::new(labels)?;
        labels.set_seen(began);
        Some(labels)
    }
}

/// A tag with what the path has for its captures, in normal form: so it is the same for all spellings of a URI.
pub fn render(template: &ValueTemplate, captures: Captures<'_>) -> String {
    let mut tag = String::new();
    for part in &template.parts {
        match part {
            ValuePart::Text(text) => tag.push_str(text),
            ValuePart::Capture(name) => tag.push_str(&normalise_target(captures.value(name).unwrap_or_default())),
            // Configuration does not let any of these into a tag.
            ValuePart::ClientIp | ValuePart::Host | ValuePart::Method | ValuePart::Path | ValuePart::RequestId => {}
        }
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RequestHead {
        crate::rfc9111::tests::request("GET", "/a", &[])
    }

    #[test]
    fn tags_are_read_from_all_fields_and_do_not_go_on() {
        let lines = [
            ("Cache-Tag", "a, b,c"),
            ("Surrogate-Key", "d  e"),
            ("xkey", "f"),
            ("XKey", "g"),
            ("Cache-Groups", "\"h\""),
            ("X-Other", "i"),
        ];
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.push(name, value);
        }
        let given = [ValueTemplate {
            parts: vec![ValuePart::Text("j".into())],
        }];
        let mut passed = fields.clone();
        let told = take(&request(), &mut fields, &given, Captures::NONE, TagFields::Strip);
        let labels = told.labels(0).unwrap();
        for tag in ["a", "b", "c", "d", "e", "f", "g", "j"] {
            assert!(labels.as_slice().contains(&Label::tag(tag.as_bytes())), "{tag}");
        }
        let request = request();
        let group = Label::group(request.scheme, &request.authority, "h");
        assert!(labels.as_slice().contains(&group));
        assert_eq!(labels.as_slice().len(), 9);
        let left: Vec<_> = fields.iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["Cache-Groups", "X-Other"]);
        let before = passed.clone();
        take(&request, &mut passed, &given, Captures::NONE, TagFields::Pass);
        assert_eq!(passed, before);
        let nothing = take(&request, &mut Fields::new(), &[], Captures::NONE, TagFields::Strip);
        assert!(nothing.labels(0).is_none());
    }
}
