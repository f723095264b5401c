//! Files that a command writes beside its result.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Error, Exit, Result};

/// New files, readable only by their owner. Without [`NewFiles::keep`] all of them are removed again.
pub struct NewFiles<'a> {
    files: Vec<(&'a Path, File)>,
    filled: usize,
    kept: bool,
}

impl<'a> NewFiles<'a> {
    /// Creates all of them, so that a name that cannot be used is reported before anything is written.
    pub fn create(paths: impl Iterator<Item = &'a PathBuf>) -> Result<Self> {
        let mut new = Self { files: Vec::new(), filled: 0, kept: false };
        for path in paths {
            let shown = path.display();
            if path == Path::new("-") {
                return Err(Error::usage("- is not standard output here: name a file, or omit it and use --format json"));
            }
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists if new.files.iter().any(|(other, _)| *other == path) => {
                    Error::usage(format!("{shown} is named twice: name another file for each --out and --report"))
                }
                ErrorKind::AlreadyExists => {
                    Error::usage(format!("{shown} exists already and is not overwritten: use another name or remove it"))
                }
                ErrorKind::NotFound => Error::usage(format!("cannot write {shown}: its directory does not exist")),
                _ => Error::usage(format!("cannot write {shown}: {error}")),
            })?;
            new.files.push((path, file));
        }
        Ok(new)
    }

    /// Fills the next one.
    pub fn fill(&mut self, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
        let Some((path, file)) = self.files.get(self.filled) else { return Ok(()) };
        self.filled += 1;
        let mut writer = BufWriter::new(file);
        let written = fill(&mut writer).and_then(|()| writer.flush()).and_then(|()| file.sync_all());
        written.map_err(|error| Error::new(Exit::Unexpected, format!("cannot write {}: {error}", path.display())))
    }

    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NewFiles<'_> {
    fn drop(&mut self) {
        if !self.kept {
            for (path, _) in &self.files {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}
