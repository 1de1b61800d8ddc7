//! Notifications with every field that the providers' documents and examples have: no field is taken for a part of the text
//! before it, in any preset of sorted fields.

use super::callback::listed;
use super::fresh::{self, SECRET, hex, rsa};
use super::schemes::{Sent, gets_in, md5, toml};
use crate::support::Setup;

/// `name=value` of each field, sorted and joined.
fn sorted(fields: &[(&str, &str)], skips_empty: bool) -> String {
    let mut fields = fields.to_vec();
    fields.sort_unstable();
    let pairs = fields
        .iter()
        .filter(|(_, value)| !(skips_empty && value.is_empty()))
        .map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join("&")
}

fn form(fields: &[(&str, &str)]) -> String {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect();
    fresh::form(&fields)
}

/// A notification of Alipay with these fields.
fn alipay(fields: &[(&str, &str)]) -> Sent {
    let sign = rsa(sorted(fields, false).as_bytes());
    let all = [fields, &[("sign_type", "RSA2"), ("sign", &sign)]].concat();
    Sent::new("alipay", form(&all)).key()
}

/// The example in UnionPay's documents of a payment's notice, version 5.1.0, with a merchant's text.
const UNIONPAY: [(&str, &str); 24] = [
    ("accNo", "6226********0048"),
    ("accessType", "0"),
    ("bizType", "000201"),
    ("currencyCode", "156"),
    ("encoding", "UTF-8"),
    ("merId", "777290058110048"),
    ("orderId", "2018080821331699975150"),
    ("payCardType", "01"),
    ("payType", "0001"),
    ("queryId", "541808082133169806058"),
    ("reqReserved", "server=1&role=2"),
    ("reserved", ""),
    ("respCode", "00"),
    ("respMsg", "成功[0000000]"),
    ("settleAmt", "10000"),
    ("settleCurrencyCode", "156"),
    ("settleDate", "0808"),
    ("signMethod", "01"),
    (
        "signPubKeyCert",
        "-----BEGIN CERTIFICATE-----\r\nMII=\r\n-----END CERTIFICATE-----",
    ),
    ("traceNo", "169806"),
    ("traceTime", "0808213316"),
    ("txnAmt", "10000"),
    ("txnSubType", "01"),
    ("txnTime", "20180808213316"),
];

fn unionpay(more: &[(&str, &str)]) -> Sent {
    let kind = [("txnType", "01"), ("version", "5.1.0")];
    let mut fields = [&UNIONPAY[..], &kind, more].concat();
    let text = sorted(&fields, false);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let sign = rsa(hex(digest.as_ref()).as_bytes());
    fields.push(("signature", &sign));
    Sent::new("unionpay", form(&fields)).key()
}

fn xiaomi(more: &[(&str, &str)]) -> Sent {
    let usual = [
        ("appId", "2882303761517239138"),
        ("cpOrderId", "9786bffc-996d-4553-aa33-f7e92c0b29d5"),
        ("cpUserInfo", "server=1&name=2"),
        ("orderConsumeType", "10"),
        ("orderId", "21140990160359583390"),
        ("orderStatus", "TRADE_SUCCESS"),
        ("partnerGiftConsume", "0"),
        ("payFee", "1"),
        ("payTime", "2026-11-28 15:20:27"),
        ("productCode", "com.demo_1"),
        ("productCount", "1"),
        ("productName", "银子1两"),
        ("uid", "100010"),
    ];
    let mut fields = [&usual[..], more].concat();
    let text = sorted(&fields, true);
    let key = aws_lc_rs::hmac::Key::new(
        aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        SECRET.as_bytes(),
    );
    let sign = hex(aws_lc_rs::hmac::sign(&key, text.as_bytes()).as_ref());
    fields.push(("signature", &sign));
    Sent::new("xiaomi", "").secret().get(&form(&fields))
}

