//! `<prefix>_sha256file`: the digest of every block of the whole volume, in incremental backups too.
//!
//! Source: `cinder/backup/chunkeddriver.py` (`_write_sha256file`, `_calculate_sha`). A volume of 10 TiB has 335 million
//! blocks, 23 GB of this file, and with its keys in order the version and the volume stand behind them: [`outline`]
//! asks for the two ends only.

use std::io::Read;
use std::ops::{ControlFlow, Range};

use super::FormatError;
use super::json::Json;
use super::metadata::{missing, once};

/// The rest of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    /// The version of the format: "1.0.0".
    pub version: String,
    /// The backup that this belongs to. Hostile text, as all of these.
    pub backup_id: String,
    /// The volume that was read.
    pub volume_id: String,
    /// Bytes of the volume that one digest stands for; the last block may be shorter. Never 0.
    pub block_size: u64,
    /// False where `each` broke off: then only what stood before is known, and the rest is empty or 0.
    pub complete: bool,
}

/// Reads what there is beside the digests, and stops as soon as all of it is known. The digests are passed over, and
/// what stands behind the last key that was needed is not looked at.
///
/// In files as Cinder writes them two keys stand behind the digests, so this goes through nearly all: see [`outline`].
///
/// # Errors
/// As for [`read_hashes`].
pub fn read_head(reader: impl Read) -> Result<Head, FormatError> {
    let mut parts = Parts::default();
    let mut json = Json::new(reader);
    let mut members = json.object("an object")?;
    while let Some(key) = json.key(&mut members)? {
        if !parts.take(&mut json, &key)? {
            json.skip()?;
        }
        if parts.all() {
            return parts.head();
        }
    }
    json.end()?;
    parts.head()
}

/// Reads the whole file, and gives every digest to `each` in the order of the volume, until all are given or `each` breaks.
///
/// # Errors
/// [`FormatError::Io`] where the stream fails; [`FormatError::Malformed`] for anything that Cinder would not have written.
pub fn read_hashes(reader: impl Read, each: &mut dyn FnMut([u8; 32]) -> ControlFlow<()>) -> Result<Head, FormatError> {
    let mut parts = Parts::default();
    let mut seen = false;
    let mut json = Json::new(reader);
    let mut members = json.object("an object")?;
    while let Some(key) = json.key(&mut members)? {
        if key == "sha256s" {
            once(&json, &key, seen)?;
            seen = true;
            let mut hashes = json.array("a list of digests")?;
            while json.element(&mut hashes)? {
                let hash = json.hash("a SHA-256")?;
                if each(hash).is_break() {
                    return Ok(parts.so_far());
                }
            }
        } else if !parts.take(&mut json, &key)? {
            json.skip()?;
        }
    }
    json.end()?;
    if !seen {
        return Err(missing("sha256s"));
    }
    parts.head()
}

/// What can be known of the file without reading the digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// All but the digests.
    pub head: Head,
    /// How many digests there are.
    pub hashes: u64,
}

/// So much is read of either end.
const END: u64 = 64 * 1024;
/// What Cinder writes for a digest after the first one, `,\n    "…"`, in bytes; Python 2 put a space behind the comma.
const SPACINGS: [u64; 2] = [72, 73];

/// What can be known of a file of `size` bytes without reading the digests: where it is as Cinder writes it only its two
/// ends are read, otherwise all of it. `open` gives the bytes of a part of the file.
///
/// # Errors
/// As for [`read_hashes`]; what `open` answers goes through.
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
    let mut hashes = 0_u64;
    let head = read_hashes(open(0..size)?, &mut |_| {
        hashes += 1;
        ControlFlow::Continue(())
    })?;
    Ok(Outline { head, hashes })
}

/// The outline from the first and the last bytes of a file as Cinder writes it; `None` where it is not such a file.
fn from_ends(size: u64, first: &[u8], last: &[u8]) -> Option<Outline> {
    let mut parts = Parts::default();
    // Up to the first digest, and what stands between the first and the second.
    let mut json = Json::new(first);
    let mut members = json.object("").ok()?;
    loop {
        let key = json.key(&mut members).ok()??;
        if key == "sha256s" {
            break;
        }
        if !parts.take(&mut json, &key).ok()? {
            json.skip().ok()?;
        }
    }
    let mut hashes = json.array("").ok()?;
    json.element(&mut hashes).ok()?.then_some(())?;
    json.hash("").ok()?;
    let first_ends = json.at();
    json.element(&mut hashes).ok()?.then_some(())?;
    json.hash("").ok()?;
    let spacing = json.at().checked_sub(first_ends).filter(|spacing| SPACINGS.contains(spacing))?;
    // From the last digest on: the digests and what is between them hold no bracket.
    let bracket = last.iter().position(|byte| *byte == b']')?;
    let (digests, rest) = last.split_at_checked(bracket)?;
    let quote = digests.iter().rposition(|byte| *byte == b'"')?;
    let is_digests = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'"' | b',' | b' ' | b'\n');
    if !digests.iter().all(is_digests) {
        return None;
    }
    // What is behind the digests, as an object of its own: `{"sha256s":[` in front of the bracket.
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
        if !parts.take(&mut json, &key).ok()? {
            json.skip().ok()?;
        }
    }
    json.end().ok()?;
    // Between the end of the first digest and that of the last there is nothing but digests, if it divides without a rest.
    let last_ends = size.checked_sub(last.len() as u64)?.checked_add(quote as u64)?.checked_add(1)?;
    let between = last_ends.checked_sub(first_ends)?;
    if !between.is_multiple_of(spacing) {
        return None;
    }
    Some(Outline { head: parts.head().ok()?, hashes: between / spacing + 1 })
}

#[derive(Default)]
struct Parts {
    version: Option<String>,
    backup_id: Option<String>,
    volume_id: Option<String>,
    block_size: Option<u64>,
}

impl Parts {
    /// Takes the value of a key that is needed; false for any other, whose value is still to come.
    fn take<R: Read>(&mut self, json: &mut Json<R>, key: &str) -> Result<bool, FormatError> {
        let (text, what) = match key {
            "version" => (&mut self.version, "a version"),
            "backup_id" => (&mut self.backup_id, "a backup's id"),
            "volume_id" => (&mut self.volume_id, "a volume's id"),
            "chunk_size" => {
                once(json, key, self.block_size.is_some())?;
                let size = json.number("the size of a block")?;
                if size == 0 {
                    return Err(json.wrong("blocks of no bytes"));
                }
                self.block_size = Some(size);
                return Ok(true);
            }
            _ => return Ok(false),
        };
        once(json, key, text.is_some())?;
        *text = Some(json.text(what)?);
        Ok(true)
    }

    fn all(&self) -> bool {
        self.version.is_some() && self.backup_id.is_some() && self.volume_id.is_some() && self.block_size.is_some()
    }

    fn head(self) -> Result<Head, FormatError> {
        Ok(Head {
            version: self.version.ok_or_else(|| missing("version"))?,
            backup_id: self.backup_id.ok_or_else(|| missing("backup_id"))?,
            volume_id: self.volume_id.ok_or_else(|| missing("volume_id"))?,
            block_size: self.block_size.ok_or_else(|| missing("chunk_size"))?,
            complete: true,
        })
    }

    fn so_far(self) -> Head {
        Head {
            version: self.version.unwrap_or_default(),
            backup_id: self.backup_id.unwrap_or_default(),
            volume_id: self.volume_id.unwrap_or_default(),
            block_size: self.block_size.unwrap_or_default(),
            complete: false,
        }
    }
}
