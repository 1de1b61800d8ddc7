//! Secrets: where they may stand, that they can be changed while running, and that nobody sees them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use super::callback::{Callback, listed, quoted};
use super::fresh::{self, now};
use super::{accepted, refused, relay, toml};
use crate::support::{Relay, Setup, binary, token};

/// The words that stand in every secret of these tests.
const CANARY: &str = "CANARY";

#[test]
fn secrets_come_from_the_environment_and_from_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
        quoted(&format!("file:{}", path.display()))
    };
    let at = now();
    let elsewhere = |callback: Callback, keys: String| Callback { keys, ..callback };
    let callbacks = [
        elsewhere(
            fresh::stripe(at, "{\"id\":\"evt_1\"}"),
            "secrets = [\"env:PAYRELAY_TEST_SECRET\"]".into(),
        ),
        elsewhere(
            fresh::github("{}"),
            format!("secrets = [{}]", file("a", &format!("{}\n", fresh::SECRET))),
        ),
        elsewhere(
            fresh::adyen_platform("{}"),
            format!(
                "secrets = [{}]",
                file("b", &format!("{}\r\n", fresh::SECRET_HEX))
            ),
        ),
        elsewhere(
            fresh::alipay(&fresh::alipay_fields()),
            format!("keys = [{}]", file("c", fresh::public_key())),
        ),
        elsewhere(
            fresh::wechatpay_v3_sealed(at, "{}"),
            format!(
                "keys = [{{ serial = \"{}\", key = {} }}]\napi_v3_key = {}",
                fresh::SERIAL,
                file("d", fresh::public_key()),
                file("e", fresh::API_V3_KEY)
            ),
        ),
    ];
    let setup = Setup::with(&format!(
        "[tcp]\nsecrets = [\"env:PAYRELAY_TEST_TOKENS\"]\n[admin]\ntoken = {}\n{}",
        file("t", "admin-token-0123456789\n"),
        toml(&callbacks)
    ));
    let relay = setup
        .env("PAYRELAY_TEST_SECRET", fresh::SECRET)
        .env("PAYRELAY_TEST_TOKENS", "tcp-secret-0123456789")
        .start();
    let token = token("tcp-secret-0123456789", "till-7");
    let mut till = relay.backend_with("till-7", &format!("token={token}"));
    for (n, callback) in callbacks.iter().enumerate() {
        accepted(&relay, &mut till, n, callback);
        refused(
            &relay,
            n,
            &callback.called("another body").body("{\"x\":1}"),
        );
    }
    assert_eq!(relay.admin("/metrics").status, 401);
    let bearer = "Authorization: Bearer admin-token-0123456789\r\n";
    assert_eq!(relay.admin_with("/metrics", bearer).status, 200);
    // Nothing secret stands in relay.toml, so anybody may read it.
    assert!(!relay.log().contains("chmod"), "{}", relay.log());
}

#[test]
fn a_secret_is_changed_without_a_restart_and_both_count_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    let write = |secret: &str| fs::write(&path, secret).expect("written");
    write("the old secret");
    let from_file = format!("file:{}", path.display());
    let signed_with = |secret: &str| {
        let mut callback = fresh::github("{}").called(secret);
        let tag = fresh::mac(secret.as_bytes(), &[b"{}"]);
        *callback.value("X-Hub-Signature-256") = format!("sha256={}", fresh::hex(&tag));
        // The same event again and again: its retries are not to be recognised here.
        callback.event = None;
        callback.keys = format!("event = \"none\"\nsecrets = [{}]", quoted(&from_file));
        callback
    };
    let (old, new) = (signed_with("the old secret"), signed_with("the new secret"));
    let relay = relay(std::slice::from_ref(&old));
    let mut till = relay.backend("till-7");
    accepted(&relay, &mut till, 0, &old);
    refused(&relay, 0, &new);

    let reload = |keys: &str, times: usize| {
        let callback = Callback {
            keys: format!("event = \"none\"\n{keys}"),
            ..old.clone()
        };
        relay.rewrite(&toml(&[callback]));
        relay.signal(Signal::HUP);
        crate::support::eventually("it is reloaded", || {
            relay.log().matches("relay.toml: reloaded").count() == times
        });
    };
    reload(
        &format!("secrets = [\"the new secret\", {}]", quoted(&from_file)),
        1,
    );
    accepted(&relay, &mut till, 0, &old);
    accepted(&relay, &mut till, 0, &new);
    // The file's own content has changed, and nothing in relay.toml but the order.
    write("the new secret");
    reload(&format!("secrets = [{}]", quoted(&from_file)), 2);
    accepted(&relay, &mut till, 0, &new);
    refused(&relay, 0, &old);
    // A file that is gone changes nothing.
    fs::remove_file(&path).expect("removed");
    relay.signal(Signal::HUP);
    relay.log_contains("not reloaded");
    accepted(&relay, &mut till, 0, &new);
}

