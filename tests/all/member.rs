//! Members: streams of real programs are found, looked into and made again; those that lie are refused.

use std::io::{Read as _, Write as _};
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use std::sync::Arc;

use oci_delta_fetch::cancel::Cancel;
use oci_delta_fetch::member::{Coding, Encoder, Limits, Member, Recipe, Sizes, find, open, recipe};
use oci_delta_fetch::region::Region;
use oci_delta_fetch::{Error, Kind, Result};

fn region(bytes: &[u8]) -> Region {
    let bytes: Box<[u8]> = bytes.into();
    let len = bytes.len() as u64;
    Region::of(Arc::new(bytes), len)
}

/// Some text, which no two stretches of are alike.
fn text(len: usize) -> Vec<u8> {
    let mut seed = 7u32;
    let mut words = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!(
            "{} {:x}, ",
            ["members", "of an", "archive", "call\0\0\x7f"][(seed >> 30) as usize],
            seed >> 19
        )
    });
    let mut text = Vec::new();
    while text.len() < len {
        text.extend(words.next().unwrap().bytes());
    }
    text.truncate(len);
    text
}

/// What a program makes of its input.
fn tool(command: &str, input: &[u8]) -> Vec<u8> {
    let words: Vec<&str> = command.split(' ').collect();
    run(Command::new(words[0]).args(&words[1..]), input)
}

fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("make test-tools");
    let mut stdin = child.stdin.take().unwrap();
    let mut output = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    });
    assert!(child.wait().unwrap().success(), "{command:?}");
    output
}

fn find_in(content: &[u8]) -> Vec<Member> {
    find(&region(content), &Limits::default(), &Cancel::default()).unwrap()
}

fn opened(stretch: &[u8], coding: Coding) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    open(&region(stretch), coding, &mut out, 1 << 30).map(|len| assert_eq!(len, out.len() as u64))?;
    Ok(out)
}

fn found(stretch: &[u8], plain: &[u8], coding: Coding) -> Option<Recipe> {
    let threads = NonZeroUsize::new(2).unwrap();
    recipe(&region(stretch), &region(plain), coding, threads, &Cancel::default()).unwrap()
}

fn made(recipe: &Recipe, packed: usize, plain: &[u8], threads: usize) -> Result<Vec<u8>> {
    let sizes = Sizes { packed: packed as u64, plain: plain.len() as u64 };
    let mut encoder = Encoder::new(recipe, sizes, NonZeroUsize::new(threads).unwrap(), Vec::new())?;
    // It may go to another thread.
    let rest = std::thread::scope(|scope| {
        let fill = move || {
            for piece in plain.chunks(10_001) {
                encoder.write_all(piece).map_err(|e| Error::from_io(e, "a write"))?;
            }
            Ok(encoder)
        };
        scope.spawn(fill).join().unwrap()
    });
    rest?.finish()
}

/// A member goes all the way, there and back.
fn goes_around(stretch: &[u8], plain: &[u8], coding: Coding, what: &str) -> Recipe {
    assert!(opened(stretch, coding).unwrap() == plain, "{what}");
    let recipe = found(stretch, plain, coding).unwrap_or_else(|| panic!("no recipe of {what}"));
    assert_eq!(recipe.coding(), coding);
    assert!(recipe.to_string().len() <= 400);
    assert_eq!(recipe.to_string().parse(), Ok(recipe.clone()), "{what}");
    for threads in [1, 2] {
        assert!(made(&recipe, stretch.len(), plain, threads).unwrap() == stretch, "{what}: {recipe}");
    }
    recipe
}

