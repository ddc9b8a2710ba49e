//! What scripts and people rely on: error texts, hints, exit codes, JSON. A
//! change here is a change of the interface; `cargo insta review` accepts one.

use crate::support;

use support::images::tar;
use support::{Delta, Image, Layer, OciDir, Sandbox};

fn layout(sandbox: &Sandbox) -> OciDir {
    let shared = Layer::gzip(tar(&[("etc/shared", b"shared")]));
    let old = Image::new(vec![shared.clone(), Layer::gzip(tar(&[("data", &[7; 4000])]))]);
    let new = Image::new(vec![shared, Layer::gzip(tar(&[("data", &[7; 4000]), ("more", b"!")]))]);
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("old", &old).image("new", &new).delta("delta", &Delta::new(&old, &new));
    dir
}

/// Takes out what differs from run to run and machine to machine: the sandbox's path, digests, seconds.
fn settled(sandbox: &Sandbox, text: &str) -> String {
    let text = text.replace(&sandbox.dir.path().display().to_string(), "SANDBOX");
    let mut out = String::new();
    for line in text.lines() {
        let time = ["seconds", "plan", "rebuild", "publish"].map(|name| format!("\"{name}\": "));
        let line = match time.iter().find_map(|name| Some((line.split_once(name)?.0, name))) {
            Some((before, name)) => format!("{before}{name}SECONDS"),
            None => line.to_owned(),
        };
        let mut parts = line.split("sha256:");
        out.push_str(parts.next().unwrap_or_default());
        for part in parts {
            out.push_str("sha256:HEX");
            out.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
        }
        out.push('\n');
    }
    out
}

fn transcript(sandbox: &Sandbox, runs: &[&[&str]]) -> String {
    let mut out = String::new();
    for args in runs {
        let ended = sandbox.run(args);
        out.push_str(&format!("$ oci-delta-fetch {}\n", args.join(" ")));
        out.push_str(&ended.stdout);
        out.push_str(&ended.stderr);
        out.push_str(&format!("[{}]\n\n", ended.code));
    }
    settled(sandbox, &out)
}

#[test]
fn errors_name_what_and_the_next_step() {
    let sandbox = Sandbox::new();
    let dir = layout(&sandbox);
    let (old, delta, source) = (dir.reference("old"), dir.reference("delta"), dir.root.display().to_string());
    let text = transcript(
        &sandbox,
        &[
            &[],
            &["--dry-run", "list"],
            &["/some/path"],
            &["docker-archive:x"],
            &["UPPER/case"],
            &["list"],
            &[&format!("oci:{source}")],
            &[&format!("oci:{source}:absent")],
            &["oci:SANDBOX/nowhere"],
            &[&delta, "--delta-policy", "only"],
            &[&delta, "--delta-policy", "only", "--base", &dir.reference("new")],
            &[&delta, "--base", &old, "--rootfs", "/"],
            &[&old, "--compress", "xz"],
            &[&old, "--platform", "nonsense"],
            &[&old, "--max-layer-size", "1"],
            &["h.example/x", "--skopeo", "/nonexistent/skopeo"],
            &["h.example/x", "--creds", "nobody"],
            &["remove", "absent"],
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn reports_have_their_fields() {
    let sandbox = Sandbox::new();
    let dir = layout(&sandbox);
    let (old, delta) = (dir.reference("old"), dir.reference("delta"));
    let text = transcript(
        &sandbox,
        &[
            &[&old, "--json"],
            &["inspect", &delta, "--json"],
            &["inspect", &delta, "--files", "--json"],
            &[&delta, "--dry-run", "--json"],
            &[&delta, "--tag", "new", "--json"],
            &[&delta, "--json"],
            &["list", "--json"],
            &["verify", "--json"],
            &["remove", "new", "--json"],
            &["gc", "--json"],
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn people_read_this() {
    let sandbox = Sandbox::new();
    let dir = layout(&sandbox);
    let (old, delta) = (dir.reference("old"), dir.reference("delta"));
    let text = transcript(
        &sandbox,
        &[
            &["inspect", &delta],
            &["inspect", "--files", &delta],
            &[&delta, "--base", &old, "--dry-run"],
            &[&delta, "--tag", "os", "--delta-policy", "only"],
            &["inspect", &delta],
            &[&delta, "--tag", "os"],
        ],
    );
    insta::assert_snapshot!(text.replace(char::is_numeric, "9"));
}

#[test]
fn progress_as_json_goes_to_standard_error() {
    let sandbox = Sandbox::new();
    let dir = layout(&sandbox);
    let ended = sandbox.ok(&[&dir.reference("old"), "--progress", "json"]);
    let events: Vec<serde_json::Value> =
        ended.stderr.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(events[0]["version"], 1);
    for event in ["start", "layer-start", "bytes", "layer-done", "finish"] {
        assert!(events.iter().any(|e| e["event"] == event), "{event} in {events:#?}");
    }
}
