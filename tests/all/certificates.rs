//! Certificates of registries: ours and skopeo's opinion of each must be the same, for machines are set up
//! for skopeo. Skopeo itself is asked; what a case says is what both are expected to think.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use oci_delta_fetch::digest::digest_of;
use oci_delta_fetch::error::{Advice, Error, Hint, Kind};
use oci_delta_fetch::proxy::ProxyOptions;
use oci_delta_fetch::registry::RemoteRepository;
use oci_spec::distribution::Reference;

use crate::support::images::DELTA;

/// Shell functions to make certificates: `key NAME ALGORITHM`, `self NAME EXTENSION...`,
/// `sign NAME BY EXTENSION...`. `$HASH`, `$DAYS` and `$SUBJECT` may be set.
const FUNCTIONS: &str = r#"
printf '[req]\ndistinguished_name=dn\n[dn]\n' >cnf
key() { case $2 in
    rsa:*|rsa-pss:*) openssl genpkey -quiet -algorithm ${2%%:*} -pkeyopt rsa_keygen_bits:${2#*:} -out $1.key;;
    ed25519) openssl genpkey -algorithm ed25519 -out $1.key;;
    *) openssl ecparam -name $2 -genkey -noout -out $1.key;; esac; }
extensions() { : >ext; for e; do echo "$e" >>ext; done; }
request() { openssl req -new -config cnf -key $1.key -subj "${SUBJECT-/CN=$1}" -out $1.csr; }
self() { name=$1; shift; extensions "$@"; request $name
    openssl x509 -req -in $name.csr -signkey $name.key -days ${DAYS-2} -${HASH-sha256} $options -extfile ext -out $name.crt; }
sign() { name=$1; by=$2; shift 2; extensions "$@"; request $name; serial=$((serial + 1))
    openssl x509 -req -in $name.csr -CA $by.crt -CAkey $by.key -set_serial $serial -days ${DAYS-2} -${HASH-sha256} \
        $options -extfile ext -out $name.crt; }
trust() { for name; do cp $name.crt certs/; done; }
options= serial=0; mkdir certs; : >chain.crt
P256=prime256v1 P384=secp384r1 P521=secp521r1
CA=basicConstraints=critical,CA:TRUE LEAF=basicConstraints=CA:FALSE NAME=subjectAltName=DNS:localhost
"#;

