//! Names in registries, by the grammar of the distribution project's `reference` package.
//!
//! oci-spec has a parser for them, a regular expression that takes 40 ms of CPU to compile: more than
//! all else in a run that finds its image here already. The tests compare the two.

use std::net::Ipv6Addr;

use oci_spec::distribution::Reference;

use crate::digest::parse_digest;

/// Longest repository, in characters.
const MAX_REPOSITORY: usize = 255;
/// Longest tag.
const MAX_TAG: usize = 128;

/// Reads `[HOST/]REPO[:TAG][@DIGEST]`; the error says what is wrong.
pub(super) fn parse(text: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[last..].split_once(':') {
        Some((name, tag)) => (&rest[..last + name.len()], Some(tag)),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("the tag is malformed");
    }
    if digest.is_some_and(|digest| parse_digest(digest, "digest").is_err()) {
        return Err("the digest is malformed; sha256: and 64 hexadecimal digits are wanted");
    }
    let (host, repository) = split(name);
    if !is_host(host) {
        return Err("the host is malformed");
    }
    if repository.len() > MAX_REPOSITORY || !repository.split('/').all(is_component) {
        return Err("the repository is malformed: lower case, digits, and single separators between them");
    }
    let (host, tag) = (host.to_owned(), tag.map(str::to_owned));
    Ok(match (tag, digest.map(str::to_owned)) {
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(host, repository, tag, digest),
        (None, Some(digest)) => Reference::with_digest(host, repository, digest),
        (tag, None) => Reference::with_tag(host, repository, tag.unwrap_or_else(|| "latest".into())),
    })
}

/// Host and repository, with those that Docker Hub's short names mean.
fn split(name: &str) -> (&str, String) {
    let (host, repository) = match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("docker.io", name),
    };
    match host {
        "docker.io" | "index.docker.io" if !repository.contains('/') => {
            ("docker.io", format!("library/{repository}"))
        }
        "index.docker.io" => ("docker.io", repository.to_owned()),
        _ => (host, repository.to_owned()),
    }
}

fn is_host(host: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit());
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return address.parse::<Ipv6Addr>().is_ok() && is_port;
    }
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    name.split('.').all(label) && port.is_none_or(is_port)
}

/// Words of lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_component(component: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separator = |s: &str| matches!(s, "." | "_" | "__") || s.bytes().all(|c| c == b'-');
    component.starts_with(word) && component.ends_with(word) && component.split(word).all(separator)
}

fn is_tag(tag: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|c| word(c) || matches!(c, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same(text: &str) {
        // The regular expression takes a host with capitals, and then does not take it for a host. A host
        // with `_`, which the grammar has not, it takes for the beginning of the repository.
        let is_sound =
            |r: &Reference| !r.repository().contains(char::is_uppercase) && !r.registry().contains('_');
        let theirs = text.parse::<Reference>().ok().filter(is_sound);
        assert_eq!(parse(text).ok(), theirs, "{text}");
    }

    #[test]
    fn names_are_read_as_the_regular_expression_reads_them() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for text in [
            "a",
            "a:1",
            "a/b",
            "h.io/a",
            "h.io/a/b:t",
            "h:5/a",
            "h:5",
            "h:/a",
            "localhost/a",
            "localhost:1/a:b",
            "index.docker.io/a",
            "index.docker.io/a/b",
            "docker.io/a",
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            ":t",
            "a:",
            "a__b",
            "a___b",
            "a._b",
            "a--b",
            "-a",
            "a-",
            "h-.io/a",
            "h..io/a",
            "A/b",
            "H.io/b",
            "a/B",
            "a b",
            "a:-t",
            "a:.t",
            "a:t-.",
            "a@",
            "a@sha256:00",
            "../a",
            "a/../b",
            "h.io/a:b/c",
        ] {
            same(text);
            same(&format!("{text}@{digest}"));
        }
        assert_eq!(parse("a_1.a/b"), Err("the host is malformed"));
        for length in [127, 128, 129] {
            same(&format!("a:{}", "t".repeat(length)));
        }
        for length in [255, 256] {
            same(&format!("h.io/{}", "r".repeat(length)));
        }
    }

    #[test]
    fn addresses_of_ip_version_6_are_hosts() {
        for (text, host) in [
            ("[::1]:5000/x", Some("[::1]:5000")),
            ("[::1]/x:t", Some("[::1]")),
            ("[2001:db8::1]:5/a/b", Some("[2001:db8::1]:5")),
            ("[::1]", None),
            ("[::1]:/x", None),
            ("[::1]x/x", None),
            ("[::1/x", None),
            ("[h]:5/x", None),
            ("[127.0.0.1]:5/x", None),
            ("::1/x", None),
        ] {
            assert_eq!(parse(text).ok().as_ref().map(Reference::registry), host, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_name_is_read_alike(text in "[a1A._:/@-]{0,12}") {
            same(&text);
        }
    }
}
