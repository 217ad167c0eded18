//! Times of day.

use jiff::{Timestamp, tz::TimeZone};
use trapline_model::Header;

/// Turns CLOCK_MONOTONIC into the time of day.
#[derive(Debug)]
pub(crate) struct Clock {
    zone: TimeZone,
    /// Wall-clock time minus CLOCK_MONOTONIC, nanoseconds.
    wall_minus_monotonic: i128,
}

impl Clock {
    /// Of this zone; right once the header is known.
    pub(crate) fn new(zone: TimeZone) -> Self {
        Self { zone, wall_minus_monotonic: 0 }
    }

    /// Sets it by the two clocks at the start of a run.
    pub(crate) fn set(&mut self, header: &Header) {
        self.wall_minus_monotonic = i128::from(header.start_unix_ns) - i128::from(header.start_ns);
    }

    /// The time of day at a moment of CLOCK_MONOTONIC, as `strftime` writes it.
    pub(crate) fn at(&self, time_ns: u64, format: &str) -> String {
        let wall =
            Timestamp::from_nanosecond(self.wall_minus_monotonic + i128::from(time_ns)).unwrap_or_default();
        wall.to_zoned(self.zone.clone()).strftime(format).to_string()
    }
}
