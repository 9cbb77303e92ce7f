//! The tree as a `serde` deserializer. Its error knows the way to the node that is wrong, and what would have been
//! right.

use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::{Entry, Node, Scalar, Style, Value};
use crate::config::diagnostic::{Complaint, Cure, KeyPath, Step, alternatives, nearest};

/// A newtype struct of this name gets the text of its scalar, whatever that looks like: `10`, `true` and `"x"` alike.
pub const ANY_SCALAR: &str = "\u{1f}any scalar";

/// Stands between what is wrong and its cure in an error's text: `serde` carries errors of other types only as text.
const GENERAL: char = '\u{1f}';
/// The same before a cure that has the value in it.
const REWRITTEN: char = '\u{1e}';

/// A complaint as an error of any deserializer.
pub fn complain<E: de::Error>(complaint: &Complaint) -> E {
    let what = &complaint.what;
    match &complaint.cure {
        Cure::General(cure) => E::custom(format_args!("{what}{GENERAL}{cure}")),
        Cure::Rewritten(cure) => E::custom(format_args!("{what}{REWRITTEN}{cure}")),
    }
}

/// Why a tree is not what it has to be.
#[derive(Debug)]
pub struct Fault {
    /// From the innermost outwards.
    steps: Vec<Step>,
    pub kind: FaultKind,
}

#[derive(Debug)]
pub enum FaultKind {
    /// The value is not what it has to be.
    Value(Complaint),
    /// There is no value.
    Empty,
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
}

impl Fault {
    fn value(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::complaint(Complaint::new(what, cure))
    }

    fn complaint(complaint: Complaint) -> Self {
        Self {
            steps: Vec::new(),
            kind: FaultKind::Value(complaint),
        }
    }

    fn empty() -> Self {
        Self {
            steps: Vec::new(),
            kind: FaultKind::Empty,
        }
    }

    fn under(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub fn path(&self) -> KeyPath {
        KeyPath::from_steps(self.steps.iter().rev().cloned().collect())
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FaultKind::Value(complaint) => f.write_str(&complaint.what),
            FaultKind::Empty => f.write_str("has no value"),
            FaultKind::UnknownKey { key, .. } => write!(f, "unknown key {key}"),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(text: T) -> Self {
        let text = text.to_string();
        if let Some((what, cure)) = text.split_once(REWRITTEN) {
            return Self::complaint(Complaint::rewritten(what, cure));
        }
        match text.split_once(GENERAL) {
            Some((what, cure)) => Self::value(what, cure),
            None => Self::value(text, ""),
        }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = in_words(&expected.to_string());
        let cure = match unexpected {
            Unexpected::Map if expected.starts_with("text") || expected.starts_with("one of") => {
                "put quotes around a value that contains braces"
            }
            Unexpected::Bool(_) | Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_)
                if expected == "text" =>
            {
                "put it in quotes"
            }
            Unexpected::Map if expected == "a list" => "begin each item with `- `",
            _ => "",
        };
        Self::value(format!("must be {expected}"), cure)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::value(format!("must be {}", in_words(&expected.to_string())), "")
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let cure = match nearest(variant, expected.iter().copied()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => String::new(),
        };
        Self::value(format!("must be {}", alternatives(expected)), cure)
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self {
            steps: Vec::new(),
            kind: FaultKind::UnknownKey {
                key: key.to_owned(),
                known,
            },
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::value(format!("needs `{field}`"), "")
    }
}

/// `serde` names what it expects in the words of Rust.
fn in_words(expected: &str) -> String {
    match expected {
        "u8" => "a whole number up to 255".to_owned(),
        "u16" => "a whole number up to 65535".to_owned(),
        "u32" | "u64" | "usize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        other if other.starts_with("struct ") || other == "a map" => "a mapping of keys to values".to_owned(),
        other if other.starts_with("enum ") => "one of its words".to_owned(),
        other => other.to_owned(),
    }
}

/// What a plain scalar is (YAML 1.2.2 §10.3.2).
enum Typed {
    Null,
    Bool(bool),
    Number(serde_yaml::Number),
    Text,
}

fn typed(text: &str) -> Typed {
    match text {
        _ if is_null(text) => Typed::Null,
        "true" | "True" | "TRUE" => Typed::Bool(true),
        "false" | "False" | "FALSE" => Typed::Bool(false),
        _ => match text.parse() {
            Ok(number) => Typed::Number(number),
            Err(_) => Typed::Text,
        },
    }
}

pub fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

impl Scalar {
    fn visit_typed<'de, V: Visitor<'de>>(&'de self, visitor: V) -> Result<V::Value, Fault> {
        if self.style == Style::Quoted {
            return visitor.visit_borrowed_str(&self.text);
        }
        match typed(&self.text) {
            Typed::Null => match self.style {
                Style::Substituted { .. } => visitor.visit_borrowed_str(&self.text),
                Style::Plain | Style::Quoted => Err(Fault::empty()),
            },
            Typed::Bool(value) => visitor.visit_bool(value),
            Typed::Text => visitor.visit_borrowed_str(&self.text),
            Typed::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), _, _) => visitor.visit_u64(number),
                (None, Some(number), _) => visitor.visit_i64(number),
                (None, None, Some(number)) => visitor.visit_f64(number),
                (None, None, None) => visitor.visit_borrowed_str(&self.text),
            },
        }
    }

    fn visit_text<'de, V: Visitor<'de>>(&'de self, visitor: V) -> Result<V::Value, Fault> {
        match self.style {
            Style::Substituted { .. } => visitor.visit_borrowed_str(&self.text),
            Style::Plain | Style::Quoted => self.visit_typed(visitor),
        }
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Scalar(scalar) => scalar.visit_typed(visitor),
            Value::List(items) => visitor.visit_seq(Items {
                items: items.iter().enumerate(),
            }),
            Value::Map(entries) => visitor.visit_map(Entries {
                entries: entries.iter(),
                value: None,
            }),
            Value::Broken => visitor.visit_none(),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Broken => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Scalar(scalar) => scalar.visit_text(visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Scalar(scalar) if name == ANY_SCALAR => match scalar.style {
                Style::Plain if is_null(&scalar.text) => Err(Fault::empty()),
                _ => visitor.visit_borrowed_str(&scalar.text),
            },
            _ if name == ANY_SCALAR => self.deserialize_any(visitor),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Scalar(scalar) if scalar.style == Style::Plain && is_null(&scalar.text) => Err(Fault::empty()),
            Value::Scalar(scalar) => {
                let word: StrDeserializer<'_, Fault> = scalar.text.as_str().into_deserializer();
                visitor.visit_enum(word)
            }
            _ => Err(Fault::value(format!("must be {}", alternatives(variants)), "")),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct
        map struct identifier ignored_any
    }
}

struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        match self.items.next() {
            None => Ok(None),
            Some((index, item)) => match seed.deserialize(item) {
                Ok(value) => Ok(Some(value)),
                Err(fault) => Err(fault.under(Step::Index(index))),
            },
        }
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, Entry>,
    value: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.value = self.entries.next();
        match self.value {
            None => Ok(None),
            Some(entry) => {
                let key: StrDeserializer<'_, Fault> = entry.key.as_str().into_deserializer();
                seed.deserialize(key).map(Some)
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        match self.value.take() {
            None => Err(Fault::empty()),
            Some(entry) => match seed.deserialize(&entry.value) {
                Ok(value) => Ok(value),
                Err(fault) => Err(fault.under(Step::Key(entry.key.clone()))),
            },
        }
    }
}
