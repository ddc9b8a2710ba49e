//! Out of this machine's layouts: `skopeo copy`, since the image proxy only reads.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep};

use super::command::one_shot;
use super::{ProxyOptions, classify};
use crate::child::started;
use crate::error::{Error, IoContext as _, Result};

/// Most bytes of what skopeo says that are read.
const MAX_SAID: u64 = 1 << 20;

/// Fewer bytes than this within the time allowed are no progress: wake-ups within the process, not an upload.
const LEAST: u64 = 512;

/// The longest push where the kernel does not count what a process reads and writes.
const LONGEST_UNSEEN: Duration = Duration::from_secs(3600);

/// Copies the only image or artifact of the OCI layout `dir` to `reference`
/// (`docker://…`), digests unchanged. Blobs that the registry has are not sent.
///
/// # Errors
/// As [`Proxy::manifest`](super::Proxy::manifest), after the allowed retries.
pub async fn push_layout(dir: &Path, reference: &str, options: &ProxyOptions) -> Result<()> {
    copy_out(&format!("oci:{}", dir.display()), reference, Digests::Stay, options).await
}

/// What a copy may do to digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digests {
    /// They stay, or there is no copy.
    Stay,
    /// They may change where the destination wants another form.
    MayChange,
}

/// Copies the image `from` on this machine to the place `to`, both in skopeo's words. Blobs that are there are not
/// sent.
///
/// # Errors
/// As [`Proxy::manifest`](super::Proxy::manifest), after the allowed retries.
pub async fn copy_out(from: &str, to: &str, digests: Digests, options: &ProxyOptions) -> Result<()> {
    options.attempts().run(|| copy_once(from, to, digests, options)).await
}

async fn copy_once(from: &str, reference: &str, digests: Digests, options: &ProxyOptions) -> Result<()> {
    // What is copied is here already; the policy is about what comes from elsewhere.
    let mut words = vec!["--insecure-policy", "copy", "--quiet"];
    words.extend((digests == Digests::Stay).then_some("--preserve-digests"));
    let mut command = one_shot(&words, "dest-", reference, options)?;
    command.arg(from).arg(reference).stdout(Stdio::null());
    let mut skopeo = started(async move { command.spawn() }).await?.at(options.skopeo.display())?;
    let (pid, err) = (skopeo.id(), skopeo.stderr.take());
    let ended = async {
        let mut said = Vec::new();
        if let Some(err) = err {
            err.take(MAX_SAID).read_to_end(&mut said).await.at("reading from skopeo")?;
        }
        Ok((skopeo.wait().await.at("waiting for skopeo")?, said))
    };
    let (status, said) = tokio::select! {
        biased;
        ended = ended => ended?,
        () = standstill(pid, options.inactivity_timeout) => {
            return Err(Error::transient(format!(
                "{reference}: the copy stood still for {:.1} s",
                options.inactivity_timeout.as_secs_f64()
            )));
        }
    };
    if status.success() {
        return Ok(());
    }
    Err(classify(&String::from_utf8_lossy(&said), reference, false).context(reference))
}

/// Ends when the process has read and written nothing for so long.
async fn standstill(pid: Option<u32>, patience: Duration) {
    let look = (patience / 8).min(Duration::from_secs(1));
    let mut seen = moved(pid);
    let allowed = if seen.is_some() { patience } else { LONGEST_UNSEEN.max(patience) };
    let mut since = Instant::now();
    while since.elapsed() < allowed {
        sleep(look).await;
        let now = moved(pid);
        if now.unwrap_or_default() >= seen.unwrap_or_default().saturating_add(LEAST) {
            (seen, since) = (now, Instant::now());
        }
    }
}

/// Bytes that the process has read and written, files and sockets alike.
fn moved(pid: Option<u32>) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/io", pid?)).ok()?;
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse::<u64>().ok();
    Some(field("rchar:")?.saturating_add(field("wchar:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_reads_is_counted() {
        let before = moved(Some(std::process::id())).unwrap();
        std::fs::read("/proc/self/status").unwrap();
        assert!(moved(Some(std::process::id())).unwrap() >= before + LEAST);
    }
}
