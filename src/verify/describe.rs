//! What a route checks, in words: for `payrelay check`, so that whoever has set a route up sees what it means.

use std::fmt::Write;

use super::signed::{Algorithm, FieldSource, Part, Shape, Signed};
use super::{Encoding, Engine, Jws, Request, Signer, Verifier, alipay, wechatpay_v2};
use crate::request::{Selector, place};

impl Verifier {
    /// One sentence or two; without any secret.
    pub fn describe(&self) -> String {
        match &self.engine {
            Engine::Alipay(alipay) => format!(
                "signed are all form fields but sign and sign_type, sorted, joined by &; RSA with SHA-256{}",
                if alipay.allows_sha1 { " or SHA-1 (weak)" } else { "" }
            ),
            Engine::WechatpayV2(_) => "signed are all elements but sign and empty ones, sorted, joined by &, then &key= and the \
                secret; MD5 (weak) or HMAC-SHA256, as sign_type says"
                .to_owned(),
            Engine::WechatpayV3(_) => {
                "signed are time, nonce and body, a line each; RSA with SHA-256, by the key that Wechatpay-Serial names".to_owned()
            }
            Engine::Adyen(_) => "signed are eight values of each item, and nothing else of it; HMAC-SHA256".to_owned(),
            Engine::Signed(signed) => signed.describe(),
            Engine::Jws(jws) => jws.describe(),
        }
    }

    /// The text that `request` should have been signed as, the secret left out; `None` if there is no such text, or it cannot be
    /// built.
    pub fn explain(&self, request: &Request<'_>) -> Option<Vec<u8>> {
        match &self.engine {
            Engine::Signed(engine) if engine.algorithm == Algorithm::Password => None,
            Engine::Signed(engine) => engine.explain(request).ok(),
            Engine::Alipay(_) => alipay::explain(request).ok(),
            Engine::WechatpayV2(_) => wechatpay_v2::explain(request).ok(),
            Engine::WechatpayV3(_) | Engine::Adyen(_) | Engine::Jws(_) => None,
        }
    }
}

impl Jws {
    fn describe(&self) -> String {
        let place = place(&self.place);
        let mut words = match &self.signer {
            Signer::Chain(_) => format!(
                "signed is the JSON document in {place}; ES256, by a certificate whose chain leads to a root in keys"
            ),
            Signer::Named(_) => format!(
                "signed is the token in {place}, and nothing of the body: whoever has the token may say anything until it expires; \
                 RS256, by the key in keys that it names"
            ),
        };
        for claim in &self.claims {
            let _ = write!(
                words,
                "; {} must be {}",
                claim.name,
                claim.allowed.join(" or ")
            );
        }
        words
    }
}

impl Signed {
    fn describe(&self) -> String {
        if self.algorithm == Algorithm::Password {
            return format!(
                "a password is looked for in {}; nothing is signed",
                place(&self.signature.place)
            );
        }
        let mut words = "signed are ".to_owned();
        for (n, part) in self.text.0.iter().enumerate() {
            if n > 0 {
                words.push_str(", then ");
            }
            self.part(part, &mut words);
        }
        if self.hash_first {
            words.push_str("; of that the SHA-256 in hex");
        }
        let algorithm = Algorithm::ALL
            .iter()
            .find(|(_, its)| *its == self.algorithm);
        let name = algorithm.map_or("", |(name, _)| name).to_uppercase();
        let weak = if self.algorithm.is_weak() {
            " (weak)"
        } else {
            ""
        };
        let encoding = match self.signature.encoding {
            Encoding::Hex | Encoding::HexLower | Encoding::HexUpper => "hex",
            Encoding::Base64 => "base64",
        };
        // Writing into a String cannot fail.
        let _ = write!(
            words,
            "; {name}{weak}, {encoding}, in {}",
            place(&self.signature.place)
        );
        if !self.signature.prefix.is_empty() {
            let _ = write!(words, " after {:?}", self.signature.prefix);
        }
        match self.time.as_ref().map(|time| time.tolerance) {
            Some(Some(tolerance)) => {
                let _ = write!(
                    words,
                    "; believed within {} s of the time that is signed",
                    tolerance.as_secs()
                );
            }
            Some(None) | None => words.push_str(
                "; believed for ever: a callback that was genuine once can be sent again",
            ),
        }
        words
    }

    fn part(&self, part: &Part, words: &mut String) {
        let _ = match part {
            Part::Literal(text) => write!(words, "{text:?}"),
            Part::Fields => {
                if let Some(fields) = &self.fields {
                    fields.describe(words);
                }
                Ok(())
            }
            Part::Body => write!(words, "the body"),
            Part::BodyCrc32 => write!(
                words,
                "the CRC-32 of the body (which does not keep anybody from changing the body: let only the provider's addresses in)"
            ),
            Part::Secret => write!(words, "the secret"),
            Part::SecretMd5 => write!(words, "the MD5 of the secret"),
            Part::Method => write!(words, "the method"),
            Part::Target => write!(words, "path and query"),
            Part::Url => write!(words, "the address (url)"),
            Part::Timestamp => write!(words, "the time"),
            Part::Value(selector, form) => write!(
                words,
                "{}{}{}",
                place(selector),
                if form.is_lower_case {
                    " in lower case"
                } else {
                    ""
                },
                if form.may_be_missing {
                    " if it is there"
                } else {
                    ""
                }
            ),
            Part::Ordered(parts) => {
                words.push_str("in the order of their bytes (");
                for (n, part) in parts.iter().enumerate() {
                    if n > 0 {
                        words.push_str(", ");
                    }
                    self.part(part, words);
                }
                words.push(')');
                Ok(())
            }
        };
    }
}

impl FieldSource {
    fn describe(&self, words: &mut String) {
        let what = match &self.from {
            Shape::Query => "all fields of the query".to_owned(),
            Shape::Form => "all form fields".to_owned(),
            Shape::Param => "all fields of the query (of the form, if there is a body)".to_owned(),
            Shape::Xml => "all elements".to_owned(),
            Shape::Json(pointer) if pointer.is_empty() => "all fields of the JSON body".to_owned(),
            Shape::Json(pointer) => {
                format!("all fields of {}", place(&Selector::Json(pointer.clone())))
            }
            Shape::Inner(selector) => format!("all fields of the JSON in {}", place(selector)),
        };
        words.push_str(&what);
        let mut skipped = self.skip.clone();
        if self.skips_empty {
            skipped.push("empty ones".to_owned());
        }
        if !skipped.is_empty() {
            let _ = write!(words, " but {}", skipped.join(" and "));
        }
        words.push_str(if self.values_only {
            ", sorted by name, their values alone"
        } else {
            ", sorted"
        });
        match &*self.join {
            "" => words.push_str(", one after the other"),
            join => {
                let _ = write!(words, ", joined by {join}");
            }
        }
    }
}
