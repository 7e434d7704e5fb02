//! Errors show the place of a mistake, and must not show what may be secret there: an output's addresses and headers.

/// The key whose value may hold secrets.
const SECRET: &str = "outputs";
/// Stands for each byte that is not shown.
const VEIL: u8 = b'*';

/// The text with the values of `outputs` veiled: keys and punctuation stay, and so does every place.
pub(super) fn veiled(text: &str) -> String {
    let mut inside = false;
    text.split_inclusive('\n')
        .map(|line| {
            // A mapping in braces, or a key in quotes, may begin anywhere.
            if line.contains(SECRET) {
                inside = true;
            } else if line.starts_with(|c: char| c.is_ascii_alphabetic()) {
                inside = false;
            }
            if inside { veil(line) } else { line.to_owned() }
        })
        .collect()
}

/// The same of `KEY=VALUE`.
pub(super) fn veiled_assignment(text: &str) -> String {
    match text.split_once('=') {
        Some((key, value)) if key.contains(SECRET) => format!("{key}={}", veil(value)),
        _ => text.to_owned(),
    }
}

/// All values of a text veiled.
fn veil(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for (from, to) in values(text) {
        bytes[from..to].fill(VEIL);
    }
    // Whole characters were replaced, by ASCII.
    String::from_utf8(bytes).unwrap_or_default()
}

/// Whether anything is veiled in the line of this byte.
pub(super) fn is_veiled(text: &str, veiled: &str, offset: usize) -> bool {
    let line_start = text.get(..offset).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let line = |text: &str| text.get(line_start..).and_then(|rest| rest.lines().next()).map(str::to_owned);
    line(veiled) != line(text)
}

/// A message without the values that serde quotes.
pub(super) fn without_quoted(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}\"…\"{}", &message[..first], &message[last + 1..])
        }
        _ => message.to_owned(),
    }
}

/// Where values stand in a text: all words, quoted or not, but those that a colon makes keys.
fn values(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let is_space = |at: usize| bytes.get(at).is_none_or(u8::is_ascii_whitespace);
    let mut values = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte.is_ascii_whitespace() || b"{}[],".contains(&byte) || byte == b'-' && is_space(at + 1) {
            at += 1;
            continue;
        }
        let from = at;
        if byte == b'"' || byte == b'\'' {
            at += 1;
            while at < bytes.len() && bytes[at] != byte {
                at += 1;
            }
            at = (at + 1).min(bytes.len());
        } else {
            let ends = |at: usize| {
                is_space(at) || b"{}[],".contains(&bytes[at]) || bytes[at] == b':' && is_space(at + 1)
            };
            while !ends(at) {
                at += 1;
            }
        }
        if bytes.get(at) == Some(&b':') && is_space(at + 1) {
            at += 1;
        } else {
            values.push((from, at));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_outputs_are_veiled_and_nothing_moves() {
        let text = "strict: true\noutputs:\n- {type: webhook, url: 'http://h/SECRÉT, x', headers: {X-Key: LIT}, tokn_env: X}\n\
                    - type: webhook\n  \"url\": \"http://u:SECRET@h/\"\n  # SECRET\nring_bytes: 8\n{\"outputs\": [SECRET]}\n";
        let veiled = veiled(text);
        assert_eq!(veiled.len(), text.len());
        assert!(!veiled.contains("SECR") && !veiled.contains("LIT"), "{veiled}");
        for kept in [
            "strict: true\noutputs:\n- {type: ",
            ", headers: {X-Key: ",
            ", tokn_env: ",
            "  \"url\": ",
            "\nring_bytes: 8\n",
        ] {
            assert!(veiled.contains(kept), "{kept}: {veiled}");
            let places = (veiled.find(kept), text.find(kept));
            assert_eq!(places.0, places.1);
        }
        assert!(
            is_veiled(text, &veiled, text.find("X-Key").unwrap())
                && !is_veiled(text, &veiled, text.find("ring").unwrap())
        );
    }

    #[test]
    fn what_is_quoted_in_a_message_is_not_shown() {
        let message = "invalid type: string \"SEC\\\"RET\", expected a map";
        assert_eq!(without_quoted(message), "invalid type: string \"…\", expected a map");
        assert_eq!(without_quoted("missing field `url`"), "missing field `url`");
    }
}
