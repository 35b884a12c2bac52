//! Images of Qdrant: a name whose tag says the version, as `qdrant/qdrant:v1.18.3-unprivileged`.

use super::Refused;
use crate::qdrant::{Version, version};

/// An image whose version is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    name: String,
    version: Version,
}

impl Image {
    /// Reads `name:v1.18.3-variant`, with or without the `v`, the variant and a digest behind it.
    pub fn new(name: &str) -> Result<Self, Refused> {
        let refused = || Refused::ImageWithoutVersion { image: name.to_owned() };
        let (_, tag) = split(name).ok_or_else(refused)?;
        let version = tag.parse().map_err(|_no_version| refused())?;
        Ok(Self { name: name.to_owned(), version })
    }

    /// The name, as Docker takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version of Qdrant.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The same image in another version: same repository, same variant. A digest belongs to one version, so that there is none for another.
    pub fn at(&self, version: Version) -> Result<Self, Refused> {
        if version == self.version {
            return Ok(self.clone());
        }
        let pinned = || Refused::ImagePinned { image: self.name.clone(), version };
        let (repository, tag) = split(&self.name).filter(|_| !self.name.contains('@')).ok_or_else(pinned)?;
        let v = if tag.starts_with('v') { "v" } else { "" };
        let variant = tag.find(['-', '+']).map_or("", |at| &tag[at..]);
        Ok(Self { name: format!("{repository}:{v}{version}{variant}"), version })
    }

    /// Whether this image may be started on data that `earlier` ran with: the same minor version or the next.
    pub fn may_follow(&self, earlier: &Self) -> bool {
        version::can_restore(earlier.version, self.version).is_ok()
    }
}

/// Repository and tag.
fn split(name: &str) -> Option<(&str, &str)> {
    let untagged = name.split('@').next()?;
    // The colon before the last slash is the registry's port.
    let (repository, tag) = untagged.rsplit_once(':')?;
    (!tag.contains('/')).then_some((repository, tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str, version: &str) -> Result<String, String> {
        let image = Image::new(name).map_err(|error| error.to_string())?;
        image.at(version.parse().unwrap()).map(|image| image.name).map_err(|error| error.to_string())
    }

    #[test]
    fn an_image_of_another_version_is_the_same_under_another_tag() {
        for (name, there) in [
            ("qdrant/qdrant:v1.18.3-unprivileged", "qdrant/qdrant:v1.17.1-unprivileged"),
            ("qdrant/qdrant:v1.18.3", "qdrant/qdrant:v1.17.1"),
            ("qdrant:1.18.3", "qdrant:1.17.1"),
            (
                "registry.internal:5000/qdrant:v1.18.3-gpu-nvidia",
                "registry.internal:5000/qdrant:v1.17.1-gpu-nvidia",
            ),
        ] {
            assert_eq!(at(name, "1.17.1").as_deref(), Ok(there));
            assert_eq!(at(name, "1.18.3").as_deref(), Ok(name));
        }
        let pinned = format!("qdrant/qdrant:v1.18.3@sha256:{}", "ab".repeat(32));
        assert_eq!(at(&pinned, "1.18.3"), Ok(pinned.clone()));
        assert!(at(&pinned, "1.17.1").unwrap_err().contains("digest"));
    }

    #[test]
    fn an_image_without_a_version_is_refused() {
        for name in ["qdrant/qdrant:latest", "qdrant/qdrant", "registry:5000/qdrant", "qdrant@sha256:ab", ""]
        {
            assert!(Image::new(name).unwrap_err().to_string().contains("no version"), "{name}");
        }
    }

    #[test]
    fn data_goes_one_minor_version_up_and_none_down() {
        let image = |version: &str| Image::new(&format!("qdrant/qdrant:v{version}")).unwrap();
        for (earlier, later, may) in [
            ("1.18.3", "1.18.0", true),
            ("1.18.3", "1.19.0", true),
            ("1.18.3", "1.20.0", false),
            ("1.18.3", "1.17.5", false),
            ("1.18.3", "2.18.3", false),
        ] {
            assert_eq!(image(later).may_follow(&image(earlier)), may, "{earlier} to {later}");
        }
    }
}
