use std::io::Write;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::blocks::{Head, Kind};
use super::body::{Models, counts};
use super::parts::{By, Member, Part, Parts};
use super::plain::Plain;
use super::range::Encoder;
use super::*;
use crate::deflate::block::{Counts, DynamicHeader};
use crate::deflate::go;
use crate::deflate::huffman::PrefixCode;
use crate::deflate::parse::{BlockKind, CodeLengths, Parser, Step};
use crate::deflate::{Token, tables};
use crate::find::find_or_fix;
use crate::recipe::{Deflate, Method, Rebuild, RebuildError, Recipe, Wrap};
use crate::zstd::klauspost as kp_zstd;

const ONE: NonZeroUsize = NonZeroUsize::MIN;

/// A fix in the making.
struct Tell {
    coder: Encoder,
    parts: Parts,
    models: Models,
}

impl Tell {
    fn new() -> Self {
        Self { coder: Encoder::new(MAGIC.to_vec()), parts: Parts::new(Vec::new()), models: Models::new() }
    }

    fn part(&mut self, part: Part) {
        let _ = self.parts.code(&mut self.coder, part);
    }

    fn member(&mut self, by: By, plain: u64) {
        self.models.tokens.restart();
        self.part(Part::Member(Member { by, plain, header: Vec::new() }));
    }

    fn head(&mut self, is_final: bool, kind: Kind) {
        let _ = self.models.blocks.head(&mut self.coder, Head { is_final, kind });
    }

    fn run(&mut self, count: usize) {
        let _ = self.models.blocks.run(&mut self.coder, count);
    }

    fn end(mut self) -> Vec<u8> {
        self.part(Part::End);
        self.coder.finish()
    }
}

fn method(encoder: Deflate) -> Method {
    Method::Deflate { wrap: Wrap::Gzip { header: Vec::new() }, encoder }
}

/// What comes of a fix, for a blob of at most a MiB.
fn follow(method: Method, fix: Vec<u8>, plain: &[u8]) -> Result<Vec<u8>, RebuildError> {
    let recipe = Recipe::new(1 << 20, method).unwrap().with_fix(FixDigest::of(&fix));
    let mut rebuild = Rebuild::new(&recipe, Some(fix), ONE, Vec::new())?;
    let reason = |error: std::io::Error| *error.get_ref().unwrap().downcast_ref::<RebuildError>().unwrap();
    rebuild.write_all(plain).map_err(reason)?;
    rebuild.finish().map_err(reason)
}

