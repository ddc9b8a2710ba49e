//! Into a registry: `skopeo copy`, since the image proxy only reads.

use std::path::Path;
use std::process::Stdio;

use super::command::one_shot;
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
    // What is pushed was made here; the policy is about what comes from elsewhere.
    let words = ["--insecure-policy", "copy", "--quiet", "--preserve-digests"];
    let (mut command, _credentials) = one_shot(&words, "dest-", reference, options)?;
    command.arg(format!("oci:{}", dir.display())).arg(reference).stdout(Stdio::null());
    let ended = command.output().await.at(options.skopeo.display())?;
    if ended.status.success() {
        return Ok(());
    }
    Err(classify(&String::from_utf8_lossy(&ended.stderr), false).context(reference))
}
