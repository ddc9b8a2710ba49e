//! Credentials for a registry, from where skopeo and podman keep them
//! (containers-auth.json(5)): namespaced keys and credential helpers included.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::access::Login;

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

/// The credentials for `host`/`repository`. `named` is the file that the user named; a helper may take as
/// long as `patience`. The error says what only skopeo can use.
pub(super) async fn credentials(
    host: &str,
    repository: &str,
    named: Option<&Path>,
    patience: Duration,
) -> Result<Option<Login>, String> {
    let files = named.map_or_else(default_files, |path| vec![path.to_owned()]);
    for path in files {
        let file: File = match read(&path)? {
            Some(file) => file,
            None => continue,
        };
        let found = match lookup(&file, host, repository) {
            Ok(Found::Login(login)) => Ok(Some(login)),
            Ok(Found::Helper(helper)) => ask_helper(&helper, host, patience).await,
            Ok(Found::Nothing) => Ok(None),
            Err(e) => Err(e),
        };
        if let Some(login) = found.map_err(|e| format!("{}: {e}", path.display()))? {
            return Ok(Some(login));
        }
    }
    Ok(None)
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

/// What a file has for a repository.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Login(Login),
    /// This program knows.
    Helper(String),
    Nothing,
}

/// `host/a/b`, `host/a`, `host`: the longest key counts. Helpers are for hosts.
fn lookup(file: &File, host: &str, repository: &str) -> Result<Found, String> {
    if let Some(helper) = file.cred_helpers.get(host) {
        return Ok(Found::Helper(helper.clone()));
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
    Ok(file.creds_store.as_ref().map_or(Found::Nothing, |helper| Found::Helper(helper.clone())))
}

fn decode(auth: &Auth) -> Result<Found, String> {
    if !auth.identitytoken.is_empty() {
        return Err("has an identity token".into());
    }
    if auth.auth.is_empty() {
        return Ok(Found::Nothing);
    }
    let broken = || "has credentials that cannot be read".to_owned();
    let text = STANDARD.decode(auth.auth.trim()).map_err(|_| broken())?;
    let text = String::from_utf8(text).map_err(|_| broken())?;
    let (user, password) = text.split_once(':').ok_or_else(broken)?;
    Ok(Found::Login(Login { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned() }))
}

/// Runs `docker-credential-HELPER get` (the protocol of docker-credential-helpers), for as long as `patience`.
async fn ask_helper(helper: &str, host: &str, patience: Duration) -> Result<Option<Login>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let failed = |what: String| format!("the credential helper {helper} {what}");
    // Names of files and not of places.
    if helper.is_empty() || helper.contains('/') {
        return Err(failed("has no name of a program".into()));
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let talk = async {
        if let Some(mut stdin) = stdin {
            // One that wants no input says what it wants with its answer.
            let _ = stdin.write_all(host.as_bytes()).await;
        }
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MAX_FILE).read_to_end(&mut answer).await?;
        }
        std::io::Result::Ok((child.wait().await?, answer))
    };
    let (status, answer) = tokio::time::timeout(patience, talk)
        .await
        .map_err(|_| failed(format!("did not answer within {:.1} s", patience.as_secs_f64())))?
        .map_err(|e| failed(e.to_string()))?;
    if !status.success() {
        let absent = String::from_utf8_lossy(&answer).contains("credentials not found");
        return if absent { Ok(None) } else { Err(failed("failed".into())) };
    }
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| failed("answers nonsense".into()))?;
    if answer.username == "<token>" {
        return Err(failed("gives an identity token".into()));
    }
    Ok(Some(Login { user: answer.username, password: answer.secret }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, host: &str, repository: &str) -> Result<Found, String> {
        lookup(&serde_json::from_str(json).unwrap(), host, repository)
    }

    fn basic(user: &str, password: &str) -> Result<Found, String> {
        Ok(Found::Login(Login { user: user.into(), password: password.into() }))
    }

    #[test]
    fn the_longest_key_counts() {
        // a:1 for the host, b:2 for a namespace
        let json = r#"{"auths": {"h:5000": {"auth": "YToxCg=="}, "h:5000/ns": {"auth": "Yjoy"}}}"#;
        assert_eq!(found(json, "h:5000", "ns/repo"), basic("b", "2"));
        assert_eq!(found(json, "h:5000", "nsx/repo"), basic("a", "1\n"));
        assert_eq!(found(json, "other", "ns/repo"), Ok(Found::Nothing));
    }

    #[test]
    fn dockers_keys_are_addresses() {
        let json = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "Yjoy"}}}"#;
        assert_eq!(found(json, "docker.io", "library/x"), basic("b", "2"));
        assert_eq!(found(json, "docker.iox", "library/x"), Ok(Found::Nothing));
    }

    #[test]
    fn what_only_skopeo_can_use_is_an_error() {
        for json in [
            r#"{"auths": {"h": {"auth": "Yjoy", "identitytoken": "x"}}}"#,
            r#"{"auths": {"h": {"auth": "!"}}}"#,
        ] {
            assert!(found(json, "h", "r").is_err(), "{json}");
        }
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_is_an_error() {
        assert_eq!(found(r#"{"credHelpers": {"h": "x"}}"#, "h", "r"), Ok(Found::Helper("x".into())));
        for helper in ["is-not-there", "", "../bin/true"] {
            assert!(ask_helper(helper, "h", Duration::from_secs(5)).await.is_err(), "{helper}");
        }
    }
}
