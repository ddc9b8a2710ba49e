//! The arguments of `serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::fetch::ostree;
use super::{LimitArgs, parse_size};
use crate::engine::request::OstreeChoice;
use crate::serve::print::Engine;

/// How to serve.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Address to listen on; a socket that systemd hands over goes first
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5050", help_heading = "Server")]
    pub listen: SocketAddr,

    /// Registries that may be asked, by their hosts [default: any that a client names, on loopback]
    #[arg(long, value_name = "HOST", num_args = 1.., help_heading = "Server")]
    pub upstream: Vec<String>,

    /// Print the configuration that leads an engine here, and end
    #[arg(long, value_enum, value_name = "ENGINE", help_heading = "Server")]
    pub print_config: Option<Engine>,

    /// Where rebuilt layers are kept [default: in the user's cache directory]
    #[arg(long, value_name = "DIR", help_heading = "Server")]
    pub cache: Option<PathBuf>,

    /// Most bytes of them; a suffix K, M, G or T is allowed
    #[arg(long, value_name = "BYTES", default_value = "4G", value_parser = parse_size, help_heading = "Server")]
    pub cache_size: u64,

    /// ostree repository with base images [default: /ostree/repo where it is]
    #[arg(long, value_name = "DIR", help_heading = "Base image")]
    pub ostree_repo: Option<PathBuf>,

    /// Directory of certificates for the registries
    #[arg(long, value_name = "DIR", help_heading = "Registries")]
    pub cert_dir: Option<PathBuf>,

    /// Require HTTPS and a valid certificate
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        help_heading = "Registries"
    )]
    pub tls_verify: Option<bool>,

    /// registries.conf to use
    #[arg(long, value_name = "FILE", help_heading = "Registries")]
    pub registries_conf: Option<PathBuf>,

    /// Bounds.
    #[command(flatten)]
    pub limits: LimitArgs,
}

impl ServeArgs {
    /// The ostree repository that is meant.
    pub fn ostree(&self) -> OstreeChoice {
        ostree(self.ostree_repo.as_deref())
    }
}
