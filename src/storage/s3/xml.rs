//! Parses the two documents of S3 that are needed: a page of a listing, and an error.
//!
//! A document type is refused, so the only entities are XML's own five. The depth is bounded, and callers bound the size.

use percent_encoding::percent_decode_str;
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

use crate::domain::hex;
use crate::storage::ObjectInfo;
use crate::storage::http::Page;

/// The deepest level. S3's documents have four.
const DEEPEST: usize = 16;

/// An error document.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct ErrorDocument {
    pub(super) code: String,
    pub(super) message: String,
    /// The region to sign for, if the signature was for another one.
    pub(super) region: Option<String>,
}

/// Parses a page.
///
/// # Errors
/// A fragment that says what is wrong.
pub(super) fn page(xml: &[u8]) -> Result<Page, String> {
    let (mut root, mut truncated, mut token, mut encoded) = (false, None, None, false);
    // The elements of each object that matter, and those of the object that has not ended.
    let (mut found, mut fields): (Vec<Fields>, Fields) = (Vec::new(), Vec::new());
    walk(xml, &mut |path, text| {
        match path {
            ["ListBucketResult"] => root = true,
            ["ListBucketResult", "IsTruncated"] => {
                truncated = Some(text.trim().parse().map_err(|_| format!("{:?} is neither true nor false", text.trim()))?);
            }
            ["ListBucketResult", "NextContinuationToken"] => token = Some(text.to_owned()),
            ["ListBucketResult", "EncodingType"] => encoded = text == "url",
            ["ListBucketResult", "Contents", field @ ("Key" | "Size" | "LastModified" | "ETag")] => {
                // Refused at once, because a hostile page would otherwise take many times its own size in memory.
                if fields.iter().any(|(known, _)| known == field) {
                    return Err(format!("an object has {field} twice"));
                }
                fields.push(((*field).to_owned(), text.to_owned()));
            }
            ["ListBucketResult", "Contents"] => found.push(std::mem::take(&mut fields)),
            _ => {}
        }
        Ok(())
    })?;
    let (true, Some(truncated)) = (root, truncated) else { return Err("it is not a listing of S3".to_owned()) };
    let next = match (truncated, token) {
        (false, _) => None,
        (true, Some(token)) if !token.is_empty() => Some(token),
        (true, _) => return Err("it is truncated, but has no token of the next page".to_owned()),
    };
    let objects = found.iter().map(|fields| object(fields, encoded)).collect::<Result<_, _>>()?;
    Ok(Page { objects, next })
}

/// Parses an error document; `None` if it is not one of S3.
pub(super) fn error_document(xml: &[u8]) -> Option<ErrorDocument> {
    let mut error_document = ErrorDocument::default();
    let read = walk(xml, &mut |path, text| {
        match path {
            ["Error", "Code"] => error_document.code = text.to_owned(),
            ["Error", "Message"] => error_document.message = text.to_owned(),
            ["Error", "Region"] => error_document.region = Some(text.to_owned()),
            _ => {}
        }
        Ok(())
    });
    (read.is_ok() && !error_document.code.is_empty()).then_some(error_document)
}

/// The elements of an object, by name.
type Fields = Vec<(String, String)>;

fn object(fields: &Fields, encoded: bool) -> Result<ObjectInfo, String> {
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, text)| text.as_str());
    let (Some(key), Some(size)) = (field("Key"), field("Size")) else { return Err("an object has no key or no size".to_owned()) };
    Ok(ObjectInfo {
        name: if encoded { decode(key)? } else { key.to_owned() },
        size: size.trim().parse().map_err(|_| format!("{size:?} is not a size"))?,
        modified: field("LastModified").and_then(|text| text.trim().parse().ok()),
        md5: field("ETag").and_then(digest),
    })
}

/// Parses an ETag as an MD5: 32 hexadecimal digits in quotes. The ETag of a multipart upload has a dash and is not an MD5.
pub(super) fn digest(etag: &str) -> Option<[u8; 16]> {
    hex::decode(etag.trim().trim_matches('"'))
}

/// Decodes a key as botocore does.
fn decode(key: &str) -> Result<String, String> {
    let key = key.replace('+', " ");
    percent_decode_str(&key).decode_utf8().map(String::from).map_err(|_| format!("the key {key:?} is not UTF-8"))
}

/// Receives an element: the names from the root to it, and its text.
type OnElement<'a> = dyn FnMut(&[&str], &str) -> Result<(), String> + 'a;

/// Passes every element with its text to `each` at its end, so the innermost first.
fn walk(xml: &[u8], each: &mut OnElement<'_>) -> Result<(), String> {
    let text = std::str::from_utf8(xml).map_err(|_| "it is not UTF-8".to_owned())?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<(String, String)> = Vec::new();
    loop {
        match reader.read_event().map_err(|error| format!("it is not XML ({error})"))? {
            Event::Start(start) => {
                if open.len() >= DEEPEST {
                    return Err("it is nested too deeply".to_owned());
                }
                open.push((start.local_name().as_ref().to_owned(), String::new()));
            }
            Event::Text(part) => append(&mut open, &part.xml10_content()),
            Event::CData(part) => append(&mut open, &part),
            Event::GeneralRef(name) => match name.resolve_char_ref().map_err(|error| format!("it is not XML ({error})"))? {
                Some(character) => append(&mut open, character.encode_utf8(&mut [0; 4])),
                None => append(&mut open, resolve_xml_entity(&name).ok_or("it has an entity of its own")?),
            },
            Event::End(_) => {
                let path: Vec<&str> = open.iter().map(|(name, _)| name.as_str()).collect();
                each(&path, open.last().map_or("", |(_, text)| text))?;
                open.pop();
            }
            Event::DocType(_) => return Err("it has a document type".to_owned()),
            Event::Eof if open.is_empty() => return Ok(()),
            Event::Eof => return Err("it ends too early".to_owned()),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) | Event::Empty(_) => {}
        }
    }
}

