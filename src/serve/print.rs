//! Drop-in files that lead container engines to the mirror.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::route::without_colon;

/// Whose configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Engine {
    /// Podman, buildah, skopeo, bootc: a file for /etc/containers/registries.conf.d
    Podman,
    /// Containerd, k3s: a hosts.toml for each registry
    Containerd,
    /// CRI-O: as podman, and how to load it
    Crio,
}

/// The configuration that makes `engine` ask the mirror at `address` for images of the registries `hosts`.
pub fn config(engine: Engine, address: SocketAddr, hosts: &[String]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = match engine {
        Engine::Podman => write!(
            text,
            "# /etc/containers/registries.conf.d/50-oci-delta-fetch.conf\n\
             # Images are asked for at the mirror first, and at the registry itself where that does not answer.\n\
             # Credentials for a registry by way of the mirror: podman login {address}/HOST\n"
        ),
        Engine::Crio => write!(
            text,
            "# /etc/containers/registries.conf.d/50-oci-delta-fetch.conf\n\
             # Then: systemctl reload crio\n\
             # Images are asked for at the mirror first, and at the registry itself where that does not answer.\n"
        ),
        Engine::Containerd => write!(
            text,
            "# A file for each registry. Containerd finds them where config_path says, in the section\n\
             # [plugins.\"io.containerd.cri.v1.images\".registry] of /etc/containerd/config.toml;\n\
             # for k3s the directory is /var/lib/rancher/k3s/agent/etc/containerd/certs.d.\n"
        ),
    };
    for host in hosts {
        let _ = match engine {
            Engine::Podman | Engine::Crio => write!(
                text,
                "\n[[registry]]\nlocation = \"{host}\"\n\n[[registry.mirror]]\nlocation = \"{address}/{}\"\ninsecure = true\n",
                without_colon(host)
            ),
            Engine::Containerd => write!(
                text,
                "\n# /etc/containerd/certs.d/{host}/hosts.toml\nserver = \"https://{}\"\n\n\
                 [host.\"http://{address}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
                if host == "docker.io" { "registry-1.docker.io" } else { host }
            ),
        };
    }
    text
}
