//! Which ways lead to each layer, and in which order they are tried: pure, from what the image needs,
//! what is here, and what a delta, a base and the image's own place offer.

mod hops;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;

use oci_spec::image::Descriptor;

use crate::artifact::{DeltaManifest, Image, claims_patch, layer_size_bound};
use crate::digest::{DiffId, Digest};
use crate::exact::{Exact, Making, Recipe};
pub use hops::{Hop, cheapest_chain};

/// Where a layer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It is here already, or an equal layer of the same image brings it.
    Here,
    /// A patch of the delta rebuilds it.
    Patch,
    /// The delta carries it whole.
    Carried,
    /// It is read whole, from where the image is.
    Whole,
    /// It is read whole, from a base image outside the repository.
    Base,
    /// It stays away: whoever gets the image has it.
    Absent,
}

impl Origin {
    /// The word for it in reports.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Here => "reused",
            Origin::Patch => "patched",
            Origin::Carried => "copied",
            Origin::Whole => "fetched",
            Origin::Base => "base",
            Origin::Absent => "omitted",
        }
    }

    /// Is it a blob of a delta?
    pub fn is_of_delta(self) -> bool {
        matches!(self, Origin::Patch | Origin::Carried)
    }
}

/// One way to get a layer: the blob to read, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where it comes from.
    pub origin: Origin,
    /// The blob: a patch, or the layer.
    pub blob: Descriptor,
}

impl Way {
    /// Bytes that are read from the source for it.
    pub fn download_bytes(&self) -> u64 {
        if matches!(self.origin, Origin::Here | Origin::Base | Origin::Absent) { 0 } else { self.blob.size() }
    }
}

/// How a layer is kept whose blob does not come as it was published.
#[derive(Debug, Clone)]
pub enum Keep {
    /// In the encoding that the user wants for what is rebuilt; with why it cannot be as published, where that was
    /// wanted.
    Rewritten(Option<String>),
    /// As its plain tar, which is what was published.
    Plain,
    /// As what was published, made of its plain tar.
    Exact(Box<Making>),
}

/// A layer of the image, and the ways to get it.
#[derive(Debug, Clone)]
pub struct PlannedLayer {
    /// Digest of its plain tar.
    pub diff_id: DiffId,
    /// As its publisher made it: its descriptor in the manifest.
    pub published: Descriptor,
    /// Position of an equal layer of the image, below it, that brings it.
    pub same_as: Option<usize>,
    /// In the order in which they are tried; at least one, though it may turn out to lead nowhere.
    pub ways: Vec<Way>,
    /// What becomes of its tar.
    pub keep: Keep,
    /// Most bytes that its tar may have.
    pub limit: u64,
}

impl PlannedLayer {
    /// Where the first way comes from.
    pub fn origin(&self) -> Origin {
        self.ways.first().map_or(Origin::Whole, |way| way.origin)
    }

    /// Is there something to do for it by this way? Not for a layer that stays here as it is.
    pub fn is_work(&self, way: &Way) -> bool {
        match way.origin {
            Origin::Absent => false,
            Origin::Here => {
                !matches!(self.keep, Keep::Rewritten(_)) && way.blob.digest() != self.published.digest()
            }
            _ => true,
        }
    }

    /// Is it known how its blob is made of its tar?
    pub fn has_recipe(&self) -> bool {
        matches!(self.keep, Keep::Exact(_))
    }

    /// Why it will not be the blob that was published, when the first way leads to it.
    pub fn inexact(&self) -> Option<&str> {
        match (self.ways.first(), &self.keep) {
            (Some(way), Keep::Rewritten(reason)) if way.blob.digest() != self.published.digest() => {
                reason.as_deref()
            }
            _ => None,
        }
    }

    /// Bytes that are read for it when the first way leads to it.
    pub fn download_bytes(&self) -> u64 {
        self.ways.first().map_or(0, |way| way.download_bytes().saturating_add(self.fix_bytes(way)))
    }

