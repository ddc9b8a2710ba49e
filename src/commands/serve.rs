//! `serve`: a mirror for the container engines of this machine.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

use super::{Context, beside, in_home, write_stdout};
use crate::cli::ServeArgs;
use crate::engine::request::{BaseChoice, FetchRequest, PlaceOptions};
use crate::error::{Error, IoContext as _, Result};
use crate::exact::Exact;
use crate::proxy::ProxyOptions;
use crate::reference::Reference;
use crate::serve::print::config;
use crate::serve::{Log, ServeRequest, serve};

/// Registries that a printed configuration is about, where none is named.
const USUAL: [&str; 2] = ["docker.io", "quay.io"];

/// Runs the command.
pub(super) async fn run(context: &Context, args: &ServeArgs) -> Result<()> {
    if let Some(engine) = args.print_config {
        let usual = || USUAL.map(str::to_owned).to_vec();
        let hosts = if args.upstream.is_empty() { usual() } else { args.upstream.clone() };
        return write_stdout(&config(engine, args.listen, &hosts));
    }
    let cache = args.cache.clone().or_else(|| Some(in_home("XDG_CACHE_HOME", ".cache")?.join("layers")));
    let cache = cache.ok_or_else(|| {
        Error::usage("no cache: neither XDG_CACHE_HOME nor HOME is set").with_hint("give --cache DIR")
    })?;
    let proxy = ProxyOptions {
        cert_dir: args.cert_dir.clone(),
        tls_verify: args.tls_verify.unwrap_or(true),
        registries_conf: args.registries_conf.clone(),
        reporter: context.session.reporter.clone(),
        ..ProxyOptions::default()
    };
    // Of each image that a client asks for, this one's place is taken by its name.
    let any: Reference = "docker://localhost/any".parse()?;
    let fetch = FetchRequest {
        place: PlaceOptions { proxy, ..PlaceOptions::default() },
        limits: args.limits.limits(),
        base: BaseChoice {
            repository: beside(&context.repo),
            ostree: args.ostree(),
            ..BaseChoice::default()
        },
        // Engines check digests.
        exact: Exact::Require,
        ..FetchRequest::new(any, context.repo.clone())
    };
    let request =
        ServeRequest { fetch, upstreams: args.upstream.clone(), cache, cache_size: args.cache_size };
    let listener = listener(args.listen, &request)?;
    let address = listener.local_addr().at("the socket to listen on")?;
    if !address.ip().is_loopback() {
        context.say(&format!(
            "on {address}, whoever reaches this machine can read images of {} through it, with credentials of its own",
            args.upstream.join(", ")
        ));
    }
    let log = Log::new(|line| {
        // Without anybody to read it, the mirror works all the same.
        let _ = writeln!(std::io::stderr(), "{line}");
    });
    serve(&context.session, request, listener, log).await
}

/// The socket that systemd opened for us, else one of our own.
fn listener(address: SocketAddr, request: &ServeRequest) -> Result<TcpListener> {
    let given = ListenFd::from_env().take_tcp_listener(0).at("the socket that systemd hands over")?;
    match given {
        Some(listener) => Ok(listener),
        None => {
            request.check(address)?;
            TcpListener::bind(address).map_err(|e| {
                Error::from_io(e, format!("cannot listen on {address}"))
                    .with_hint("name another address with --listen")
            })
        }
    }
}
