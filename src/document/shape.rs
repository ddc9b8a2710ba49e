//! The fields of the documents, and how they are brought into the form that is parsed.

use std::str::FromStr;

use oci_spec::image::{Descriptor, Digest};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A field by its name in any case.
pub(crate) fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.iter().rev().find(|(key, _)| same(key, name)).map(|(_, value)| value)
}

/// The same, to be changed.
pub(crate) fn field_mut<'a>(object: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Value> {
    object.iter_mut().rev().find(|(key, _)| same(key, name)).map(|(_, value)| value)
}

/// Sets a field, whatever the case that it is written in.
pub(crate) fn set(object: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    match field_mut(object, name) {
        Some(field) => *field = value.into(),
        None => drop(object.insert(name.to_owned(), value.into())),
    }
}

pub(super) fn take(object: &mut Map<String, Value>, name: &str) -> Option<Value> {
    field_mut(object, name).map(Value::take)
}

/// Equal as Go's `strings.EqualFold` sees ASCII names: two letters of Unicode fold to ASCII ones.
fn same(key: &str, name: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}

/// What a field holds.
enum Shape {
    Text,
    Digest,
    /// A count that is not negative.
    Number,
    Texts,
    /// Texts by name.
    Notes,
    Object(&'static [Field]),
    Objects(&'static [Field]),
}

/// What is done about a field that is not there, or of another type.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    /// Zero; refused.
    Needed,
    /// Absent; refused.
    Optional,
    /// Absent in both cases: nothing depends on it.
    Spare,
    /// Zero in both cases.
    Vague,
}

impl Rule {
    fn wants_zero(self) -> bool {
        matches!(self, Rule::Needed | Rule::Vague)
    }
}

pub(super) struct Field {
    name: &'static str,
    shape: Shape,
    rule: Rule,
}

const fn needed(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, rule: Rule::Needed }
}

const fn optional(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, rule: Rule::Optional }
}

const fn spare(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, rule: Rule::Spare }
}

const fn vague(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, rule: Rule::Vague }
}

const PLATFORM: &[Field] =
    &[needed("architecture", Shape::Text), needed("os", Shape::Text), optional("variant", Shape::Text)];

const DESCRIPTOR: &[Field] = &[
    needed("mediaType", Shape::Text),
    needed("digest", Shape::Digest),
    needed("size", Shape::Number),
    optional("annotations", Shape::Notes),
    optional("platform", Shape::Object(PLATFORM)),
    spare("urls", Shape::Texts),
    spare("artifactType", Shape::Text),
    spare("data", Shape::Text),
];

pub(super) const MANIFEST: &[Field] = &[
    needed("schemaVersion", Shape::Number),
    optional("mediaType", Shape::Text),
    needed("config", Shape::Object(DESCRIPTOR)),
    needed("layers", Shape::Objects(DESCRIPTOR)),
    optional("annotations", Shape::Notes),
    spare("artifactType", Shape::Text),
    spare("subject", Shape::Object(DESCRIPTOR)),
];

/// skopeo does not look into a config.
pub(super) const CONFIG: &[Field] = &[
    vague("architecture", Shape::Text),
    vague("os", Shape::Text),
    spare("variant", Shape::Text),
    needed("rootfs", Shape::Object(&[needed("diff_ids", Shape::Texts)])),
    spare("config", Shape::Object(&[spare("Labels", Shape::Notes)])),
];

pub(super) fn read<T: DeserializeOwned>(document: Value, fields: &[Field]) -> Result<T, String> {
    let Value::Object(document) = document else {
        return Err(format!("{}, an object is expected", kind(&document)));
    };
    serde_json::from_value(complete(document, fields, "")?).map_err(|e| e.to_string())
}

pub(super) fn descriptor(value: Value, path: &str) -> Result<Descriptor, String> {
    let value = Shape::Object(DESCRIPTOR).check(value, path)?;
    serde_json::from_value(value).map_err(|e| format!("{path}: {e}"))
}

