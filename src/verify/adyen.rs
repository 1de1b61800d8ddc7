//! The engine `adyen`: an HMAC over eight values of each item. Whatever else is in an item, nobody signed.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::draft::{CannotSign, Draft};
use super::keys::MacKey;
use super::{Believed, Refused, Request};
use crate::request::Selector;

/// The most items of one notice; Adyen sends one, and six of an older kind.
const ITEMS_MAX: usize = 64;

/// What such a route checks with.
#[derive(Clone, Debug, PartialEq)]
pub struct Adyen {
    /// Any of them may have signed an item.
    pub keys: Vec<MacKey>,
    /// Notices of items without any signature are believed as such: Adyen signs no REPORT_AVAILABLE, for one, and sends
    /// nothing more to an address that does not take it.
    pub keeps_unsigned: bool,
}

/// Values with their names. Without this serde would take a list of them in the order of a struct's fields as well, which no
/// backend reads so.
#[derive(Default)]
struct Named<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(NamedVisitor(PhantomData))
    }
}

struct NamedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
    type Value = Named<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Named)
    }
}

#[derive(Deserialize)]
struct Notice<'a> {
    #[serde(borrow, rename = "notificationItems")]
    items: Vec<Named<Wrapped<'a>>>,
}

#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow, rename = "NotificationRequestItem")]
    item: Named<Item<'a>>,
}

/// A key that is there twice is an error: the backend might take the other.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    #[serde(borrow, default)]
    psp_reference: Scalar<'a>,
    #[serde(borrow, default)]
    original_reference: Scalar<'a>,
    #[serde(borrow, default)]
    merchant_account_code: Scalar<'a>,
    #[serde(borrow, default)]
    merchant_reference: Scalar<'a>,
    #[serde(borrow, default)]
    amount: Named<Amount<'a>>,
    #[serde(borrow, default)]
    event_code: Scalar<'a>,
    #[serde(borrow, default)]
    success: Scalar<'a>,
    #[serde(borrow, default)]
    additional_data: Named<Additional<'a>>,
}

#[derive(Deserialize, Default)]
struct Amount<'a> {
    #[serde(borrow, default)]
    value: Scalar<'a>,
    #[serde(borrow, default)]
    currency: Scalar<'a>,
}

#[derive(Deserialize, Default)]
struct Additional<'a> {
    #[serde(borrow, default, rename = "hmacSignature")]
    signature: Scalar<'a>,
}

/// A value as it is signed: a text as it stands, a number in digits, nothing as nothing.
#[derive(Default)]
struct Scalar<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(ScalarVisitor).map(Self)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a whole number, true, false or null")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(number.to_string()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(number.to_string()))
    }

    fn visit_bool<E: Error>(self, yes: bool) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(if yes { "true" } else { "false" }))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(""))
    }
}

impl Item<'_> {
    /// The values in the order in which they are signed.
    fn signed(&self) -> [&str; 8] {
        [
            &self.psp_reference,
            &self.original_reference,
            &self.merchant_account_code,
            &self.merchant_reference,
            &self.amount.0.value,
            &self.amount.0.currency,
            &self.event_code,
            &self.success,
        ]
        .map(|scalar| scalar.0.as_ref())
    }

    /// What `key` signs it with.
    fn signature(&self, key: &MacKey) -> String {
        let mut mac = key.begin();
        for (at, value) in self.signed().iter().enumerate() {
            if at > 0 {
                mac.update(b":");
            }
            mac.update(value.as_bytes());
        }
        STANDARD.encode(mac.sign())
    }
}

