//! The presets of the engine `signed`: each lets its provider's callback in, and no callback with a bit changed anywhere but in
//! what the provider does not sign, which is named here for each.

mod sent;

pub(super) use self::sent::{Sent, md5};
use self::sent::{fresh_ones, vectors};
use super::callback::listed;
use super::fresh::{self, SECRET, hex, now};
use crate::support::{Random, Relay, Setup};

pub(super) fn all() -> Vec<Sent> {
    vectors().into_iter().chain(fresh_ones()).collect()
}

pub(super) fn toml(all: &[Sent]) -> String {
    let mut toml = "[http]\nfailures_per_minute = 1000000\n[log]\nlevel = \"trace\"\n".to_owned();
    for sent in all {
        let (path, _) = sent.target.split_once('?').unwrap_or((&sent.target, ""));
        toml += &format!(
            "[[route]]\npath = \"{path}\"\nverify = \"{}\"\nid = \"header:x-test-id\"\nallow_unsigned_id = true\n\
             event = \"none\"\n{}\n",
            sent.preset, sent.keys
        );
    }
    toml
}

/// Whether the request became a notification.
pub(super) fn gets_in(relay: &Relay, request: &[u8]) -> bool {
    let answer = relay.send(request).answer();
    // Nobody is connected, so that nobody need acknowledge.
    matches!(answer.outcome(), "offline" | "stored")
}

#[test]
fn every_scheme_lets_its_provider_in_and_no_bit_of_what_is_signed_may_change() {
    let all = all();
    let toml = format!("{}\n[delivery]\nundelivered = \"refuse\"\n", toml(&all));
    let relay = Setup::with(&toml).start();
    let mut random = Random::new();
    for sent in &all {
        let request = sent.request();
        assert!(
            gets_in(&relay, &request),
            "{} is refused: {}",
            sent.preset,
            relay.log()
        );
        let mut changed = 0;
        while changed < 40 {
            let at = random.below(request.len());
            let bit = 1 << random.below(8);
            if !is_signed(sent, &request, at, bit) {
                continue;
            }
            let mut forgery = request.clone();
            forgery[at] ^= bit;
            let what = String::from_utf8_lossy(&forgery).into_owned();
            assert!(
                !gets_in(&relay, &forgery),
                "{}: bit {bit} of byte {at}:\n{what}",
                sent.preset
            );
            changed += 1;
        }
    }
}

/// Whether the byte is a part of what the scheme checks, and another bit there says something else.
fn is_signed(sent: &Sent, request: &[u8], at: usize, bit: u8) -> bool {
    let text = String::from_utf8_lossy(request);
    let begins = |part: &str| text.find(part).expect("there");
    let within = |part: &str, from: usize| (from..from + part.len()).contains(&at);
    let (_, query) = sent.target.split_once('?').unwrap_or((&sent.target, ""));
    let in_query = !query.is_empty() && within(query, begins(query));
    let in_body = at >= request.len() - sent.body.len();
    let in_header = sent.headers.iter().any(|(name, value)| {
        let line = format!("{name}: {value}");
        sent.checked_headers.contains(name) && within(value, begins(&line) + name.len() + 2)
    });
    if !(in_query || in_body || in_header) {
        return false;
    }
    if sent.unsigned.iter().any(|part| within(part, begins(part))) {
        return false;
    }
    if sent.preset == "mercadopago" && in_query && bit == 0x20 && request[at].is_ascii_alphabetic()
    {
        return false; // the number of an order is signed in lower case
    }
    // Another case of a hex digit, in an escape or in the signature.
    let is_case =
        bit == 0x20 && request[at].is_ascii_hexdigit() && request[at].is_ascii_alphabetic();
    let escaped = request[..at].ends_with(b"%") || request[..at.saturating_sub(1)].ends_with(b"%");
    let hex_before = request[..at]
        .iter()
        .rev()
        .take_while(|b| b.is_ascii_hexdigit())
        .count();
    let hex_after = request[at..]
        .iter()
        .take_while(|b| b.is_ascii_hexdigit())
        .count();
    !(is_case && (escaped || hex_before + hex_after >= 32))
}

