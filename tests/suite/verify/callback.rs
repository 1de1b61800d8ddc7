//! One callback of a provider, and what that provider reads as ok and as not ok.

/// A callback as its provider sends it, and the route that should believe it.
#[derive(Clone)]
pub struct Callback {
    /// What it is, for whoever reads that it failed.
    pub name: String,
    /// `verify = …`
    pub preset: &'static str,
    /// Further lines of the route.
    pub keys: String,
    /// Headers, in the order sent.
    pub headers: Vec<(String, String)>,
    /// What follows the path: nothing, or `?…`.
    pub query: String,
    /// The body.
    pub body: Vec<u8>,
    /// The event key that the backend gets, if the callback has what the preset looks for.
    pub event: Option<String>,
}

impl Callback {
    pub fn new(preset: &'static str, name: &str) -> Self {
        Self {
            name: format!("{preset}: {name}"),
            preset,
            keys: String::new(),
            headers: Vec::new(),
            query: String::new(),
            body: Vec::new(),
            event: None,
        }
    }

    /// With a line of the route, its value written as TOML.
    pub fn key(mut self, key: &str, value: &str) -> Self {
        self.keys += &format!("{key} = {value}\n");
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn event(mut self, event: &str) -> Self {
        self.event = Some(event.to_owned());
        self
    }

    /// The same with another name.
    pub fn called(&self, change: &str) -> Self {
        let mut other = self.clone();
        other.name = format!("{}, {change}", self.name);
        other
    }

    /// The value of the header called `name`.
    pub fn value(&mut self, name: &str) -> &mut String {
        let mut all = self.headers.iter_mut();
        let found = all.find(|(its, _)| its.eq_ignore_ascii_case(name));
        &mut found.unwrap_or_else(|| panic!("no header {name}")).1
    }

    /// Whether every byte of the body is signed as it stands.
    pub fn signs_whole_body(&self) -> bool {
        !matches!(self.preset, "alipay" | "wechatpay-v2" | "adyen" | "token")
    }

    /// Replaces `old`, which is in the body once, by `new`.
    pub fn replace(&mut self, old: &str, new: &str) {
        let found: Vec<usize> = (0..self.body.len())
            .filter(|&at| self.body[at..].starts_with(old.as_bytes()))
            .collect();
        let [at] = found[..] else {
            panic!(
                "{}: {old:?} is {} times in the body",
                self.name,
                found.len()
            );
        };
        self.body.splice(at..at + old.len(), new.bytes());
    }
}

/// A TOML string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A TOML list of one string.
pub fn listed(text: &str) -> String {
    format!("[{}]", quoted(text))
}

/// What the provider reads as ok, by its own documents.
pub fn ok(preset: &str) -> (u16, &'static str) {
    match preset {
        "adyen" | "adyen-platform" => (200, "[accepted]"),
        "wechatpay-v2" => (
            200,
            "<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>",
        ),
        "wechatpay-v3" => (200, ""),
        _ => (200, "success"),
    }
}

/// What the provider reads as not ok.
pub fn fail(preset: &str) -> (u16, &'static str) {
    match preset {
        "alipay" => (200, "fail"),
        "wechatpay-v2" => (
            200,
            "<xml><return_code><![CDATA[FAIL]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>",
        ),
        "wechatpay-v3" => (500, r#"{"code":"FAIL","message":"retry"}"#),
        _ => (503, "fail"),
    }
}

/// What a forger reads: not ok where the provider reads bodies, 401 elsewhere.
pub fn forged(preset: &str) -> (u16, &'static str) {
    match preset {
        "alipay" | "wechatpay-v2" | "wechatpay-v3" => fail(preset),
        _ => (401, "the signature is not right\n"),
    }
}