/// What it is, how it is made (the server shows `leaf` and `chain.crt`; `certs` is trusted), whether it is
/// taken for `localhost`.
const CASES: &[(&str, &str, bool)] = &[
    ("its own authority", "key leaf $P256; self leaf $CA $NAME; trust leaf", true),
    ("self-signed", "key leaf $P256; self leaf $LEAF $NAME; trust leaf", true),
    ("self-signed, says nothing", "key leaf $P256; self leaf $NAME; trust leaf", true),
    ("self-signed, P-384", "key leaf $P384; self leaf $CA $NAME; trust leaf", true),
    ("self-signed, P-521", "key leaf $P521; self leaf $CA $NAME; trust leaf", true),
    (
        "self-signed, Ed25519",
        "key leaf ed25519; HASH=sha256; options=; extensions $CA $NAME; request leaf; openssl x509 -req -in leaf.csr -signkey leaf.key -days 2 -extfile ext -out leaf.crt; trust leaf",
        true,
    ),
    ("self-signed, RSA", "key leaf rsa:2048; self leaf $CA $NAME; trust leaf", true),
    (
        "self-signed, not in the store",
        "key leaf $P256; self leaf $CA $NAME; key ca $P256; self ca $CA; trust ca",
        false,
    ),
    (
        "its twin is in the store",
        "key leaf $P256; self leaf $LEAF $NAME; cp leaf.crt first; self leaf $LEAF $NAME keyUsage=digitalSignature; trust leaf; cp first leaf.crt",
        false,
    ),
    (
        "of an authority",
        "key ca $P256; self ca $CA; key leaf $P256; sign leaf ca $LEAF $NAME; trust ca",
        true,
    ),
    ("of an unknown one", "key ca $P256; self ca $CA; key leaf $P256; sign leaf ca $LEAF $NAME", false),
    (
        "of another one with the same name",
        "key ca $P256; self ca $CA; key leaf $P256; sign leaf ca $LEAF $NAME; key ca $P256; self ca $CA; trust ca",
        false,
    ),
    (
        "an authority below an authority",
        "key ca $P256; self ca $CA; key leaf $P256; sign leaf ca $CA $NAME; trust ca",
        true,
    ),
    (
        "of P-521 with SHA-512",
        "key ca $P521; HASH=sha512 self ca $CA; key leaf $P256; HASH=sha512 sign leaf ca $LEAF $NAME; trust ca",
        true,
    ),
    (
        "of P-521 with SHA-256",
        "key ca $P521; self ca $CA; key leaf $P521; sign leaf ca $LEAF $NAME; trust ca",
        true,
    ),
    (
        "of P-256 with SHA-512",
        "key ca $P256; self ca $CA; key leaf $P256; HASH=sha512 sign leaf ca $LEAF $NAME; trust ca",
        true,
    ),
    (
        "of P-384 with SHA-512",
        "key ca $P384; self ca $CA; key leaf $P384; HASH=sha512 sign leaf ca $LEAF $NAME; trust ca",
        true,
    ),
    (
        "of RSA with 1024 bits",
        "key ca rsa:1024; self ca $CA; key leaf $P256; sign leaf ca $LEAF $NAME; trust ca",
        true,
    ),
    (
        "of RSA-PSS",
        "key ca rsa:2048; self ca $CA; key leaf $P256; options='-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32' sign leaf ca $LEAF $NAME; trust ca",
        true,
    ),
    (
        "with SHA-1",
        "key ca rsa:2048; self ca $CA; key leaf $P256; HASH=sha1 sign leaf ca $LEAF $NAME; trust ca",
        false,
    ),
    (
        "of a version 1 authority",
        "key ca rsa:2048; self ca; openssl x509 -in ca.crt -noout -text | grep -q 'Version: 1'; key leaf $P256; sign leaf ca $LEAF $NAME; trust ca",
        true,
    ),
    (
        "of a version 3 one that says nothing",
        "key ca $P256; self ca keyUsage=keyCertSign; key leaf $P256; sign leaf ca $LEAF $NAME; trust ca",
        false,
    ),
    (
        "of one that is no authority",
        "key ca $P256; self ca $LEAF; key leaf $P256; sign leaf ca $LEAF $NAME; trust ca",
        false,
    ),
    (
        "of one that may not sign",
        "key ca $P256; self ca $CA keyUsage=critical,digitalSignature; key leaf $P256; sign leaf ca $LEAF $NAME; trust ca",
        false,
    ),
    (
        "of one that may sign",
        "key ca $P256; self ca $CA keyUsage=critical,keyCertSign,cRLSign; key leaf $P256; sign leaf ca $LEAF $NAME keyUsage=digitalSignature; trust ca",
        true,
    ),
    (
        "an authority between",
        "key ca $P256; self ca $CA; key mid $P256; sign mid ca $CA; key leaf $P256; sign leaf mid $LEAF $NAME; cp mid.crt chain.crt; trust ca",
        true,
    ),
    (
        "one between, not shown",
        "key ca $P256; self ca $CA; key mid $P256; sign mid ca $CA; key leaf $P256; sign leaf mid $LEAF $NAME; trust ca",
        false,
    ),
    (
        "one between in the store, the first is not",
        "key ca $P256; self ca $CA; key mid $P256; sign mid ca $CA; key leaf $P256; sign leaf mid $LEAF $NAME; trust mid",
        true,
    ),
    (
        "one between that is no authority",
        "key ca $P256; self ca $CA; key mid $P256; sign mid ca $LEAF; key leaf $P256; sign leaf mid $LEAF $NAME; cp mid.crt chain.crt; trust ca",
        false,
    ),
    (
        "one between of version 1",
        "key ca $P256; self ca $CA; key mid $P256; sign mid ca; key leaf $P256; sign leaf mid $LEAF $NAME; cp mid.crt chain.crt; trust ca",
        false,
    ),
    (
        "one between too many",
        "key ca $P256; self ca $CA,pathlen:0; key mid $P256; sign mid ca $CA; key leaf $P256; sign leaf mid $LEAF $NAME; cp mid.crt chain.crt; trust ca",
        false,
    ),
    (
        "one between, one allowed",
        "key ca $P256; self ca $CA,pathlen:1; key mid $P256; sign mid ca $CA,pathlen:0; key leaf $P256; sign leaf mid $LEAF $NAME; cp mid.crt chain.crt; trust ca",
        true,
    ),
    ("for another name", "key leaf $P256; self leaf $CA subjectAltName=DNS:other.test; trust leaf", false),
    ("for an address", "key leaf $P256; self leaf $CA subjectAltName=IP:127.0.0.1; trust leaf", false),
    ("for nobody", "key leaf $P256; SUBJECT=/CN=localhost self leaf $CA; trust leaf", false),
    (
        "for several, in capitals",
        "key leaf $P256; self leaf $CA subjectAltName=IP:10.0.0.1,DNS:a.test,DNS:LOCALHOST,email:a@b.test; trust leaf",
        true,
    ),
    ("for everybody", "key leaf $P256; self leaf $CA 'subjectAltName=DNS:*.test'; trust leaf", false),
    ("expired", "key leaf $P256; DAYS=-1 self leaf $CA $NAME; trust leaf", false),
    (
        "expired, of an authority",
        "key ca $P256; self ca $CA; key leaf $P256; DAYS=-1 sign leaf ca $LEAF $NAME; trust ca",
        false,
    ),
    (
        "of an expired authority",
        "key ca $P256; DAYS=-1 self ca $CA; key leaf $P256; sign leaf ca $LEAF $NAME; trust ca",
        false,
    ),
    ("for clients", "key leaf $P256; self leaf $CA $NAME extendedKeyUsage=clientAuth; trust leaf", false),
    (
        "for servers and clients",
        "key ca $P256; self ca $CA; key leaf $P256; sign leaf ca $LEAF $NAME extendedKeyUsage=clientAuth,serverAuth; trust ca",
        true,
    ),
    (
        "for anything",
        "key ca $P256; self ca $CA; key leaf $P256; sign leaf ca $LEAF $NAME extendedKeyUsage=anyExtendedKeyUsage; trust ca",
        true,
    ),
    (
        "of an authority for clients",
        "key ca $P256; self ca $CA extendedKeyUsage=clientAuth; key leaf $P256; sign leaf ca $LEAF $NAME; trust ca",
        false,
    ),
    (
        "of an authority for servers",
        "key ca $P256; self ca $CA extendedKeyUsage=serverAuth; key leaf $P256; sign leaf ca $LEAF $NAME; trust ca",
        true,
    ),
    (
        "of an authority for this name",
        "key ca $P256; self ca $CA 'nameConstraints=critical,permitted;DNS:localhost'; key leaf $P256; sign leaf ca $LEAF $NAME; trust ca",
        true,
    ),
    (
        "of an authority for other names",
        "key ca $P256; self ca $CA 'nameConstraints=critical,permitted;DNS:corp.test'; key leaf $P256; sign leaf ca $LEAF $NAME; trust ca",
        false,
    ),
    (
        "of an authority for all but this name",
        "key ca $P256; self ca $CA 'nameConstraints=excluded;DNS:localhost'; key leaf $P256; sign leaf ca $LEAF $NAME; trust ca",
        false,
    ),
    (
        "of an authority for addresses",
        "key ca $P256; self ca $CA 'nameConstraints=critical,permitted;IP:10.0.0.0/255.0.0.0'; key leaf $P256; sign leaf ca $LEAF $NAME; trust ca",
        true,
    ),
    (
        "with a critical riddle",
        "key leaf $P256; self leaf $CA $NAME 1.2.3.4=critical,ASN1:NULL; trust leaf",
        false,
    ),
    ("with a riddle", "key leaf $P256; self leaf $CA $NAME 1.2.3.4=ASN1:NULL; trust leaf", true),
    (
        "of an authority with a critical riddle",
        "key ca $P256; self ca $CA 1.2.3.4=critical,ASN1:NULL; key leaf $P256; sign leaf ca $LEAF $NAME; trust ca",
        false,
    ),
    (
        "in a file with others",
        "key leaf $P256; self leaf $CA $NAME; key ca $P256; self ca $CA; (echo -----BEGIN CERTIFICATE-----; echo AAAA; echo -----END CERTIFICATE-----; cat ca.crt leaf.crt) >certs/all.crt",
        true,
    ),
    ("in a file that is not asked", "key leaf $P256; self leaf $CA $NAME; cp leaf.crt certs/leaf.pem", false),
    (
        "as DER",
        "key leaf $P256; self leaf $CA $NAME; openssl x509 -in leaf.crt -outform der -out certs/leaf.crt",
        false,
    ),
];

