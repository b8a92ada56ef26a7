//! A checkpoint as a file: its bytes, written so that none is half there, and read in parts.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::bytes::{Line, Writer, read};
use super::values::{Number, PART_BYTES};
use super::{Checkpoint, Values};
use crate::error::{Error, Result};

impl Checkpoint {
    /// Writes a file that holds either all of it or what was there before: under another name in the same folder,
    /// synced, then renamed. What was there before stays beside it, as [`previous`](Self::previous) names it.
    ///
    /// # Errors
    /// [`Error::File`], naming the path. The file is as it was then.
    pub fn save_to(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut saving = Saving::new(path.as_ref(), self, self.lines(), |_, _| ())?;
        for entry in self.values.values() {
            let mut reader = entry.values.reader();
            while reader.rest() > 0 {
                saving.write(&reader.take(PART_BYTES)?)?;
            }
        }
        saving.finish()
    }

    /// Reads what [`save_to`](Self::save_to) wrote, every byte checked. The values stay in the file until they are
    /// used, so that no more than 4 MiB of them are in memory at once. The file may be replaced meanwhile, as `save_to`
    /// does.
    ///
    /// # Errors
    /// [`Error::File`], naming the path and what is wrong with it: it cannot be read, is cut short, is of another or a
    /// later form, or holds a tensor whose checksum is wrong.
    pub fn load_from(path: impl AsRef<Path>) -> Result<Self> {
        Self::load(path.as_ref(), &mut |_, _| ())
    }

    /// Reads a file as [`load_from`](Self::load_from) does, or else the [`previous`](Self::previous) one, and returns
    /// what was wrong with the first, if it was not that one. `progress` is told how many bytes are checked, and of how
    /// many.
    ///
    /// # Errors
    /// [`Error::File`], naming what is wrong with the first file, where neither can be read.
    pub fn load_latest(path: impl AsRef<Path>, mut progress: impl FnMut(u64, u64)) -> Result<(Self, Option<Error>)> {
        let path = path.as_ref();
        let error = match Self::load(path, &mut progress) {
            Ok(checkpoint) => return Ok((checkpoint, None)),
            Err(error) => error,
        };
        match Self::load(&Self::previous(path), &mut progress) {
            Ok(checkpoint) => Ok((checkpoint, Some(error))),
            Err(_) => Err(error),
        }
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

    fn load(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Self> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), Arc::new(Mutex::new(file)))));
        let (len, file) = opened.map_err(|error| in_file(path, error))?;
        let store = |number, start, size_bytes, sum| {
            Values::Stored(Stored { file: file.clone(), number, start, size_bytes, sum })
        };
        let mut bytes = BufReader::new(Positioned { file: file.clone(), at: 0 });
        read(&mut bytes, len, store, progress).map_err(|error| in_file(path, error))
    }
}

/// Values in a file whose bytes were checked.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    file: Arc<Mutex<File>>,
    pub(super) number: Number,
    start: u64,
    pub(super) size_bytes: u64,
    /// The CRC-32C of the bytes.
    pub(super) sum: u32,
}

impl Stored {
    /// So many bytes from here on.
    pub(super) fn read(&self, from: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut part = vec![0; bytes];
        Positioned { file: self.file.clone(), at: self.start + from }.read_exact(&mut part)?;
        Ok(part)
    }
}

/// A place in a file that several read.
struct Positioned {
    file: Arc<Mutex<File>>,
    at: u64,
}

impl Read for Positioned {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.at))?;
        let read = file.read(bytes)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// A file on its way to its place.
pub(crate) struct Saving<'a, P> {
    writer: Writer<BufWriter<File>>,
    progress: P,
    path: &'a Path,
    temporary: PathBuf,
    is_done: bool,
}

impl<'a, P: FnMut(u64, u64)> Saving<'a, P> {
    /// Begins a file of all that `checkpoint` holds but values. Their bytes are to be written in the order of `lines`.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn new(path: &'a Path, checkpoint: &Checkpoint, lines: Vec<Line>, progress: P) -> Result<Self> {
        for taken in [path, &Checkpoint::previous(path)] {
            if taken.is_dir() {
                return Err(in_file(taken, "is a folder, must be a file"));
            }
        }
        // This may overwrite what a process that was killed left here.
        let temporary = temporary(path);
        let created = File::create(&temporary).map(BufWriter::new).map_err(|error| in_file(path, error))?;
        match Writer::new(created, &checkpoint.head, lines) {
            Ok(writer) => Ok(Self { writer, progress, path, temporary, is_done: false }),
            Err(error) => {
                fs::remove_file(&temporary).ok();
                Err(in_file(path, error))
            }
        }
    }

    /// Writes values, and tells of the progress.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write(bytes).map_err(|error| in_file(self.path, error))?;
        (self.progress)(self.writer.written(), self.writer.expected());
        Ok(())
    }

    /// Puts the file in its place.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.put().map_err(|error| in_file(self.path, error))
    }

    fn put(&mut self) -> io::Result<()> {
        self.writer.finish()?.get_ref().sync_all()?;
        let previous = Checkpoint::previous(self.path);
        // The old file becomes the one before only when the new one is in its place: were the old one damaged, a kill
        // in between would leave nothing else.
        let kept = temporary(&previous);
        fs::remove_file(&kept).ok();
        let is_kept = fs::hard_link(self.path, &kept).is_ok();
        if !is_kept && self.path.exists() {
            fs::rename(self.path, &previous)?;
        }
        fs::rename(&self.temporary, self.path)?;
        self.is_done = true;
        if is_kept {
            fs::rename(&kept, &previous)?;
            // Two links of one file are left as they are by a rename.
            fs::remove_file(&kept).ok();
        }
        sync_folder(self.path)
    }
}

impl<P> Drop for Saving<'_, P> {
    fn drop(&mut self) {
        if !self.is_done {
            fs::remove_file(&self.temporary).ok();
        }
    }
}

/// Where a file is until it is whole.
fn temporary(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.tmp", path.file_name().unwrap_or_default().to_string_lossy()))
}

/// Syncs a folder, so that a rename in it lasts, on systems where folders can be synced.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn in_file(path: &Path, error: impl fmt::Display) -> Error {
    Error::File { path: path.display().to_string(), message: error.to_string() }
}
