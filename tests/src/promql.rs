//! What expressions of Prometheus ask for: which metrics with which labels. Not a parser: it knows words, strings and
//! braces, which is what the shipped rules and the dashboard have.

/// A metric that an expression names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The metric's name.
    pub name: String,
    /// Its matchers as they are written: label, operator, value.
    pub matchers: Vec<(String, String, String)>,
}

impl Selector {
    /// As it may be asked for.
    pub fn text(&self) -> String {
        let matchers: Vec<String> =
            self.matchers.iter().map(|(label, op, value)| format!("{label}{op}\"{value}\"")).collect();
        format!("{}{{{}}}", self.name, matchers.join(","))
    }
}

/// What an expression asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The metrics.
    pub selectors: Vec<Selector>,
    /// The labels by which it groups and matches.
    pub labels: Vec<String>,
}

/// Words before a list of labels.
const GROUPING: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];

enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

fn tokens(expression: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' | '\'' => {
                let mut text = String::new();
                loop {
                    match rest.next() {
                        Some(end) if end == c => break,
                        Some('\\') => text.extend(['\\'].into_iter().chain(rest.next())),
                        Some(other) => text.push(other),
                        None => return Err(format!("a text does not end: {expression}")),
                    }
                }
                tokens.push(Token::Text(text));
            }
            c if c.is_ascii_alphanumeric() || c == '_' || c == ':' => {
                let mut word = String::from(c);
                while let Some(next) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == ':') {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
            c if c.is_whitespace() => {}
            other => tokens.push(Token::Sign(other)),
        }
    }
    Ok(tokens)
}

/// Reads an expression. Metrics are those that begin with one of `prefixes`.
///
/// # Errors
/// A text, if quotes or braces do not end.
pub fn asked(expression: &str, prefixes: &[&str]) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut tokens = tokens(expression)?.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let Token::Word(word) = token else { continue };
        let opens = |sign: char, token: Option<&Token>| matches!(token, Some(Token::Sign(c)) if *c == sign);
        if GROUPING.contains(&word.as_str()) && opens('(', tokens.peek()) {
            tokens.next();
            for token in tokens.by_ref() {
                match token {
                    Token::Word(label) => asked.labels.push(label),
                    Token::Sign(')') => break,
                    Token::Sign(_) | Token::Text(_) => {}
                }
            }
        } else if prefixes.iter().any(|prefix| word.starts_with(prefix)) {
            let mut matchers = Vec::new();
            if opens('{', tokens.peek()) {
                tokens.next();
                let (mut label, mut op) = (String::new(), String::new());
                loop {
                    match tokens.next() {
                        Some(Token::Word(word)) => label = word,
                        Some(Token::Sign('}')) => break,
                        Some(Token::Sign(',')) => {}
                        Some(Token::Sign(sign)) => op.push(sign),
                        Some(Token::Text(value)) => {
                            matchers.push((std::mem::take(&mut label), std::mem::take(&mut op), value));
                        }
                        None => return Err(format!("braces do not end: {expression}")),
                    }
                }
            }
            asked.selectors.push(Selector { name: word, matchers });
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_matchers_and_labels_are_found() {
        let text = "sum without (call, reason) (rate(a_lost_total{call!~\"x|y\\\\.z\",job='$job'}[5m])) > 0\n\
                    unless on (instance) a_up == 1 and other{b=\"a_up\"}";
        let asked = asked(text, &["a_"]).unwrap();
        let names: Vec<&str> = asked.selectors.iter().map(|selector| selector.name.as_str()).collect();
        assert_eq!(names, ["a_lost_total", "a_up"]);
        assert_eq!(asked.selectors[0].text(), "a_lost_total{call!~\"x|y\\\\.z\",job=\"$job\"}");
        assert_eq!(asked.selectors[1].text(), "a_up{}");
        assert_eq!(asked.labels, ["call", "reason", "instance"]);
    }

    #[test]
    fn what_does_not_end_is_an_error() {
        for text in ["a_b{c=\"d", "a_b{c=\"d\"", "'"] {
            assert!(asked(text, &["a_"]).is_err(), "{text}");
        }
    }
}
