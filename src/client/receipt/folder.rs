//! The folder of receipts: one file each, readable by its owner only.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Receipt;
use crate::error::{Error, Result};

/// Where receipts are kept.
#[derive(Debug, Clone)]
pub struct ReceiptFolder {
    folder: PathBuf,
}

impl ReceiptFolder {
    /// Receipts in `folder`, which is made with the first of them.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// Writes a receipt in the place of an earlier one of the same payment. Blocks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it cannot be written; an earlier one is then still there.
    pub fn keep(&self, receipt: &Receipt) -> Result<PathBuf> {
        let text = serde_json::to_string_pretty(receipt)
            .map_err(|source| Error::ledger("a receipt cannot be written").with_source(source))?;
        let failed = |source: io::Error| {
            Error::ledger("a receipt cannot be written; check the folder of receipts")
                .with_source(source.kind().to_string())
        };
        make_folder(&self.folder).map_err(failed)?;
        let file = self.folder.join(format!("{}.json", receipt.name()));
        let draft = file.with_extension(format!("json.{}", std::process::id()));
        write_private(&draft, text.as_bytes())
            .and_then(|()| fs::rename(&draft, &file))
            .map_err(failed)?;
        Ok(file)
    }

    /// The files of all receipts, oldest first.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "json")
            })
            .collect();
        files.sort();
        files
    }

    /// Reads one receipt.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the file cannot be read or is none.
    pub fn read(file: &Path) -> Result<Receipt> {
        let shown = file.display();
        let text = fs::read_to_string(file)
            .map_err(|error| Error::config(format!("cannot read {shown}: {}", error.kind())))?;
        serde_json::from_str(&text)
            .map_err(|source| Error::config(format!("{shown} is no receipt")).with_source(source))
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn write_private(file: &Path, text: &[u8]) -> io::Result<()> {
    let _ = fs::remove_file(file);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(file)?;
    file.write_all(text)?;
    // Not flushed: what the disk loses the books still have.
    file.write_all(b"\n")
}
