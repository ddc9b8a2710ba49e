//! Where podman's storage of this user is: `storage.conf`, as podman and skopeo find and read it.

use std::env;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::reference::PodmanPlace;

/// Largest `storage.conf` in bytes; real ones have a few KiB.
const MAX_SIZE: usize = 1 << 20;

/// Names the file to read instead of all others.
const NAMED: &str = "CONTAINERS_STORAGE_CONF";

/// Where the storage of the system is, if no file says otherwise.
const OF_SYSTEM: &str = "/var/lib/containers/storage";

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    storage: Section,
}

#[derive(Debug, Default, Deserialize)]
struct Section {
    driver: Option<String>,
    graphroot: Option<String>,
    imagestore: Option<String>,
    rootless_storage_path: Option<String>,
    #[serde(default)]
    options: Options,
}

#[derive(Debug, Default, Deserialize)]
struct Options {
    #[serde(default)]
    additionalimagestores: Vec<String>,
}

/// Where a storage is.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub driver: Option<String>,
    /// The storage, and those that it reads images from.
    pub roots: Vec<PathBuf>,
}

impl Found {
    pub(super) fn root(&self) -> &Path {
        self.roots.first().map_or(Path::new(""), PathBuf::as_path)
    }
}

/// A variable of the environment.
type Variable = Box<dyn Fn(&str) -> Option<String>>;

/// What the environment says.
struct Machine {
    rootless: bool,
    get: Variable,
    /// Of the system, the first one that is there.
    of_system: [PathBuf; 2],
}

/// The storage that is named, else that of this user.
///
/// # Errors
/// Usage when a file cannot be read, or nothing tells where the storage is.
pub(super) fn find(place: &PodmanPlace) -> Result<Found> {
    if let Some(root) = place.root() {
        let roots = [root].into_iter().chain(place.further()).map(Path::to_owned).collect();
        return Ok(Found { driver: place.driver().map(str::to_owned), roots });
    }
    let get = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    // Within `podman unshare`, root is the user.
    let unshared = get("_CONTAINERS_USERNS_CONFIGURED").is_some();
    Machine {
        rootless: unshared || !rustix::process::geteuid().is_root(),
        get: Box::new(get),
        of_system: ["/etc/containers/storage.conf", "/usr/share/containers/storage.conf"].map(PathBuf::from),
    }
    .find()
}

impl Machine {
    fn find(&self) -> Result<Found> {
        let (section, is_of_user) = self.section()?;
        let rooms = || {
            let data = (self.get)("XDG_DATA_HOME").map(PathBuf::from);
            let data = data.or_else(|| Some(Path::new(&(self.get)("HOME")?).join(".local/share")))?;
            Some(data.join("containers/storage"))
        };
        // The root of the system's file is the system's.
        let stated = section.graphroot.as_deref().filter(|_| is_of_user || !self.rootless);
        let stated = stated.or(section.rootless_storage_path.as_deref().filter(|_| self.rootless));
        let root = match stated.filter(|path| !path.is_empty()) {
            Some(path) => self.expanded(path),
            None if !self.rootless => OF_SYSTEM.into(),
            None => rooms().ok_or_else(|| {
                Error::usage("podman's storage: neither XDG_DATA_HOME nor HOME is set")
                    .with_hint("name it: containers-storage:[overlay@/ROOT+/RUNROOT]")
            })?,
        };
        let further = section.imagestore.iter().chain(&section.options.additionalimagestores);
        let further = further.filter(|path| !path.is_empty()).map(|path| self.expanded(path));
        let roots = [root].into_iter().chain(further).collect();
        let driver = (self.get)("STORAGE_DRIVER").or(section.driver).filter(|driver| !driver.is_empty());
        Ok(Found { driver, roots })
    }

