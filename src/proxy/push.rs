//! Into a registry: `skopeo copy`, since the image proxy only reads.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use tempfile::NamedTempFile;
use tokio::process::Command;

use super::command::{auth_json, registry_of};
use super::{ProxyOptions, classify, with_retry};
use crate::error::{IoContext as _, Result};

/// Copies the only image or artifact of the OCI layout `dir` to `reference`
/// (`docker://…`), digests unchanged. Blobs that the registry has are not sent.
///
/// # Errors
/// As [`Proxy::manifest`](super::Proxy::manifest), after the allowed retries.
pub async fn push_layout(dir: &Path, reference: &str, options: &ProxyOptions) -> Result<()> {
    with_retry(options.retries, async || push_once(dir, reference, options).await).await
}

async fn push_once(dir: &Path, reference: &str, options: &ProxyOptions) -> Result<()> {
    let mut command = Command::new(&options.skopeo);
    if let Some(file) = &options.registries_conf {
        command.arg("--registries-conf").arg(file);
    }
    // What is pushed was made here; the policy is about what comes from elsewhere.
    command.args(["--insecure-policy", "copy", "--quiet", "--preserve-digests"]);
    if !options.tls_verify {
        command.arg("--dest-tls-verify=false");
    }
    if let Some(dir) = &options.cert_dir {
        command.arg("--dest-cert-dir").arg(dir);
    }
    let credentials = match (&options.creds, registry_of(reference)) {
        (Some(creds), Some(registry)) => {
            let mut file = NamedTempFile::new().at("writing credentials for skopeo")?;
            file.write_all(auth_json(registry, creds).as_bytes()).at("writing credentials for skopeo")?;
            Some(file)
        }
        _ => None,
    };
    if let Some(file) = credentials.as_ref().map(NamedTempFile::path).or(options.authfile.as_deref()) {
        command.arg("--dest-authfile").arg(file);
    }
    command.arg(format!("oci:{}", dir.display())).arg(reference);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let ended = command.output().await.at(options.skopeo.display())?;
    if ended.status.success() {
        return Ok(());
    }
    Err(classify(&String::from_utf8_lossy(&ended.stderr), false).context(reference))
}
