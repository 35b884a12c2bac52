//! Where things lie below the root.
//!
//! ```text
//! <bucket>/<key>                                   the current version's bytes
//! .s3/<bucket>/bucket.json                         versioning, time of creation
//! .s3/<bucket>/objects/<hash of key>/versions.json all versions of the key, with their metadata
//! .s3/<bucket>/objects/<hash of key>/<version>     bytes of a version that is not the current one
//! .s3/<bucket>/uploads/<upload>/…                  a multipart upload: upload.json, parts, one JSON file per part
//! .s3/incoming/                                    bytes on their way in
//! ```
//!
//! A key that the file system cannot hold beside the others (`a` beside `a/b`, a component above 255 bytes) keeps
//! its current version aside as well.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use s3s::crypto::{Checksum as _, Sha256};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The paths below one root.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Takes the folder, and makes what every server needs in it.
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        let layout = Self { root };
        match fs::remove_dir_all(layout.incoming()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::create_dir_all(layout.incoming())?;
        Ok(layout)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn incoming(&self) -> PathBuf {
        self.root.join(".s3/incoming")
    }

    /// Folder of the plain objects of a bucket.
    pub(crate) fn bucket(&self, bucket: &str) -> PathBuf {
        self.root.join(bucket)
    }

    pub(crate) fn records(&self) -> PathBuf {
        self.root.join(".s3")
    }

    pub(crate) fn bucket_records(&self, bucket: &str) -> PathBuf {
        self.records().join(bucket)
    }

    pub(crate) fn bucket_record(&self, bucket: &str) -> PathBuf {
        self.bucket_records(bucket).join("bucket.json")
    }

    pub(crate) fn objects(&self, bucket: &str) -> PathBuf {
        self.bucket_records(bucket).join("objects")
    }

    pub(crate) fn uploads(&self, bucket: &str) -> PathBuf {
        self.bucket_records(bucket).join("uploads")
    }

    pub(crate) fn upload(&self, bucket: &str, upload: &str) -> PathBuf {
        self.uploads(bucket).join(upload)
    }

    /// Folder of what is remembered about one key.
    pub(crate) fn object_records(&self, bucket: &str, key: &str) -> PathBuf {
        let digest = hex::encode(Sha256::checksum(key.as_bytes()));
        self.objects(bucket).join(digest.get(..40).unwrap_or(&digest))
    }

    pub(crate) fn history(&self, bucket: &str, key: &str) -> PathBuf {
        self.object_records(bucket, key).join("versions.json")
    }

    /// Where the bytes of a version lie that is not in place.
    pub(crate) fn aside(&self, bucket: &str, key: &str, version: &str) -> PathBuf {
        self.object_records(bucket, key).join(version)
    }

    /// Where the bytes of the current version lie.
    pub(crate) fn plain(&self, bucket: &str, key: &str) -> PathBuf {
        let mut path = self.bucket(bucket);
        path.extend(key.split('/').map(escape_component));
        path
    }

    /// Moves the bytes at `aside` to the plain path of the key; `false` when the file system has no room for that name.
    pub(crate) fn put_in_place(&self, bucket: &str, key: &str, aside: &Path) -> io::Result<bool> {
        let plain = self.plain(bucket, key);
        let moved =
            plain.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::rename(aside, &plain));
        match moved {
            Ok(()) => Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotADirectory
                        | io::ErrorKind::IsADirectory
                        | io::ErrorKind::AlreadyExists
                        | io::ErrorKind::DirectoryNotEmpty
                        | io::ErrorKind::InvalidFilename
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the folders above the plain path that became empty.
    pub(crate) fn tidy(&self, bucket: &str, key: &str) {
        let top = self.bucket(bucket);
        let mut folder = self.plain(bucket, key);
        while folder.pop() && folder != top && fs::remove_dir(&folder).is_ok() {}
    }
}

/// A component of a key as a file name: readable where it can be, and never a way out of the folder.
fn escape_component(component: &str) -> String {
    match component {
        "" => "%".to_owned(),
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => component.replace('%', "%25").replace('\0', "%00"),
    }
}

/// Removes a file that may be gone already.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a side file in one step.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, serde_json::to_vec_pretty(value)?)?;
    fs::rename(&draft, path)
}

/// Reads a side file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&fs::read(path)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("`{}`: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_leads_out_of_the_bucket() {
        let layout = Layout { root: PathBuf::from("/r") };
        for key in ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "..", "a/"] {
            let plain = layout.plain("b", key);
            assert!(plain.starts_with("/r/b"), "{key} -> {}", plain.display());
            assert!(!plain.components().any(|part| part == std::path::Component::ParentDir), "{key}");
        }
    }

    #[test]
    fn different_keys_have_different_paths() {
        let layout = Layout { root: PathBuf::from("/r") };
        let keys = ["a", "/a", "a/", "a//b", "a/b", "a/%/b", "a/./b", "%2E", "."];
        let paths: std::collections::BTreeSet<_> = keys.iter().map(|key| layout.plain("b", key)).collect();
        assert_eq!(paths.len(), keys.len(), "{paths:?}");
    }
}
