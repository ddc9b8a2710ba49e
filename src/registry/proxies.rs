//! The proxy for an address, as Go programs take it from the environment
//! (`golang.org/x/net/http/httpproxy`): skopeo is one, and both must go the same way.

use std::env;
use std::net::IpAddr;

use ipnet::IpNet;
use reqwest::Url;

/// What the environment says.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    none: Exceptions,
}

impl Proxies {
    /// That of this process. Upper case comes first, and an empty variable is none.
    pub(super) fn of_environment() -> Self {
        Self::of(|name| env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let any = |name: &str| set(name).or_else(|| set(&name.to_ascii_lowercase()));
        // In CGI, a client chooses HTTP_PROXY by a header.
        let cgi = set("REQUEST_METHOD").is_some();
        let http = if cgi { None } else { any("HTTP_PROXY") };
        Proxies {
            http: http.as_deref().and_then(address),
            https: any("HTTPS_PROXY").as_deref().and_then(address),
            none: Exceptions::of(&any("NO_PROXY").unwrap_or_default()),
        }
    }

    /// The one for `url`, if any is.
    pub(super) fn way_to(&self, url: &Url) -> Option<&Url> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref(),
            "http" => self.http.as_ref(),
            _ => None,
        }?;
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let ip: Option<IpAddr> = host.parse().ok();
        let here = host == "localhost" || ip.is_some_and(|ip| ip.to_canonical().is_loopback());
        let port = url.port_or_known_default()?;
        (!here && !self.none.cover(&host, ip, port)).then_some(proxy)
    }

    /// The same, for people: without its password.
    pub(super) fn name_of_way_to(&self, url: &Url) -> Option<String> {
        self.way_to(url).map(|proxy| {
            let port = proxy.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{}{port}", proxy.scheme(), proxy.host_str().unwrap_or_default())
        })
    }
}

/// `host:port` means `http://host:port`. Nonsense is no proxy.
fn address(text: &str) -> Option<Url> {
    let whole = Url::parse(text).ok().filter(Url::has_host);
    let mut url = whole.or_else(|| Url::parse(&format!("http://{text}")).ok().filter(Url::has_host))?;
    // Go leaves names to such a proxy in any case.
    if url.scheme() == "socks5" {
        url = Url::parse(&url.as_str().replacen("socks5", "socks5h", 1)).ok()?;
    }
    Some(url)
}

/// `NO_PROXY`.
#[derive(Debug, Clone, Default)]
struct Exceptions {
    all: bool,
    networks: Vec<IpNet>,
    /// With the only port they are for.
    addresses: Vec<(IpAddr, Option<String>)>,
    domains: Vec<Domain>,
}

#[derive(Debug, Clone)]
struct Domain {
    /// With a leading dot.
    suffix: String,
    /// The domain itself as well.
    itself: bool,
    port: Option<String>,
}

impl Exceptions {
    fn of(list: &str) -> Self {
        let mut exceptions = Exceptions::default();
        for entry in list.split(',').map(|entry| entry.trim().to_ascii_lowercase()) {
            if entry == "*" {
                return Exceptions { all: true, ..Default::default() };
            }
            if let Ok(network) = entry.parse() {
                exceptions.networks.push(network);
                continue;
            }
            let (host, port) = split_port(&entry);
            if let Ok(ip) = host.parse::<IpAddr>() {
                exceptions.addresses.push((ip.to_canonical(), port));
            } else if !host.is_empty() {
                let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
                let itself = !host.starts_with('.');
                let suffix = if itself { format!(".{host}") } else { host.to_owned() };
                exceptions.domains.push(Domain { suffix, itself, port });
            }
        }
        exceptions
    }

    fn cover(&self, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
        let port = port.to_string();
        let fits = |only: &Option<String>| only.as_ref().is_none_or(|only| only.is_empty() || *only == port);
        let ip = ip.map(|ip| ip.to_canonical());
        self.all
            || ip.is_some_and(|ip| self.networks.iter().any(|network| network.contains(&ip)))
            || ip.is_some_and(|ip| self.addresses.iter().any(|(a, only)| *a == ip && fits(only)))
            || self.domains.iter().any(|domain| {
                let named = host.ends_with(&domain.suffix) || domain.itself && host == &domain.suffix[1..];
                named && fits(&domain.port)
            })
    }
}

