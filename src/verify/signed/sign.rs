//! The other side of the engine: the same text, signed. For `payrelay send --sign`.

use super::built::Built;
use super::{Algorithm, Encoding, Part, Running, Signed, TimeUnit};
use crate::escape::percent_encoded;
use crate::verify::draft::{CannotSign, Draft, sample, sample_at};
use crate::verify::keys::RsaHash;

impl Signed {
    /// Fills in what is signed and not there, and signs `draft` with the first secret or a test key.
    pub fn sign(&self, draft: &mut Draft, now_unix_s: u64) -> Result<(), CannotSign> {
        for part in self.text.parts() {
            if let Part::Value(selector, form) = part
                && !form.may_be_missing
            {
                draft.fill(selector, &sample_at(selector, now_unix_s))?;
            }
        }
        if let Some(fields) = &self.fields {
            for name in &fields.always {
                draft.fill(&fields.selector(name), &sample(name, now_unix_s))?;
            }
            if fields.always.is_empty() && !fields.values_only {
                draft.fill(&fields.selector("test"), "1")?;
            }
        }
        let mut timestamp = String::new();
        let mut time_item = None;
        if let Some(time) = &self.time {
            timestamp = match time.unit {
                TimeUnit::Seconds => now_unix_s,
                TimeUnit::Milliseconds => now_unix_s.saturating_mul(1000),
            }
            .to_string();
            match &time.place {
                Some(place) => {
                    draft.fill(place, &timestamp)?;
                    timestamp = draft.find(place).unwrap_or_default();
                }
                None => time_item = Some(format!("{}{timestamp}", time.prefix)),
            }
        }
        let at = &self.signature;
        // So that what is written into a JSON body later changes nothing else of it.
        draft.set(&at.place, "1")?;
        let signature = draft.with_request(|request| {
            let built = self.build(request, &timestamp)?;
            self.signature(&built)
        })?;
        let signature = match at.unescape {
            true => percent_encoded(signature.as_bytes()),
            false => signature,
        };
        let mut text = format!("{}{signature}", at.prefix);
        if let (Some(time), Some(separator)) = (time_item, at.separator) {
            text = format!("{time}{separator}{text}");
        }
        draft.set(&at.place, &text)
    }

    fn signature(&self, built: &Built<'_>) -> Result<String, CannotSign> {
        let secret = self.secrets.first();
        let encoding = self.signature.encoding;
        if self.algorithm.rsa().is_some() {
            let mut digest = RsaHash::Sha256.begin();
            self.feed(built, secret, &mut |bytes| digest.update(bytes));
            let digest = digest.finish();
            let signature = self.keys.iter().find_map(|key| key.sign(&digest));
            return signature
                .map(|bytes| encoding.write(&bytes))
                .ok_or(CannotSign::NoTestKey);
        }
        if let (Algorithm::Password, Some(secret)) = (self.algorithm, secret) {
            return Ok(match encoding {
                Encoding::Base64 => encoding.write(secret.secret()),
                _ => String::from_utf8_lossy(secret.secret()).into_owned(),
            });
        }
        let mut running = Running::begin(self.algorithm, secret).ok_or(CannotSign::NoTestKey)?;
        self.feed(built, secret, &mut |bytes| running.update(bytes));
        Ok(running.finish(|tag| encoding.write(tag)))
    }
}
