//! `policy.json` (containers-policy.json(5)), as far as it is about sigstore's signatures by keys. What else is in such a
//! file is an error: a demand that is passed over would be worse than none.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Key;
use super::Requirement as Demanded;
use super::identity::Identity;
use crate::error::{Error, Result};

/// A place that images come from, as policies name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `docker`, `oci`, `oci-archive` or `dir`.
    pub transport: &'static str,
    /// The names of the place, from the narrowest to the widest.
    pub names: Vec<String>,
}

/// A policy that was read.
#[derive(Debug, Clone)]
pub struct Policy {
    default: Vec<Rule>,
    transports: BTreeMap<String, BTreeMap<String, Vec<Rule>>>,
}

#[derive(Debug, Clone)]
enum Rule {
    Anything,
    Reject,
    Signed { keys: [Key; 1], identity: Identity },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: Once<Once<Vec<Requirement>>>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
enum Requirement {
    InsecureAcceptAnything {},
    Reject {},
    SigstoreSigned {
        #[serde(rename = "keyPath")]
        path: Option<PathBuf>,
        #[serde(rename = "keyData")]
        data: Option<String>,
        #[serde(rename = "signedIdentity")]
        identity: Option<Identity>,
    },
}

/// An object in which no name stands twice.
struct Once<T>(BTreeMap<String, T>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Once(BTreeMap::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Once<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Names<T> {
            type Value = Once<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once<T>, A::Error> {
                let mut found = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    if found.insert(name.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("{name:?} stands there twice")));
                    }
                }
                Ok(Once(found))
            }
        }
        deserializer.deserialize_map(Names(std::marker::PhantomData))
    }
}

impl Policy {
    /// Parses the policy in `file`; `read` gives the files of keys that it names.
    ///
    /// # Errors
    /// Usage for anything in it that is not understood; what `read` says.
    pub fn parse(file: &str, text: &[u8], read: &dyn Fn(&Path) -> Result<Vec<u8>>) -> Result<Self> {
        let refused = |what: String| {
            Error::usage(format!("{file}: {what}")).with_hint(
                "of policies sigstoreSigned with one key, reject and insecureAcceptAnything are understood here; \
                 leave other rules to skopeo",
            )
        };
        let parsed: File = serde_json::from_slice(text).map_err(|e| refused(e.to_string()))?;
        let rules = |found: Vec<Requirement>| -> Result<Vec<Rule>> {
            if found.is_empty() {
                return Err(refused("a list of requirements is empty".into()));
            }
            found.into_iter().map(|one| rule(file, one, read, &refused)).collect()
        };
        let scopes = |Once(scopes): Once<Vec<Requirement>>| -> Result<BTreeMap<String, Vec<Rule>>> {
            scopes.into_iter().map(|(scope, found)| Ok((scope, rules(found)?))).collect()
        };
        let transports = parsed.transports.0.into_iter();
        Ok(Policy {
            default: rules(parsed.default)?,
            transports: transports.map(|(name, found)| Ok((name, scopes(found)?))).collect::<Result<_>>()?,
        })
    }

    /// What is demanded of an image from there that is to be called `name`.
    ///
    /// # Errors
    /// Verification when nothing from there is taken.
    pub(super) fn requirements(&self, scope: &Scope, name: Option<&str>) -> Result<Vec<Demanded<'_>>> {
        let scopes = self.transports.get(scope.transport);
        let narrowest = || {
            let scopes = scopes?;
            scope.names.iter().find_map(|name| scopes.get(name)).or_else(|| scopes.get(""))
        };
        let mut demanded = Vec::new();
        for rule in narrowest().unwrap_or(&self.default) {
            match rule {
                Rule::Anything => {}
                Rule::Reject => {
                    let place = scope.names.first().map_or("", String::as_str);
                    let what = format!("the policy rejects images from {}:{place}", scope.transport);
                    return Err(Error::verification(what));
                }
                Rule::Signed { keys, identity } => {
                    demanded.push(Demanded { keys, identity, name: name.map(str::to_owned) });
                }
            }
        }
        Ok(demanded)
    }
}

fn rule(
    file: &str,
    found: Requirement,
    read: &dyn Fn(&Path) -> Result<Vec<u8>>,
    refused: &dyn Fn(String) -> Error,
) -> Result<Rule> {
    let (path, data, identity) = match found {
        Requirement::InsecureAcceptAnything {} => return Ok(Rule::Anything),
        Requirement::Reject {} => return Ok(Rule::Reject),
        Requirement::SigstoreSigned { path, data, identity } => (path, data, identity),
    };
    let key = match (path, data) {
        (Some(path), None) => Key::parse(path.display().to_string(), &read(&path)?)?,
        (None, Some(data)) => {
            let pem = STANDARD.decode(data).map_err(|e| refused(format!("keyData is not base64: {e}")))?;
            Key::parse(format!("keyData of {file}"), &pem)?
        }
        _ => return Err(refused("sigstoreSigned needs keyPath or keyData, one of them".into())),
    };
    Ok(Rule::Signed { keys: [key], identity: identity.unwrap_or(Identity::MatchRepoDigestOrExact {}) })
}
