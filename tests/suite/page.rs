//! The page at the admin port, in a real browser: what somebody does with it when a customer says "I paid and got nothing".

use std::thread;

use serde_json::Value;

use super::outbox::{config, stored};
use crate::support::{Backend, Browser, DOWN, ENTER, ESCAPE, RawHttp, Relay, TAB, heavy};

pub const ADMIN: &str = "an-admin-token-0123456789";
const SUPPORT: &str = "a-support-token-012345678";

/// A form in GBK, as Alipay sends it: 月卡 is %D4%C2%BF%A8.
pub const GBK_FORM: &[u8] = b"notify_id=2026112800&charset=gbk&out_trade_no=4711&subject=%D4%C2%BF%A8&body=%B0%CB%CA%AE%B0%CB%D4%AA";

const ALIPAY: &str = "[[route]]\npath = \"/alipay/{id}\"\nname = \"alipay\"\nverify = \"none\"\nevent = \"form:notify_id\"\n\
    forward_headers = [\"content-type\"]\n";

pub fn toml() -> String {
    config("", "") + ALIPAY
}

/// An ACK, once the provider's post has become a MSG.
pub fn delivered(relay: &Relay, backend: &mut Backend, path: &str, body: &[u8]) -> String {
    let post = relay.post_with(
        path,
        &[("Content-Type", "application/x-www-form-urlencoded")],
        body,
    );
    let id = backend.message().ack();
    assert_eq!(post.answer().told(), (200, "delivered"));
    id
}

/// A dead letter: its backend refuses it for good, and goes.
pub fn dead(relay: &Relay, id: &str, path: &str, body: &[u8]) -> String {
    let mut backend = relay.backend(id);
    let post = relay.post(path, body);
    backend.message().nack("delay=-1 reason=no%20such%20order");
    let id = post.answer().id().to_owned();
    drop(backend);
    id
}

/// The words of one language that the story needs.
struct Words {
    language: &'static str,
    none_yet: &'static str,
    delivered: &'static str,
    acked: &'static str,
    again: &'static str,
    done: &'static str,
    never_here: &'static str,
    known: &'static str,
    never_here_n: &'static str,
    dropped: &'static str,
}

const ENGLISH: Words = Words {
    language: "en-US",
    none_yet: "No notification yet.",
    delivered: "delivered",
    acked: "Acknowledged by the backend",
    again: "Deliver again",
    done: "shop acknowledged it, after it had been stored.",
    never_here: "pending for a backend that was never here since this node started; is the id in notify_url right?",
    known: "game-01 is known.",
    never_here_n: "1 for a backend that was never here",
    dropped: "It was dropped.",
};

const CHINESE: Words = Words {
    language: "zh-CN",
    none_yet: "还没有通知。",
    delivered: "已送达",
    acked: "后端已确认",
    again: "重新投递",
    done: "存储之后，shop 确认了它。",
    never_here: "待投递给本节点启动以来从未连接过的后端；notify_url 里的编号对吗？",
    known: "已知的后端有 game-01。",
    never_here_n: "1 条的后端从未连接过",
    dropped: "已丢弃。",
};

#[test]
fn a_payment_is_found_read_and_delivered_again() {
    story(&ENGLISH);
}

#[test]
fn a_payment_is_found_read_and_delivered_again_in_chinese() {
    story(&CHINESE);
}