fn reason(fix: Vec<u8>, plain: &[u8]) -> FixError {
    match follow(method(Deflate::Tokens), fix, plain) {
        Err(RebuildError::Fix(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn limit(fix: Vec<u8>, plain: &[u8]) -> &'static str {
    match reason(fix, plain) {
        FixError::Limit { what, .. } => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn matches_from_before_the_start_are_refused() {
    let plain = [b'a'; 600];
    for (at, distance) in [(0, 1), (1, 2), (5, 32_768)] {
        let mut tell = Tell::new();
        tell.member(By::Fix, 600);
        tell.head(true, Kind::Fixed);
        tell.run(600);
        for index in 0..=at {
            let token = if index < at { Token::literal(b'a') } else { Token::copy(5, distance) };
            let view = chains::View { bytes: &plain, index, at: index as u64 };
            let _ = tell.models.tokens.code(&mut tell.coder, view, token);
        }
        assert_eq!(reason(tell.end(), &plain), FixError::Token);
    }
}

#[test]
fn matches_of_other_bytes_and_beyond_the_end_are_refused() {
    let plain = *b"abcdefabcxyz";
    for (length, distance) in [(6, 5), (200, 6)] {
        let mut tell = Tell::new();
        tell.member(By::Fix, 12);
        tell.head(true, Kind::Fixed);
        tell.run(7);
        for index in 0..=6 {
            let token = if index < 6 { Token::literal(plain[index]) } else { Token::copy(length, distance) };
            let view = chains::View { bytes: &plain, index, at: index as u64 };
            let _ = tell.models.tokens.code(&mut tell.coder, view, token);
        }
        let error = reason(tell.end(), &plain);
        assert!(matches!(error, FixError::Token | FixError::Blocks | FixError::CutOff), "{error}");
    }
}

#[test]
fn blocks_that_never_end_are_refused() {
    let mut tell = Tell::new();
    tell.member(By::Fix, 0);
    for _ in 0..100_000 {
        tell.head(false, Kind::Fixed);
        tell.run(0);
    }
    assert_eq!(limit(tell.end(), &[]), "empty blocks in a row");

    let mut tell = Tell::new();
    tell.member(By::Fix, 9);
    for _ in 0..100_000 {
        tell.head(false, Kind::Stored { length: 1, padding: 7 });
    }
    assert_eq!(reason(tell.end(), &[1; 9]), FixError::Blocks);
}

#[test]
fn blocks_that_end_too_soon_are_refused() {
    let mut tell = Tell::new();
    tell.member(By::Fix, 9);
    tell.head(true, Kind::Stored { length: 8, padding: 0 });
    assert_eq!(reason(tell.end(), &[1; 9]), FixError::Blocks);
}

#[test]
fn members_that_never_end_are_refused() {
    for by in [By::Encoder, By::Fix] {
        let mut tell = Tell::new();
        (0..3000).for_each(|_| tell.member(by, 1 << 41));
        let encoder = Deflate::Go { level: go::Level::STORED };
        assert_eq!(
            follow(method(encoder), tell.end(), &[]),
            Err(RebuildError::Fix(FixError::Limit { what: "plain bytes", most: crate::recipe::MAX_SIZE }))
        );
    }
    // Each of them costs an encoder.
    let mut tell = Tell::new();
    (0..MAX_PARTS).for_each(|_| tell.member(By::Encoder, 0));
    let blob = follow(method(Deflate::Go { level: go::Level::STORED }), tell.end(), &[]);
    let what = "parts of so few plain bytes";
    assert_eq!(blob, Err(RebuildError::Fix(FixError::Limit { what, most: FREE_PARTS })));

    let mut tell = Tell::new();
    (0..=MAX_PARTS).for_each(|_| tell.part(Part::Raw { length: 0, plain: PLAIN_PER_PART }));
    assert_eq!(limit(tell.end(), &vec![0; (MAX_PARTS + 1) * PLAIN_PER_PART as usize]), "parts");
}

#[test]
fn raw_bytes_that_never_end_are_refused() {
    let mut tell = Tell::new();
    tell.part(Part::Raw { length: u64::MAX >> 1, plain: 0 });
    tell.parts.bytes(&mut tell.coder, &mut vec![0; 3 << 20]);
    let fix = tell.coder.finish();
    // Bytes of zero take hardly any room.
    assert!(fix.len() < 20_000, "{}", fix.len());
    assert_eq!(follow(method(Deflate::Tokens), fix, &[]), Err(RebuildError::TooLong { size: 1 << 20 }));
}

#[test]
fn numbers_beyond_their_limits_are_refused() {
    let mut tell = Tell::new();
    let header = vec![0; MAX_HEADER + 1];
    tell.part(Part::Member(Member { by: By::Fix, plain: 0, header }));
    assert_eq!(limit(tell.end(), &[]), "bytes in a header");

    let mut tell = Tell::new();
    tell.member(By::Fix, 9);
    tell.head(true, Kind::Dynamic);
    tell.run(RUN + 1);
    assert_eq!(limit(tell.end(), &[1; 9]), "tokens in a run");
}

#[test]
fn parts_of_other_encoders_are_refused() {
    let mut tell = Tell::new();
    tell.member(By::Encoder, 0);
    assert_eq!(reason(tell.end(), &[]), FixError::Part);
    let mut tell = Tell::new();
    tell.member(By::Fix, 0);
    let calls = kp_zstd::Calls::stream();
    let zstd = Method::Zstd { family: kp_zstd::Family::V1_18_5, level: kp_zstd::Level::Default, calls };
    assert_eq!(follow(zstd.clone(), tell.end(), &[]), Err(RebuildError::Fix(FixError::Part)));
    // A header that nobody writes would cost time for nothing.
    let mut tell = Tell::new();
    tell.part(Part::Member(Member { by: By::Encoder, plain: 0, header: vec![1; 9] }));
    assert_eq!(follow(zstd, tell.end(), &[]), Err(RebuildError::Fix(FixError::Part)));
}

#[test]
fn other_plain_bytes_are_refused() {
    let fix = || {
        let mut tell = Tell::new();
        tell.part(Part::Raw { length: 0, plain: 5 });
        tell.end()
    };
    assert_eq!(
        follow(method(Deflate::Tokens), fix(), &[0; 5]),
        Err(RebuildError::TooShort { size: 1 << 20, written: 0 })
    );
    assert_eq!(reason(fix(), &[0; 4]), FixError::Plain);
    assert_eq!(reason(fix(), &[0; 6]), FixError::Plain);
}

#[test]
fn fixes_that_are_none_are_refused() {
    let plain = [b'x'; 4000];
    let mut tell = Tell::new();
    tell.part(Part::Raw { length: 4000, plain: 0 });
    tell.parts.bytes(&mut tell.coder, &mut (0..4000u32).map(|i| (i * i / 8) as u8).collect::<Vec<_>>());
    let fix = tell.end();
    for length in 0..fix.len() - 1 {
        // The last bytes may say nothing that matters.
        if length < fix.len() - 6 {
            let error = reason(fix[..length].to_vec(), &[]);
            let is_named = if length < 6 { error == FixError::Magic } else { error != FixError::Magic };
            assert!(is_named && (error == FixError::CutOff || length < 20), "{length}: {error}");
        }
    }
    let mut longer = fix.clone();
    longer.extend_from_slice(&[1; 9]);
    assert_eq!(reason(longer, &[]), FixError::Trailing);

    let recipe = Recipe::new(1 << 20, method(Deflate::Go { level: go::Level::STORED })).unwrap();
    let fixed = recipe.clone().with_fix(FixDigest::of(&fix));
    let new = |recipe: &Recipe, fix| Rebuild::new(recipe, fix, ONE, Vec::new()).err();
    assert_eq!(new(&recipe, Some(fix.clone())), Some(RebuildError::Fix(FixError::NotNeeded)));
    assert_eq!(new(&fixed, None), Some(RebuildError::Fix(FixError::Missing)));
    assert_eq!(new(&fixed, Some(plain.to_vec())), Some(RebuildError::Fix(FixError::OtherDigest)));
    let most = (1 << 20) / SHARE;
    let large = vec![0; most as usize + 1];
    assert_eq!(new(&fixed, Some(large)), Some(RebuildError::Fix(FixError::TooLarge { most })));
}

/// A block as it may be, though no encoder makes it so.
#[derive(Clone, Debug)]
struct Odd {
    kind: u8,
    size: usize,
    /// Whether code lengths are in longest runs.
    has_runs: bool,
    spread: usize,
}

/// A deflate stream of `plain` in odd blocks, by way of a fix that tells them.
fn odd_stream(plain: &[u8], blocks: &[Odd]) -> Vec<u8> {
    let mut tell = Tell::new();
    tell.member(By::Fix, plain.len() as u64);
    let mut at = 0;
    for (i, block) in blocks.iter().enumerate() {
        let is_final = i + 1 == blocks.len();
        let end = if is_final { plain.len() } else { (at + block.size).min(plain.len()) };
        let length = u16::try_from(end - at);
        if let (0, Ok(length)) = (block.kind, length) {
            tell.head(is_final, Kind::Stored { length, padding: block.spread as u8 & 0x7f });
            for index in at..end {
                tell.models.tokens.skip(chains::View { bytes: plain, index, at: index as u64 });
            }
            at = end;
            continue;
        }
        let tokens = odd_tokens(plain, at, end, block.spread);
        tell.head(is_final, if block.kind == 1 { Kind::Fixed } else { Kind::Dynamic });
        let lengths = odd_lengths(&counts(&tokens[..tokens.len().min(RUN)]), block.has_runs);
        let mut runs = tokens.chunks(RUN).collect::<Vec<_>>();
        if tokens.len().is_multiple_of(RUN) {
            runs.push(&[]);
        }
        for (i, run) in runs.into_iter().enumerate() {
            tell.run(run.len());
            for &token in run {
                let view = chains::View { bytes: plain, index: at, at: at as u64 };
                assert_eq!(tell.models.tokens.code(&mut tell.coder, view, token), Ok(token));
                at += token.plain_len();
            }
            if i == 0 && block.kind > 1 {
                let told = tell.models.blocks.lengths(&mut tell.coder, &counts(run), &lengths);
                assert_eq!(told.as_ref(), Ok(&lengths));
            }
        }
    }
    let fix = tell.end();
    let recipe = Recipe::new(1 << 30, method(Deflate::Tokens)).unwrap().with_fix(FixDigest::of(&fix));
    let mut blob = Vec::new();
    let mut follow = Follow::new(recipe.method(), fix, ONE).unwrap();
    for mut piece in plain.chunks(777).chain([&plain[..0]]) {
        while follow.step(&mut piece, &mut blob).unwrap() == Progress::More {}
    }
    blob
}

/// Matches where there are some, and not always the best.
fn odd_tokens(plain: &[u8], mut at: usize, end: usize, spread: usize) -> Vec<Token> {
    let mut tokens = Vec::new();
    while at < end {
        let back = [1, 2, 100, 32_768, 3000][(at + spread) % 5].min(at.max(1));
        let same = (0..258.min(end - at))
            .take_while(|i| at >= back && plain[at + i - back] == plain[at + i])
            .count();
        let token = match same {
            258 if spread.is_multiple_of(2) => Token::copy_258_long_form(back),
            3.. => Token::copy(same - (at * spread) % (same - 2), back),
            _ => Token::literal(plain[at]),
        };
        at += token.plain_len();
        tokens.push(token);
    }
    tokens
}

/// Code lengths for all symbols, in runs or not.
fn odd_lengths(counts: &Counts, has_runs: bool) -> CodeLengths {
    let mut counts = counts.clone();
    counts.litlen.iter_mut().chain(&mut counts.distance).for_each(|count| *count += u32::from(has_runs));
    let mut lengths = PrefixCode::best(&counts.litlen, 15).lengths.to_vec();
    lengths.extend(PrefixCode::best(&counts.distance, 15).lengths);
    let symbols: Vec<(u8, u8)> = lengths.iter().map(|length| (*length, 0)).collect();
    let mut used = [0; tables::CODELEN_SYMBOLS];
    symbols.iter().for_each(|(symbol, _)| used[usize::from(*symbol)] += 1);
    let code = PrefixCode::best(&used, 7);
    let code_lengths =
        tables::CODELEN_ORDER.iter().map(|symbol| code.lengths[usize::from(*symbol)]).collect();
    CodeLengths { litlen: 286, distance: 30, code_lengths, symbols, lengths }
}

fn check_odd(plain: &[u8], blocks: &[Odd]) {
    let blob = {
        // The wrapper's header is not in it.
        let mut blob = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        blob.extend(odd_stream(plain, blocks));
        blob
    };
    let cursor = |bytes| move || Ok(std::io::Cursor::new(bytes));
    match find_or_fix(cursor(blob.as_slice()), cursor(plain), ONE, || false) {
        Ok(found) => {
            let mut rebuild = Rebuild::new(&found.recipe, found.fix, ONE, Vec::new()).unwrap();
            rebuild.write_all(plain).unwrap();
            assert!(rebuild.finish().unwrap() == blob);
        }
        Err(crate::find::NotFound::LongFix) => {}
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn odd_streams_come_out_again(
        seed in 0u64..1000,
        blocks in prop::collection::vec(
            (0u8..4, 0usize..20_000, any::<bool>(), 0usize..500)
                .prop_map(|(kind, size, has_runs, spread)| Odd { kind, size, has_runs, spread }),
            1..9,
        ),
    ) {
        let plain: Vec<u8> = (0..60_000u64).map(|i| ((i * i * (seed + 1)) >> (7 + i % 3)) as u8 & 0x3f).collect();
        check_odd(&plain, &blocks);
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..3000), kind in 0usize..3) {
        let plain: Vec<u8> = (0..20_000u32).map(|i| (i % 251 * (i >> 9)) as u8).collect();
        let method = match kind {
            0 => method(Deflate::Tokens),
            1 => method(Deflate::Go { level: go::Level::DEFAULT }),
            _ => Method::Zstd {
                family: kp_zstd::Family::V1_18_5,
                level: kp_zstd::Level::Fastest,
                calls: kp_zstd::Calls::stream(),
            },
        };
        prop_assert!(follow(method, [&MAGIC[..], &bytes].concat(), &plain).is_err());
    }
}

#[test]
fn blocks_of_many_tokens_come_out_again() {
    // No matches, so that there are as many tokens as bytes.
    let plain: Vec<u8> =
        (0..2 * RUN as u64 + 9).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as u8).collect();
    for (kind, size) in [(1, RUN), (2, plain.len())] {
        let first = Odd { kind, size, has_runs: false, spread: 0 };
        check_odd(&plain, &[first.clone(), first]);
    }
}

#[test]
fn padding_of_stored_blocks_comes_out_again() {
    let plain = vec![7; 3000];
    let stored = |size| Odd { kind: 0, size, has_runs: false, spread: 0x55 };
    let blob = odd_stream(&plain, &[Odd { kind: 1, ..stored(10) }, stored(0), stored(2990)]);
    let mut parser = Parser::new();
    parser.feed(&blob);
    let mut paddings = Vec::new();
    loop {
        match parser.step().unwrap() {
            Step::Block(head) => {
                if let BlockKind::Stored { padding, .. } = head.kind {
                    paddings.push(padding);
                }
            }
            Step::End => break,
            Step::NeedsInput => panic!("cut off"),
            _ => {}
        }
    }
    assert!(paddings.iter().any(|padding| *padding > 0), "{paddings:?}");
    check_odd(&plain, &[Odd { kind: 1, ..stored(10) }, stored(0), stored(2990)]);
}

#[test]
fn headers_are_sent_as_they_were() {
    let counts = counts(&[Token::literal(3), Token::copy(9, 7)]);
    for has_runs in [false, true] {
        let lengths = odd_lengths(&counts, has_runs);
        let mut out = Vec::new();
        let mut bits = crate::deflate::bits::BitWriter::new();
        DynamicHeader::of(&lengths).write(&mut bits, &mut out, true);
        bits.align(&mut out);
        let mut parser = Parser::new();
        parser.feed(&out);
        let Ok(Step::Block(head)) = parser.step() else { panic!("no block") };
        assert_eq!(head.kind, BlockKind::Dynamic(lengths));
    }
}

#[test]
fn plain_bytes_are_dropped_behind_the_window() {
    let mut plain = Plain::new(1 << 20);
    for _ in 0..16 {
        let at = plain.end();
        assert!(plain.wanted(at) == LOOKAHEAD);
        plain.push(&[1; 1 << 16], at);
        let view = plain.view(at);
        assert!(view.bytes.len() <= 4 << 16 && view.index >= Token::MAX_DISTANCE.min(at as usize));
    }
    assert_eq!((plain.left(), plain.wanted(1 << 20)), (0, 0));
}
