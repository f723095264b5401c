//! `<prefix>_metadata`: the list of a backup's objects.
//!
//! Source: `cinder/backup/chunkeddriver.py` (`_write_metadata`, `_backup_chunk`): `json.dumps(..., sort_keys=True, indent=2)`
//! since Havana; `parent_id` since Kilo. Any order and spacing is accepted.

use std::io::Read;
use std::ops::ControlFlow;

use super::FormatError;
use super::json::Json;
use crate::domain::hex;

/// The compression of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// No compression.
    None,
    /// Deflate in a zlib frame; also what Cinder calls gzip.
    Zlib,
    /// bzip2.
    Bz2,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Parses a value of `compression` as Cinder's `_get_compressor` does; `None` for one that it does not know.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "none" | "off" | "no" => Self::None,
            "zlib" | "gzip" => Self::Zlib,
            "bz2" | "bzip2" => Self::Bz2,
            "zstd" => Self::Zstd,
            _ => return None,
        })
    }

    /// Returns the name for messages and for Cinder's option.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zlib => "zlib",
            Self::Bz2 => "bz2",
            Self::Zstd => "zstd",
        }
    }
}

/// An object in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEntry {
    /// Its name. Hostile text.
    pub name: String,
    /// Position in the volume, in bytes. `offset + length` does not overflow.
    pub offset: u64,
    /// Length before compression, in bytes.
    pub length: u64,
    /// Its compression.
    pub compression: Compression,
    /// MD5 of the bytes before compression.
    pub md5: [u8; 16],
}

/// The values of the file other than the objects, as far as a check needs them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetadataHead {
    /// The version of the format: "1.0.0".
    pub version: String,
    /// The backup of the file. Hostile text, like all values.
    pub backup_id: String,
    /// The volume of the backup.
    pub volume_id: String,
    /// The parent of an increment.
    pub parent_id: Option<String>,
    /// The key `parent_id` exists: the file is from Kilo or later.
    pub has_parent_key: bool,
    /// Creation time of the row in the format of a Python datetime; may be "None".
    pub created_at: Option<String>,
    /// Why a restore would fail on `volume_meta`, the name and properties that it restores after the data; `None` if it would not.
    pub volume_meta_problem: Option<String>,
    /// False if `each` broke. Then values after that position are empty.
    pub is_complete: bool,
}

/// The limit for `volume_meta`, in bytes. The properties of a volume have a few hundred KB at most.
const LONGEST_META: usize = 16 << 20;

/// Reads the list, and passes every object to `each` in the order of the file, until it breaks.
///
/// The file may be malformed after an entry that was passed on: only the result shows that it is valid.
///
/// # Errors
/// [`FormatError::Io`] if the stream fails; [`FormatError::Malformed`] for anything that Cinder does not write, and for a compression
/// that it does not know.
pub fn read(reader: impl Read, each: &mut dyn FnMut(ObjectEntry) -> ControlFlow<()>) -> Result<MetadataHead, FormatError> {
    let mut json = Json::new(reader);
    let (mut version, mut backup_id, mut volume_id, mut created_at) = (None, None, None, None);
    let mut parent_id: Option<Option<String>> = None;
    let mut objects = None;
    let mut meta: Option<Option<String>> = None;
    let mut members = json.object("an object")?;
    while let Some(key) = json.key(&mut members)? {
        match key.as_str() {
            "version" => {
                once(&json, &key, version.is_some())?;
                version = Some(json.text("a version")?);
            }
            "backup_id" => {
                once(&json, &key, backup_id.is_some())?;
                backup_id = Some(json.text("a backup's id")?);
            }
            "volume_id" => {
                once(&json, &key, volume_id.is_some())?;
                volume_id = Some(json.text("a volume's id")?);
            }
            "parent_id" => {
                once(&json, &key, parent_id.is_some())?;
                parent_id = Some(json.text_or_null("a backup's id or null")?);
            }
            "created_at" => {
                once(&json, &key, created_at.is_some())?;
                created_at = Some(json.text_or_null("a time")?);
            }
            "volume_meta" => {
                once(&json, &key, meta.is_some())?;
                let text = json.long_or_null("the volume's properties or null", LONGEST_META)?;
                // Cinder treats an empty string like null.
                meta = Some(text.filter(|text| !text.is_empty()).and_then(|text| volume_meta_problem(text.as_bytes())));
            }
            "objects" => {
                once(&json, &key, objects.is_some())?;
                objects = Some(());
                if read_objects(&mut json, each)?.is_break() {
                    return Ok(MetadataHead {
                        version: version.unwrap_or_default(),
                        backup_id: backup_id.unwrap_or_default(),
                        volume_id: volume_id.unwrap_or_default(),
                        has_parent_key: parent_id.is_some(),
                        parent_id: parent_id.flatten(),
                        created_at: created_at.flatten(),
                        volume_meta_problem: meta.flatten(),
                        is_complete: false,
                    });
                }
            }
            _ => json.skip()?,
        }
    }
    json.end()?;
    objects.ok_or_else(|| missing("objects"))?;
    Ok(MetadataHead {
        version: version.ok_or_else(|| missing("version"))?,
        backup_id: backup_id.ok_or_else(|| missing("backup_id"))?,
        volume_id: volume_id.ok_or_else(|| missing("volume_id"))?,
        has_parent_key: parent_id.is_some(),
        parent_id: parent_id.flatten(),
        created_at: created_at.flatten(),
        volume_meta_problem: meta.flatten(),
        is_complete: true,
    })
}

