//! What the kernel believes of a program's file. The parser is the kernel's own, tried on the host.

#[path = "../../kernel/src/program/elf.rs"]
pub mod elf;

use std::ops::Range;

use elf::{BadImage, Image, Segment};
use proptest::prelude::*;

const PAGE: u64 = 4096;
const ALLOWED: Range<u64> = 0x1_0000..0x0000_7fff_ff00_0000;

const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;

/// A program header as it stands in the file.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
}

impl Header {
    /// Two pages of text at 0x401000, from the file's second page on.
    const TEXT: Self = Self {
        kind: PT_LOAD,
        flags: PF_R | PF_X,
        offset: 0x1010,
        address: 0x40_1010,
        file_bytes: 0x1800,
        memory_bytes: 0x1800,
    };
    /// Data that ends within a page, and zeros behind it.
    const DATA: Self = Self {
        kind: PT_LOAD,
        flags: PF_R | PF_W,
        offset: 0x2810,
        address: 0x40_3810,
        file_bytes: 0x100,
        memory_bytes: 0x5000,
    };
    const ZEROS: Self =
        Self { offset: 0, address: 0x50_0000, file_bytes: 0, memory_bytes: 0x3000, ..Self::DATA };
}

/// A file of 16 KiB with these program headers, which is a good one as far as they are.
struct File {
    bytes: Vec<u8>,
}

