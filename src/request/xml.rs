//! XML, as far as providers use it: elements with text in them. Read without recursion, in memory that does not grow.
//!
//! Refused is what parsers do not agree on, or what makes a small document a large one: document types and their entities,
//! text beside elements, a comment inside a text. Markup is ASCII in every encoding that is read; what else stands in a
//! document that is not UTF-8 is read as U+FFFD, so that a selector never takes it for a text that it is not.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesStart, Event};

/// The deepest that elements may stand in each other. Providers: 2.
const DEPTH_MAX: usize = 32;

/// An element that has no others in it.
pub struct Leaf<'p, 'a> {
    /// The names from the root down to its own.
    pub path: &'p [String],
    /// Its text, references resolved.
    pub text: Cow<'a, str>,
    /// Whether it, or one around it, has attributes.
    pub has_attributes: bool,
}

/// Why a body is not read as XML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadXml {
    /// Not well-formed, or not one document.
    NotXml,
    /// In an encoding that is not read.
    Encoding,
    /// It has a document type, and with it could have entities.
    DocType,
    /// Elements in each other beyond the limit.
    TooDeep,
    /// A reference to an entity that it would have to define first.
    Entity,
    /// Text beside elements, or a comment inside a text.
    Mixed,
    /// The visitor did not want this element.
    Unwanted,
}

impl BadXml {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::NotXml => "the body is no XML document",
            Self::Encoding => {
                "the body is XML in another encoding than UTF-8, GBK, GB18030, ISO-8859-1 or US-ASCII"
            }
            Self::DocType => "the body has a document type, which no provider sends",
            Self::TooDeep => "the body has elements too deep in each other",
            Self::Entity => "the body has a reference to an entity that XML itself does not have",
            Self::Mixed => "the body has text beside elements, or a comment inside a text",
            Self::Unwanted => {
                "the body has elements or attributes where no provider has them, or too many"
            }
        }
    }
}

/// An element whose end has not come yet.
struct Open<'a> {
    text: Cow<'a, str>,
    has_children: bool,
    has_comment: bool,
    attributes: bool,
}

/// Calls `visit` with every leaf of `body`, in order, for as long as it says `true`.
///
/// # Errors
/// What of the document was read is not taken for XML; or `visit` said `false`.
pub fn leaves(body: &[u8], visit: impl FnMut(Leaf<'_, '_>) -> bool) -> Result<(), BadXml> {
    let text = match Charset::declared(body)? {
        Charset::Utf8 => Cow::Borrowed(str::from_utf8(body).map_err(|_| BadXml::Encoding)?),
        Charset::Latin1 => Cow::Owned(body.iter().map(|&b| ascii_or_unknown(b)).collect()),
        Charset::Gb => Cow::Owned(gb_markup(body)),
    };
    read(&text, visit)
}

/// How a document is encoded.
enum Charset {
    /// UTF-8, and US-ASCII, which is a part of it.
    Utf8,
    Latin1,
    /// GBK and its relatives.
    Gb,
}

impl Charset {
    /// What the XML declaration of `body` says; UTF-8 without one.
    fn declared(body: &[u8]) -> Result<Self, BadXml> {
        // A declaration is short, and in ASCII.
        let line = body.split(|&b| b == b'>').next().unwrap_or_default();
        let line = line
            .strip_prefix(b"<?xml")
            .and_then(|line| str::from_utf8(line).ok());
        let named = line.and_then(|line| line.split_once("encoding"));
        let Some((_, named)) = named else {
            return Ok(Self::Utf8);
        };
        let quoted = |c: char| matches!(c, '"' | '\'');
        let name = named.split(quoted).nth(1).unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" | "us-ascii" | "ascii" => Ok(Self::Utf8),
            "iso-8859-1" | "latin1" => Ok(Self::Latin1),
            "gbk" | "gb2312" | "gb18030" => Ok(Self::Gb),
            _ => Err(BadXml::Encoding),
        }
    }
}

fn ascii_or_unknown(byte: u8) -> char {
    match byte {
        ascii @ 0..=0x7f => char::from(ascii),
        _ => char::REPLACEMENT_CHARACTER,
    }
}

