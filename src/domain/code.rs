//! Machine-readable codes: one table a set, with the string in JSON, the meaning and what to do.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is known of one code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeEntry {
    /// The string in JSON. It never changes.
    pub code: &'static str,
    /// What it means, in full sentences.
    pub meaning: &'static str,
    /// What the operator does about it, in full sentences.
    pub action: &'static str,
}

/// A set of codes, declared with [`codes!`](crate::domain::code::codes).
pub trait CodeSet: Copy + Eq + fmt::Debug + 'static {
    /// All codes of the set.
    const ALL: &'static [Self];

    /// The code's row of the table.
    fn entry(self) -> CodeEntry;

    /// The string in JSON.
    fn as_str(self) -> &'static str {
        self.entry().code
    }
}

/// Declares an enum of codes. Each row has the variant, the string in JSON, the meaning and what to do.
macro_rules! codes {
    ($(#[$doc:meta])* $set:ident { $($variant:ident = $code:literal, $meaning:literal, $action:expr;)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $set {
            $(#[doc = $meaning] $variant,)+
        }

        impl $crate::domain::CodeSet for $set {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn entry(self) -> $crate::domain::CodeEntry {
                match self {
                    $(Self::$variant => $crate::domain::CodeEntry { code: $code, meaning: $meaning, action: $action },)+
                }
            }
        }
    };
}
pub(crate) use codes;

/// A code in a document. A code of another version is kept as it is, and equals no code of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code<S> {
    /// A code of this version.
    Known(S),
    /// A code of another version.
    Unknown(String),
}

impl<S: CodeSet> Code<S> {
    /// The string in JSON.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(code) => code.as_str(),
            Self::Unknown(code) => code,
        }
    }

    /// The code, if this version has it.
    pub fn known(&self) -> Option<S> {
        match self {
            Self::Known(code) => Some(*code),
            Self::Unknown(_) => None,
        }
    }
}

impl<S: CodeSet> From<S> for Code<S> {
    fn from(code: S) -> Self {
        Self::Known(code)
    }
}

impl<S: CodeSet> PartialEq<S> for Code<S> {
    fn eq(&self, other: &S) -> bool {
        self.known() == Some(*other)
    }
}

impl<S: CodeSet> fmt::Display for Code<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Any text: a document may hold codes of another version.
impl<S> JsonSchema for Code<S> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Code".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

impl<S: CodeSet> Serialize for Code<S> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, S: CodeSet> Deserialize<'de> for Code<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = S::ALL.iter().find(|code| code.as_str() == text);
        Ok(known.map_or(Self::Unknown(text), |code| Self::Known(*code)))
    }
}
