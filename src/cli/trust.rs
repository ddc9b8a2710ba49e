//! Options about signatures.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{Error, IoContext as _, Result};
use crate::trust::{Key, MAX_PEM, Policy, Trust};

/// Whose images are taken.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Signatures")]
pub struct TrustArgs {
    /// Public key (PEM) that must have signed the image, as cosign signs; one of them, where there are several
    #[arg(long, value_name = "PEM")]
    pub verify_key: Vec<PathBuf>,

    /// policy.json that must allow the image: sigstoreSigned by a key, reject, insecureAcceptAnything; nothing else
    #[arg(long, value_name = "FILE", conflicts_with = "verify_key")]
    pub policy: Option<PathBuf>,
}

impl TrustArgs {
    /// The same for the engine, with the keys that the files hold.
    ///
    /// # Errors
    /// Usage for keys and policies that are not understood; Local for files that cannot be read.
    pub fn trust(&self) -> Result<Trust> {
        if let Some(file) = &self.policy {
            let name = file.display().to_string();
            return Ok(Trust::Policy(Box::new(Policy::parse(&name, &small_file(file)?, &small_file)?)));
        }
        if self.verify_key.is_empty() {
            return Ok(Trust::Anybody);
        }
        let key = |file: &PathBuf| Key::parse(file.display().to_string(), &small_file(file)?);
        self.verify_key.iter().map(key).collect::<Result<_>>().map(Trust::Keys)
    }
}

/// A file of a size that keys and policies have.
fn small_file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).at(path.display())?;
    if !file.metadata().at(path.display())?.is_file() {
        return Err(Error::usage(format!("{}: not a file", path.display())));
    }
    file.take(MAX_PEM + 1).read_to_end(&mut bytes).at(path.display())?;
    if bytes.len() as u64 > MAX_PEM {
        return Err(Error::usage(format!("{}: more than {MAX_PEM} bytes", path.display())));
    }
    Ok(bytes)
}