    /// Bytes of corrections that are read for it by this way.
    fn fix_bytes(&self, way: &Way) -> u64 {
        match &self.keep {
            Keep::Exact(making) if way.blob.digest() != self.published.digest() => {
                making.fix.as_ref().map_or(0, Descriptor::size)
            }
            _ => 0,
        }
    }
}

/// The plan for an image: the whole truth about each of its layers.
#[derive(Debug, Clone)]
pub struct RebuildPlan {
    /// Its layers, bottom to top.
    pub layers: Vec<PlannedLayer>,
}

impl RebuildPlan {
    /// Bytes of all blobs to read, when the first ways lead to the layers.
    pub fn download_bytes(&self) -> u64 {
        self.layers.iter().fold(0u64, |sum, l| sum.saturating_add(l.download_bytes()))
    }

    /// The least that the plan writes: whole blobs as they are, and for a
    /// rebuilt layer the size it has in the registry, since its tar is no smaller.
    pub fn stored_bytes(&self) -> u64 {
        self.layers.iter().fold(0u64, |sum, layer| {
            sum.saturating_add(match layer.ways.first() {
                Some(Way { origin: Origin::Here | Origin::Absent, .. }) => 0,
                Some(Way { origin: Origin::Carried, blob }) => blob.size(),
                _ => layer.published.size(),
            })
        })
    }

    /// Is a layer that is here made to be as published?
    pub fn uses_recipes_here(&self) -> bool {
        self.layers
            .iter()
            .any(|layer| layer.ways.first().is_some_and(|w| w.origin == Origin::Here && layer.is_work(w)))
    }

    /// Does a delta make a layer, if all goes as planned?
    pub fn uses_delta(&self) -> bool {
        self.layers.iter().any(|layer| layer.origin().is_of_delta())
    }

    /// Does a layer come as a patch, if all goes as planned?
    pub fn uses_patches(&self) -> bool {
        self.layers.iter().any(|layer| layer.origin() == Origin::Patch)
    }
}

/// Which of a delta's blobs and whole layers goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// The delta's blob, then the whole layer.
    Delta,
    /// The delta's blob, and nothing else for a layer that has one.
    DeltaOnly,
    /// What has fewer bytes; the whole one when they are equal, since it needs no base.
    FewestBytes,
}

/// What becomes of the layers of an image that whoever gets it has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Reused {
    /// They come along
    #[default]
    Keep,
    /// They stay away; the manifest names them all the same
    Omit,
}

/// What an image can be made of. The functions answer for a layer by its diff_id or descriptor.
#[derive(Clone, Copy)]
pub struct Offer<'a> {
    /// Its blob here, if it is; that which was published (the descriptor) if that is here, too.
    pub here: &'a dyn Fn(&DiffId, &Descriptor) -> Option<Descriptor>,
    /// Whether layers are made as they were published.
    pub exact: Exact,
    /// The delta for the image.
    pub delta: Option<&'a DeltaManifest>,
    /// Is this blob of the delta a patch? (Else it is a layer.)
    pub is_patch: &'a dyn Fn(&Descriptor) -> bool,
    /// Is this blob of the delta there? A bundle brings those alone that are wanted.
    pub carries: &'a dyn Fn(&Descriptor) -> bool,
    /// Has the base of the delta its layers, and not files alone?
    pub layered_base: bool,
    /// Its blob in a base image outside the repository.
    pub base: &'a dyn Fn(&DiffId) -> Option<Descriptor>,
    /// May it be whole where the image is?
    pub whole: &'a dyn Fn(&Descriptor) -> bool,
    /// What goes first.
    pub preference: Preference,
    /// What becomes of layers for which the delta has no blob.
    pub reused: Reused,
    /// Most bytes that a layer's tar may have.
    pub max_layer: u64,
}

impl fmt::Debug for Offer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("delta", &self.delta).field("preference", &self.preference).finish()
    }
}

