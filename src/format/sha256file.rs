//! `<prefix>_sha256file`: the digest of every block of the whole volume, also in an incremental backup.
//!
//! Source: `cinder/backup/chunkeddriver.py` (`_write_sha256file`, `_calculate_sha`). A volume of 10 TiB has 335 million blocks, so
//! this file has 23 GB. Its keys are sorted, and the version and the volume follow the digests. [`outline`] reads only the two ends.

use std::io::Read;
use std::ops::{ControlFlow, Range};

use super::FormatError;
use super::json::Json;
use super::metadata::missing;

/// The values of the file other than the digests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sha256Head {
    /// The version of the format: "1.0.0".
    pub version: String,
    /// The backup of the file. Hostile text, like all values.
    pub backup_id: String,
    /// The volume of the backup.
    pub volume_id: String,
    /// Bytes of the volume in a block. The last block may be shorter. Never 0.
    pub block_size: u64,
}

/// Reads the whole file, and passes every digest to `each` in the order of the volume. If `each` breaks, reading ends and all values are empty.
///
/// # Errors
/// [`FormatError::Io`] if the stream fails; [`FormatError::Malformed`] for anything that Cinder does not write.
pub fn read_hashes(reader: impl Read, each: &mut dyn FnMut([u8; 32]) -> ControlFlow<()>) -> Result<Sha256Head, FormatError> {
    let mut parts = HeadParts::default();
    let mut read_all = None;
    let mut json = Json::new(reader);
    let mut members = json.object("an object")?;
    while let Some(key) = json.key(&mut members)? {
        if key == "sha256s" {
            json.once(&key, &mut read_all, |json| {
                let mut hashes = json.array("a list of digests")?;
                while json.element(&mut hashes)? {
                    if each(json.hash("a SHA-256")?).is_break() {
                        return Ok(false);
                    }
                }
                Ok(true)
            })?;
            if read_all == Some(false) {
                return Ok(Sha256Head::default());
            }
        } else {
            parts.take(&mut json, &key)?;
        }
    }
    json.end()?;
    read_all.ok_or_else(|| missing("sha256s"))?;
    parts.head()
}

/// The values of the file, and the number of digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// The values other than the digests.
    pub head: Sha256Head,
    /// The number of digests.
    pub hashes: u64,
}

/// How many bytes of either end are read.
const END: u64 = 64 * 1024;
/// The length of a digest after the first one in the file, `,\n    "…"`, in bytes. Python 2 wrote a space after the comma.
const SPACINGS: [u64; 2] = [72, 73];

/// Reads the outline of a file of `size` bytes. If its layout is Cinder's only the two ends are read, otherwise the whole file.
/// `open` opens a range of the file.
///
/// # Errors
/// As for [`read_hashes`], and those of `open`.
pub fn outline<R: Read>(size: u64, open: &mut dyn FnMut(Range<u64>) -> Result<R, FormatError>) -> Result<Outline, FormatError> {
    if size > 2 * END {
        let mut first = Vec::new();
        open(0..END)?.take(END).read_to_end(&mut first).map_err(FormatError::Io)?;
        let mut last = Vec::new();
        open(size - END..size)?.take(END).read_to_end(&mut last).map_err(FormatError::Io)?;
        if let Some(outline) = from_ends(size, &first, &last) {
            return Ok(outline);
        }
    }
    count(open(0..size)?)
}

/// Reads the outline from the whole file.
///
/// # Errors
/// As for [`read_hashes`].
pub fn count(reader: impl Read) -> Result<Outline, FormatError> {
    let mut hashes = 0;
    let head = read_hashes(reader, &mut |_| {
        hashes += 1;
        ControlFlow::Continue(())
    })?;
    Ok(Outline { head, hashes })
}

/// Returns the outline from the first and the last bytes of a file; `None` if its layout is not Cinder's.
fn from_ends(size: u64, first: &[u8], last: &[u8]) -> Option<Outline> {
    let mut parts = HeadParts::default();
    // Up to the second digest, which gives the distance between digests.
    let mut json = Json::new(first);
    let mut members = json.object("").ok()?;
    loop {
        let key = json.key(&mut members).ok()??;
        if key == "sha256s" {
            break;
        }
        parts.take(&mut json, &key).ok()?;
    }
    let mut hashes = json.array("").ok()?;
    json.element(&mut hashes).ok()?.then_some(())?;
    json.hash("").ok()?;
    let first_ends = json.at();
    json.element(&mut hashes).ok()?.then_some(())?;
    json.hash("").ok()?;
    let spacing = json.at().checked_sub(first_ends).filter(|spacing| SPACINGS.contains(spacing))?;
    // From the last digest on. There is no bracket before the end of the digests.
    let bracket = last.iter().position(|byte| *byte == b']')?;
    let (digests, rest) = last.split_at_checked(bracket)?;
    let quote = digests.iter().rposition(|byte| *byte == b'"')?;
    let is_digests = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'"' | b',' | b' ' | b'\n');
    if !digests.iter().all(is_digests) {
        return None;
    }
    // The keys after the digests, parsed as an object: `{"sha256s":[` is put before the bracket.
    let mut json = Json::new(br#"{"sha256s":["#.chain(rest));
    let mut members = json.object("").ok()?;
    json.key(&mut members).ok()?;
    let mut none = json.array("").ok()?;
    if json.element(&mut none).ok()? {
        return None;
    }
    while let Some(key) = json.key(&mut members).ok()? {
        if key == "sha256s" {
            return None;
        }
        parts.take(&mut json, &key).ok()?;
    }
    json.end().ok()?;
    // If the distance from the first to the last digest is a multiple of that between two, there are only digests in between.
    let last_ends = size.checked_sub(last.len() as u64)?.checked_add(quote as u64)?.checked_add(1)?;
    let between = last_ends.checked_sub(first_ends)?;
    if !between.is_multiple_of(spacing) {
        return None;
    }
    Some(Outline { head: parts.head().ok()?, hashes: between / spacing + 1 })
}

#[derive(Default)]
struct HeadParts {
    version: Option<String>,
    backup_id: Option<String>,
    volume_id: Option<String>,
    block_size: Option<u64>,
}

impl HeadParts {
    /// Reads the value of a known key, and skips that of another.
    fn take<R: Read>(&mut self, json: &mut Json<R>, key: &str) -> Result<(), FormatError> {
        match key {
            "version" => json.once(key, &mut self.version, |json| json.text("a version")),
            "backup_id" => json.once(key, &mut self.backup_id, |json| json.text("a backup's id")),
            "volume_id" => json.once(key, &mut self.volume_id, |json| json.text("a volume's id")),
            "chunk_size" => json.once(key, &mut self.block_size, |json| match json.number("the size of a block")? {
                0 => Err(json.malformed("a block size of 0")),
                size => Ok(size),
            }),
            _ => json.skip(),
        }
    }

    fn head(self) -> Result<Sha256Head, FormatError> {
        Ok(Sha256Head {
            version: self.version.ok_or_else(|| missing("version"))?,
            backup_id: self.backup_id.ok_or_else(|| missing("backup_id"))?,
            volume_id: self.volume_id.ok_or_else(|| missing("volume_id"))?,
            block_size: self.block_size.ok_or_else(|| missing("chunk_size"))?,
        })
    }
}
