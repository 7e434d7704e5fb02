//! Numbers as conditions write them, and what it means to compare whole numbers with them.

use super::ast::Operator;
use super::check::NumberCheck;

/// A number, exactly: its whole part rounded down, and whether something is left over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exact {
    floor: i128,
    fraction: bool,
}

/// Beyond what any field can hold, and far from the ends of `i128`.
const HUGE: i128 = 1 << 100;

/// Digits beyond this many cannot come near `i64` any more.
const MAX_DIGITS: i64 = 30;

impl Exact {
    /// Reads a decimal (sign, fraction and exponent allowed) or hexadecimal number.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            let digits = hex.trim_start_matches('0');
            if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            let floor = match digits.len() {
                0 => 0,
                1..=24 => i128::from_str_radix(digits, 16).ok()?,
                _ => HUGE,
            };
            return Some(Exact { floor, fraction: false });
        }
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (text, 0),
        };
        let negative = mantissa.starts_with('-');
        let unsigned = mantissa.strip_prefix(['+', '-']).unwrap_or(mantissa);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some(scale(negative, whole, fraction, exponent))
    }

    /// The comparison of a whole number with this one; `None` if the operator is not for numbers.
    pub(crate) fn check(self, op: Operator) -> Option<NumberCheck> {
        let Exact { floor, fraction } = self;
        let (first, last) = match op {
            Operator::Lt => (i128::MIN, if fraction { floor } else { floor - 1 }),
            Operator::Le => (i128::MIN, floor),
            Operator::Gt => (floor + 1, i128::MAX),
            Operator::Ge => (if fraction { floor + 1 } else { floor }, i128::MAX),
            Operator::Eq if fraction => (1, 0),
            Operator::Eq => (floor, floor),
            Operator::Ne => {
                return Some(match self.whole() {
                    Some(number) => NumberCheck::Not(number),
                    None => NumberCheck::Between(i64::MIN, i64::MAX),
                });
            }
            _ => return None,
        };
        let (least, greatest) = (i128::from(i64::MIN), i128::from(i64::MAX));
        if first > last || first > greatest || last < least {
            return Some(NumberCheck::Between(1, 0));
        }
        let clamp = |number: i128| number.clamp(least, greatest) as i64;
        Some(NumberCheck::Between(clamp(first), clamp(last)))
    }

    /// The number, if a field can have it.
    pub(crate) fn whole(self) -> Option<i64> {
        if self.fraction { None } else { i64::try_from(self.floor).ok() }
    }
}

fn parse_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let exponent = digits.parse::<i64>().unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
    Some(if text.starts_with('-') { -exponent } else { exponent })
}

/// `whole.fraction` times ten to the exponent.
fn scale(negative: bool, whole: &str, fraction: &str, exponent: i64) -> Exact {
    let digits: String = whole.chars().chain(fraction.chars()).collect();
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Exact { floor: 0, fraction: false };
    }
    // How many of the significant digits stand before the point.
    let leading_zeros = (digits.len() - significant.len()) as i64;
    let point = whole.len() as i64 - leading_zeros + exponent;
    if point > MAX_DIGITS {
        return Exact { floor: if negative { -HUGE } else { HUGE }, fraction: false };
    }
    let mut magnitude: i128 = 0;
    let mut left_over = false;
    let mut taken = 0;
    for byte in significant.bytes() {
        if taken < point {
            magnitude = magnitude * 10 + i128::from(byte - b'0');
            taken += 1;
        } else {
            left_over |= byte != b'0';
        }
    }
    for _ in taken..point.max(taken) {
        magnitude *= 10;
    }
    let floor = match (negative, left_over) {
        (false, _) => magnitude,
        (true, false) => -magnitude,
        (true, true) => -magnitude - 1,
    };
    Exact { floor, fraction: left_over }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact() {
        let cases: &[(&str, Option<(i128, bool)>)] = &[
            ("0", Some((0, false))),
            ("-0.0", Some((0, false))),
            ("+7", Some((7, false))),
            ("-1", Some((-1, false))),
            ("0x10", Some((16, false))),
            ("0XfF", Some((255, false))),
            ("1.5", Some((1, true))),
            ("-1.5", Some((-2, true))),
            ("1.0", Some((1, false))),
            ("1.", Some((1, false))),
            ("1e3", Some((1000, false))),
            ("1.25e+1", Some((12, true))),
            ("1500E-3", Some((1, true))),
            ("9223372036854775807", Some((i64::MAX.into(), false))),
            ("-9223372036854775808", Some((i64::MIN.into(), false))),
            ("1e-99999999999999999999", Some((0, true))),
            ("1e99999999999999999999", Some((HUGE, false))),
            ("-1e40", Some((-HUGE, false))),
            ("0e99999999999999999999", Some((0, false))),
            ("0xfffffffffffffffffffffffffffffffffffff", Some((HUGE, false))),
            ("", None),
            ("-", None),
            (".5", None),
            ("1e", None),
            ("1e+", None),
            ("0x", None),
            ("0xg", None),
            ("-0x1", None),
            ("1_000", None),
            ("abc", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(floor, fraction)| Exact { floor, fraction });
            assert_eq!(Exact::parse(text), expected, "{text}");
        }
    }
}