/// The ASCII of a document in GBK or GB18030, where the second of two bytes may look like ASCII, and is none. It never looks
/// like markup.
fn gb_markup(body: &[u8]) -> String {
    let mut text = String::with_capacity(body.len());
    let mut rest = body.iter();
    while let Some(&byte) = rest.next() {
        if byte > 0x80 && rest.clone().next().is_some_and(|&second| second >= 0x40) {
            rest.next();
        }
        text.push(ascii_or_unknown(byte));
    }
    text
}

fn read<'a>(text: &'a str, visit: impl FnMut(Leaf<'_, 'a>) -> bool) -> Result<(), BadXml> {
    let mut walk = Walk {
        path: Vec::new(),
        open: Vec::new(),
        had_root: false,
        visit,
    };
    let mut reader = Reader::from_str(text);
    loop {
        match reader.read_event().map_err(|_| BadXml::NotXml)? {
            Event::Start(start) => walk.start(&start)?,
            Event::Empty(start) => {
                walk.start(&start)?;
                walk.end()?;
            }
            Event::End(_) => walk.end()?,
            Event::Text(piece) => walk.text(piece.into_inner())?,
            Event::CData(piece) => walk.text(piece.into_inner())?,
            Event::GeneralRef(name) => {
                let char = name.resolve_char_ref().map_err(|_| BadXml::Entity)?;
                match (char, resolve_xml_entity(&name)) {
                    (Some(char), _) => walk.text(char.to_string().into())?,
                    (None, Some(known)) => walk.text(known.into())?,
                    (None, None) => return Err(BadXml::Entity),
                }
            }
            // Its encoding has been looked at.
            Event::Decl(_) => {}
            Event::DocType(_) => return Err(BadXml::DocType),
            Event::Comment(_) | Event::PI(_) => walk.comment(),
            Event::Eof => return walk.finish(),
        }
    }
}

struct Walk<'a, F> {
    path: Vec<String>,
    open: Vec<Open<'a>>,
    had_root: bool,
    visit: F,
}

impl<'a, F: FnMut(Leaf<'_, 'a>) -> bool> Walk<'a, F> {
    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), BadXml> {
        let attributes = !start.attributes_raw().trim().is_empty();
        let mut inherited = false;
        match self.open.last_mut() {
            Some(parent) => {
                // Looked at once and let go: a document of spaces and children must not be read again for each child.
                if !is_space(&std::mem::take(&mut parent.text)) {
                    return Err(BadXml::Mixed);
                }
                parent.has_children = true;
                inherited = parent.attributes;
            }
            None if self.had_root => return Err(BadXml::NotXml),
            None => self.had_root = true,
        }
        if self.open.len() == DEPTH_MAX {
            return Err(BadXml::TooDeep);
        }
        self.path.push(start.name().into_inner().to_owned());
        self.open.push(Open {
            text: Cow::Borrowed(""),
            has_children: false,
            has_comment: false,
            attributes: attributes || inherited,
        });
        Ok(())
    }

    fn text(&mut self, piece: Cow<'a, str>) -> Result<(), BadXml> {
        match self.open.last_mut() {
            None if is_space(&piece) => Ok(()),
            None => Err(BadXml::NotXml),
            Some(element) if element.has_children => match is_space(&piece) {
                true => Ok(()),
                false => Err(BadXml::Mixed),
            },
            Some(element) if element.text.is_empty() => {
                element.text = piece;
                Ok(())
            }
            Some(element) => {
                element.text.to_mut().push_str(&piece);
                Ok(())
            }
        }
    }

    fn comment(&mut self) {
        if let Some(element) = self.open.last_mut() {
            element.has_comment = true;
        }
    }

    fn end(&mut self) -> Result<(), BadXml> {
        let element = self.open.pop().ok_or(BadXml::NotXml)?;
        if !element.has_children {
            if element.has_comment {
                return Err(BadXml::Mixed);
            }
            let wanted = (self.visit)(Leaf {
                path: &self.path,
                text: element.text,
                has_attributes: element.attributes,
            });
            if !wanted {
                return Err(BadXml::Unwanted);
            }
        }
        self.path.pop();
        Ok(())
    }

    fn finish(&self) -> Result<(), BadXml> {
        let whole = self.had_root && self.open.is_empty();
        whole.then_some(()).ok_or(BadXml::NotXml)
    }
}

fn is_space(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_whitespace())
}
