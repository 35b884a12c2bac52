//! The file of variables that the container is given. Its keys never pass through this program: only the names are looked at.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use super::arguments::RESERVED;
use crate::machine::{Error, io_error};

/// Without it Qdrant is open to everybody who reaches its port.
const API_KEY: &str = "QDRANT__SERVICE__API_KEY";

/// Refuses a file that others may read, that has no API key, or that changes what the container is built around.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let read = |source| io_error("read the container's environment file".to_owned(), source);
    let mode = fs_err::metadata(path).map_err(read)?.permissions().mode() & 0o777;
    let refused = |problem| Error::EnvironmentFile { path: path.to_owned(), problem };
    if mode & 0o077 != 0 {
        return Err(refused(format!("others than its owner may use it (mode {mode:04o}): `chmod 0600` it")));
    }
    check_text(&fs_err::read_to_string(path).map_err(read)?).map_err(refused)
}

/// As Docker reads it: a line is `NAME=value`, `NAME` alone (a value of Docker's own environment), blank, or a comment.
fn check_text(text: &str) -> Result<(), String> {
    let mut protected = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("line {number} is no `NAME=value`"));
        }
        if RESERVED.contains(&name) {
            return Err(format!("it sets `{name}`, which is set for every container"));
        }
        protected |= name == API_KEY && !value.trim().is_empty();
    }
    if protected {
        Ok(())
    } else {
        Err(format!("it sets no `{API_KEY}`, so that Qdrant would be open to everybody"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_judged() {
        let good =
            "# keys\n\nQDRANT__SERVICE__API_KEY=s3cr3t=\nQDRANT__SERVICE__READ_ONLY_API_KEY=r\nRUST_LOG\n";
        assert_eq!(check_text(good), Ok(()));
        for (text, problem) in [
            ("", "sets no `QDRANT__SERVICE__API_KEY`"),
            ("QDRANT__SERVICE__API_KEY=\n", "sets no"),
            ("QDRANT__SERVICE__API_KEY\n", "sets no"),
            ("QDRANT__SERVICE_API_KEY=s3cr3t\n", "sets no"),
            (
                "QDRANT__SERVICE__API_KEY=s3cr3t\nQDRANT__SERVICE__HTTP_PORT=1\n",
                "sets `QDRANT__SERVICE__HTTP_PORT`",
            ),
            ("QDRANT__SERVICE__API_KEY = s3cr3t\n", "line 1 is no `NAME=value`"),
        ] {
            let message = check_text(text).unwrap_err();
            assert!(message.contains(problem), "{message}");
            assert!(!message.contains("s3cr3t"), "{message}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qdrant.env");
        fs_err::write(&path, "QDRANT__SERVICE__API_KEY=s3cr3t\n").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let checked = check(&path);
            assert_eq!(checked.is_ok(), good, "{mode:o}");
            if let Err(error) = checked {
                assert!(error.to_string().contains("chmod 0600"), "{error}");
            }
        }
        let error = check(&dir.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("environment file"), "{error}");
    }
}