impl File {
    fn new(headers: &[Header]) -> Self {
        let mut file = Self { bytes: vec![0xa5; 0x4000] };
        file.put(0, b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        file.put(16, &2_u16.to_le_bytes()); // ET_EXEC
        file.put(18, &62_u16.to_le_bytes()); // EM_X86_64
        file.put(20, &1_u32.to_le_bytes());
        file.put(24, &0x40_1020_u64.to_le_bytes()); // entry
        file.put(32, &64_u64.to_le_bytes()); // program headers
        file.put(40, &0_u64.to_le_bytes()); // no section headers
        file.put(48, &0_u32.to_le_bytes());
        file.put(52, &64_u16.to_le_bytes());
        file.put(54, &56_u16.to_le_bytes());
        file.put(56, &(headers.len() as u16).to_le_bytes());
        file.put(58, &[0; 6]);
        for (index, header) in headers.iter().enumerate() {
            let at = 64 + index * 56;
            file.put(at, &header.kind.to_le_bytes());
            file.put(at + 4, &header.flags.to_le_bytes());
            let words =
                [header.offset, header.address, header.address, header.file_bytes, header.memory_bytes, PAGE];
            for (word, value) in words.into_iter().enumerate() {
                file.put(at + 8 + word * 8, &value.to_le_bytes());
            }
        }
        file
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self
    }

    fn parse(&self) -> Result<Vec<Segment>, BadImage> {
        Image::parse(&self.bytes, &ALLOWED).map(|image| image.segments().to_vec())
    }
}

fn refusal(headers: &[Header]) -> BadImage {
    File::new(headers).parse().expect_err("a bad file")
}

#[test]
fn a_good_file_becomes_whole_pages() {
    let file = File::new(&[Header::TEXT, Header::DATA, Header::ZEROS]);
    let image = Image::parse(&file.bytes, &ALLOWED).unwrap();
    assert_eq!(image.entry(), 0x40_1020);
    let [text, data, zeros] = image.segments() else { panic!("{image:?}") };
    let expected = Segment {
        start: 0x40_1000,
        pages: 2,
        file_offset: 0x1000,
        file_bytes: 0x1810,
        zeros: false,
        read: true,
        write: false,
        execute: true,
    };
    assert_eq!(*text, expected);
    let expected = Segment {
        start: 0x40_3000,
        pages: 6,
        file_offset: 0x2000,
        file_bytes: 0x910,
        zeros: true,
        write: true,
        execute: false,
        ..expected
    };
    assert_eq!(*data, expected);
    assert_eq!((zeros.start, zeros.pages, zeros.file_bytes), (0x50_0000, 3, 0));
}

#[test]
fn what_is_no_elf_file_is_refused() {
    assert_eq!(Image::parse(b"", &ALLOWED).unwrap_err(), BadImage::NotElf);
    assert_eq!(Image::parse(b"\x7fELF\x02\x01\x01", &ALLOWED).unwrap_err(), BadImage::NotElf);
    assert_eq!(Image::parse(b"#!/bin/sh\necho a script\n", &ALLOWED).unwrap_err(), BadImage::NotElf);
    assert_eq!(File::new(&[Header::TEXT]).with(0, b"\x7fELG").parse(), Err(BadImage::NotElf));
    assert_eq!(File::new(&[Header::TEXT]).with(54, &55_u16.to_le_bytes()).parse(), Err(BadImage::NotElf));
    for beyond in [0x4000_u64, 0x3ff8, u64::MAX, u64::MAX - 55] {
        let file = File::new(&[Header::TEXT]).with(32, &beyond.to_le_bytes());
        assert_eq!(file.parse(), Err(BadImage::NotElf), "headers at {beyond:#x}");
    }
}

#[test]
fn a_file_for_another_machine_is_refused() {
    let good = || File::new(&[Header::TEXT]);
    assert_eq!(good().with(18, &183_u16.to_le_bytes()).parse(), Err(BadImage::WrongMachine));
    assert_eq!(good().with(4, &[1]).parse(), Err(BadImage::WrongMachine));
    assert_eq!(good().with(5, &[2]).parse(), Err(BadImage::WrongMachine));
}

#[test]
fn only_static_programs_are_taken() {
    for kind in [0_u16, 1, 3, 4, 0xffff] {
        let file = File::new(&[Header::TEXT]).with(16, &kind.to_le_bytes());
        assert_eq!(file.parse(), Err(BadImage::NotStatic), "kind {kind}");
    }
    assert_eq!(refusal(&[Header::TEXT, Header { kind: PT_INTERP, ..Header::DATA }]), BadImage::NotStatic);
}

#[test]
fn a_file_without_segments_is_refused() {
    assert_eq!(refusal(&[]), BadImage::NoSegments);
    let nothing = Header { file_bytes: 0, memory_bytes: 0, ..Header::TEXT };
    assert_eq!(refusal(&[nothing]), BadImage::NoSegments);
    assert_eq!(File::new(&[Header::TEXT]).with(32, &[0; 8]).parse(), Err(BadImage::NoSegments));
}

#[test]
fn a_file_with_too_many_segments_is_refused() {
    let many = |count: u64| -> Vec<Header> {
        (0..count).map(|index| Header { address: 0x60_0000 + index * 0x3000, ..Header::ZEROS }).collect()
    };
    let with_text = |count| [many(count), vec![Header::TEXT]].concat();
    assert_eq!(File::new(&with_text(15)).parse().map(|segments| segments.len()), Ok(16));
    assert_eq!(refusal(&with_text(16)), BadImage::TooManySegments);
    assert_eq!(refusal(&[Header { kind: 0, ..Header::TEXT }; 65]), BadImage::TooManySegments);
}

#[test]
fn a_segment_has_only_bytes_that_the_file_has() {
    let ends_with_file = Header { offset: 0x2810, file_bytes: 0x17f0, ..Header::DATA };
    assert!(File::new(&[Header::TEXT, ends_with_file]).parse().is_ok());
    for (offset, file_bytes) in
        [(0x2810, 0x17f1), (0x4810, 0x100), (u64::MAX - 0x7ef, 0x100), (0x2810, 0x2000)]
    {
        let beyond = Header { offset, file_bytes, ..Header::DATA };
        assert_eq!(refusal(&[Header::TEXT, beyond]), BadImage::BeyondFile, "{beyond:x?}");
    }
}

#[test]
fn a_segment_is_not_larger_in_the_file_than_in_memory() {
    let shrinks = Header { file_bytes: 0x100, memory_bytes: 0xff, ..Header::DATA };
    assert_eq!(refusal(&[Header::TEXT, shrinks]), BadImage::TooFewBytes);
    let vanishes = Header { memory_bytes: 0, ..Header::DATA };
    assert_eq!(refusal(&[Header::TEXT, vanishes]), BadImage::TooFewBytes);
}

#[test]
fn a_segment_stands_in_the_file_as_it_does_in_memory() {
    assert_eq!(refusal(&[Header::TEXT, Header { offset: 0x2811, ..Header::DATA }]), BadImage::Unaligned);
    // Nothing comes from the file, so it does not matter where.
    assert!(File::new(&[Header::TEXT, Header { offset: u64::MAX, ..Header::ZEROS }]).parse().is_ok());
}

#[test]
fn a_segment_lies_where_programs_may_be() {
    let refused = [
        (0, 0x1000),
        (0xf000, 0x2000),
        (0xffff, 1),
        (ALLOWED.end - 0x1000, 0x1001),
        (ALLOWED.end, 1),
        (0x0000_8000_0000_0000, 0x1000),
        (0xffff_8000_0000_0000, 0x1000),
        (0xffff_ffff_8000_0000, 0x1000),
        (0xffff_ffff_ffff_f000, 0x1000),
        (0x50_0000, u64::MAX),
        (0x50_0000, u64::MAX - 0x50_0000 + 1),
        (0x50_0000, 1 << 62),
    ];
    for (address, memory_bytes) in refused {
        let header = Header { address, memory_bytes, ..Header::ZEROS };
        assert_eq!(refusal(&[Header::TEXT, header]), BadImage::OutOfRange, "{header:x?}");
    }
    // Huge is not bad: what is never touched costs nothing.
    let huge = Header { memory_bytes: ALLOWED.end - 0x50_0000, ..Header::ZEROS };
    assert!(File::new(&[Header::TEXT, huge]).parse().is_ok());
}

#[test]
fn no_two_segments_share_a_page() {
    let first = Header::ZEROS;
    for (address, memory_bytes) in [
        (first.address, 1),
        (first.address - 0x800, 0x801),
        (first.address + 0x2fff, 1),
        (0x40_0000, 0x20_0000),
    ] {
        let second = Header { address, memory_bytes, ..first };
        assert_eq!(refusal(&[first, second]), BadImage::Overlap, "{second:x?}");
        assert_eq!(refusal(&[second, first]), BadImage::Overlap, "{second:x?}");
    }
    let beside = Header { address: first.address + 0x3000, ..first };
    assert!(File::new(&[Header::TEXT, first, beside]).parse().is_ok());
    // Different bytes of one page overlap as well: the page can have one set of rights only.
    let same_page = Header { memory_bytes: 0x2800, ..first };
    let behind = Header { address: first.address + 0x2800, ..first };
    assert_eq!(refusal(&[Header::TEXT, same_page, behind]), BadImage::Overlap);
}

#[test]
fn the_first_instruction_is_in_the_text() {
    for entry in [0, 0x40_0fff, 0x40_3000, 0x40_3820, 0x50_0000, u64::MAX, 0xffff_8000_0000_0000] {
        let file = File::new(&[Header::TEXT, Header::DATA, Header::ZEROS]).with(24, &entry.to_le_bytes());
        assert_eq!(file.parse(), Err(BadImage::BadEntry), "entry {entry:#x}");
    }
}

#[test]
fn every_refusal_is_a_sentence_of_its_own() {
    let all = [
        BadImage::NotElf,
        BadImage::WrongMachine,
        BadImage::NotStatic,
        BadImage::TooManySegments,
        BadImage::NoSegments,
        BadImage::BeyondFile,
        BadImage::TooFewBytes,
        BadImage::Unaligned,
        BadImage::OutOfRange,
        BadImage::Overlap,
        BadImage::BadEntry,
    ];
    let mut sentences: Vec<String> = all.iter().map(BadImage::to_string).collect();
    sentences.sort();
    sentences.dedup();
    assert_eq!(sentences.len(), all.len());
}

/// What the rest of the kernel relies on.
fn check(file: &[u8]) {
    let Ok(image) = Image::parse(file, &ALLOWED) else { return };
    let segments = image.segments();
    assert!(!segments.is_empty());
    assert!(segments.iter().any(|s| s.execute && (s.start..s.end()).contains(&image.entry())));
    for (index, segment) in segments.iter().enumerate() {
        assert!(segment.pages > 0 && segment.start % PAGE == 0);
        assert!(segment.start >= ALLOWED.start && segment.end() <= ALLOWED.end);
        assert!(segment.file_bytes <= segment.pages * PAGE);
        if segment.file_bytes > 0 {
            assert_eq!(segment.file_offset % PAGE, 0);
            assert!(segment.file_offset + segment.file_bytes <= file.len() as u64);
        }
        let others = &segments[..index];
        assert!(others.iter().all(|other| segment.end() <= other.start || other.end() <= segment.start));
    }
}

/// Numbers that matter: small ones, those around the limits, and any.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..0x8000_u64,
        (0x40_0000..0x60_0000_u64),
        any::<u64>(),
        (0..0x2000_u64).prop_map(|below| u64::MAX - below),
        (0..0x2000_u64).prop_map(|offset| ALLOWED.end - 0x1000 + offset),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    (any::<bool>(), 0..8_u32, [number(), number(), number(), number()], any::<bool>()).prop_map(
        |(load, flags, [offset, address, file_bytes, memory_bytes], aligned)| Header {
            kind: if load { PT_LOAD } else { 6 },
            flags,
            offset,
            address: if aligned { (address & !(PAGE - 1)) | (offset % PAGE) } else { address },
            file_bytes,
            memory_bytes,
        },
    )
}

proptest! {
    #[test]
    fn whatever_headers_say_a_parsed_image_keeps_its_promises(
        mut headers in prop::collection::vec(header(), 0..6),
        with_text in any::<bool>(),
        entry in prop_oneof![Just(0x40_1020), number()],
    ) {
        if with_text {
            headers.push(Header::TEXT);
        }
        check(&File::new(&headers).with(24, &entry.to_le_bytes()).bytes);
    }

    #[test]
    fn damaged_files_do_no_harm(
        damage in prop::collection::vec((0..300_usize, any::<u8>()), 1..8),
        length in prop_oneof![Just(0x4000_usize), 0..0x4000_usize],
    ) {
        let mut file = File::new(&[Header::TEXT, Header::DATA, Header::ZEROS]);
        for (at, byte) in damage {
            file.put(at, &[byte]);
        }
        file.bytes.truncate(length);
        check(&file.bytes);
    }
}
