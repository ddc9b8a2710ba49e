//! What this machine's configuration says about a registry (containers-registries.conf(5)
//! version 2, containers-certs.d(5)). Only as much is read as is needed to tell whether
//! a request of our own would do what skopeo does; where it would not, none is made.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Largest configuration file in bytes; real ones have some KiB.
const MAX_FILE: u64 = 1 << 20;

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

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Entry>,
    /// Version 1 of the format, by its tables.
    registries: Option<toml::Value>,
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
}

impl Entry {
    fn prefix(&self) -> &str {
        self.prefix.as_deref().or(self.location.as_deref()).unwrap_or_default()
    }

    /// Does this entry speak of `name` (host and repository)?
    fn covers(&self, name: &str) -> bool {
        let prefix = self.prefix();
        if let Some(domain) = prefix.strip_prefix("*.") {
            let (host, _) = name.split_once('/').unwrap_or((name, ""));
            return host.strip_suffix(domain).is_some_and(|sub| sub.ends_with('.'));
        }
        name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']))
    }
}

/// The rules for `host`/`repository`. `conf` and `certs` are what the user named instead of the default places.
pub(super) fn rules(host: &str, repository: &str, conf: Option<&Path>, certs: Option<&Path>) -> Rules {
    rules_of(host, repository, &conf_files(conf), certs)
}

fn rules_of(host: &str, repository: &str, files: &[PathBuf], certs: Option<&Path>) -> Rules {
    let name = format!("{host}/{repository}");
    let mut found: Option<Entry> = None;
    for path in files {
        let file = match read(path) {
            Ok(Some(file)) => file,
            Ok(None) => continue,
            Err(why) => return Rules::OnlySkopeo(why),
        };
        if file.registries.is_some() {
            return Rules::OnlySkopeo(format!("{} has the old format", path.display()));
        }
        // A later file overrides the same prefix; the longest prefix counts.
        for entry in file.registry.into_iter().filter(|e| e.covers(&name)) {
            if found.as_ref().is_none_or(|f| entry.prefix().len() >= f.prefix().len()) {
                found = Some(entry);
            }
        }
    }
    let entry = found.unwrap_or_default();
    let moved = entry.location.as_deref().is_some_and(|l| l != entry.prefix());
    for (says, what) in
        [(entry.blocked, "is blocked"), (!entry.mirror.is_empty(), "has mirrors"), (moved, "is elsewhere")]
    {
        if says {
            return Rules::OnlySkopeo(format!("{} {what} by registries.conf", entry.prefix()));
        }
    }
    match authorities(host, certs) {
        Ok(authorities) => Rules::Direct { insecure: entry.insecure, authorities },
        Err(why) => Rules::OnlySkopeo(why),
    }
}

/// The files in the order in which they count, last wins.
fn conf_files(named: Option<&Path>) -> Vec<PathBuf> {
    if let Some(named) = named.map(Path::to_owned).or_else(|| {
        std::env::var_os("CONTAINERS_REGISTRIES_CONF").filter(|v| !v.is_empty()).map(PathBuf::from)
    }) {
        return vec![named];
    }
    let user = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))
        .map(|config| config.join("containers"));
    let system = PathBuf::from("/etc/containers");
    let main = user.iter().map(|u| u.join("registries.conf")).find(|p| p.exists());
    let mut files = vec![main.unwrap_or_else(|| system.join("registries.conf"))];
    for dir in std::iter::once(system).chain(user) {
        let entries = fs::read_dir(dir.join("registries.conf.d")).into_iter().flatten().flatten();
        let mut more: Vec<PathBuf> =
            entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "conf")).collect();
        more.sort();
        files.extend(more);
    }
    files
}

fn read(path: &Path) -> Result<Option<File>, String> {
    let text = match fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_FILE => return Err(format!("{} is too large", path.display())),
        Ok(_) => fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("{}: {e}", path.display())),
    };
    toml::from_str(&text).map(Some).map_err(|e| format!("{}: {}", path.display(), e.message()))
}

/// Certificates of authorities for a host; client certificates are skopeo's to use.
fn authorities(host: &str, named: Option<&Path>) -> Result<Vec<Vec<u8>>, String> {
    let mut dirs: Vec<PathBuf> = match named {
        Some(dir) => vec![dir.to_owned()],
        None => ["/etc/containers/certs.d", "/etc/docker/certs.d"]
            .iter()
            .map(|place| Path::new(place).join(host))
            .collect(),
    };
    if named.is_none()
        && let Some(home) = std::env::var_os("HOME")
    {
        dirs.push(Path::new(&home).join(".config/containers/certs.d").join(host));
    }
    let mut found = Vec::new();
    for entry in dirs.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten()) {
        let path = entry.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => found.push(fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?),
            Some("cert" | "key") => return Err(format!("{} is a client certificate", path.display())),
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_by(text: &str, name: &str) -> Rules {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.conf");
        fs::write(&path, text).unwrap();
        let (host, repository) = name.split_once('/').unwrap();
        rules_of(host, repository, &[path], Some(dir.path()))
    }

    #[test]
    fn what_only_skopeo_honours_is_left_to_it() {
        let direct = |insecure| Rules::Direct { insecure, authorities: vec![] };
        for (text, name, expected) in [
            ("", "h.io/a", Some(direct(false))),
            ("[[registry]]\nlocation='h.io'\ninsecure=true", "h.io/a/b", Some(direct(true))),
            ("[[registry]]\nlocation='h.io'\ninsecure=true", "h.iox/a", Some(direct(false))),
            ("[[registry]]\nprefix='*.h.io'\nblocked=true", "x.h.io/a", None),
            ("[[registry]]\nprefix='*.h.io'\nblocked=true", "xh.io/a", Some(direct(false))),
            ("[[registry]]\nprefix='h.io'\nlocation='other.io'", "h.io/a", None),
            ("[[registry]]\nlocation='h.io'\n[[registry.mirror]]\nlocation='m.io'", "h.io/a", None),
            (
                "[[registry]]\nlocation='h.io'\nblocked=true\n[[registry]]\nlocation='h.io/ok'",
                "h.io/ok/a",
                Some(direct(false)),
            ),
            ("[registries.search]\nregistries=['h.io']", "h.io/a", None),
            ("not toml", "h.io/a", None),
        ] {
            let found = rules_by(text, name);
            match expected {
                Some(expected) => assert_eq!(found, expected, "{text}"),
                None => assert!(matches!(found, Rules::OnlySkopeo(_)), "{text}: {found:?}"),
            }
        }
    }
}
