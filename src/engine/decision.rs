//! Decides how an image is brought here: by which deltas, over which base, and what of it whole.

use std::path::Path;
use std::sync::Arc;

use super::base::{self, Elsewhere, Homes};
use super::base_image::BaseImage;
use super::chain::Link;
use super::opened::{Opened, is_patch, remote};
use super::outcome::Reason;
use super::request::{DeltaPolicy, FetchRequest};
use super::signatures::Embedded;
use oci_spec::image::Descriptor;

use crate::artifact::{DeltaManifest, Image};
use crate::digest::{DiffId, Digest};
use crate::discover::{Candidate, Found, deltas_for};
use crate::error::{Advice, Error, Kind, Result};
use crate::exact::Recipes;
use crate::fetch::Place;
use crate::layout::Layout;
use crate::plan::{self, Offer, Origin, Preference, RebuildPlan, Reused, cheapest_chain};
use crate::platform::Platform;
use crate::proxy::Proxy;
use crate::reference::Reference;
use crate::registry::RemoteRepository;
use crate::session::Session;
use crate::store::{Inventory, Repository};

/// How an image is brought here.
#[derive(Debug)]
pub(crate) struct Decision {
    pub image: Image,
    pub plan: RebuildPlan,
    pub places: Places,
    /// How layers become what was published.
    pub recipes: Recipes,
    /// The deltas that the plan uses.
    pub applied: Option<Applied>,
    /// Signatures in the last of them.
    pub embedded: Option<Embedded>,
    /// Bytes read to find deltas.
    pub search_bytes: u64,
    /// Bytes of the layers that a pull without deltas would read.
    pub plain_bytes: u64,
    pub fallback: Option<Reason>,
    /// The error to report should even the whole layers not be there.
    pub instead: Option<Error>,
}

/// Where the ways of a plan begin.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Blobs of the last delta.
    pub delta: Place,
    /// Whole layers.
    pub image: Place,
    /// Layers of a base image outside the repository.
    pub base: Option<Place>,
    /// Layers in the repository.
    pub here: Option<Place>,
}

impl Places {
    /// Where the blob of a way is.
    pub(crate) fn of(&self, origin: Origin) -> &Place {
        match origin {
            Origin::Patch | Origin::Carried => &self.delta,
            Origin::Base => self.base.as_ref().unwrap_or(&self.image),
            Origin::Here => self.here.as_ref().unwrap_or(&self.image),
            Origin::Whole | Origin::Absent => &self.image,
        }
    }
}

/// Deltas, and the base that they begin at.
#[derive(Debug)]
pub(crate) struct Applied {
    pub base: Arc<dyn BaseImage>,
    pub base_config: Digest,
    /// Of all deltas, in the order of application.
    pub deltas: Vec<Digest>,
    /// All but the last of them.
    pub links: Vec<Link>,
}

impl Decision {
    /// Bytes that are read for deltas and are not layers of the target: lists, manifests, links of a chain.
    pub(crate) fn bytes_beside_layers(&self) -> u64 {
        self.search_bytes + self.links().iter().map(Link::bytes).sum::<u64>()
    }

    /// The same once they are read.
    pub(crate) fn bytes_read_beside_layers(&self) -> u64 {
        self.search_bytes + self.links().iter().map(|link| link.received.bytes()).sum::<u64>()
    }

    /// The deltas that the plan uses, in the order of application.
    pub(crate) fn deltas(&self) -> Vec<Digest> {
        self.applied.iter().flat_map(|applied| &applied.deltas).cloned().collect()
    }

    /// Config digest of the base image, where there is one.
    pub(crate) fn base_config(&self) -> Option<Digest> {
        self.applied.as_ref().map(|applied| applied.base_config.clone())
    }

    fn links(&self) -> &[Link] {
        self.applied.as_ref().map_or(&[], |applied| &applied.links)
    }
}

/// What deciding came to.
#[derive(Debug)]
pub(crate) enum Next {
    /// That is how it is done.
    Decided(Box<Decision>),
    /// This base must be in the repository first; with the signatures in the delta that wants it.
    FetchBase(Reference, Embedded),
}

