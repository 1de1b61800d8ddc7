//! The engine `alipay`: an RSA signature over the sorted fields of a form, in the bytes that the form says once decoded.

use super::fields::{Fields, Known, Text};
use super::keys::{RsaHash, RsaKey, unbase64};
use super::{Refused, Request};
use crate::request::form;

/// The fields of Alipay's notifications of payments, refunds and agreements. The signature is never in the text;
/// `sign_type` is in some.
const KNOWN: Known<'_> = Known {
    always: &[
        "app_id",
        "auth_app_id",
        "buyer_id",
        "charset",
        "gmt_create",
        "notify_id",
        "notify_time",
        "notify_type",
        "out_trade_no",
        "seller_id",
        "sign_type",
        "subject",
        "total_amount",
        "trade_no",
        "trade_status",
        "version",
    ],
    sometimes: &[
        "agreement_no",
        "alipay_user_id",
        "biz_content",
        "biz_settle_mode",
        "body",
        "buyer_logon_id",
        "buyer_open_id",
        "buyer_pay_amount",
        "charge_amount",
        "charge_flags",
        "credit_biz_order_id",
        "credit_pay_mode",
        "discount_amount",
        "enterprise_pay_info",
        "external_agreement_no",
        "fund_bill_list",
        "gmt_close",
        "gmt_payment",
        "gmt_refund",
        "hb_fq_pay_info",
        "invalid_time",
        "invoice_amount",
        "mdiscount_amount",
        "merchant_app_id",
        "msg_app_id",
        "msg_id",
        "msg_method",
        "msg_type",
        "msg_uid",
        "notify_action_type",
        "open_id",
        "operator_id",
        "out_biz_no",
        "out_request_no",
        "passback_params",
        "pay_amount",
        "pay_currency",
        "personal_product_code",
        "point_amount",
        "receipt_amount",
        "refund_fee",
        "refund_reason",
        "refund_status",
        "seller_email",
        "send_back_fee",
        "settle_currency",
        "settlement_id",
        "sign_scene",
        "sign_time",
        "status",
        "store_id",
        "store_name",
        "terminal_id",
        "trade_settle_info",
        "trans_pay_rate",
        "unsign_time",
        "utc_timestamp",
        "valid_time",
        "voucher_detail_list",
    ],
    free_text: &[
        "biz_content",
        "body",
        "fund_bill_list",
        "passback_params",
        "refund_reason",
        "store_name",
        "subject",
        "voucher_detail_list",
    ],
    never: &["sign"],
};

/// What such a route checks with.
#[derive(Clone, Debug, PartialEq)]
pub struct Alipay {
    /// Any of them may have signed.
    pub keys: Vec<RsaKey>,
    /// `sign_type=RSA`, which is SHA-1, is believed too.
    pub allows_sha1: bool,
}

impl Alipay {
    /// Whether one of the keys signed the form.
    pub(super) fn verify(&self, request: &Request<'_>) -> Result<(), Refused> {
        let fields = fields(request)?;
        let sign_type = fields.get(b"sign_type");
        let hash = match sign_type {
            None | Some(b"RSA2") => RsaHash::Sha256,
            Some(b"RSA") if self.allows_sha1 => RsaHash::Sha1,
            Some(b"RSA") => {
                return Err(Refused::Malformed(
                    "its sign_type is RSA (SHA-1); set the application to RSA2, or allow_sha1 = true in the route",
                ));
            }
            Some(_) => return Err(Refused::Malformed("its sign_type is not RSA2")),
        };
        let sign = fields
            .get(b"sign")
            .ok_or(Refused::Missing("form field sign".into()))?;
        let sign = std::str::from_utf8(sign).ok().and_then(unbase64);
        let sign = sign.ok_or(Refused::Malformed("its sign is no base64"))?;
        let signed = |text: &Text| {
            let digest = hash.of(&text.bytes);
            self.keys
                .iter()
                .any(|key| key.verifies(hash, &digest, &sign))
        };
        let mut text = without_type(&fields);
        if !signed(&text) {
            // Some kinds of notification are signed with it.
            text = fields.text(false, "&", |name| name != b"sign");
            if sign_type.is_none() || !signed(&text) {
                return Err(Refused::Mismatch);
            }
        }
        text.check_reading(&KNOWN)
    }
}

/// Whether the form field called `name` is a part of the message.
pub(super) fn signs(name: &str) -> bool {
    !matches!(name, "sign" | "sign_type")
}

fn fields<'r>(request: &Request<'r>) -> Result<Fields<'r>, Refused> {
    const BAD_ESCAPE: Refused = Refused::Malformed("its form has a % without two digits");
    Fields::new(form::fields(request.readable_body()?).map(|(name, value)| {
        let name = form::decode(name).ok_or(BAD_ESCAPE)?;
        Ok((name, form::decode(value).ok_or(BAD_ESCAPE)?))
    }))
}

fn without_type(fields: &Fields<'_>) -> Text {
    fields.text(false, "&", |name| !matches!(name, b"sign" | b"sign_type"))
}

/// The text that `request` should have been signed as.
pub(super) fn explain(request: &Request<'_>) -> Result<Vec<u8>, Refused> {
    Ok(without_type(&fields(request)?).bytes)
}