/// Returns why Cinder could not restore `volume_meta`, which must be a JSON document of version 1 or 2.
///
/// Source: `cinder/backup/driver.py` (`BackupMetadataAPI.put`).
fn volume_meta_problem(text: &[u8]) -> Option<String> {
    let read = || {
        let mut json = Json::new(text);
        let mut version = None;
        let mut members = json.object("an object")?;
        while let Some(key) = json.key(&mut members)? {
            if key == "version" {
                version = Some(json.number("a version")?);
            } else {
                json.skip()?;
            }
        }
        json.end()?;
        version.ok_or_else(|| missing("version"))
    };
    match read() {
        Ok(1 | 2) => None,
        Ok(version) => Some(format!("version {version}")),
        Err(FormatError::Malformed(text)) => Some(text),
        Err(FormatError::Io(error)) => Some(error.to_string()),
    }
}

pub(super) fn once<R: Read>(json: &Json<R>, key: &str, seen: bool) -> Result<(), FormatError> {
    if seen { Err(json.malformed(format_args!("duplicate key {key:?}"))) } else { Ok(()) }
}

pub(super) fn missing(key: &str) -> FormatError {
    FormatError::Malformed(format!("the key {key:?} is missing"))
}

fn read_objects<R: Read>(json: &mut Json<R>, each: &mut dyn FnMut(ObjectEntry) -> ControlFlow<()>) -> Result<ControlFlow<()>, FormatError> {
    let mut members = json.array("a list of objects")?;
    let mut number = 0_u64;
    while json.element(&mut members)? {
        number += 1;
        let entry = read_entry(json).map_err(|error| match error {
            FormatError::Malformed(text) => FormatError::Malformed(format!("entry {number}: {text}")),
            error => error,
        })?;
        if each(entry).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn read_entry<R: Read>(json: &mut Json<R>) -> Result<ObjectEntry, FormatError> {
    let mut outer = json.object("an object with one name")?;
    let Some(name) = json.key(&mut outer)? else {
        return Err(json.malformed("no name"));
    };
    let (mut offset, mut length, mut compression, mut md5) = (None, None, None, None);
    let mut inner = json.object("the values of an object")?;
    while let Some(key) = json.key(&mut inner)? {
        match key.as_str() {
            "offset" => {
                once(json, &key, offset.is_some())?;
                offset = Some(json.number("the offset")?);
            }
            "length" => {
                once(json, &key, length.is_some())?;
                length = Some(json.number("the length")?);
            }
            "compression" => {
                once(json, &key, compression.is_some())?;
                let word = json.text("a compression")?;
                let known = Compression::of(&word);
                compression = Some(known.ok_or_else(|| {
                    let shown: String = word.chars().take(40).collect();
                    json.malformed(format_args!("the compression {shown:?}, which Cinder does not know,"))
                })?);
            }
            "md5" => {
                once(json, &key, md5.is_some())?;
                let digits = json.text("an MD5")?;
                md5 = Some(hex::decode(&digits).ok_or_else(|| json.malformed("an MD5 that is not 32 hexadecimal digits"))?);
            }
            _ => json.skip()?,
        }
    }
    if json.key(&mut outer)?.is_some() {
        return Err(json.malformed("more than one name"));
    }
    let offset = offset.ok_or_else(|| missing("offset"))?;
    let length = length.ok_or_else(|| missing("length"))?;
    if offset.checked_add(length).is_none() {
        return Err(json.malformed("an object that ends beyond 2^64 bytes"));
    }
    Ok(ObjectEntry {
        name,
        offset,
        length,
        compression: compression.ok_or_else(|| missing("compression"))?,
        md5: md5.ok_or_else(|| missing("md5"))?,
    })
}