#[test]
fn ids_events_and_answers_are_made_of_what_the_provider_sends() {
    let of = |preset: &str| {
        vectors()
            .into_iter()
            .find(|sent| sent.preset == preset)
            .expect("a vector")
    };
    let (epay, kuaishou, douyin, m4399) =
        (of("epay"), of("kuaishou"), of("douyin-sha1"), of("4399"));
    let toml = format!(
        "[[route]]\npath = \"/epay\"\nname = \"e\"\nverify = \"epay\"\nid = \"param:out_trade_no\"\nid_before = \"_\"\n{}\n\
         [[route]]\npath = \"/ks\"\nname = \"k\"\nverify = \"kuaishou\"\nid = \"json:/data/out_order_no\"\nid_before = \"-85\"\n{}\n\
         [[route]]\npath = \"/dy1\"\nname = \"d\"\nverify = \"douyin-sha1\"\nid = \"json:/msg>/cp_orderno\"\nid_before = \"-84\"\n{}\n\
         [[route]]\npath = \"/4399\"\nname = \"m\"\nverify = \"4399\"\nid = \"param:mark\"\nid_before = \"-80\"\n{}\n",
        epay.keys, kuaishou.keys, douyin.keys, m4399.keys
    );
    let relay = Relay::with(&toml);
    let mut game = relay.backend("game-01");
    for (sent, event, told) in [
        (&epay, "20160806151343349021:TRADE_SUCCESS", "success"),
        (
            &kuaishou,
            "a7d77a37",
            r#"{"result":1,"message_id":"a7d77a37"}"#,
        ),
        (
            &douyin,
            "game-01-84:SUCCESS",
            r#"{"err_no":0,"err_tips":"success"}"#,
        ),
        (
            &m4399,
            "4399001",
            r#"{"status":2,"code":null,"money":"6","gamemoney":"60","msg":"success"}"#,
        ),
    ] {
        let answer = relay.send(&sent.request());
        let message = game.message();
        assert_eq!(message.frame.get("event"), Some(event), "{}", sent.preset);
        assert_eq!(message.frame.get("verified"), Some(&*sent.preset));
        if sent.method == "GET" {
            let head = String::from_utf8(message.frame.head().to_vec()).expect("ASCII");
            assert!(
                sent.preset == "epay" || head.starts_with(&format!("GET {} ", sent.target)),
                "{head}"
            );
        }
        message.ack();
        let answer = answer.answer();
        assert_eq!(
            (answer.outcome(), answer.text().as_str()),
            ("delivered", told)
        );
        let again = relay.send(&sent.request()).answer();
        assert_eq!(
            (again.outcome(), again.text().as_str()),
            ("duplicate", told)
        );
    }
}

