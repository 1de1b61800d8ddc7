//! `payrelay send --sign`: what it makes in a provider's place, the real relay believes; and the test key that it signs with
//! where only the provider has the private one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use payrelay::verify::preset::Preset;
use payrelay::verify::presets;
use tempfile::TempDir;

use super::callback::{listed, quoted};
use super::fresh;
use crate::cli::beside;
use crate::support::{Backend, DEADLINE, Relay, run};

/// A test key in a folder of its own.
struct TestKey {
    dir: TempDir,
}

impl TestKey {
    fn new() -> Self {
        let key = Self {
            dir: TempDir::new().expect("a folder"),
        };
        let (code, said, words) = run(&["keys", "test", "--out", &key.path()]);
        assert_eq!(code, Some(0), "{words}");
        assert!(said.contains("allow_test = true"), "{said}");
        key
    }

    fn path(&self) -> String {
        let path = self.dir.path().join("test-key.pem");
        path.display().to_string()
    }

    /// The lines of a route that trusts it.
    fn trusted(&self) -> String {
        let keys = listed(&format!("file:{}", self.path()));
        format!("keys = {keys}\nallow_test = true\n")
    }
}

/// The lines that a route with this preset needs.
fn lines(preset: &Preset, key: &TestKey) -> String {
    let secret = match preset.name {
        "adyen" | "adyen-platform" => fresh::SECRET_HEX,
        "standard-webhooks" | "svix" => fresh::SECRET_WHSEC,
        _ => fresh::SECRET,
    };
    let mut lines = String::new();
    for name in preset.needs() {
        lines += &match (*name, preset.name) {
            ("secrets", _) => format!("secrets = {}\n", listed(secret)),
            ("keys", _) => key.trusted(),
            ("url", _) => "url = \"https://pay.example/square/{id}\"\n".to_owned(),
            ("hmac", _) => {
                "hmac = { header = \"X-Sign\", separator = \" \", prefix = \"s=\", message = \"v0:{id}:{timestamp}:{body}\", \
                 encoding = \"hex-upper\", timestamp_prefix = \"t=\", timestamp_unit = \"ms\", id_header = \"X-Nonce\", \
                 digest = \"sha512\" }\n"
                    .to_owned()
            }
            ("signed", _) => format!(
                "secrets = {}\nsigned = {{ fields = \"json:/data\", join = \"\", text = \"{{fields}}{{secret}}\", \
                 algorithm = \"sha256\", signature = \"json:/sign\", always = [\"order\"], encoding = \"base64\" }}\n",
                listed(secret)
            ),
            ("token", _) => "token = \"basic\"\n".to_owned(),
            ("claims", "apple") => {
                "claims = { bundleId = \"com.example.game\", environment = \"Sandbox\" }\n".to_owned()
            }
            ("claims", "google-play") => {
                "claims = { aud = \"https://pay.example/rtdn\", email = \"push@proj.iam.gserviceaccount.com\" }\n".to_owned()
            }
            ("claims", _) => "claims = { iss = \"https://issuer.example\" }\n".to_owned(),
            ("jws", _) => "jws = { token = \"header:Authorization\", prefix = \"Bearer \" }\n".to_owned(),
            (other, _) => panic!("what {} needs as {other}", preset.name),
        };
    }
    lines
}

/// What came of a send that was acknowledged.
struct Delivered {
    verified: String,
    event: String,
    body: Vec<u8>,
    /// What `send` printed beside the answer.
    words: String,
}

/// Sends by the route `name` and acknowledges what comes.
fn delivered(relay: &Relay, game: &mut Backend, args: &[&str]) -> Delivered {
    let args = [&["send", "game-01", "--sign"], args].concat();
    let mut send = beside(relay, &args);
    thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let code = send.wait_exit(DEADLINE);
            if code != Some(0) {
                eprintln!("{args:?}: {}{}", send.stdout(), send.stderr());
            }
            (code, send.stderr())
        });
        let message = game.message();
        let of = |key: &str| message.frame.get(key).unwrap_or_default().to_owned();
        let (verified, event) = (of("verified"), of("event"));
        let body = message.frame.body().to_vec();
        message.ack();
        let (code, words) = sent.join().expect("an exit code");
        assert_eq!(code, Some(0));
        Delivered {
            verified,
            event,
            body,
            words,
        }
    })
}

