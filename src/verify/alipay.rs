//! The engine `alipay`: an RSA signature over the sorted fields of a form, in the bytes that the form says once decoded.

use aws_lc_rs::digest;

use super::fields::Fields;
use super::form;
use super::keys::{RsaKey, unbase64};
use super::{Refused, Request};

/// The fields of Alipay's notices. A value that has `&` and one of them in it could be cut off there.
const KNOWN: &[&str] = &[
    "app_id",
    "auth_app_id",
    "body",
    "buyer_id",
    "buyer_logon_id",
    "buyer_open_id",
    "buyer_pay_amount",
    "charset",
    "fund_bill_list",
    "gmt_close",
    "gmt_create",
    "gmt_payment",
    "gmt_refund",
    "invoice_amount",
    "notify_id",
    "notify_time",
    "notify_type",
    "out_biz_no",
    "out_trade_no",
    "passback_params",
    "point_amount",
    "receipt_amount",
    "refund_fee",
    "seller_email",
    "seller_id",
    "send_back_fee",
    "sign",
    "sign_type",
    "subject",
    "total_amount",
    "trade_no",
    "trade_status",
    "version",
    "voucher_detail_list",
];

/// What such a route checks with.
#[derive(Clone, Debug, PartialEq)]
pub struct Alipay {
    /// Any of them may have signed.
    pub keys: Vec<RsaKey>,
}

impl Alipay {
    /// Whether one of the keys signed the form.
    pub(super) fn verify(&self, request: &Request<'_>) -> Result<(), Refused> {
        const BAD_ESCAPE: Refused = Refused::Malformed("its form has a % without two digits");
        let decoded = form::fields(request.body).map(|(name, value)| {
            let name = form::decode(name).ok_or(BAD_ESCAPE)?;
            Ok((name, form::decode(value).ok_or(BAD_ESCAPE)?))
        });
        let fields = Fields::new(decoded, KNOWN)?;
        let sign_type = fields.get(b"sign_type");
        if sign_type.is_some_and(|kind| kind != b"RSA2") {
            return Err(Refused::Malformed("its sign_type is not RSA2"));
        }
        let sign = fields
            .get(b"sign")
            .ok_or(Refused::Missing("form field sign".into()))?;
        let sign = std::str::from_utf8(sign).ok().and_then(unbase64);
        let sign = sign.ok_or(Refused::Malformed("its sign is no base64"))?;
        let without_type = self.signed(&fields, &sign, |name| {
            !matches!(name, b"sign" | b"sign_type")
        });
        // Some kinds of notice are signed with it.
        let verified = without_type
            || (sign_type.is_some() && self.signed(&fields, &sign, |name| name != b"sign"));
        verified.then_some(()).ok_or(Refused::Mismatch)
    }

    fn signed(&self, fields: &Fields<'_>, sign: &[u8], signs: impl Fn(&[u8]) -> bool) -> bool {
        let mut hash = digest::Context::new(&digest::SHA256);
        fields.message(|name, _| signs(name), |piece| hash.update(piece));
        let hash = hash.finish();
        self.keys.iter().any(|key| key.verifies(&hash, sign))
    }
}

/// Whether the form field called `name` is a part of the message.
pub(super) fn signs(name: &str) -> bool {
    !matches!(name, "sign" | "sign_type")
}
