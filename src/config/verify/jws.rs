//! `verify = "jws"` and its presets: where a signed document stands, who may have signed it, and what it must say.

use super::keys::keys;
use super::{required, tolerance};
use crate::config::reader::{Field, Problem, Section};
use crate::config::secret::public_text;
use crate::config::values::{list, selector, text_of};
use crate::request::Selector;
use crate::verify::jws::roots;
use crate::verify::key_set::named_keys;
use crate::verify::{
    Chain, Claim, Engine, Jws, JwsPreset, PresetClaim, RsaKey, Signer, Trusted, oid,
};

const MISSING_TABLE: &str = "says where the signed document stands, as in \
    jws = { token = \"header:Authorization\", prefix = \"Bearer \" }";

const MISSING_TOKEN: &str =
    "where the signed document stands, as in token = \"json:/signedPayload\"";

/// The most claims of a route.
const CLAIMS_MAX: usize = 16;

const NO_CLAIMS: &str = "1 to 16 names are needed, each with a text or a list of texts, as in { aud = \"https://pay.example/rtdn\" }";

/// The most values that one claim may have.
const ALLOWED_MAX: usize = 64;

/// Where the time of a signature stands in Apple's documents, for chains whose table says nothing.
const TIME: &str = "signedDate";

/// What a table or a preset says.
struct JwsTable {
    place: Selector,
    prefix: Box<str>,
    /// Identifiers of the leaf's and of its issuer's extensions, and where the time stands.
    chain: Option<[Option<Vec<u8>>; 2]>,
    claims: &'static [PresetClaim],
}

/// Asks for every key that belongs to a document of any kind: what is wrong with one shall not make another unknown.
fn ask(s: &mut Section<'_>) {
    for key in ["keys", "claims", "tolerance"] {
        s.field(key);
    }
}

/// The engine of a preset, if its keys are right.
pub fn of_preset(s: &mut Section<'_>, preset: &'static JwsPreset) -> Option<Engine> {
    let words = || {
        let chain = match &preset.chain {
            None => None,
            Some(chain) => {
                let oids = [oid(chain.leaf_oid)?, oid(chain.issuer_oid)?];
                Some(oids.map(Some))
            }
        };
        Some(JwsTable {
            place: Selector::of_preset(preset.place)?,
            prefix: preset.prefix.into(),
            chain,
            claims: preset.claims,
        })
    };
    engine(s, words())
}

/// The engine of the route's own table, if all is right.
pub fn read(s: &mut Section<'_>) -> Option<Engine> {
    ask(s);
    let table = s.required("jws", MISSING_TABLE, Field::section);
    engine(s, table.and_then(self::table))
}

fn table(mut t: Section<'_>) -> Option<JwsTable> {
    let place = required(&mut t, "token", MISSING_TOKEN, selector);
    let prefix = t.or("prefix", String::new(), super::text);
    let by_chain = t.or("x5c", false, Field::flag);
    let mut oid_of = |key| {
        t.or(key, None, |field| {
            oid(field.text("a string")?).map(Some).ok_or_else(|| {
                "an object identifier is needed, such as \"1.2.840.113635.100.6.11.1\"".into()
            })
        })
    };
    let (leaf_oid, issuer_oid) = (oid_of("leaf_oid"), oid_of("issuer_oid"));
    t.close();
    let oids = [leaf_oid?, issuer_oid?];
    Some(JwsTable {
        place: place?,
        prefix: prefix?.into(),
        chain: by_chain?.then_some(oids),
        claims: &[],
    })
}

fn engine(s: &mut Section<'_>, words: Option<JwsTable>) -> Option<Engine> {
    ask(s);
    let words = words?;
    let signer = match words.chain {
        Some([leaf_oid, issuer_oid]) => {
            let trusted = keys(s, Trusted::eq, |field| {
                roots(&public_text(field)?).map_err(|bad| bad.to_string())
            });
            trusted.map(|trusted| {
                let mut chain = Chain {
                    roots: Vec::new(),
                    leaf_oid,
                    issuer_oid,
                    time: vec![TIME.to_owned()],
                    test: Vec::new(),
                };
                for one in trusted {
                    match one {
                        Trusted::Root(root) => chain.roots.push(root),
                        Trusted::Test(key) => chain.test.push(key),
                    }
                }
                Signer::Chain(chain)
            })
        }
        None => {
            // Documents name a key by its serial, so one serial cannot have two.
            let same = |a: &RsaKey, b: &RsaKey| a.serial() == b.serial();
            let keys = keys(s, same, |field| {
                named_keys(&public_text(field)?).map_err(|bad| bad.to_string())
            });
            keys.map(Signer::Named)
        }
    };
    let claims = claims(s, words.claims);
    let tolerance = tolerance(s);
    Some(Engine::Jws(Jws {
        place: words.place,
        prefix: words.prefix,
        signer: signer?,
        claims: claims?,
        tolerance: tolerance?,
    }))
}

const MISSING_CLAIMS: &str = "says what the signed document must say: otherwise what is signed for anybody else would be \
    believed too";

/// The preset's claims and the route's, which must have every name for which the preset allows nothing itself.
fn claims(s: &mut Section<'_>, known: &[PresetClaim]) -> Option<Vec<Claim>> {
    let places = |claim: &PresetClaim| claim.at.iter().map(|at| pointer(at)).collect();
    let (asked, fixed): (Vec<_>, Vec<_>) = known.iter().partition(|claim| claim.allowed.is_empty());
    let fixed = fixed.into_iter().map(|claim| Claim {
        name: claim.name.into(),
        at: places(claim),
        allowed: claim.allowed.iter().map(|&text| text.to_owned()).collect(),
    });
    let mut all: Vec<Claim> = fixed.collect();
    let mut right = true;
    let table = s.required("claims", MISSING_CLAIMS, Field::section)?;
    let entries = table.entries();
    if entries.is_empty() || entries.len() > CLAIMS_MAX {
        if let Some(field) = s.field("claims") {
            field.refuse(NO_CLAIMS);
        }
        return None;
    }
    for (name, field) in entries {
        let Some(allowed) = field.read(allowed) else {
            right = false;
            continue;
        };
        let own = asked.iter().find(|claim| claim.name == name);
        let at = own.map_or_else(|| vec![pointer(name)], |claim| places(claim));
        all.push(Claim {
            name: name.into(),
            at,
            allowed,
        });
    }
    for PresetClaim { name, .. } in asked {
        if !all.iter().any(|claim| *claim.name == **name) && right {
            table.refuse(
                name,
                match *name {
                    "bundleId" => {
                        "is missing; the application's, as in { bundleId = \"com.example.game\", environment = \"Production\" }"
                    }
                    "environment" => "is missing; \"Production\", \"Sandbox\", or both in a list",
                    "aud" => "is missing; the audience of the push subscription, which is its address unless you set another",
                    _ => "is missing; the service account of the push subscription",
                },
            );
            right = false;
        }
    }
    right.then_some(all)
}

fn allowed(field: &Field<'_>) -> Result<Vec<String>, Problem> {
    if field.is_text() {
        return Ok(vec![field.text("a string")?.to_owned()]);
    }
    let texts = list(ALLOWED_MAX, text_of)(field)?;
    match texts.is_empty() {
        true => Err(NO_CLAIMS.into()),
        false => Ok(texts),
    }
}

/// A pointer as it is written, or the name of a field at the top.
fn pointer(text: &str) -> Vec<String> {
    match text.strip_prefix('/') {
        Some(rest) => rest.split('/').map(str::to_owned).collect(),
        None => vec![text.to_owned()],
    }
}
