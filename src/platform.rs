//! Platforms of multi-arch images.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::Descriptor;

use crate::error::{Error, Result};

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

    fn matches(&self, entry: &oci_spec::image::Platform) -> bool {
        let variant = |v: Option<&str>| match (self.architecture.as_str(), v) {
            ("arm64", Some("v8")) => None,
            (_, v) => v.map(str::to_owned),
        };
        let wanted = variant(self.variant.as_deref());
        entry.os().to_string() == self.os
            && entry.architecture().to_string() == self.architecture
            && (wanted.is_none() || wanted == variant(entry.variant().as_deref()))
    }

    /// Is an image with this platform in its config for us? A variant that one of them leaves out is no
    /// difference: configs often have none.
    pub fn accepts(&self, image: &Platform) -> bool {
        let variants = self.variant.as_ref().zip(image.variant.as_ref());
        self.os == image.os
            && self.architecture == image.architecture
            && variants.is_none_or(|(ours, theirs)| ours == theirs)
    }

    /// Chooses the entry of an image index for this platform. An entry that
    /// names no platform serves only where it is the only one.
    ///
    /// # Errors
    /// Misfit when there is none; the message lists those there are.
    pub fn choose<'a>(&self, entries: &'a [Descriptor]) -> Result<&'a Descriptor> {
        if let [only] = entries
            && only.platform().is_none()
        {
            return Ok(only);
        }
        let found = entries.iter().find(|e| e.platform().as_ref().is_some_and(|p| self.matches(p)));
        found.ok_or_else(|| {
            const SHOWN: usize = 20;
            let there: Vec<String> = entries
                .iter()
                .filter_map(|e| e.platform().as_ref())
                .map(|p| format!("{}/{}", p.os(), p.architecture()))
                .take(SHOWN)
                .collect();
            Error::misfit(format!("no image for platform {self}; available: {}", there.join(", ")))
                .with_hint("choose one with --platform")
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
            ("linux/arm", Some(3)),
            ("linux/arm64", Some(5)),
            ("linux/arm64/v8", Some(5)),
            ("linux/s390x", None),
            ("linux/arm/v5", None),
        ] {
            let chosen = wanted.parse::<Platform>().unwrap().choose(&entries).ok();
            assert_eq!(chosen, position.map(|p: usize| &entries[p]), "{wanted}");
        }
        assert!(Platform::host().choose(&entries[..1]).is_ok());
        assert!(Platform::host().choose(&[]).is_err());
    }

    #[test]
    fn platforms_are_parsed() {
        for bad in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
        assert_eq!("linux/arm/v7".parse::<Platform>().unwrap().to_string(), "linux/arm/v7");
    }
}
