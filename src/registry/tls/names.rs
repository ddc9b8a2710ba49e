//! The names in certificates: whom one is for, and whom an authority may speak for.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;

/// Comparisons of names with constraints, for one certificate: as many as Go makes.
const MAX_COMPARISONS: usize = 250_000;

/// Who is asked for.
#[derive(Debug)]
pub(super) enum Host<'a> {
    Name(&'a str),
    Address(IpAddr),
}

/// Whom a certificate is for.
#[derive(Debug, Default)]
pub(super) struct Names {
    hosts: Vec<String>,
    addresses: Vec<Vec<u8>>,
    /// It names mailboxes or addresses of the Web, too.
    others: bool,
}

impl Names {
    /// `None` where one is no text.
    pub(super) fn of(names: &[GeneralName<'_>]) -> Option<Self> {
        let mut all = Names::default();
        for name in names {
            match name {
                GeneralName::DNSName(name) if name.is_ascii() => all.hosts.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) if [4, 16].contains(&bytes.len()) => {
                    all.addresses.push(bytes.to_vec());
                }
                GeneralName::RFC822Name(_) | GeneralName::URI(_) => all.others = true,
                GeneralName::DNSName(_) | GeneralName::IPAddress(_) | GeneralName::Invalid(..) => {
                    return None;
                }
                _ => {}
            }
        }
        Some(all)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.addresses.is_empty() && !self.others
    }

    /// Is `host` one of them?
    pub(super) fn cover(&self, host: &Host<'_>) -> bool {
        match host {
            Host::Address(ip) => {
                self.addresses.iter().any(|bytes| canonical(bytes) == Some(ip.to_canonical()))
            }
            Host::Name(name) => self.hosts.iter().any(|pattern| covers(pattern, name)),
        }
    }
}

fn canonical(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|ip| ip.to_canonical())
}

/// `*` stands for the first label, and for all of it.
fn covers(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    if !is_host(pattern, true) || !is_host(host, false) {
        return !pattern.is_empty() && pattern != "." && pattern.eq_ignore_ascii_case(host);
    }
    let (mut pattern, mut host) = (pattern.split('.'), host.split('.'));
    let mut first = true;
    loop {
        match (pattern.next(), host.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) if first => {}
            (Some(a), Some(b)) if a.eq_ignore_ascii_case(b) => {}
            _ => return false,
        }
        first = false;
    }
}

fn is_host(name: &str, pattern: bool) -> bool {
    let label = |(at, label): (usize, &str)| {
        let of_a_label = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        pattern && at == 0 && label == "*"
            || !label.is_empty() && !label.starts_with('-') && label.chars().all(of_a_label)
    };
    name != "*" && name.split('.').enumerate().all(label)
}

/// Whom an authority may speak for.
#[derive(Debug, Default)]
pub(super) struct Constraints {
    /// All of it is of a kind that is known here.
    pub understood: bool,
    permitted: Trees,
    excluded: Trees,
}

/// Address and mask.
type Network = (Vec<u8>, Vec<u8>);

#[derive(Debug, Default)]
struct Trees {
    hosts: Vec<String>,
    networks: Vec<Network>,
    /// It is about mailboxes or addresses of the Web, too.
    others: bool,
}

