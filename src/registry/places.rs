//! Where the configuration of this machine is: files of registries.conf and directories of certificates, as
//! skopeo looks for them today and as it did before.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Largest configuration file in bytes; real ones have some KiB.
const MAX_FILE: u64 = 1 << 20;
/// Files of one directory that are read; real ones hold a few.
const MAX_FILES: usize = 1000;
/// A file of configuration; `None` where there is none.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_FILE => Err(format!("{} is too large", path.display())),
        // A pipe would keep us waiting; /dev/null is what people name for nothing.
        Ok(meta) if !meta.is_file() && path != Path::new("/dev/null") => {
            Err(format!("{} is no file", path.display()))
        }
        Ok(_) => fs::read(path).map(Some).map_err(|e| format!("{}: {e}", path.display())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

/// Where configuration is looked for.
#[derive(Debug)]
pub(super) struct Machine {
    /// `/`, but for tests.
    pub root: PathBuf,
    pub home: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`.
    pub config: Option<PathBuf>,
    /// `$CONTAINERS_REGISTRIES_CONF`.
    pub named: Option<PathBuf>,
    /// `$CONTAINERS_REGISTRIES_CONF_OVERRIDE`.
    pub last: Option<PathBuf>,
    pub user: u32,
}

impl Machine {
    pub(super) fn this() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Machine {
            root: PathBuf::from("/"),
            home: set("HOME"),
            config: set("XDG_CONFIG_HOME"),
            named: set("CONTAINERS_REGISTRIES_CONF"),
            last: set("CONTAINERS_REGISTRIES_CONF_OVERRIDE"),
            user: rustix::process::getuid().as_raw(),
        }
    }

    /// The directory of the user's files, as skopeo finds it since it heeds XDG, and before.
    fn of_user(&self) -> [Option<PathBuf>; 2] {
        let home = self.home.as_ref().map(|home| home.join(".config/containers"));
        [self.config.as_ref().map(|config| config.join("containers")).or_else(|| home.clone()), home]
    }

    /// The files as container-libs reads them (configfile, since 2025); later ones count more.
    pub(super) fn files(&self, named: Option<&Path>) -> Result<Vec<PathBuf>, String> {
        let mut files = Vec::new();
        let [user, _] = self.of_user();
        let places = ["usr/share/containers", "etc/containers"].map(|place| self.root.join(place));
        if let Some(named) = named.or(self.named.as_deref()) {
            files.push(named.to_owned());
        } else {
            let main = user.iter().chain(places.iter().rev()).map(|place| place.join("registries.conf"));
            files.extend(main.into_iter().find(|path| path.exists()));
            // Of files with the same name the one in the later directory counts, and names give the order.
            let mut parts: BTreeMap<OsString, PathBuf> = BTreeMap::new();
            let special = if self.user == 0 { "rootful" } else { "rootless" };
            let mut directories = Vec::new();
            for place in &places {
                directories.push(place.join("registries.conf.d"));
                directories.push(place.join(format!("registries.{special}.conf.d")));
                if self.user != 0 {
                    directories.push(place.join(format!("registries.{special}.conf.d/{}", self.user)));
                }
            }
            directories.extend(user.map(|user| user.join("registries.conf.d")));
            for directory in directories {
                let regular = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
                for path in parts_in(&directory)?.into_iter().filter(regular) {
                    parts.extend(path.file_name().map(|name| (name.to_owned(), path.clone())));
                }
            }
            files.extend(parts.into_values());
        }
        files.extend(self.last.clone());
        Ok(files)
    }

    /// The files as skopeo 1.9 to 1.20 read them, which know no environment and no /usr/share.
    pub(super) fn files_of_old(&self, named: Option<&Path>) -> Result<Vec<PathBuf>, String> {
        let [_, user] = self.of_user();
        let system = self.root.join("etc/containers");
        let own = user.iter().map(|user| user.join("registries.conf")).find(|path| path.exists());
        let mut directories = Vec::from_iter(user);
        let main = match (named, own) {
            (Some(named), _) => named.to_owned(),
            (None, Some(own)) => own,
            (None, None) => system.join("registries.conf"),
        };
        if named.is_some() || main.starts_with(&system) {
            directories.insert(0, system);
        }
        let mut files = vec![main];
        for directory in directories {
            files.extend(parts_in(&directory.join("registries.conf.d"))?);
        }
        Ok(files)
    }

    /// Certificates of authorities for a host; client certificates are skopeo's to use.
    pub(super) fn authorities(&self, host: &str, named: Option<&Path>) -> Result<Vec<Vec<u8>>, String> {
        let directory = match named {
            Some(dir) => Some(dir.to_owned()),
            None => {
                // The first one that is there is the only one.
                let first = |user: Option<PathBuf>, others: &[&str]| {
                    let others = others.iter().map(|place| self.root.join(place));
                    let places = user.into_iter().map(|user| user.join("certs.d")).chain(others);
                    places.map(|place| place.join(host)).find(|place| place.exists())
                };
                let [user, of_old] = self.of_user();
                let new = ["etc/containers/certs.d", "usr/share/containers/certs.d", "etc/docker/certs.d"];
                let (now, before) = (first(user, &new), first(of_old, &[new[0], new[2]]));
                if now != before {
                    return Err(format!("versions of skopeo disagree on the certificates for {host}"));
                }
                now
            }
        };
        let Some(directory) = directory else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for path in listed(&directory)? {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => found.extend(read_bytes(&path)?),
                Some("cert" | "key") => return Err(format!("{} is a client certificate", path.display())),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The files of a `registries.conf.d`, by name.
fn parts_in(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let mut parts = listed(directory)?;
    parts.retain(|path| path.extension().is_some_and(|e| e == "conf"));
    Ok(parts)
}

/// What is in a directory, by name; nothing where it is not there.
fn listed(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let broken = |e: std::io::Error| format!("{}: {e}", directory.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(broken(e)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        if paths.len() == MAX_FILES {
            return Err(format!("{} has more than {MAX_FILES} files", directory.display()));
        }
        paths.push(entry.map_err(broken)?.path());
    }
    paths.sort();
    Ok(paths)
}
