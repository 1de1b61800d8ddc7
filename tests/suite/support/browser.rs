//! A real browser: Chromium without a screen, told what to do by the WebDriver protocol (W3C), which is JSON over HTTP.
//!
//! Every wait is for something on the page, under the suite's one deadline.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Process, RawHttp, eventually};

/// What Chromium needs to run as root, without a graphics card, and without asking the network for anything of its own.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,800",
];

/// The key of an element in WebDriver's JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys as WebDriver has them.
pub const TAB: &str = "\u{E004}";
pub const ENTER: &str = "\u{E007}";
pub const ESCAPE: &str = "\u{E00C}";
pub const DOWN: &str = "\u{E015}";

/// A browser with one window. Dropping it ends it.
pub struct Browser {
    driver: SocketAddr,
    session: String,
    _process: Process,
    _profile: TempDir,
}

/// Starts chromedriver. It has the system choose a port for IPv6 and wants the same for IPv4: where somebody has that, it ends.
fn start_driver() -> (Process, SocketAddr) {
    loop {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0");
        let process = Process::start("chromedriver", command);
        let (_, line) = process.wait_line(0, |line| {
            line.contains("started successfully on port") || line.contains("port not available")
        });
        let port = line.trim_end_matches('.').rsplit(' ').next();
        if let Some(port) = port.and_then(|port| port.parse().ok()) {
            return (process, SocketAddr::from(([127, 0, 0, 1], port)));
        }
    }
}