#[test]
fn every_preset_is_signed_and_believed_and_where_not_as_its_provider_would_it_is_said() {
    let key = TestKey::new();
    let mut toml = String::new();
    for preset in presets::all() {
        toml += &format!(
            "[[route]]\npath = \"/{0}/{{id}}\"\nname = \"{0}\"\nverify = \"{0}\"\n{1}",
            preset.name,
            lines(preset, &key)
        );
    }
    let relay = Relay::with(&toml);
    let mut game = relay.backend("game-01");
    for preset in presets::all() {
        for _ in 0..2 {
            // Two events: neither is a retry of the other.
            let told = delivered(&relay, &mut game, &[preset.name]);
            assert_eq!(told.verified, preset.name);
            // Where a test key can only stand in for the provider's way of signing, it is said.
            let other_way = match preset.name {
                "oppo" => Some("SHA-256, and this provider signs with SHA-1"),
                "apple" => Some("RS256, and this provider signs with ES256"),
                _ => None,
            };
            match other_way {
                Some(how) => assert!(told.words.contains(how), "{}", told.words),
                None => assert!(!told.words.contains("test key"), "{}", told.words),
            }
        }
    }
    // What is signed with another secret or by another test key is judged by the relay, and refused.
    let another = TestKey::new();
    let toml = toml
        .replace(fresh::SECRET, "another-secret-of-nobody")
        .replace(&key.path(), &another.path());
    let other = Relay::with(&toml);
    let forgers = presets::all().filter(|preset| {
        let by_key = preset.needs().contains(&"keys");
        by_key || preset.name == "stripe"
    });
    for preset in forgers {
        let url = format!("http://{}/{}/{{id}}", relay.ready().http, preset.name);
        let args = ["send", "game-01", "--sign", preset.name, "--url", &url];
        let mut send = beside(&other, &args);
        assert_eq!(send.wait_exit(DEADLINE), Some(1), "{}", preset.name);
        assert!(
            send.stdout().contains("outcome  bad-signature"),
            "{}: {}",
            preset.name,
            send.stdout()
        );
    }
    game.settle();
}

/// Ids, events and what an answer gives back, filled in where the routes look for them, beside what the developer gives.
#[test]
fn what_a_route_looks_for_is_where_it_looks() {
    let key = TestKey::new();
    let secrets = format!("secrets = {}\n", listed(fresh::SECRET));
    let api_v3 = format!("api_v3_key = {}\n", quoted(fresh::API_V3_KEY));
    let adyen = format!("secrets = {}\n", listed(fresh::SECRET_HEX));
    let apple = "claims = { bundleId = \"com.example.game\", environment = \"Sandbox\" }\n";
    let google = "claims = { aud = \"https://pay.example/rtdn\", email = \"push@proj.iam.gserviceaccount.com\" }\n";
    let reference = "json:/notificationItems/0/NotificationRequestItem/merchantReference";
    let mut toml = String::new();
    for (preset, id, more) in [
        (
            "epay",
            "param:out_trade_no",
            format!("id_before = \"_\"\n{secrets}"),
        ),
        ("uc", "json:/data/cpOrderId", secrets.clone()),
        ("douyin-sha1", "json:/msg>/cp_extra", secrets.clone()),
        ("wechatpay-v2", "xml:attach", secrets.clone()),
        ("kuaishou", "json:/data/attach", secrets.clone()),
        (
            "huawei-iap",
            "json:/statusUpdateNotification>/id",
            key.trusted(),
        ),
        ("alipay", "form:passback_params", key.trusted()),
        (
            "wechatpay-v3",
            "opened:/attach",
            format!("deliver = \"opened\"\n{api_v3}{}", key.trusted()),
        ),
        (
            "apple",
            "opened:/data/signedTransactionInfo>/appAccountToken",
            format!("{apple}{}", key.trusted()),
        ),
        (
            "google-play",
            "json:/message/data>/id",
            format!("{google}{}", key.trusted()),
        ),
        ("adyen", reference, adyen),
        ("xiaomi", "query:cpUserInfo", secrets.clone()),
    ] {
        toml += &format!(
            "[[route]]\npath = \"/{preset}\"\nname = \"{preset}\"\nverify = \"{preset}\"\nid = \"{id}\"\n{more}"
        );
    }
    let relay = Relay::with(&toml);
    let mut game = relay.backend("game-01");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let body = "trade_status=TRADE_SUCCESS&trade_no=7&out_trade_no=game-01%5Forder&money=1.00";
    let Delivered {
        event, body: sent, ..
    } = delivered(&relay, &mut game, &["epay", "--body", body]);
    assert_eq!(event, "7:TRADE_SUCCESS");
    assert!(text(sent).starts_with(body));
    let body = r#"{"message_id":"m-1","data":{"attach":"game-01","price":1}}"#;
    let Delivered {
        event, body: sent, ..
    } = delivered(&relay, &mut game, &["kuaishou", "--body", body]);
    assert_eq!((&*event, &*text(sent)), ("m-1", body), "nothing is missing");
    let body = r#"{"out_trade_no":"o-1","amount":{"total":8800}}"#;
    let Delivered {
        verified,
        body: sent,
        ..
    } = delivered(&relay, &mut game, &["wechatpay-v3", "--body", body]);
    assert_eq!(verified, "wechatpay-v3:opened");
    assert_eq!(
        text(sent),
        r#"{"amount":{"total":8800},"attach":"game-01","out_trade_no":"o-1"}"#
    );
    let body = r#"{"msg":"{\"cp_orderno\":\"o-1\",\"status\":\"SUCCESS\"}"}"#;
    let Delivered { event, .. } = delivered(&relay, &mut game, &["douyin-sha1", "--body", body]);
    assert_eq!(event, "o-1:SUCCESS");
    for preset in [
        "epay",
        "uc",
        "douyin-sha1",
        "wechatpay-v2",
        "kuaishou",
        "huawei-iap",
        "alipay",
        "apple",
        "google-play",
        "adyen",
        "xiaomi",
    ] {
        let Delivered {
            verified, event, ..
        } = delivered(&relay, &mut game, &[preset]);
        assert_eq!(verified, preset);
        assert!(event.contains("test-"), "{preset}: {event}");
    }

    // A body of another backend's is not sent.
    let mut send = beside(
        &relay,
        &[
            "send",
            "game-01",
            "--sign",
            "uc",
            "--body",
            r#"{"data":{"cpOrderId":"game-02"}}"#,
        ],
    );
    assert_eq!(send.wait_exit(DEADLINE), Some(2));
    assert!(
        send.stderr().contains("names another backend than game-01"),
        "{}",
        send.stderr()
    );
}