#[test]
fn sorted_fields_of_every_scheme_are_believed_in_one_cut_only() {
    let all: Vec<Sent> = all()
        .into_iter()
        .filter(|sent| {
            ["epay", "xiaomi", "vivo", "uc", "u8sdk", "unionpay", "360"].contains(&&*sent.preset)
        })
        .collect();
    let toml = format!("{}\n[delivery]\nundelivered = \"refuse\"\n", toml(&all));
    let relay = Setup::with(&toml).start();
    for (preset, old, new) in [
        // Two fields become one.
        ("epay", "&name=VIP", "%26name=VIP"),
        ("epay", "&out_trade_no=game-01_20261128_7", ""),
        (
            "xiaomi",
            "&orderStatus=TRADE_SUCCESS&",
            "%26orderStatus=TRADE_SUCCESS&",
        ),
        ("vivo", "&orderNumber=9", "%26orderNumber=9"),
        (
            "uc",
            r#""callbackInfo":"srv=1","cpOrderId":"till-7""#,
            r#""callbackInfo":"srv=1cpOrderId=till-7""#,
        ),
        ("u8sdk", r#""extension": "x", "#, ""),
        ("unionpay", "&respMsg=", "%26respMsg="),
        // The same values under other names.
        ("360", "app%5Fext1", "app%5Fext2"),
        ("360", "app%5Fkey", "app%5Fkez"),
        ("360", "user%5Fid", "user%5Fie"),
        ("360", "amount=600&", "amount=600%23game%2D01&x="),
    ] {
        let sent = all
            .iter()
            .find(|sent| sent.preset == preset)
            .expect("a scheme");
        assert!(gets_in(&relay, &sent.request()), "{preset}");
        let text = String::from_utf8(sent.request()).expect("UTF-8");
        let changed = text.replacen(old, new, 1);
        let old_body = String::from_utf8_lossy(&sent.body).replacen(old, new, 1);
        let changed = changed.replace(
            &format!("Content-Length: {}", sent.body.len()),
            &format!("Content-Length: {}", old_body.len()),
        );
        assert_ne!(text, changed, "{preset}: {old}");
        assert!(
            !gets_in(&relay, changed.as_bytes()),
            "{preset}: {old} -> {new}"
        );
    }
}

#[test]
fn hostile_fields_of_every_shape_are_refused_in_bounded_time() {
    let table = |fields: &str, signature: &str| {
        format!(
            "[[route]]\npath = \"/{}\"\nverify = \"signed\"\nsecrets = [\"secret\"]\nid = \"header:x-test-id\"\n\
             allow_unsigned_id = true\n\
             signed = {{ fields = \"{fields}\", text = \"{{fields}}{{secret}}\", algorithm = \"sha256\", signature = \"{signature}\" }}\n",
            fields.replace([':', '/', '>'], "-")
        )
    };
    let mut toml = "[http]\nfailures_per_minute = 1000000\nmax_body = \"12MiB\"\n".to_owned();
    toml += &table("form", "header:x-sign");
    toml += &table("json", "header:x-sign");
    toml += &table("xml", "header:x-sign");
    toml += &table("json:/a/b", "header:x-sign");
    toml += &table("form:data", "header:x-sign");
    let relay = Setup::with(&toml).start();
    const MIB: usize = 1 << 20;
    let bodies = [
        "a=1&".repeat(2 * MIB),
        format!("{{\"a\":{{\"b\":{{{}\"z\":1}}}}}}", "\"a\":1,".repeat(MIB)),
        format!("{{\"a\":{}1{}}}", "[".repeat(3 * MIB), "]".repeat(3 * MIB)),
        format!("<xml>{}</xml>", "<a>1</a>".repeat(MIB)),
        format!("data={}", "{%22a%22:".repeat(MIB)),
        format!("a={}", "%26b=".repeat(MIB)),
        "[".repeat(8 * MIB),
        String::new(),
    ];
    for path in ["form", "json", "xml", "json--a-b", "form-data"] {
        for body in &bodies {
            let headers = [("X-Test-Id", "till-7"), ("X-Sign", "00")];
            let answer = relay
                .post_with(&format!("/{path}"), &headers, body.as_bytes())
                .answer();
            assert_eq!(answer.outcome(), "bad-signature", "{path}");
        }
    }
}

#[test]
fn check_and_verify_say_in_words_what_is_signed() {
    let of = |preset: &str| {
        vectors()
            .into_iter()
            .find(|sent| sent.preset == preset)
            .expect("a vector")
    };
    let epay = of("epay");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("relay.toml");
    std::fs::write(
        &file,
        format!(
            "[[route]]\npath = \"/epay\"\nname = \"epay\"\nverify = \"epay\"\nid = \"param:out_trade_no\"\n{}\n\
             [[route]]\npath = \"/s/{{id}}\"\nname = \"s\"\nverify = \"signed\"\nsecrets = [\"x\"]\n\
             signed = {{ text = \"{{form:a}}{{form:b}}{{secret}}\", algorithm = \"md5\", signature = \"form:sign\" }}\n\
             [[route]]\npath = \"/j/{{id}}\"\nname = \"j\"\nverify = \"signed\"\nsecrets = [\"x\"]\n\
             signed = {{ fields = \"json:/data\", text = \"{{fields}}{{query:a|lower?}}\", algorithm = \"hmac-sha1\", \
             signature = \"json:/sign\" }}\n",
            epay.keys
        ),
    )
    .expect("written");
    let payrelay = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_payrelay"))
            .args(arguments)
            .args(["--config", file.to_str().expect("UTF-8")])
            .output()
            .expect("payrelay");
        let text = [&output.stdout[..], &output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8(text).expect("UTF-8"),
        )
    };
    let (code, said) = payrelay(&["check"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains(
            "route epay: signed are all fields of the query (of the form, if there is a body) but sign and sign_type and \
             empty ones, sorted, joined by &, then the secret; MD5 (weak), hex, in parameter sign"
        ),
        "{said}"
    );
    assert!(
        said.contains(
            "route j: signed are all fields of /data in the JSON body but empty ones, sorted, joined by &, then a in the query \
             in lower case if it is there; HMAC-SHA1, hex, in /sign in the JSON body"
        ),
        "{said}"
    );
    assert!(
        said.contains("where one value ends") && said.contains("MD5 and SHA-1"),
        "{said}"
    );
    let request = folder.path().join("callback.http");
    let request = request.to_str().expect("UTF-8");
    let verify = |bytes: &[u8]| {
        std::fs::write(request, bytes).expect("written");
        payrelay(&["verify", "--route", "epay", "--file", request])
    };
    let (code, said) = verify(&epay.request());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("genuine\n"), "{said}");
    let forged = String::from_utf8(epay.request())
        .expect("UTF-8")
        .replace("money=1.00", "money=0.01");
    let (code, said) = verify(forged.as_bytes());
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("money=0.01&name=VIP会员&") && said.contains("type=alipay<secret>"),
        "{said}"
    );
    assert!(said.contains("not genuine (mismatch)"), "{said}");
    // What would turn the line around on a terminal is escaped.
    let turned = forged.replace("VIP", "VIP%E2%80%AE");
    let (_, turned) = verify(turned.as_bytes());
    assert!(turned.contains("VIP\\u{202e}"), "{turned}");
    assert!(
        !said.contains("WWc3Z2jkK7jhNGPALcGKjHLPK47wRK85"),
        "a secret is shown"
    );
}