#[test]
fn streams_of_the_usual_programs_are_made_again() {
    let plain = text(150_000);
    for (command, coding, said) in [
        ("gzip -9n", Coding::Gzip, r#""enc":"gnu-gzip","fam":"1","lvl":9"#),
        ("gzip -n", Coding::Gzip, r#""lvl":6"#),
        ("bzip2 -1", Coding::Bzip2, r#""lvl":1"#),
        ("xz -T1", Coding::Xz, r#""check":4,"filters":"210116","props":93,"preset":"6"}"#),
        ("xz -T1 -0", Coding::Xz, r#""preset":"0""#),
        ("xz -T1 -5e", Coding::Xz, r#""preset":"3e""#),
        ("xz -T1 --lzma2=preset=2,lc=0,lp=2,pb=0", Coding::Xz, r#""props":18,"preset":"2""#),
        ("xz -T1 --check=crc32 --lzma2=dict=1MiB", Coding::Xz, r#""check":1,"filters":"210110""#),
        ("xz -T1 --check=crc32 --x86 --lzma2=dict=2MiB", Coding::Xz, r#""filters":"0400210112""#),
        ("xz -T1 --check=none --arm64=start=4096 --lzma2", Coding::Xz, r#""filters":"0a0400100000210116""#),
        ("xz --format=lzma", Coding::Lzma, r#"{"v":1,"wrap":"lzma","dict":8388608,"props":93,"preset":"6"}"#),
        ("xz --format=lzma -9e", Coding::Lzma, r#""dict":67108864,"props":93,"preset":"6e""#),
        (
            "xz --format=lzma --lzma1=preset=2,dict=3MiB",
            Coding::Lzma,
            r#""dict":3145728,"props":93,"preset":"2""#,
        ),
        ("xz -T2", Coding::Xz, r#""preset":"6","block":25165824"#),
    ] {
        let stretch = tool(command, &plain);
        let whole = Member { range: 0..stretch.len() as u64, coding };
        assert_eq!(find_in(&stretch), [whole], "{command}");
        let recipe = goes_around(&stretch, &plain, coding, command).to_string();
        assert!(recipe.contains(said), "{command}: {recipe}");
    }
    let zstd = zstd::bulk::compress(&plain, 19).unwrap();
    assert_eq!(find_in(&zstd)[0].coding, Coding::Zstd);
    goes_around(&zstd, &plain, Coding::Zstd, "zstd -19");
    let nothing = tool("xz", b"");
    assert_eq!(opened(&nothing, Coding::Xz).unwrap(), b"");
    assert_eq!(found(&nothing, b"", Coding::Xz), None);
}

#[test]
fn blocks_of_threads_are_made_again() {
    let plain = text(2_300_000);
    let stretch = tool("xz -0 -T2 --block-size=1MiB", &plain);
    let recipe = goes_around(&stretch, &plain, Coding::Xz, "blocks").to_string();
    assert!(recipe.contains(r#""preset":"0","block":1048576"#), "{recipe}");
}

#[test]
fn members_with_one_encoder_share_one_recipe() {
    let mut recipes = Vec::new();
    for len in [20_000, 20_001, 70_000] {
        let plain = text(len);
        let packed =
            [tool("gzip -9n", &plain), zstd::bulk::compress(&plain, 3).unwrap(), tool("xz -T1", &plain)];
        let codings = [Coding::Gzip, Coding::Zstd, Coding::Xz];
        let each = packed.iter().zip(codings);
        recipes.push(each.map(|(packed, coding)| found(packed, &plain, coding).unwrap()).collect::<Vec<_>>());
    }
    assert!(recipes.iter().all(|each| *each == recipes[0]), "{recipes:?}");
}

/// Packs its input twice, and stores it once; unless told otherwise, sizes stand behind entries alone, since a pipe has
/// no way back.
const ZIP: &str = "
import io, sys, zipfile
plain = sys.stdin.buffer.read()
out = io.BytesIO() if sys.argv[1] == 'file' else sys.stdout.buffer
with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.comment = b'PK\\5\\6 is no end'
    archive.writestr('a/first', plain)
    archive.writestr('stored', plain, zipfile.ZIP_STORED)
    archive.writestr('empty', b'')
    with archive.open('second', 'w') as entry:
        entry.write(plain[::-1])
if sys.argv[1] == 'file':
    sys.stdout.buffer.write(out.getvalue())
";

fn zip(plain: &[u8], kind: &str) -> Vec<u8> {
    run(Command::new("python3").args(["-c", ZIP, kind]), plain)
}

#[test]
fn entries_of_zip_archives_are_made_again() {
    let plain = text(30_000);
    let reversed: Vec<u8> = plain.iter().rev().copied().collect();
    for kind in ["file", "pipe"] {
        let archive = zip(&plain, kind);
        let members = find_in(&archive);
        assert_eq!(members.len(), 2, "{kind}");
        for (member, plain) in members.iter().zip([&plain, &reversed]) {
            let stretch = &archive[member.range.start as usize..member.range.end as usize];
            let recipe = goes_around(stretch, plain, member.coding, kind).to_string();
            assert!(recipe.contains(r#""enc":"zlib","fam":"1","lvl":6"#), "{recipe}");
        }
        let one = Limits { members: 1, ..Limits::default() };
        assert_eq!(find(&region(&archive), &one, &Cancel::default()).unwrap(), members[..1]);
    }
}

#[test]
fn archives_that_lie_have_fewer_members() {
    let archive = zip(&text(3000), "file");
    let places = |magic: &[u8]| -> Vec<usize> {
        (0..archive.len() - 4).filter(|at| archive[*at..].starts_with(magic)).collect()
    };
    let (central, end) = (places(b"PK\x01\x02"), *places(b"PK\x05\x06").first().unwrap());
    let with = |at: usize, bytes: &[u8]| {
        let mut lie = archive.clone();
        lie[at..at + bytes.len()].copy_from_slice(bytes);
        find_in(&lie).len()
    };
    assert_eq!(with(0, b"PK"), 2);
    let first = archive[central[0] + 42..central[0] + 46].to_vec();
    for (what, members, expected) in [
        ("the second is the first", with(central[3] + 42, &first), 1),
        ("it reaches the directory", with(central[3] + 20, &[0xff, 0xff, 0, 0]), 1),
        ("it is behind the end", with(central[3] + 42, &[0xff; 4]), 1),
        ("it is encrypted", with(central[0] + 8, &[1]), 1),
        ("no header is there", with(central[0] + 42, &[3]), 1),
        ("the directory is cut", with(central[1] + 28, &[0xff, 0xff]), 1),
        ("the directory is behind the end", with(end + 16, &[0xff; 4]), 0),
        ("the directory is huge", with(end + 12, &[0xff; 4]), 0),
        ("the end is not at the end", with(end + 20, &[0xff]), 0),
    ] {
        assert_eq!(members, expected, "{what}");
    }
    // The number of entries is not believed.
    assert_eq!(with(end + 8, &[0xff; 4]), 2);
}

#[test]
fn streams_in_the_middle_of_a_kernel_are_found() {
    let plain = text(40_000);
    let commands = ["xz -T1 --check=crc32 --x86 --lzma2=dict=1MiB", "gzip -9n", "xz --format=lzma -9"];
    let parts = commands.map(|command| tool(command, &plain));
    let mut kernel = b"MZ\x1f\x8b\x08\0 no stream, \x28\xb5\x2f\xfd nor here".to_vec();
    kernel.resize(300_000, 0x1f);
    let mut expected = Vec::new();
    for (part, coding) in parts.iter().zip([Coding::Xz, Coding::Gzip, Coding::Lzma]) {
        let start = kernel.len() as u64;
        expected.push(Member { range: start..start + part.len() as u64, coding });
        kernel.extend(part);
        kernel.extend(b"\xfd7zXZ\0 is no stream");
    }
    assert_eq!(find_in(&kernel), expected);
    let other = [b"no kernel ", &kernel[..]].concat();
    assert_eq!(find_in(&other), []);
    let mut bios = vec![0; 1024];
    bios[0x202..0x206].copy_from_slice(b"HdrS");
    bios.extend(&parts[0]);
    assert_eq!(find_in(&bios)[0].range.start, 1024);
}

#[test]
fn damaged_streams_are_errors() {
    let plain = text(9000);
    let zstd = zstd::bulk::compress(&plain, 3).unwrap();
    let zip = zip(&plain, "file");
    let deflate = &zip[find_in(&zip)[0].range.start as usize..find_in(&zip)[0].range.end as usize];
    for (stretch, coding) in [
        (tool("gzip -n", &plain), Coding::Gzip),
        (tool("xz", &plain), Coding::Xz),
        (tool("bzip2", &plain), Coding::Bzip2),
        (tool("xz --format=lzma", &plain), Coding::Lzma),
        (zstd, Coding::Zstd),
        (deflate.to_vec(), Coding::Deflate),
    ] {
        assert_eq!(opened(&stretch, coding).unwrap(), plain);
        for cut in (0..stretch.len()).step_by(301) {
            assert_eq!(
                opened(&stretch[..cut], coding).unwrap_err().kind(),
                Kind::Verification,
                "{coding} {cut}"
            );
        }
        let longer = [&stretch[..], b"x"].concat();
        assert!(opened(&longer, coding).unwrap_err().to_string().contains("1 bytes behind the end"));
        let mut out = Vec::new();
        let error = open(&region(&stretch), coding, &mut out, 8999).unwrap_err();
        assert!(error.to_string().contains("more than 8999 bytes"), "{error}");
        assert!(out.len() < 9000);
        // What is another member's has no recipe.
        assert_eq!(found(&stretch, &plain[1..], coding), None, "{coding}");
    }
}

#[test]
fn bombs_go_off_at_the_limit() {
    let bomb = tool("gzip -9n", &vec![0; 32 << 20]);
    assert!(bomb.len() < 40_000);
    let mut out = Vec::new();
    assert!(open(&region(&bomb), Coding::Gzip, &mut out, 1 << 20).is_err());
    assert!(out.len() <= 1 << 20);
    // A dictionary of 4 GiB, with the checksum of the header.
    let mut large = tool("xz -T1", b"abc");
    large[16] = 40;
    let crc = crc(&large[12..20]);
    large[20..24].copy_from_slice(&crc.to_le_bytes());
    assert!(opened(&large, Coding::Xz).unwrap_err().to_string().contains("136 MiB of memory"));
    assert_eq!(found(&large, b"abc", Coding::Xz), None);
    // A window of 16 MiB.
    let window = [b"\x28\xb5\x2f\xfd\0\x70" as &[u8], &[1, 0, 0]].concat();
    assert!(opened(&window, Coding::Zstd).unwrap_err().to_string().contains("memory"));
}

/// That of xz's headers.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[test]
fn recipes_that_ask_too_much_are_refused() {
    let xz = |rest: &str| format!(r#"{{"v":1,"wrap":"xz","check":1,"preset":"6","filters":{rest}}}"#);
    let good = xz(r#""210116""#).parse::<Recipe>().unwrap();
    assert_eq!(xz(r#""210116","props":93,"block":0,"more":7"#).parse(), Ok(good));
    for (text, why) in [
        (xz(r#""210128""#), "filters"),
        (xz(r#""2101ff""#), "filters"),
        (xz(r#""0400""#), "filters"),
        (xz(r#""0900210116""#), "filters"),
        (xz(r#""040004000400040021016""#), "filters"),
        (xz(r#""04000400040004002101""#), "filters"),
        (xz(r#""21011600""#), "filters"),
        (xz(r#""210116","props":225"#), "properties"),
        (xz(r#""210116","props":17"#), "properties"),
        (xz(r#""210116","block":1"#), "blocks of 1 bytes"),
        (xz(r#""210116","block":9999999999"#), "blocks"),
        (xz("7"), "makes no sense"),
        (r#"{"v":1,"wrap":"xz","check":2,"preset":"6","filters":"210116"}"#.into(), "check 2"),
        (r#"{"v":1,"wrap":"xz","check":1,"preset":"9","filters":"210116"}"#.into(), "preset"),
        (r#"{"v":2,"wrap":"xz"}"#.into(), "version 2"),
        (r#"{"v":1,"wrap":"bzip2","lvl":10}"#.into(), "level 10"),
        (r#"{"v":1,"wrap":"lzma","preset":"6"}"#.into(), "dict"),
        (r#"{"v":1,"wrap":"lzma","dict":4095,"preset":"6"}"#.into(), "dictionary of 4095 bytes"),
        (r#"{"v":1,"wrap":"lzma","dict":1073741824,"preset":"6"}"#.into(), "dictionary"),
        (r#"{"v":1,"wrap":"lzma","dict":65536,"props":225,"preset":"6"}"#.into(), "properties 225"),
        (r#"{"v":1,"wrap":"lzma","dict":65536,"preset":"7"}"#.into(), "preset"),
        (r#"{"v":1,"wrap":"lzip"}"#.into(), "size"),
        (format!("{:5000}", ""), "5000"),
        (
            format!(
                r#"{{"v":1,"size":0,"wrap":"raw","enc":"tokens","fam":"1","lvl":0,"frame":{{"kind":"stream"}},"fix":"sha256:{:064}"}}"#,
                0
            ),
            "corrections",
        ),
    ] {
        let error = text.parse::<Recipe>().unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
    // What it takes depends on what is in the member.
    let large: Recipe = xz(r#""21011d""#).parse().unwrap();
    let sizes = |plain| Sizes { packed: 1 << 30, plain };
    let new = |plain| Encoder::new(&large, sizes(plain), NonZeroUsize::MIN, Vec::new());
    new(1 << 20).unwrap();
    assert!(new(1 << 30).unwrap_err().to_string().contains("memory"), "{}", large.memory(sizes(1 << 30)));
}

#[test]
fn a_member_has_the_size_that_was_said() {
    let plain = text(5000);
    for (stretch, coding) in [
        (tool("gzip -n", &plain), Coding::Gzip),
        (tool("xz -T1", &plain), Coding::Xz),
        (tool("bzip2", &plain), Coding::Bzip2),
        (tool("xz --format=lzma", &plain), Coding::Lzma),
    ] {
        let recipe = found(&stretch, &plain, coding).unwrap();
        let with = |packed: usize, plain_len: u64| {
            let sizes = Sizes { packed: packed as u64, plain: plain_len };
            let mut encoder = Encoder::new(&recipe, sizes, NonZeroUsize::MIN, Vec::new()).unwrap();
            match encoder.write_all(&plain) {
                Ok(()) => encoder.finish(),
                Err(e) => Err(Error::from_io(e, "a write")),
            }
        };
        let len = stretch.len();
        assert_eq!(with(len, 5000).unwrap(), stretch);
        for (packed, plain) in [(len - 1, 5000), (len + 1, 5000), (len, 4999), (len, 5001)] {
            assert_eq!(
                with(packed, plain).unwrap_err().kind(),
                Kind::Verification,
                "{coding} {packed} {plain}"
            );
        }
    }
}

#[test]
fn numbers_of_codings_stay() {
    let names: Vec<String> =
        (0..=255).filter_map(Coding::from_number).map(|c| format!("{} {c}", c.number())).collect();
    assert_eq!(names, ["1 gzip", "2 deflate", "3 xz", "4 zstd", "5 bzip2", "6 lzma"]);
}
