//! `<prefix>_metadata`: the list of a backup's objects.
//!
//! Source: `cinder/backup/chunkeddriver.py` (`_write_metadata`, `_backup_chunk`): `json.dumps(..., sort_keys=True, indent=2)`
//! since Havana; `parent_id` since Kilo. Any order and spacing is accepted.

use std::io::Read;
use std::ops::ControlFlow;

use serde::Deserialize;

use super::FormatError;
use super::json::{Json, LONGEST};
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
}

/// The limit for `volume_meta`, in bytes. The properties of a volume have a few hundred KB at most.
const LONGEST_META: usize = 16 << 20;

/// Reads the list, and passes every object to `each` in the order of the file. If `each` breaks, reading ends and all values are empty.
///
/// The file may be malformed after an entry that was passed on: only the result shows that it is valid.
///
/// # Errors
/// [`FormatError::Io`] if the stream fails; [`FormatError::Malformed`] for anything that Cinder does not write, and for a compression
/// that it does not know.
pub fn read(reader: impl Read, each: &mut dyn FnMut(ObjectEntry) -> ControlFlow<()>) -> Result<MetadataHead, FormatError> {
    let mut json = Json::new(reader);
    let (mut version, mut backup_id, mut volume_id, mut objects) = (None, None, None, None);
    let (mut parent_id, mut created_at, mut volume_meta) = (None, None, None);
    let mut members = json.object("an object")?;
    while let Some(key) = json.key(&mut members)? {
        match key.as_str() {
            "version" => json.once(&key, &mut version, |json| json.text("a version"))?,
            "backup_id" => json.once(&key, &mut backup_id, |json| json.text("a backup's id"))?,
            "volume_id" => json.once(&key, &mut volume_id, |json| json.text("a volume's id"))?,
            "parent_id" => json.once(&key, &mut parent_id, |json| json.text_or_null("a backup's id or null", LONGEST))?,
            "created_at" => json.once(&key, &mut created_at, |json| json.text_or_null("a time", LONGEST))?,
            "volume_meta" => {
                json.once(&key, &mut volume_meta, |json| json.text_or_null("the volume's properties or null", LONGEST_META))?;
            }
            "objects" => {
                json.once(&key, &mut objects, |json| read_objects(json, each))?;
                if objects == Some(false) {
                    return Ok(MetadataHead::default());
                }
            }
            _ => json.skip()?,
        }
    }
    json.end()?;
    objects.ok_or_else(|| missing("objects"))?;
    // Cinder treats an empty string like null.
    let volume_meta = volume_meta.flatten().filter(|text| !text.is_empty());
    Ok(MetadataHead {
        version: version.ok_or_else(|| missing("version"))?,
        backup_id: backup_id.ok_or_else(|| missing("backup_id"))?,
        volume_id: volume_id.ok_or_else(|| missing("volume_id"))?,
        has_parent_key: parent_id.is_some(),
        parent_id: parent_id.flatten(),
        created_at: created_at.flatten(),
        volume_meta_problem: volume_meta.and_then(|text| volume_meta_problem(text.as_bytes())),
    })
}

/// What the file says of a backup beside its objects: what a record for an import needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// `display_name` when the backup was made. Hostile text, like all values.
    pub name: Option<String>,
    /// `display_description` when the backup was made.
    pub description: Option<String>,
    /// The parent of an increment.
    pub parent_id: Option<String>,
    /// Creation time of the row in the format of a Python datetime; may be "None".
    pub created_at: Option<String>,
    /// The volume; `None` if `volume_meta` does not describe it.
    pub volume: Option<VolumeFacts>,
}

/// The volume as `volume_meta` describes it. The driver reads it at the end of the backup.
///
/// Source: `cinder/backup/driver.py` (`_save_vol_base_meta`): the columns of the row in `volumes`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct VolumeFacts {
    /// GiB.
    pub size: Option<i64>,
    /// The owner of the volume.
    pub project_id: Option<String>,
    /// The type of the volume.
    pub volume_type_id: Option<String>,
    /// The key of an encrypted volume. The backup has a copy of the key, with another id.
    pub encryption_key_id: Option<String>,
}

/// The part of `volume_meta` with the columns.
#[derive(Deserialize)]
struct VolumeMeta {
    #[serde(rename = "volume-base-metadata")]
    base: VolumeFacts,
}

/// Reads the description and skips the objects. Unlike [`read`] it refuses a name that is not valid Unicode.
///
/// # Errors
/// As for [`read`].
pub fn describe(reader: impl Read) -> Result<Description, FormatError> {
    let mut json = Json::new(reader);
    let (mut name, mut description, mut parent_id, mut created_at, mut volume_meta) = (None, None, None, None, None);
    let mut members = json.object("an object")?;
    while let Some(key) = json.key(&mut members)? {
        let (value, longest) = match key.as_str() {
            "backup_name" => (&mut name, LONGEST),
            "backup_description" => (&mut description, LONGEST),
            "parent_id" => (&mut parent_id, LONGEST),
            "created_at" => (&mut created_at, LONGEST),
            "volume_meta" => (&mut volume_meta, LONGEST_META),
            _ => {
                json.skip()?;
                continue;
            }
        };
        json.once(&key, value, |json| json.text_or_null("a text or null", longest))?;
    }
    json.end()?;
    let volume_meta: Option<String> = volume_meta.flatten();
    Ok(Description {
        name: name.flatten(),
        description: description.flatten(),
        parent_id: parent_id.flatten(),
        created_at: created_at.flatten(),
        volume: volume_meta.and_then(|text| Some(serde_json::from_str::<VolumeMeta>(&text).ok()?.base)),
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
        Err(error) => Some(error.to_string()),
    }
}

pub(super) fn missing(key: &str) -> FormatError {
    FormatError::Malformed(format!("the key {key:?} is missing"))
}

/// Returns whether the list was read to its end.
fn read_objects<R: Read>(json: &mut Json<R>, each: &mut dyn FnMut(ObjectEntry) -> ControlFlow<()>) -> Result<bool, FormatError> {
    let mut members = json.array("a list of objects")?;
    let mut number = 0_u64;
    while json.element(&mut members)? {
        number += 1;
        let entry = read_entry(json).map_err(|error| match error {
            FormatError::Malformed(text) => FormatError::Malformed(format!("entry {number}: {text}")),
            error => error,
        })?;
        if each(entry).is_break() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn read_entry<R: Read>(json: &mut Json<R>) -> Result<ObjectEntry, FormatError> {
    let mut outer = json.object("an object with one name")?;
    let name = json.key(&mut outer)?.ok_or_else(|| json.malformed("no name"))?;
    let (mut offset, mut length, mut compression, mut md5) = (None, None, None, None);
    let mut inner = json.object("the values of an object")?;
    while let Some(key) = json.key(&mut inner)? {
        match key.as_str() {
            "offset" => json.once(&key, &mut offset, |json| json.number("the offset"))?,
            "length" => json.once(&key, &mut length, |json| json.number("the length"))?,
            "compression" => json.once(&key, &mut compression, |json| {
                let word = json.text("a compression")?;
                Compression::of(&word).ok_or_else(|| {
                    let shown: String = word.chars().take(40).collect();
                    json.malformed(format_args!("the compression {shown:?}, which Cinder does not know,"))
                })
            })?,
            "md5" => json.once(&key, &mut md5, |json| {
                let digits = json.text("an MD5")?;
                hex::decode(&digits).ok_or_else(|| json.malformed("an MD5 that is not 32 hexadecimal digits"))
            })?,
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
