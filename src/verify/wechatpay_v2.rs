//! The engine `wechatpay-v2`: a keyed hash over the sorted fields of a flat XML document.
//!
//! The MD5 kind is WeChat Pay's default of that version and as weak as it looks; where a merchant can choose, HMAC-SHA256 is
//! the one to choose.

use std::borrow::Cow;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use md5::{Digest as _, Md5};

use super::fields::{FIELDS_MAX, Fields};
use super::keys::{MacKey, hex_upper};
use super::xml::{self, Leaf};
use super::{Refused, Request};

/// The fields of WeChat Pay's notices. A value that has `&` and one of them in it could be cut off there.
const KNOWN: &[&str] = &[
    "appid",
    "attach",
    "bank_type",
    "cash_fee",
    "cash_fee_type",
    "coupon_count",
    "coupon_fee",
    "device_info",
    "err_code",
    "err_code_des",
    "fee_type",
    "is_subscribe",
    "key",
    "mch_id",
    "nonce_str",
    "openid",
    "out_trade_no",
    "result_code",
    "return_code",
    "return_msg",
    "settlement_total_fee",
    "sign",
    "sign_type",
    "sub_appid",
    "sub_is_subscribe",
    "sub_mch_id",
    "sub_openid",
    "time_end",
    "total_fee",
    "trade_state",
    "trade_type",
    "transaction_id",
];

/// What such a route checks with.
#[derive(Clone, Debug, PartialEq)]
pub struct WechatpayV2 {
    /// API keys, for HMAC-SHA256; any of them may have signed.
    pub keys: Vec<MacKey>,
}

#[derive(Clone, Copy)]
enum Kind {
    Md5,
    HmacSha256,
}

impl WechatpayV2 {
    /// Whether one of the keys signed the document.
    pub(super) fn verify(&self, request: &Request<'_>) -> Result<(), Refused> {
        let mut leaves = Vec::new();
        let read = xml::leaves(request.body, |leaf: Leaf<'_, '_>| {
            match leaf.path {
                [root, name] if root == "xml" && !leaf.has_attributes => {
                    leaves.push((name.clone(), leaf.text.into_owned()));
                    // One more than are taken is enough to see that they are too many.
                    leaves.len() <= FIELDS_MAX
                }
                _ => false,
            }
        });
        read.map_err(|bad| Refused::Malformed(bad.words()))?;
        let bytes = |text: String| Cow::Owned(text.into_bytes());
        let leaves = leaves
            .into_iter()
            .map(|(name, text)| Ok((bytes(name), bytes(text))));
        let fields = Fields::new(leaves, KNOWN)?;
        let sign = fields
            .get(b"sign")
            .ok_or(Refused::Missing("element sign".into()))?;
        let kind = match (fields.get(b"sign_type"), sign.len()) {
            (Some(b"MD5"), _) => Kind::Md5,
            (Some(b"HMAC-SHA256"), _) => Kind::HmacSha256,
            // Not every notice says it; the lengths differ.
            (None | Some(b""), 64) => Kind::HmacSha256,
            (None | Some(b""), _) => Kind::Md5,
            (Some(_), _) => {
                return Err(Refused::Malformed(
                    "its sign_type is neither MD5 nor HMAC-SHA256",
                ));
            }
        };
        let mut verified = false;
        for key in &self.keys {
            let expected = signature(kind, key, &fields);
            verified |= verify_slices_are_equal(expected.as_bytes(), sign).is_ok();
        }
        verified.then_some(()).ok_or(Refused::Mismatch)
    }
}

fn signature(kind: Kind, key: &MacKey, fields: &Fields<'_>) -> String {
    const KEY: &[u8] = b"&key=";
    let signs = |name: &[u8], value: &[u8]| name != b"sign" && !value.is_empty();
    match kind {
        Kind::Md5 => {
            let mut hash = Md5::new();
            fields.message(signs, |piece| hash.update(piece));
            hash.update(KEY);
            hash.update(key.secret());
            hex_upper(&hash.finalize())
        }
        Kind::HmacSha256 => {
            let mut mac = key.begin();
            fields.message(signs, |piece| mac.update(piece));
            mac.update(KEY);
            mac.update(key.secret());
            hex_upper(mac.sign().as_ref())
        }
    }
}
