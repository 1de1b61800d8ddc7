//! Forging by re-cut: of a genuine message's signed text every other cut into fields is tried, for every scheme of sorted fields.
//! None gets in beside the genuine one. The search is seeded and prints its seed.

use std::collections::BTreeSet;

use super::fresh::{self, SECRET, base64, hex, rsa};
use super::schemes::{Sent, gets_in, md5, toml};
use crate::support::{Random, Setup};

/// What merchants and buyers write, as names of fields that schemes have, and that they have not.
const TEXTS: [&str; 16] = [
    "x",
    "a=1&b=2",
    "uid=5&pid=7&player=8",
    "1&cash_fee=1",
    "x&bank_type=A&openid=b",
    "60 gems&total_amount=0.01",
    "x&buyer_pay_amount=1&charset=b",
    "&",
    "=",
    "a&seller_id=1",
    "x&trade_status=TRADE_SUCCESS&version=2",
    "1&orderAmount=1&orderNumber=2",
    "1&respCode=00&settleAmt=1",
    "v&name=1&out_trade_no=2&pid=3",
    "1&money=1&type=2",
    "q&zz=1&zzz=2",
];

/// A scheme: its preset, its fields with the merchant's text (of `{}`) in them, and how it signs.
struct Scheme {
    preset: &'static str,
    fields: &'static [(&'static str, &'static str)],
    sign: fn(&str) -> String,
    /// What is in the message beside the fields.
    others: fn(String) -> Vec<(String, String)>,
}

fn with_secret(text: &str) -> String {
    md5(&[text, SECRET])
}

fn named(name: &'static str) -> impl Fn(String) -> Vec<(String, String)> {
    move |sign| vec![(name.to_owned(), sign)]
}

const SCHEMES: [Scheme; 7] = [
    Scheme {
        preset: "wechatpay-v2",
        fields: &[
            ("appid", "wx2421b1c4370ec43b"),
            ("attach", "{}"),
            ("bank_type", "CFT"),
            ("cash_fee", "1"),
            ("fee_type", "CNY"),
            ("mch_id", "10000100"),
            ("nonce_str", "5d2b"),
            ("openid", "oUpF8"),
            ("out_trade_no", "till-7"),
            ("result_code", "SUCCESS"),
            ("return_code", "SUCCESS"),
            ("time_end", "20261128133045"),
            ("total_fee", "8800"),
            ("trade_type", "JSAPI"),
            ("transaction_id", "42"),
        ],
        sign: |text| md5(&[text, "&key=", SECRET]).to_uppercase(),
        others: |sign| named("sign")(sign),
    },
    Scheme {
        preset: "alipay",
        fields: &[
            ("app_id", "20190731"),
            ("body", "{}"),
            ("buyer_open_id", "2088"),
            ("charset", "utf-8"),
            ("gmt_create", "2026-11-28 10:00:00"),
            ("invoice_amount", ""),
            ("notify_id", "n-1"),
            ("notify_time", "2026-11-28 10:00:02"),
            ("notify_type", "trade_status_sync"),
            ("out_trade_no", "till-7"),
            ("passback_params", "{}"),
            ("receipt_amount", "88.00"),
            ("seller_id", "2088"),
            ("subject", "{}"),
            ("total_amount", "88.00"),
            ("trade_no", "20"),
            ("trade_status", "TRADE_SUCCESS"),
        ],
        sign: |text| rsa(text.as_bytes()),
        others: |sign| named("sign")(sign),
    },
    Scheme {
        preset: "epay",
        fields: &[
            ("money", "1.00"),
            ("name", "{}"),
            ("out_trade_no", "till-7"),
            ("param", "{}"),
            ("pid", "1001"),
            ("trade_no", "20"),
            ("trade_status", "TRADE_SUCCESS"),
            ("type", "alipay"),
        ],
        sign: with_secret,
        others: |sign| named("sign")(sign),
    },
    Scheme {
        preset: "unionpay",
        fields: &[
            ("accNo", "6226"),
            ("bizType", "000201"),
            ("encoding", "UTF-8"),
            ("merId", "777"),
            ("orderId", "till-7"),
            ("queryId", "5418"),
            ("reqReserved", "{}"),
            ("respCode", "00"),
            ("respMsg", "OK"),
            ("settleAmt", "1"),
            ("signMethod", "01"),
            ("signPubKeyCert", "x"),
            ("traceNo", "1"),
            ("txnAmt", "1"),
            ("txnSubType", "01"),
            ("txnTime", "20"),
            ("txnType", "01"),
            ("version", "5.1.0"),
        ],
        sign: |text| {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
            rsa(hex(digest.as_ref()).as_bytes())
        },
        others: |sign| named("signature")(sign),
    },
    Scheme {
        preset: "vivo",
        fields: &[
            ("appId", "1"),
            ("cpId", "2"),
            ("cpOrderNumber", "till-7"),
            ("extInfo", "{}"),
            ("orderAmount", "600"),
            ("orderNumber", "9"),
            ("payTime", "20"),
            ("respCode", "200"),
            ("respMsg", "success"),
            ("tradeStatus", "0000"),
            ("tradeType", "01"),
            ("uid", "u1"),
        ],
        sign: |text| md5(&[text, "&", &md5(&[SECRET])]),
        others: |sign| named("signature")(sign),
    },
    Scheme {
        preset: "xiaomi",
        fields: &[
            ("appId", "1"),
            ("cpOrderId", "till-7"),
            ("cpUserInfo", "{}"),
            ("orderConsumeType", "10"),
            ("orderId", "2"),
            ("orderStatus", "TRADE_SUCCESS"),
            ("payFee", "1"),
            ("payTime", "20"),
            ("productCode", "c"),
            ("productCount", "1"),
            ("productName", "{}"),
            ("uid", "3"),
        ],
        sign: |text| {
            let key = aws_lc_rs::hmac::Key::new(
                aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                SECRET.as_bytes(),
            );
            hex(aws_lc_rs::hmac::sign(&key, text.as_bytes()).as_ref())
        },
        others: |sign| named("signature")(sign),
    },
    // A table of the route, with nothing known of its fields but one.
    Scheme {
        preset: "signed",
        fields: &[
            ("amount", "1"),
            ("note", "{}"),
            ("order", "till-7"),
            ("status", "2"),
            ("type", "3"),
        ],
        sign: |text| base64(&fresh::mac(SECRET.as_bytes(), &[text.as_bytes()])),
        others: |sign| named("sign")(sign),
    },
];

