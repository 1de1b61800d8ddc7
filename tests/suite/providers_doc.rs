//! doc/providers.md and its Chinese page as a payment developer follows them: each preset has its section, check takes the route that
//! stands there, and the test that stands there is answered as a genuine callback by the real relay.

use std::fs;
use std::process::{Command, Stdio};

use payrelay::verify::presets;
use tempfile::TempDir;

use super::readme::{blocks, page};
use crate::support::{Setup, binary, run};

/// Providers that write to their merchants in Chinese.
const CHINESE: [&str; 18] = [
    "alipay",
    "wechatpay-v2",
    "wechatpay-v3",
    "epay",
    "unionpay",
    "douyin",
    "douyin-sha1",
    "kuaishou",
    "huawei-iap",
    "xiaomi",
    "oppo",
    "vivo",
    "uc",
    "4399",
    "360",
    "quicksdk",
    "u8sdk",
    "pingpp",
];

/// Tables that a route fills itself: their sections have no answer and no timetable of a provider.
const OF_THE_ROUTE: [&str; 4] = ["signed", "hmac", "jws", "token"];

/// The section of a preset: its route, filled in, and the command that tests it.
struct Section {
    preset: &'static str,
    route: String,
    test: String,
}

/// The sections of `presets` in the page called `name`; each must have all words of `says`.
fn sections(name: &str, presets: &[&'static str], says: &[&str], key: &str) -> Vec<Section> {
    let text = page(name);
    let mut all = Vec::new();
    for preset in presets {
        let mut found = text.split("\n## ").filter(|section| {
            section.lines().next().unwrap_or_default().split(' ').next() == Some(preset)
        });
        let (section, second) = (found.next(), found.next());
        let section = section.unwrap_or_else(|| panic!("{name} has no section ## {preset}"));
        assert!(second.is_none(), "{name}: ## {preset} is there twice");
        for word in says {
            assert!(section.contains(word), "{name}: {preset} lacks {word}");
        }
        let blocks = blocks(section);
        let block = |language: &str| {
            let block = blocks.iter().find(|block| block.language == language);
            block
                .map(|block| block.text.clone())
                .unwrap_or_else(|| panic!("{name}: {preset} has no {language}"))
        };
        all.push(Section {
            preset,
            route: filled_in(preset, &block("toml"), key),
            test: block("sh"),
        });
    }
    all
}

/// `route` with secrets in the place of names, and the test key `key` in that of files.
fn filled_in(preset: &str, route: &str, key: &str) -> String {
    let secret = match preset {
        "adyen" | "adyen-platform" => "43414e4152592d736563726574",
        "standard-webhooks" | "svix" => "whsec_Q0FOQVJZLXNlY3JldA==",
        _ => "CANARY-secret-of-the-provider",
    };
    let mut filled = String::new();
    for (n, piece) in route.split('"').enumerate() {
        // Every other piece stands between quotes.
        let is_text = n % 2 == 1;
        let piece = match piece.split_once(':') {
            Some(("env", "WECHATPAY_APIV3_KEY")) if is_text => "CANARY-api-v3-key-0123456789abcd",
            Some(("env", _)) if is_text => secret,
            Some(("file", _)) if is_text => &format!("file:{key}"),
            _ => piece,
        };
        filled += if n > 0 { "\"" } else { "" };
        filled += &piece.replace("0111…", "0111");
    }
    let trusts = match filled.contains("\nkeys = ") {
        true => "[[route]]\nallow_test = true\n",
        false => "[[route]]\n",
    };
    filled.replacen("[[route]]\n", trusts, 1)
}

/// The commands of both pages that the tests here run.
pub fn commands() -> Vec<String> {
    let presets: Vec<_> = presets::all().map(|preset| preset.name).collect();
    let mut all = sections("doc/providers.md", &presets, &[], "");
    all.extend(sections("doc/providers.zh-CN.md", &CHINESE, &[], ""));
    let lines = all.iter().flat_map(|section| section.test.lines());
    lines.map(str::to_owned).collect()
}

/// Starts a relay with every route of `sections` and runs every test.
fn follow(sections: &[Section]) {
    let mut toml: String = sections
        .iter()
        .map(|section| section.route.clone())
        .collect();
    toml += "[delivery]\nundelivered = \"store\"\n";
    let relay = Setup::with(&toml).start();
    // For who sends: with the port that the relay really has.
    let clients = relay.path("clients.toml");
    let text = format!("[http]\nlisten = \"{}\"\n{toml}", relay.ready().http);
    fs::write(&clients, text).expect("clients.toml");
    let (code, said, words) = run(&["check", "-c", clients.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{said}{words}");
    let binary = binary().get_program().to_str().expect("UTF-8").to_owned();
    for section in sections {
        let mut commands = section
            .test
            .lines()
            .filter(|line| line.starts_with("payrelay send "));
        let (command, second) = (commands.next(), commands.next());
        let command = command.unwrap_or_else(|| panic!("{} has no test", section.preset));
        assert!(second.is_none(), "{}", section.preset);
        let command = command.replacen("payrelay", &binary, 1);
        let output = Command::new("sh")
            .args(["-c", &format!("{command} -c {}", clients.display())])
            .stdin(Stdio::null())
            .output()
            .expect("sh");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        // No backend is there: a genuine callback is kept for it.
        assert!(
            output.status.success() && said.contains("outcome  stored"),
            "{command}: {said}{words}"
        );
    }
}

fn test_key(dir: &TempDir) -> String {
    let key = dir.path().join("test-key.pem").display().to_string();
    let (code, _, words) = run(&["keys", "test", "--out", &key]);
    assert_eq!(code, Some(0), "{words}");
    key
}

#[test]
fn each_preset_has_a_section_that_can_be_followed() {
    let dir = TempDir::new().expect("a folder");
    let key = test_key(&dir);
    let names = presets::all().map(|preset| preset.name);
    let (own, of_providers): (Vec<_>, Vec<_>) = names.partition(|name| OF_THE_ROUTE.contains(name));
    let mut all = sections(
        "doc/providers.md",
        &of_providers,
        &["Checked: ", "vent", "Answers:", "https://pay.example/"],
        &key,
    );
    all.extend(sections("doc/providers.md", &own, &[], &key));
    follow(&all);
}

#[test]
fn the_chinese_page_can_be_followed_for_every_chinese_provider() {
    let dir = TempDir::new().expect("a folder");
    let key = test_key(&dir);
    follow(&sections(
        "doc/providers.zh-CN.md",
        &CHINESE,
        &["验：", "事件：", "回答：", "失败", "地址"],
        &key,
    ));
}
