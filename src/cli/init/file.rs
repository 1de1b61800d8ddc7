//! relay.toml, as `payrelay init` writes it: what differs from the defaults, and nothing else.

use payrelay::config::FILL_IN;
use payrelay::verify::preset::Preset;

use super::{Args, Failure, Secrets, secret};

/// Whose secret the operator invents and types into the provider's console, as doc/providers.md says.
const CHOSEN_BY_OPERATOR: &[&str] = &["github", "razorpay", "token"];

/// The ports for providers, backends and operators, of relay.toml's defaults.
pub const HTTP_PORT: u16 = 8080;
pub const TCP_PORT: u16 = 7000;
pub const ADMIN_PORT: u16 = 9100;

/// A secret that was made for a provider: to be typed into its console.
#[derive(Debug)]
pub struct Chosen {
    pub provider: &'static str,
    pub secret: String,
}

/// The text of the file, and the secrets in it that providers have yet to be told.
///
/// # Errors
/// The system gives no random bytes.
pub fn write(args: &Args, secrets: &Secrets) -> Result<(String, Vec<Chosen>), Failure> {
    let host = |public| if public { "0.0.0.0" } else { "127.0.0.1" };
    let mut text = format!(
        "# Written by payrelay init. Every other key has its default; all of them are explained in the relay.toml that comes with\n\
         # payrelay (/usr/share/doc/payrelay/relay.toml). It holds secrets: keep it readable for its owner and the relay's group only.\n\
         # After a change: payrelay check, then systemctl reload payrelay.\n\n\
         [http]\nlisten = \"{}:{HTTP_PORT}\"\n",
        host(args.public.is_some())
    );
    if args.public.is_some() {
        text.push_str(
            "# Providers send to https. Either payrelay speaks TLS itself, with the two files below, or a proxy before it does.\n\
             # tls = { cert = \"/etc/payrelay/fullchain.pem\", key = \"/etc/payrelay/privkey.pem\" }\n",
        );
    }
    text.push_str(&format!(
        "\n[tcp]\nlisten = \"{}:{TCP_PORT}\"\n# Backends show a token that is made of this: payrelay token ID prints it.\nsecrets = [\"{}\"]\n",
        host(args.backends_public),
        secrets.tcp
    ));
    text.push_str(&format!(
        "\n[admin]\nlisten = \"127.0.0.1:{ADMIN_PORT}\"\ntoken = \"{}\"\n",
        secrets.admin
    ));
    if let Some(url) = &args.redis {
        text.push_str(&format!("\n[redis]\nurl = {}\n", quoted(url)));
    }
    let mut chosen = Vec::new();
    for provider in &args.providers {
        text.push_str(&route(args, provider, &mut chosen)?);
    }
    Ok((text, chosen))
}

fn route(
    args: &Args,
    provider: &'static Preset,
    chosen: &mut Vec<Chosen>,
) -> Result<String, Failure> {
    let name = provider.name;
    let mut text = format!(
        "\n# doc/providers.md says where {name} shows what belongs here.\n\
         [[route]]\npath = \"/{name}/{{id}}\"\nname = \"{name}\"\nverify = \"{name}\"\n"
    );
    for key in provider.needs() {
        let value = match *key {
            "secrets" if CHOSEN_BY_OPERATOR.contains(&name) => {
                let secret = secret()?;
                let value = format!("[{}]", quoted(&secret));
                chosen.push(Chosen {
                    provider: name,
                    secret,
                });
                value
            }
            "secrets" => {
                format!("[\"{FILL_IN}: the secret or key that the console of {name} shows\"]")
            }
            "keys" if name == "wechatpay-v3" => format!(
                "[{{ serial = \"{FILL_IN}: PUB_KEY_ID_…\", key = \"{FILL_IN}: file:/etc/payrelay/wechatpay.pem\" }}]"
            ),
            "keys" if name == "google-play" => format!(
                "[\"{FILL_IN}: file:/etc/payrelay/google-keys.json, which payrelay keys fetch writes\"]"
            ),
            "keys" if name == "apple" => format!(
                "[\"{FILL_IN}: file:/etc/payrelay/AppleRootCA-G3.pem, the root certificate of Apple\"]"
            ),
            "keys" => format!(
                "[\"{FILL_IN}: file:/etc/payrelay/{name}.pem, with the public key of {name} in it\"]"
            ),
            "url" => match args.public.as_deref().filter(|public| !public.is_empty()) {
                Some(public) => quoted(&format!("{public}/{name}/{{id}}")),
                None => format!(
                    "\"{FILL_IN}: https://pay.example.com/{name}/{{id}}, as the provider is told it\""
                ),
            },
            "hmac" => format!("{{ header = \"{FILL_IN}: the header with the signature\" }}"),
            "token" => "\"header:X-Token\"".to_owned(),
            "signed" => format!(
                "{{ text = \"{FILL_IN}: what is signed, as in {{body}} or {{fields}}&key={{secret}}\", algorithm = \"{FILL_IN}: hmac-sha256\", \
                 signature = \"{FILL_IN}: header:X-Signature\" }}\nsecrets = [\"{FILL_IN}: the secret; with an rsa algorithm: keys in its place\"]"
            ),
            "claims" if name == "apple" => format!(
                "{{ bundleId = \"{FILL_IN}: the app's bundle id\", environment = \"Production\" }}"
            ),
            "claims" if name == "google-play" => format!(
                "{{ aud = \"{FILL_IN}: the audience of the push subscription\", email = \"{FILL_IN}: the service account of the push subscription\" }}"
            ),
            "claims" => format!("{{ iss = \"{FILL_IN}: who signs\" }}"),
            "jws" => {
                format!("{{ token = \"{FILL_IN}: header:Authorization\", prefix = \"Bearer \" }}")
            }
            _ => format!("\"{FILL_IN}\""),
        };
        text.push_str(&format!("{key} = {value}\n"));
    }
    Ok(text)
}

/// As a basic string of TOML.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
