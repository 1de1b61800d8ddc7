//! XML, as far as providers use it: elements with text in them. Read without recursion, in memory that does not grow.
//!
//! Refused is what parsers do not agree on, or what makes a small document a large one: document types and their entities,
//! text beside elements, a comment inside a text, another encoding than UTF-8.

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
    /// Not UTF-8, or says so.
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
            Self::Encoding => "the body is XML in another encoding than UTF-8",
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
pub fn leaves<'a>(body: &'a [u8], visit: impl FnMut(Leaf<'_, 'a>) -> bool) -> Result<(), BadXml> {
    let text = std::str::from_utf8(body).map_err(|_| BadXml::Encoding)?;
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
            Event::Decl(declaration) => {
                let encoding = declaration.encoding().transpose();
                let encoding = encoding.map_err(|_| BadXml::NotXml)?;
                if encoding.is_some_and(|name| !name.eq_ignore_ascii_case("utf-8")) {
                    return Err(BadXml::Encoding);
                }
            }
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
