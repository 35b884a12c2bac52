//! Damage to stored bytes behind S3's back.

use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

use fs_err as fs;
use s3s::{S3Error, S3Result};

use super::Store;

impl Store {
    /// Changes one byte of the current version in place.
    pub(crate) fn corrupt(&self, bucket: &str, key: &str, offset: u64, mask: u8) -> S3Result<()> {
        self.damage(bucket, key, |file| {
            let mut byte = [0];
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(&mut byte)?;
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(&byte.map(|byte| byte ^ mask))
        })
    }

    /// Shortens the current version in place.
    pub(crate) fn truncate(&self, bucket: &str, key: &str, length: u64) -> S3Result<()> {
        self.damage(bucket, key, |file| file.set_len(length))?;
        let mut state = self.state();
        let versions = state.bucket_mut(bucket)?.objects.get_mut(key);
        if let Some(content) =
            versions.and_then(|versions| versions.last_mut()).and_then(|last| last.content.as_mut())
        {
            content.size = length;
        }
        Ok(())
    }

    fn damage(
        &self,
        bucket: &str,
        key: &str,
        change: impl FnOnce(&mut fs::File) -> io::Result<()>,
    ) -> S3Result<()> {
        let state = self.state();
        let version = state.bucket(bucket)?.version(key, None)?;
        let path = self.path_of(bucket, key, version);
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .and_then(|mut file| change(&mut file))
            .map_err(S3Error::internal_error)
    }
}
