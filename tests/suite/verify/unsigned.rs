//! What nobody signed and must be taken all the same: items that Adyen does not sign, which go to the dead letters, and the
//! question whether an address is the merchant's, which is answered to who signs it.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::{fresh, relay, toml};
use crate::outbox::messages;
use crate::support::{Answer, Relay, Setup};

const REPORT: &str = r#"{"live":"false","notificationItems":[{"NotificationRequestItem":{"eventCode":"REPORT_AVAILABLE","pspReference":"report.csv","success":"true","merchantAccountCode":"TestMerchant","amount":{"currency":"EUR","value":0}}}]}"#;

fn with_choice(choice: &str) -> Relay {
    let genuine = fresh::adyen_notice(&[fresh::adyen_item("PSP1", "till-7", 1, "true")])
        .key("unsigned_items", &format!("{choice:?}"));
    let stores = "[delivery]\nundelivered = \"store\"\n";
    Setup::with(&(stores.to_owned() + &toml(&[genuine]))).start()
}

#[test]
fn items_that_adyen_does_not_sign_are_dead_letters_if_the_route_says_so() {
    let relay = with_choice("dead-letter");
    let mut till = relay.backend("till-7");
    let answer = relay.post("/0/till-7", REPORT.as_bytes()).answer();
    assert_eq!(answer.told(), (200, "stored"));
    assert_eq!(answer.text(), "[accepted]");
    assert_eq!(messages(&relay, "dead"), 1.0);
    assert_eq!(messages(&relay, "pending"), 0.0);
    let id = answer.id();
    relay.log_contains(&format!(
        "{id} for till-7 by route-0 is a dead letter: refused: unverified: nothing of it is signed (unsigned_items)"
    ));
    let row = relay.admin(&format!("/outbox/{id}")).text();
    assert!(row.contains("\"verified\":\"none\""), "{row}");

    // A notice with a signature is judged by it, whatever else is in it.
    let signed = fresh::adyen_item("PSP1", "till-7", 1, "true");
    let [mixed, forged] = [
        fresh::adyen_notice(&[signed.clone(), item_of(REPORT)]),
        fresh::adyen_notice(&[signed.replace("\"value\":1}", "\"value\":2}")]),
    ];
    for body in [&mixed.body, &forged.body] {
        let answer = relay.post("/0/till-7", body).answer();
        assert_eq!(answer.told(), (401, "bad-signature"));
    }
    // What stands beside a dead letter of the same event is no duplicate of it.
    let unsigned = signed.replace("hmacSignature", "hmac");
    let unsigned = fresh::adyen_notice(&[unsigned]);
    let answer = relay.post("/0/till-7", &unsigned.body).answer();
    assert_eq!(answer.told(), (200, "stored"));
    let genuine = fresh::adyen_notice(&[signed]);
    let answer = relay.post("/0/till-7", &genuine.body);
    till.expect("MSG id=* verified=adyen =*", &genuine.body)
        .ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
    till.settle();
}

/// The first item of a notice.
fn item_of(notice: &str) -> String {
    let (_, items) = notice.split_once('[').expect("a list");
    items.strip_suffix("]}").expect("its end").to_owned()
}

#[test]
fn an_item_without_a_signature_is_refused_unless_the_route_says_otherwise() {
    let genuine = fresh::adyen_notice(&[fresh::adyen_item("PSP1", "till-7", 1, "true")]);
    for relay in [relay(&[genuine]), with_choice("refuse")] {
        let answer = relay.post("/0/till-7", REPORT.as_bytes()).answer();
        assert_eq!(answer.told(), (401, "bad-signature"));
        assert_eq!(messages(&relay, "dead"), 0.0);
        relay.log_contains("there is no additionalData.hmacSignature of every item");
    }
}

#[test]
fn strangers_do_not_fill_the_outbox_with_what_nobody_signed() {
    let toml = "[delivery]\nundelivered = \"store\"\n[http]\nfailures_per_minute = 5\n[[route]]\npath = \"/adyen\"\nverify = \"adyen\"\nsecrets = [\"00ff\"]\n\
                id = \"json:/notificationItems/0/NotificationRequestItem/merchantReference\"\nunsigned_items = \"dead-letter\"\n";
    let relay = Relay::with(toml);
    let told: Vec<(u16, String)> = (0..20)
        .map(|_| relay.post("/adyen", REPORT.as_bytes()).answer())
        .map(|answer| (answer.status, answer.outcome().to_owned()))
        .collect();
    assert_eq!(
        told[0],
        (200, "stored".to_owned()),
        "it needs no backend's id"
    );
    assert_eq!(told[19], (429, "too-many".to_owned()));
    let dead = told.iter().filter(|(status, _)| *status == 200).count();
    assert!(dead <= 6, "{told:?}");
    assert_eq!(messages(&relay, "dead"), dead as f64);
    relay.log_contains("for unsigned by /adyen is a dead letter");
}

