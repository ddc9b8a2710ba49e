//! The recipes that a delta brings: how a layer's plain tar becomes its publisher's blob again.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::Arc;

pub use exact_encoders::recipe::Recipe;
use oci_spec::image::Descriptor;
use serde_json::Value;

use crate::error::{Error, Kind};

/// The encoder that is none: all tokens are corrections.
const TOKENS: &str = "tokens";

/// Longest reason that is shown, in characters; it is somebody else's text.
const MAX_REASON: usize = 200;

/// Whether layers become the blobs that their publisher made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Exact {
    /// Where it is known how
    #[default]
    Auto,
    /// Or nothing is done
    Require,
    /// Never
    Off,
}

/// How a blob is made.
#[derive(Debug, Clone)]
pub struct Making {
    /// What its plain tar goes through.
    pub recipe: Arc<Recipe>,
    /// The blob with what that does not give, where it is needed.
    pub fix: Option<Descriptor>,
}

/// What a delta says of each layer of its target, bottom to top.
#[derive(Debug, Clone, Default)]
pub struct Recipes(Vec<Claim>);

/// What a delta says of one layer.
#[derive(Debug, Clone)]
pub enum Claim {
    /// How its blob is made.
    Recipe(Arc<Recipe>),
    /// Why it cannot be made, for people.
    Without(String),
    /// Nothing: its plain tar is the blob, or the delta carries that.
    Nothing,
}

impl Recipes {
    /// Of these claims.
    pub fn new(claims: Vec<Claim>) -> Self {
        Recipes(claims)
    }

    /// Reads the annotation of a delta's manifest. What cannot be read is a claim that it cannot be made: a delta
    /// serves without its recipes.
    pub fn parse(text: &str) -> Self {
        match serde_json::from_str::<Vec<Value>>(text) {
            Ok(claims) => Recipes(claims.into_iter().map(Claim::parse).collect()),
            Err(_) => Recipes::default(),
        }
    }

    /// The text of the annotation: an array with an object, a reason, or null for each layer.
    pub fn to_text(&self) -> String {
        let texts: Vec<String> = self.0.iter().map(Claim::to_text).collect();
        format!("[{}]", texts.join(","))
    }

    /// Is nothing said of any layer?
    pub fn says_nothing(&self) -> bool {
        self.0.iter().all(|claim| matches!(claim, Claim::Nothing))
    }

    /// What is said of layer `at`.
    pub fn claim(&self, at: usize) -> &Claim {
        self.0.get(at).unwrap_or(&Claim::Nothing)
    }

    /// The recipe of layer `at`, or why there is none.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn get(&self, at: usize) -> Result<&Arc<Recipe>, &str> {
        match self.claim(at) {
            Claim::Recipe(recipe) => Ok(recipe),
            Claim::Without(reason) => Err(reason),
            Claim::Nothing => Err("the delta has no recipe for it"),
        }
    }
}

impl Claim {
    fn parse(value: Value) -> Self {
        match value {
            Value::Object(_) => match Recipe::from_str(&value.to_string()) {
                Ok(recipe) => Claim::Recipe(Arc::new(recipe)),
                Err(e) => Claim::Without(e.to_string()),
            },
            Value::String(reason) => Claim::Without(reason.chars().take(MAX_REASON).collect()),
            _ => Claim::Nothing,
        }
    }

    fn to_text(&self) -> String {
        match self {
            Claim::Recipe(recipe) => recipe.to_string(),
            Claim::Without(reason) => {
                Value::from(reason.chars().take(MAX_REASON).collect::<String>()).to_string()
            }
            Claim::Nothing => "null".to_owned(),
        }
    }
}

impl Making {
    /// Who made it.
    pub fn maker(&self) -> Maker {
        Maker::of(&self.recipe, self.fix.as_ref().map_or(0, Descriptor::size))
    }
}

/// Who made a blob, as its recipe says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Maker {
    /// The encoder.
    pub encoder: String,
    /// Its versions.
    pub family: String,
    /// The level of compression.
    pub level: i64,
    /// Bytes of the recipe.
    pub bytes: usize,
    /// Bytes of the blob with corrections, 0 without one.
    pub fix_bytes: u64,
}