/// A server that shows `leaf.crt` of a directory and says something on every page.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(dir: &Path) -> Self {
        Self::with(dir, &[])
    }

    fn with(dir: &Path, options: &[&str]) -> Self {
        let mut command = Command::new("openssl");
        command
            .args(
                "s_server -www -accept 127.0.0.1:0 -cert leaf.crt -key leaf.key -cipher DEFAULT@SECLEVEL=0"
                    .split(' '),
            )
            .args(options);
        if fs::metadata(dir.join("chain.crt")).unwrap().len() > 0 {
            command.args(["-cert_chain", "chain.crt"]);
        }
        let mut process = command
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need openssl (Debian package openssl)");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| line.strip_prefix("ACCEPT 127.0.0.1:")?.trim().parse().ok());
        // It stops when nobody reads.
        std::thread::spawn(move || lines.for_each(drop));
        Server { process, port: port.expect("openssl s_server says where it listens") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn make(script: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("set -e\n{FUNCTIONS}\n{script}");
    let output = Command::new("sh").args(["-c", &script]).current_dir(&dir).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    dir
}

/// What skopeo says against the certificate of a server, if anything.
fn skopeo_refuses(dir: &Path, host: &str) -> Option<String> {
    let certs = dir.join("certs");
    let output = Command::new("skopeo")
        .args(["inspect", "--raw", "--cert-dir", certs.to_str().unwrap(), &format!("docker://{host}/os:1")])
        .env("HOME", dir)
        .env("NO_PROXY", "localhost,127.0.0.1")
        .output()
        .expect("these tests need skopeo (Debian package skopeo)");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (said.contains("x509: ") || said.contains("tls: ")).then_some(said)
}

fn we_refuse(dir: &Path, host: &str) -> Option<Error> {
    let name: Reference = format!("{host}/os:1").parse().unwrap();
    let options = ProxyOptions {
        cert_dir: Some(dir.join("certs")),
        registries_conf: Some("/dev/null".into()),
        authfile: Some("/nonexistent".into()),
        inactivity_timeout: Duration::from_secs(5),
        retries: 0,
        ..Default::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let repository = RemoteRepository::new(&name, &options);
    runtime.block_on(repository.referrers(&digest_of(b"x"), DELTA, 1 << 20)).err()
}

#[test]
fn certificates_that_skopeo_takes_are_taken_and_no_others() {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let wrong = std::sync::Mutex::new(Vec::new());
    let work = || {
        while let Some((name, script, taken)) =
            CASES.get(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
        {
            let dir = make(script);
            let server = Server::start(dir.path());
            let host = format!("localhost:{}", server.port);
            let (skopeo, ours) = (skopeo_refuses(dir.path(), &host), we_refuse(dir.path(), &host));
            if skopeo.is_none() != *taken || ours.is_none() != *taken {
                wrong.lock().unwrap().push(format!("{name}\n  skopeo: {skopeo:?}\n  we: {ours:?}"));
            }
            if let Some(e) = ours {
                assert_eq!(e.kind(), Kind::Local, "{name}: {e}");
                assert!(e.to_string().contains("certificate"), "{name}: {e}");
                assert_eq!(e.hint(), Some(&Hint::Advice(Advice::TrustRegistry)), "{name}");
            }
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_may_be_addresses() {
    for (name, taken) in [("IP:127.0.0.1", true), ("IP:127.0.0.2,DNS:127.0.0.1", false), ("IP:::1", false)] {
        let dir = make(&format!("key leaf $P256; self leaf $CA subjectAltName={name}; trust leaf"));
        let server = Server::start(dir.path());
        let host = format!("127.0.0.1:{}", server.port);
        assert_eq!(skopeo_refuses(dir.path(), &host).is_none(), taken, "{name}");
        assert_eq!(we_refuse(dir.path(), &host).is_none(), taken, "{name}");
    }
}

#[test]
fn handshakes_are_made_with_each_kind_of_key() {
    let old = ["-tls1_2"];
    let curve = ["-groups", "P-521"];
    let ways: [(&str, &[&str]); 6] = [
        ("$P256", &old),
        ("$P384", &old),
        ("$P521", &old),
        ("rsa:2048", &old),
        ("$P256", &curve),
        ("$P521", &curve),
    ];
    for (key, options) in ways {
        let dir = make(&format!("key leaf {key}; self leaf $CA $NAME; trust leaf"));
        let server = Server::with(dir.path(), options);
        let host = format!("localhost:{}", server.port);
        let (skopeo, ours) = (skopeo_refuses(dir.path(), &host), we_refuse(dir.path(), &host));
        assert!(skopeo.is_none() && ours.is_none(), "{key} {options:?}: {skopeo:?} {ours:?}");
    }
}

/// All places where a machine's certificates may be, with a program of its own for each environment.
#[test]
fn certificates_are_found_where_skopeo_finds_them() {
    use crate::support::{Guard, Registry, Sandbox, images};
    let registry = Registry::guarded(Guard { tls: true, ..Guard::default() });
    let sandbox = Sandbox::new();
    let mut source = crate::support::OciDir::create(&sandbox.path("source"));
    let image = crate::support::Image::new(vec![crate::support::Layer::gzip(images::tar(&[("a", b"a")]))]);
    source.image("a", &image);
    registry.push(&source.reference("a"), "os:1");
    let ca = Path::new(&registry.cert_dir()).join("ca.crt");
    let file = |name: &str, from: &Path| {
        let to = sandbox.path(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, &to).unwrap();
        to
    };
    let reference = registry.reference("os:1");
    let run = |variables: &[(&str, &Path)]| {
        let mut command = sandbox.command();
        command
            .args(["deltas", &reference])
            .env("SSL_CERT_FILE", "/nonexistent")
            .env("SSL_CERT_DIR", "/nonexistent");
        crate::support::cli::ended(command.envs(variables.iter().copied()).output().unwrap())
    };
    assert_eq!(run(&[]).code, 1, "nobody trusts it");
    let pem = file("here/of-any-name", &ca);
    assert_eq!(run(&[("SSL_CERT_FILE", &pem)]).code, 0);
    assert_eq!(run(&[("SSL_CERT_DIR", pem.parent().unwrap())]).code, 0);
    let home = format!(".config/containers/certs.d/{}", registry.address);
    let own = file(&format!("{home}/ca.crt"), &ca);
    assert_eq!(run(&[]).code, 0, "certs.d of the user");
    fs::remove_file(own).unwrap();
    assert_eq!(run(&[]).code, 1);
}
