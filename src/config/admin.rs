//! `[admin]`: the page, health and metrics, and who may look.

use std::net::SocketAddr;

use super::address::{is_loopback, listen, loopback};
use super::declare::{live, restart, section};
use super::reader::{Field, Problem, Section};
use super::secret::{self, Secret};
use super::units::{GIB, MIB};
use super::values::{is_of_name, list, size, some, text_within};

section! {
    /// `[admin]`
    pub struct AdminConfig in "admin" {
        /// Where to listen; port 0 lets the system choose.
        listen: SocketAddr = loopback(9100), listen, restart;
        /// May see and do everything. Must be there when `listen` is not loopback.
        token: Option<Secret> = None, some(secret::token), live;
        /// Tokens that may look and change nothing. Empty unless there is a `token`.
        read_tokens: Vec<ReadToken> = Vec::new(), read_tokens, live;
        /// The admin ports of the other nodes; this node's own may be among them.
        nodes: Vec<SocketAddr> = Vec::new(), list(NODES_MAX, listen), live;
        /// How many bytes of the latest notifications are kept in memory to be looked at; 0: none.
        keep_bodies: usize = 8 * MIB as usize, size(0..=GIB), restart;
    }
}

/// `{ name = "support", token = "…", bodies = false }` in `admin.read_tokens`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadToken {
    /// What its holder is called in the log.
    pub name: String,
    /// The token.
    pub token: Secret,
    /// Whether its holder may see headers and bodies of notifications.
    pub bodies: bool,
}

/// The most entries in `admin.read_tokens`: one for each team that looks.
const READ_TOKENS_MAX: usize = 64;

/// The most entries in `admin.nodes`.
const NODES_MAX: usize = 64;

/// Two who have the same token, or the same name.
const SAME: &str = "each needs a token and a name of its own, and a token other than admin.token";

/// Reads `[admin]`.
pub fn admin(mut s: Section<'_>) -> AdminConfig {
    let admin = AdminConfig::read(&mut s);
    let has_token = s.field("token").is_some();
    if let (false, Some(readers)) = (admin.read_tokens.is_empty(), s.field("read_tokens")) {
        if !has_token {
            readers.refuse(
                "without admin.token nobody is asked for a token, so everybody may do everything; add token = \"…\" to [admin]",
            );
        }
        let has_same = |reader: &&ReadToken| admin.token.as_ref() == Some(&reader.token);
        for _ in admin.read_tokens.iter().filter(has_same) {
            readers.refuse(SAME);
        }
    }
    if let (false, false, Some(address)) = (has_token, is_loopback(admin.listen), s.field("listen"))
    {
        address.refuse(
            "not a loopback address, and there is no admin.token; \
             add token = \"…\" to [admin] (make one with: openssl rand -hex 32) or listen on 127.0.0.1",
        );
    }
    s.close();
    admin
}

/// Reads `admin.read_tokens`.
fn read_tokens(field: &Field<'_>) -> Result<Vec<ReadToken>, Problem> {
    let mut readers: Vec<ReadToken> = Vec::new();
    for field in field.hide().list("a list of tables", READ_TOKENS_MAX)? {
        let Some(mut s) = field.read(Field::section) else {
            continue;
        };
        let what = "who holds it, such as name = \"support\"";
        let name = s.required("name", what, holder);
        let what = "make one with: openssl rand -hex 32";
        let token = s.required("token", what, secret::token);
        let bodies = s.read("bodies", Field::flag).unwrap_or(false);
        s.close();
        let Some((name, token)) = name.zip(token) else {
            continue;
        };
        if readers
            .iter()
            .any(|one| one.name == name || one.token == token)
        {
            field.refuse(SAME);
        }
        readers.push(ReadToken {
            name,
            token,
            bodies,
        });
    }
    Ok(readers)
}

fn holder(field: &Field<'_>) -> Result<String, Problem> {
    let rule = "a name is 1 to 64 of A-Z a-z 0-9 . _ -";
    text_within(field, 64, is_of_name, rule)
}
