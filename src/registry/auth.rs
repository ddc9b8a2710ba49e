//! Credentials for a registry, from where skopeo and podman keep them
//! (containers-auth.json(5)): namespaced keys and credential helpers included.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

/// Largest credentials file, and largest answer of a helper, in bytes.
const MAX_FILE: u64 = 4 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: HashMap<String, Auth>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    identitytoken: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(…)")
    }
}

/// The credentials for `host`/`repository`. `named` is the file that the user named.
/// The error says what only skopeo can use.
pub(super) fn credentials(
    host: &str,
    repository: &str,
    named: Option<&Path>,
) -> Result<RegistryAuth, String> {
    let files = named.map_or_else(default_files, |path| vec![path.to_owned()]);
    for path in files {
        let file: File = match read(&path)? {
            Some(file) => file,
            None => continue,
        };
        if let Some(auth) = lookup(&file, host, repository).map_err(|e| format!("{}: {e}", path.display()))? {
            return Ok(auth);
        }
    }
    Ok(RegistryAuth::Anonymous)
}

/// The files in the order in which they are asked.
fn default_files() -> Vec<PathBuf> {
    let place = |variable: &str, rest: &str| std::env::var_os(variable).map(|dir| Path::new(&dir).join(rest));
    let uid = rustix::process::getuid().as_raw();
    [
        place("XDG_RUNTIME_DIR", "containers/auth.json")
            .or_else(|| Some(PathBuf::from(format!("/run/containers/{uid}/auth.json")))),
        place("XDG_CONFIG_HOME", "containers/auth.json"),
        place("HOME", ".config/containers/auth.json"),
        place("DOCKER_CONFIG", "config.json").or_else(|| place("HOME", ".docker/config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn read(path: &Path) -> Result<Option<File>, String> {
    let bytes = match fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_FILE => return Err(format!("{} is too large", path.display())),
        Ok(_) => fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("{}: {e}", path.display())),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|_| format!("{} is no credentials file", path.display()))
}

/// `host/a/b`, `host/a`, `host`: the longest key counts. Helpers are for hosts.
fn lookup(file: &File, host: &str, repository: &str) -> Result<Option<RegistryAuth>, String> {
    if let Some(helper) = file.cred_helpers.get(host) {
        return ask_helper(helper, host);
    }
    let mut key = format!("{host}/{repository}");
    loop {
        if let Some(auth) = file.auths.get(&key) {
            return decode(auth);
        }
        match key.rfind('/') {
            Some(slash) => key.truncate(slash),
            None => break,
        }
    }
    // Docker writes addresses for keys.
    let bare = |key: &str| {
        let host = key.trim_start_matches("https://").trim_start_matches("http://");
        host.split('/').next().unwrap_or_default().to_owned()
    };
    let docker = host == "docker.io";
    for (key, auth) in &file.auths {
        if key.contains("://") && (bare(key) == host || docker && bare(key) == "index.docker.io") {
            return decode(auth);
        }
    }
    match &file.creds_store {
        Some(helper) => ask_helper(helper, host),
        None => Ok(None),
    }
}

fn decode(auth: &Auth) -> Result<Option<RegistryAuth>, String> {
    if !auth.identitytoken.is_empty() {
        return Err("has an identity token".into());
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let broken = || "has credentials that cannot be read".to_owned();
    let text = STANDARD.decode(auth.auth.trim()).map_err(|_| broken())?;
    let text = String::from_utf8(text).map_err(|_| broken())?;
    let (user, password) = text.split_once(':').ok_or_else(broken)?;
    Ok(Some(RegistryAuth::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned())))
}

/// Runs `docker-credential-HELPER get` (the protocol of docker-credential-helpers).
fn ask_helper(helper: &str, host: &str) -> Result<Option<RegistryAuth>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let failed = |what: String| format!("the credential helper {helper} {what}");
    let name = format!("docker-credential-{helper}");
    let mut child = Command::new(&name)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that wants no input says what it wants with its answer.
        let _ = stdin.write_all(host.as_bytes());
    }
    let mut answer = String::new();
    let read = child.stdout.take().map(|out| out.take(MAX_FILE).read_to_string(&mut answer));
    let status = child.wait().map_err(|e| failed(e.to_string()))?;
    read.transpose().map_err(|e| failed(e.to_string()))?;
    if !status.success() {
        let absent = answer.contains("credentials not found");
        return if absent { Ok(None) } else { Err(failed("failed".into())) };
    }
    let answer: Answer = serde_json::from_str(&answer).map_err(|_| failed("answers nonsense".into()))?;
    if answer.username == "<token>" {
        return Err(failed("gives an identity token".into()));
    }
    Ok(Some(RegistryAuth::Basic(answer.username, answer.secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, host: &str, repository: &str) -> Result<Option<RegistryAuth>, String> {
        lookup(&serde_json::from_str(json).unwrap(), host, repository)
    }

    fn basic(user: &str, password: &str) -> Result<Option<RegistryAuth>, String> {
        Ok(Some(RegistryAuth::Basic(user.into(), password.into())))
    }

    #[test]
    fn the_longest_key_counts() {
        // a:1 for the host, b:2 for a namespace
        let json = r#"{"auths": {"h:5000": {"auth": "YToxCg=="}, "h:5000/ns": {"auth": "Yjoy"}}}"#;
        assert_eq!(found(json, "h:5000", "ns/repo"), basic("b", "2"));
        assert_eq!(found(json, "h:5000", "nsx/repo"), basic("a", "1\n"));
        assert_eq!(found(json, "other", "ns/repo"), Ok(None));
    }

    #[test]
    fn dockers_keys_are_addresses() {
        let json = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "Yjoy"}}}"#;
        assert_eq!(found(json, "docker.io", "library/x"), basic("b", "2"));
        assert_eq!(found(json, "docker.iox", "library/x"), Ok(None));
    }

    #[test]
    fn what_only_skopeo_can_use_is_an_error() {
        for json in [
            r#"{"auths": {"h": {"auth": "Yjoy", "identitytoken": "x"}}}"#,
            r#"{"auths": {"h": {"auth": "!"}}}"#,
            r#"{"credHelpers": {"h": "is-not-there"}}"#,
        ] {
            assert!(found(json, "h", "r").is_err(), "{json}");
        }
    }
}
