//! The engine `alipay`: an RSA signature over the sorted fields of a form, in the bytes that the form says once decoded.

use super::fields::{Fields, Known, Text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::draft::{CannotSign, Draft, sample};
use super::keys::{RsaHash, RsaKey, unbase64};
use super::{Refused, Request};
use crate::request::{Selector, form};

/// The fields of Alipay's notifications of payments, refunds and agreements. The signature is never in the text;
/// `sign_type` is in some.
///
/// Always there are those of every example that Alipay has published since 2016: the first had no `auth_app_id`, `charset` and
/// `version`, and notifications of 2025 have `buyer_open_id` in place of `buyer_id`. The others are those that its documents of
/// the asynchronous notice, its SDKs and notices seen in public name; `buyer_email` and `total_fee` are of the older gateway.
const KNOWN: Known<'_> = Known {
    always: &[
        "app_id",
        "notify_id",
        "notify_time",
        "notify_type",
        "out_trade_no",
        "seller_id",
        "total_amount",
        "trade_no",
        "trade_status",
    ],
    sometimes: &[
        "agreement_no",
        "alipay_user_id",
        "auth_app_id",
        "biz_content",
        "biz_settle_mode",
        "bkagent_resp_info",
        "body",
        "business_params",
        "buyer_email",
        "buyer_id",
        "buyer_logon_id",
        "buyer_open_id",
        "buyer_pay_amount",
        "buyer_user_name",
        "buyer_user_type",
        "cashier_type",
        "charge_amount",
        "charge_flags",
        "charge_info_list",
        "charset",
        "credit_biz_order_id",
        "credit_pay_mode",
        "current_seller_received_amount",
        "discount_amount",
        "discount_goods_detail",
        "enterprise_pay_info",
        "ext_infos",
        "external_agreement_no",
        "ff_current_period",
        "fund_bill_list",
        "gmt_close",
        "gmt_create",
        "gmt_payment",
        "gmt_refund",
        "hb_fq_pay_info",
        "hyb_amount",
        "industry_sepc_detail",
        "intact_charge_info_list",
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
        "out_channel_type",
        "out_request_no",
        "passback_params",
        "pay_amount",
        "pay_currency",
        "period_scene",
        "personal_product_code",
        "point_amount",
        "receipt_amount",
        "receipt_currency_type",
        "refund_currency",
        "refund_fee",
        "refund_reason",
        "refund_status",
        "seller_email",
        "seller_received_total_amount",
        "send_back_fee",
        "settle_amount",
        "settle_currency",
        "settle_trans_rate",
        "settlement_id",
        "sign_scene",
        "sign_time",
        "sign_type",
        "status",
        "store_id",
        "store_name",
        "subject",
        "terminal_id",
        "total_fee",
        "total_from_seller_fee",
        "trade_settle_info",
        "trans_currency",
        "trans_pay_rate",
        "unsign_time",
        "utc_timestamp",
        "valid_time",
        "version",
        "voucher_detail_list",
    ],
    more: &[],
    free_text: &["body", "passback_params", "subject"],
    never: &["sign"],
};

/// What such a route checks with.
#[derive(Clone, Debug, PartialEq)]
pub struct Alipay {
    /// Any of them may have signed.
    pub keys: Vec<RsaKey>,
    /// `sign_type=RSA`, which is SHA-1, is believed too.
    pub allows_sha1: bool,
    /// Names of fields that Alipay sends beside those that are known here.
    pub more_fields: Vec<String>,
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
        text.check_reading(&Known {
            more: &self.more_fields,
            ..KNOWN
        })
    }

    /// Fills in what is always there, and signs `draft` with a test key.
    pub(super) fn sign(&self, draft: &mut Draft, now_unix_s: u64) -> Result<(), CannotSign> {
        let field = |name: &str| Selector::Form(name.to_owned());
        for name in KNOWN.always {
            draft.fill(&field(name), &sample(name, now_unix_s))?;
        }
        draft.fill(&field("sign_type"), "RSA2")?;
        let text =
            draft.with_request(|request| Ok::<_, Refused>(without_type(&fields(request)?)))?;
        let digest = RsaHash::Sha256.of(&text.bytes);
        let signature = self.keys.iter().find_map(|key| key.sign(&digest));
        let signature = signature.ok_or(CannotSign::NoTestKey)?;
        draft.set(&field("sign"), &STANDARD.encode(signature))
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
