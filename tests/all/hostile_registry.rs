//! Registries that nobody should run, one test for each: what lists of deltas can do to us.

use crate::support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oci_delta_fetch::digest::{Digest, digest_of};
use oci_delta_fetch::error::{Error, Kind};
use oci_delta_fetch::proxy::{Credentials, ProxyOptions};
use oci_delta_fetch::registry::{Listing, RemoteRepository};
use oci_spec::distribution::Reference;
use serde_json::{Value, json};
use support::images::{DELTA, MANIFEST};

/// Answers each request by a function of its head; remembers the heads.
pub(crate) struct Fake {
    pub(crate) address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

type Answer = Box<dyn Fn(&str, &mut TcpStream) + Send + Sync>;

impl Fake {
    pub(crate) fn new(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (answer, seen): (Arc<Answer>, _) = (Arc::new(Box::new(answer)), heads.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, seen) = (answer.clone(), seen.clone());
                std::thread::spawn(move || serve(stream, &answer, &seen));
            }
        });
        Fake { address, heads }
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub(crate) fn referrers(&self, options: ProxyOptions) -> Result<Listing, Error> {
        let name: Reference = format!("{}/os:1", self.address).parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            RemoteRepository::new(&name, &options).referrers(&subject(), DELTA, 1 << 20).await
        })
    }

    fn refused(&self, kind: Kind, text: &str) {
        let error = self.referrers(options()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "no {text:?} in {error}");
    }
}

fn serve(stream: TcpStream, answer: &Answer, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while let Ok(n) = reader.read_line(&mut head) {
        if n == 0 || head.ends_with("\r\n\r\n") {
            break;
        }
    }
    let length = head
        .to_lowercase()
        .split("content-length: ")
        .nth(1)
        .map(|rest| rest.lines().next().unwrap().parse().unwrap());
    std::io::copy(&mut reader.by_ref().take(length.unwrap_or(0)), &mut std::io::sink()).unwrap();
    // What is no request is an attempt at TLS.
    if head.contains(" HTTP/1.1\r\n") {
        seen.lock().unwrap().push(head.clone());
        let mut stream = stream;
        answer(&head, &mut stream);
    }
}

pub(crate) fn options() -> ProxyOptions {
    ProxyOptions {
        tls_verify: false,
        registries_conf: Some("/dev/null".into()),
        authfile: Some("/nonexistent".into()),
        inactivity_timeout: Duration::from_secs(2),
        retries: 0,
        ..Default::default()
    }
}

pub(crate) fn subject() -> Digest {
    digest_of(b"an image")
}

pub(crate) fn entry(n: usize) -> Value {
    json!({"mediaType": MANIFEST, "digest": digest_of(&n.to_le_bytes()).to_string(), "size": 100, "artifactType": DELTA})
}

pub(crate) fn index(entries: &[Value]) -> String {
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries})
        .to_string()
}

pub(crate) fn send(stream: &mut TcpStream, status: &str, more: &str, body: &str) {
    let head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{more}\r\n", body.len());
    // A client that has heard enough closes the connection.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

#[test]
fn pages_are_followed_to_the_last() {
    let fake = Fake::new(|head, stream| match head.contains("page=2") {
        false => send(stream, "200 OK", "Link: <?page=2>; rel=\"next\"\r\n", &index(&[entry(1)])),
        true => send(stream, "200 OK", "", &index(&[entry(2)])),
    });
    assert_eq!(fake.referrers(options()).unwrap().entries.len(), 2);
}

#[test]
fn a_list_that_goes_round() {
    let fake = Fake::new(|_, stream| {
        send(stream, "200 OK", "Link: <?page=1>; rel=\"next\"\r\n", &index(&[entry(1)]))
    });
    fake.refused(Kind::Verification, "does not end");
    assert!(fake.heads().len() < 5);
}

#[test]
fn a_list_with_ever_new_pages() {
    let fake = Fake::new(|head, stream| {
        let page: usize =
            head.split("page=").nth(1).and_then(|p| p.split(' ').next()?.parse().ok()).unwrap_or(0);
        send(stream, "200 OK", &format!("Link: <?page={}>; rel=\"next\"\r\n", page + 1), &index(&[]));
    });
    fake.refused(Kind::Verification, "does not end");
    assert!(fake.heads().len() <= 40);
}

#[test]
fn a_million_entries() {
    let body: String = index(&(0..20_000).map(entry).collect::<Vec<_>>());
    let fake = Fake::new(move |_, stream| send(stream, "200 OK", "", &body));
    fake.refused(Kind::Verification, "more than 1048576 bytes");
}

#[test]
fn more_entries_than_anybody_needs() {
    let small =
        |n: usize| json!({"mediaType": "x/y", "size": 0, "digest": digest_of(&n.to_le_bytes()).to_string()});
    let body = index(&(0..5000).map(small).collect::<Vec<_>>());
    let fake = Fake::new(move |_, stream| send(stream, "200 OK", "", &body));
    fake.refused(Kind::Verification, "more than 4096");
}

#[test]
fn a_body_without_an_end() {
    let fake = Fake::new(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        let mut sent = stream.write_all(head.as_bytes());
        while sent.is_ok() {
            sent = stream.write_all(&[b' '; 65536]);
        }
    });
    fake.refused(Kind::Verification, "more than 1048576 bytes");
}