impl Maker {
    /// Reads it out of a recipe, which needs so many bytes of corrections.
    pub fn of(recipe: &Recipe, fix_bytes: u64) -> Self {
        let text = recipe.to_string();
        let fields: Value = serde_json::from_str(&text).unwrap_or_default();
        let field = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let level = fields.get("lvl").and_then(Value::as_i64).unwrap_or_default();
        Maker { encoder: field("enc"), family: field("fam"), level, bytes: text.len(), fix_bytes }
    }
}

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.encoder.as_str() {
            TOKENS => f.write_str("corrections alone"),
            encoder => write!(f, "{encoder} {} level {}", self.family, self.level),
        }
    }
}

/// Most bytes of corrections of all layers of an image together, since they are held in memory: 128 MiB.
pub const MAX_FIXES: u64 = 128 << 20;

/// What a thread of an encoder holds in memory, at most: 16 MiB.
pub const THREAD_MEMORY: u64 = 16 << 20;

/// Threads for each of so many encoders at once, on so many `cores`: two for each core together, so that the one that
/// takes longest has company, and memory does not grow with the layers.
pub fn threads_each(cores: usize, at_once: usize) -> NonZeroUsize {
    let share = (2 * cores / at_once.max(1)).min(cores);
    NonZeroUsize::new(share).unwrap_or(NonZeroUsize::MIN)
}

/// Makes a blob: the recipe, the corrections that it needs, and on so many threads.
#[derive(Debug)]
pub struct Remake<'a> {
    /// What the tar goes through.
    pub recipe: &'a Recipe,
    /// The bytes of its fix.
    pub fix: Option<Vec<u8>>,
    /// Threads of the encoder.
    pub threads: NonZeroUsize,
}

/// Inside an [`Error`]: the layer is right, but its recipe makes another blob than it should.
#[derive(Debug)]
struct Inexact;

impl fmt::Display for Inexact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the publisher's blob")
    }
}

impl std::error::Error for Inexact {}

/// The error of a recipe that does not make its blob.
pub(crate) fn inexact(what: impl fmt::Display) -> Error {
    Error::new(Kind::Verification, what.to_string()).with_source(Inexact)
}

/// Is this such an error?
pub(crate) fn is_inexact(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<Inexact>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = r#"{"v":1,"size":110149,"wrap":"gzip","head":"1f8b080000096e8800ff","enc":"kp-flate","fam":"A","lvl":5,"frame":{"kind":"pgzip","block":1048576,"tail":16384},"fma":0}"#;

    #[test]
    fn what_a_delta_says_is_read_layer_by_layer() {
        let text = format!(r#"[{RECIPE},"why",null,{{"v":1,"size":1,"wrap":"gzip","enc":"x"}},7]"#);
        let recipes = Recipes::parse(&text);
        let maker = Maker::of(recipes.get(0).unwrap(), 0);
        assert_eq!(maker.to_string(), "kp-flate A level 5");
        assert_eq!(maker.bytes, RECIPE.len());
        assert_eq!(recipes.get(1).unwrap_err(), "why");
        for at in [2, 4, 5] {
            assert_eq!(recipes.get(at).unwrap_err(), "the delta has no recipe for it");
        }
        assert!(recipes.get(3).unwrap_err().contains("\"x\" is not known here"));
        assert_eq!(Recipes::parse(&recipes.to_text()).get(0), recipes.get(0));
    }

    #[test]
    fn encoders_side_by_side_share_the_cores() {
        for (cores, at_once, each) in
            [(2, 1, 2), (2, 2, 2), (2, 3, 1), (8, 1, 8), (8, 4, 4), (8, 8, 2), (8, 100, 1), (1, 0, 1)]
        {
            let threads = threads_each(cores, at_once).get();
            assert_eq!(threads, each, "{cores} {at_once}");
        }
    }

    #[test]
    fn what_is_no_list_says_nothing() {
        for text in ["", "{}", "7", "[", "[[]]"] {
            assert!(Recipes::parse(text).says_nothing(), "{text}");
        }
    }

    #[test]
    fn such_an_error_is_known_again_after_a_trip_through_io() {
        let error = Error::from_io(std::io::Error::from(inexact("x")), "ignored").context("layer");
        assert!(is_inexact(&error));
        assert!(!is_inexact(&Error::verification("x")));
    }
}
