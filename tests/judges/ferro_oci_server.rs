//! ferro-oci-server, a registry in memory with the referrers API: its crate's own code.
#![allow(missing_docs)]

use ferro_oci_server::{Config, serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    serve(&Config::from_env()).await
}
