//! A checkpoint as a file: its bytes, written so that none is half there.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Read};
use std::path::{Path, PathBuf};

use super::Checkpoint;
use crate::error::{Error, Result};

impl Checkpoint {
    /// Writes a file that holds either all of it or what was there before: under another name in the same folder,
    /// synced, then renamed. What was there before stays beside it, as [`previous`](Self::previous) names it.
    ///
    /// # Errors
    /// [`Error::File`], naming the path. The file is as it was then.
    pub fn save_to(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // This may overwrite what a process that was killed left here.
        let temporary = path.with_file_name(format!(".{name}.tmp"));
        let written = self.write(&temporary).and_then(|()| {
            let previous = Self::previous(path);
            if path.exists() {
                // A hard link keeps the old file in its place until the new one takes it.
                if previous.exists() {
                    fs::remove_file(&previous)?;
                }
                fs::hard_link(path, &previous).or_else(|_| fs::rename(path, &previous))?;
            }
            fs::rename(&temporary, path)?;
            sync_folder(path)
        });
        written.map_err(|error| {
            fs::remove_file(&temporary).ok();
            in_file(path, error)
        })
    }

    /// Reads what [`save_to`](Self::save_to) wrote, every byte checked.
    ///
    /// # Errors
    /// [`Error::File`], naming the path and what is wrong with it: it cannot be read, is cut short, is of another or a
    /// later form, or holds a tensor whose checksum is wrong.
    pub fn load_from(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_err(|error| in_file(path, error))?;
        Self::from_bytes(&bytes).map_err(|error| in_file(path, error))
    }

    /// Where [`save_to`](Self::save_to) keeps the file that was there before: `a.previous.safetensors` beside
    /// `a.safetensors`.
    pub fn previous(path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        match path.extension() {
            Some(extension) => path.with_extension(format!("previous.{}", extension.to_string_lossy())),
            None => path.with_extension("previous"),
        }
    }

    fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        self.write_to(&mut file)?;
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    }
}

/// Syncs a folder, so that a rename in it lasts, on systems where folders can be synced.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn in_file(path: &Path, error: impl fmt::Display) -> Error {
    Error::File { path: path.display().to_string(), message: error.to_string() }
}
