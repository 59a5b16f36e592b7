//! Signing secrets in a file: written by hand, by `tollkeeper licence`, or as what was fetched from an issuer.
//!
//! JSON: what an issuer answers when it is asked for a signing secret (`{"kid": …, "signingSecret": …}`, more fields are
//! passed over), or a list of such. The file is as secret as what is in it.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::keys::{Key, KeySource, Keyring};
use crate::error::{Error, Result};

/// The secrets in a file, newest last.
#[derive(Debug, Clone)]
pub struct KeyFile(PathBuf);

/// One secret with its name. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamedSecret {
    pub(super) kid: String,
    #[serde(rename = "signingSecret")]
    pub(super) secret: String,
    /// The secret's bytes are those of its text, unless it says otherwise.
    #[serde(default, skip_serializing_if = "Encoding::is_text")]
    pub(super) encoding: Encoding,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    #[default]
    Utf8,
    Base64,
}

impl Encoding {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn is_text(&self) -> bool {
        *self == Self::Utf8
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Many(Vec<NamedSecret>),
    One(NamedSecret),
}

impl NamedSecret {
    fn key(&self) -> Result<Key> {
        match self.encoding {
            Encoding::Utf8 => Key::new(self.secret.as_bytes()),
            Encoding::Base64 => {
                let bytes = STANDARD
                    .decode(&self.secret)
                    .map_err(|_| Error::config("a signing secret is not base64, as it says"))?;
                Key::new(&bytes)
            }
        }
    }
}

impl fmt::Debug for NamedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NamedSecret({})", self.kid)
    }
}

impl KeyFile {
    /// The secrets in the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The keys of the secrets that are in it; none if there is no such file. Blocks while it reads.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it cannot be read or holds something else.
    pub fn load(&self) -> Result<Keyring> {
        ring(&self.read()?)
    }

    /// The newest key of `server_id`, with its version; `None` if there is none. Blocks while it reads.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn newest(&self, server_id: &str) -> Result<Option<(u32, Key)>> {
        let versions = self.read()?.into_iter().filter_map(|secret| {
            let (server, version) = secret.kid.rsplit_once(':')?;
            (server == server_id).then_some(())?;
            Some((version.parse::<u32>().ok()?, secret))
        });
        let newest = versions.max_by_key(|(version, _)| *version);
        newest
            .map(|(version, secret)| Ok((version, secret.key()?)))
            .transpose()
    }

    /// Adds a new key of `server_id`, made of `secret`; new licences are signed with it, older ones still verify. Blocks while it
    /// writes.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and when it cannot be written.
    pub fn rotate(&self, server_id: &str, secret: &str) -> Result<u32> {
        let _alone = self.lock()?;
        let newest = self.newest(server_id)?;
        self.add_version(
            server_id,
            secret,
            newest.map_or(1, |(version, _)| version + 1),
        )
    }

    /// Adds a first key of `server_id`, made of `secret`, unless it has one. Of several processes that ask at once, one adds its
    /// own. Blocks while it writes.
    ///
    /// # Errors
    ///
    /// As [`rotate`](Self::rotate).
    pub fn ensure(&self, server_id: &str, secret: &str) -> Result<()> {
        // Nearly always there is one, perhaps where nothing may be written.
        if self.newest(server_id)?.is_some() {
            return Ok(());
        }
        let _alone = self.lock()?;
        match self.newest(server_id)? {
            Some(_) => Ok(()),
            None => self.add_version(server_id, secret, 1).map(drop),
        }
    }

    fn add_version(&self, server_id: &str, secret: &str, version: u32) -> Result<u32> {
        super::check_server_id(server_id)?;
        let secret = NamedSecret {
            kid: format!("{server_id}:{version}"),
            secret: secret.to_owned(),
            encoding: Encoding::Utf8,
        };
        secret.key()?;
        self.write_with(secret)?;
        Ok(version)
    }

    /// Keeps other processes from changing the file: a key that one of them adds must not get lost to another.
    fn lock(&self) -> Result<fs::File> {
        let path = self.0.with_extension("lock");
        let locked = fs::File::create(path).and_then(|file| file.lock().map(|()| file));
        locked.map_err(|source| {
            Error::config("the file of signing secrets cannot be locked")
                .with_source(source.kind().to_string())
        })
    }

    /// What is in it; nothing if there is no such file.
    pub(super) fn read(&self) -> Result<Vec<NamedSecret>> {
        let text = match fs::read(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(Error::config("the file of signing secrets cannot be read")
                    .with_source(source.kind().to_string()));
            }
        };
        match serde_json::from_slice(&text) {
            Ok(Content::Many(many)) => Ok(many),
            Ok(Content::One(one)) => Ok(vec![one]),
            // Its error would repeat what is in the file.
            Err(_) => Err(Error::config(
                "the file of signing secrets must hold a JSON list of {\"kid\": …, \"signingSecret\": …}",
            )),
        }
    }

    /// Adds a secret, in the place of one of the same name, and returns all. Readers see the old file or the new one.
    pub(super) fn add(&self, secret: NamedSecret) -> Result<Vec<NamedSecret>> {
        let _alone = self.lock()?;
        self.write_with(secret)
    }

    fn write_with(&self, secret: NamedSecret) -> Result<Vec<NamedSecret>> {
        let mut all = self.read()?;
        if all.contains(&secret) {
            return Ok(all);
        }
        all.retain(|known| known.kid != secret.kid);
        all.push(secret);
        let failed = |source: io::Error| {
            Error::config("the file of signing secrets cannot be written")
                .with_source(source.kind().to_string())
        };
        let text = serde_json::to_vec_pretty(&all)
            .map_err(|_| Error::config("the signing secrets cannot be written as JSON"))?;
        write_private(&self.0, &text).map_err(failed)?;
        Ok(all)
    }
}

