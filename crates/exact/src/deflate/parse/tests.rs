use proptest::prelude::*;

use super::*;
use crate::deflate::bits::BitWriter;
use crate::deflate::block::{fixed_codes, write_end_of_block, write_tokens};
use crate::deflate::go::testing::mixed;
use crate::deflate::go::{self, Level};
use std::num::NonZeroUsize;

/// The plain bytes of a stream fed in pieces, and its blocks.
fn replay(stream: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<BlockHead>), ParseError> {
    let mut parser = Parser::new();
    let (mut plain, mut blocks) = (Vec::new(), Vec::new());
    let mut pieces = stream.chunks(piece.max(1));
    loop {
        match parser.step()? {
            Step::NeedsInput => match pieces.next() {
                Some(piece) => parser.feed(piece),
                None => return Ok((plain, blocks)),
            },
            Step::Block(head) => {
                assert_eq!(head.plain_position, plain.len() as u64);
                blocks.push(head);
            }
            Step::Tokens(tokens) => tokens.iter().for_each(|token| apply(*token, &mut plain)),
            Step::Stored(bytes) => plain.extend_from_slice(bytes),
            Step::BlockEnd { plain_position, .. } => assert_eq!(plain_position, plain.len() as u64),
            Step::End => return Ok((plain, blocks)),
        }
    }
}

fn apply(token: Token, plain: &mut Vec<u8>) {
    if !token.is_match() {
        return plain.push(token.byte());
    }
    for _ in 0..token.plain_len() {
        plain.push(plain[plain.len() - token.distance()]);
    }
}

fn encoded(level: i32, plain: &[u8]) -> Vec<u8> {
    let mut encoder = go::encoder(Level::new(level).unwrap(), NonZeroUsize::MIN);
    let mut out = Vec::new();
    encoder.push(plain, &mut out);
    encoder.finish(&mut out);
    out
}

#[test]
fn streams_of_all_levels_come_back() {
    let plain = mixed(11, 300_000);
    for level in -2..=9 {
        let stream = encoded(level, &plain);
        for piece in [1, 1000, stream.len()] {
            let (back, blocks) = replay(&stream, piece).unwrap();
            assert!(back == plain, "level {level}, pieces of {piece}");
            assert!(blocks.iter().rev().skip(1).all(|block| !block.is_final));
            assert_eq!(blocks.last().unwrap().kind, BlockKind::Stored { length: 0, padding: 0 });
        }
    }
}

#[test]
fn the_rest_is_what_follows_the_stream() {
    let mut stream = encoded(6, b"hello hello hello");
    let end = stream.len();
    stream.extend_from_slice(b"trailer");
    let mut parser = Parser::new();
    parser.feed(&stream);
    while parser.step().unwrap() != Step::End {}
    assert_eq!(parser.rest(), b"trailer");
    assert_eq!(parser.bit_position(), 8 * end as u64);
}

#[test]
fn the_long_form_of_258_is_told_apart() {
    let (litlen, distance) = fixed_codes();
    let tokens = [Token::literal(7), Token::copy_258_long_form(1), Token::copy(258, 1), Token::copy(257, 2)];
    let (mut bits, mut out) = (BitWriter::new(), Vec::new());
    bits.put(&mut out, 3, 3);
    write_tokens(&mut bits, &mut out, &tokens, &litlen, &distance);
    write_end_of_block(&mut bits, &mut out, &litlen);
    bits.align(&mut out);
    let mut parser = Parser::new();
    parser.feed(&out);
    assert!(matches!(parser.step(), Ok(Step::Block(_))));
    assert_eq!(parser.step(), Ok(Step::Tokens(&tokens)));
    assert!(matches!(parser.step(), Ok(Step::BlockEnd { plain_position: 774, .. })));
    assert_eq!(parser.step(), Ok(Step::End));
}

#[test]
fn what_is_no_deflate_fails() {
    let fails = |stream: &[u8]| replay(stream, 1).unwrap_err();
    assert_eq!(fails(&[0b111]), ParseError::BlockType);
    assert_eq!(fails(&[1, 1, 0, 0, 0]), ParseError::StoredLength);
    // With the fixed codes: a match of 3 bytes at the start; the symbols 286; a match with distance symbol 30.
    assert_eq!(fails(&[0b011, 0x02, 0, 0]), ParseError::Distance);
    assert_eq!(fails(&[0b011 | 0b0_0011 << 3, 0b011, 0, 0]), ParseError::NoSuchCode);
    assert_eq!(fails(&[0b011, 0b0011_1110, 0, 0]), ParseError::NoSuchCode);
    assert_eq!(fails(&[0b1111_1101, 0xff, 0xff, 0xff]), ParseError::SymbolCount);
    let mut parser = Parser::new();
    parser.feed(&[0b111]);
    assert_eq!(parser.step(), Err(ParseError::BlockType));
    assert_eq!(parser.step(), Err(ParseError::BlockType));
}

proptest! {
    #[test]
    fn any_bytes_come_back(
        level in -2i32..=9,
        piece in 1usize..5000,
        parts in prop::collection::vec((prop::collection::vec(0u8..5, 1..40), 1usize..200), 0..40),
    ) {
        let plain: Vec<u8> = parts.iter().flat_map(|(part, n)| part.repeat(*n)).collect();
        let (back, _) = replay(&encoded(level, &plain), piece).unwrap();
        prop_assert!(back == plain);
    }

    #[test]
    fn no_stream_makes_it_panic(stream in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..100) {
        let whole = replay(&stream, stream.len());
        prop_assert_eq!(whole, replay(&stream, piece));
    }

    #[test]
    fn no_damage_makes_it_panic(at in 0usize..2000, value in any::<u8>(), level in -2i32..=9) {
        let mut stream = encoded(level, &mixed(3, 9000));
        let at = at % stream.len();
        stream[at] = value;
        let _ = replay(&stream, 700);
    }
}