/// The object with the fields that are known, and all of those that are needed.
fn complete(mut object: Map<String, Value>, fields: &[Field], path: &str) -> Result<Value, String> {
    let mut complete = Map::new();
    for Field { name, shape, rule } in fields {
        let path = if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
        let value = match take(&mut object, name) {
            // To leave a text empty is Go's way of leaving it out.
            Some(Value::String(text)) if text.is_empty() && !rule.wants_zero() => continue,
            Some(value) if !value.is_null() => match shape.check(value, &path) {
                Err(_) if *rule == Rule::Spare => continue,
                Err(_) if *rule == Rule::Vague => shape.zero(&path)?,
                value => value?,
            },
            _ if rule.wants_zero() => shape.zero(&path)?,
            _ => continue,
        };
        complete.insert((*name).to_owned(), value);
    }
    Ok(Value::Object(complete))
}

impl Shape {
    /// The value, if it is of this shape; `null` inside is zero.
    fn check(&self, value: Value, path: &str) -> Result<Value, String> {
        let wrong =
            |value: &Value, wanted: &str| Err(format!("{path}: {}, {wanted} is expected", kind(value)));
        match (self, value) {
            (Shape::Text, value @ Value::String(_)) => Ok(value),
            (Shape::Text, other) => wrong(&other, "a string"),
            (Shape::Digest, Value::String(text)) if text.is_empty() => self.zero(path),
            (Shape::Digest, Value::String(text)) => match Digest::from_str(&text) {
                Ok(_) => Ok(Value::String(text)),
                Err(_) => {
                    Err(format!("{path}: {:?} is no digest", text.chars().take(100).collect::<String>()))
                }
            },
            (Shape::Digest, other) => wrong(&other, "a string"),
            (Shape::Number, Value::Number(number)) => match number.as_u64() {
                Some(_) => Ok(Value::Number(number)),
                None => Err(format!("{path}: {number}, a whole number is expected")),
            },
            (Shape::Number, other) => wrong(&other, "a number"),
            (Shape::Texts, Value::Array(texts)) => {
                let text = |(at, text)| Shape::Text.in_list(text, path, at);
                texts.into_iter().enumerate().map(text).collect::<Result<_, _>>().map(Value::Array)
            }
            (Shape::Objects(fields), Value::Array(objects)) => {
                let object = |(at, object)| Shape::Object(fields).in_list(object, path, at);
                objects.into_iter().enumerate().map(object).collect::<Result<_, _>>().map(Value::Array)
            }
            (Shape::Texts | Shape::Objects(_), other) => wrong(&other, "a list"),
            (Shape::Notes, Value::Object(notes)) => {
                let note = |(name, note): (String, Value)| {
                    let note = match note {
                        Value::Null => Value::String(String::new()),
                        note => Shape::Text.check(note, &format!("{path}.{name}"))?,
                    };
                    Ok((name, note))
                };
                notes.into_iter().map(note).collect::<Result<_, String>>().map(Value::Object)
            }
            (Shape::Object(fields), Value::Object(object)) => complete(object, fields, path),
            (Shape::Notes | Shape::Object(_), other) => wrong(&other, "an object"),
        }
    }

    fn in_list(&self, value: Value, path: &str, at: usize) -> Result<Value, String> {
        let path = format!("{path}[{at}]");
        if value.is_null() { self.zero(&path) } else { self.check(value, &path) }
    }

    /// What Go has for a field that is not there. A digest must be.
    fn zero(&self, path: &str) -> Result<Value, String> {
        match self {
            Shape::Text => Ok(Value::String(String::new())),
            Shape::Digest => Err(format!("{path}: missing")),
            Shape::Number => Ok(0.into()),
            Shape::Texts | Shape::Objects(_) => Ok(Value::Array(Vec::new())),
            Shape::Notes => Ok(Value::Object(Map::new())),
            Shape::Object(fields) => complete(Map::new(), fields, path),
        }
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
