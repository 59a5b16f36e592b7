//! Which process an attempt belongs to, and whether that process still lives.
//!
//! A process that pays holds a lock on a file of its own beside the books. However it ends, the system lets go of the lock:
//! what the process had reserved and not settled is then unknown.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Left-over files of processes that have ended are cleared away when they are this old: a younger one may be about to be
/// locked.
const LEFT_OVER: Duration = Duration::from_secs(60);

/// This process, as an owner of attempts.
#[derive(Debug)]
pub(super) struct Owner {
    name: String,
    books: PathBuf,
    /// Held for as long as this process lives.
    _lock: File,
}

impl Owner {
    /// Says that this process lives, beside the file `books`.
    pub(super) fn claim(books: &Path) -> io::Result<Self> {
        let random = |salt: u8| RandomState::new().hash_one((std::process::id(), salt));
        let name = format!("{:016x}{:016x}", random(1), random(2));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let lock = options.open(lock_file(books, &name))?;
        lock.try_lock().map_err(io::Error::from)?;
        clear_left_over(books);
        Ok(Self {
            name,
            books: books.to_owned(),
            _lock: lock,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the process `name` still lives. What cannot be told counts as alive: its attempts stay reserved.
    pub(super) fn lives(&self, name: &str) -> bool {
        name == self.name || is_locked(&lock_file(&self.books, name))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = fs::remove_file(lock_file(&self.books, &self.name));
    }
}

fn lock_file(books: &Path, name: &str) -> PathBuf {
    let mut file = books.as_os_str().to_owned();
    file.push(format!(".{name}.lock"));
    file.into()
}

fn is_locked(file: &Path) -> bool {
    match OpenOptions::new().write(true).open(file) {
        Ok(open) => matches!(
            open.try_lock(),
            Err(TryLockError::WouldBlock | TryLockError::Error(_))
        ),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn clear_left_over(books: &Path) {
    let (Some(folder), Some(name)) = (books.parent(), books.file_name()) else {
        return;
    };
    let begin = format!("{}.", name.to_string_lossy());
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = file.file_name();
        let name = name.to_string_lossy();
        let old = || {
            let changed = file.metadata().and_then(|data| data.modified()).ok()?;
            Some(SystemTime::now().duration_since(changed).ok()? > LEFT_OVER)
        };
        if name.starts_with(&begin)
            && name.ends_with(".lock")
            && old() == Some(true)
            && !is_locked(&file.path())
        {
            let _ = fs::remove_file(file.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_lives_until_it_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let books = folder.path().join("buyer.db");
        let (one, two) = (Owner::claim(&books).unwrap(), Owner::claim(&books).unwrap());
        assert_ne!(one.name(), two.name());
        assert!(one.lives(two.name()) && one.lives(one.name()));
        let name = two.name().to_owned();
        drop(two);
        assert!(!one.lives(&name));
        // As after a kill: the file is there, the lock is not.
        fs::write(lock_file(&books, &name), "").unwrap();
        assert!(!one.lives(&name));
    }
}
