//! Who may see what, and who may change something: tokens, logins, and the marks of a request that no other site can send.
//!
//! A login gives a browser a random number in a cookie that scripts cannot read (`HttpOnly`) and that no other site's page
//! makes it send (`SameSite=Strict`). What the number means is known here alone, and is judged anew at each request: a token
//! that is gone after a reload ends its logins.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use parking_lot::{Mutex, RwLock};

use crate::config::{ReadToken, Secret};
use crate::escape::hex;
use crate::log_once::LogOnce;
use crate::peers::{Failures, Judged};

/// Wrong tokens that one address (of IPv6: one /64) may show within a minute before it is answered 429. Right ones are
/// taken all the same.
const FAILURES_PER_MINUTE: u32 = 60;

static WRONG_TOKEN: LogOnce = LogOnce::new();

/// The most logins at once; the next one ends the oldest.
const LOGINS_MAX: usize = 256;

/// How long a login lasts: a working day.
pub const LOGIN_LASTS: Duration = Duration::from_secs(12 * 3600);

/// What a request must carry to change something, besides its login. Another site's page can only send it after asking
/// first (CORS), and that is not answered.
pub const ACTION_HEADER: &str = "x-payrelay-action";

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// See headers and bodies.
    pub bodies: bool,
    /// Deliver again, drop, disconnect.
    pub act: bool,
}

/// In whose name a node asks another. Believed of one who shows the admin token, for the log alone.
pub const ON_BEHALF_HEADER: &str = "x-payrelay-for";

/// With which rights a node asks another one for somebody: with no more than that one has.
pub const RIGHTS_HEADER: &str = "x-payrelay-rights";

impl Rights {
    /// As [`RIGHTS_HEADER`] has them.
    pub fn word(self) -> &'static str {
        match (self.act, self.bodies) {
            (true, _) => "act",
            (false, true) => "bodies",
            (false, false) => "look",
        }
    }
}

impl Caller {
    /// The same with no more rights than `word` has; any word but these has the least.
    pub fn reduced_to(mut self, word: Option<&[u8]>) -> Self {
        if let Some(word) = word {
            self.rights.act &= word == b"act";
            self.rights.bodies &= matches!(word, b"act" | b"bodies");
        }
        self
    }
}

const ALL: Rights = Rights {
    bodies: true,
    act: true,
};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// For the log: `admin`, the name of a read token, or `anybody` where no token is asked for.
    pub name: String,
    pub rights: Rights,
    /// The request itself proves that no other site has sent it: it shows a token.
    pub proven: bool,
}

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// No token, or no login that counts.
    NoToken,
    /// A token that is none.
    WrongToken,
    /// The same, too often; for so long.
    TooMany(Duration),
    /// The request was made by another site's page.
    OtherSite,
}

/// What of a request says who sent it.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The one `Authorization` header.
    pub authorization: Option<&'a [u8]>,
    pub cookie: Option<&'a [u8]>,
    pub host: Option<&'a [u8]>,
    /// `Sec-Fetch-Site`: what today's browsers say of where a request was made.
    pub fetch_site: Option<&'a [u8]>,
    pub peer: SocketAddr,
}

/// The tokens, and who is logged in.
#[derive(Debug)]
pub struct Gate {
    tokens: RwLock<Tokens>,
    logins: Mutex<HashMap<[u8; 32], Login>>,
    failures: Failures,
    /// Of this process alone: two relays on one host share their browsers' cookies.
    cookie: String,
}

#[derive(Debug)]
struct Tokens {
    admin: Option<Secret>,
    readers: Vec<ReadToken>,
}

#[derive(Debug)]
struct Login {
    token: Secret,
    until: Instant,
}

impl Gate {
    /// A gate that asks for these tokens; without an admin token nobody is asked.
    pub fn new(instance: &str, admin: Option<Secret>, readers: Vec<ReadToken>) -> Self {
        let suffix = instance.rsplit('-').next().unwrap_or(instance);
        Self {
            tokens: RwLock::new(Tokens { admin, readers }),
            logins: Mutex::default(),
            failures: Failures::new(FAILURES_PER_MINUTE),
            cookie: format!("payrelay-{suffix}"),
        }
    }

    /// From now on these tokens count.
    pub fn set(&self, admin: Option<Secret>, readers: Vec<ReadToken>) {
        *self.tokens.write() = Tokens { admin, readers };
    }

    /// The token that other nodes are asked with.
    pub fn admin_token(&self) -> Option<Secret> {
        self.tokens.read().admin.clone()
    }

    /// Whether a token is asked for at all.
    pub fn asks(&self) -> bool {
        self.tokens.read().admin.is_some()
    }

