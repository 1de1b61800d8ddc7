//! `[redis]`: where it is, and how long to wait for it.

use std::time::Duration;

use redis::{ConnectionInfo, IntoConnectionInfo};

use super::problem::Problem;
use super::reader::{Field, Section};
use super::secret;
use super::units::MINUTE;
use super::values::{duration, file_name};
use super::{Redis, Secret};

/// The longest prefix, in bytes: it stands in the name of every channel.
const PREFIX_BYTES_MAX: usize = 64;

/// Reads `[redis]`; `None` if the file does not have it, or it has no usable URL, which is noted.
pub fn redis(root: &mut Section<'_>) -> Option<Redis> {
    // Hidden: what stands where the section should might be a URL with a password.
    let mut s = root.field("redis")?.hide().read(Field::section)?;
    let url = s.field("url").map(Field::hide);
    if url.is_none() {
        s.refuse("url", Problem::Missing(NO_URL));
    }
    let url = url.and_then(|field| field.read(self::url));
    let redis = Redis {
        url: url.clone().unwrap_or_else(|| Secret::new("")),
        prefix: s.read("prefix", prefix).unwrap_or("payrelay".into()),
        connect_timeout: s
            .read("connect_timeout", duration(50..=MINUTE))
            .unwrap_or(Duration::from_secs(2)),
        response_timeout: s
            .read("response_timeout", duration(50..=MINUTE))
            .unwrap_or(Duration::from_secs(1)),
        ca: s.read("ca", file_name),
    };
    s.close();
    url.map(|_| redis)
}

const NO_URL: &str = "[redis] needs to know where Redis is: url = \"redis://127.0.0.1:6379\"; \
    remove [redis] to run one node without it";

fn info(url: &str) -> Option<ConnectionInfo> {
    url.into_connection_info().ok()
}

fn url(field: &Field<'_>) -> Result<Secret, Problem> {
    let (text, is_here) = secret::text_and_place(field)?;
    let info = info(&text).ok_or(Problem::RedisUrl)?;
    if is_here && info.redis_settings().password().is_some() {
        field.note_secret();
    }
    Ok(Secret::new(&text))
}

/// What a name in Redis may be made of, without the signs that a pattern gives a meaning to.
fn prefix(field: &Field<'_>) -> Result<String, Problem> {
    let text = field.text("a string")?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-:/{}".contains(&b);
    let fits = (1..=PREFIX_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed);
    if !fits {
        return Err(Problem::RedisPrefix);
    }
    Ok(text.to_owned())
}
