//! Decides how an image is brought here: by which deltas, over which base, and what of it whole.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use super::Context;
use super::base::{self, Base};
use super::chain::Link;
use super::report::Reason;
use super::source::{Opened, options, remote};
use crate::artifact::{DeltaManifest, TargetImage};
use crate::cli::{BaseArgs, DeltaPolicy, FetchArgs};
use crate::digest::{DiffId, Digest};
use crate::discover::{Candidate, Found, deltas_for};
use crate::error::{Error, Kind, Result};
use crate::fetch::Source;
use crate::layout::Layout;
use crate::plan::{LayerAction, RebuildPlan, Step, cheapest_chain, plan_cheapest, plan_delta, plan_image};
use crate::platform::Platform;
use crate::proxy::Proxy;
use crate::reference::Reference;
use crate::registry::Repository;
use crate::store::{Inventory, Store};

/// What to bring here, and how.
#[derive(Debug)]
pub(super) struct Target {
    pub image: TargetImage,
    pub plan: RebuildPlan,
    pub base: Option<Base>,
    pub base_config: Option<Digest>,
    /// The deltas that the plan uses, in the order of application.
    pub deltas: Vec<Digest>,
    /// All but the last of them.
    pub links: Vec<Link>,
    /// Where the blobs of the last delta are.
    pub delta_source: Source,
    /// Where whole layers are.
    pub whole_source: Source,
    /// Bytes read to find deltas.
    pub search_bytes: u64,
    /// Bytes of the layers that a pull without deltas would read.
    pub plain_bytes: u64,
    pub fallback: Option<Reason>,
    /// The error to report should even the whole layers not be there.
    pub instead: Option<Error>,
}

impl Target {
    /// Bytes that are read for deltas and are not layers of the target: lists, manifests, links of a chain.
    pub(super) fn bytes_beside_layers(&self) -> u64 {
        self.search_bytes + self.links.iter().map(Link::bytes).sum::<u64>()
    }

    /// The same once they are read.
    pub(super) fn bytes_read_beside_layers(&self) -> u64 {
        self.search_bytes + self.links.iter().map(|link| link.received.bytes()).sum::<u64>()
    }

    /// Can this layer be had whole? Of a registry that is known only after trying.
    pub(super) fn may_have_whole(&self, index: usize) -> bool {
        match &self.whole_source {
            Source::Remote(_) => true,
            Source::Local(layout) => {
                matches!(layout.blob(self.plan.layers[index].target.digest()), Ok(Some(_)))
            }
        }
    }

    /// Where the blob for a layer comes from.
    pub(super) fn source_of(&self, action: &LayerAction) -> &Source {
        if action.is_of_delta() { &self.delta_source } else { &self.whole_source }
    }
}

/// Fetches an image. The command itself, which gives it along for the base that `--base` names in a
/// registry.
pub(super) type Pull =
    for<'a> fn(&'a Context, &'a Reference, &'a FetchArgs) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// What is at hand.
pub(super) struct Hand<'a> {
    pub context: &'a Context,
    pub args: &'a FetchArgs,
    pub pull: Pull,
    pub store: Option<Arc<dyn Store>>,
    pub inventory: Inventory,
    pub spool: &'a Path,
}

