//! What skopeo's words mean: its errors are text, and ours need a kind.

use containers_image_proxy::{Error as ProxyError, GetBlobError};

use crate::error::{Advice, Error, Hint, Kind};

/// Longest text taken over from skopeo, in bytes. A registry can put a whole web page into it.
const MAX_TEXT: usize = 2048;

const NOT_FOUND: Hint =
    Hint::text("check the name and the tag; the image may have been removed from the registry");
const PLATFORM: Hint = Hint::Advice(Advice::OtherPlatform);
const AUTH: Hint = Hint::Advice(Advice::LogIn);
const TLS: Hint = Hint::Advice(Advice::TrustRegistry);
const POLICY: Hint = Hint::Advice(Advice::OtherPolicy);
const NO_POLICY: Hint = Hint::Advice(Advice::NoPolicy);
const NAME: Hint = Hint::text(
    "this skopeo does not take such a name, such as one with an IPv6 address; use a host name, or a newer skopeo",
);
const OLD: Hint = Hint::Advice(Advice::NewerSkopeo);

/// Words of skopeo (lower case) and what they mean. The first line that fits wins,
/// so what stands higher is what is more certain.
const WORDS: &[(&[&str], Kind, Option<Hint>)] = &[
    (&["policy.json: no such file"], Kind::Local, Some(NO_POLICY)),
    (
        &["rejected by policy", "source image rejected", "signature was required"],
        Kind::Verification,
        Some(POLICY),
    ),
    (
        &[
            "corrupted blob",
            "does not match provided manifest digest",
            "bytes in blob, got",
            "manifest digest mismatch",
        ],
        Kind::Verification,
        None,
    ),
    (&["no image found in manifest list", "no image found in image index"], Kind::Misfit, Some(PLATFORM)),
    // What a push says of a blob that was there a moment ago, while another pusher writes it.
    (&["manifest blob unknown", "manifest_blob_unknown"], Kind::Transient, None),
    (
        &[
            "manifest unknown",
            "manifest_unknown",
            "blob unknown",
            "blob_unknown",
            "name unknown",
            "name_unknown",
            "name not known",
        ],
        Kind::Misfit,
        Some(NOT_FOUND),
    ),
    (&["too many requests", "toomanyrequests"], Kind::Transient, None),
    (
        &[
            "unauthorized",
            "authentication required",
            "invalid username/password",
            "forbidden",
            "access denied",
            ": denied",
        ],
        Kind::Local,
        Some(AUTH),
    ),
    (
        &[
            "unexpected eof",
            "connection refused",
            "connection reset",
            "broken pipe",
            "timeout",
            "timed out",
            "no such host",
            "temporary failure",
            "no route to host",
            "network is unreachable",
            "internal server error",
            "bad gateway",
            "service unavailable",
            "did not process a range",
            "stream error",
            "server closed",
            ": eof",
        ],
        Kind::Transient,
        None,
    ),
    (&["x509:", "tls:", "server gave http response to https client"], Kind::Local, Some(TLS)),
    (&["page not found", "status: 404"], Kind::Misfit, Some(NOT_FOUND)),
    // Names are checked before skopeo gets them: it does not take all of them.
    (&["invalid image name", "invalid reference format"], Kind::Local, Some(NAME)),
    (&["unknown transport"], Kind::Usage, None),
    (&["no such file or directory"], Kind::Misfit, Some(NOT_FOUND)),
    (&["unknown command", "unknown flag"], Kind::Local, Some(OLD)),
];

