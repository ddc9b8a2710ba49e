//! The next step after an error. Whoever shows it has the words for it: a program names its own options.

use std::borrow::Cow;
use std::fmt;

/// The next step that whoever called can take.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// One that no option of ours is for.
    Text(Cow<'static, str>),
    /// An option of the call.
    Advice(Advice),
}

/// What to call with another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// A higher limit on the bytes of a layer.
    RaiseLayerLimit,
    /// A policy that allows whole layers.
    AllowWholeLayers,
    /// No demand on the platform.
    AnyPlatform,
    /// A platform that there is.
    ChoosePlatform,
    /// Another platform.
    OtherPlatform,
    /// The place of the base image.
    NameBase,
    /// The place of the right base image.
    NameRightBase,
    /// Credentials for the registry.
    LogIn,
    /// The registry's certificate authority, or none.
    TrustRegistry,
    /// Another signature policy: this machine's refuses the image.
    OtherPolicy,
    /// A signature policy: this machine has none.
    NoPolicy,
    /// The place of skopeo.
    NameSkopeo,
    /// A newer skopeo.
    NewerSkopeo,
    /// Another repository.
    OtherRepository,
    /// Another repository, or one in which there is more room.
    MakeRoom,
    /// A repository that does without fs-verity.
    WithoutVerity,
    /// The registries that may be asked, or loopback to listen on.
    NameUpstreams,
    /// Another cache.
    OtherCache,
}

impl Hint {
    /// One in these words.
    pub(crate) const fn text(text: &'static str) -> Self {
        Hint::Text(Cow::Borrowed(text))
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hint::Text(text) => f.write_str(text),
            Hint::Advice(advice) => advice.fmt(f),
        }
    }
}

/// Without the names of options.
impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Advice::RaiseLayerLimit => "if this image is to be trusted, raise the limit on layers",
            Advice::AllowWholeLayers => "allow whole layers",
            Advice::NameUpstreams => "name the registries that may be asked, or listen on 127.0.0.1",
            Advice::OtherCache => "name another cache",
            Advice::AnyPlatform => "leave the platform open to take it all the same",
            Advice::ChoosePlatform => "choose a platform that there is",
            Advice::OtherPlatform => "the image is not made for this platform; choose another one",
            Advice::NameBase => "fetch the base image first, name its place, or fetch the full image",
            Advice::NameRightBase => "name the right release as the base, or fetch the full image",
            Advice::LogIn => "log in with `skopeo login` or give credentials",
            Advice::TrustRegistry => "name the registry's CA, or do without TLS if the network is trusted",
            Advice::OtherPolicy => "the signature policy of this machine refuses the image",
            Advice::NoPolicy => "install a containers policy.json",
            Advice::NameSkopeo => "install skopeo, or name its path",
            Advice::NewerSkopeo => "skopeo 1.6 or newer is needed",
            Advice::OtherRepository => "choose another repository",
            Advice::MakeRoom => "remove images and collect garbage, or choose another repository",
            Advice::WithoutVerity => "make one that does without fs-verity",
        })
    }
}

impl From<&'static str> for Hint {
    fn from(text: &'static str) -> Self {
        Hint::text(text)
    }
}

impl From<String> for Hint {
    fn from(text: String) -> Self {
        Hint::Text(text.into())
    }
}

impl From<Advice> for Hint {
    fn from(advice: Advice) -> Self {
        Hint::Advice(advice)
    }
}