impl Adyen {
    /// Whether the keys signed every item of the notice; says what makes it this event.
    pub(super) fn verify(&self, request: &Request<'_>) -> Result<Believed, Refused> {
        let notice = notice(request)?;
        if notice.items.is_empty() {
            return Err(Refused::Malformed(
                "there are no items, so nothing is signed",
            ));
        }
        if notice.items.len() > ITEMS_MAX {
            return Err(Refused::TooMany("items"));
        }
        let has_signature = |item: &Item<'_>| !item.additional_data.0.signature.0.is_empty();
        let mut items = notice.items.iter().map(|wrapped| &wrapped.0.item.0);
        if self.keeps_unsigned && !items.any(has_signature) {
            return Ok(Believed {
                event: None, // anybody could say it, and so keep a genuine one of that event away
                is_unsigned: true,
            });
        }
        let mut event = String::new();
        for Named(Wrapped { item: Named(item) }) in &notice.items {
            self.verify_item(item)?;
            let [psp_reference, .., event_code, success] = item.signed();
            let comma = if event.is_empty() { "" } else { "," };
            event += &format!("{comma}{psp_reference}:{event_code}:{success}");
        }
        Ok(Believed {
            event: Some(event),
            is_unsigned: false,
        })
    }

    fn verify_item(&self, item: &Item<'_>) -> Result<(), Refused> {
        let values = item.signed();
        // Nothing is escaped. Only the merchant's own reference may have colons: one such value is still found again between
        // three on its left and four on its right.
        let elsewhere = values.iter().enumerate().filter(|(at, _)| *at != 3);
        if elsewhere.clone().any(|(_, value)| value.contains(':')) {
            return Err(Refused::Malformed(
                "a colon where its signature cannot tell it from a separator",
            ));
        }
        let signature = &*item.additional_data.0.signature.0;
        if signature.is_empty() {
            return Err(Refused::Missing(
                "additionalData.hmacSignature of every item".into(),
            ));
        }
        let mut verified = false;
        for key in &self.keys {
            let expected = item.signature(key);
            verified |= verify_slices_are_equal(expected.as_bytes(), signature.as_bytes()).is_ok();
        }
        verified.then_some(()).ok_or(Refused::Mismatch)
    }

    /// Fills in what is signed and not there, and signs every item of `draft` with the first key.
    pub(super) fn sign(&self, draft: &mut Draft) -> Result<(), CannotSign> {
        let at = |item: usize, name: &str| {
            let pointer = format!("notificationItems/{item}/NotificationRequestItem/{name}");
            Selector::Json(pointer.split('/').map(str::to_owned).collect())
        };
        let psp_reference = draft.event.clone();
        for (name, value) in [
            ("pspReference", &*psp_reference),
            ("merchantAccountCode", "TestMerchant"),
            ("merchantReference", "1"),
            ("amount/value", "1"),
            ("amount/currency", "EUR"),
            ("eventCode", "AUTHORISATION"),
            ("success", "true"),
        ] {
            draft.fill(&at(0, name), value)?;
        }
        let key = self.keys.first().ok_or(CannotSign::NoTestKey)?;
        let signatures = draft.with_request(|request| {
            let notice = notice(request)?;
            let items = notice.items.iter();
            let signed = items.map(|wrapped| wrapped.0.item.0.signature(key));
            Ok::<Vec<_>, Refused>(signed.collect())
        })?;
        for (item, signature) in signatures.iter().enumerate() {
            draft.set(&at(item, "additionalData/hmacSignature"), signature)?;
        }
        Ok(())
    }
}

fn notice<'r>(request: &Request<'r>) -> Result<Notice<'r>, Refused> {
    let body = request.readable_body()?;
    let Named::<Notice<'_>>(notice) = serde_json::from_slice(body)
        .map_err(|_| Refused::Malformed("the body is no notice of Adyen, or has a key twice"))?;
    Ok(notice)
}

/// Whether the value at `pointer` is among those that are signed.
pub(super) fn signs(pointer: &[String]) -> bool {
    let pointer: Vec<&str> = pointer.iter().map(String::as_str).collect();
    let [
        "notificationItems",
        item,
        "NotificationRequestItem",
        value @ ..,
    ] = &pointer[..]
    else {
        return false;
    };
    item.parse::<usize>().is_ok()
        && matches!(
            value,
            ["pspReference"
                | "originalReference"
                | "merchantAccountCode"
                | "merchantReference"
                | "eventCode"
                | "success"]
                | ["amount", "value" | "currency"]
        )
}
