//! References to images and artifacts, with skopeo's transport names.

mod docker;
mod podman;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use oci_spec::distribution::Reference as DockerReference;

use crate::digest::Digest;
use crate::error::{Error, Result};
pub use podman::{PodmanPlace, TRANSPORT};

/// What a user names on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// `docker://HOST/REPO[:TAG|@DIGEST]`: in a registry.
    Docker {
        /// As the registry clients normalise it: with host, and with a tag or digest.
        name: DockerReference,
    },
    /// `oci:DIR[:NAME]`: an OCI layout directory.
    Oci {
        /// The directory.
        dir: PathBuf,
        /// The image in it.
        name: Option<String>,
    },
    /// `oci-archive:FILE[:NAME]`: an OCI layout in a tar file.
    OciArchive {
        /// The file.
        file: PathBuf,
        /// The image in it.
        name: Option<String>,
    },
    /// `dir:DIR`: skopeo's folder of loose blobs.
    Dir {
        /// The directory.
        dir: PathBuf,
    },
    /// `containers-storage:[STORAGE]NAME`: in podman's storage.
    ContainersStorage {
        /// Which one.
        place: PodmanPlace,
        /// The image in it.
        name: String,
    },
}

/// How a reference begins.
const TRANSPORTS: [&str; 5] = ["docker://", "oci:", "oci-archive:", "dir:", TRANSPORT];