impl<'a> Offer<'a> {
    /// Whole layers alone, wherever the image is.
    pub fn whole_layers(
        here: &'a dyn Fn(&DiffId, &Descriptor) -> Option<Descriptor>,
        max_layer: u64,
    ) -> Self {
        Offer {
            here,
            exact: Exact::Off,
            delta: None,
            is_patch: &claims_patch,
            carries: &|_| true,
            layered_base: true,
            base: &|_| None,
            whole: &|_| true,
            preference: Preference::FewestBytes,
            reused: Reused::Keep,
            max_layer,
        }
    }

    /// Plans `image`.
    pub fn plan(&self, image: &Image) -> RebuildPlan {
        let mut coming = HashMap::new();
        let layers = image.diff_ids.iter().zip(&image.layers).enumerate();
        let layers = layers.map(|(at, (diff_id, published))| {
            // What an image has twice comes once: as published twice, where that is wanted and differs.
            let form = (self.exact != Exact::Off).then(|| published.digest());
            let keep = self.keep(at, diff_id, published);
            let first = *coming.entry((diff_id, form)).or_insert(at);
            let alone = |origin| vec![Way { origin, blob: published.clone() }];
            PlannedLayer {
                diff_id: diff_id.clone(),
                published: published.clone(),
                same_as: Some(first).filter(|first| *first < at),
                ways: match first == at {
                    _ if self.stays_away(&image.layers[first]) => alone(Origin::Absent),
                    true => self.ways(diff_id, published, &keep),
                    false => alone(Origin::Here),
                },
                keep,
                limit: layer_size_bound(published, self.max_layer),
            }
        });
        let mut plan = RebuildPlan { layers: layers.collect() };
        if !plan.uses_delta() {
            // It is not worth its base.
            for layer in &mut plan.layers {
                layer.ways.retain(|way| !way.origin.is_of_delta());
            }
        }
        plan
    }

    fn stays_away(&self, published: &Descriptor) -> bool {
        let changed = self.delta.is_some_and(|delta| delta.changes(published.digest()));
        self.reused == Reused::Omit && !changed
    }

    /// What becomes of a tar of layer `at`.
    fn keep(&self, at: usize, diff_id: &DiffId, published: &Descriptor) -> Keep {
        if self.exact == Exact::Off {
            return Keep::Rewritten(None);
        }
        if diff_id.as_digest() == published.digest() {
            return Keep::Plain;
        }
        match self.delta.map_or(Err("no delta says how"), |delta| delta.recipes.get(at)) {
            Ok(recipe) => self.making(recipe),
            Err(reason) => Keep::Rewritten(Some(reason.to_owned())),
        }
    }

    /// The recipe with the corrections that it names.
    fn making(&self, recipe: &Arc<Recipe>) -> Keep {
        let fixes = self.delta.map(|delta| &delta.fixes);
        let named = recipe.fix().map(|name| Digest::from_str(&name.to_string()).ok());
        let fix = match named {
            None => None,
            Some(digest) => match digest.and_then(|digest| fixes?.get(&digest).cloned()) {
                Some(fix) => Some(fix),
                None => return Keep::Rewritten(Some("the delta does not bring its corrections".into())),
            },
        };
        Keep::Exact(Box::new(Making { recipe: recipe.clone(), fix }))
    }

    fn ways(&self, diff_id: &DiffId, published: &Descriptor, keep: &Keep) -> Vec<Way> {
        let here = (self.here)(diff_id, published).map(|blob| Way { origin: Origin::Here, blob });
        match here {
            Some(here) if here.blob.digest() == published.digest() => vec![here],
            Some(here) if matches!(keep, Keep::Rewritten(_)) && self.exact != Exact::Require => vec![here],
            here => {
                let mut ways: Vec<Way> = here.into_iter().chain(self.others(diff_id, published)).collect();
                let is_published = |way: &Way| way.blob.digest() == published.digest();
                if self.exact == Exact::Require
                    && matches!(keep, Keep::Rewritten(_))
                    && ways.iter().any(is_published)
                {
                    // It cannot be made, but it can be had.
                    ways.retain(is_published);
                }
                ways
            }
        }
    }