impl Browser {
    /// Starts one whose user reads `language`, such as `zh-CN`.
    pub fn start(language: &str) -> Self {
        let (process, driver) = start_driver();
        let profile = TempDir::with_prefix("payrelay-browser-").expect("a folder");
        let mut flags: Vec<String> = FLAGS.iter().map(|&flag| flag.to_owned()).collect();
        flags.push(format!("--user-data-dir={}", profile.path().display()));
        flags.push(format!("--lang={language}"));
        let answer = ask(
            driver,
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "goog:chromeOptions": {"args": flags, "prefs": {"intl.accept_languages": language}},
                "goog:loggingPrefs": {"browser": "ALL"},
            }}}),
        );
        let session = answer["sessionId"].as_str().expect("a session").to_owned();
        Self {
            driver,
            session,
            _process: process,
            _profile: profile,
        }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        ask(self.driver, method, &path, body)
    }

    /// Opens `path` of a relay's admin port.
    pub fn open(&self, admin: SocketAddr, path: &str) {
        self.ask(
            "POST",
            "/url",
            &json!({"url": format!("http://{admin}{path}")}),
        );
    }

    /// From now on its user prefers dark pages.
    pub fn prefer_dark(&self) {
        let features = json!([{"name": "prefers-color-scheme", "value": "dark"}]);
        self.devtools(
            "Emulation.setEmulatedMedia",
            &json!({ "features": features }),
        );
    }

    /// What an instrument of the developer tools (Chrome DevTools Protocol) answers.
    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let command = json!({"cmd": command, "params": parameters});
        self.ask("POST", "/goog/cdp/execute", &command)
    }

    /// Pages that are opened from now on have a clock for their timers that stands still until [`Self::advance`].
    pub fn stop_clock(&self) {
        let source = "{ let now = 0, last = 0; const timers = new Map(); \
            window.setTimeout = (call, ms = 0, ...rest) => { timers.set(++last, { at: now + Number(ms), call: () => call(...rest) }); return last; }; \
            window.clearTimeout = (id) => timers.delete(id); \
            window.advance = (ms) => { const end = now + ms; for (;;) { \
                const due = [...timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0]; \
                if (!due) break; \
                timers.delete(due[0]); now = due[1].at; due[1].call(); } \
                now = end; }; }";
        self.devtools(
            "Page.addScriptToEvaluateOnNewDocument",
            &json!({ "source": source }),
        );
    }

    /// Lets `ms` milliseconds pass on the page's clock, and its timers that are due then fire.
    pub fn advance(&self, ms: u32) {
        self.run(&format!("window.advance({ms})"));
    }

    /// How long the page's thread has computed since the first call, in milliseconds of processor time, which other programs on a
    /// busy machine do not lengthen.
    pub fn computed_ms(&self) -> f64 {
        self.devtools(
            "Performance.enable",
            &json!({ "timeDomain": "threadTicks" }),
        );
        let answer = self.devtools("Performance.getMetrics", &json!({}));
        let metrics = answer["metrics"].as_array().expect("metrics").iter();
        let mut seconds = metrics.filter(|metric| metric["name"] == "TaskDuration");
        let seconds = seconds.next().and_then(|metric| metric["value"].as_f64());
        seconds.expect("a number") * 1000.0
    }

    /// What the script `text` returns.
    pub fn run(&self, text: &str) -> Value {
        self.ask(
            "POST",
            "/execute/sync",
            &json!({"script": text, "args": []}),
        )
    }

    /// What the script returns, once that is neither false nor null.
    pub fn wait(&self, what: &str, text: &str) -> Value {
        let mut found = Value::Null;
        eventually(what, || {
            found = self.run(text);
            !matches!(found, Value::Null | Value::Bool(false))
        });
        found
    }

    /// Waits until the page's text has `words` in it.
    pub fn wait_text(&self, words: &str) {
        let words = serde_json::to_string(words).expect("JSON");
        self.wait(
            &format!("the page says {words}"),
            &format!("return document.body.innerText.includes({words})"),
        );
    }

    /// The page's text.
    pub fn text(&self) -> String {
        let text = self.run("return document.body.innerText");
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks the element that `selector` (CSS) finds first, as a mouse does.
    pub fn click(&self, selector: &str) {
        let id = self.element(selector);
        self.ask("POST", &format!("/element/{id}/click"), &json!({}));
    }

    /// Types `keys` into the element that `selector` finds first.
    pub fn fill(&self, selector: &str, keys: &str) {
        let id = self.element(selector);
        self.ask(
            "POST",
            &format!("/element/{id}/value"),
            &json!({"text": keys}),
        );
    }

    /// Presses keys, wherever the focus is.
    pub fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                let key = key.to_string();
                [
                    json!({"type": "keyDown", "value": key}),
                    json!({"type": "keyUp", "value": key}),
                ]
            })
            .collect();
        let actions = json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]});
        self.ask("POST", "/actions", &actions);
    }

    fn element(&self, selector: &str) -> String {
        let script = format!(
            "return document.querySelector({})",
            serde_json::to_string(selector).expect("JSON")
        );
        let element = self.wait(&format!("there is {selector}"), &script);
        element[ELEMENT].as_str().expect("an element").to_owned()
    }

    /// As wide and as high as this, in CSS pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// What is to be seen, as PNG in base 64.
    pub fn screenshot(&self) -> String {
        let shot = self.ask("GET", "/screenshot", &Value::Null);
        shot.as_str().unwrap_or_default().to_owned()
    }

    /// What the browser complains about: scripts that fail, policies that are broken; not answers of 400 and above.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.ask("POST", "/se/log", &json!({"type": "browser"}));
        let lines = log.as_array().into_iter().flatten();
        let words = lines.filter_map(|line| line["message"].as_str());
        words
            .filter(|line| !line.contains("Failed to load resource"))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Before the driver is killed, which would leave the browser behind.
        let path = format!("/session/{}", self.session);
        if let Some(mut driver) = RawHttp::try_connect(self.driver) {
            let request = format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let _ = driver.exchange(request.as_bytes());
        }
    }
}

fn ask(driver: SocketAddr, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = RawHttp::connect(driver).exchange(request.as_bytes());
    let answer = answer.unwrap_or_else(|problem| panic!("WebDriver {method} {path}: {problem}"));
    let value: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let value = value["value"].clone();
    assert_eq!(answer.status, 200, "WebDriver {method} {path}: {value}");
    value
}