/// What a decision is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To tell what would be done; nothing is changed.
    Look,
    /// To do it.
    Fetch,
    /// To do it for the layers that the delta changes; the others stay away.
    FetchChanged,
}

/// What is at hand.
pub(crate) struct Hand<'a> {
    pub session: &'a Session,
    pub request: &'a FetchRequest,
    pub purpose: Purpose,
    pub store: Option<&'a Arc<dyn Repository>>,
    pub inventory: &'a Inventory,
    pub elsewhere: &'a Elsewhere,
    pub spool: &'a Path,
}

impl Hand<'_> {
    fn has(&self, diff_id: &DiffId) -> bool {
        self.inventory.layers.contains_key(diff_id)
    }

    fn here(&self, diff_id: &DiffId, published: &Descriptor) -> Option<Descriptor> {
        self.inventory.layer(diff_id, published).cloned()
    }

    fn base(&self, config: &Digest) -> Result<Arc<dyn BaseImage>> {
        let FetchRequest { base: choice, place, .. } = self.request;
        base::find(config, choice, place.platform.as_ref(), self.homes(), self.spool)
    }

    fn homes(&self) -> Homes<'_> {
        Homes { repository: self.store.map(|store| (store, self.inventory)), elsewhere: self.elsewhere }
    }

    fn policy(&self) -> DeltaPolicy {
        self.request.deltas.policy
    }

    /// Decides for the reference that was opened: a delta, or an image for which deltas may exist.
    pub(crate) async fn decide(&self, opened: &Opened) -> Result<Next> {
        match opened.delta()? {
            Some(manifest) => self.by_given_delta(opened, manifest).await,
            None => {
                let image = opened.image().await?;
                self.by_any_delta(opened, image).await
            }
        }
    }

    /// The image is brought whole.
    fn whole(&self, place: &Place, image: Image, fallback: Option<Reason>) -> Decision {
        let here = |diff_id: &DiffId, published: &Descriptor| self.here(diff_id, published);
        let offer = Offer::whole_layers(&here, self.request.limits.max_layer_size);
        let plan = Offer { exact: self.request.exact(), ..offer }.plan(&image);
        let blobs = self.store.and_then(|store| store.blobs()).map(Place::Local);
        Decision {
            plain_bytes: plan.download_bytes(),
            image,
            plan,
            places: Places { delta: place.clone(), image: place.clone(), base: None, here: blobs },
            recipes: Recipes::default(),
            applied: None,
            embedded: None,
            search_bytes: 0,
            fallback,
            instead: None,
        }
    }

    /// REF is a delta: it is applied, whatever it costs.
    async fn by_given_delta(&self, opened: &Opened, manifest: DeltaManifest) -> Result<Next> {
        let delta = opened.target_of(manifest).await?;
        if self.policy() == DeltaPolicy::Never {
            return Ok(decided(self.whole(&opened.place, delta.target, Some(Reason::Policy))));
        }
        if let Some(remote) = self.base_to_fetch(delta.source_config()).await? {
            return Ok(Next::FetchBase(remote, Embedded::of(&delta.manifest, &opened.place)));
        }
        let base = match self.base(delta.source_config()) {
            Ok(base) => base,
            Err(e) if e.kind() == Kind::Misfit && self.policy() == DeltaPolicy::Auto => {
                let whole = self.whole(&opened.place, delta.target, Some(Reason::NoBase));
                let mut missing = whole.plan.layers.iter().filter(|layer| layer.origin() == Origin::Whole);
                // A dry run cannot find out whether a registry has the layers.
                let hopeless =
                    self.purpose == Purpose::Look && matches!(whole.places.image, Place::Remote(_));
                if hopeless || !missing.all(|layer| whole.places.image.may_have(&layer.published)) {
                    return Err(e);
                }
                self.session.say(&format!("the image is fetched whole: {e}"));
                return Ok(decided(Decision { instead: Some(e), ..whole }));
            }
            Err(e) => return Err(e),
        };
        let whole = self.whole(&opened.place, delta.target, None);
        let preference =
            if self.policy() == DeltaPolicy::Only { Preference::DeltaOnly } else { Preference::Delta };
        let last = Last { digest: &opened.digest, manifest: &delta.manifest, place: opened.place.clone() };
        let plan = self.plan(&whole, &last, &*base, preference);
        Ok(decided(applied(whole, plan, last, base, Vec::new())))
    }

    /// The base that the request names in a registry, where that is the one with `config` and is not here yet.
    async fn base_to_fetch(&self, config: &Digest) -> Result<Option<Reference>> {
        let FetchRequest { base, place, .. } = self.request;
        let remote = base::check_remote(base, place, config, self.spool).await?;
        let missing = self.store.is_some() && self.inventory.by_config(config).is_none();
        Ok(remote.filter(|_| missing && self.purpose != Purpose::Look).cloned())
    }

    /// REF is an image: the cheapest of the deltas for it, or none.
    async fn by_any_delta(&self, opened: &Opened, image: Image) -> Result<Next> {
        let whole = self.whole(&opened.place, image, None);
        if self.policy() == DeltaPolicy::Never || whole.plain_bytes == 0 {
            return Ok(decided(whole));
        }
        match &self.request.deltas.named {
            Some(named) => self.by_named_delta(named, whole).await,
            None => self.by_listed_deltas(whole).await.map(decided),
        }
    }

    /// The cheapest of the deltas that a registry lists for the image, or a chain of them.
    async fn by_listed_deltas(&self, whole: Decision) -> Result<Decision> {
        let place = match (&self.request.deltas.listed_in, &self.request.reference) {
            (Some(place @ Reference::Docker { name }), _) => Some((name, Some(place))),
            (_, Reference::Docker { name }) => Some((name, None)),
            _ => None,
        };
        let Some((name, elsewhere)) = place else { return self.without(whole, None, Reason::NoDelta) };
        let local_base = self.named_base()?;
        let options = self.request.place.skopeo(Platform::host());
        // Who reads blobs without skopeo reads lists the same way.
        let direct = match &whole.places.image {
            Place::Remote(blobs) if elsewhere.is_none() => blobs.repository().cloned(),
            _ => None,
        };
        let notes = self.session.notes.as_deref();
        let repository =
            direct.unwrap_or_else(|| Arc::new(RemoteRepository::new(name, &options).remembered(notes)));
        let subject = whole.image.manifest_digest.clone();
        if self.homes().are_empty() && local_base.is_none() {
            if self.purpose != Purpose::Look {
                repository.look_at_registry(&subject).await;
            }
            return self.without(whole, None, Reason::NoBase);
        }
        let here = |config: &Digest| local_base.as_ref() == Some(config) || self.homes().have(config);
        let limit = if self.policy() == DeltaPolicy::Only { u64::MAX } else { whole.plain_bytes };
        let found = deltas_for(&repository, &subject, here, limit).await;
        for note in &found.notes {
            self.session.say(note);
        }
        let layer_here = |d: &DiffId, published: &Descriptor| self.here(d, published);
        let has_layers =
            |config: &Digest| local_base.as_ref() == Some(config) || !self.homes().has_only_files(config);
        let chain = choose(&found, &whole, here, &has_layers, &layer_here, limit);
        let Some((candidate, way)) = chain.split_last() else {
            let reason = match &found {
                Found { failure: Some(_), .. } => Reason::LookupFailed,
                Found { unread: 1.., .. } => Reason::NotSmaller,
                Found { candidates, .. } if candidates.iter().any(|c| here(&c.manifest.source_config)) => {
                    Reason::NotSmaller
                }
                Found { candidates, elsewhere: 0, .. } if candidates.is_empty() => Reason::NoDelta,
                _ => Reason::NoBase,
            };
            return self.without(whole, Some(found), reason);
        };
        let place_of = |delta: &Candidate| match elsewhere {
            Some(place) => remote(Proxy::new(&place.pinned(&delta.digest).skopeo(), options.clone()), place),
            None => whole.places.image.clone(),
        };
        let layered = |delta: &Candidate| has_layers(&delta.manifest.source_config);
        let mut links: Vec<Link> = Vec::new();
        for delta in way {
            let have = |d: &DiffId| self.has(d) || links.iter().any(|link| link.diff_ids().contains(d));
            match Link::read(delta, place_of(delta), layered(delta), have).await {
                Ok(link) => links.push(link),
                Err(e) if e.kind() == Kind::Interrupted => return Err(e),
                Err(e) => {
                    let failure = Some(e);
                    return self.without(whole, Some(Found { failure, ..found }), Reason::LookupFailed);
                }
            }
        }
        let first = way.first().unwrap_or(candidate);
        let base = self.base(&first.manifest.source_config)?;
        let search_bytes = found.bytes + links.iter().map(Link::metadata_bytes).sum::<u64>();
        let last =
            Last { digest: &candidate.digest, manifest: &candidate.manifest, place: place_of(candidate) };
        Ok(Decision { search_bytes, ..self.with_delta(whole, last, base, links) })
    }

    /// The config digest of a base that `--base` names on this machine.
    fn named_base(&self) -> Result<Option<Digest>> {
        let Some(reference) = &self.request.base.image else { return Ok(None) };
        let Some(layout) = Layout::open(reference, self.spool)? else { return Ok(None) };
        base::named_image(&layout, reference, self.request.place.platform.as_ref())
            .map(|i| Some(i.config_digest))
    }

    /// `--delta` names the one to use.
    async fn by_named_delta(&self, named: &Reference, whole: Decision) -> Result<Next> {
        let opened = Opened::open(named, &self.request.place, self.spool).await?;
        let manifest =
            opened.delta()?.ok_or_else(|| Error::misfit(format!("{named} is not an oci-delta artifact")))?;
        let (rebuilds, wanted) = (manifest.target_manifest.digest(), &whole.image.manifest_digest);
        if rebuilds != wanted {
            return Err(Error::misfit(format!("{named} rebuilds image {rebuilds}, but REF is {wanted}")));
        }
        if let Some(remote) = self.base_to_fetch(&manifest.source_config).await? {
            return Ok(Next::FetchBase(remote, Embedded::of(&manifest, &opened.place)));
        }
        let search_bytes = opened.metadata_bytes();
        let base = match self.base(&manifest.source_config) {
            Ok(base) => base,
            Err(e) if self.policy() == DeltaPolicy::Only => return Err(e),
            Err(e) if e.kind() == Kind::Misfit => {
                self.session.say(&format!("the image is fetched whole: {e}"));
                return Ok(decided(Decision { search_bytes, fallback: Some(Reason::NoBase), ..whole }));
            }
            Err(e) => return Err(e),
        };
        let last = Last { digest: &opened.digest, manifest: &manifest, place: opened.place.clone() };
        Ok(decided(Decision { search_bytes, ..self.with_delta(whole, last, base, Vec::new()) }))
    }

    /// The delta serves where it saves something.
    fn with_delta(
        &self,
        whole: Decision,
        last: Last<'_>,
        base: Arc<dyn BaseImage>,
        links: Vec<Link>,
    ) -> Decision {
        let preference = match self.policy() {
            DeltaPolicy::Only => Preference::DeltaOnly,
            _ => Preference::FewestBytes,
        };
        let plan = self.plan(&whole, &last, &*base, preference);
        if plan.uses_delta() || plan.uses_recipes_here() {
            applied(whole, plan, last, base, links)
        } else {
            Decision { fallback: Some(Reason::NotSmaller), ..whole }
        }
    }

    fn plan(
        &self,
        whole: &Decision,
        last: &Last<'_>,
        base: &dyn BaseImage,
        preference: Preference,
    ) -> RebuildPlan {
        let here = |diff_id: &DiffId, published: &Descriptor| self.here(diff_id, published);
        let of_bundle = matches!(&last.place, Place::Local(layout) if layout.is_bundle());
        let offer = Offer {
            delta: Some(last.manifest),
            exact: self.request.exact(),
            is_patch: &|blob| is_patch(&last.place, blob),
            layered_base: base.has_layers(),
            carries: &|blob| !of_bundle || last.place.may_have(blob),
            base: &|diff_id| base.blob(diff_id),
            whole: &|layer| whole.places.image.may_have(layer),
            preference,
            reused: if self.purpose == Purpose::FetchChanged { Reused::Omit } else { Reused::Keep },
            ..Offer::whole_layers(&here, self.request.limits.max_layer_size)
        };
        offer.plan(&whole.image)
    }

    /// No delta helps; with `--delta-policy only` that is an error.
    fn without(&self, whole: Decision, found: Option<Found>, reason: Reason) -> Result<Decision> {
        let found = found.unwrap_or_default();
        if self.policy() != DeltaPolicy::Only {
            if let Some(e) = &found.failure {
                self.session.say(&format!("the image is fetched whole, as deltas cannot be looked up: {e}"));
            }
            return Ok(Decision { search_bytes: found.bytes, fallback: Some(reason), ..whole });
        }
        let image = &whole.image.manifest_digest;
        Err(match (found.failure, reason) {
            (Some(e), _) => e.context("deltas cannot be looked up"),
            (None, Reason::NoDelta) => Error::misfit(format!("there is no delta for image {image}")),
            (None, Reason::NotSmaller) => Error::misfit(format!("no delta for image {image} saves anything")),
            (None, _) => {
                Error::misfit(format!("there is no delta for image {image} from an image that is here"))
            }
        }
        .with_hint(Advice::AllowWholeLayers))
    }
}

