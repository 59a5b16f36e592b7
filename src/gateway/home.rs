//! Where keys and ledgers live unless told otherwise, and how a key is made and kept.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::transport::nostr::NostrKeys;

/// Names the folder.
const HOME: &str = "TOLLKEEPER_HOME";

/// TOLLKEEPER_HOME, else the platform's folder for the data of programs.
///
/// # Errors
///
/// When the platform does not say where that is.
pub(super) fn folder() -> Result<PathBuf> {
    let set = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(home) = set(HOME) {
        return Ok(home);
    }
    let data = if cfg!(windows) {
        set("APPDATA")
    } else if cfg!(target_os = "macos") {
        set("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")))
    };
    data.map(|data| data.join("tollkeeper")).ok_or_else(|| {
        Error::config(format!(
            "{HOME} must name a folder: this platform does not say where data belongs"
        ))
    })
}

/// Makes `folder`, open to its owner only.
///
/// # Errors
///
/// When it cannot be made.
pub(super) fn make_folder(folder: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|source| {
        Error::config(format!("cannot make the folder {}", folder.display())).with_source(source)
    })
}

/// The key in `file`; makes one and keeps it there if there is none.
///
/// Several processes may ask at once: all of them get the same key.
///
/// # Errors
///
/// When the file cannot be read or written, or holds something else.
pub(super) fn key(file: &Path) -> Result<NostrKeys> {
    if let Some(keys) = read_key(file)? {
        return Ok(keys);
    }
    if let Some(folder) = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        make_folder(folder)?;
    }
    let keys = NostrKeys::generate();
    let failed = |source: io::Error| {
        Error::config(format!("cannot keep a new key in {}", file.display())).with_source(source)
    };
    // Written beside and linked into place, so that nobody ever reads half a key and the first one wins.
    let draft = file.with_extension(format!("new-{}", std::process::id()));
    let written = write_private(&draft, &keys.reveal_secret_hex()).and_then(|()| {
        fs::hard_link(&draft, file).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            // A file system without links.
            _ => write_private(file, &keys.reveal_secret_hex()),
        })
    });
    let _ = fs::remove_file(&draft);
    written.map_err(failed)?;
    read_key(file)?
        .ok_or_else(|| Error::config(format!("cannot read the key in {}", file.display())))
}

/// The key in `file`; `None` if there is no such file.
///
/// # Errors
///
/// When it cannot be read or holds something else.
pub(super) fn read_key(file: &Path) -> Result<Option<NostrKeys>> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let message = format!("cannot read the key in {}", file.display());
            return Err(Error::config(message).with_source(source));
        }
    };
    warn_if_open_to_others(file);
    NostrKeys::parse(&text).map(Some).map_err(|_| {
        Error::config(format!(
            "{} must hold a secret key: nsec1… or 64 hex digits",
            file.display()
        ))
    })
}

/// The text of a file that nobody else should read.
///
/// # Errors
///
/// When it cannot be read.
pub(super) fn read_secret(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).map_err(|source| {
        Error::config(format!("cannot read {}", file.display()))
            .with_source(source.kind().to_string())
    })?;
    warn_if_open_to_others(file);
    Ok(text)
}

fn write_private(file: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(file)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// Puts `text` into `file`, readable by its owner only, in place of whatever was there.
///
/// # Errors
///
/// When it cannot be written.
pub(super) fn replace_private(file: &Path, text: &str) -> Result<()> {
    // Written beside and moved into place: a file that others could read is not reused.
    let draft = file.with_extension(format!("new-{}", std::process::id()));
    let written = write_private(&draft, text).and_then(|()| fs::rename(&draft, file));
    written.map_err(|source| {
        let _ = fs::remove_file(&draft);
        Error::config(format!("cannot write {}", file.display())).with_source(source)
    })
}

/// Says so if others than its owner can read `file`, which holds a secret.
pub(super) fn warn_if_open_to_others(file: &Path) {
    #[cfg(unix)]
    if let Ok(data) = fs::metadata(file)
        && std::os::unix::fs::PermissionsExt::mode(&data.permissions()) & 0o077 != 0
    {
        tracing::warn!(file = %file.display(), "others can read this secret: chmod 600 it");
    }
    #[cfg(not(unix))]
    let _ = file;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/er/client.key");
        let first = key(&file).unwrap();
        assert_eq!(key(&file).unwrap().npub(), first.npub());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(&file).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        let left: Vec<_> = fs::read_dir(file.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no draft is left behind");
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_replaces_what_was_there_and_stays_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seller.nwc");
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        replace_private(&file, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap().trim(), "new");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nonsense_is_refused_without_repeating_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.key");
        fs::write(&file, "nsec1nonsense").unwrap();
        let error = format!("{:?}", key(&file).unwrap_err());
        assert!(!error.contains("nsec1nonsense"), "{error}");
    }
}
