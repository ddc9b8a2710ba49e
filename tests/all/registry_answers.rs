//! What registries answer to our own requests, and what is made of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use oci_delta_fetch::digest::digest_of;
use oci_delta_fetch::error::Kind;
use oci_delta_fetch::proxy::{Credentials, ProxyOptions};
use oci_delta_fetch::registry::{Change, RemoteRepository};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::json;

use crate::hostile_registry::{Fake, entry, index, options, send, subject};
use crate::support::images::DELTA;

const JSON: &str = "Content-Type: application/json\r\n";
const SAYS: &str = r#"{"errors":[{"code":"X","message":"the moon is full"}]}"#;

fn is_api(head: &str) -> bool {
    head.contains("/referrers/")
}

/// A registry with a list under the tag, that answers the referrers API with `status` and `body`.
fn with_tag(status: &'static str, body: &'static str) -> Fake {
    Fake::new(move |head, stream| match is_api(head) {
        true => send(stream, status, JSON, body),
        false => send(stream, "200 OK", "", &index(&[entry(1)])),
    })
}

#[test]
fn without_an_api_the_tag_has_the_list() {
    for status in [
        "400 Bad Request",
        "404 Not Found",
        "405 Method Not Allowed",
        "406 Not Acceptable",
        "410 Gone",
        "415 Unsupported Media Type",
        "421 Misdirected Request",
        "501 Not Implemented",
        "505 HTTP Version Not Supported",
    ] {
        let fake = with_tag(status, SAYS);
        let patient = ProxyOptions { retries: 2, ..options() };
        assert_eq!(fake.referrers(patient).unwrap().entries.len(), 1, "{status}");
        assert_eq!(fake.heads().iter().filter(|head| is_api(head)).count(), 1, "{status} is final");
    }
    for body in ["<html>", "{}", "[]", "null", r#"{"manifests":{}}"#] {
        assert_eq!(with_tag("200 OK", body).referrers(options()).unwrap().entries.len(), 1, "{body}");
    }
    // An empty list is one.
    for body in [r#"{"manifests":[]}"#, r#"{"schemaVersion":2,"manifests":null}"#] {
        assert_eq!(with_tag("200 OK", body).referrers(options()).unwrap().entries.len(), 0, "{body}");
    }
}

#[test]
fn a_refusal_of_the_list_hides_no_tag() {
    for (status, kind) in [
        ("401 Unauthorized", Kind::Local),
        ("403 Forbidden", Kind::Local),
        ("500 Internal Server Error", Kind::Transient),
        ("503 Service Unavailable", Kind::Transient),
    ] {
        assert_eq!(with_tag(status, SAYS).referrers(options()).unwrap().entries.len(), 1, "{status}");
        // Without a list there, nobody knows what it would have listed.
        let fake = Fake::new(move |head, stream| match is_api(head) {
            true => send(stream, status, JSON, SAYS),
            false => send(stream, "404 Not Found", "", ""),
        });
        let error = fake.referrers(options()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("the moon is full"), "{error}");
    }
}

#[test]
fn what_stands_under_the_tag_and_is_no_list_is_none_yet() {
    for body in [
        r#"{"schemaVersion":2,"config":{},"layers":[]}"#,
        r#"{"schemaVersion":1,"fsLayers":[]}"#,
        r#"{"manifests":7}"#,
        "[]",
        "7",
        "",
        "<html>",
        "\u{0}",
    ] {
        let written = std::sync::Arc::new(AtomicUsize::new(0));
        let count = written.clone();
        let fake = Fake::new(move |head, stream| match head {
            _ if is_api(head) => send(stream, "404 Not Found", "", ""),
            _ if head.starts_with("PUT") => {
                count.fetch_add(1, Ordering::SeqCst);
                send(stream, "201 Created", "", "");
            }
            _ if count.load(Ordering::SeqCst) > 0 => send(stream, "200 OK", "", &index(&[entry(1)])),
            _ => send(stream, "200 OK", "", body),
        });
        assert_eq!(fake.referrers(options()).unwrap().entries.len(), 0, "{body}");
        let entry = Descriptor::new(MediaType::ImageManifest, 100, digest_of(&1_usize.to_le_bytes()));
        let change = Change::Add { entry: Box::new(entry), room: u64::MAX };
        block_on(repository(&fake).change_list(&subject(), &change)).unwrap();
        assert_eq!(written.load(Ordering::SeqCst), 1, "{body}");
    }
}

