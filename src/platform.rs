//! Platforms of multi-arch images.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::Descriptor;

use crate::error::{Advice, Error, Result};

/// Operating system, architecture and variant, in Go's names as OCI uses them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v8`, `v7`, …
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            other => (other, None),
        };
        Platform {
            os: std::env::consts::OS.into(),
            architecture: architecture.into(),
            variant: variant.map(Into::into),
        }
    }

    /// What an index says of one of its entries, if it is a platform.
    pub fn of(entry: &Descriptor) -> Option<Self> {
        let named = entry.platform().as_ref()?;
        let variant = named.variant().as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
        format!("{}/{}{variant}", named.os(), named.architecture()).parse().ok()
    }

    /// The variants to look for, best first, as skopeo does: without one, an entry without one comes first.
    fn variants(&self) -> Vec<&str> {
        let order: &[&str] = match self.architecture.as_str() {
            "arm" => &["v8", "v7", "v6", "v5"],
            "arm64" => &["v8"],
            _ => &[],
        };
        match self.variant.as_deref() {
            None => std::iter::once("").chain(order.iter().copied()).collect(),
            Some(variant) => {
                let later = order.iter().skip_while(|known| **known != variant).skip(1);
                std::iter::once(variant).chain(later.copied()).chain([""]).collect()
            }
        }
    }

    /// Is an image with this platform in its config for us? A variant that one of them leaves out is no
    /// difference: configs often have none.
    pub fn accepts(&self, image: &Platform) -> bool {
        let variants = self.variant.as_ref().zip(image.variant.as_ref());
        self.os == image.os
            && self.architecture == image.architecture
            && variants.is_none_or(|(ours, theirs)| ours == theirs)
    }

    /// Chooses the entry of an image index for this platform. Where none names it, an entry that names no
    /// platform serves.
    ///
    /// # Errors
    /// Misfit when there is none; the message lists those there are.
    pub fn choose<'a>(
        &self,
        entries: impl Iterator<Item = &'a Descriptor> + Clone,
    ) -> Result<&'a Descriptor> {
        let ours = |entry: &&Descriptor, variant: &str| {
            entry.platform().as_ref().is_some_and(|p| {
                p.os().to_string() == self.os
                    && p.architecture().to_string() == self.architecture
                    && p.variant().as_deref().unwrap_or_default() == variant
            })
        };
        let named = self.variants().into_iter().find_map(|v| entries.clone().find(|entry| ours(entry, v)));
        let mut unnamed = entries.clone().filter(|entry| entry.platform().is_none());
        // What says of itself that it is no image comes last.
        let image = || unnamed.clone().find(|entry| entry.artifact_type().is_none());
        named.or_else(image).or_else(|| unnamed.next()).ok_or_else(|| {
            const SHOWN: usize = 20;
            let there: Vec<String> = entries
                .filter_map(|e| e.platform().as_ref())
                .map(|p| format!("{}/{}", p.os(), p.architecture()))
                .take(SHOWN)
                .collect();
            Error::misfit(format!("no image for platform {self}; available: {}", there.join(", ")))
                .with_hint(Advice::ChoosePlatform)
        })
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let good = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        match parts[..] {
            [os, architecture] | [os, architecture, _] if parts.iter().all(good) => Ok(Platform {
                os: os.into(),
                architecture: architecture.into(),
                variant: parts.get(2).map(|v| (*v).to_owned()),
            }),
            _ => Err(format!("{text:?} is not os/arch[/variant], such as linux/arm64")),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(platform: Option<(&str, &str, Option<&str>)>) -> Descriptor {
        let mut json = serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{}", "a".repeat(64)),
            "size": 1,
        });
        if let Some((os, architecture, variant)) = platform {
            json["platform"] = serde_json::json!({"os": os, "architecture": architecture});
            if let Some(variant) = variant {
                json["platform"]["variant"] = variant.into();
            }
        }
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_right_entry_is_chosen() {
        let entries = [
            entry(None),
            entry(Some(("unknown", "unknown", None))),
            entry(Some(("linux", "amd64", None))),
            entry(Some(("linux", "arm", Some("v6")))),
            entry(Some(("linux", "arm", Some("v7")))),
            entry(Some(("linux", "arm64", Some("v8")))),
        ];
        for (wanted, position) in [
            ("linux/amd64", Some(2)),
            ("linux/arm/v7", Some(4)),
            ("linux/arm", Some(4)),
            ("linux/arm64", Some(5)),
            ("linux/arm64/v8", Some(5)),
            ("linux/s390x", None),
            ("linux/arm/v5", None),
            ("linux/arm/v8", Some(4)),
        ] {
            let wanted = wanted.parse::<Platform>().unwrap();
            assert_eq!(
                wanted.choose(entries[1..].iter()).ok(),
                position.map(|p: usize| &entries[p]),
                "{wanted}"
            );
            // As skopeo: better one that says nothing than none.
            assert_eq!(wanted.choose(entries.iter()).unwrap(), &entries[position.unwrap_or(0)], "{wanted}");
        }
        let mut artifact = entry(None);
        artifact.set_artifact_type(Some("application/spdx+json".into()));
        assert_eq!(Platform::host().choose([&artifact, &entries[0]].into_iter()).unwrap(), &entries[0]);
        assert_eq!(Platform::host().choose([&artifact].into_iter()).unwrap(), &artifact);
        assert!(Platform::host().choose([].into_iter()).is_err());
    }

    #[test]
    fn platforms_are_parsed() {
        for bad in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
        assert_eq!("linux/arm/v7".parse::<Platform>().unwrap().to_string(), "linux/arm/v7");
    }
}
