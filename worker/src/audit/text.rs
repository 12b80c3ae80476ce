//! Texts of others in a line: quoted, and cut.

use std::borrow::Cow;
use std::fmt::Write;

/// Bytes of a command line that are kept.
const MAX_ARGV_BYTES: usize = 4096;

/// A command line as a shell would take it, in at most about 4 KiB. Bytes that are not UTF-8 become U+FFFD.
pub(crate) fn argv<'a>(words: impl Iterator<Item = &'a [u8]>) -> String {
    let (mut line, mut left_out_bytes) = (String::new(), 0);
    for word in words {
        let room = MAX_ARGV_BYTES.saturating_sub(line.len());
        let kept = &word[..word.len().min(room)];
        left_out_bytes += word.len() - kept.len();
        if room == 0 {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        push_quoted(&mut line, &String::from_utf8_lossy(kept));
    }
    if left_out_bytes > 0 {
        // Writing to a String can't fail.
        let _ = write!(line, " … ({left_out_bytes} more bytes)");
    }
    line
}

fn push_quoted(line: &mut String, word: &str) {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        line.push_str(word);
    } else {
        let _ = write!(line, "'{}'", word.replace('\'', r"'\''"));
    }
}

/// The text, or so much of it as fits into `max_bytes`, and a mark that there was more.
pub(crate) fn shorten(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(max_bytes);
    Cow::Owned(format!("{}… ({} bytes in all)", &text[..end], text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_quoted_and_cut() {
        let words: [&[u8]; 5] = [b"/bin/sh", b"-c", b"echo 'hi' >x", b"", b"\xff"];
        assert_eq!(argv(words.into_iter()), r"/bin/sh -c 'echo '\''hi'\'' >x' '' '�'");
        let long = vec![b'x'; 5 << 20];
        let line = argv([&b"echo"[..], &long, b"more"].into_iter());
        assert!(line.len() < MAX_ARGV_BYTES + 100, "{}", line.len());
        assert!(line.ends_with(" … (5238792 more bytes)"), "{}", &line[4080..]);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(
            shorten("grün", 4),
            "grün".get(..4).map(|cut| format!("{cut}… (5 bytes in all)")).unwrap()
        );
        assert_eq!(shorten("grün", 3), "gr… (5 bytes in all)");
        assert_eq!(shorten("grün", 5), "grün");
    }
}