impl Constraints {
    /// `None` for broken ones.
    pub(super) fn of(permitted: &[GeneralName<'_>], excluded: &[GeneralName<'_>]) -> Option<Self> {
        let mut understood = true;
        let mut trees = |names: &[GeneralName<'_>]| {
            let mut trees = Trees::default();
            for name in names {
                match name {
                    GeneralName::DNSName(name) => trees.hosts.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) if [8, 32].contains(&bytes.len()) => {
                        let (address, mask) = bytes.split_at(bytes.len() / 2);
                        trees.networks.push((address.to_vec(), mask.to_vec()));
                    }
                    GeneralName::RFC822Name(_) | GeneralName::URI(_) => trees.others = true,
                    GeneralName::IPAddress(_) | GeneralName::Invalid(..) => return None,
                    _ => understood = false,
                }
            }
            Some(trees)
        };
        let (permitted, excluded) = (trees(permitted)?, trees(excluded)?);
        Some(Constraints { understood, permitted, excluded })
    }

    /// May a certificate with these names come from here? All of them count, not only the one that is asked for.
    pub(super) fn allow(&self, names: &Names) -> bool {
        let trees = [&self.permitted, &self.excluded];
        let work =
            |names: usize, each: fn(&Trees) -> usize| names.saturating_mul(trees.map(each).iter().sum());
        let comparisons = work(names.hosts.len(), |t| t.hosts.len())
            .saturating_add(work(names.addresses.len(), |t| t.networks.len()));
        // Names of other kinds are none of a registry's, and not worth the rules for them.
        let others = names.others && trees.iter().any(|t| t.others);
        let (permitted, excluded) = (&self.permitted, &self.excluded);
        comparisons <= MAX_COMPARISONS
            && !others
            && names
                .hosts
                .iter()
                .all(|name| within(&permitted.hosts, &excluded.hosts, |domain: &String| under(name, domain)))
            && names.addresses.iter().all(|ip| {
                within(&permitted.networks, &excluded.networks, |network: &Network| inside(ip, network))
            })
    }
}

/// Is something in one of the permitted trees, if there are any, and in none of the others?
fn within<T>(permitted: &[T], excluded: &[T], is_in: impl Fn(&T) -> bool) -> bool {
    !excluded.iter().any(&is_in) && (permitted.is_empty() || permitted.iter().any(&is_in))
}

/// Is a name in the tree of a domain? A leading dot asks for a name below it.
fn under(name: &str, domain: &str) -> bool {
    if domain.is_empty() {
        return true;
    }
    let (domain, below) = match domain.strip_prefix('.') {
        Some(domain) => (domain, true),
        None => (domain, false),
    };
    let (mut name, mut labels) = (name.rsplit('.'), domain.rsplit('.'));
    labels.all(|label| name.next().is_some_and(|n| n.eq_ignore_ascii_case(label)))
        && (!below || name.next().is_some())
}

fn inside(ip: &[u8], (network, mask): &Network) -> bool {
    ip.len() == network.len() && ip.iter().zip(network).zip(mask).all(|((a, b), m)| a & m == b & m)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_label_by_label() {
        for (pattern, host, yes) in [
            ("a.example", "A.example", true),
            ("a.example", "a.example.", true),
            ("*.example", "a.example", true),
            ("*.example", "a.b.example", false),
            ("*.example", ".example", false),
            ("*.example", "example", false),
            ("a*.example", "ab.example", false),
            ("a.*.example", "a.b.example", false),
            ("*", "localhost", false),
            ("under_score.example", "under_score.example", true),
            ("", "", false),
            (".", ".", false),
            ("a.example", "b.example", false),
        ] {
            assert_eq!(covers(pattern, host), yes, "{pattern} {host}");
        }
    }

    #[test]
    fn constraints_bind_all_names() {
        let names =
            Names::of(&[GeneralName::DNSName("r.corp.example"), GeneralName::IPAddress(&[10, 0, 0, 1])]);
        let names = names.unwrap();
        let dns = GeneralName::DNSName;
        let net = GeneralName::IPAddress(&[10, 0, 0, 0, 255, 0, 0, 0]);
        for (permitted, excluded, yes) in [
            (vec![], vec![], true),
            (vec![dns("corp.example")], vec![], true),
            (vec![dns(".corp.example")], vec![], true),
            (vec![dns(".r.corp.example")], vec![], false),
            (vec![dns("orp.example")], vec![], false),
            (vec![dns("CORP.example"), net.clone()], vec![], true),
            (vec![GeneralName::IPAddress(&[11, 0, 0, 0, 255, 0, 0, 0])], vec![], false),
            (vec![], vec![dns("example")], false),
            (vec![], vec![net], false),
            (vec![], vec![dns("other")], true),
        ] {
            let constraints = Constraints::of(&permitted, &excluded).unwrap();
            assert!(constraints.understood);
            assert_eq!(constraints.allow(&names), yes, "{permitted:?} {excluded:?}");
        }
    }
}
