//! The choice of a chain: which deltas lead to an image, one after the other, with the fewest bytes.

use std::collections::HashMap;

use crate::digest::Digest;

/// A delta as the choice of a chain sees it. Images are known by config digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The base image.
    pub from: Digest,
    /// The image it rebuilds.
    pub to: Digest,
    /// Bytes to read for it.
    pub bytes: u64,
}

/// The chain of deltas that leads with the fewest bytes, then the fewest deltas, from an image that is
/// `here` to `target`: positions in `hops`, in the order of application. `None` when there is no
/// way, or none with fewer than `limit` bytes.
pub fn cheapest_chain(
    hops: &[Hop],
    here: impl Fn(&Digest) -> bool,
    target: &Digest,
    limit: u64,
) -> Option<Vec<usize>> {
    // Best known way to each image: bytes, deltas, and the last delta of it.
    let mut ways: HashMap<&Digest, (u64, usize, usize)> = HashMap::new();
    // Each round makes ways one delta longer; no cheapest way visits an image twice.
    for _ in 0..hops.len() {
        let mut better = false;
        for (at, hop) in hops.iter().enumerate() {
            let before = if here(&hop.from) {
                Some((0, 0))
            } else {
                ways.get(&hop.from).map(|(bytes, deltas, _)| (*bytes, *deltas))
            };
            let Some((bytes, deltas)) = before else { continue };
            let way = (bytes.saturating_add(hop.bytes), deltas + 1, at);
            let known = ways.get(&hop.to).map(|(bytes, deltas, _)| (*bytes, *deltas));
            if known.is_none_or(|known| (way.0, way.1) < known) {
                ways.insert(&hop.to, way);
                better = true;
            }
        }
        if !better {
            break;
        }
    }
    let (bytes, deltas, _) = ways.get(target)?;
    if *bytes >= limit {
        return None;
    }
    let mut chain = Vec::with_capacity(*deltas);
    let mut image = target;
    while chain.is_empty() || !here(image) {
        let (.., at) = ways.get(image)?;
        if chain.len() > hops.len() {
            return None; // cannot be: each delta leads on from a cheaper way
        }
        chain.push(*at);
        image = &hops[*at].from;
    }
    chain.reverse();
    Some(chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_of;

    /// Numbers that look random, the same for the same seed.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }
    }

    /// Tries every chain without a repeated delta.
    fn brute_force(hops: &[Hop], here: &[Digest], target: &Digest) -> Option<(u64, usize)> {
        fn go(
            hops: &[Hop],
            used: &mut Vec<usize>,
            at: &Digest,
            target: &Digest,
            bytes: u64,
        ) -> Option<(u64, usize)> {
            let mut best = (at == target && !used.is_empty()).then_some((bytes, used.len()));
            for (next, hop) in hops.iter().enumerate() {
                if hop.from == *at && !used.contains(&next) {
                    used.push(next);
                    best = best.into_iter().chain(go(hops, used, &hop.to, target, bytes + hop.bytes)).min();
                    used.pop();
                }
            }
            best
        }
        here.iter().filter_map(|start| go(hops, &mut Vec::new(), start, target, 0)).min()
    }

    #[test]
    fn the_cheapest_chain_is_that_of_brute_force() {
        for seed in 0..10_000 {
            let mut random = Random(seed);
            let images: Vec<Digest> = (0..2 + random.below(5)).map(|n| digest_of(&n.to_le_bytes())).collect();
            let any = |random: &mut Random| images[random.below(images.len() as u64) as usize].clone();
            let hops: Vec<Hop> = (0..random.below(9))
                .map(|_| Hop { from: any(&mut random), to: any(&mut random), bytes: random.below(20) })
                .filter(|hop| hop.from != hop.to)
                .collect();
            let target = images[0].clone();
            let here: Vec<Digest> = images[1..].iter().filter(|_| random.below(3) == 0).cloned().collect();
            let chain = cheapest_chain(&hops, |d| here.contains(d), &target, u64::MAX);
            let found = chain.as_ref().map(|chain| {
                assert!(here.contains(&hops[chain[0]].from), "it begins here");
                assert!(chain.windows(2).all(|pair| hops[pair[0]].to == hops[pair[1]].from), "it is a chain");
                assert_eq!(hops[*chain.last().unwrap()].to, target);
                (chain.iter().map(|at| hops[*at].bytes).sum(), chain.len())
            });
            let expected = brute_force(&hops, &here, &target);
            assert_eq!(found, expected, "seed {seed}");
            if let Some((bytes, _)) = expected {
                assert_eq!(cheapest_chain(&hops, |d| here.contains(d), &target, bytes), None, "not cheaper");
            }
        }
    }
}
