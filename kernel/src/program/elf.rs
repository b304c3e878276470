//! What a program's file says of itself, checked.
//!
//! Everything in the file is an allegation. [`Image::parse`] turns it into ranges of whole pages that lie
//! where a program may be, do not overlap, and show only bytes that the file has; who maps an image has
//! nothing left to check. Nothing here knows the kernel, so that it can be tried on the host.

use core::{fmt, ops::Range};

use elf::{
    ElfBytes, ParseError,
    abi::{EI_NIDENT, EM_X86_64, ET_EXEC, PF_R, PF_W, PF_X, PT_INTERP, PT_LOAD},
    endian::LittleEndian,
    file::{Class, parse_ident},
    segment::ProgramHeader,
};

/// Bytes in a page.
const PAGE: u64 = 4096;
/// A program has at most this many segments that are loaded.
const MAX_SEGMENTS: usize = 16;
/// And at most this many program headers of all kinds.
const MAX_HEADERS: u16 = 64;

/// What to map, and where to begin. Owns nothing, so a thread that is ended while it makes one loses nothing.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    entry: u64,
    segments: [Segment; MAX_SEGMENTS],
    count: usize,
}

/// Whole pages of a program, all with the same rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The address of the first page.
    pub start: u64,
    /// How many pages there are, at least 1.
    pub pages: u64,
    /// Where in the file the first page's bytes begin; a multiple of the page size. Meaningless when
    /// `file_bytes` is 0.
    pub file_offset: u64,
    /// How many bytes, from the first page's first byte on, come from the file. The rest is zeros when
    /// `zeros` says so, and else of no importance.
    pub file_bytes: u64,
    /// Whether the program asks for zeros behind the bytes from the file.
    pub zeros: bool,
    /// Whether the program may read here.
    pub read: bool,
    /// Whether the program may write here.
    pub write: bool,
    /// Whether the program may execute what is here.
    pub execute: bool,
}

impl Segment {
    /// The address after the last page.
    pub fn end(&self) -> u64 {
        self.start + self.pages * PAGE
    }
}

/// Why a file cannot be run as a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadImage {
    /// It does not begin like an ELF file, or its headers lie outside of it.
    NotElf,
    /// It is for another kind of machine.
    WrongMachine,
    /// It is to be placed by a loader, or names one.
    NotStatic,
    /// It has more headers or segments than a program needs.
    TooManySegments,
    /// It has nothing to load.
    NoSegments,
    /// A segment names bytes that the file does not have.
    BeyondFile,
    /// A segment has more bytes in the file than in memory.
    TooFewBytes,
    /// A segment does not stand in the file as it does in memory, page by page.
    Unaligned,
    /// A segment lies, in whole or in part, where a program may not be.
    OutOfRange,
    /// Two segments share a page.
    Overlap,
    /// The first instruction is not in a segment that can be executed.
    BadEntry,
}

impl fmt::Display for BadImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotElf => "it is not an ELF file, or a damaged one",
            Self::WrongMachine => "it is not for x86-64",
            Self::NotStatic => "it is not linked statically to a fixed address",
            Self::TooManySegments => "it has too many segments",
            Self::NoSegments => "it has nothing to load",
            Self::BeyondFile => "a segment lies beyond the end of the file",
            Self::TooFewBytes => "a segment is larger in the file than in memory",
            Self::Unaligned => "a segment is not aligned to pages",
            Self::OutOfRange => "a segment lies where a program may not be",
            Self::Overlap => "two segments overlap",
            Self::BadEntry => "its first instruction is not in its text",
        })
    }
}

impl core::error::Error for BadImage {}

impl Image {
    /// Checks a static program. `file` is all of it, and only its headers are touched; segments have to lie in
    /// `allowed`, the addresses that a program may have, which is page-aligned and does not wrap.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(file: &[u8], allowed: &Range<u64>) -> Result<Self, BadImage> {
        let first_bytes = file.get(..EI_NIDENT).ok_or(BadImage::NotElf)?;
        match parse_ident::<LittleEndian>(first_bytes) {
            Ok((_, Class::ELF64, ..)) => {}
            Ok(_) | Err(ParseError::UnsupportedElfEndianness(_)) => return Err(BadImage::WrongMachine),
            Err(_) => return Err(BadImage::NotElf),
        }
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| BadImage::NotElf)?;
        if elf.ehdr.e_machine != EM_X86_64 {
            return Err(BadImage::WrongMachine);
        }
        if elf.ehdr.e_type != ET_EXEC {
            return Err(BadImage::NotStatic);
        }
        if elf.ehdr.e_phnum > MAX_HEADERS {
            return Err(BadImage::TooManySegments);
        }
        let mut image = Self { entry: elf.ehdr.e_entry, segments: Default::default(), count: 0 };
        for header in elf.segments().ok_or(BadImage::NoSegments)? {
            match header.p_type {
                PT_INTERP => return Err(BadImage::NotStatic),
                PT_LOAD if header.p_memsz > 0 => image.add(segment(&header, file.len() as u64, allowed)?)?,
                PT_LOAD if header.p_filesz > 0 => return Err(BadImage::TooFewBytes),
                _ => {}
            }
        }
        if image.count == 0 {
            return Err(BadImage::NoSegments);
        }
        let mut text = image.segments().iter().filter(|segment| segment.execute);
        if !text.any(|segment| (segment.start..segment.end()).contains(&image.entry)) {
            return Err(BadImage::BadEntry);
        }
        Ok(image)
    }

    /// The address of the first instruction.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// What to map. No two share a page.
    pub fn segments(&self) -> &[Segment] {
        &self.segments[..self.count]
    }

    fn add(&mut self, new: Segment) -> Result<(), BadImage> {
        if self.segments().iter().any(|old| new.start < old.end() && old.start < new.end()) {
            return Err(BadImage::Overlap);
        }
        *self.segments.get_mut(self.count).ok_or(BadImage::TooManySegments)? = new;
        self.count += 1;
        Ok(())
    }
}

/// One segment with at least one byte, checked by itself.
fn segment(header: &ProgramHeader, file_bytes: u64, allowed: &Range<u64>) -> Result<Segment, BadImage> {
    let &ProgramHeader { p_vaddr, p_memsz, p_offset, p_filesz, p_flags, .. } = header;
    if p_filesz > p_memsz {
        return Err(BadImage::TooFewBytes);
    }
    let end = p_vaddr.checked_add(p_memsz).ok_or(BadImage::OutOfRange)?;
    if p_vaddr < allowed.start || end > allowed.end {
        return Err(BadImage::OutOfRange);
    }
    // Bytes between the start of the first page and the segment's first byte.
    let before = p_vaddr % PAGE;
    let mut from_file = 0;
    if p_filesz > 0 {
        if p_offset.checked_add(p_filesz).is_none_or(|end| end > file_bytes) {
            return Err(BadImage::BeyondFile);
        }
        if p_offset % PAGE != before {
            return Err(BadImage::Unaligned);
        }
        from_file = before + p_filesz;
    }
    Ok(Segment {
        start: p_vaddr - before,
        pages: (before + p_memsz).div_ceil(PAGE),
        file_offset: p_offset - p_offset % PAGE,
        file_bytes: from_file,
        zeros: p_memsz > p_filesz,
        read: p_flags & PF_R != 0,
        write: p_flags & PF_W != 0,
        execute: p_flags & PF_X != 0,
    })
}
