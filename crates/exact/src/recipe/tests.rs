use std::io::Write;

use proptest::prelude::*;

use super::*;

const ONE: NonZeroUsize = NonZeroUsize::MIN;

fn deflates() -> impl Strategy<Value = Deflate> {
    let versions = kp::Family::ALL.map(KpVersion::Family).into_iter().chain([KpVersion::Go127]);
    let versions = prop::sample::select(versions.collect::<Vec<_>>());
    let roundings = prop::sample::select(vec![kp::Rounding::Twice, kp::Rounding::Fused]);
    let levels = (-2i8..=9).prop_filter_map("a level", kp::Level::new);
    let frames = prop_oneof![
        Just(Frame::Stream),
        (BlockSize::MIN..=BlockSize::MAX)
            .prop_filter_map("a size", |size| Some(Frame::Pgzip(BlockSize::new(size)?))),
    ];
    prop_oneof![
        Just(Deflate::Tokens),
        (-2i32..=9)
            .prop_filter_map("a level", |level| Some(Deflate::Go { level: go::Level::new(level).ok()? })),
        (versions, levels, roundings, frames).prop_map(|(version, level, rounding, frame)| Deflate::Kp {
            version,
            level,
            rounding,
            frame
        }),
    ]
}

fn zlibs() -> impl Strategy<Value = Deflate> {
    let level = || (1u8..=9).prop_filter_map("a level", zlib::Level::new);
    let memory = prop::sample::select(zlib::Memory::ALL.to_vec());
    let blocks = (pigz::BlockSize::MIN / 1024..=pigz::BlockSize::MAX / 1024)
        .prop_filter_map("a size", |kib| pigz::BlockSize::new(kib * 1024));
    let dictionaries = prop::sample::select(vec![pigz::Dictionary::Present, pigz::Dictionary::Absent]);
    let cuts = prop::sample::select(vec![pigz::Cut::Even, pigz::Cut::Rsyncable]);
    let pieces = (ng::Piece::MIN..=ng::Piece::MAX).prop_filter_map("a size", ng::Piece::new);
    prop_oneof![
        (level(), memory)
            .prop_map(|(level, memory)| Deflate::Zlib { settings: zlib::Settings { level, memory } }),
        (level(), blocks, dictionaries, cuts).prop_map(|(level, block, dictionary, cut)| {
            Deflate::Pigz { settings: pigz::Settings { level, block, dictionary, cut } }
        }),
        level().prop_map(|level| Deflate::GnuGzip { level }),
        (level(), pieces)
            .prop_map(|(level, piece)| Deflate::ZlibNg { settings: ng::Settings { level, piece } }),
    ]
}

fn libzstds() -> impl Strategy<Value = libzstd::Settings> {
    let sizes = prop::option::of(0..=MAX_SIZE);
    let fields = prop::sample::select(vec![libzstd::SizeField::Written, libzstd::SizeField::Omitted]);
    let sums = prop::sample::select(vec![libzstd::Checksum::Absent, libzstd::Checksum::Present]);
    let windows = prop::option::of(10u32..=23);
    let jobs = (libzstd::Jobs::MIN..=libzstd::Jobs::MAX, 1..=libzstd::Jobs::MAX_OVERLAP);
    let jobs = prop::option::of(jobs.prop_filter_map("jobs", |(size, log)| libzstd::Jobs::new(size, log)));
    (1i32..=19, sizes, fields, sums, windows, jobs).prop_map(
        |(level, size, size_field, checksum, window_log, jobs)| libzstd::Settings {
            level,
            size,
            size_field,
            checksum,
            window_log,
            jobs,
        },
    )
}