/// A relay that gives `echostr` back to who signs the question, and a query so signed.
fn douyin() -> (Relay, String) {
    let relay = Relay::with(
        "[http]\nfailures_per_minute = 1000\n[[route]]\npath = \"/dy/{id}\"\nname = \"dy\"\nverify = \"douyin-sha1\"\nsecrets = [\"dyToken\"]\n\
         proof = { body = \"{query:echostr}\", secrets = [\"dyToken\"], signed = { text = \"{ordered(secret,query:timestamp,query:nonce,query:msg?)}\", \
         algorithm = \"sha1\", signature = \"query:signature\" } }\n\
         [[route]]\npath = \"/ks/{id}\"\nname = \"ks\"\nok = { body = \"id={json:/message_id}.\" }\n",
    );
    (relay, question(""))
}

/// As WeChat and Douyin sign it: three texts in the order of their bytes, or four with Douyin's `msg`.
fn question(msg: &str) -> String {
    let mut texts = ["dyToken", "1795855399", "797", msg];
    texts.sort_unstable();
    let signature = digest(&SHA1_FOR_LEGACY_USE_ONLY, texts.concat().as_bytes());
    let signature = fresh::hex(signature.as_ref());
    format!("signature={signature}&timestamp=1795855399&nonce=797&echostr=6312041983")
}

fn proof(relay: &Relay, method: &str, query: &str) -> Answer {
    let request =
        format!("{method} /dy/till-7?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    relay.send(request.as_bytes()).answer()
}

#[test]
fn a_parameter_is_given_back_to_who_signs_the_question() {
    let (relay, query) = douyin();
    let with_msg = format!("{}&msg=m-1", question("m-1"));
    for query in [&query, &with_msg] {
        let answer = proof(&relay, "GET", query);
        assert_eq!(answer.told(), (200, "proof"));
        assert_eq!(answer.text(), "6312041983");
    }
    for forged in [
        with_msg.replace("m-1", "m-2"),
        query.replace("nonce=797", "nonce=798"),
        query.replace("&nonce=797", ""),
        query.replace("signature=", "signature=0"),
        "echostr=6312041983".to_owned(),
    ] {
        let answer = proof(&relay, "GET", &forged);
        assert_eq!(answer.told(), (401, "bad-signature"), "{forged}");
        assert!(!answer.text().contains("6312041983"));
    }
    // What is not signed (echostr itself) is given back as plain text only.
    let answer = proof(&relay, "GET", &query.replace("6312041983", "%3Cscript%3E"));
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    assert_eq!(relay.metric("payrelay_signature_refusals_total"), 5.0);
}

#[test]
fn a_value_that_is_not_given_back_is_said_without_the_value() {
    let (relay, query) = douyin();
    let mut till = relay.backend("till-7");
    let long = "7".repeat(257);
    let not_plain = "it has a character that is not given back: one outside printable ASCII, or one of \" \\ < > &";
    let too_long = "it has 257 bytes, and at most 256 are given back";
    for (echostr, why) in [
        ("echostr=%3Chidden%3E", not_plain),
        (&format!("echostr={long}"), too_long),
        ("echo=1", "there is no echostr in the query"),
    ] {
        let query = query.replace("echostr=6312041983", echostr);
        let answer = proof(&relay, "GET", &query);
        assert_eq!((answer.status, answer.text().as_str()), (200, ""));
        let line = relay.log_contains(why);
        let says = format!(
            "route dy: echostr in the query is left out of the answer that should give it back: {why}"
        );
        assert!(line.contains("[WARN]") && line.ends_with(&says), "{line}");
    }
    let mut notify = |message_id: &str| {
        let body = format!("{{\"message_id\":\"{message_id}\"}}");
        let answer = relay.post("/ks/till-7", body.as_bytes());
        till.message().ack();
        answer.answer().text()
    };
    // At the limit, and with nothing in it, a value is given back and nothing is said.
    assert_eq!(notify(&long[1..]), format!("id={}.", &long[1..]));
    assert_eq!(notify(""), "id=.");
    assert_eq!(notify("caf\u{e9}-hidden"), "id=.");
    relay.log_contains("route ks: /message_id in the JSON body is left out of the answer");
    // Counted, and said again after ten seconds only.
    assert_eq!(notify("caf\u{e9}-hidden"), "id=.");
    assert_eq!(notify(&long), "id=.");
    relay.log_contains("route ks: /message_id in the JSON body is left out of the answer that should give it back: it has 257");
    let log = relay.log();
    let told = log.lines().filter(|line| {
        line.contains(" is left out of the answer") && !line.contains(" more in 10 s like: ")
    });
    assert_eq!(told.count(), 5, "{log}");
    assert!(
        !log.contains("hidden") && !log.contains(&long[..20]),
        "{log}"
    );
}