#[test]
fn one_odd_entry_hides_no_other() {
    let odd = [
        json!(null),
        json!({"digest": "x"}),
        json!({"size": 1}),
        json!({"platform": {}, "annotations": [1]}),
    ];
    let listed = odd.map(|odd| [odd, entry(1)]).concat();
    let tag = index(&listed);
    let fake = Fake::new(move |head, stream| match is_api(head) {
        true => send(stream, "404 Not Found", "", ""),
        false => send(stream, "200 OK", "", &tag),
    });
    let listing = fake.referrers(options()).unwrap();
    assert_eq!((listing.entries.len(), listing.odd.len()), (4, 4), "{:?}", listing.odd);
}

#[test]
fn a_refused_write_shows_the_reason() {
    for (status, kind) in [
        ("400 Bad Request", Kind::Local),
        ("405 Method Not Allowed", Kind::Local),
        ("409 Conflict", Kind::Local),
        ("422 Unprocessable Entity", Kind::Local),
        ("503 Service Unavailable", Kind::Transient),
    ] {
        let fake = Fake::new(move |_, stream| send(stream, status, JSON, SAYS));
        let error = block_on(repository(&fake).put_fallback_list(&subject(), b"{}")).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(&format!("{status}: X: the moon is full")), "{error}");
    }
}

#[test]
fn a_registry_is_left_alone_for_as_long_as_it_asks() {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3));
    for (wait, least) in [(date, 1500), ("1".to_owned(), 1000), ("0".to_owned(), 0), ("soon".to_owned(), 0)] {
        let asked = AtomicUsize::new(0);
        let (status, shown) = ("429 Too Many Requests", wait.clone());
        let fake = Fake::new(move |_, stream| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => send(stream, status, &format!("Retry-After: {wait}\r\n"), ""),
            _ => send(stream, "200 OK", "", &index(&[])),
        });
        let began = Instant::now();
        fake.referrers(ProxyOptions { retries: 1, ..options() }).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(least), "{shown}");
    }
    // Nobody waits for an hour.
    for wait in ["3600", "99999999999999999999", "Fri, 31 Dec 2120 23:59:59 GMT"] {
        let fake = Fake::new(move |_, stream| {
            send(stream, "429 Too Many Requests", &format!("Retry-After: {wait}\r\n"), "slow down");
        });
        let began = Instant::now();
        let error = fake.referrers(ProxyOptions { retries: 3, ..options() }).unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(10), "{wait}");
        assert!(error.kind() == Kind::Transient && error.to_string().contains("slow down"), "{error}");
    }
}

/// A registry that wants what one of `challenges` leads to: the password, or the token that it gave last.
fn guarded(challenges: &'static [&'static str]) -> Fake {
    let given = AtomicUsize::new(0);
    let address = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let own = address.clone();
    let fake = Fake::new(move |head, stream| {
        let lower = head.to_lowercase();
        if head.starts_with("GET /token") {
            let token = given.fetch_add(1, Ordering::SeqCst) + 1;
            return send(stream, "200 OK", JSON, &json!({"access_token": format!("t{token}")}).to_string());
        }
        let basic = lower.contains("authorization: basic dxnlcjpzzwnyzxq=");
        let token = format!("authorization: bearer t{}\r\n", given.load(Ordering::SeqCst));
        if basic || lower.contains(&token) {
            return send(stream, "200 OK", "", &index(&[entry(1)]));
        }
        let realm = format!("http://{}/token", own.get().unwrap());
        let line = |c: &&str| format!("WWW-Authenticate: {}\r\n", c.replace("REALM", &realm));
        send(stream, "401 Unauthorized", &challenges.iter().map(line).collect::<String>(), "");
    });
    address.set(fake.address.clone()).unwrap();
    fake
}

