//! Everything that can be wrong with a configuration, and the sentence that says so and says what is allowed.
//!
//! Nothing here reads a file; where and for which key a problem arose is told by [`ConfigError`](super::ConfigError).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::address::BadListen;
use super::answer::BadAnswer;
use super::path::BadPath;
use super::secret::BadSource;
use super::selector::BadSelector;
use super::units::BadQuantity;
use super::verify::BadVerify;
use crate::notification::BadBackendId;
use crate::peers::BadNetwork;
use crate::verify::BadKey;

/// The largest file that is read, in bytes: a thousand routes with long answers fit, a mistaken disk image does not.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// What is wrong with one key, or with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The file could not be read.
    Unreadable(io::ErrorKind),
    /// The file is larger than 16 MiB.
    FileTooBig,
    /// The file is not UTF-8.
    NotUtf8,
    /// The file is not TOML; the parser's own words.
    Syntax(String),
    /// No such key here.
    UnknownKey {
        /// The keys there are.
        known: Vec<&'static str>,
        /// The one that was probably meant.
        meant: Option<&'static str>,
    },
    /// The value has another type.
    WrongType {
        /// What is needed.
        wanted: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A place that `payrelay init` has left for a person.
    FillIn,
    /// The key must be there; says what it is for.
    Missing(&'static str),
    /// A number outside its limits.
    OutOfRange(RangeInclusive<u64>),
    /// A duration or size that is none, or outside its limits.
    Quantity(BadQuantity),
    /// A word that is not among those known.
    NotOneOf(&'static [&'static str]),
    /// A list with too many entries.
    TooMany {
        /// How many there are.
        found: usize,
        /// How many are allowed.
        allowed: usize,
    },
    /// The same as in an earlier line.
    Again {
        /// The earlier line.
        line: usize,
    },
    /// No address to listen on.
    Listen(BadListen),
    /// The address is taken by another section.
    ListenTaken {
        /// The other key.
        by: &'static str,
        /// Its line; `None` if it is the default.
        line: Option<usize>,
    },
    /// No backend id.
    Backend(BadBackendId),
    /// No network.
    Network(BadNetwork),
    /// A PROXY header is awaited from trusted proxies, and there are none.
    NoProxies,
    /// No node name.
    Node,
    /// A secret that protects nothing, or cannot be sent.
    Secret(BadSecret),
    /// A secret that is not where the file says.
    Source(BadSource),
    /// No key of the kind that the provider uses.
    Key(BadKey),
    /// No check of a signature.
    Verify(BadVerify),
    /// No file name.
    FileName,
    /// No route path.
    Path(BadPath),
    /// No route name; whether it was taken from the path.
    RouteName {
        /// The route gives no name, so its path is its name.
        from_path: bool,
    },
    /// No selector, or one that contradicts the path.
    Selector(BadSelector),
    /// No header that can be forwarded.
    Header(BadHeader),
    /// No answer for a provider.
    Answer(BadAnswer),
    /// `outbox.retry_max` is below `outbox.retry_first`.
    RetryOrder,
    /// No URL of a Redis.
    RedisUrl,
    /// No prefix of channels.
    RedisPrefix,
    /// A prefix with braces, in a cluster.
    RedisPrefixBraces,
    /// No address of a Redis server.
    RedisAddress,
    /// No name of a primary.
    RedisMaster,
    /// Not exactly one of `url`, `sentinels` and `cluster`.
    RedisKinds,
    /// A key of `[redis]` that another kind of Redis has, in words.
    RedisKey(&'static str),
    /// No addresses at all.
    RedisNoAddresses,
    /// `admin.read_tokens` without an `admin.token`: without that nobody is asked for any.
    ReadersWithoutToken,
    /// Two who have the same token, or the same name.
    SameToken,
    /// No name for the holder of a token.
    HolderName,
    /// A listener that strangers reach would let anybody in.
    Open(Open),
}

/// Why a secret is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSecret {
    /// Too few characters.
    TooShort(usize),
    /// Too many characters.
    TooLong(usize),
    /// A token with something that an `Authorization` header cannot carry.
    NotPrintable,
}

