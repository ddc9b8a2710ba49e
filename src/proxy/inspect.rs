//! One manifest or index exactly as the registry has it: `skopeo inspect --raw`.

use std::process::Stdio;

use tokio::io::AsyncReadExt as _;

use super::command::one_shot;
use super::{MAX_MANIFEST_SIZE, ProxyOptions, classify};
use crate::child::started;
use crate::error::{Error, IoContext as _, Result};

/// The bytes behind `reference` (`docker://…`), also those of an index, which the image proxy
/// does not show.
///
/// # Errors
/// As [`Proxy::manifest`](super::Proxy::manifest), after the allowed retries.
pub async fn inspect_raw(reference: &str, options: &ProxyOptions) -> Result<Vec<u8>> {
    options.attempts().run(|| inspect_once(reference, options)).await
}

async fn inspect_once(reference: &str, options: &ProxyOptions) -> Result<Vec<u8>> {
    let mut command = one_shot(&["inspect", "--raw"], "", reference, options)?;
    command.arg(reference).stdout(Stdio::piped());
    let program = options.skopeo.display();
    let mut child = started(async move { command.spawn() }).await?.at(program)?;
    let output = async {
        let (mut bytes, mut said) = (Vec::new(), Vec::new());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let read = async {
            match out {
                Some(out) => out.take(MAX_MANIFEST_SIZE as u64 + 1).read_to_end(&mut bytes).await,
                None => Ok(0),
            }
        };
        let hear = async {
            match err {
                Some(err) => err.take(MAX_MANIFEST_SIZE as u64).read_to_end(&mut said).await,
                None => Ok(0),
            }
        };
        let (read, heard) = tokio::join!(read, hear);
        read.and(heard).at("reading from skopeo")?;
        let status = child.wait().await.at("waiting for skopeo")?;
        Ok((status, bytes, said))
    };
    let ended: Result<_> = tokio::time::timeout(options.inactivity_timeout, output)
        .await
        .map_err(|_| Error::transient(format!("{reference}: no answer came in time")))?;
    let (status, bytes, said) = ended?;
    if status.success() {
        options.spend(bytes.len()).await;
        return Ok(bytes);
    }
    Err(classify(&String::from_utf8_lossy(&said), reference, false).context(reference))
}