impl Scheme {
    /// The message with these fields and this signature.
    fn message(&self, fields: &[(String, String)], sign: &str) -> Sent {
        let all: Vec<_> = fields
            .iter()
            .cloned()
            .chain((self.others)(sign.to_owned()))
            .collect();
        let form = || {
            let bytes: Vec<_> = all
                .iter()
                .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
                .collect();
            fresh::form(&bytes)
        };
        match self.preset {
            "wechatpay-v2" => Sent::new(self.preset, fresh::document(&all)).secret(),
            "alipay" | "unionpay" => Sent::new(self.preset, form()).key(),
            "epay" | "xiaomi" => Sent::new(self.preset, "").secret().get(&form()),
            "signed" => {
                let mut sent = Sent::new(self.preset, form()).secret();
                sent.keys += "signed = { fields = \"form\", skip = [\"sign\"], text = \"{fields}\", algorithm = \"hmac-sha256\", \
                     encoding = \"base64\", signature = \"form:sign\", always = [\"amount\", \"order\", \"status\"], \
                     free_text = [\"note\"] }\n";
                sent
            }
            _ => Sent::new(self.preset, form()).secret(),
        }
    }

    fn skips_empty(&self) -> bool {
        !matches!(self.preset, "alipay" | "unionpay")
    }
}

/// The fields that these beginnings in the text make; `None`: they are out of order, or one is there twice.
fn cut(text: &str, begins: &BTreeSet<usize>) -> Option<Vec<(String, String)>> {
    let mut ends: Vec<usize> = begins.iter().skip(1).map(|at| at - 1).collect();
    ends.push(text.len());
    let fields: Option<Vec<_>> = begins
        .iter()
        .zip(ends)
        .map(|(&at, end)| {
            let (name, value) = text.get(at..end)?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        })
        .collect();
    fields.filter(|fields| fields.windows(2).all(|pair| pair[0].0 < pair[1].0))
}

#[test]
fn no_other_cut_of_a_genuine_message_gets_in() {
    let mut random = Random::new();
    let (mut cuts, mut believed) = (0, 0);
    let routes: Vec<Sent> = SCHEMES
        .iter()
        .map(|scheme| scheme.message(&[], "x"))
        .collect();
    let relay = Setup::with(&format!(
        "{}\n[delivery]\nundelivered = \"refuse\"\n",
        toml(&routes)
    ))
    .start();
    for scheme in &SCHEMES {
        for _ in 0..12 {
            let fields: Vec<(String, String)> = scheme
                .fields
                .iter()
                .map(|(name, value)| {
                    let text = TEXTS[random.below(TEXTS.len())];
                    ((*name).to_owned(), value.replace("{}", text))
                })
                .collect();
            let signed = fields
                .iter()
                .filter(|(_, value)| !(scheme.skips_empty() && value.is_empty()));
            let pieces: Vec<String> = signed.map(|(n, v)| format!("{n}={v}")).collect();
            let text = pieces.join("&");
            let mut own = BTreeSet::new();
            let mut at = 0;
            for piece in &pieces {
                own.insert(at);
                at += piece.len() + 1;
            }
            let sign = (scheme.sign)(&text);
            let genuine = gets_in(&relay, &scheme.message(&fields, &sign).request());
            believed += usize::from(genuine);
            let mut passed = usize::from(genuine);
            // Where a field could begin, but for the first.
            let places: Vec<usize> = (1..text.len())
                .filter(|&at| text.as_bytes()[at - 1] == b'&')
                .filter(|&at| {
                    let name = text[at..].split(['=', '&']).next().expect("a piece");
                    !name.is_empty() && text[at + name.len()..].starts_with('=')
                })
                .collect();
            let mut tried = BTreeSet::from([own.clone()]);
            for one in 0..places.len() {
                for other in 0..=one {
                    let mut begins = own.clone();
                    let further = (random.below(3) == 0).then(|| random.below(places.len()));
                    for place in [Some(one), (other < one).then_some(other), further]
                        .into_iter()
                        .flatten()
                    {
                        if !begins.remove(&places[place]) {
                            begins.insert(places[place]);
                        }
                    }
                    let Some(forged) = cut(&text, &begins) else {
                        continue;
                    };
                    let is_another_text =
                        scheme.skips_empty() && forged.iter().any(|(_, value)| value.is_empty());
                    if is_another_text || !tried.insert(begins) {
                        continue;
                    }
                    cuts += 1;
                    if gets_in(&relay, &scheme.message(&forged, &sign).request()) {
                        passed += 1;
                        assert!(
                            passed == 1,
                            "{}: {text} passes as {forged:?} too",
                            scheme.preset
                        );
                    }
                }
            }
        }
    }
    println!("{cuts} cuts; {believed} of {} genuine", SCHEMES.len() * 12);
    assert!(cuts > 1_000, "{cuts} cuts");
    // Some texts imitate fields too well: those are refused in every cut.
    assert!(believed > SCHEMES.len() * 8, "{believed}");
}