fn decided(decision: Decision) -> Next {
    Next::Decided(Box::new(decision))
}

/// The delta that leads to the target itself.
struct Last<'a> {
    digest: &'a Digest,
    manifest: &'a DeltaManifest,
    place: Place,
}

/// `whole`, but as `plan` has it: by `last` and the deltas before it, from `base` on.
fn applied(
    whole: Decision,
    plan: RebuildPlan,
    last: Last<'_>,
    base: Arc<dyn BaseImage>,
    links: Vec<Link>,
) -> Decision {
    let deltas = links.iter().map(|link| &link.digest).chain([last.digest]).cloned().collect();
    let base_config = links.first().map_or(&last.manifest.source_config, Link::base_config).clone();
    let embedded = Some(Embedded::of(last.manifest, &last.place));
    let places = Places { delta: last.place, base: base.place(), ..whole.places };
    let recipes = last.manifest.recipes.clone();
    let applied = Some(Applied { base, base_config, deltas, links });
    Decision { plan, places, recipes, applied, embedded, ..whole }
}

/// The deltas that lead to the target with the fewest bytes, in order; none when that is not below `limit`.
fn choose<'a>(
    found: &'a Found,
    whole: &Decision,
    here: impl Fn(&Digest) -> bool,
    has_layers: &dyn Fn(&Digest) -> bool,
    layer_here: &dyn Fn(&DiffId, &Descriptor) -> Option<Descriptor>,
    limit: u64,
) -> Vec<&'a Candidate> {
    let target = &whole.image.config_digest;
    let step = |candidate: &Candidate| {
        let delta = &candidate.manifest;
        let bytes = if delta.target_config.digest() == target {
            let layered_base = has_layers(&delta.source_config);
            Offer { delta: Some(delta), layered_base, ..Offer::whole_layers(layer_here, u64::MAX) }
                .plan(&whole.image)
                .download_bytes()
        } else {
            let metadata = delta.target_manifest.size().saturating_add(delta.target_config.size());
            delta.layer_bytes().saturating_add(metadata)
        };
        plan::Hop { from: delta.source_config.clone(), to: delta.target_config.digest().clone(), bytes }
    };
    let steps: Vec<plan::Hop> = found.candidates.iter().map(step).collect();
    let chain = cheapest_chain(&steps, here, target, limit).unwrap_or_default();
    chain.into_iter().map(|at| &found.candidates[at]).collect()
}