fn append(open: &mut [(String, String)], part: &str) {
    if let Some((_, text)) = open.last_mut() {
        text.push_str(part);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>p</Prefix><KeyCount>2</KeyCount>
<IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b&#61;</NextContinuationToken><EncodingType>url</EncodingType>
<Contents><Key>p%2B1+x%C3%BC</Key><LastModified>2026-11-22T15:21:43.000Z</LastModified>
<ETag>&quot;0cc175b9c0f1b6a831c399e269772661&quot;</ETag><Size>7</Size><Owner><ID>x</ID></Owner></Contents>
<Contents><Key>p2</Key><Size>0</Size><ETag>"0cc175b9c0f1b6a831c399e269772661-2"</ETag><Empty/></Contents>
</ListBucketResult>"#;

    #[test]
    fn a_page_is_parsed() {
        let page = page(PAGE.as_bytes()).unwrap();
        assert_eq!(page.next.as_deref(), Some("a&b="));
        let first = page.objects.first().unwrap();
        assert_eq!((first.name.as_str(), first.size, first.md5), ("p+1 xü", 7, hex::decode("0cc175b9c0f1b6a831c399e269772661")));
        assert_eq!(first.modified, Some("2026-11-22T15:21:43Z".parse().unwrap()));
        assert_eq!(page.objects.get(1).map(|object| (object.name.as_str(), object.md5)), Some(("p2", None)));
        let raw = PAGE.replace("<EncodingType>url</EncodingType>", "").replace("true", "false");
        let page = self::page(raw.as_bytes()).unwrap();
        assert_eq!((page.objects.first().unwrap().name.as_str(), page.next), ("p%2B1+x%C3%BC", None));
    }

    #[test]
    fn invalid_pages_are_refused() {
        for (from, to) in [
            ("ListBucketResult", "html"),
            ("<IsTruncated>true</IsTruncated>", ""),
            ("<IsTruncated>true", "<IsTruncated>maybe"),
            ("<NextContinuationToken>a&amp;b&#61;</NextContinuationToken>", ""),
            ("<Key>p2</Key>", ""),
            ("<Key>p2</Key>", "<Key>p2</Key><Key>p3</Key>"),
            ("<Size>7</Size>", "<Size>-7</Size>"),
            ("<Size>7</Size>", "<Size>99999999999999999999999</Size>"),
            ("&amp;", "&bomb;"),
            ("p%2B1+x%C3%BC", "p%FF"),
            ("</ListBucketResult>", ""),
            ("<ListBucketResult", "<!DOCTYPE x [<!ENTITY bomb \"boom\">]><ListBucketResult"),
            ("<ID>x</ID>", &format!("{}x{}", "<a>".repeat(50), "</a>".repeat(50))),
        ] {
            let xml = PAGE.replacen(from, to, if from == "ListBucketResult" { 9 } else { 1 });
            assert_ne!(xml, PAGE, "{from}");
            assert!(page(xml.as_bytes()).is_err(), "{from} -> {to}");
        }
        assert!(page(b"\xff<ListBucketResult/>").is_err());
        assert!(page(b"").is_err());
    }

    /// A hostile page must not take many times its own size in memory.
    #[test]
    fn only_the_elements_that_matter_are_kept_and_each_once() {
        let more = PAGE.replace("<Empty/>", &"<Empty/>".repeat(100));
        assert_eq!(page(more.as_bytes()), page(PAGE.as_bytes()));
        for field in ["Key", "Size", "LastModified", "ETag"] {
            let cut = format!("<ListBucketResult><Contents><{field}>1</{field}><{field}>1</{field}><");
            assert_eq!(page(cut.as_bytes()), Err(format!("an object has {field} twice")));
        }
    }

    #[test]
    fn an_error_is_parsed() {
        let xml = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region</Message><Region>eu-1</Region><X>y</X></Error>";
        let error_document = error_document(xml.as_bytes()).unwrap();
        assert_eq!((error_document.code.as_str(), error_document.region.as_deref()), ("AuthorizationHeaderMalformed", Some("eu-1")));
        for none in ["", "<html><body>Not found</body></html>", "<Error></Error>", "<Error><Code>x</Code>"] {
            assert_eq!(self::error_document(none.as_bytes()), None, "{none}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn damaged_pages_do_not_panic(at in 0..PAGE.len(), byte: u8, cut in 0..PAGE.len()) {
            let mut xml = PAGE.as_bytes().to_vec();
            if let Some(one) = xml.get_mut(at) {
                *one = byte;
            }
            let _ = page(&xml);
            xml.truncate(cut);
            prop_assert!(page(&xml).is_err(), "a truncated page is refused");
            let _ = error_document(&xml);
        }

        #[test]
        fn every_name_survives(name in "\\PC{1,40}") {
            let key = crate::storage::http::encode(&name).replace("%20", "+");
            let xml = format!(
                "<ListBucketResult><IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>\
                 <Contents><Key>{key}</Key><Size>1</Size></Contents></ListBucketResult>"
            );
            let page = page(xml.as_bytes()).unwrap();
            prop_assert_eq!(page.objects.first().map(|object| object.name.as_str()), Some(name.as_str()));
        }
    }
}
