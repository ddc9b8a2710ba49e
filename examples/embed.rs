//! The main job from another program: brings an image into a repository, by deltas where they serve.
//!
//! ```text
//! cargo run --no-default-features --example embed -- REF REPOSITORY
//! ```
#![allow(clippy::print_stdout)]

use oci_delta_fetch::{FetchRequest, Outcome, Result, Session, fetch, plan};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [reference, repository] = args.as_slice() else { anyhow::bail!("usage: embed REF REPOSITORY") };
    let mut request = FetchRequest::new(reference.parse()?, repository.parse()?);
    // A registry on this machine has no certificate.
    request.place.proxy.tls_verify = !reference.starts_with("127.0.0.1:");
    let session = Session::new(std::env::temp_dir());

    // Stops the work from anywhere; the next run goes on from the finished layers.
    let cancel = session.cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            cancel.cancel();
        }
    });

    // On whichever thread has time.
    let (planned, done) = tokio::spawn(bring(session, request)).await?.map_err(|e| {
        let advice = if e.is_transient() { "; try again later" } else { "" };
        anyhow::anyhow!("{e}{advice}")
    })?;
    println!("image {}: {:?}", done.config, done.status);
    println!("planned {} of {} bytes", planned.bytes.downloaded, planned.bytes.full_pull);
    println!("read {} bytes", done.bytes.downloaded);
    for layer in &done.layers {
        println!("{} {}", layer.diff_id, layer.origin.name());
    }
    Ok(())
}

async fn bring(session: Session, request: FetchRequest) -> Result<(Outcome, Outcome)> {
    let planned = plan(&session, &request).await?;
    let done = fetch(&session, &request).await?;
    Ok((planned, done))
}
