//! `payrelay keys`: the keys with which providers sign, brought into a file that routes read.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use payrelay::verify::key_set::key_set;
use payrelay::verify::new_test_key;

use super::config_file::share;
use super::tls::TlsArgs;
use super::{Failure, print};
use crate::client::http::ClientRequest;
use crate::client::url::HttpUrl;

pub const HELP: &str = "\
Examples:
  payrelay keys fetch --out /etc/payrelay/google-keys.json
  payrelay keys test --out test-key.pem";

const FETCH_HELP: &str = "\
Example, once an hour by cron or a timer:
  payrelay keys fetch --out /etc/payrelay/google-keys.json && systemctl reload payrelay

The relay itself asks nobody for a key: it reads the file at its start and on SIGHUP. Exit 0 if FILE holds the keys that
the address gives, 1 if not; then FILE is as it was.";

/// Where Google publishes the keys of its OpenID tokens (its discovery document's jwks_uri).
const GOOGLE: &str = "https://www.googleapis.com/oauth2/v3/certs";

/// From connecting to the last byte.
const DEADLINE: Duration = Duration::from_secs(20);

/// The most that a key set may have in bytes, as much as a file of a route.
const BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, clap::Subcommand)]
pub enum Args {
    /// Write the public keys that a provider publishes into a file
    #[command(after_help = FETCH_HELP)]
    Fetch(Fetch),
    /// Make a key with which send --sign signs in a provider's place
    #[command(after_help = TEST_HELP)]
    Test(Test),
}

#[derive(Debug, clap::Args)]
pub struct Fetch {
    /// The file to write, whole or not at all
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Where the keys are (a JSON Web Key Set)
    #[arg(long, default_value = GOOGLE, value_parser = HttpUrl::parse)]
    url: HttpUrl,

    #[command(flatten)]
    tls: TlsArgs,
}

const TEST_HELP: &str = "\
Example, for a route whose provider signs with a private key of its own:
  payrelay keys test --out test-key.pem
  # in the route: keys = [\"file:test-key.pem\"] and allow_test = true
  payrelay send game-01 --sign alipay

The relay believes such a key only with allow_test = true, and takes that only while http.listen is loopback. FILE holds the
private half: whoever has it can sign as the provider on that route.";

#[derive(Debug, clap::Args)]
pub struct Test {
    /// The file to write; none may be there
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    match args {
        Args::Fetch(args) => fetch(args),
        Args::Test(args) => test(args),
    }
}

fn test(args: &Test) -> Result<(), Failure> {
    let file = args.out.display();
    let key = new_test_key().map_err(|_| Failure::new("the system gives no random numbers"))?;
    let open = || {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&args.out)?;
        file.write_all(key.as_bytes())?;
        share(&file, &args.out)?;
        // The relay's working directory is another.
        args.out.canonicalize()
    };
    let whole = open().map_err(|error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(format_args!(
            "{file} is there already; a relay may believe it, so it is left as it is"
        )),
        _ => Failure::at(&file, error),
    })?;
    print(format_args!(
        "{file}: a test key; in the route: keys = [\"file:{}\"] and allow_test = true\n",
        whole.display()
    ))
}

fn fetch(args: &Fetch) -> Result<(), Failure> {
    if !args.url.sealed {
        return Err(Failure::usage(
            "keys must come by https://: without TLS anybody on the way could give keys of his own",
        ));
    }
    let place = &args.url.place;
    let trust = args.tls.trust(place, None)?;
    let answer = ClientRequest {
        method: "GET",
        place,
        trust: Some(&trust),
        target: &args.url.target,
        headers: &[],
        body: b"",
        deadline: DEADLINE,
    }
    .send()
    .map_err(|error| Failure::at(place, error))?;
    if answer.status != 200 {
        return Err(Failure::new(format_args!(
            "{place} answers {} in place of the keys",
            answer.status
        )));
    }
    let text = String::from_utf8(answer.body).ok();
    let text = text.filter(|text| text.len() <= BYTES_MAX).ok_or_else(|| {
        Failure::new(format_args!(
            "{place} answers with something else than keys, or with more than {BYTES_MAX} bytes"
        ))
    })?;
    let keys = key_set(&text).map_err(|error| Failure::at(place, error))?;
    let file = args.out.display();
    let state = match fs::read(&args.out).is_ok_and(|old| old == text.as_bytes()) {
        true => "as before",
        false => {
            let written = replace(&args.out, text.as_bytes());
            written.map_err(|error| Failure::at(&file, error))?;
            "new; the relay reads them on SIGHUP"
        }
    };
    print(format_args!("{file}: {} keys, {state}\n", keys.len()))
}

/// Writes `bytes` to a file beside `path` and moves it there, so that the relay never reads half of it.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    // Public keys, for whatever user the relay runs as.
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