#[test]
fn any_of_a_routes_keys_may_have_signed() {
    let at = now();
    let another = |preset: &str| match preset {
        "standard-webhooks" => quoted("whsec_AAAA"),
        "adyen" | "adyen-platform" => quoted("00112233"),
        "alipay" => quoted(fresh::other_public_key()),
        "wechatpay-v3" => format!(
            "{{ serial = \"PUB_KEY_ID_0\", key = {} }}",
            quoted(fresh::other_public_key())
        ),
        _ => quoted("a secret of before"),
    };
    let mut both = Vec::new();
    for genuine in fresh::all(at) {
        let other = another(genuine.preset);
        for (name, end, list) in [
            ("its key first", "]\n", format!(", {other}]\n")),
            ("its key last", " = [", format!(" = [{other}, ")),
        ] {
            let mut callback = genuine.called(name);
            callback.keys = callback.keys.replacen(end, &list, 1);
            both.push(callback);
        }
    }
    // While a secret is changed the provider signs with both, in either order.
    for (header, separator, prefix) in [
        ("Stripe-Signature", ",", "v1="),
        ("Paddle-Signature", ";", "h1="),
        ("webhook-signature", " ", "v1,"),
    ] {
        let has = |callback: &&Callback| callback.headers.iter().any(|(name, _)| name == header);
        let mut callback = both
            .iter()
            .find(has)
            .expect("such a callback")
            .called("two signatures");
        let value = callback.value(header);
        *value = value.replacen(prefix, &format!("{prefix}00{separator}{prefix}"), 1);
        both.push(callback);
    }
    let relay = relay(&both);
    let mut till = relay.backend("till-7");
    for (n, callback) in both.iter().enumerate() {
        accepted(&relay, &mut till, n, callback);
    }
}

#[test]
fn an_empty_secret_never_verifies_anything() {
    let mut callback = fresh::github("{}");
    let tag = fresh::mac(b"", &[b"{}"]);
    *callback.value("X-Hub-Signature-256") = format!("sha256={}", fresh::hex(&tag));
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().join("empty");
    fs::write(&empty, "\n").expect("written");
    for secret in [
        "",
        "env:PAYRELAY_TEST_EMPTY",
        &format!("file:{}", empty.display()),
    ] {
        callback.keys = format!("secrets = {}", listed(secret));
        let file = folder.path().join("relay.toml");
        fs::write(&file, toml(std::slice::from_ref(&callback))).expect("written");
        let mut check = binary();
        check
            .arg("check")
            .arg("-c")
            .arg(&file)
            .env("PAYRELAY_TEST_EMPTY", "");
        let output = check.output().expect("run");
        assert_eq!(output.status.code(), Some(78), "{secret:?}");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            errors.contains("route[0].secrets[0]: it is empty"),
            "{errors}"
        );
    }
    // And one that is there is not the empty one.
    callback.keys = format!("secrets = {}", listed(fresh::SECRET));
    let relay = relay(std::slice::from_ref(&callback));
    refused(&relay, 0, &callback);
}