#[test]
fn one_of_all_challenges_is_met() {
    let ways: [&'static [&'static str]; 7] = [
        &[r#"Basic realm="x""#],
        &["Negotiate", r#"Bearer realm="REALM",service="s",scope="repository:os:pull""#],
        &[r#"Digest realm="x", nonce="y""#, r#"Basic realm="x""#],
        &[r#"Basic realm="x", Bearer realm="REALM",service="s""#],
        &[r#"bearer Realm=REALM, Basic realm="x""#],
        &["Negotiate YII==", r#"NTLM, Bearer realm="REALM""#],
        &[r#"Bearer realm="http://127.0.0.1:1/dead", Basic realm="x""#],
    ];
    for challenges in ways {
        let creds = Some(Credentials::parse("user:secret").unwrap());
        let listing = guarded(challenges).referrers(ProxyOptions { creds, ..options() });
        assert_eq!(listing.unwrap().entries.len(), 1, "{challenges:?}");
    }
    // Nobody's token, without a password.
    let fake =
        guarded(&[r#"Basic realm="x""#, r#"Bearer realm="REALM",service="s",scope="repository:os:pull""#]);
    assert_eq!(fake.referrers(options()).unwrap().entries.len(), 1);
    let asked = fake.heads().into_iter().find(|head| head.starts_with("GET /token")).unwrap();
    assert!(asked.contains("service=s") && asked.contains("scope=repository%3Aos%3Apull"), "{asked}");
    for challenges in [&["Negotiate"][..], &[]] {
        let error = guarded(challenges).referrers(options()).unwrap_err();
        assert!(error.kind() == Kind::Local && error.hint().is_some(), "{error}");
    }
}

#[test]
fn a_withdrawn_token_is_fetched_anew() {
    let fake = guarded(&[r#"Bearer realm="REALM""#]);
    let repository = repository(&fake);
    block_on(async {
        for _ in 0..2 {
            repository.referrers(&subject(), DELTA, 1 << 20).await.unwrap();
            // Somebody else's takes the place of ours.
            let mut other = TcpStream::connect(&fake.address).unwrap();
            other.write_all(b"GET /token HTTP/1.1\r\n\r\n").unwrap();
            other.read_to_end(&mut Vec::new()).unwrap();
        }
    });
    assert_eq!(fake.heads().iter().filter(|head| head.starts_with("GET /token")).count(), 4);
}

#[test]
fn requests_do_not_wait_for_each_other() {
    let both = Barrier::new(2);
    let bodies = [&b"one"[..], &b"two"[..]];
    let fake = Fake::new(move |head, stream| {
        let body = bodies.iter().find(|body| head.contains(digest_of(body).as_ref())).unwrap();
        both.wait();
        send(stream, "200 OK", "", std::str::from_utf8(body).unwrap());
    });
    let repository = repository(&fake);
    let (one, two) = (digest_of(b"one"), digest_of(b"two"));
    let (one, two) =
        block_on(async { tokio::join!(repository.manifest(&one, 10), repository.manifest(&two, 10)) });
    assert_eq!((one.unwrap(), two.unwrap()), (b"one".to_vec(), b"two".to_vec()));
}

#[test]
fn names_in_addresses_are_no_reasons() {
    for name in ["certificate", "redirect", "tls/unauthorized"] {
        let reference = format!("127.0.0.1:1/{name}:1").parse().unwrap();
        let repository = RemoteRepository::new(&reference, &options());
        let error = block_on(repository.referrers(&subject(), DELTA, 1 << 20)).unwrap_err();
        assert_eq!(error.kind(), Kind::Transient, "{error}");
    }
}

fn repository(fake: &Fake) -> RemoteRepository {
    RemoteRepository::new(&format!("{}/os:1", fake.address).parse().unwrap(), &options())
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}