    /// The ways to a layer that is not here.
    fn others(&self, diff_id: &DiffId, published: &Descriptor) -> Vec<Way> {
        let way = |origin, blob: &Descriptor| Way { origin, blob: blob.clone() };
        let blobs = self.delta.map(|delta| delta.blobs_for(published.digest(), self.layered_base));
        let mut of_delta: Vec<Way> = blobs
            .into_iter()
            .flatten()
            .filter(|blob| (self.carries)(blob))
            .map(|blob| way(if (self.is_patch)(blob) { Origin::Patch } else { Origin::Carried }, blob))
            .collect();
        let whole = (self.whole)(published).then(|| way(Origin::Whole, published));
        let at = match self.preference {
            Preference::FewestBytes => {
                let size = whole.as_ref().map_or(u64::MAX, |whole| whole.blob.size());
                of_delta.partition_point(|way| way.blob.size() < size)
            }
            Preference::Delta | Preference::DeltaOnly => of_delta.len(),
        };
        let is_wanted = self.preference != Preference::DeltaOnly || of_delta.is_empty();
        if let Some(whole) = whole.filter(|_| is_wanted) {
            of_delta.insert(at, whole);
        }
        let base = (self.base)(diff_id).map(|blob| way(Origin::Base, &blob));
        let ways: Vec<Way> = base.into_iter().chain(of_delta).collect();
        // To be looked for, though in vain: the error says where.
        if ways.is_empty() { vec![way(Origin::Whole, published)] } else { ways }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_of;
    use crate::exact::Recipes;

    fn blob(name: &str, media_type: &str, size: u64) -> Descriptor {
        Descriptor::new(media_type.into(), size, digest_of(name.as_bytes()))
    }

    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const PATCH: &str = "application/vnd.tar-diff";

    /// An image with these layers: name of the tar, and bytes of the blob.
    fn image(layers: &[(&str, u64)]) -> Image {
        let descriptors: Vec<_> = layers.iter().map(|(name, size)| blob(name, LAYER, *size)).collect();
        let ids: Vec<_> =
            layers.iter().map(|(name, _)| digest_of(format!("tar {name}").as_bytes())).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": ids },
        });
        let config = config.to_string().into_bytes();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "config": blob("", "application/vnd.oci.image.config.v1+json", 1),
            "layers": descriptors,
        });
        let mut manifest = manifest;
        manifest["config"]["digest"] = digest_of(&config).to_string().into();
        let manifest = manifest.to_string().into_bytes();
        Image::parse(manifest.clone(), &digest_of(&manifest), config).unwrap()
    }

    fn delta(image: &Image, blobs: &[(usize, Descriptor)]) -> DeltaManifest {
        DeltaManifest {
            source_config: digest_of(b"base"),
            source: None,
            target_manifest: blob("m", "application/vnd.oci.image.manifest.v1+json", 1),
            target_config: blob("c", "application/vnd.oci.image.config.v1+json", 1),
            layers: blobs
                .iter()
                .map(|(at, blob)| (image.layers[*at].digest().clone(), blob.clone()))
                .collect(),
            extended: HashMap::new(),
            signatures: Vec::new(),
            recipes: Default::default(),
            fixes: Default::default(),
        }
    }

    /// The origins of each layer's ways, in order.
    fn ways(plan: &RebuildPlan) -> Vec<Vec<Origin>> {
        plan.layers.iter().map(|layer| layer.ways.iter().map(|way| way.origin).collect()).collect()
    }

    #[test]
    fn each_layer_has_its_ways_in_order() {
        use Origin::{Base, Carried, Here, Patch, Whole};
        use Preference::{Delta, DeltaOnly, FewestBytes};
        let image = image(&[("here", 100), ("small", 100), ("large", 100), ("carried", 100), ("none", 100)]);
        let delta = delta(
            &image,
            &[(1, blob("p1", PATCH, 10)), (2, blob("p2", PATCH, 100)), (3, blob("p3", LAYER, 20))],
        );
        let id = |at: usize| image.diff_ids[at].clone();
        let here = |d: &DiffId, published: &Descriptor| (*d == id(0)).then(|| published.clone());
        let base_has = |d: &DiffId| (*d == id(4)).then(|| blob("b", LAYER, 90));
        for (preference, whole, based, expected) in [
            (
                Delta,
                true,
                false,
                [vec![Here], vec![Patch, Whole], vec![Patch, Whole], vec![Carried, Whole], vec![Whole]],
            ),
            (
                Delta,
                true,
                true,
                [vec![Here], vec![Patch, Whole], vec![Patch, Whole], vec![Carried, Whole], vec![Base, Whole]],
            ),
            (Delta, false, true, [vec![Here], vec![Patch], vec![Patch], vec![Carried], vec![Base]]),
            (DeltaOnly, true, false, [vec![Here], vec![Patch], vec![Patch], vec![Carried], vec![Whole]]),
            (
                FewestBytes,
                true,
                false,
                [vec![Here], vec![Patch, Whole], vec![Whole, Patch], vec![Carried, Whole], vec![Whole]],
            ),
            // Nowhere: it is looked for all the same, and the error says where.
            (FewestBytes, false, false, [vec![Here], vec![Patch], vec![Patch], vec![Carried], vec![Whole]]),
        ] {
            let offer = Offer {
                delta: Some(&delta),
                whole: &|_| whole,
                base: &|d| base_has(d).filter(|_| based),
                preference,
                ..Offer::whole_layers(&here, u64::MAX)
            };
            assert_eq!(ways(&offer.plan(&image)), expected, "{preference:?} {whole} {based}");
        }
    }

    #[test]
    fn what_a_blob_is_says_its_content_where_it_is_known() {
        let image = image(&[("a", 100), ("b", 100)]);
        let odd = "application/octet-stream";
        let delta = delta(&image, &[(0, blob("p1", odd, 10)), (1, blob("p2", LAYER, 10))]);
        let none = |_: &DiffId, _: &Descriptor| None;
        let offer = Offer { delta: Some(&delta), ..Offer::whole_layers(&none, u64::MAX) };
        let origins =
            |offer: &Offer<'_>| ways(&offer.plan(&image)).into_iter().map(|w| w[0]).collect::<Vec<_>>();
        assert_eq!(origins(&offer), [Origin::Patch, Origin::Carried], "by media type");
        let offer = Offer { is_patch: &|_| true, ..offer };
        assert_eq!(origins(&offer), [Origin::Patch, Origin::Patch], "by content");
    }

    #[test]
    fn of_two_patches_the_smaller_one_that_fits_the_base_goes_first() {
        let image = image(&[("a", 100)]);
        let mut delta = delta(&image, &[(0, blob("standard", PATCH, 20))]);
        let none = |_: &DiffId, _: &Descriptor| None;
        let sizes = |delta: &DeltaManifest, layered_base: bool| -> Vec<u64> {
            let offer = Offer { delta: Some(delta), layered_base, ..Offer::whole_layers(&none, u64::MAX) };
            offer.plan(&image).layers[0].ways.iter().map(|way| way.blob.size()).collect()
        };
        for (extended, layered) in [(10, [10, 20, 100]), (30, [20, 30, 100]), (100, [20, 100, 100])] {
            let to = image.layers[0].digest().clone();
            delta.extended.insert(to, blob("extended", "application/octet-stream", extended));
            assert_eq!(sizes(&delta, true), layered, "{extended}");
            assert_eq!(sizes(&delta, false), [20, 100], "{extended}");
            assert_eq!((delta.layer_bytes(), delta.spare_bytes()), (extended.min(20), extended.max(20)));
        }
        delta.layers.clear();
        assert_eq!(sizes(&delta, false), [100]);
    }

    /// What becomes of a layer, in a word, and by which ways.
    fn kept(plan: &RebuildPlan) -> Vec<(&'static str, Vec<Origin>)> {
        let word = |layer: &PlannedLayer| match layer.keep {
            Keep::Rewritten(_) => "rewritten",
            Keep::Plain => "plain",
            Keep::Exact(_) => "exact",
        };
        plan.layers.iter().zip(ways(plan)).map(|(layer, ways)| (word(layer), ways)).collect()
    }

    #[test]
    fn layers_become_what_was_published_where_that_is_wanted_and_known() {
        use Origin::{Carried, Here, Patch, Whole};
        let mut image =
            image(&[("patched", 100), ("carried", 100), ("here", 100), ("plain", 100), ("without", 100)]);
        // What was published of one layer is its plain tar.
        image.layers[3].set_digest(image.diff_ids[3].as_digest().clone());
        let recipe = r#"{"v":1,"size":100,"wrap":"gzip","head":"1f8b080000096e8800ff","enc":"go-flate","fam":"1.26","lvl":6,"frame":{"kind":"stream"}}"#;
        let recipes = Recipes::parse(&format!(r#"[{recipe},null,{recipe},null,"why"]"#));
        let blobs = [(0, blob("p", PATCH, 10)), (1, image.layers[1].clone()), (3, blob("q", PATCH, 10))];
        let delta = DeltaManifest { recipes, ..delta(&image, &blobs) };
        // The third and the last are here, as plain tars.
        let tars = [2, 4].map(|at| (image.diff_ids[at].clone(), blob("tar", LAYER, 1000)));
        let here =
            |id: &DiffId, _: &Descriptor| tars.iter().find(|(d, _)| d == id).map(|(_, tar)| tar.clone());
        let offer = Offer {
            delta: Some(&delta),
            preference: Preference::Delta,
            ..Offer::whole_layers(&here, u64::MAX)
        };
        let plan = |exact| Offer { exact, ..offer }.plan(&image);
        let off = plan(Exact::Off);
        assert!(off.layers.iter().all(|layer| layer.inexact().is_none()));
        assert_eq!(kept(&off)[2], ("rewritten", vec![Here]));
        let auto = plan(Exact::Auto);
        let expected = [
            ("exact", vec![Patch, Whole]),
            ("rewritten", vec![Carried, Whole]),
            ("exact", vec![Here, Whole]),
            ("plain", vec![Patch, Whole]),
            ("rewritten", vec![Here]),
        ];
        assert_eq!(kept(&auto), expected);
        let work: Vec<bool> = auto.layers.iter().map(|layer| layer.is_work(&layer.ways[0])).collect();
        assert_eq!(work, [true, true, true, true, false]);
        let reasons: Vec<_> = auto.layers.iter().map(PlannedLayer::inexact).collect();
        assert_eq!(reasons, [None, None, None, None, Some("why")]);
        assert!(auto.uses_recipes_here());
        // What cannot be made is had whole.
        assert_eq!(kept(&plan(Exact::Require))[4], ("rewritten", vec![Whole]));
        assert_eq!(plan(Exact::Require).layers[4].inexact(), None);
    }

    #[test]
    fn a_layer_that_was_published_in_two_encodings_comes_in_both() {
        let mut image = image(&[("a", 100), ("a", 100), ("a", 100)]);
        image.layers[1].set_digest(digest_of(b"another encoding"));
        let none = |_: &DiffId, _: &Descriptor| None;
        let offer = Offer::whole_layers(&none, u64::MAX);
        let same_as = |exact| -> Vec<Option<usize>> {
            Offer { exact, ..offer }.plan(&image).layers.iter().map(|layer| layer.same_as).collect()
        };
        assert_eq!(same_as(Exact::Off), [None, Some(0), Some(0)]);
        assert_eq!(same_as(Exact::Auto), [None, None, Some(0)]);
    }

    #[test]
    fn a_delta_that_saves_nothing_is_no_way() {
        let image = image(&[("a", 100), ("a", 100)]);
        let delta = delta(&image, &[(0, blob("p", PATCH, 100))]);
        let none = |_: &DiffId, _: &Descriptor| None;
        let plan = Offer { delta: Some(&delta), ..Offer::whole_layers(&none, u64::MAX) }.plan(&image);
        assert_eq!(ways(&plan), [vec![Origin::Whole], vec![Origin::Here]]);
        assert_eq!(plan.download_bytes(), 100, "equal layers come once");
    }
}
