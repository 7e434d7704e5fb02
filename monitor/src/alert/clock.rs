//! Wall time as text, with the calendar worked out once per second.

use time::OffsetDateTime;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Writes times of nearby events quickly: the second's text is kept and reused. All times are UTC.
#[derive(Clone, Debug)]
pub struct WallClock {
    /// The second that `date_time` stands for.
    second: i64,
    /// `YYYY-MM-DDTHH:MM:SS`.
    date_time: [u8; 19],
}

/// Where the time of day begins in `YYYY-MM-DDTHH:MM:SS`.
const TIME_OF_DAY: usize = 11;

impl Default for WallClock {
    fn default() -> Self {
        Self { second: 0, date_time: *b"1970-01-01T00:00:00" }
    }
}

impl WallClock {
    /// Appends RFC 3339 with nine digits: `2026-11-23T19:45:46.123456789Z`.
    pub fn push_rfc3339(&mut self, unix_ns: i64, out: &mut Vec<u8>) {
        let nanos = self.turn_to(unix_ns);
        let mut tail = *b".000000000Z";
        put_digits(&mut tail[1..10], nanos);
        out.extend_from_slice(&self.date_time);
        out.extend_from_slice(&tail);
    }

    /// Appends the time of day with milliseconds: `19:45:46.123`.
    pub fn push_time_of_day(&mut self, unix_ns: i64, out: &mut Vec<u8>) {
        let nanos = self.turn_to(unix_ns);
        let mut tail = *b".000";
        put_digits(&mut tail[1..4], nanos / 1_000_000);
        out.extend_from_slice(&self.date_time[TIME_OF_DAY..]);
        out.extend_from_slice(&tail);
    }

    /// Makes `date_time` stand for this instant's second; returns the nanoseconds within it.
    fn turn_to(&mut self, unix_ns: i64) -> u32 {
        let second = unix_ns.div_euclid(NANOS_PER_SECOND);
        if second != self.second {
            // An i64 of nanoseconds spans the years 1677 to 2262, all of which the calendar has.
            if let Ok(moment) = OffsetDateTime::from_unix_timestamp(second) {
                put_digits(&mut self.date_time[0..4], moment.year().unsigned_abs());
                put_digits(&mut self.date_time[5..7], u32::from(u8::from(moment.month())));
                put_digits(&mut self.date_time[8..10], u32::from(moment.day()));
                put_digits(&mut self.date_time[11..13], u32::from(moment.hour()));
                put_digits(&mut self.date_time[14..16], u32::from(moment.minute()));
                put_digits(&mut self.date_time[17..19], u32::from(moment.second()));
                self.second = second;
            }
        }
        unix_ns.rem_euclid(NANOS_PER_SECOND) as u32
    }
}

/// Fills the slice with the number's last decimal digits, zeros first.
fn put_digits(slot: &mut [u8], mut number: u32) {
    for digit in slot.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(clock: &mut WallClock, unix_ns: i64) -> (String, String) {
        let (mut long, mut short) = (Vec::new(), Vec::new());
        clock.push_rfc3339(unix_ns, &mut long);
        clock.push_time_of_day(unix_ns, &mut short);
        (String::from_utf8(long).unwrap(), String::from_utf8(short).unwrap())
    }

    #[test]
    fn known_instants() {
        let mut clock = WallClock::default();
        let cases: &[(i64, &str, &str)] = &[
            (0, "1970-01-01T00:00:00.000000000Z", "00:00:00.000"),
            (1, "1970-01-01T00:00:00.000000001Z", "00:00:00.000"),
            (951_782_400_123_456_789, "2000-02-29T00:00:00.123456789Z", "00:00:00.123"),
            (1_795_462_746_999_999_999, "2026-11-23T19:39:06.999999999Z", "19:39:06.999"),
            (-1, "1969-12-31T23:59:59.999999999Z", "23:59:59.999"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z", "00:12:43.145"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z", "23:47:16.854"),
        ];
        for (unix_ns, long, short) in cases {
            assert_eq!(both(&mut clock, *unix_ns), ((*long).to_owned(), (*short).to_owned()));
        }
    }

    #[test]
    fn the_kept_second_is_not_used_for_another() {
        let mut clock = WallClock::default();
        let first = both(&mut clock, 1_000_000_000);
        both(&mut clock, 86_400_000_000_000);
        assert_eq!(both(&mut clock, 1_000_000_000), first);
    }
}