    /// What the file says that counts, and whether it is the user's own.
    fn section(&self) -> Result<(Section, bool)> {
        if let Some(path) = (self.get)(NAMED) {
            let path = PathBuf::from(path);
            let absent = || Error::usage(format!("{}, named by {NAMED}: no such file", path.display()));
            return Ok((read(&path)?.ok_or_else(absent)?, true));
        }
        if self.rootless {
            let config = (self.get)("XDG_CONFIG_HOME").map(PathBuf::from);
            let config = config.or_else(|| Some(Path::new(&(self.get)("HOME")?).join(".config")));
            if let Some(dir) = config
                && let Some(section) = read(&dir.join("containers/storage.conf"))?
            {
                return Ok((section, true));
            }
        }
        for path in &self.of_system {
            if let Some(section) = read(path)? {
                return Ok((section, false));
            }
        }
        Ok((Section::default(), false))
    }

    /// A path with the variables in it, as `$NAME` or `${NAME}`.
    fn expanded(&self, path: &str) -> PathBuf {
        let mut parts = path.split('$');
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, rest) = match part.strip_prefix('{').and_then(|part| part.split_once('}')) {
                Some(braced) => braced,
                None => {
                    let end = part.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(part.len());
                    part.split_at(end)
                }
            };
            let value = match name {
                "UID" => rustix::process::getuid().as_raw().to_string(),
                name => (self.get)(name).unwrap_or_default(),
            };
            out.push_str(&value);
            out.push_str(rest);
        }
        out.into()
    }
}

fn read(path: &Path) -> Result<Option<Section>> {
    let shown = path.display();
    let text = match std::fs::read(path) {
        Ok(text) if text.len() <= MAX_SIZE => text,
        Ok(_) => return Err(Error::usage(format!("{shown}: larger than {MAX_SIZE} bytes"))),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(Error::from_io(e, shown)),
    };
    let broken = |why: String| Error::usage(format!("{shown}: not a storage.conf: {why}"));
    let text = String::from_utf8(text).map_err(|e| broken(e.to_string()))?;
    let file: File = toml::from_str(&text).map_err(|e| broken(e.to_string()))?;
    Ok(Some(file.storage))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The storage's directories where files say that, and the environment.
    fn roots(rootless: bool, files: &[(&str, &str)], env: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, text) in files {
            std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            std::fs::write(at(name), text).unwrap();
        }
        let base = dir.path().display().to_string();
        let set: Vec<(String, String)> =
            env.iter().map(|(name, value)| ((*name).to_owned(), value.replace("DIR", &base))).collect();
        let get = move |name: &str| set.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        let of_system = [at("etc/storage.conf"), at("usr/storage.conf")];
        let found = Machine { rootless, get: Box::new(get), of_system }.find().unwrap();
        found.roots.iter().map(|root| root.display().to_string().replace(&base, "DIR")).collect()
    }

    const SYSTEM: (&str, &str) = (
        "etc/storage.conf",
        "[storage]\ngraphroot = '/system'\nrunroot = '/run/x'\n[storage.options]\nadditionalimagestores = ['/more']\n",
    );

    #[test]
    fn the_storage_is_found_as_podman_finds_it() {
        let home = [("HOME", "/home/u")];
        assert_eq!(roots(false, &[], &home), [OF_SYSTEM]);
        assert_eq!(roots(false, &[SYSTEM], &home), ["/system", "/more"]);
        assert_eq!(roots(true, &[], &home), ["/home/u/.local/share/containers/storage"]);
        assert_eq!(roots(true, &[], &[("XDG_DATA_HOME", "/data")]), ["/data/containers/storage"]);
        let rootless = ("usr/storage.conf", "[storage]\nrootless_storage_path = '/pool/$USER/x'");
        assert_eq!(roots(true, &[rootless], &[("HOME", "/"), ("USER", "me")]), ["/pool/me/x"]);
        let own = ("home/.config/containers/storage.conf", "[storage]\ngraphroot = '${HOME}/own'");
        assert_eq!(roots(true, &[SYSTEM, own], &[("HOME", "DIR/home")]), ["DIR/home/own"]);
        let named = ("named", "[storage]\ndriver = 'overlay'\ngraphroot = '/named'\nimagestore = '/images'");
        assert_eq!(roots(false, &[SYSTEM, named], &[(NAMED, "DIR/named")]), ["/named", "/images"]);
    }
}
