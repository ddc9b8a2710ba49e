//! What this machine's configuration says about a registry (containers-registries.conf(5)
//! version 2, containers-certs.d(5)). It is read as a list of what is allowed: with any key that is not
//! known here, a request of our own might do what skopeo would not, so none is made. The same goes where
//! versions of skopeo do not read the same files.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::places::{Machine, read_bytes};
use crate::proxy::ProxyOptions;

/// The only credential helper that is none: the files of containers-auth.json(5).
const AUTH_FILES: &str = "containers-auth.json";

/// May we ask a registry ourselves, and how?
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rules {
    /// As itself.
    Direct {
        /// Plain HTTP and unknown certificates are allowed.
        insecure: bool,
        /// Further certificates of authorities, as PEM.
        authorities: Vec<Vec<u8>>,
    },
    /// Not by us: the configuration says something that only skopeo honours.
    OnlySkopeo(String),
}

/// What mirrors of a registry mean for requests of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mirrors {
    /// Skopeo would ask them first.
    Matter,
    /// We are asked as one of them.
    AreUs,
}

/// A file; what is not named here is not known, and refused where it matters.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry: Vec<Entry>,
    /// Version 1 of the format, by its tables.
    registries: Option<toml::Value>,
    credential_helpers: Option<Vec<String>>,
    /// About short names, which were resolved before a registry is asked, and layers, which we do not store.
    #[serde(rename = "unqualified-search-registries")]
    _search: Option<toml::Value>,
    #[serde(rename = "short-name-mode")]
    _mode: Option<toml::Value>,
    #[serde(rename = "aliases")]
    _aliases: Option<toml::Value>,
    #[serde(rename = "additional-layer-store-auth-helper")]
    _layer_helper: Option<toml::Value>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror: Vec<toml::Value>,
    /// Says something of mirrors only.
    #[serde(rename = "mirror-by-digest-only")]
    _by_digest: Option<bool>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

impl Entry {
    fn prefix(&self) -> &str {
        self.prefix.as_deref().filter(|p| !p.is_empty()).or(self.location.as_deref()).unwrap_or_default()
    }

    /// How many bytes of `name` (host and repository) this entry speaks of; `None` where of others.
    fn covers(&self, name: &str) -> Option<usize> {
        let prefix = self.prefix();
        let ends = |rest: &str| rest.is_empty() || rest.starts_with(['/', ':', '@']);
        if let Some(domain) = prefix.strip_prefix('*') {
            let host = name.split('/').next().unwrap_or_default();
            // With or without the port.
            let without = host.split(':').next().unwrap_or_default();
            return [host, without].iter().find(|host| host.ends_with(domain)).map(|host| host.len());
        }
        // One for a single tag or digest counts as well: who knows which will be asked for.
        let single = prefix.strip_prefix(name).is_some_and(|rest| rest.starts_with([':', '@']));
        (single || name.strip_prefix(prefix).is_some_and(ends)).then_some(prefix.len())
    }

    /// What only skopeo can do about it.
    fn restriction(&self, mirrors: Mirrors) -> Option<String> {
        let moved = self.location.as_deref().is_some_and(|l| !l.is_empty() && l != self.prefix());
        let unknown = self.unknown.keys().next();
        let what = if self.blocked {
            "is blocked".to_owned()
        } else if !self.mirror.is_empty() && mirrors == Mirrors::Matter {
            "has mirrors".to_owned()
        } else if moved {
            "is elsewhere".to_owned()
        } else {
            format!("has the key {}", unknown?)
        };
        Some(format!("{} {what} by registries.conf", self.prefix()))
    }
}

/// The rules for `host`/`repository`.
pub(super) fn rules(host: &str, repository: &str, options: &ProxyOptions, mirrors: Mirrors) -> Rules {
    let machine = Machine::this();
    let name = format!("{host}/{repository}");
    let insecure = match insecure_here(&name, &machine, options.registries_conf.as_deref(), mirrors) {
        Ok(insecure) => insecure || !options.tls_verify,
        Err(why) => return Rules::OnlySkopeo(why),
    };
    match machine.authorities(host, options.cert_dir.as_deref()) {
        Ok(authorities) => Rules::Direct { insecure, authorities },
        Err(why) => Rules::OnlySkopeo(why),
    }
}

/// Is `name` marked as insecure on this machine? All ways to read its configuration must agree.
fn insecure_here(
    name: &str,
    machine: &Machine,
    named: Option<&Path>,
    mirrors: Mirrors,
) -> Result<bool, String> {
    let mut found = None;
    for files in [machine.files(named)?, machine.files_of_old(named)?] {
        let insecure = insecure(name, &files, mirrors)?;
        if *found.get_or_insert(insecure) != insecure {
            return Err(format!("versions of skopeo disagree on what registries.conf says of {name}"));
        }
    }
    Ok(found.unwrap_or_default())
}

