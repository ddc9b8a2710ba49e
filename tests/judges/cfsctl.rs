//! cfsctl: its crate's own code, as its own `main` runs it, with the dependencies that we have built already.
#![allow(missing_docs)]

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    composefs_ctl::run_from_iter(std::env::args_os().skip(1)).await
}
