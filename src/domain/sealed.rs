//! Sealed documents: a head that names the schema, a body, and a SHA-256 over both that shows an edit.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufReader, Cursor, Read, Seek};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error as ThisError;

use super::{Signature, digest};

/// The fields of a sealed document between its head and its digest. A field that the type does not have must be an error.
pub trait Body: Serialize + DeserializeOwned {
    /// The name of the schema.
    const SCHEMA: &'static str;
    /// The version that this program writes, and the latest that it reads.
    const SCHEMA_VERSION: u32;
    /// What the document is, for an error that says that another file is not one.
    const KIND: &'static str;
    /// What to do instead of an edit.
    const INSTEAD: &'static str;

    /// Says why the body is not consistent. Anybody can compute a digest.
    ///
    /// # Errors
    /// What is not consistent, in words.
    fn validate(&self) -> Result<(), String>;
}

/// Why a sealed document cannot be used; displayed as a fragment that follows the file's name.
#[derive(Debug, ThisError, PartialEq, Eq)]
pub enum SealError {
    /// It is another document, or not consistent.
    #[error("is not {kind}: {problem}")]
    Invalid {
        /// What it should be.
        kind: &'static str,
        /// Why it is not that.
        problem: String,
    },
    /// A later version wrote it.
    #[error("has schema version {0}, which is newer than this program; use the version that wrote it")]
    Newer(u32),
    /// Its digest does not match.
    #[error("was edited after it was written: its SHA-256 does not match; {0}")]
    Edited(&'static str),
}

/// A document with its digest and, if it is signed, its signature. After a change of the body, [`Sealed::seal`] is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed<B> {
    /// The version of the schema.
    pub schema_version: u32,
    /// The fields between head and digest.
    pub body: B,
    /// SHA-256, in hex, over the compact JSON with this field empty and without the signature. White space in a file does not count.
    pub sha256: String,
    /// The signature, if it is signed.
    pub signature: Option<Signature>,
}

impl<B: Body> Sealed<B> {
    /// Seals a body.
    pub fn new(body: B) -> Self {
        let mut sealed = Self::unsealed(body);
        sealed.seal();
        sealed
    }

    /// A document without a digest: [`Self::try_seal`] is due before it is written.
    pub fn unsealed(body: B) -> Self {
        Self { schema_version: B::SCHEMA_VERSION, body, sha256: String::new(), signature: None }
    }

    /// Writes the digest, and removes the signature, which is of another document.
    pub fn seal(&mut self) {
        self.signature = None;
        self.sha256 = digest::of_json(&self.fields("", None));
    }

    /// The same for a body that is read from a file while it is written.
    ///
    /// # Errors
    /// Those of reading the body.
    pub fn try_seal(&mut self) -> io::Result<()> {
        self.signature = None;
        self.sha256 = self.digest()?;
        Ok(())
    }

    fn digest(&self) -> io::Result<String> {
        digest::try_of_json(&self.fields("", None))
    }

    fn fields<'s>(&'s self, sha256: &'s str, signature: Option<&'s Signature>) -> Fields<'s, B> {
        Fields { schema: B::SCHEMA, schema_version: self.schema_version, body: &self.body, sha256, signature }
    }

    /// Reads a document, and makes sure that it was not edited.
    ///
    /// # Errors
    /// Another document, one of a later version, and one that was edited or is not consistent.
    pub fn parse(text: &[u8]) -> Result<Self, SealError> {
        Self::read(&mut Cursor::new(text))
    }

    /// The same from a file, which is read twice.
    ///
    /// # Errors
    /// Those of [`Self::parse`].
    pub fn read(file: &mut (impl Read + Seek)) -> Result<Self, SealError> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
            schema_version: u32,
        }
        let head: Head = serde_json::from_reader(BufReader::new(&mut *file)).map_err(Self::invalid)?;
        if head.schema != B::SCHEMA {
            return Err(Self::invalid(format!("its schema is {:?}", head.schema)));
        }
        if head.schema_version > B::SCHEMA_VERSION {
            return Err(SealError::Newer(head.schema_version));
        }
        // The file may have changed since the first reading. The digest is verified over what is read now.
        file.rewind().map_err(Self::invalid)?;
        let document: Self = serde_json::from_reader(BufReader::new(file)).map_err(Self::invalid)?;
        if document.digest().map_err(Self::invalid)? != document.sha256 {
            return Err(SealError::Edited(B::INSTEAD));
        }
        document.body.validate().map_err(Self::invalid)?;
        Ok(document)
    }

    /// The error for a text that is not such a document.
    pub fn invalid(problem: impl fmt::Display) -> SealError {
        SealError::Invalid { kind: B::KIND, problem: problem.to_string() }
    }
}

impl<B> Deref for Sealed<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.body
    }
}

impl<B> DerefMut for Sealed<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.body
    }
}

/// The fields in their order.
#[derive(Serialize, JsonSchema)]
struct Fields<'s, B> {
    schema: &'static str,
    schema_version: u32,
    #[serde(flatten)]
    body: &'s B,
    sha256: &'s str,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<&'s Signature>,
}

impl<B: Body> Serialize for Sealed<B> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.fields(&self.sha256, self.signature.as_ref()).serialize(serializer)
    }
}

impl<B: JsonSchema> JsonSchema for Sealed<B> {
    fn schema_name() -> Cow<'static, str> {
        B::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Fields::<B>::json_schema(generator)
    }
}

// `#[serde(flatten)]` would hold the whole document in memory once more, and take fields that nobody knows.
impl<'de, B: Body> Deserialize<'de> for Sealed<B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Document<B>(PhantomData<B>);

        impl<'de, B: Body> Visitor<'de> for Document<B> {
            type Value = Sealed<B>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(B::KIND)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Sealed<B>, A::Error> {
                let mut frame = Frame::default();
                let body = B::deserialize(MapAccessDeserializer::new(BodyFields { map, frame: &mut frame }))?;
                frame.schema.ok_or_else(|| Error::missing_field("schema"))?;
                let schema_version = frame.schema_version.ok_or_else(|| Error::missing_field("schema_version"))?;
                let sha256 = frame.sha256.ok_or_else(|| Error::missing_field("sha256"))?;
                Ok(Sealed { schema_version, body, sha256, signature: frame.signature.flatten() })
            }
        }
        deserializer.deserialize_map(Document(PhantomData))
    }
}

/// The fields of the head and the seal.
#[derive(Default)]
struct Frame {
    schema: Option<String>,
    schema_version: Option<u32>,
    sha256: Option<String>,
    signature: Option<Option<Signature>>,
}

/// The fields of a document's body; those of its frame are taken out on the way.
struct BodyFields<'f, A> {
    map: A,
    frame: &'f mut Frame,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for BodyFields<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Self { map, frame } = self;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "schema" => take(map, &mut frame.schema, "schema")?,
                "schema_version" => take(map, &mut frame.schema_version, "schema_version")?,
                "sha256" => take(map, &mut frame.sha256, "sha256")?,
                "signature" => take(map, &mut frame.signature, "signature")?,
                _ => return seed.deserialize(key.into_deserializer()).map(Some),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

fn take<'de, A: MapAccess<'de>, V: Deserialize<'de>>(map: &mut A, field: &mut Option<V>, name: &'static str) -> Result<(), A::Error> {
    match field.replace(map.next_value()?) {
        Some(_) => Err(Error::duplicate_field(name)),
        None => Ok(()),
    }
}
