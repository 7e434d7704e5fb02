//! Why the kernel refused a program, in one line.

/// Keeps the beginning of a line and its end, where the verifier's log says what it did not like.
fn shorten(line: &str) -> String {
    const HEAD: usize = 100;
    const TAIL: usize = 300;
    if line.len() <= HEAD + TAIL {
        return line.to_owned();
    }
    let head = line.floor_char_boundary(HEAD);
    let tail = line.ceil_char_boundary(line.len() - TAIL);
    format!("{} … {}", line[..head].trim_end(), line[tail..].trim())
}

/// An error with its causes, in one line; the verifier's log, which has many, is shortened.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    if tracing::enabled!(tracing::Level::TRACE) {
        return text;
    }
    shorten(&text.replace('\n', " "))
}
