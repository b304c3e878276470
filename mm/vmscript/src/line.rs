//! Words of a line. Whatever bytes a line has, it is a list of words or wrong.

/// A line that the player does not understand, or that names what is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wrong;

/// The words of a line without its comment; `None` where they are not text.
pub(crate) fn words(line: &[u8]) -> Option<impl Iterator<Item = &str>> {
    let end = line.iter().position(|&byte| byte == b'#').unwrap_or(line.len());
    let text = str::from_utf8(&line[..end]).ok()?;
    Some(text.split([' ', '\t', '\r', '\n']).filter(|word| !word.is_empty()))
}

/// A decimal number of 64 bits.
pub(crate) fn number(word: &str) -> Result<u64, Wrong> {
    if !word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong);
    }
    word.parse().map_err(|_| Wrong)
}

/// A number in a range from 0 to before `end`.
pub(crate) fn below(word: &str, end: u64) -> Result<u64, Wrong> {
    number(word).and_then(|number| if number < end { Ok(number) } else { Err(Wrong) })
}

/// A name: letters, digits, `_`, `-` and `.`, so that `SPACE/M:rw` can be read.
pub(crate) fn name(word: &str) -> Result<&str, Wrong> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if word.bytes().all(fits) && word != "-" { Ok(word) } else { Err(Wrong) }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_comment_ends_a_line_and_need_not_be_text() {
        let line = words(b" read\tM  1\r# \xff\xfe").map(|words| words.collect::<Vec<_>>());
        assert_eq!(line, Some(["read", "M", "1"].to_vec()));
        assert!(words(b"read \xff 1").is_none());
    }

    #[test]
    fn numbers_are_digits_that_fit() {
        assert_eq!(number("18446744073709551615"), Ok(u64::MAX));
        for wrong in ["18446744073709551616", "+1", "-1", "0x1", "1_0", "", "x"] {
            assert_eq!(number(wrong), Err(Wrong), "{wrong}");
        }
        assert_eq!(below("512", 512), Err(Wrong));
    }

    #[test]
    fn names_have_no_separators() {
        assert!(["a", "A-1", "x.y_z"].iter().all(|word| name(word).is_ok()));
        assert!(["a/b", "a:1", "a,b", "-", "ä"].iter().all(|word| name(word).is_err()));
    }
}
