//! Where Qdrant's directories are, inside its container and outside: below one mount, because between two mounts every rename would be a full copy.

use std::path::{Path, PathBuf};

use crate::{config::Config, error::Error};

/// The workspace and what is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::machine) struct Paths {
    /// The one directory that is mounted.
    pub(in crate::machine) workspace: PathBuf,
    /// Its name inside the container.
    pub(in crate::machine) workspace_inside: PathBuf,
    /// Qdrant's data, on the host.
    pub(in crate::machine) storage: PathBuf,
    /// The same inside.
    pub(in crate::machine) storage_inside: PathBuf,
    /// Qdrant's snapshots, on the host.
    pub(in crate::machine) snapshots: PathBuf,
    /// The same inside.
    pub(in crate::machine) snapshots_inside: PathBuf,
    /// Where the worker's record of the boot is: it has to go with the data that it speaks of.
    pub(in crate::machine) work_dir: PathBuf,
}

impl Paths {
    /// As the settings say, when everything is below the workspace.
    pub(in crate::machine) fn of(config: &Config, workspace: &Path) -> Result<Self, Error> {
        if workspace.to_str().is_none_or(|path| !path.starts_with('/') || path.contains([',', '"', '\n'])) {
            let problem = format!("`{}` is no absolute path that can be mounted", workspace.display());
            return Err(Error::BadSetting { name: "boot.workspace", problem });
        }
        let below = |name, path: &Path| below(name, path, workspace);
        let snapshots = config.snapshots_dir()?;
        let storage_below = below("data-dir", &config.data_dir())?;
        let snapshots_below = below("snapshots-dir", &snapshots.host)?;
        let work_below = below("work-dir", &config.work_dir())?;
        for (one, other, names) in [
            (&storage_below, &snapshots_below, "`data-dir` and `snapshots-dir`"),
            (&storage_below, &work_below, "`data-dir` and `work-dir`"),
            (&snapshots_below, &work_below, "`snapshots-dir` and `work-dir`"),
        ] {
            if one.starts_with(other) || other.starts_with(one) {
                let problem = format!("{names} must be apart from each other");
                return Err(Error::BadSetting { name: "boot.workspace", problem });
            }
        }
        let inside = stripped(&snapshots.qdrant, &snapshots_below).ok_or_else(|| Error::BadSetting {
            name: "qdrant-snapshots-path",
            problem: format!(
                "`{}` does not end in `{}`, as `snapshots-dir` does below the workspace that the container is given",
                snapshots.qdrant.display(),
                snapshots_below.display()
            ),
        })?;
        Ok(Self {
            storage: workspace.join(&storage_below),
            storage_inside: inside.join(&storage_below),
            snapshots_inside: inside.join(&snapshots_below),
            snapshots: snapshots.host,
            work_dir: workspace.join(work_below),
            workspace: workspace.to_owned(),
            workspace_inside: inside,
        })
    }
}

/// What of `path` is below the workspace, and must be something.
fn below(name: &'static str, path: &Path, workspace: &Path) -> Result<PathBuf, Error> {
    let plain = |path: &&Path| path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let rest = path.strip_prefix(workspace).ok().filter(|rest| rest.components().next().is_some());
    rest.filter(plain).map(|rest| rest.components().collect()).ok_or_else(|| Error::BadSetting {
        name,
        problem: format!(
            "`{}` is not below `{}`: with `[boot]` everything is on the instance's disks, so that all of it is lost together",
            path.display(),
            workspace.display()
        ),
    })
}

/// `path` without `end`, where it ends so.
fn stripped(path: &Path, end: &Path) -> Option<PathBuf> {
    path.ends_with(end).then(|| path.ancestors().nth(end.components().count()).map(Path::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn paths(change: impl FnOnce(&mut Settings)) -> Result<Paths, String> {
        let mut settings =
            Settings { snapshots_dir: Some("/workspace/qdrant/snapshots".into()), ..Settings::default() };
        change(&mut settings);
        let config = Config::new(settings, None, None).unwrap();
        Paths::of(&config, Path::new("/workspace/qdrant")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_usual_settings_fit() {
        let paths = paths(|_| {}).unwrap();
        assert_eq!(paths.workspace_inside, Path::new("/workspace/qdrant"));
        assert_eq!(paths.storage_inside, Path::new("/workspace/qdrant/data"));
        assert_eq!(paths.snapshots_inside, Path::new("/workspace/qdrant/snapshots"));
        assert_eq!(paths.work_dir, Path::new("/workspace/qdrant/backups"));
    }

    #[test]
    fn the_mount_may_have_another_name_inside() {
        let paths = paths(|s| s.qdrant_snapshots_path = Some("/qdrant/all/snapshots".into())).unwrap();
        assert_eq!(paths.workspace_inside, Path::new("/qdrant/all"));
        assert_eq!(paths.storage_inside, Path::new("/qdrant/all/data"));
        assert_eq!(paths.snapshots_inside, Path::new("/qdrant/all/snapshots"));
        assert_eq!(paths.snapshots, Path::new("/workspace/qdrant/snapshots"));
    }

    #[test]
    fn what_is_not_below_the_workspace_is_refused() {
        for (name, refused) in [
            ("data-dir", paths(|s| s.data_dir = Some("/var/lib/qdrant".into()))),
            ("data-dir", paths(|s| s.data_dir = Some("/workspace/qdrant".into()))),
            ("data-dir", paths(|s| s.data_dir = Some("/workspace/qdrant/../x".into()))),
            ("snapshots-dir", paths(|s| s.snapshots_dir = Some("/workspace/qdrant-snapshots".into()))),
            ("work-dir", paths(|s| s.work_dir = Some("/var/lib/backups".into()))),
            ("boot.workspace", paths(|s| s.data_dir = Some("/workspace/qdrant/snapshots/data".into()))),
            ("boot.workspace", paths(|s| s.work_dir = Some("/workspace/qdrant/data".into()))),
            ("qdrant-snapshots-path", paths(|s| s.qdrant_snapshots_path = Some("/qdrant/other".into()))),
        ] {
            let message = refused.unwrap_err();
            assert!(message.starts_with(&format!("`{name}` cannot be used")), "{message}");
        }
    }
}