/// Is `name` marked as insecure by these files, of which later ones count more? The error says what only
/// skopeo can do.
fn insecure(name: &str, files: &[PathBuf], mirrors: Mirrors) -> Result<bool, String> {
    let mut entries: HashMap<String, Entry> = HashMap::new();
    for path in files {
        let Some(file) = read(path)? else { continue };
        if file.registries.is_some() {
            return Err(format!("{} has the old format", path.display()));
        }
        if let Some(key) = file.unknown.keys().next() {
            return Err(format!("{} has the key {key}", path.display()));
        }
        if file.credential_helpers.is_some_and(|helpers| helpers.iter().any(|h| h != AUTH_FILES)) {
            return Err(format!("{} names credential helpers", path.display()));
        }
        entries.extend(file.registry.into_iter().map(|entry| (entry.prefix().to_owned(), entry)));
    }
    // Of the longest match; two may be equally long, as `*.a.io` and `b.a.io`.
    let matches = entries.values().filter_map(|entry| Some((entry.covers(name)?, entry)));
    let matches: Vec<_> = matches.collect();
    let longest = matches.iter().map(|(length, _)| *length.min(&name.len())).max();
    let mut chosen =
        matches.iter().filter(|(length, _)| Some(*length.min(&name.len())) == longest).map(|(_, e)| e);
    if let Some(restriction) = chosen.clone().find_map(|entry| entry.restriction(mirrors)) {
        return Err(restriction);
    }
    let marks: Vec<bool> = chosen.by_ref().map(|entry| entry.insecure).collect();
    match marks.iter().all(|mark| *mark == marks[0]) {
        true => Ok(marks.first().copied().unwrap_or_default()),
        false => Err(format!("registries.conf says two things of {name}")),
    }
}

