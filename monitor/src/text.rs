//! Bytes as text, without loss: valid UTF-8 stays, any other byte becomes `\xHH`, a backslash `\\`.

use std::borrow::Cow;
use std::fmt::Write;

/// The text for some bytes; borrowed when there is nothing to escape.
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\\') => Cow::Borrowed(text),
        _ => Cow::Owned(escape_owned(bytes)),
    }
}

fn escape_owned(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                out.push_str("\\\\");
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// The bytes up to the first NUL, as the kernel pads its names.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Turns an escaped text back; the documents promise that this is possible.
    pub(crate) fn unescape(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            rest = match (byte, tail) {
                (b'\\', [b'\\', tail @ ..]) => {
                    out.push(b'\\');
                    tail
                }
                (b'\\', [b'x', a, b, tail @ ..]) => {
                    let hex = [*a, *b];
                    out.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
                    tail
                }
                _ => {
                    out.push(byte);
                    tail
                }
            };
        }
        out
    }

    #[test]
    fn plain_text_is_borrowed() {
        assert!(matches!(escape(b"nginx: worker"), Cow::Borrowed("nginx: worker")));
        assert_eq!(escape(b"a\xff\\b"), "a\\xff\\\\b");
        assert_eq!(until_nul(b"date\0\0x"), b"date");
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            proptest::prop_assert_eq!(unescape(&escape(&bytes)), bytes);
        }
    }
}
