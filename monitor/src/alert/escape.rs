//! Which characters may not pass as they are, and how they are written instead.
//!
//! Control characters could end a line or drive a terminal; bidirectional controls make a text read as
//! something else; U+2028 and U+2029 end a line for some readers.

use std::io::Write as _;

/// What must be looked at closer: per byte, so that harmless text is copied in long runs.
const PASS: u8 = 0;
/// A control character.
const CONTROL: u8 = 1;
/// A quotation mark or a backslash: JSON escapes them, terminals do not mind.
const QUOTE: u8 = 2;
/// First byte of a character that may be one of the wide controls.
const LEAD: u8 = 4;

const CLASS: [u8; 256] = {
    let mut class = [PASS; 256];
    let mut i = 0;
    while i < 0x20 {
        class[i] = CONTROL;
        i += 1;
    }
    class[0x7f] = CONTROL;
    class[b'"' as usize] = QUOTE;
    class[b'\\' as usize] = QUOTE;
    class[0xc2] = LEAD; // U+0080 to U+009F
    class[0xd8] = LEAD; // U+061C
    class[0xe2] = LEAD; // U+200E to U+2069
    class
};

/// True for a character outside ASCII that may not pass.
const fn is_wide_control(c: char) -> bool {
    matches!(c,
        '\u{80}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends the inside of a JSON string. Everything is escaped that JSON demands, and the controls above.
pub(super) fn push_json(text: &str, out: &mut Vec<u8>) {
    push(text, CONTROL | QUOTE | LEAD, out, |c, out| match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\r' => out.extend_from_slice(b"\\r"),
        c => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            // Every control is in the basic plane: four digits are enough.
            let code = c as usize;
            let digit = |shift: usize| HEX[(code >> shift) & 0xf];
            out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
        }
    });
}

/// Appends text for a terminal: controls become visible, as `\x1b` (ASCII) or `\u{202e}`. Texts of events
/// carry their backslashes doubled, so that such an escape cannot be forged there.
pub fn push_visible(text: &str, out: &mut Vec<u8>) {
    push(text, CONTROL | LEAD, out, |c, out| {
        // Writing to a Vec cannot fail.
        let _ = match c {
            '\n' => out.write_all(b"\\n"),
            '\t' => out.write_all(b"\\t"),
            '\r' => out.write_all(b"\\r"),
            c if c.is_ascii() => write!(out, "\\x{:02x}", c as u32),
            c => write!(out, "\\u{{{:x}}}", c as u32),
        };
    });
}

/// Finished JSON in which serde_json has let controls pass: DEL and the wide ones are escaped. They stand inside
/// strings only, since everything else in JSON is printable ASCII, blanks and line ends.
pub fn json_visible(json: &str) -> String {
    let mut out = Vec::with_capacity(json.len());
    push(json, CONTROL | LEAD, &mut out, |c, out| match c {
        '\n' => out.push(b'\n'),
        // Writing to a Vec cannot fail. Every control is in the basic plane.
        c => {
            let _ = write!(out, "\\u{:04x}", c as u32);
        }
    });
    String::from_utf8_lossy(&out).into_owned()
}

/// Copies runs of harmless text and hands every character of the given classes to `escape`.
fn push(text: &str, stop_at: u8, out: &mut Vec<u8>, escape: impl Fn(char, &mut Vec<u8>)) {
    let mut run = 0;
    let mut at = 0;
    let bytes = text.as_bytes();
    while let Some(step) = bytes[at..].iter().position(|byte| CLASS[*byte as usize] & stop_at != 0) {
        at += step;
        // A lead or ASCII byte always starts a character, so `at` is a boundary.
        let Some(c) = text[at..].chars().next() else { break };
        let len = c.len_utf8();
        if c.is_ascii() || is_wide_control(c) {
            out.extend_from_slice(&bytes[run..at]);
            escape(c, out);
            run = at + len;
        }
        at += len;
    }
    out.extend_from_slice(&bytes[run..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn visible(text: &str) -> String {
        let mut out = Vec::new();
        push_visible(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn json(text: &str) -> String {
        let mut out = vec![b'"'];
        push_json(text, &mut out);
        out.push(b'"');
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn terminals_get_no_controls() {
        assert_eq!(visible("a\x1b[31mb"), "a\\x1b[31mb");
        assert_eq!(visible("x\r\ny\tz\0\x7f"), "x\\r\\ny\\tz\\x00\\x7f");
        assert_eq!(
            visible("\u{9b}31m \u{202e}evil\u{2066} \u{61c}"),
            "\\u{9b}31m \\u{202e}evil\\u{2066} \\u{61c}"
        );
        assert_eq!(visible("Grüße “„” 日本 é£ ؀"), "Grüße “„” 日本 é£ ؀");
        assert_eq!(visible(r#"C:\x "q""#), r#"C:\x "q""#);
    }

    #[test]
    fn json_escapes() {
        assert_eq!(json("a\"b\\c\nd\u{1}"), r#""a\"b\\c\nd\u0001""#);
        assert_eq!(json("\u{202e}\u{2028}\u{85}\u{7f}"), r#""\u202e\u2028\u0085\u007f""#);
    }

    fn hostile() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            prop_oneof![
                any::<char>(),
                (0u32..0xa0).prop_filter_map("a character", char::from_u32),
                (0x2000u32..0x2070).prop_filter_map("a character", char::from_u32),
                (0x600u32..0x620).prop_filter_map("a character", char::from_u32),
            ],
            0..64,
        )
        .prop_map(String::from_iter)
    }

    /// Bytes to the text of a field, to a line of JSON, and back as `docs/fields.md` says it.
    fn there_and_back(bytes: &[u8]) -> Vec<u8> {
        let line = json(&crate::text::escape(bytes));
        crate::text::tests::unescape(&serde_json::from_str::<String>(&line).unwrap())
    }

    #[test]
    fn every_pair_of_bytes_comes_back() {
        for bytes in 0..=u16::MAX {
            let bytes = bytes.to_be_bytes();
            assert_eq!(there_and_back(&bytes), bytes);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\\'), Just(b'x'), Just(0xe2)], 0..64)) {
            prop_assert_eq!(there_and_back(&bytes), bytes);
        }

        #[test]
        fn json_reads_back_and_has_no_controls(text in hostile()) {
            let line = json(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
            prop_assert!(!line.chars().any(|c| c.is_control() || is_wide_control(c)));
        }

        #[test]
        fn finished_json_reads_back_and_has_no_controls(text in hostile()) {
            for json in [serde_json::to_string(&[&text]), serde_json::to_string_pretty(&[&text])] {
                let shown = json_visible(&json.unwrap());
                prop_assert_eq!(serde_json::from_str::<[String; 1]>(&shown).unwrap(), [text.clone()]);
                prop_assert!(!shown.chars().any(|c| c != '\n' && (c.is_control() || is_wide_control(c))), "{}", shown);
            }
        }

        #[test]
        fn visible_text_has_no_controls(text in hostile()) {
            prop_assert!(!visible(&text).chars().any(|c| c.is_control() || is_wide_control(c)));
        }
    }
}
