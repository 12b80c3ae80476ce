//! Texts that others wrote, on their way to a terminal, a log or a file: what would act instead of being shown, or is
//! not shown at all, is shown as its escape.

use std::borrow::Cow;
use std::fmt::Write;

/// What a reader does not see, or what changes the order or the look of what a reader does see, beside control
/// characters: Unicode's format characters (`Cf`: bidirectional controls, zero-width characters, tags), all that is
/// ignorable by default, and the separators of lines and paragraphs. Ranges, both ends included, in order.
const INVISIBLE: [(char, char); 25] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

fn is_invisible(character: char) -> bool {
    !character.is_ascii() && INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&character))
}

/// `text` for a terminal, in one line: control characters and what [`visible`] escapes are escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |character| character.is_control() || is_invisible(character),
        |clean, character| {
            clean.extend(character.escape_default());
        },
    )
}

/// `text` with all that a reader would not see, or would see elsewhere, as `\u{202e}`; line ends and colours, which a
/// log has of its own, stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_invisible, |clean, character| clean.extend(character.escape_unicode()))
}

/// The same for a JSON text, in JSON's own escapes: for programs nothing changes. JSON has to escape only the first 32
/// control characters; here the others are as well.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    let is_hidden =
        |character: char| is_invisible(character) || character.is_control() && character >= '\u{7f}';
    escaped(json, is_hidden, |clean, character| {
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a String can't fail.
            let _ = write!(clean, "\\u{unit:04x}");
        }
    })
}

fn escaped(
    text: &str,
    is_escaped: impl Fn(char) -> bool,
    escape: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_escaped(character) {
            escape(&mut clean, character);
        } else {
            clean.push(character);
        }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// By another table of Unicode's properties, that of proptest's regular expressions.
        #[test]
        fn what_unicode_calls_invisible_is_escaped(
            character in r"[\p{Cf}\p{Bidi_Control}\p{Default_Ignorable_Code_Point}\p{Zl}\p{Zp}]",
        ) {
            let escape = character.escape_unicode().to_string();
            prop_assert_eq!(printable(&character), escape.as_str());
            prop_assert_eq!(visible(&character), escape.as_str());
        }

        #[test]
        fn what_can_be_seen_stays(
            text in r"[\p{L}\p{M}\p{N}\p{P}\p{S}&&\P{Default_Ignorable_Code_Point}]*",
        ) {
            prop_assert_eq!(printable(&text), text.as_str());
        }

        #[test]
        fn nothing_is_escaped_twice_and_json_means_the_same(text in any::<String>()) {
            let once = printable(&text).into_owned();
            prop_assert_eq!(printable(&once), once.as_str());
            let json = serde_json::to_string(&text).unwrap();
            let shown = visible_json(&json);
            prop_assert!(!shown.contains(|c: char| c.is_control() || is_invisible(c)), "{}", shown);
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }

    #[test]
    fn a_name_can_not_look_like_another() {
        assert_eq!(printable("backup\u{202e}gnp.exe"), "backup\\u{202e}gnp.exe");
        assert_eq!(printable("pay\u{200b}roll\u{feff}"), "pay\\u{200b}roll\\u{feff}");
        assert_eq!(printable("a\u{2066}b\u{2069}\n\u{9b}2J"), "a\\u{2066}b\\u{2069}\\n\\u{9b}2J");
        assert_eq!(printable("grün, שלום, e\u{301}, 日本"), "grün, שלום, e\u{301}, 日本");
        assert_eq!(visible("\u{1b}[2mINFO\u{1b}[0m a\u{202e}b\n"), "\u{1b}[2mINFO\u{1b}[0m a\\u{202e}b\n");
        assert_eq!(visible_json("\"\u{e0041}\u{7f}\u{200d}\""), r#""\udb40\udc41\u007f\u200d""#);
    }
}
