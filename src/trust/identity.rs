//! Which name a signature must be for (`signedIdentity`, containers-policy.json(5)).

use serde::Deserialize;

use crate::reference::Reference;

/// The name that must have been signed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Identity {
    /// Any.
    #[serde(skip)]
    Any,
    /// The same; of an image that is named by digest, the same repository.
    MatchRepoDigestOrExact {},
    /// The same repository.
    MatchRepository {},
    /// This repository.
    ExactRepository {
        /// With its host.
        #[serde(rename = "dockerRepository")]
        repository: String,
    },
    /// As the first, with another beginning.
    #[serde(rename = "remapIdentity")]
    Remap {
        /// Of the image's name.
        prefix: String,
        /// What it stands for in the signature.
        #[serde(rename = "signedPrefix")]
        signed_prefix: String,
    },
}

impl Identity {
    /// Does the name `signed` serve for an image that is called `name`?
    pub(super) fn check(&self, name: Option<&str>, signed: &str) -> Result<(), String> {
        if *self == Identity::Any {
            return Ok(());
        }
        let found = Name::parse(signed).ok_or_else(|| format!("it is for {signed:?}, which is no name"))?;
        if let Identity::ExactRepository { repository } = self {
            let wanted = Name::parse(repository).map(|name| name.repository);
            return match wanted.as_ref() == Some(&found.repository) {
                true => Ok(()),
                false => Err(format!("it is for {signed}, not for {repository}")),
            };
        }
        let name = name.ok_or("the image has no name of a registry that the signed one could match")?;
        let name = match self {
            Identity::Remap { prefix, signed_prefix } => remapped(name, prefix, signed_prefix),
            _ => name.to_owned(),
        };
        let wanted =
            Name::parse(&name).ok_or_else(|| format!("the image's name {name:?} is none of a registry"))?;
        let same_repository = wanted.repository == found.repository;
        let serves = match (self, &wanted.rest) {
            (Identity::MatchRepository {}, _) => same_repository,
            (_, rest) if rest.starts_with('@') => same_repository,
            (_, rest) => same_repository && *rest == found.rest && !rest.is_empty(),
        };
        if serves { Ok(()) } else { Err(format!("it is for {signed}, not for {name}")) }
    }
}

/// The name with the other beginning, where it has the first one as a whole: up to a border of its parts.
fn remapped(name: &str, prefix: &str, signed_prefix: &str) -> String {
    match name.strip_prefix(prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with(['/', ':', '@']) => {
            format!("{signed_prefix}{rest}")
        }
        _ => name.to_owned(),
    }
}

/// A name in a registry, in its parts.
#[derive(Debug)]
struct Name {
    /// With its host.
    repository: String,
    /// `:TAG`, `@DIGEST`, both as they stand, or nothing.
    rest: String,
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let last = text.rfind('/').map_or(0, |at| at + 1);
        // Of a host alone the colon is its port; names have a path, but for those of Docker's own registry.
        let end = text.find('@').into_iter().chain(text[last..].find(':').map(|at| last + at)).min();
        let (repository, rest) = text.split_at(end.unwrap_or(text.len()));
        let digested = rest.find('@').filter(|at| *at > 0);
        match format!("docker://{repository}").parse().ok()? {
            Reference::Docker { name } => Some(Name {
                repository: format!("{}/{}", name.registry(), name.repository()),
                // A tag beside a digest counts as c/image counts it: the tag.
                rest: rest[..digested.unwrap_or(rest.len())].to_owned(),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_the_policy_says() {
        let exact = Identity::MatchRepoDigestOrExact {};
        let repository = Identity::MatchRepository {};
        let this = Identity::ExactRepository { repository: "r.example/os".into() };
        let remap = Identity::Remap { prefix: "mirror:5000/x".into(), signed_prefix: "r.example".into() };
        let digest = format!("r.example/os@sha256:{}", "a".repeat(64));
        for (identity, name, signed, good) in [
            (&exact, Some("r.example/os:1"), "r.example/os:1", true),
            (&exact, Some("r.example/os:1"), "r.example/os", false),
            (&exact, Some("r.example/os:1"), "r.example/os:2", false),
            (&exact, Some(&*digest), "r.example/os", true),
            (&exact, Some(&*digest), "r.example/other", false),
            (&exact, Some("busybox:1"), "docker.io/library/busybox:1", true),
            (&exact, None, "r.example/os:1", false),
            (&repository, Some("r.example/os:1"), "r.example/os", true),
            (&repository, Some("r.example/os:1"), "r.example/os2", false),
            (&repository, Some("r.example:5000/os:1"), "r.example/os", false),
            (&this, None, "r.example/os:7", true),
            (&this, Some("r.example/os:7"), "r.example/os/sub:7", false),
            (&remap, Some("mirror:5000/x/os:1"), "r.example/os:1", true),
            (&remap, Some("mirror:5000/xy/os:1"), "r.example/os:1", false),
            (&remap, Some("r.example/os:1"), "r.example/os:1", true),
            (&repository, Some("r.example/os:1"), "NOT A NAME", false),
            (&repository, Some("r.example/os:1"), "", false),
            (&Identity::Any, None, "", true),
        ] {
            assert_eq!(identity.check(name, signed).is_ok(), good, "{identity:?} {name:?} {signed}");
        }
    }
}