fn recipes() -> impl Strategy<Value = Recipe> {
    let headers = prop::collection::vec(any::<u8>(), 0..=MAX_HEADER);
    let wraps = prop_oneof![Just(Wrap::Raw), headers.prop_map(|header| Wrap::Gzip { header })];
    let flushes = prop::collection::btree_set(0..=MAX_SIZE, 0..=MAX_FLUSHES);
    let calls = prop_oneof![
        flushes.prop_map(|set| kp_zstd::Calls::Stream { flushes: set.into_iter().collect() }),
        (0..=MAX_SIZE).prop_map(|size| kp_zstd::Calls::Whole { size }),
    ];
    let families = prop::sample::select(kp_zstd::Family::ALL.to_vec());
    let levels = prop::sample::select(vec![kp_zstd::Level::Fastest, kp_zstd::Level::Default]);
    let methods = prop_oneof![
        (wraps, prop_oneof![deflates(), zlibs()])
            .prop_map(|(wrap, encoder)| Method::Deflate { wrap, encoder }),
        (families, levels, calls).prop_map(|(family, level, calls)| Method::Zstd { family, level, calls }),
        libzstds().prop_map(|settings| Method::Libzstd { settings }),
    ];
    let fixes = prop::option::of(any::<u64>().prop_map(|seed| FixDigest::of(&seed.to_le_bytes())));
    (0..=MAX_SIZE, methods, fixes).prop_map(|(size, method, fix)| {
        let needs_fix = matches!(method, Method::Deflate { encoder: Deflate::Tokens, .. });
        let recipe = Recipe::new(size, method).expect("within the limits");
        match fix.or_else(|| needs_fix.then(|| FixDigest::of(&[]))) {
            Some(fix) => recipe.with_fix(fix),
            None => recipe,
        }
    })
}

proptest! {
    #[test]
    fn texts_are_read_as_they_were_written(recipe in recipes()) {
        let text = recipe.to_string();
        prop_assert_eq!(text.parse::<Recipe>(), Ok(recipe.clone()));
        let is_long = recipe.fix.is_some() || matches!(&recipe.method, Method::Deflate { wrap: Wrap::Gzip { header }, .. } if header.len() > 100);
        prop_assert!(is_long || text.len() <= 400, "{} bytes", text.len());
    }

    #[test]
    fn no_text_is_too_much(text in ".{0,200}") {
        let _ = text.parse::<Recipe>();
    }
}

/// The recipe of the format's description, with other text in place of some.
fn changed(from: &str, to: &str) -> Result<Recipe, RecipeError> {
    let text = r#"{"v":1,"size":110149,"wrap":"gzip","head":"1f8b080000096e8800ff","enc":"kp-flate","fam":"A","lvl":5,
        "frame":{"kind":"pgzip","block":1048576,"tail":16384},"fma":0,"more":[{}]}"#;
    assert!(text.contains(from));
    text.replacen(from, to, 1).parse()
}