fn epay(more: &[(&str, &str)]) -> Sent {
    let usual = [
        ("api_trade_no", "4200001"),
        ("buyer", "2088"),
        ("money", "1.00"),
        ("name", "VIP & 1=1"),
        ("out_trade_no", "game-01_7"),
        ("param", "role=7&x=1"),
        ("pid", "1001"),
        ("trade_no", "20160806151343349021"),
        ("trade_status", "TRADE_SUCCESS"),
        ("type", "alipay"),
    ];
    let mut fields = [&usual[..], more].concat();
    let sign = md5(&[&sorted(&fields, true), SECRET]);
    fields.extend([("sign", &*sign), ("sign_type", "MD5")]);
    Sent::new("epay", "").secret().get(&form(&fields))
}

/// A payment of 2025, when `buyer_open_id` had taken the place of `buyer_id`; every field after a free text that is documented.
const ALIPAY: [(&str, &str); 28] = [
    ("app_id", "2021005199606982"),
    ("auth_app_id", "2021005199606982"),
    ("body", "a=1&b=2"),
    ("buyer_logon_id", "999***@sina.com"),
    ("buyer_open_id", "099luGU2ef8yeC95sroZ9WGyuuGqL7qD"),
    ("buyer_pay_amount", "0.02"),
    ("charset", "UTF-8"),
    ("fund_bill_list", "[{\"amount\":\"0.02\"}]"),
    ("gmt_create", "2025-10-17 15:31:07"),
    ("gmt_payment", "2025-10-17 15:31:18"),
    ("hb_fq_pay_info", "{\"user_install_num\":\"3\"}"),
    ("invoice_amount", "0.00"),
    ("merchant_app_id", "2021005199606982"),
    ("notify_id", "2025101701222153119086991451124623"),
    ("notify_time", "2025-10-17 15:56:32"),
    ("notify_type", "trade_status_sync"),
    ("out_trade_no", "176068626732100521009"),
    ("passback_params", "tpdp_id=17&pid=2&role=3"),
    ("point_amount", "0.00"),
    ("receipt_amount", "0.02"),
    ("receipt_currency_type", "DC"),
    ("seller_email", "seller@example.com"),
    ("seller_id", "2088070256235011"),
    ("subject", "客服: 400 & t=1"),
    ("total_amount", "0.02"),
    ("trade_no", "2025101722001486991458220176"),
    ("trade_status", "TRADE_SUCCESS"),
    ("version", "1.0"),
];

/// Alipay's first example of this notice, of 2016.
const ALIPAY_2016: [(&str, &str); 20] = [
    (
        "voucher_detail_list",
        "[{\"name\":\"5折券\",\"a\":\"b=1\"}]",
    ),
    ("fund_bill_list", "[{\"amount\":\"0.80\"}]"),
    ("subject", "PC网站支付交易"),
    ("trade_no", "2016101221001004580200203978"),
    ("gmt_create", "2016-10-12 21:36:12"),
    ("notify_type", "trade_status_sync"),
    ("total_amount", "1.00"),
    ("out_trade_no", "mobile_rdm862016-10-12213600"),
    ("invoice_amount", "0.80"),
    ("seller_id", "2088201909970555"),
    ("notify_time", "2016-10-12 21:41:23"),
    ("trade_status", "TRADE_SUCCESS"),
    ("gmt_payment", "2016-10-12 21:37:19"),
    ("receipt_amount", "0.80"),
    ("passback_params", "passback_params123"),
    ("buyer_id", "2088102114562585"),
    ("app_id", "2016092101248425"),
    ("notify_id", "7676a2e1e4e737cff30015c4b7b55e3kh6"),
    ("buyer_pay_amount", "0.80"),
    ("point_amount", "0.00"),
];