/// Makes an error of skopeo's `text` about `reference`, whose names are no words about what went wrong;
/// `retryable` is skopeo's own opinion, which counts only if the text says nothing (it is often wrong).
pub fn classify(text: &str, reference: &str, retryable: bool) -> Error {
    let text = clean(text);
    let (kind, hint) = meaning(&without_names(&text, reference).to_lowercase()).unwrap_or(match retryable {
        true => (Kind::Transient, None),
        false => (Kind::Local, None),
    });
    let error = Error::new(kind, format!("skopeo: {text}"));
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// The text without the names in `reference` and without addresses: whoever names an image chooses them, and
/// `unauthorized/tls:eof` is as good a name as any.
fn without_names(text: &str, reference: &str) -> String {
    let place = reference.split_once(':').map_or(reference, |(_, place)| place.trim_start_matches('/'));
    let (name, tag) = match place.rsplit_once('@') {
        Some((name, _)) => (name, ""),
        // Not that of a port.
        None => place.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((place, "")),
    };
    let path = name.split_once('/').map_or(name, |(_, path)| path);
    let mut text = text.to_owned();
    // Whole ones first, for there may be blanks in them.
    for whole in [reference, place, name] {
        if whole.len() > 3 {
            text = text.replace(whole, "…");
        }
    }
    let word = |word: &str| {
        let bare = word.trim_matches(|c: char| "\"'(),;:".contains(c));
        let named = !bare.is_empty() && (bare == tag || bare == path);
        let inside = !path.is_empty() && bare.contains(&format!("/{path}"));
        // What stands behind a colon matters where a name ends.
        let end = if word.ends_with(':') { "…:" } else { "…" };
        if named || inside || bare.contains("://") { end.to_owned() } else { word.to_owned() }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Was access denied?
pub(super) fn is_denied(e: &Error) -> bool {
    e.hint() == Some(&AUTH)
}

fn meaning(text: &str) -> Option<(Kind, Option<Hint>)> {
    let by_words = WORDS.iter().find(|(words, ..)| words.iter().any(|word| text.contains(word)));
    by_words.map(|(_, kind, hint)| (*kind, hint.clone())).or_else(|| match http_status(text)? {
        401 | 403 => Some((Kind::Local, Some(AUTH))),
        404 => Some((Kind::Misfit, Some(NOT_FOUND))),
        408 | 429 | 500..600 => Some((Kind::Transient, None)),
        _ => None,
    })
}

/// A status as in "status code 503" or "invalid status code from registry 404".
/// Only near such words: digests and ports are full of three-digit numbers.
fn http_status(text: &str) -> Option<u16> {
    let tokens: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).filter(|t| !t.is_empty()).collect();
    let near = |i: usize| tokens[i.saturating_sub(4)..i].iter().any(|t| t.contains("status"));
    let code = |t: &str| (t.len() == 3).then(|| t.parse().ok()).flatten();
    // The words are few and near, so the last of two numbers never matters.
    (1..tokens.len()).find_map(|i| code(tokens[i]).filter(|_| near(i)))
}

/// One line of bounded length without control characters, fit for a terminal.
fn clean(text: &str) -> String {
    let mut out = String::new();
    for c in text.trim().chars() {
        if out.len() >= MAX_TEXT {
            out.push('…');
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

/// Whether the connection cannot be used after this error.
pub(super) fn is_fatal(e: &ProxyError) -> bool {
    !matches!(
        e,
        ProxyError::RequestInitiationFailure { .. }
            | ProxyError::RetryableRequestFailure { .. }
            | ProxyError::RequestReturned(_)
            | ProxyError::BlobError(_)
    )
}

/// An error of a request about `reference`.
pub(super) fn of_request(e: ProxyError, reference: &str) -> Error {
    match e {
        ProxyError::RequestInitiationFailure { error, .. } | ProxyError::RequestReturned(error) => {
            classify(&error, reference, false)
        }
        ProxyError::RetryableRequestFailure { error, .. } => classify(&error, reference, true),
        ProxyError::BlobError(GetBlobError::Retryable(error)) => classify(&error, reference, true),
        ProxyError::BlobError(e) => classify(&e.to_string(), reference, false),
        e => Error::transient(format!("the connection to skopeo broke: {}", clean(&e.to_string()))),
    }
}

/// An error before skopeo gave its first answer: that is trouble of this machine.
pub(super) fn of_start(e: ProxyError, skopeo: &std::path::Path) -> Error {
    let skopeo = skopeo.display();
    match e {
        ProxyError::SkopeoSpawnError(e) => {
            Error::local(format!("cannot run {skopeo}: {e}")).with_hint(Advice::NameSkopeo)
        }
        e => {
            Error::local(format!("{skopeo} does not serve images: {}", clean(&e.to_string()))).with_hint(OLD)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_have_their_kinds() {
        for (text, retryable, kind) in [
            (
                "pinging container registry localhost:1: dial tcp [::1]:1: connect: connection refused",
                false,
                Kind::Transient,
            ),
            ("unexpected EOF", false, Kind::Transient),
            ("(heuristic tuning data: …): unexpected EOF", false, Kind::Transient),
            (
                "reading manifest t in h/r: received unexpected HTTP status: 500 Internal Server Error",
                false,
                Kind::Transient,
            ),
            (
                "fetching blob: invalid status code from registry 503 (Service Unavailable)",
                false,
                Kind::Transient,
            ),
            ("StatusCode: 502, <html>", false, Kind::Transient),
            ("Error fetching blob: invalid status code from registry 404 (Not Found)", false, Kind::Misfit),
            ("toomanyrequests: You have reached your pull rate limit", false, Kind::Transient),
            ("net/http: TLS handshake timeout", false, Kind::Transient),
            ("unauthorized: authentication required", false, Kind::Local),
            ("denied: requested access to the resource is denied: unauthorized", true, Kind::Local),
            ("StatusCode: 403, \"\"", false, Kind::Local),
            ("reading manifest t in h/r: manifest unknown", false, Kind::Misfit),
            ("blob unknown to registry", true, Kind::Misfit),
            (
                "writing manifest: errors:\ndigest invalid\nmanifest blob unknown: blob unknown to registry",
                false,
                Kind::Transient,
            ),
            ("fetching blob: StatusCode: 404, \"404 page not found\"", true, Kind::Misfit),
            ("open /x/index.json: no such file or directory", false, Kind::Misfit),
            ("Running image docker://x is rejected by policy.", false, Kind::Verification),
            ("corrupted blob, expecting sha256:aa, got sha256:bb", true, Kind::Verification),
            ("Manifest does not match provided manifest digest sha256:aa", false, Kind::Verification),
            ("expected 5 bytes in blob, got 4", false, Kind::Verification),
            ("x509: certificate signed by unknown authority", false, Kind::Local),
            ("open /etc/containers/policy.json: no such file or directory", false, Kind::Local),
            ("digest sha256:aa 404 bb status quo", false, Kind::Local),
            ("something new", true, Kind::Transient),
            ("something new", false, Kind::Local),
        ] {
            assert_eq!(classify(text, "docker://h/r:t", retryable).kind(), kind, "{text}");
        }
    }

    #[test]
    fn names_are_no_words_about_what_went_wrong() {
        for name in [
            "unauthorized",
            "forbidden",
            "timeout",
            "manifest-unknown/x509",
            "policy.json",
            "tls/eof",
            "status/404",
        ] {
            for tag in ["1", "unauthorized", "404", "timed-out"] {
                let place = format!("localhost:5000/{name}");
                let reference = format!("docker://{place}:{tag}");
                for text in [
                    format!("Error parsing image name \"{reference}\": something new"),
                    format!("reading manifest {tag} in {place}: something new"),
                    format!("Get \"http://localhost:5000/v2/{name}/manifests/{tag}\": something new"),
                    format!(
                        "(Mirrors also failed: [{place}:{tag}: something new]): /v2/{name}/blobs/: something new"
                    ),
                ] {
                    assert_eq!(classify(&text, &reference, false).kind(), Kind::Local, "{text}");
                    assert!(classify(&text, &reference, false).hint().is_none(), "{text}");
                    let known = format!("{text}: unexpected EOF");
                    assert_eq!(classify(&known, &reference, false).kind(), Kind::Transient, "{known}");
                }
            }
        }
        let text = "open /a b/unauthorized/index.json: no such file or directory";
        assert_eq!(classify(text, "oci:/a b/unauthorized:x", false).kind(), Kind::Misfit);
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_bounded_line(text in ".{0,3000}", retryable: bool) {
            let shown = classify(&text, "docker://h/r", retryable).to_string();
            prop_assert!(shown.len() < MAX_TEXT + 20);
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}