/// Is this the id of an image, not its name?
fn is_id(name: &str) -> bool {
    name.starts_with('@') || name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Does this begin as a reference with a transport?
pub(crate) fn has_transport(text: &str) -> bool {
    TRANSPORTS.iter().any(|transport| text.starts_with(transport))
}

impl Reference {
    /// Parses a reference, or takes the path of a file or directory that is there: it means what it means to the
    /// reference tool, and a directory too.
    ///
    /// # Errors
    /// Usage.
    pub fn or_path(text: &str) -> Result<Self> {
        let path = PathBuf::from(text);
        let Ok(kind) = std::fs::metadata(&path) else { return text.parse() };
        Ok(match kind.is_dir() {
            true if ["oci-layout", "index.json"].iter().any(|name| path.join(name).exists()) => {
                Reference::Oci { dir: path, name: None }
            }
            true => Reference::Dir { dir: path },
            false => Reference::OciArchive { file: path, name: None },
        })
    }

    /// The name under which an image from here is stored, unless the user gives one.
    pub fn tag_name(&self) -> Option<String> {
        match self {
            Reference::Docker { name } => Some(name.whole()),
            Reference::ContainersStorage { name, .. } if is_id(name) => None,
            _ => self.image_name().filter(|n| !n.starts_with('@')).map(str::to_owned),
        }
    }

    /// The image named inside a layout.
    pub fn image_name(&self) -> Option<&str> {
        match self {
            Reference::Oci { name, .. } | Reference::OciArchive { name, .. } => name.as_deref(),
            Reference::ContainersStorage { name, .. } => Some(name),
            Reference::Docker { .. } | Reference::Dir { .. } => None,
        }
    }

    /// The text that skopeo takes. It refuses a tag beside a digest; the digest counts.
    pub fn skopeo(&self) -> String {
        match self {
            Reference::Docker { name } => match name.digest() {
                Some(digest) => format!("docker://{}/{}@{digest}", name.registry(), name.repository()),
                None => format!("docker://{}", name.whole()),
            },
            other => other.to_string(),
        }
    }

    /// The same repository at a fixed manifest.
    #[must_use]
    pub fn pinned(&self, digest: &Digest) -> Self {
        match self {
            Reference::Docker { name } => Reference::Docker {
                name: DockerReference::with_digest(
                    name.registry().to_owned(),
                    name.repository().to_owned(),
                    digest.to_string(),
                ),
            },
            other => other.clone(),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let split = |rest: &str| match rest.split_once(':') {
            Some((path, name)) => (PathBuf::from(path), Some(name.to_owned()).filter(|n| !n.is_empty())),
            None => (PathBuf::from(rest), None),
        };
        let nonempty = |path: PathBuf| {
            if path.as_os_str().is_empty() {
                return Err(Error::usage(format!("{text:?} names no path")));
            }
            Ok(path)
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            let (dir, name) = split(rest);
            return Ok(Reference::Oci { dir: nonempty(dir)?, name });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (file, name) = split(rest);
            return Ok(Reference::OciArchive { file: nonempty(file)?, name });
        }
        if let Some(rest) = text.strip_prefix("dir:") {
            return Ok(Reference::Dir { dir: nonempty(rest.into())? });
        }
        if let Some(rest) = text.strip_prefix(TRANSPORT) {
            let (place, name) = PodmanPlace::split(rest)?;
            if name.is_empty() {
                return Err(Error::usage(format!("{text:?} names no image"))
                    .with_hint(format!("{place}NAME, as podman images shows it")));
            }
            return Ok(Reference::ContainersStorage { place, name: name.to_owned() });
        }
        for other in ["docker-archive:", "docker-daemon:", "ostree:", "sif:", "tarball:"] {
            if text.starts_with(other) {
                return Err(Error::usage(format!("transport {other} is not supported"))
                    .with_hint(format!("skopeo copy {text} oci:DIR:NAME, then use oci:DIR:NAME")));
            }
        }
        if ["/", "./", "../"].iter().any(|p| text.starts_with(p)) || text == "." || text == ".." {
            return Err(Error::usage(format!("{text:?} is a path, not a reference"))
                .with_hint(format!("oci:{text} for a layout, oci-archive:{text} for an archive")));
        }
        let name = text.strip_prefix("docker://").unwrap_or(text);
        let name = docker::parse(name).map_err(|e| {
            Error::usage(format!("{text:?} is no image reference: {e}"))
                .with_hint("HOST/REPO[:TAG|@DIGEST], oci:DIR[:NAME], oci-archive:FILE[:NAME] or dir:DIR")
        })?;
        Ok(Reference::Docker { name })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = |name: &Option<String>| name.as_ref().map(|n| format!(":{n}")).unwrap_or_default();
        match self {
            Reference::Docker { name } => write!(f, "docker://{}", name.whole()),
            Reference::Oci { dir, name } => write!(f, "oci:{}{}", dir.display(), suffix(name)),
            Reference::OciArchive { file, name } => {
                write!(f, "oci-archive:{}{}", file.display(), suffix(name))
            }
            Reference::Dir { dir } => write!(f, "dir:{}", dir.display()),
            Reference::ContainersStorage { place, name } => write!(f, "{place}{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_parsed_and_shown() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, shown, tag) in [
            ("docker://h:5000/r:t", "docker://h:5000/r:t", Some("h:5000/r:t")),
            ("h.io/a/b", "docker://h.io/a/b:latest", Some("h.io/a/b:latest")),
            (
                "busybox",
                "docker://docker.io/library/busybox:latest",
                Some("docker.io/library/busybox:latest"),
            ),
            ("oci:/d:v1", "oci:/d:v1", Some("v1")),
            ("oci:d", "oci:d", None),
            ("oci:d:h/r:t", "oci:d:h/r:t", Some("h/r:t")),
            ("oci-archive:x.tar:n", "oci-archive:x.tar:n", Some("n")),
            ("oci:/d:@1", "oci:/d:@1", None),
            ("dir:/x", "dir:/x", None),
            ("containers-storage:h/x:1", "containers-storage:h/x:1", Some("h/x:1")),
            ("containers-storage:[overlay@/r+/u]x", "containers-storage:[overlay@/r+/u]x", Some("x")),
            ("containers-storage:@12ab", "containers-storage:@12ab", None),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), shown);
            assert_eq!(reference.tag_name().as_deref(), tag, "{text}");
            assert_eq!(shown.parse::<Reference>().unwrap(), reference);
        }
        let pinned: Reference = format!("h.io/a:t@{digest}").parse().unwrap();
        assert_eq!(pinned.skopeo(), format!("docker://h.io/a@{digest}"));
    }

    #[test]
    fn what_is_no_reference_gets_a_hint() {
        for bad in [
            "/tmp/x",
            "./x",
            "containers-storage:",
            "containers-storage:[/r]",
            "docker-archive:x",
            "oci:",
            "dir:",
            "Docker://x y",
            "h/r:t@sha256:../../x",
            "h/R",
        ] {
            let e = bad.parse::<Reference>().unwrap_err();
            assert_eq!(e.kind(), crate::error::Kind::Usage, "{bad}");
        }
    }
}