fn read(path: &Path) -> Result<Option<File>, String> {
    let Some(bytes) = read_bytes(path)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| format!("{} is no text", path.display()))?;
    toml::from_str(&text).map(Some).map_err(|e| format!("{}: {}", path.display(), e.message()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// `None` where only skopeo may ask.
    fn marked(text: &str, name: &str) -> Option<bool> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.conf");
        fs::write(&path, text).unwrap();
        insecure(name, &[path], Mirrors::Matter).ok()
    }

    #[test]
    fn what_only_skopeo_honours_is_left_to_it() {
        for (text, name, expected) in [
            ("", "h.io/a", Some(false)),
            ("[[registry]]\nlocation='h.io'\ninsecure=true", "h.io/a/b", Some(true)),
            ("[[registry]]\nlocation='h.io'\ninsecure=true", "h.iox/a", Some(false)),
            ("[[registry]]\nprefix='*.h.io'\nblocked=true", "x.h.io/a", None),
            ("[[registry]]\nprefix='*.h.io'\nblocked=true", "x.h.io:5000/a", None),
            ("[[registry]]\nprefix='*.h.io'\nblocked=true", "xh.io/a", Some(false)),
            ("[[registry]]\nprefix='*.h.io'\ninsecure=true", "x.h.io/a", Some(true)),
            ("[[registry]]\nprefix='h.io'\nlocation='other.io'", "h.io/a", None),
            ("[[registry]]\nlocation='h.io'\n[[registry.mirror]]\nlocation='m.io'", "h.io/a", None),
            (
                "[[registry]]\nlocation='h.io'\nblocked=true\n[[registry]]\nlocation='h.io/ok'",
                "h.io/ok/a",
                Some(false),
            ),
            ("[[registry]]\nlocation='h.io/a:1'\nblocked=true", "h.io/a", None),
            ("[[registry]]\nlocation='h.io'\nproxy='http://p:1'", "h.io/a", None),
            ("[[registry]]\nlocation='h.io'\nproxy='http://p:1'", "other.io/a", Some(false)),
            ("[[registry]]\nlocation='h.io'\nfrom-the-future=1", "h.io/a", None),
            ("[[registry]]\nlocation='h.io'\nmirror-by-digest-only=true", "h.io/a", Some(false)),
            ("[[registry]]\nlocation='h.io'\ninsecure='yes'", "h.io/a", None),
            (
                "unqualified-search-registries=['x']\nshort-name-mode='enforcing'\n[aliases]\na='b'",
                "h.io/a",
                Some(false),
            ),
            ("credential-helpers=['containers-auth.json']", "h.io/a", Some(false)),
            ("credential-helpers=['secretservice']", "h.io/a", None),
            ("from-the-future=1", "h.io/a", None),
            ("[registries.search]\nregistries=['h.io']", "h.io/a", None),
            ("not toml", "h.io/a", None),
        ] {
            assert_eq!(marked(text, name), expected, "{text} {name}");
        }
    }

    /// A machine with these files, each of which says something of `h.io`.
    fn with(files: &[(&str, &str)], user: u32, ask: impl Fn(&Machine)) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let home = Some(root.join("home"));
        ask(&Machine { home, root, config: None, named: None, last: None, user });
    }

    const BLOCKED: &str = "[[registry]]\nlocation='h.io'\nblocked=true";
    const FREE: &str = "[[registry]]\nlocation='h.io'";

    #[test]
    fn all_places_are_read_in_their_order() {
        for (files, user, free) in [
            (&[("usr/share/containers/registries.conf", BLOCKED)][..], 0, false),
            (
                &[
                    ("usr/share/containers/registries.conf", BLOCKED),
                    ("etc/containers/registries.conf", FREE),
                ],
                0,
                true,
            ),
            (&[("usr/share/containers/registries.conf.d/5.conf", BLOCKED)], 0, false),
            // The same name: the later directory. Another name: the order of the names.
            (
                &[
                    ("usr/share/containers/registries.conf.d/5.conf", BLOCKED),
                    ("etc/containers/registries.conf.d/5.conf", FREE),
                ],
                0,
                true,
            ),
            (
                &[
                    ("usr/share/containers/registries.conf.d/9.conf", BLOCKED),
                    ("etc/containers/registries.conf.d/5.conf", FREE),
                ],
                0,
                false,
            ),
            (&[("etc/containers/registries.rootful.conf.d/5.conf", BLOCKED)], 0, false),
            (&[("etc/containers/registries.rootful.conf.d/5.conf", BLOCKED)], 7, true),
            (&[("etc/containers/registries.rootless.conf.d/5.conf", BLOCKED)], 7, false),
            (&[("etc/containers/registries.rootless.conf.d/7/5.conf", BLOCKED)], 7, false),
            (&[("etc/containers/registries.rootless.conf.d/8/5.conf", BLOCKED)], 7, true),
            (&[("home/.config/containers/registries.conf.d/5.conf", BLOCKED)], 7, false),
            (&[("home/.config/containers/registries.conf", BLOCKED)], 7, false),
            (
                &[
                    ("home/.config/containers/registries.conf", FREE),
                    ("etc/containers/registries.conf", BLOCKED),
                ],
                7,
                true,
            ),
            // Skopeo of old lets the user's directory win whatever the names are; so it is not clear.
            (
                &[
                    ("etc/containers/registries.conf.d/9.conf", BLOCKED),
                    ("home/.config/containers/registries.conf.d/5.conf", FREE),
                ],
                7,
                false,
            ),
            (&[("etc/containers/registries.conf.d/5.txt", BLOCKED)], 7, true),
        ] {
            with(files, user, |machine| {
                assert_eq!(
                    insecure_here("h.io/a", machine, None, Mirrors::Matter).is_ok(),
                    free,
                    "{files:?} {user}"
                );
            });
        }
    }

    #[test]
    fn files_may_be_named() {
        let files = [("named", BLOCKED), ("free", FREE), ("etc/containers/registries.conf", FREE)];
        with(&files, 0, |machine| {
            let path = |name: &str| machine.root.join(name);
            let asked = |named: &str, last: &str| {
                let set = |name: &str| Some(path(name)).filter(|_| !name.is_empty());
                let machine = Machine {
                    named: set(named),
                    last: set(last),
                    root: path(""),
                    home: None,
                    config: None,
                    ..*machine
                };
                insecure_here("h.io/a", &machine, None, Mirrors::Matter).is_ok()
            };
            assert!(asked("", "") && asked("free", "") && asked("", "free"));
            assert!(!asked("named", "") && !asked("", "named") && !asked("free", "named"));
            assert!(insecure_here("h.io/a", machine, Some(&path("named")), Mirrors::Matter).is_err());
            assert!(insecure_here("h.io/a", machine, Some(&path("free")), Mirrors::Matter).is_ok());
            assert!(insecure_here("h.io/a", machine, Some(Path::new("/dev/null")), Mirrors::Matter).is_ok());
        });
        // Skopeo of old reads the parts as well, whichever file is named.
        with(&[("etc/containers/registries.conf.d/5.conf", BLOCKED)], 0, |machine| {
            assert!(insecure_here("h.io/a", machine, Some(Path::new("/dev/null")), Mirrors::Matter).is_err());
        });
    }

    #[test]
    fn the_first_directory_of_certificates_is_the_only_one() {
        let here = |text: &'static str| Some(vec![text.as_bytes().to_vec()]);
        for (files, expected) in [
            (&[("etc/containers/certs.d/h:1/a.crt", "a")][..], here("a")),
            (&[("etc/docker/certs.d/h:1/a.crt", "a")], here("a")),
            (&[("etc/docker/certs.d/h:1/a.crt", "a"), ("etc/containers/certs.d/h:1/b.crt", "b")], here("b")),
            (
                &[
                    ("home/.config/containers/certs.d/h:1/c.crt", "c"),
                    ("etc/containers/certs.d/h:1/b.crt", "b"),
                ],
                here("c"),
            ),
            (&[("etc/containers/certs.d/h:1/a.pem", "a")], Some(vec![])),
            (&[("etc/containers/certs.d/h:2/a.crt", "a")], Some(vec![])),
            (&[("etc/containers/certs.d/h:1/a.cert", "a")], None),
            (&[("etc/containers/certs.d/h:1/a.key", "a")], None),
            // Skopeo of old does not look there.
            (&[("usr/share/containers/certs.d/h:1/a.crt", "a")], None),
        ] {
            with(files, 0, |machine| {
                assert_eq!(machine.authorities("h:1", None).ok(), expected, "{files:?}")
            });
        }
    }
}