    /// Who has sent a request that shows this.
    ///
    /// # Errors
    /// Nobody who may look.
    pub fn identify(&self, shown: &Shown<'_>) -> Result<Caller, AuthError> {
        // A browser that says so is believed; one that is too old to say it does not send the cookie either.
        if shown
            .fetch_site
            .is_some_and(|site| !matches!(site, b"same-origin" | b"none"))
        {
            return Err(AuthError::OtherSite);
        }
        if !self.asks() {
            // Another site's name may lead to this address: then its pages could ask as if they were this one's.
            if shown.host.is_some_and(|host| !is_an_address(host)) {
                return Err(AuthError::OtherSite);
            }
            return Ok(Caller {
                name: "anybody".into(),
                rights: ALL,
                proven: false,
            });
        }
        if let Some(token) = shown.authorization.and_then(bearer) {
            return self.holder(token, shown.peer, true);
        }
        if shown.authorization.is_some() {
            return Err(self.wrong(shown.peer));
        }
        let login = shown.cookie.and_then(|cookies| self.login_of(cookies));
        let token = login.ok_or(AuthError::NoToken)?;
        self.holder(token.expose().as_bytes(), shown.peer, false)
    }

    /// Whose `token` is.
    fn holder(&self, token: &[u8], peer: SocketAddr, proven: bool) -> Result<Caller, AuthError> {
        let same = |one: &Secret| verify_slices_are_equal(token, one.expose().as_bytes()).is_ok();
        let tokens = self.tokens.read();
        let caller = |name: &str, rights| Caller {
            name: name.to_owned(),
            rights,
            proven,
        };
        if tokens.admin.as_ref().is_some_and(same) {
            return Ok(caller("admin", ALL));
        }
        if let Some(reader) = tokens.readers.iter().find(|reader| same(&reader.token)) {
            let rights = Rights {
                bodies: reader.bodies,
                act: false,
            };
            return Ok(caller(&reader.name, rights));
        }
        drop(tokens);
        match proven {
            true => Err(self.wrong(peer)),
            false => Err(AuthError::NoToken), // a login whose token is gone
        }
    }

    fn wrong(&self, peer: SocketAddr) -> AuthError {
        let ip: IpAddr = peer.ip();
        match self.failures.count(ip, Instant::now()) {
            Judged::Within => {
                WRONG_TOKEN.warn(format_args!("admin: {ip} has shown a wrong token"));
                AuthError::WrongToken
            }
            Judged::Beyond { first, left } => {
                if first {
                    log::warn!(
                        "admin: {ip} has shown more than {FAILURES_PER_MINUTE} wrong tokens within a minute; \
                         the next are answered 429"
                    );
                }
                AuthError::TooMany(left)
            }
        }
    }

    /// Logs the holder of `token` in: who that is, and the line that sets the cookie.
    ///
    /// # Errors
    /// The token is none, or the system gives no random bytes.
    pub fn log_in(
        &self,
        token: &str,
        peer: SocketAddr,
        secure: bool,
    ) -> Result<(Caller, String), AuthError> {
        let caller = self.holder(token.as_bytes(), peer, true)?;
        let mut number = [0; 32];
        SystemRandom::new()
            .fill(&mut number)
            .map_err(|_| AuthError::NoToken)?;
        let number = hex(&number);
        let now = Instant::now();
        let mut logins = self.logins.lock();
        logins.retain(|_, login| login.until > now);
        if logins.len() >= LOGINS_MAX {
            let oldest = logins.iter().min_by_key(|(_, login)| login.until);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                logins.remove(&oldest);
            }
        }
        let login = Login {
            token: Secret::new(token),
            until: now + LOGIN_LASTS,
        };
        logins.insert(key_of(&number), login);
        drop(logins);
        Ok((caller, self.set_cookie(&number, LOGIN_LASTS, secure)))
    }

    /// Ends the login that `cookies` show: the line that takes the cookie away.
    pub fn log_out(&self, cookies: Option<&[u8]>) -> String {
        if let Some(number) = cookies.and_then(|cookies| self.number_in(cookies)) {
            self.logins.lock().remove(&key_of(number));
        }
        self.set_cookie("", Duration::ZERO, false)
    }

    fn set_cookie(&self, number: &str, lasts: Duration, secure: bool) -> String {
        let (name, seconds) = (&self.cookie, lasts.as_secs());
        let secure = if secure { "; Secure" } else { "" };
        format!(
            "Set-Cookie: {name}={number}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
        )
    }

    fn login_of(&self, cookies: &[u8]) -> Option<Secret> {
        let key = key_of(self.number_in(cookies)?);
        let logins = self.logins.lock();
        let login = logins.get(&key)?;
        (login.until > Instant::now()).then(|| login.token.clone())
    }

    /// The value of this relay's cookie; `None` if there is none, or more than one.
    fn number_in<'a>(&self, cookies: &'a [u8]) -> Option<&'a str> {
        let cookies = std::str::from_utf8(cookies).ok()?;
        let mut values = cookies.split(';').filter_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == self.cookie).then_some(value)
        });
        match (values.next(), values.next()) {
            (Some(value), None) => Some(value),
            (None, _) | (Some(_), Some(_)) => None,
        }
    }
}

/// By what a login is found: not the number itself, so that looking it up tells nothing of another's.
fn key_of(number: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest::digest(&digest::SHA256, number.as_bytes()).as_ref());
    key
}

/// Whether a `Host` is an address or `localhost`, and no name that somebody else may have given.
fn is_an_address(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    };
    let bare = without_port.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests;
