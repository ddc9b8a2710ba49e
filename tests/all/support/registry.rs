//! A real docker-registry on a free loopback port, and real skopeo. A missing tool fails the test.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub struct Registry {
    server: Child,
    pub address: String,
    pub dir: TempDir,
    /// What skopeo needs to push here.
    push_options: Vec<String>,
}

/// Name and password that a registry with [`Guard::password`] wants.
pub const CREDS: &str = "user:secret";
/// `secret` in bcrypt, which alone the registry takes.
const HTPASSWD: &str = "user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// What a registry asks of its clients.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guard {
    /// [`CREDS`] by basic authentication.
    pub password: bool,
    /// To trust the CA in [`Registry::cert_dir`].
    pub tls: bool,
}

impl Registry {
    pub fn start() -> Self {
        Self::guarded(Guard::default())
    }

    pub fn guarded(guard: Guard) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nvalidation:\n  manifests:\n    urls:\n      allow:\n        - ^http\nhttp:\n  addr: 127.0.0.1:0\n",
            path("data")
        );
        let mut push_options = vec!["--dest-tls-verify=false".to_owned()];
        if guard.tls {
            make_certificates(dir.path());
            text +=
                &format!("  tls:\n    certificate: {}\n    key: {}\n", path("leaf.crt"), path("leaf.key"));
        }
        if guard.password {
            fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
            text += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", path("htpasswd"));
            push_options.push(format!("--dest-creds={CREDS}"));
        }
        let config = dir.path().join("config.yml");
        fs::write(&config, text).unwrap();
        let mut server = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect(
                "these tests need docker-registry (Debian package docker-registry); `make test` installs it",
            );
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let at = line.find("listening on ")? + "listening on ".len();
                Some(
                    line[at..]
                        .chars()
                        .take_while(|c| !c.is_whitespace() && *c != '"' && *c != ',')
                        .collect::<String>(),
                )
            })
            .expect("docker-registry says where it listens");
        std::thread::spawn(move || lines.for_each(drop));
        Registry { server, address, dir, push_options }
    }

    /// A registry with the referrers API: ferro-oci-server, in memory.
    pub fn with_referrers() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // It does not say which port it got; a free one is chosen here.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let server = Command::new(super::example("ferro-oci-server"))
            .env("FERRO_OCI_LISTEN", &address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry =
            Registry { server, address, dir, push_options: vec!["--dest-tls-verify=false".to_owned()] };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.address).is_err() {
            assert!(Instant::now() < deadline, "ferro-oci-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// The directory for `--cert-dir`: the CA of a registry with [`Guard::tls`].
    pub fn cert_dir(&self) -> String {
        self.dir.path().join("certs").display().to_string()
    }

    /// The file that holds a blob, for spoiling it.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.dir.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    pub fn reference(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address)
    }

    /// Copies an image or artifact into the registry with skopeo, as it is.
    pub fn push(&self, from: &str, name: &str) {
        self.push_with(&["--preserve-digests"], from, name);
    }

    /// The same with options for `skopeo copy`.
    pub fn push_with(&self, options: &[&str], from: &str, name: &str) {
        let mut args = vec!["copy"];
        args.extend(self.push_options.iter().map(String::as_str));
        args.extend(options);
        let to = self.reference(name);
        args.extend([from, &to]);
        skopeo(&args, self.dir.path());
    }
}

/// Puts a manifest or index into a registry, exactly these bytes; gives the status line.
pub fn put_manifest(address: &str, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "PUT /v2/{repository}/manifests/{tag} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    stream.write_all(&[head.as_bytes(), bytes].concat()).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer
}

/// A CA in `certs/ca.crt` and a certificate of it for this machine.
fn make_certificates(dir: &Path) {
    fs::create_dir(dir.join("certs")).unwrap();
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for args in [
        format!("req -x509 {key} -days 2 -subj /CN=test-ca -keyout ca.key -out certs/ca.crt"),
        format!("req {key} -subj /CN=localhost -keyout leaf.key -out leaf.csr"),
        "x509 -req -in leaf.csr -CA certs/ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out leaf.crt"
            .to_owned(),
    ] {
        let output = Command::new("openssl")
            .args(args.split(' '))
            .current_dir(dir)
            .output()
            .expect("these tests need openssl (Debian package openssl); `make test` installs it");
        assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Runs skopeo with a home of its own and demands success.
pub fn skopeo(args: &[&str], home: &Path) -> String {
    try_skopeo(args, home).unwrap_or_else(|e| panic!("skopeo {args:?}: {e}"))
}

/// The same, giving what skopeo says when it fails.
pub fn try_skopeo(args: &[&str], home: &Path) -> Result<String, String> {
    let output = Command::new("skopeo")
        .arg("--insecure-policy")
        .args(args)
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home)
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .expect("these tests need skopeo (Debian package skopeo); `make test` installs it");
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
