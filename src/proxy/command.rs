//! The skopeo process: its command line, its credentials, and the leash it runs on.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use containers_image_proxy::ImageProxyConfig;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{self, Pid, PidfdFlags, Signal};

use super::{Credentials, ProxyOptions};
use crate::child::{self, Gifts};
use crate::error::{IoContext as _, Result};

/// The configuration to start skopeo for `reference`, and the leash of that process.
pub(super) fn prepare(reference: &str, options: &ProxyOptions) -> Result<(ImageProxyConfig, Leash)> {
    let mut command = Command::new(&options.skopeo);
    add_global_options(&mut command, options);
    let leash = Leash::attach(&mut command).at("preparing to start skopeo")?;

    let mut config = ImageProxyConfig::default();
    config.skopeo_cmd = Some(command);
    match (&options.creds, registry_of(reference)) {
        (Some(creds), Some(registry)) => {
            config.auth_data = Some(auth_file(registry, creds)?);
        }
        _ => config.authfile = options.authfile.clone(),
    }
    config.certificate_directory = options.cert_dir.clone();
    config.insecure_skip_tls_verification = Some(!options.tls_verify);
    config.insecure_policy = Some(options.insecure_policy);
    Ok((config, leash))
}

fn add_global_options(command: &mut Command, options: &ProxyOptions) {
    if let Some(file) = &options.registries_conf {
        command.arg("--registries-conf").arg(file);
    }
    if let Some(dir) = &options.tmpdir {
        command.arg("--tmpdir").arg(dir);
    }
    if let Some(platform) = &options.platform {
        command.arg("--override-os").arg(&platform.os).arg("--override-arch").arg(&platform.architecture);
        if let Some(variant) = &platform.variant {
            command.arg("--override-variant").arg(variant);
        }
    }
}

/// The registry's name in an auth file.
fn registry_of(reference: &str) -> Option<&str> {
    let name = reference.strip_prefix("docker://")?;
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => Some(host),
        _ => Some("docker.io"),
    }
}

/// A file without a name in the format of containers-auth.json.
fn auth_file(registry: &str, creds: &Credentials) -> Result<File> {
    let why = "writing credentials for skopeo";
    // In memory: unlike one on a disk it leaves nothing there.
    let fd = memfd_create("credentials", MemfdFlags::CLOEXEC).map_err(std::io::Error::from).at(why)?;
    let mut file = File::from(fd);
    file.write_all(auth_json(registry, creds).as_bytes()).at(why)?;
    file.rewind().at(why)?;
    Ok(file)
}

/// The content of a containers-auth.json.
fn auth_json(registry: &str, creds: &Credentials) -> String {
    let auth = STANDARD.encode(&creds.user_and_password);
    serde_json::json!({ "auths": { registry: { "auth": auth } } }).to_string()
}

/// A skopeo command that is no image proxy, with its credentials. It does not outlive what waits for it.
/// `side` is what its options about the registry begin with (`dest-`, `src-` or nothing).
pub(super) fn one_shot(
    words: &[&str],
    side: &str,
    reference: &str,
    options: &ProxyOptions,
) -> Result<tokio::process::Command> {
    let mut command = Command::new(&options.skopeo);
    if let Some(file) = &options.registries_conf {
        command.arg("--registries-conf").arg(file);
    }
    command.args(words);
    if !options.tls_verify {
        command.arg(format!("--{side}tls-verify=false"));
    }
    if let Some(dir) = &options.cert_dir {
        command.arg(format!("--{side}cert-dir")).arg(dir);
    }
    let mut gifts = Gifts::default();
    let named = format!("--{side}authfile");
    match (&options.creds, registry_of(reference), &options.authfile) {
        (Some(creds), Some(registry), _) => {
            let file = OwnedFd::from(auth_file(registry, creds)?);
            command.arg(named).arg(format!("/proc/self/fd/{}", file.as_raw_fd()));
            gifts.files.push(file);
        }
        (_, _, Some(file)) => {
            command.arg(named).arg(file);
        }
        _ => {}
    }
    child::bind(&mut command, gifts);
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

/// The means to kill a process that somebody else starts. Kills it when dropped.
#[derive(Debug)]
pub(super) struct Leash {
    /// The process writes its pid here as it starts.
    pid: OwnedFd,
    process: OnceLock<Option<OwnedFd>>,
}

impl Leash {
    /// Makes the process of `command` tell its pid, and die with the thread that starts it.
    fn attach(command: &mut Command) -> std::io::Result<Leash> {
        let (pid, tell) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        child::bind(command, Gifts { pid: Some(tell), ..Gifts::default() });
        Ok(Leash { pid, process: OnceLock::new() })
    }

    /// Takes hold of the process, if it was started, so that its pid cannot become another's.
    pub(super) fn grasp(&self) {
        self.process();
    }

    fn process(&self) -> Option<&OwnedFd> {
        let open = || {
            let mut pid = [0; 4];
            rustix::io::read(&self.pid, &mut pid).ok().filter(|&n| n == pid.len())?;
            process::pidfd_open(Pid::from_raw(i32::from_ne_bytes(pid))?, PidfdFlags::empty()).ok()
        };
        self.process.get_or_init(open).as_ref()
    }

    /// Kills the process, if it was started and still runs.
    pub(super) fn kill(&self) {
        if let Some(process) = self.process() {
            // It may be gone already, which is as good.
            let _ = process::pidfd_send_signal(process, Signal::KILL);
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn registries_are_found_in_references() {
        for (reference, registry) in [
            ("docker://h:5000/a:b", Some("h:5000")),
            ("docker://localhost/a", Some("localhost")),
            ("docker://busybox:1.0", Some("docker.io")),
            ("docker://library/busybox", Some("docker.io")),
            ("oci:/a/b", None),
        ] {
            assert_eq!(registry_of(reference), registry, "{reference}");
        }
    }

    #[test]
    fn an_auth_file_is_json() {
        let mut text = String::new();
        auth_file("h", &Credentials::parse("a:b").unwrap()).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, r#"{"auths":{"h":{"auth":"YTpi"}}}"#);
    }

    #[test]
    fn a_leash_kills_what_was_started_and_only_that() {
        let mut command = Command::new("sleep");
        let leash = Leash::attach(command.arg("1000")).unwrap();
        let mut child = command.spawn().unwrap();
        drop(leash);
        assert!(!child.wait().unwrap().success());
        drop(Leash::attach(&mut Command::new("true")).unwrap());
    }
}