#[test]
fn a_test_key_is_believed_where_the_route_says_so_and_nowhere_else() {
    let key = TestKey::new();
    let mode = fs::metadata(key.path())
        .expect("the key")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, _, words) = run(&["keys", "test", "--out", &key.path()]);
    assert_eq!(code, Some(1));
    assert!(words.contains("is there already"), "{words}");

    let file = key.dir.path().join("relay.toml");
    let file_name = file.to_str().expect("UTF-8");
    let check = |text: &str| {
        fs::write(&file, text).expect("written");
        run(&["check", "-c", file_name])
    };
    let route = |lines: &str| format!("[[route]]\npath = \"/{{id}}\"\nname = \"r\"\n{lines}");
    let allowed = route(&format!("verify = \"alipay\"\n{}", key.trusted()));
    let (code, said, words) = check(&allowed);
    assert_eq!(code, Some(0), "{words}");
    let warning = "route[0].allow_test: whoever has the file of a test key";
    assert!(format!("{said}{words}").contains(warning), "{said}{words}");
    let claims = "claims = { iss = \"a\", bundleId = \"b\", environment = \"c\", aud = \"d\", email = \"e\" }\n";
    for (what, refusal) in [
        (
            allowed.replace("allow_test = true\n", ""),
            "route[0].keys: a test key of payrelay keys test is among them",
        ),
        (
            allowed.replace("allow_test = true", "allow_test = false"),
            "route[0].keys: a test key of payrelay keys test is among them",
        ),
        (
            format!("[http]\nlisten = \"0.0.0.0:8080\"\n{allowed}"),
            "route[0].allow_test = true: test keys are believed only where nobody else can send: http.listen (0.0.0.0:8080)",
        ),
        (
            route(&format!("verify = \"apple\"\n{claims}{}", key.trusted()))
                .replace("allow_test = true\n", ""),
            "route[0].keys: a test key",
        ),
        (
            route(&format!(
                "verify = \"google-play\"\n{claims}{}",
                key.trusted()
            ))
            .replace("allow_test = true\n", ""),
            "route[0].keys: a test key",
        ),
        (
            route(&format!("verify = \"wechatpay-v3\"\n{}", key.trusted()))
                .replace("allow_test = true\n", ""),
            "route[0].keys: a test key",
        ),
        (
            route(&format!(
                "verify = \"none\"\nproof = {{ body = \"x\", keys = [\"file:{}\"], signed = {{ text = \"{{query:a}}\", \
                 algorithm = \"rsa-sha256\", signature = \"query:s\" }} }}\n",
                key.path()
            )),
            "a test key cannot ask for a proof",
        ),
    ] {
        let (code, said, words) = check(&what);
        assert_eq!(code, Some(78), "{what}{said}");
        assert!(words.contains(refusal), "{words}");
    }

    // The provider's own key cannot be signed with.
    let own = route(&format!(
        "verify = \"alipay\"\nkeys = {}\n",
        listed(fresh::public_key())
    ));
    fs::write(&file, own).expect("written");
    let (code, _, words) = run(&["send", "game-01", "--sign", "r", "-c", file_name]);
    assert_eq!(code, Some(1));
    assert!(
        words.contains("make a test key with: payrelay keys test --out FILE"),
        "{words}"
    );
}
