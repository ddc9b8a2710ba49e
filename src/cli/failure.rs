//! How a failure is shown: hints name options, and a kind picks the exit code (`docs/cli.md`).

use crate::error::{Advice, Hint, Kind};

/// The hint, with the options that it is about.
pub fn hint(hint: &Hint) -> String {
    match hint {
        Hint::Advice(advice) => words(*advice).to_owned(),
        other => other.to_string(),
    }
}

fn words(advice: Advice) -> &'static str {
    match advice {
        Advice::RaiseLayerLimit => "if this image is to be trusted, raise --max-layer-size",
        Advice::AllowWholeLayers => "--delta-policy auto fetches it whole",
        Advice::AnyPlatform => "leave out --platform to take it all the same",
        Advice::ChoosePlatform => "choose one with --platform",
        Advice::OtherPlatform => "the image is not made for this platform; choose another with --platform",
        Advice::NameBase => "fetch the base image first, name it with --base REF, or fetch the full image",
        Advice::NameRightBase => "name the right release with --base, or fetch the full image",
        Advice::LogIn => "log in with `skopeo login` or name an --authfile",
        Advice::TrustRegistry => {
            "name the registry's CA with --cert-dir, or use --tls-verify=false if the network is trusted"
        }
        Advice::OtherPolicy => {
            "the signature policy of this machine refuses the image; \
             use --insecure-policy only if you trust it otherwise"
        }
        Advice::NoPolicy => {
            "install a containers policy.json, or use --insecure-policy if you trust the image otherwise"
        }
        Advice::NameSkopeo => "install skopeo or name it with --skopeo PATH",
        Advice::NewerSkopeo => "skopeo 1.6 or newer is needed; install it or name another with --skopeo PATH",
        Advice::OtherRepository => "choose another --repo",
        Advice::MakeRoom => "remove images and run gc, or choose another --repo",
        Advice::NameUpstreams => "name the registries with --upstream, or listen on 127.0.0.1",
        Advice::OtherCache => "name another one with --cache",
        Advice::WithoutVerity => "--insecure makes one on a file system without fs-verity",
    }
}

/// The exit code of a failure.
pub fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::Local => 1,
        Kind::Usage => 2,
        Kind::Misfit => 3,
        Kind::Verification => 4,
        Kind::Transient => 5,
        Kind::Interrupted => 130,
        Kind::ClosedPipe => 141,
    }
}