fn story(words: &Words) {
    let relay = Relay::with(&toml());
    let page = Browser::start(words.language);
    page.open(relay.ready().admin, "/");
    page.wait_text(words.none_yet);
    page.run("window.notLoadedAgain = true");

    // It comes by itself.
    let mut game = relay.backend("game-01");
    let id = delivered(&relay, &mut game, "/alipay/game-01", GBK_FORM);
    page.wait_text("2026112800");
    assert_eq!(page.run("return window.notLoadedAgain"), Value::Bool(true));
    page.wait_text(words.delivered);
    page.click(&format!("a.row[data-id='{id}']"));
    page.wait_text("月卡"); // its bytes were GBK
    page.wait_text("八十八元");
    let text = page.text();
    assert!(text.contains(words.acked) && text.contains(&id), "{text}");
    assert!(
        text.contains("Content-Type: application/x-www-form-urlencoded"),
        "{text}"
    );
    page.click("#tab-bytes");
    page.wait_text("6e 6f 74 69 66 79");

    // By its order number, which is in the body alone.
    page.open(relay.ready().admin, "/");
    page.fill("input[type=search]", "4711\u{E007}");
    page.wait(
        "the address has the search",
        "return location.search === '?q=4711'",
    );
    page.wait("it is found", &format!("return document.querySelectorAll('a.row').length === 1 && !!document.querySelector(\"a.row[data-id='{id}']\")"));

    // A dead one goes to its backend once that is back.
    let gone = dead(&relay, "shop", "/event/shop", b"{\"n\": \"order-1\"}");
    page.open(relay.ready().admin, "/?state=dead");
    page.click(&format!("a.row[data-id='{gone}']"));
    page.wait_text(words.again);
    page.click("#act-again");
    page.click("#dialog-no"); // not yet
    let mut shop = relay.backend("shop");
    page.click("#act-again");
    page.click("#dialog-yes");
    assert_eq!(
        shop.expect("MSG id=* try=2 =*", b"{\"n\": \"order-1\"}")
            .ack(),
        gone
    );
    page.wait_text(words.done);

    // One for a backend that does not exist is named as such on every view, with the id that may be meant.
    let typo = stored(&relay, "/notify/gmae-01", b"x");
    page.open(relay.ready().admin, "/?view=backends");
    page.wait_text(&format!("{} {}", words.never_here, words.known));
    for view in ["/", "/?view=health"] {
        page.open(relay.ready().admin, view);
        page.wait_text(words.never_here_n);
    }

    // It is dropped, after a second look.
    page.open(relay.ready().admin, &format!("/?id={typo}"));
    page.click("#act-drop");
    page.click("#dialog-yes");
    page.wait_text(words.dropped);
    assert_eq!(relay.admin(&format!("/outbox/{typo}")).status, 404);
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn a_payment_appears_within_two_seconds_of_the_pages_clock() {
    let relay = Relay::with(&toml());
    let page = Browser::start("en");
    page.stop_clock();
    page.open(relay.ready().admin, "/");
    page.wait_text("No notification yet.");
    let mut game = relay.backend("game-01");
    delivered(&relay, &mut game, "/alipay/game-01", GBK_FORM);
    assert!(page.text().contains("No notification yet."));
    page.advance(2000);
    page.wait_text("2026112800");
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn with_a_read_token_nothing_can_be_changed_and_no_secret_is_in_the_page() {
    let tokens = format!(
        "[admin]\ntoken = \"{ADMIN}\"\nread_tokens = [{{ name = \"support\", token = \"{SUPPORT}\" }}]\n"
    );
    let relay = Relay::with(&(toml() + &tokens));
    let id = dead(
        &relay,
        "shop",
        "/event/shop",
        b"{\"n\": \"order-1\", \"note\": \"inside\"}",
    );
    let page = Browser::start("en");
    page.open(relay.ready().admin, &format!("/?id={id}"));
    page.fill("input[type=password]", "a-wrong-token-0123456789\u{E007}");
    page.wait_text("This is no token of this relay.");
    page.fill("input[type=password]", &format!("{SUPPORT}\u{E007}"));
    page.wait_text("Given up. shop did not get it.");
    page.wait_text("This login may not see headers and bodies");
    let text = page.text();
    assert!(
        text.contains("support") && !text.contains("inside"),
        "{text}"
    );
    assert_eq!(
        page.run("return document.querySelectorAll('#act-again, #act-drop').length"),
        0
    );
    // The cookie is out of reach of scripts, and the page knows no token.
    assert_eq!(page.run("return document.cookie"), "");
    let source = page.run("return document.documentElement.outerHTML + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)");
    assert!(!source.as_str().expect("text").contains(SUPPORT));
    let status = page.run(&format!(
        "return fetch('/outbox/drop', {{ method: 'POST', body: JSON.stringify({{ ids: ['{id}'] }}), \
         headers: {{ 'Content-Type': 'application/json', 'X-Payrelay-Action': '1' }} }}).then((answer) => answer.status)"
    ));
    assert_eq!(status, 403);
    page.open(relay.ready().admin, "/?view=backends");
    page.wait_text("shop");
    assert_eq!(
        page.run("return document.querySelectorAll('main button').length"),
        0
    );

    page.click("header button");
    page.fill("input[type=password]", &format!("{ADMIN}\u{E007}"));
    page.wait(
        "it is logged in",
        "return !document.getElementById('top').hidden",
    );
    page.open(relay.ready().admin, &format!("/?id={id}"));
    page.wait_text("inside");
    page.wait_text("Deliver again");
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn what_a_body_says_is_text_and_nothing_else() {
    let relay = Relay::with(&toml());
    let hostile = "{\"n\": \"<img src=x onerror=hacked()>\", \"x\": \"<script>window.hacked = 1</script></textarea></pre>'\\\"`\", \
        \"n2\": 12345678901234567890}";
    let id = stored(&relay, "/event/till-7", hostile.as_bytes());
    let page = Browser::start("en");
    page.open(relay.ready().admin, "/");
    page.wait_text("<img src=x onerror=hacked()>");
    page.click("a.row");
    page.wait_text("<script>window.hacked = 1</script></textarea></pre>");
    page.wait_text("12345678901234567890"); // and not what a float makes of it
    page.click("#tab-text");
    page.wait_text(hostile);
    page.open(
        relay.ready().admin,
        "/?q=%3Cscript%3Ewindow.hacked%3D1%3C%2Fscript%3E&state=%22%3E%3Cscript%3E",
    );
    page.wait(
        "the search has its text",
        "return document.querySelector('input[type=search]').value.startsWith('<script>')",
    );
    page.open(
        relay.ready().admin,
        "/?id=%3Cscript%3Ewindow.hacked%3D1%3C%2Fscript%3E",
    );
    page.wait_text("No node that answered knows <script>");
    assert_eq!(page.run("return typeof window.hacked"), "undefined");
    let elements =
        page.run("return document.querySelectorAll('main script, main img, main textarea').length");
    assert_eq!(elements, 0);
    page.open(relay.ready().admin, &format!("/?id={id}"));
    page.wait_text("12345678901234567890");
    let injected = page.run(
        "const script = document.createElement('script'); script.textContent = 'window.hacked = 1'; document.body.append(script); return typeof window.hacked",
    );
    assert_eq!(
        injected, "undefined",
        "the policy forbids what somebody may smuggle in after all"
    );
}

#[test]
fn xml_is_laid_out() {
    let relay = Relay::with(&toml());
    let xml = b"<xml><out_trade_no><![CDATA[4711]]></out_trade_no><total_fee>1</total_fee></xml>";
    let id = stored(&relay, "/notify/till-7", xml);
    let page = Browser::start("en");
    page.open(relay.ready().admin, &format!("/?id={id}"));
    page.wait_text(
        "<xml>\n  <out_trade_no><![CDATA[4711]]></out_trade_no>\n  <total_fee>1</total_fee>\n</xml>",
    );
}

#[test]
fn the_keyboard_alone_is_enough() {
    let relay = Relay::with(&toml());
    let id = dead(&relay, "shop", "/event/shop", b"{\"n\": \"order-1\"}");
    stored(&relay, "/event/other", b"{\"n\": \"order-2\"}");
    let page = Browser::start("en");
    page.open(relay.ready().admin, "/");
    page.wait_text("order-2");
    page.press("/");
    page.press(&format!("order-1{ENTER}"));
    page.wait("one is found", "return document.querySelectorAll('a.row').length === 1 && location.search === '?q=order-1'");
    page.press(DOWN);
    page.press(ENTER);
    page.wait_text("Given up. shop did not get it.");
    // The link back, and then the two buttons.
    page.press(TAB);
    page.press(TAB);
    page.wait(
        "the button is reached",
        "return document.activeElement.id === 'act-again'",
    );
    page.press(ENTER);
    page.wait(
        "a second look",
        "return document.activeElement.id === 'dialog-no'",
    );
    page.press(ESCAPE);
    page.wait(
        "nothing was done",
        "return !document.querySelector('dialog')",
    );
    page.press(ENTER);
    page.wait(
        "a second look",
        "return document.activeElement.id === 'dialog-no'",
    );
    page.press(TAB);
    page.press(ENTER);
    page.wait_text("It will be delivered again.");
    let mut shop = relay.backend("shop");
    assert_eq!(shop.message().ack(), id);
}

#[test]
fn ten_thousand_stored_notifications_scroll_to_the_last() {
    let _alone = heavy();
    let relay = Relay::with(&(toml() + "[http]\nmax_in_flight = 4096\n"));
    let gate = &relay.gate();
    thread::scope(|scope| {
        for poster in 0..8 {
            scope.spawn(move || {
                let mut http = RawHttp::connect(gate.clone());
                for n in 0..1250 {
                    let body = format!("{{\"n\": \"order-{poster}-{n}\"}}");
                    let answer = http.post("/event/away", body.as_bytes());
                    assert_eq!(answer.told(), (200, "stored"));
                }
            });
        }
    });
    let page = Browser::start("en");
    page.open(relay.ready().admin, "/");
    page.wait_text("10000 pending");
    // A thousand at a time, so that a busy machine has its time for each.
    let mut computed = vec![page.computed_ms()];
    for n in 1..=10 {
        let scroll = "window.scrollTo(0, document.body.scrollHeight); return document.querySelectorAll('a.row').length";
        page.wait("a thousand more", &format!("{scroll} >= {n}000"));
        computed.push(page.computed_ms());
    }
    let spent: Vec<f64> = computed.windows(2).map(|two| two[1] - two[0]).collect();
    // The last thousand rows cost what the first did: those out of sight cost no layout.
    let least = spent.iter().copied().fold(f64::MAX, f64::min);
    let (most, bound) = (spent.iter().copied().fold(0.0, f64::max), 5.0 * least);
    assert!(most <= bound, "ms for each thousand rows: {spent:?}");
    // Ten pages of a hundred rows, 200 ms each.
    assert!(most <= 2000.0, "ms for each thousand rows: {spent:?}");
    page.wait_text("No older ones");
    let ids = page.run("return [...document.querySelectorAll('a.row')].every((row, at, all) => all.length === 10000 && (!at || all[at - 1].dataset.id > row.dataset.id))");
    assert_eq!(ids, true, "newest first, and each once");
}

#[test]
fn backends_can_be_told_to_go_and_health_names_what_was_refused() {
    let relay = Relay::with(&toml());
    let mut game = relay.backend("game-01");
    drop(relay.backend("shop")); // it was here
    stored(&relay, "/notify/shop", b"x");
    assert_eq!(relay.post("/nowhere", b"x").answer().status, 404);
    delivered(&relay, &mut game, "/notify/game-01", b"x");
    let page = Browser::start("en");
    page.open(relay.ready().admin, "/?view=backends");
    page.wait_text("waits for a backend that is not connected");
    page.click("#disconnect-game-01");
    page.click("#dialog-yes");
    game.expect("BYE reason=operator retry=5", b"");
    drop(game);
    page.wait(
        "its session is gone",
        "return !document.querySelector('#disconnect-game-01')",
    );
    relay.log_contains("admin: anybody (127.0.0.1) disconnects game-01");
    page.open(relay.ready().admin, "/?view=health");
    page.wait_text("no-route");
    page.wait_text("delivered 1");
    page.wait(
        "there is a chart",
        "return document.querySelectorAll('svg.chart rect').length >= 1",
    );
    assert_eq!(page.complaints(), Vec::<String>::new());
}
