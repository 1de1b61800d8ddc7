//! The engine `wechatpay-v2`: a keyed hash over the sorted fields of a flat XML document.
//!
//! The MD5 kind is WeChat Pay's default of that version and as weak as it looks; where a merchant can choose, HMAC-SHA256 is
//! the one to choose.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use md5::{Digest as _, Md5};

use super::draft::{CannotSign, Draft, sample};
use super::fields::{Fields, Known};
use super::keys::MacKey;
use super::signed::elements;
use super::{Refused, Request};
use crate::escape::hex_upper;
use crate::request::Selector;

/// The fields of WeChat Pay's notifications of payments and contracts, as its documents of the payment notice name them; always
/// there are those that they call required.
const KNOWN: Known<'_> = Known {
    always: &[
        "appid",
        "bank_type",
        "cash_fee",
        "mch_id",
        "nonce_str",
        "openid",
        "out_trade_no",
        "result_code",
        "return_code",
        "time_end",
        "total_fee",
        "trade_type",
        "transaction_id",
    ],
    sometimes: &[
        "attach",
        "cash_fee_type",
        "change_type",
        "contract_code",
        "contract_expired_time",
        "contract_id",
        "contract_termination_mode",
        "coupon_count",
        "coupon_fee",
        "coupon_fee_0",
        "coupon_fee_1",
        "coupon_id_0",
        "coupon_id_1",
        "coupon_type_0",
        "coupon_type_1",
        "device_info",
        "err_code",
        "err_code_des",
        "fee_type",
        "is_subscribe",
        "operate_time",
        "plan_id",
        "promotion_detail",
        "request_serial",
        "return_msg",
        "settlement_total_fee",
        "sign_type",
        "sub_appid",
        "sub_is_subscribe",
        "sub_mch_id",
        "sub_openid",
        "trade_state",
        "trade_state_desc",
    ],
    more: &[],
    free_text: &["attach"],
    never: &["sign"],
};

/// What such a route checks with.
#[derive(Clone, Debug, PartialEq)]
pub struct WechatpayV2 {
    /// API keys, for HMAC-SHA256; any of them may have signed.
    pub keys: Vec<MacKey>,
    /// Names of fields that WeChat Pay sends beside those that are known here.
    pub more_fields: Vec<String>,
}

#[derive(Clone, Copy)]
enum Kind {
    Md5,
    HmacSha256,
}

impl WechatpayV2 {
    /// Whether one of the keys signed the document.
    pub(super) fn verify(&self, request: &Request<'_>) -> Result<(), Refused> {
        let fields = fields(request)?;
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
        let text = fields.text(true, "&", |name| name != b"sign");
        let mut verified = false;
        for key in &self.keys {
            let expected = signature(kind, key, &text.bytes);
            verified |= verify_slices_are_equal(expected.as_bytes(), sign).is_ok();
        }
        verified.then_some(()).ok_or(Refused::Mismatch)?;
        text.check_reading(&Known {
            more: &self.more_fields,
            ..KNOWN
        })
    }

    /// Fills in what is always there, and signs `draft` with the first key.
    pub(super) fn sign(&self, draft: &mut Draft, now_unix_s: u64) -> Result<(), CannotSign> {
        let element = |name: &str| Selector::Xml(vec![name.to_owned()]);
        for name in KNOWN.always {
            draft.fill(&element(name), &sample(name, now_unix_s))?;
        }
        draft.fill(&element("sign_type"), "HMAC-SHA256")?;
        let kind = match draft.find(&element("sign_type")).as_deref() {
            Some("MD5") => Kind::Md5,
            _ => Kind::HmacSha256,
        };
        let key = self.keys.first().ok_or(CannotSign::NoTestKey)?;
        let text = draft.with_request(|request| {
            let fields = fields(request)?;
            Ok::<_, Refused>(fields.text(true, "&", |name| name != b"sign"))
        })?;
        draft.set(&element("sign"), &signature(kind, key, &text.bytes))
    }
}

fn signature(kind: Kind, key: &MacKey, text: &[u8]) -> String {
    const KEY: &[u8] = b"&key=";
    match kind {
        Kind::Md5 => {
            let mut hash = Md5::new();
            for piece in [text, KEY, key.secret()] {
                hash.update(piece);
            }
            hex_upper(&hash.finalize())
        }
        Kind::HmacSha256 => {
            let mut mac = key.begin();
            for piece in [text, KEY, key.secret()] {
                mac.update(piece);
            }
            hex_upper(mac.sign().as_ref())
        }
    }
}

fn fields(request: &Request<'_>) -> Result<Fields<'static>, Refused> {
    elements(request.readable_body()?, Some("xml"))
}

/// The text that `request` should have been signed as, the key left out.
pub(super) fn explain(request: &Request<'_>) -> Result<Vec<u8>, Refused> {
    let mut text = fields(request)?
        .text(true, "&", |name| name != b"sign")
        .bytes;
    text.extend_from_slice(b"&key=<secret>");
    Ok(text)
}
