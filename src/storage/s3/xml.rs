//! Parses the two documents of S3 that are needed: a page of a listing, and an error.
//!
//! The only entities are XML's own five, elements that are not needed are skipped without recursion, and callers bound the size.

use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::domain::hex;
use crate::storage::ObjectInfo;
use crate::storage::http::Page;

/// A document, by the name of its root.
#[derive(Deserialize)]
enum Document {
    ListBucketResult(Listing),
    Error(ErrorDocument),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    is_truncated: bool,
    next_continuation_token: Option<String>,
    encoding_type: Option<String>,
    #[serde(default)]
    contents: Vec<Object>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Object {
    key: String,
    size: u64,
    last_modified: Option<String>,
    #[serde(rename = "ETag")]
    etag: Option<String>,
}

/// An error document.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
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
    let Document::ListBucketResult(listing) = document(xml)? else { return Err("it is not a listing of S3".to_owned()) };
    let next = listing.next_continuation_token.filter(|token| listing.is_truncated && !token.is_empty());
    if listing.is_truncated && next.is_none() {
        return Err("it is truncated, but has no token of the next page".to_owned());
    }
    let is_encoded = listing.encoding_type.as_deref() == Some("url");
    let object = |Object { key, size, last_modified, etag }| -> Result<ObjectInfo, String> {
        let name = if is_encoded { decode(&key)? } else { key };
        let modified = last_modified.and_then(|text| text.trim().parse().ok());
        Ok(ObjectInfo { name, size, modified, md5: etag.as_deref().and_then(digest) })
    };
    Ok(Page { objects: listing.contents.into_iter().map(object).collect::<Result<_, _>>()?, next })
}

/// Parses an error document; `None` if it is not one of S3.
pub(super) fn error_document(xml: &[u8]) -> Option<ErrorDocument> {
    match document(xml) {
        Ok(Document::Error(error)) if !error.code.is_empty() => Some(error),
        _ => None,
    }
}

fn document(xml: &[u8]) -> Result<Document, String> {
    let text = std::str::from_utf8(xml).map_err(|_| "it is not UTF-8".to_owned())?;
    if text.contains("<!DOCTYPE") {
        return Err("it has a document type".to_owned());
    }
    quick_xml::de::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| format!("it is not a document of S3 ({error})"))
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
        let deep = format!("{}x{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
        for more in ["<Empty/>".repeat(100), deep] {
            assert_eq!(page(PAGE.replace("<Empty/>", &more).as_bytes()), page(PAGE.as_bytes()));
        }
        for field in ["Key", "Size", "LastModified", "ETag"] {
            let cut = format!("<ListBucketResult><Contents><{field}>1</{field}><{field}>1</{field}><");
            let error = page(cut.as_bytes()).unwrap_err();
            assert!(error.contains(&format!("duplicate field `{field}`")), "{error}");
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