/// `host:port` or `[host]:port`, as `net.SplitHostPort` takes it apart; all of it is the host otherwise.
fn split_port(entry: &str) -> (&str, Option<String>) {
    if let Some((host, port)) = entry.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        return (host, Some(port.to_owned()));
    }
    match entry.split_once(':') {
        Some((host, port)) if !port.contains(':') && !host.contains(['[', ']']) => {
            (host, Some(port.to_owned()))
        }
        _ => (entry, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let proxies = Proxies::of(|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        });
        proxies.name_of_way_to(&Url::parse(url).unwrap())
    }

    #[test]
    fn the_environment_is_read_as_go_reads_it() {
        let p = Some("http://p:1".to_owned());
        for (variables, url, expected) in [
            (&[("HTTP_PROXY", "http://p:1")][..], "http://r.test/", p.clone()),
            (&[("HTTP_PROXY", "p:1")], "http://r.test/", p.clone()),
            (&[("HTTP_PROXY", "http://user:secret@p:1/")], "http://r.test/", p.clone()),
            (&[("HTTP_PROXY", "http://p:1")], "https://r.test/", None),
            (&[("HTTPS_PROXY", "http://p:1")], "https://r.test/", p.clone()),
            (&[("https_proxy", "http://p:1")], "https://r.test/", p.clone()),
            (&[("HTTP_PROXY", "http://p:1"), ("http_proxy", "http://q:1")], "http://r.test/", p.clone()),
            (&[("HTTP_PROXY", ""), ("http_proxy", "http://p:1")], "http://r.test/", p.clone()),
            (&[("ALL_PROXY", "http://p:1"), ("all_proxy", "http://p:1")], "http://r.test/", None),
            (&[("HTTP_PROXY", "http://p:1"), ("REQUEST_METHOD", "GET")], "http://r.test/", None),
            (&[("HTTP_PROXY", "socks5://p:1")], "http://r.test/", Some("socks5h://p:1".to_owned())),
            (&[("HTTP_PROXY", "://")], "http://r.test/", None),
            (&[("HTTP_PROXY", "http://p:1")], "http://localhost:5000/", None),
            (&[("HTTP_PROXY", "http://p:1")], "http://127.3.2.1:5000/", None),
            (&[("HTTP_PROXY", "http://p:1")], "http://[::1]:5000/", None),
            (&[("HTTP_PROXY", "http://p:1")], "http://a.localhost:5000/", p.clone()),
        ] {
            assert_eq!(way(variables, url), expected, "{variables:?} {url}");
        }
    }

    #[test]
    fn exceptions_are_domains_addresses_networks_and_ports() {
        for (list, url, direct) in [
            ("r.test", "http://r.test/", true),
            ("R.TEST", "http://r.test/", true),
            ("r.test", "http://a.r.test/", true),
            ("r.test", "http://ar.test/", false),
            (".r.test", "http://a.r.test/", true),
            (".r.test", "http://r.test/", false),
            ("*.r.test", "http://a.b.r.test/", true),
            ("*.r.test", "http://r.test/", false),
            ("r.test:5000", "http://r.test:5000/", true),
            ("r.test:5000", "http://r.test:5001/", false),
            ("r.test:80", "http://r.test/", true),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("10.1.2.3", "http://10.1.2.3:5000/", true),
            ("10.1.2.3:5000", "http://10.1.2.3:5000/", true),
            ("10.1.2.3:5000", "http://10.1.2.3/", false),
            ("fd00::/8", "http://[fd00::1]/", true),
            ("fd00::1", "http://[fd00::1]:5000/", true),
            ("[fd00::1]:5000", "http://[fd00::1]:5000/", true),
            ("[fd00::1]:5000", "http://[fd00::1]/", false),
            ("other , r.test", "http://r.test/", true),
            ("other,*", "http://r.test/", true),
            (",,", "http://r.test/", false),
            (":80", "http://r.test/", false),
        ] {
            let found = way(&[("HTTP_PROXY", "http://p:1"), ("NO_PROXY", list)], url);
            assert_eq!(found.is_none(), direct, "{list} {url}");
        }
    }
}