#[test]
fn hostile_recipes_are_refused_by_name() {
    assert!(changed("1", "1").is_ok());
    for (from, to, field) in [
        ("110149", "9223372036854775808", "size"),
        ("110149", "1e300", "size"),
        ("110149", "-1", "size"),
        ("1048576", "1073741824", "block"),
        ("1048576", "16384", "block"),
        ("16384", "4096", "tail"),
        (":5", ":99", "lvl"),
        (":5", ":-3", "lvl"),
        (r#""fma":0"#, r#""fma":2"#, "fma"),
        ("1f8b", &"00".repeat(MAX_HEADER), "head"),
    ] {
        match changed(from, to) {
            Err(RecipeError::Limit { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{from} as {to}: {other:?}"),
        }
    }
    for (from, to, what) in [
        ("kp-flate", "zopfli", "encoder"),
        (r#""A""#, r#""D""#, "family of kp-flate"),
        ("pgzip", "chunked", "frame of kp-flate"),
        ("gzip", "brotli", "wrapper"),
        (r#""v":1"#, r#""v":2"#, "version"),
        ("kp-flate", "go-flate", "family of go-flate"),
    ] {
        match changed(from, to) {
            Err(RecipeError::Unknown { what: named, .. }) => assert_eq!(named, what),
            other => panic!("{from} as {to}: {other:?}"),
        }
    }
    assert_eq!(changed("1f8b", &"00".repeat(1 << 20)), Err(RecipeError::TextTooLong));
    for (from, to) in [("1f8b", "1f8"), ("1f8b", "1F8B"), ("1f8b", "é")] {
        assert_eq!(changed(from, to), Err(RecipeError::Malformed("head")));
    }
    assert_eq!(changed("5,", "-1,"), Err(RecipeError::Malformed("lvl")));
    assert_eq!("[1]".parse::<Recipe>(), Err(RecipeError::NoObject));
    assert_eq!("{}".parse::<Recipe>(), Err(RecipeError::Missing("v")));
    assert!(matches!(changed(r#""gzip""#, r#""zstd""#), Err(RecipeError::Contradiction(_))));
}

#[test]
fn hostile_frames_of_zstd_are_refused_by_name() {
    let text = |frame: &str| {
        format!(r#"{{"v":1,"size":9,"wrap":"zstd","enc":"kp-zstd","fam":"1.18.5","lvl":2,"frame":{frame}}}"#)
            .parse::<Recipe>()
    };
    assert!(text(r#"{"kind":"zstd","flush":[8]}"#).is_ok());
    let limit = |error| matches!(error, Err(RecipeError::Limit { .. }));
    assert!(limit(text(r#"{"kind":"whole","plain":9223372036854775808}"#)));
    assert!(limit(text(r#"{"kind":"zstd","flush":[9223372036854775808]}"#)));
    assert!(limit(text(&format!(r#"{{"kind":"zstd","flush":{:?}}}"#, (0..17).collect::<Vec<_>>()))));
    assert!(matches!(text(r#"{"kind":"zstd","flush":[8,8]}"#), Err(RecipeError::Contradiction(_))));
    assert!(matches!(text(r#"{"kind":"chunked"}"#), Err(RecipeError::Unknown { .. })));
}

#[test]
fn blobs_of_another_size_are_stopped() {
    let plain: Vec<u8> = (0..300_000u32).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let method = Method::Deflate { wrap: Wrap::Raw, encoder: Deflate::Go { level: go::Level::DEFAULT } };
    let made = |size| {
        let recipe = Recipe::new(size, method.clone()).unwrap();
        let mut rebuild = Rebuild::new(&recipe, None, ONE, Vec::new()).unwrap();
        let written = rebuild.write_all(&plain);
        written.and_then(|()| rebuild.finish())
    };
    let mut encoder = Recipe::new(0, method.clone()).unwrap().encoder(ONE).unwrap();
    let mut blob = Vec::new();
    encoder.push(&plain, &mut blob);
    encoder.finish(&mut blob);
    let size = blob.len() as u64;
    assert!(made(size).unwrap() == blob);
    let reason = |size| *made(size).unwrap_err().get_ref().unwrap().downcast_ref::<RebuildError>().unwrap();
    assert_eq!(reason(1000), RebuildError::TooLong { size: 1000 });
    assert_eq!(reason(size - 1), RebuildError::TooLong { size: size - 1 });
    assert_eq!(reason(size + 1), RebuildError::TooShort { size: size + 1, written: size });

    let recipe = Recipe::new(10, method.clone()).unwrap();
    let mut rebuild = Rebuild::new(&recipe, None, ONE, Vec::new()).unwrap();
    while rebuild.write_all(&plain).is_ok() {}
    let again = rebuild.write(&plain).unwrap_err();
    assert_eq!(again.get_ref().unwrap().downcast_ref(), Some(&RebuildError::Failed));
}

/// A text with an encoder and what follows it.
fn with_encoder(wrap: &str, rest: &str) -> Result<Recipe, RecipeError> {
    format!(r#"{{"v":1,"size":9,"wrap":"{wrap}",{rest}}}"#).parse()
}

#[test]
fn hostile_recipes_of_the_zlib_family_are_refused_by_name() {
    let text = r#""enc":"zlib","fam":"1","lvl":6,"mem":8,"frame":{"kind":"pigz","block":131072,"dict":32768,"rsync":1}"#;
    let ng = r#""enc":"zlib-ng","fam":"2.3","lvl":6,"frame":{"kind":"stream","piece":32768}"#;
    assert!(with_encoder("raw", text).is_ok() && with_encoder("raw", ng).is_ok());
    for (text, from, to, named) in [
        (text, "131072", "8388608", "`block`"),
        (text, "131072", "131073", "`block`"),
        (text, "131072", "0", "`block`"),
        (text, "32768", "16384", "`dict`"),
        (text, r#""rsync":1"#, r#""rsync":2"#, "`rsync`"),
        (text, r#""lvl":6"#, r#""lvl":0"#, "`lvl`"),
        (text, r#""lvl":6"#, r#""lvl":11"#, "`lvl`"),
        (text, r#""mem":8"#, r#""mem":10"#, "`mem`"),
        (text, r#""mem":8"#, r#""mem":9"#, "`mem`"),
        (text, r#""fam":"1""#, r#""fam":"2""#, "\"2\""),
        (text, r#""zlib""#, r#""gnu-gzip""#, "\"pigz\""),
        (text, r#""kind":"pigz""#, r#""kind":"other""#, "\"other\""),
        (text, r#""mem":8"#, r#""fma":1"#, "`fma`"),
        (ng, "32768", "1048576", "`piece`"),
        (ng, "32768", "0", "`piece`"),
        (ng, r#""2.3""#, r#""2.4""#, "\"2.4\""),
    ] {
        assert!(text.contains(from), "{from}");
        let error = with_encoder("raw", &text.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(named), "{to}: {error}");
    }
    assert!(matches!(with_encoder("zstd", text), Err(RecipeError::Contradiction(_))));
}

#[test]
fn hostile_recipes_of_libzstd_are_refused_by_name() {
    let text = r#""enc":"libzstd","fam":"1.5.7","lvl":3,"frame":{"kind":"frame","sum":1,"plain":7,"told":0,"window":20}"#;
    assert!(with_encoder("zstd", text).is_ok());
    for (from, to, named) in [
        (r#""lvl":3"#, r#""lvl":22"#, "`lvl`"),
        (r#""lvl":3"#, r#""lvl":-7"#, "`lvl`"),
        (r#""window":20"#, r#""window":27"#, "`window`"),
        (r#""plain":7"#, r#""plain":1099511627777"#, "`plain`"),
        (r#""sum":1"#, r#""sum":2"#, "`sum`"),
        (r#""told":0"#, r#""told":2"#, "`told`"),
        ("1.5.7", "1.5.8", "\"1.5.8\""),
        (r#""kind":"frame""#, r#""kind":"stream""#, "\"stream\""),
    ] {
        assert!(text.contains(from), "{from}");
        let error = with_encoder("zstd", &text.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(named), "{to}: {error}");
    }
    assert!(matches!(with_encoder("gzip", text), Err(RecipeError::Contradiction(_))));
}

#[test]
fn hostile_jobs_of_libzstd_are_refused_by_name() {
    let text =
        r#""enc":"libzstd","fam":"1.5.7","lvl":3,"frame":{"kind":"jobs","sum":1,"job":8388608,"overlap":6}"#;
    assert!(with_encoder("zstd", text).is_ok());
    for (from, to, named) in [
        // Each thread holds some jobs.
        (r#""job":8388608"#, r#""job":33554433"#, "`job`"),
        (r#""job":8388608"#, r#""job":18446744073709551616"#, "`job`"),
        // Each costs a start.
        (r#""job":8388608"#, r#""job":524287"#, "`job`"),
        (r#""job":8388608"#, r#""job":0"#, "`job`"),
        (r#""overlap":6"#, r#""overlap":10"#, "`overlap`"),
        (r#""overlap":6"#, r#""overlap":0"#, "`overlap`"),
        (r#","overlap":6"#, "", "`overlap`"),
        (r#","job":8388608"#, "", "`job`"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = with_encoder("zstd", &text.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(named), "{to}: {error}");
    }
}

#[test]
fn digests_of_fixes_are_checked() {
    let digest = "0123456789abcdef".repeat(4);
    let text = |fix: &str| {
        format!(
            r#"{{"v":1,"size":9,"wrap":"gzip","head":"","enc":"tokens","fam":"1","lvl":0,"frame":{{"kind":"stream"}}{fix}}}"#
        )
        .parse::<Recipe>()
    };
    let recipe = text(&format!(r#","fix":"sha256:{digest}""#)).unwrap();
    assert_eq!(recipe.fix().unwrap().to_string(), format!("sha256:{digest}"));
    assert_eq!(text(""), Err(RecipeError::Missing("fix")));
    let upper = digest.to_uppercase();
    for name in [&digest, &format!("sha256:{upper}"), &format!("sha256:{digest}0"), "sha256:", "md5:00"] {
        assert_eq!(text(&format!(r#","fix":"{name}""#)), Err(RecipeError::Malformed("fix")));
    }
}

#[test]
fn tokens_have_no_settings() {
    let text = |fields: &str| {
        let digest = FixDigest::of(&[]);
        format!(r#"{{"v":1,"size":9,"wrap":"raw","enc":"tokens",{fields},"fix":"{digest}"}}"#)
            .parse::<Recipe>()
    };
    assert!(text(r#""fam":"1","lvl":0,"frame":{"kind":"stream"}"#).is_ok());
    let contradiction = |error| matches!(error, Err(RecipeError::Contradiction(_)));
    assert!(contradiction(text(r#""fam":"1","lvl":1,"frame":{"kind":"stream"}"#)));
    assert!(contradiction(text(r#""fam":"1","lvl":0,"frame":{"kind":"pgzip"}"#)));
    assert!(contradiction(text(r#""fam":"1","lvl":0,"frame":{"kind":"stream"},"fma":1"#)));
    assert!(matches!(
        text(r#""fam":"2","lvl":0,"frame":{"kind":"stream"}"#),
        Err(RecipeError::Unknown { .. })
    ));
}
