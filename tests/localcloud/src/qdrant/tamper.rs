//! Damage to files, for faults and for tests.

use super::faults::Damage;
use fs_err as fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

pub(super) fn damage(path: &Path, damage: Damage) -> std::io::Result<()> {
    match damage {
        Damage::Vanishes => fs::remove_file(path),
        Damage::ShrinksTo(size) => fs::OpenOptions::new().write(true).open(path)?.set_len(size),
        Damage::Grows(by) => {
            let file = fs::OpenOptions::new().write(true).open(path)?;
            let size = file.metadata()?.len();
            file.set_len(size.saturating_add(by))
        }
        Damage::BitFlip => {
            let mut file = fs::OpenOptions::new().read(true).write(true).open(path)?;
            let middle = file.metadata()?.len() / 2;
            let mut byte = [0];
            file.seek(SeekFrom::Start(middle))?;
            file.read_exact(&mut byte)?;
            file.seek(SeekFrom::Start(middle))?;
            file.write_all(&byte.map(|byte| byte ^ 1))
        }
    }
}
