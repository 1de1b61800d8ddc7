//! JSON, read without recursion and without building it: a value at a pointer, the fields of an object.
//!
//! The rest of a document is read past, so that a large or deep one costs time but no memory. A key that is there twice on
//! the way is refused, for two readers would not agree on which counts.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Missing;

/// A text, a number, `true` or `false`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A text, without its quotes and escapes.
    Text(String),
    /// Another value, as it is written.
    Raw(String),
}

impl Scalar {
    /// Reads the JSON `raw`; `None` for an object, a list and what is no text after all (half a surrogate pair). `null`
    /// is an empty text.
    fn read(raw: &RawValue) -> Option<Self> {
        let raw = raw.get();
        match raw.as_bytes().first()? {
            b'"' => serde_json::from_str(raw).ok().map(Self::Text),
            b'{' | b'[' => None,
            b'n' => Some(Self::Text(String::new())),
            _ => Some(Self::Raw(raw.to_owned())),
        }
    }

    /// As it is signed.
    pub fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Raw(text) => text,
        }
    }
}

/// The value at `pointer` (RFC 6901, cut and unescaped) of the JSON `body`; `None` if it is an object or a list.
///
/// # Errors
/// It is not there, or twice, or `body` is no JSON.
pub fn at(body: &[u8], pointer: &[String]) -> Result<Option<Scalar>, Missing> {
    let raw = raw_at(body, pointer)?;
    Ok(match raw.get() {
        "null" => None,
        _ => Scalar::read(raw),
    })
}

/// The fields of the object at `pointer`, in the order written; a value is `None` if it is an object or a list.
///
/// # Errors
/// There is none.
pub fn object(body: &[u8], pointer: &[String]) -> Result<Vec<(String, Option<Scalar>)>, Missing> {
    let raw = raw_at(body, pointer)?;
    let Object(fields) =
        serde_json::from_str(raw.get()).map_err(|_| Missing::NotObject(place(pointer)))?;
    Ok(fields)
}

fn place(pointer: &[String]) -> String {
    format!("/{} in the JSON body", pointer.join("/"))
}

fn raw_at<'b>(body: &'b [u8], pointer: &[String]) -> Result<&'b RawValue, Missing> {
    let mut found = Search::default();
    let mut reader = serde_json::Deserializer::from_slice(body);
    let walk = Walk {
        pointer,
        found: &mut found,
    };
    let read = walk.deserialize(&mut reader).and_then(|()| reader.end());
    match (read, found) {
        (_, Search { times: 2.., .. }) => Err(Missing::Twice(place(pointer))),
        (Err(_), _) => Err(Missing::Unreadable("JSON")),
        (Ok(()), Search { raw: Some(raw), .. }) => Ok(raw),
        (Ok(()), Search { raw: None, .. }) => Err(Missing::Nowhere(place(pointer))),
    }
}

#[derive(Default)]
struct Search<'de> {
    times: u8,
    raw: Option<&'de RawValue>,
}

/// Follows `pointer` through whatever is being read.
struct Walk<'p, 'f, 'de> {
    pointer: &'p [String],
    found: &'f mut Search<'de>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        if self.pointer.is_empty() {
            self.found.times = self.found.times.saturating_add(1);
            self.found.raw = Some(Deserialize::deserialize(reader)?);
            return Ok(());
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    // What is neither an object nor a list has nothing in it.

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((head, tail)) = self.pointer.split_first() else {
            return Ok(()); // never: a pointer that ends here is not walked further
        };
        let wanted: Option<usize> = head.parse().ok();
        for at in 0.. {
            let more = if wanted == Some(at) {
                let walk = Walk {
                    pointer: tail,
                    found: self.found,
                };
                items.next_element_seed(walk)?.is_some()
            } else {
                items.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((head, tail)) = self.pointer.split_first() else {
            return Ok(()); // never: a pointer that ends here is not walked further
        };
        let mut passed = false;
        while let Some(key) = entries.next_key::<Cow<'_, str>>()? {
            if key == head.as_str() {
                if std::mem::replace(&mut passed, true) {
                    // Whichever of them has the value: another reader may look into the other.
                    self.found.times = 2;
                }
                entries.next_value_seed(Walk {
                    pointer: tail,
                    found: self.found,
                })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// An object's fields in order.
struct Object(Vec<(String, Option<Scalar>)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Object, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            // One more than anybody sends is enough to see that they are too many.
            if fields.len() > super::FIELDS_MAX {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            let value: &RawValue = entries.next_value()?;
            fields.push((key, Scalar::read(value)));
        }
        Ok(Object(fields))
    }
}