/// The keys of `secrets`.
pub(super) fn ring(secrets: &[NamedSecret]) -> Result<Keyring> {
    secrets.iter().try_fold(Keyring::new(), |ring, secret| {
        Ok(ring.with(secret.kid.clone(), secret.key()?))
    })
}

#[async_trait]
impl KeySource for KeyFile {
    async fn fetch(&self) -> Result<Keyring> {
        let file = self.clone();
        let read = tokio::task::spawn_blocking(move || file.load()).await;
        read.unwrap_or_else(|_| Err(Error::config("the file of signing secrets cannot be read")))
    }
}

fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&draft).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()
    });
    let moved = written.and_then(|()| fs::rename(&draft, path));
    if moved.is_err() {
        let _ = fs::remove_file(&draft);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(kid: &str, text: &str) -> NamedSecret {
        NamedSecret {
            kid: kid.to_owned(),
            secret: text.repeat(16),
            encoding: Encoding::Utf8,
        }
    }

    #[test]
    fn secrets_are_added_kept_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let file = KeyFile::new(&path);
        assert!(file.read().unwrap().is_empty());
        file.add(secret("s:1", "a")).unwrap();
        file.add(secret("s:2", "b")).unwrap();
        file.add(secret("s:1", "c")).unwrap();
        assert_eq!(
            file.read().unwrap(),
            [secret("s:2", "b"), secret("s:1", "c")]
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let names = fs::read_dir(folder.path()).unwrap().flatten();
        let mut names: Vec<_> = names.map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, ["keys.json", "keys.lock"]);
    }

    #[test]
    fn keys_that_are_made_at_once_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("keys.json"));
        std::thread::scope(|threads| {
            for n in 0..8u8 {
                let (file, secret) = (file.clone(), char::from(b'a' + n).to_string().repeat(16));
                threads.spawn(move || {
                    file.ensure("s", &secret).unwrap();
                    file.rotate("s", &secret).unwrap();
                });
            }
        });
        let kept = file.read().unwrap();
        let versions: Vec<_> = kept.iter().map(|secret| secret.kid.as_str()).collect();
        let expected: Vec<_> = (1..=9).map(|n| format!("s:{n}")).collect();
        assert_eq!(versions, expected, "one first key, and eight more");
    }

    #[test]
    fn what_an_issuer_answers_is_read_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let answer = r#"{"keyId":"9b7f","keyVersion":1,"algorithm":"HS256","signingSecret":"0123456789abcdef","kid":"s:1","verifyHint":"x"}"#;
        fs::write(&path, answer).unwrap();
        let ring = ring(&KeyFile::new(&path).read().unwrap()).unwrap();
        assert_eq!(ring.names().collect::<Vec<_>>(), ["s:1"]);
        fs::write(&path, r#"[{"kid":"s:1","secret":"hunter2hunter2hunter2"}]"#).unwrap();
        let error = format!("{:?}", KeyFile::new(&path).read().unwrap_err());
        assert!(!error.contains("hunter2"), "{error}");
    }
}