#[test]
fn a_body_that_drips() {
    let fake = Fake::new(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
        let mut sent = stream.write_all(head.as_bytes());
        while sent.is_ok() {
            std::thread::sleep(Duration::from_millis(100));
            sent = stream.write_all(b" ");
        }
    });
    let started = Instant::now();
    fake.refused(Kind::Transient, "timed out");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn the_next_page_is_on_another_server() {
    let other = Fake::new(|_, stream| send(stream, "200 OK", "", &index(&[entry(1)])));
    let link = format!("Link: <http://{}/v2/os/referrers/x>; rel=\"next\"\r\n", other.address);
    let fake = Fake::new(move |_, stream| send(stream, "200 OK", &link, &index(&[])));
    fake.refused(Kind::Verification, "on another server");
    assert!(other.heads().is_empty());
}

#[test]
fn a_redirect_does_not_take_the_password_along() {
    let other = Fake::new(|_, stream| send(stream, "200 OK", "", &index(&[entry(1)])));
    // The same machine under another name.
    let place = format!("Location: http://localhost:{}/list\r\n", other.address.rsplit(':').next().unwrap());
    let fake = Fake::new(move |head, stream| match head.to_lowercase().contains("authorization: basic") {
        false => send(stream, "401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", ""),
        true => send(stream, "307 Temporary Redirect", &place, ""),
    });
    let creds = Some(Credentials::parse("user:secret").unwrap());
    let listing = fake.referrers(ProxyOptions { creds, ..options() }).unwrap();
    assert_eq!(listing.entries.len(), 1, "the redirect itself is followed");
    assert!(fake.heads().iter().any(|head| head.to_lowercase().contains("authorization")));
    assert!(other.heads().iter().all(|head| !head.to_lowercase().contains("authorization")));
}

#[test]
fn redirects_without_an_end() {
    let fake = Fake::new(|_, stream| send(stream, "302 Found", "Location: ?again\r\n", ""));
    fake.refused(Kind::Local, "redirect");
    assert!(fake.heads().len() < 10);
}

#[test]
fn a_web_page_in_place_of_a_list() {
    // There is no referrers API, and no list yet.
    let fake = Fake::new(|_, stream| send(stream, "200 OK", "", "<html>welcome</html>"));
    assert!(fake.referrers(options()).unwrap().entries.is_empty());
}

#[test]
fn neither_the_api_nor_the_tag() {
    let fake = Fake::new(|_, stream| send(stream, "404 Not Found", "", "page not found"));
    let listing = fake.referrers(options()).unwrap();
    assert!(listing.requests == 2 && listing.entries.is_empty());
    assert_eq!(fake.heads().len(), 2);
}

#[test]
fn servers_in_trouble_are_asked_again() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let fake = Fake::new(move |_, stream| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => send(stream, "503 Service Unavailable", "", ""),
        1 => send(stream, "429 Too Many Requests", "", ""),
        _ => send(stream, "200 OK", "", &index(&[entry(1)])),
    });
    assert_eq!(fake.referrers(ProxyOptions { retries: 3, ..options() }).unwrap().entries.len(), 1);
    let always = Fake::new(|_, stream| send(stream, "500 Internal Server Error", "", ""));
    always.refused(Kind::Transient, "500");
}

#[test]
fn what_the_configuration_forbids_is_not_asked() {
    let fake = Fake::new(|_, stream| send(stream, "200 OK", "", &index(&[entry(1)])));
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("registries.conf");
    for rule in ["blocked = true".to_owned(), "location = \"elsewhere.example\"".to_owned()] {
        let text = match rule.starts_with("loc") {
            true => format!("[[registry]]\nprefix = \"{}\"\n{rule}\n", fake.address),
            false => format!("[[registry]]\nlocation = \"{}\"\n{rule}\n", fake.address),
        };
        std::fs::write(&conf, text).unwrap();
        let options =
            ProxyOptions { registries_conf: Some(conf.clone()), skopeo: "false".into(), ..options() };
        assert!(fake.referrers(options).is_err());
    }
    assert!(fake.heads().is_empty(), "{:?}", fake.heads());
}