#[test]
fn an_old_time_is_refused_and_a_value_is_not_cut_at_a_seam() {
    let json = r#"{"id":"evt_1"}"#;
    let old = ((now() - 301) * 1000).to_string();
    let tag = hex(&fresh::mac(
        SECRET.as_bytes(),
        &[old.as_bytes(), json.as_bytes()],
    ));
    let old = Sent::new("airwallex", json)
        .secret()
        .header("x-timestamp", &old)
        .header("x-signature", &tag);
    let toml = format!(
        "{}\n[delivery]\nundelivered = \"refuse\"\n",
        toml(std::slice::from_ref(&old))
    );
    let relay = Setup::with(&toml).start();
    assert!(!gets_in(&relay, &old.request()));
    assert_eq!(
        relay.metric("payrelay_signature_refusals_total{reason=\"expired\"}"),
        1.0
    );
}

#[test]
fn a_value_that_holds_what_follows_it_is_refused() {
    let toml = format!(
        "[[route]]\npath = \"/s/{{id}}\"\nverify = \"signed\"\nsecrets = {}\n\
         signed = {{ text = \"a={{form:a}}&b={{form:b}}{{secret}}\", algorithm = \"sha256\", signature = \"form:sign\" }}\n",
        listed(SECRET)
    );
    let relay = Relay::with(&toml);
    let mut till = relay.backend("till-7");
    let sign = |text: &str| {
        let text = [text, SECRET].concat();
        hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref())
    };
    let genuine = format!("a=1&b=2%26b%3D3&sign={}", sign("a=1&b=2&b=3"));
    let answer = relay.post("/s/till-7", genuine.as_bytes());
    till.message().ack();
    assert_eq!(answer.answer().outcome(), "delivered");
    let cut = format!("a=1%26b%3D2&b=3&sign={}", sign("a=1&b=2&b=3"));
    assert_eq!(
        relay.post("/s/till-7", cut.as_bytes()).answer().outcome(),
        "bad-signature"
    );
    till.settle();
}