/// Why a header is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// Not a header's name.
    Name,
    /// It concerns one connection only and ends at the relay.
    HopByHop,
    /// The relay tells the length itself.
    Length,
    /// Callers' copies of the relay's own headers are dropped.
    Own,
}

/// Promise 7: nobody in by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Open {
    /// Backends could connect without a token.
    Tcp,
    /// The admin interface would answer anybody.
    Admin,
    /// A route would believe anybody.
    Route {
        /// The route's name.
        name: String,
        /// Where `[http]` listens.
        listen: SocketAddr,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(kind) => unreadable(f, *kind),
            Self::FileTooBig => write!(
                f,
                "the file is too big; at most {} MiB are read",
                FILE_BYTES_MAX >> 20
            ),
            Self::NotUtf8 => f.write_str("the file is not UTF-8 from here on; save it as UTF-8"),
            Self::Syntax(message) => write!(f, "not valid TOML: {message}"),
            Self::UnknownKey { known, meant } => {
                f.write_str("unknown key; ")?;
                if let Some(meant) = meant {
                    write!(f, "did you mean {meant}? ")?;
                }
                write!(f, "known here: {}", known.join(", "))
            }
            Self::WrongType { wanted, found } => write!(f, "{wanted} is needed, this is {found}"),
            Self::FillIn => f.write_str("is not filled in yet; put the value there that the text asks for"),
            Self::Missing(what) => write!(f, "is missing; {what}"),
            Self::OutOfRange(allowed) => {
                write!(
                    f,
                    "out of range; allowed: {} to {}",
                    allowed.start(),
                    allowed.end()
                )
            }
            Self::Quantity(bad) => bad.fmt(f),
            Self::NotOneOf(allowed) => {
                f.write_str("not known; allowed:")?;
                for (n, word) in allowed.iter().enumerate() {
                    write!(f, "{} \"{word}\"", if n == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::TooMany { found, allowed } => {
                write!(f, "{found} entries; at most {allowed} are allowed")
            }
            Self::Again { line } => write!(f, "the same as in line {line}; each may be there once"),
            Self::Listen(bad) => bad.fmt(f),
            Self::ListenTaken { by, line } => {
                match line {
                    Some(line) => write!(f, "{by} in line {line}")?,
                    None => write!(f, "{by} by default")?,
                }
                f.write_str(" listens there already; give each its own port")
            }
            Self::Backend(bad) => bad.fmt(f),
            Self::Network(bad) => bad.fmt(f),
            Self::NoProxies => f.write_str(
                "without http.trusted_proxies nobody's PROXY header is believed; list the proxy's address there",
            ),
            Self::Node => write!(
                f,
                "a node's name is 1 to {} of A-Z a-z 0-9 . _ -",
                super::node::NODE_BYTES_MAX
            ),
            Self::Secret(bad) => bad.fmt(f),
            Self::Source(bad) => bad.fmt(f),
            Self::Key(bad) => bad.fmt(f),
            Self::Verify(bad) => bad.fmt(f),
            Self::FileName => f.write_str("a file name is needed: not empty, no NUL in it"),
            Self::Path(bad) => bad.fmt(f),
            Self::RouteName { from_path } => {
                if *from_path {
                    f.write_str(
                        "cannot be the route's name as well; give it one with name = \"…\": ",
                    )?;
                }
                f.write_str("1 to 64 of A-Z a-z 0-9 . _ / { } -")
            }
            Self::Selector(bad) => bad.fmt(f),
            Self::Header(bad) => bad.fmt(f),
            Self::Answer(bad) => bad.fmt(f),
            Self::RetryOrder => f.write_str(
                "outbox.retry_first (default 1s) must not be above outbox.retry_max (default 5m)",
            ),
            Self::ReadersWithoutToken => f.write_str(
                "without admin.token nobody is asked for a token, so everybody may do everything; add token = \"…\" to [admin]",
            ),
            Self::HolderName => f.write_str("a name is 1 to 64 of A-Z a-z 0-9 . _ -"),
            Self::SameToken => f.write_str(
                "each needs a token and a name of its own, and a token other than admin.token",
            ),
            Self::RedisUrl => f.write_str(
                "not a Redis URL; write redis://host:6379, redis://user:password@host:6379/0, \
                 rediss://… for TLS or unix:///path/to/socket",
            ),
            Self::RedisPrefix => f.write_str("a prefix is 1 to 64 of A-Z a-z 0-9 . _ - : / { }"),
            Self::RedisPrefixBraces => f.write_str(
                "in a cluster the prefix must not have { or }: the relay puts a hash tag of its own into each name",
            ),
            Self::RedisAddress => f.write_str(
                "not an address; write \"host:port\", such as \"10.0.0.7:6379\", \"redis-1.internal:6379\" or \"[::1]:6379\"",
            ),
            Self::RedisMaster => f.write_str(
                "the name of the primary as the sentinels know it (sentinel monitor NAME …): 1 to 128 of A-Z a-z 0-9 . _ -",
            ),
            Self::RedisKinds => f.write_str(
                "[redis] needs exactly one of: url = \"redis://…\" (one Redis), sentinels = [\"host:26379\", …] (with master), \
                 cluster = [\"host:6379\", …]",
            ),
            Self::RedisKey(needs) => f.write_str(needs),
            Self::RedisNoAddresses => f.write_str("at least one address is needed, such as [\"10.0.0.7:6379\"]"),
            Self::Open(open) => open.fmt(f),
        }
    }
}

fn unreadable(f: &mut fmt::Formatter<'_>, kind: io::ErrorKind) -> fmt::Result {
    match kind {
        io::ErrorKind::NotFound => f.write_str("there is no such file; name yours with -c, as in payrelay check -c FILE"),
        io::ErrorKind::PermissionDenied => {
            f.write_str("this user may not read the file; change its owner or mode, or name another with -c FILE")
        }
        kind => write!(f, "the file cannot be read ({kind}); name another with -c, as in payrelay check -c FILE"),
    }
}

impl fmt::Display for BadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = super::secret::SECRET_CHARS;
        match self {
            Self::TooShort(chars) => write!(
                f,
                "{chars} characters are too few, at least {} are needed; make one with: openssl rand -hex 32",
                limits.start()
            ),
            Self::TooLong(chars) => write!(f, "{chars} characters are too many; at most {}", limits.end()),
            Self::NotPrintable => {
                f.write_str("only printable ASCII without spaces can be sent as a token; make one with: openssl rand -hex 32")
            }
        }
    }
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "not a header's name: 1 to 128 of A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~",
            Self::HopByHop => "this header concerns one connection only and ends at the relay; leave it out",
            Self::Length => "the MSG frame tells the body's length; leave it out",
            Self::Own => "x-payrelay-* headers are the relay's own and never come from a provider; leave it out",
        })
    }
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str(
                "not a loopback address, and tcp.secrets is empty, so anybody could connect as any backend; \
                 add secrets = [\"…\"] to [tcp] (make one with: openssl rand -hex 32) or listen on 127.0.0.1",
            ),
            Self::Admin => f.write_str(
                "not a loopback address, and there is no admin.token; \
                 add token = \"…\" to [admin] (make one with: openssl rand -hex 32) or listen on 127.0.0.1",
            ),
            Self::Route { name, listen } => write!(
                f,
                "route {name} checks no signature and http.listen ({listen}) is not loopback, so anybody could forge a payment; \
                 set verify to the provider's name, or listen on 127.0.0.1, or set allow_unverified = true in this route if the backend \
                 checks the signature itself"
            ),
        }
    }
}