impl Hand<'_> {
    fn has(&self, diff_id: &DiffId) -> bool {
        self.inventory.layers.contains_key(diff_id)
    }

    fn base(&self, config: &Digest) -> Result<Base> {
        let here = self.store.as_ref().map(|store| (store, &self.inventory));
        Base::find(config, &self.args.base, self.args.source.platform.as_ref(), here, self.spool)
    }

    fn policy(&self) -> DeltaPolicy {
        self.args.delta.delta_policy
    }

    /// Decides for the reference that was opened: a delta, or an image for which deltas may exist.
    pub(super) async fn decide(&mut self, reference: &Reference, opened: &Opened) -> Result<Target> {
        match opened.delta()? {
            Some(manifest) => self.by_given_delta(opened, manifest).await,
            None => {
                let image = opened.image().await?;
                self.by_any_delta(reference, opened, image).await
            }
        }
    }

    /// The image is brought whole.
    fn whole(&self, opened: &Opened, image: TargetImage, fallback: Option<Reason>) -> Target {
        let plan = plan_image(&image, |d| self.has(d), self.args.limits.max_layer_size);
        Target {
            plain_bytes: plan.download_bytes,
            image,
            plan,
            base: None,
            base_config: None,
            deltas: Vec::new(),
            links: Vec::new(),
            delta_source: opened.source.clone(),
            whole_source: opened.source.clone(),
            search_bytes: 0,
            fallback,
            instead: None,
        }
    }

    /// REF is a delta: it is applied, whatever it costs.
    async fn by_given_delta(&mut self, opened: &Opened, manifest: DeltaManifest) -> Result<Target> {
        let delta = opened.target_of(manifest).await?;
        if self.policy() == DeltaPolicy::Never {
            return Ok(self.whole(opened, delta.target, Some(Reason::Policy)));
        }
        self.bring_base(delta.source_config()).await?;
        let base = match self.base(delta.source_config()) {
            Ok(base) => base,
            Err(e) if e.kind() == Kind::Misfit && self.policy() == DeltaPolicy::Auto => {
                let target = self.whole(opened, delta.target, Some(Reason::NoBase));
                let needed = |(_, l): &(_, &crate::plan::PlannedLayer)| l.action == LayerAction::Fetch;
                let mut missing = target.plan.layers.iter().enumerate().filter(needed);
                // A dry run cannot find out whether a registry has the layers.
                let hopeless = self.args.dry_run && matches!(target.whole_source, Source::Remote(_));
                if hopeless || !missing.all(|(index, _)| target.may_have_whole(index)) {
                    return Err(e);
                }
                self.context.say(&format!("the image is fetched whole: {e}"));
                return Ok(Target { instead: Some(e), ..target });
            }
            Err(e) => return Err(e),
        };
        let plan = plan_delta(&delta, |d| self.has(d), self.args.limits.max_layer_size);
        let base_config = Some(delta.source_config().clone());
        let whole = self.whole(opened, delta.target, None);
        Ok(Target { plan, base: Some(base), base_config, deltas: vec![opened.digest.clone()], ..whole })
    }

    /// Fetches a base that `--base` names in a registry.
    async fn bring_base(&mut self, config: &Digest) -> Result<()> {
        let args = self.args;
        let remote = base::check_remote(&args.base, &args.source, config, self.spool).await?;
        if let (Some(remote), Some(store), false) = (remote, &self.store, args.dry_run)
            && self.inventory.by_config(config).is_none()
        {
            self.context.say(&format!("fetching the base image {remote}"));
            let base_args = FetchArgs {
                tag: None,
                expect_digest: None,
                base: BaseArgs::default(),
                delta: Default::default(),
                ..args.clone()
            };
            (self.pull)(self.context, remote, &base_args).await?;
            self.inventory = store.inventory()?;
        }
        Ok(())
    }

    /// REF is an image: the cheapest of the deltas for it, or none.
    async fn by_any_delta(
        &mut self,
        reference: &Reference,
        opened: &Opened,
        image: TargetImage,
    ) -> Result<Target> {
        let whole = self.whole(opened, image, None);
        if self.policy() == DeltaPolicy::Never || whole.plain_bytes == 0 {
            return Ok(whole);
        }
        if let Some(named) = &self.args.delta.delta {
            return self.by_named_delta(named, whole).await;
        }
        let place = match (&self.args.delta.delta_repo, reference) {
            (Some(place @ Reference::Docker { name }), _) => Some((name, Some(place))),
            (_, Reference::Docker { name }) => Some((name, None)),
            _ => None,
        };
        let Some((name, elsewhere)) = place else { return self.without(whole, None, Reason::NoDelta) };
        let local_base = self.named_base()?;
        let options = options(&self.args.source, Platform::host())?;
        let repository = Repository::new(name, &options)?.remembered();
        // Digests of deltas are those of manifests as they are in the registry.
        let subject = whole.image.converted_from.as_ref().unwrap_or(&whole.image.manifest_digest).clone();
        if self.inventory.images.is_empty() && local_base.is_none() {
            if !self.args.dry_run {
                repository.look_at_registry(&subject).await;
            }
            return self.without(whole, None, Reason::NoBase);
        }
        let here = |config: &Digest| {
            local_base.as_ref() == Some(config) || self.inventory.by_config(config).is_some()
        };
        let limit = if self.policy() == DeltaPolicy::Only { u64::MAX } else { whole.plain_bytes };
        let found = deltas_for(&repository, &subject, here, limit).await;
        for note in &found.notes {
            self.context.say(note);
        }
        let chain = choose(&found, &whole, here, |d| self.has(d), limit);
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
        let source_of = |delta: &Candidate| match elsewhere {
            Some(place) => remote(Proxy::new(&place.pinned(&delta.digest).skopeo(), options.clone()), place),
            None => whole.delta_source.clone(),
        };
        let mut links: Vec<Link> = Vec::new();
        for delta in way {
            let have = |d: &DiffId| self.has(d) || links.iter().any(|link| link.diff_ids().contains(d));
            match Link::read(delta, source_of(delta), have).await {
                Ok(link) => links.push(link),
                Err(e) if matches!(e.kind(), Kind::Misfit | Kind::Verification) => {
                    let failure = Some(e);
                    return self.without(whole, Some(Found { failure, ..found }), Reason::LookupFailed);
                }
                Err(e) => return Err(e),
            }
        }
        let first = way.first().unwrap_or(candidate);
        let base = self.base(&first.manifest.source_config)?;
        let search_bytes = found.bytes + links.iter().map(Link::metadata_bytes).sum::<u64>();
        let (digest, delta_source) = (candidate.digest.clone(), source_of(candidate));
        let target = self.with_delta(whole, digest, &candidate.manifest, base);
        if target.deltas.is_empty() {
            return Ok(Target { search_bytes, ..target });
        }
        let deltas = links.iter().map(|l| l.digest.clone()).chain(target.deltas).collect();
        let base_config = Some(first.manifest.source_config.clone());
        Ok(Target { search_bytes, delta_source, links, deltas, base_config, ..target })
    }

    /// The config digest of a base that `--base` names on this machine.
    fn named_base(&self) -> Result<Option<Digest>> {
        let Some(reference) = &self.args.base.base else { return Ok(None) };
        let Some(layout) = Layout::open(reference, self.spool)? else { return Ok(None) };
        base::named_image(&layout, reference, self.args.source.platform.as_ref())
            .map(|i| Some(i.config_digest))
    }

    /// `--delta` names the one to use.
    async fn by_named_delta(&mut self, named: &Reference, whole: Target) -> Result<Target> {
        let opened = Opened::open(named, &self.args.source, self.spool).await?;
        let manifest =
            opened.delta()?.ok_or_else(|| Error::misfit(format!("{named} is not an oci-delta artifact")))?;
        let (rebuilds, wanted) = (manifest.target_manifest.digest(), &whole.image.manifest_digest);
        if rebuilds != wanted {
            return Err(Error::misfit(format!("{named} rebuilds image {rebuilds}, but REF is {wanted}")));
        }
        self.bring_base(&manifest.source_config).await?;
        let search_bytes = opened.metadata_bytes();
        let base = match self.base(&manifest.source_config) {
            Ok(base) => base,
            Err(e) if self.policy() == DeltaPolicy::Only => return Err(e),
            Err(e) if e.kind() == Kind::Misfit => {
                self.context.say(&format!("the image is fetched whole: {e}"));
                return Ok(Target { search_bytes, fallback: Some(Reason::NoBase), ..whole });
            }
            Err(e) => return Err(e),
        };
        let target = self.with_delta(whole, opened.digest.clone(), &manifest, base);
        Ok(Target { search_bytes, delta_source: opened.source, ..target })
    }

    fn with_delta(&self, whole: Target, digest: Digest, manifest: &DeltaManifest, base: Base) -> Target {
        let limit = self.args.limits.max_layer_size;
        let plan = match self.policy() {
            DeltaPolicy::Only => crate::plan::plan_with(manifest, &whole.image, |d| self.has(d), limit),
            _ => plan_cheapest(manifest, &whole.image, |d| self.has(d), limit),
        };
        let used = plan.layers.iter().any(|l| l.action.is_of_delta());
        Target {
            plan,
            base_config: used.then(|| manifest.source_config.clone()),
            base: used.then_some(base),
            deltas: used.then_some(digest).into_iter().collect(),
            fallback: (!used).then_some(Reason::NotSmaller),
            ..whole
        }
    }

    /// No delta helps; with `--delta-policy only` that is an error.
    fn without(&self, whole: Target, found: Option<Found>, reason: Reason) -> Result<Target> {
        let found = found.unwrap_or_default();
        if self.policy() != DeltaPolicy::Only {
            if let Some(e) = &found.failure {
                self.context.say(&format!("the image is fetched whole, as deltas cannot be looked up: {e}"));
            }
            return Ok(Target { search_bytes: found.bytes, fallback: Some(reason), ..whole });
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
        .with_hint("--delta-policy auto fetches it whole"))
    }
}

/// The deltas that lead to the target with the fewest bytes, in order; none when that is not below `limit`.
fn choose<'a>(
    found: &'a Found,
    whole: &Target,
    here: impl Fn(&Digest) -> bool,
    have: impl Fn(&DiffId) -> bool + Copy,
    limit: u64,
) -> Vec<&'a Candidate> {
    let target = &whole.image.config_digest;
    let step = |candidate: &Candidate| {
        let delta = &candidate.manifest;
        let bytes = if delta.target_config.digest() == target {
            plan_cheapest(delta, &whole.image, have, u64::MAX).download_bytes
        } else {
            let metadata = delta.target_manifest.size().saturating_add(delta.target_config.size());
            delta.layer_bytes().saturating_add(metadata)
        };
        Step { from: delta.source_config.clone(), to: delta.target_config.digest().clone(), bytes }
    };
    let steps: Vec<Step> = found.candidates.iter().map(step).collect();
    let chain = cheapest_chain(&steps, here, target, limit).unwrap_or_default();
    chain.into_iter().map(|at| &found.candidates[at]).collect()
}