#[test]
fn secrets_in_a_file_that_others_can_read_are_warned_of_at_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, fresh::SECRET).expect("written");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).expect("a mode");
    let callback = Callback {
        keys: format!(
            "secrets = {}",
            listed(&format!("file:{}", secret.display()))
        ),
        ..fresh::github("{}")
    };
    let relay = relay(&[fresh::stripe(now(), "{}"), callback]);
    let line = relay.log_contains("holds secrets and other users can read it");
    assert!(
        line.contains("[WARN]") && line.contains("relay.toml"),
        "{line}"
    );
    let line = relay.log_contains("route[1].secrets[0]: other users can read");
    assert!(line.contains("chmod o= "), "{line}");
}

#[test]
fn no_secret_and_no_signature_is_shown_anywhere() {
    let at = now();
    let mut callbacks = fresh::all(at);
    callbacks.push(fresh::wechatpay_v3_sealed(at, "{}"));
    let toml = format!(
        "[tcp]\nsecrets = [\"{CANARY}-tcp-0123456789\"]\n[admin]\ntoken = \"{CANARY}-admin-0123456789\"\n{}",
        toml(&callbacks)
    );
    let relay = Relay::with(&toml);
    let token = token(&format!("{CANARY}-tcp-0123456789"), "till-7");
    let mut till = relay.backend_with("till-7", &format!("token={token}"));
    let (mut signatures, mut bodies) = (Vec::new(), Vec::new());
    for (n, callback) in callbacks.iter().enumerate() {
        accepted(&relay, &mut till, n, callback);
        let text = String::from_utf8_lossy(&callback.body);
        bodies.push(text.trim().to_owned());
        if callback.preset != "token" {
            let mut forgery = callback.called("another body");
            forgery.body.push(b'x');
            refused(&relay, n, &forgery);
        }
        let long = callback
            .headers
            .iter()
            .filter(|(_, value)| value.len() > 30);
        signatures.extend(long.map(|(_, value)| value.clone()));
    }
    relay.signal(Signal::HUP);
    relay.log_contains("reloaded");
    let bearer = format!("Authorization: Bearer {CANARY}-admin-0123456789\r\n");
    let metrics = relay.admin_with("/metrics", &bearer).text();
    assert!(metrics.contains("payrelay_signature_refusals_total"));
    let file = relay.path("relay.toml");
    let mut check = binary();
    let output = check
        .arg("check")
        .arg("-c")
        .arg(&file)
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(0));
    let check = [output.stdout, output.stderr].concat();
    for (place, text) in [
        ("log", relay.log()),
        ("metrics", metrics),
        ("check", String::from_utf8_lossy(&check).into_owned()),
    ] {
        for secret in [CANARY, fresh::SECRET_HEX, &fresh::SECRET_WHSEC[6..], &token] {
            assert!(!text.contains(secret), "the {place} shows a secret");
        }
        let shown = signatures
            .iter()
            .any(|signature| text.contains(signature.as_str()));
        assert!(!shown, "the {place} shows a signature");
        let shown = bodies.iter().any(|body| text.contains(body));
        assert!(!shown, "the {place} shows a body");
    }
}

#[test]
fn a_route_that_checks_signatures_needs_no_leave_to_face_strangers() {
    let signed = fresh::stripe(now(), "{}");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("relay.toml");
    let check = |routes: &str| {
        let open = "[http]\nlisten = \"0.0.0.0:8080\"\n";
        fs::write(&file, routes.replacen("[http]\n", open, 1)).expect("written");
        let output = binary()
            .arg("check")
            .arg("-c")
            .arg(&file)
            .output()
            .expect("run");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(check(&toml(std::slice::from_ref(&signed))).0, Some(0));
    let open = "[[route]]\npath = \"/open/{id}\"\nverify = \"none\"\n";
    let (code, errors) = check(&format!("{}{open}", toml(std::slice::from_ref(&signed))));
    assert_eq!(code, Some(78));
    assert!(
        errors.contains("/open/{id}") && !errors.contains("route-0"),
        "{errors}"
    );
}