/// The older gateway's notice.
const ALIPAY_OLD: [(&str, &str); 22] = [
    ("body", "gems"),
    ("buyer_email", "x@example.com"),
    ("buyer_id", "2088002007018916"),
    ("discount", "0.00"),
    ("gmt_create", "2013-08-22 14:45:23"),
    ("gmt_payment", "2013-08-22 14:45:24"),
    ("is_total_fee_adjust", "N"),
    ("notify_id", "64ce1b6ab92d00ede0ee56ade98fdf2f4c"),
    ("notify_time", "2013-08-22 14:45:24"),
    ("notify_type", "trade_status_sync"),
    ("out_trade_no", "082215222612710"),
    ("payment_type", "1"),
    ("price", "1.00"),
    ("quantity", "1"),
    ("seller_email", "seller@example.com"),
    ("seller_id", "2088501624816263"),
    ("subject", "测试"),
    ("total_fee", "1.00"),
    ("trade_no", "2013082244524842"),
    ("trade_status", "TRADE_SUCCESS"),
    ("use_coupon", "N"),
    ("z_last", "1"),
];

#[test]
fn every_documented_field_may_follow_a_text_of_the_merchant() {
    let genuine = [
        unionpay(&[]),
        xiaomi(&[]),
        epay(&[]),
        alipay(&ALIPAY),
        alipay(&ALIPAY_2016),
        alipay(&ALIPAY_OLD),
    ];
    for sent in genuine {
        let toml = format!(
            "{}\n[delivery]\nundelivered = \"refuse\"\n",
            toml(std::slice::from_ref(&sent))
        );
        let relay = Setup::with(&toml).start();
        assert!(gets_in(&relay, &sent.request()), "{}", relay.log());
    }
}

/// A provider adds a field that this version does not know, right behind a text of the merchant: the log names the field and what to
/// write, and with that the next notification gets in.
#[test]
fn a_field_that_is_new_gets_in_once_the_route_names_it() {
    let mut with_new = ALIPAY.to_vec();
    with_new.push(("passback_scene", "1"));
    let custom = |fields: &[(&str, &str)]| {
        let sign = md5(&[&sorted(fields, true), SECRET]);
        let fields = [fields, &[("sign", &*sign)]].concat();
        let mut sent = Sent::new("signed", form(&fields)).secret();
        sent.keys += "signed = { fields = \"form\", skip = [\"sign\"], text = \"{fields}{secret}\", algorithm = \"md5\", \
                      signature = \"form:sign\", always = [\"amount\"], free_text = [\"note\"] }\n";
        sent
    };
    for (sent, name) in [
        (alipay(&with_new), "passback_scene"),
        (unionpay(&[("requestScene", "1")]), "requestScene"),
        (xiaomi(&[("cpUserLevel", "1")]), "cpUserLevel"),
        (epay(&[("notify_count", "1")]), "notify_count"),
        (
            custom(&[("amount", "1"), ("note", "a&b"), ("note_kind", "2")]),
            "note_kind",
        ),
    ] {
        let start = |sent: &Sent| {
            let toml = toml(std::slice::from_ref(sent));
            Setup::with(&format!("{toml}\n[delivery]\nundelivered = \"refuse\"\n")).start()
        };
        let relay = start(&sent);
        assert!(!gets_in(&relay, &sent.request()), "{name}");
        let advice = format!("write more_fields = [\"{name}\"] in the route");
        assert!(relay.log_contains("bad signature").contains(&advice));
        let mut named = sent.clone();
        named.keys += &format!("more_fields = {}\n", listed(name));
        let relay = start(&named);
        assert!(gets_in(&relay, &named.request()), "{}", relay.log());
    }
}

/// A value that cannot be told from fields is refused, and the log says which.
#[test]
fn the_log_names_the_value_that_could_be_two_fields() {
    let mut fields = ALIPAY.to_vec();
    fields.retain(|(name, _)| *name != "body" && *name != "buyer_logon_id");
    fields.push(("body", "gems&buyer_logon_id=SECRET-VALUE"));
    let sent = alipay(&fields);
    let relay = Setup::with(&toml(std::slice::from_ref(&sent))).start();
    assert!(!gets_in(&relay, &sent.request()));
    let line = relay.log_contains("bad signature");
    assert!(
        line.contains("the value of body holds buyer_logon_id="),
        "{line}"
    );
    assert!(!relay.log().contains("SECRET-VALUE"), "{line}");
}
