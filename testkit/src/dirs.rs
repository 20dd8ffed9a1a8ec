//! Folders: the workspace, `target/tools` and one private run folder per started thing, removed when it is done with.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use crate::failure::{Context, Failure, Result};

/// A kept run folder of a failed test goes after this time, when another test starts.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// Set to anything, this environment variable keeps every run folder: for a test that failed without a panic.
const KEEP_VARIABLE: &str = "E2E_KEEP";
/// Marks a folder that a failed test leaves for its reader.
const KEEP_MARK: &str = "KEPT";

/// The workspace's root.
#[must_use]
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Cargo's target folder.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// Where fetched tools live: under the target folder, or in the temp folder when the user that runs Postgres could not
/// reach the former.
///
/// # Errors
/// When the folder cannot be made, or is not ours alone to write.
pub fn tools() -> Result<PathBuf> {
    base("tools")
}

fn base(name: &str) -> Result<PathBuf> {
    let dir = target().join(name);
    fs::create_dir_all(&dir).context(format!("making {}", dir.display()))?;
    if !rustix::process::geteuid().is_root() || reachable_by_others(&dir) {
        return Ok(dir);
    }
    let dir = std::env::temp_dir().join(format!("sluice-{name}-{}", rustix::process::geteuid().as_raw()));
    match fs::create_dir(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error.into()),
        Ok(()) => fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?,
        Err(_) => {}
    }
    ensure_ours(&dir)?;
    Ok(dir)
}

/// Programs are run from this folder, so no other user may have put it into the shared temp folder.
fn ensure_ours(dir: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(dir)?;
    let ours =
        metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
    if ours { Ok(()) } else { Err(Failure::new(format!("{} belongs to someone else: remove it", dir.display()))) }
}

/// Whether any user may traverse `path` and everything above it.
#[must_use]
pub fn reachable_by_others(path: &Path) -> bool {
    let traversable = |dir: &Path| fs::metadata(dir).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0);
    fs::canonicalize(path).is_ok_and(|path| path.ancestors().all(traversable))
}

/// A private folder for data, configuration and logs. Removed with its last user, unless a test failed.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    kept: AtomicBool,
}

impl RunDir {
    /// Makes `target/run/<process>-<number>-<name>`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(name: &str) -> Result<Arc<Self>> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        static SWEEP: Once = Once::new();
        let base = base("run")?;
        SWEEP.call_once(|| sweep(&base));
        let path = base.join(format!("{}-{}-{name}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        // A process of long ago may have had the same number.
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path).context(format!("making {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Arc::new(Self { path, kept: AtomicBool::new(false) }))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside the folder.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Leaves the folder behind for a person who looks into a failure.
    pub fn keep(&self) {
        if !self.kept.swap(true, Ordering::Relaxed) && fs::write(self.join(KEEP_MARK), "").is_ok() {
            eprintln!("the logs are kept in {}", self.path.display());
        }
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os(KEEP_VARIABLE).is_some() {
            self.keep();
        }
        if !self.kept.load(Ordering::Relaxed) {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes what killed processes left behind, and folders kept long ago.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.split('-').next()).and_then(|pid| pid.parse().ok()) else {
            continue;
        };
        if !is_alive(pid) && !is_kept(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes all run folders of this process but the kept ones: for an end by a signal, where nothing is dropped. Each is moved
/// away first, so that what still runs puts nothing back.
pub fn abandon() {
    let own = format!("{}-", std::process::id());
    let Ok(base) = base("run") else { return };
    for entry in fs::read_dir(&base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&own) && !is_kept(&entry.path()) {
            let away = base.join(format!("{name}-abandoned"));
            let _ = fs::rename(entry.path(), &away).and_then(|()| fs::remove_dir_all(&away));
        }
    }
}

fn is_alive(pid: i32) -> bool {
    rustix::process::Pid::from_raw(pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

fn is_kept(dir: &Path) -> bool {
    let marked = fs::metadata(dir.join(KEEP_MARK)).and_then(|metadata| metadata.modified());
    marked.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < KEPT_FOR))
}

/// Copies a folder with its modes, and hands it to `owner` (user and group) where one is given.
///
/// # Errors
/// Those of the file system.
pub fn copy_tree(from: &Path, to: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target, owner)?;
        } else {
            fs::copy(entry.path(), &target)?;
            give(&target, owner)?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    give(to, owner)
}

/// Hands one file or folder to `owner`.
///
/// # Errors
/// Those of the file system.
pub fn give(path: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    match owner {
        Some((user, group)) => Ok(chown(path, Some(user), Some(group))?),
        None => Ok(()),
    }
}
