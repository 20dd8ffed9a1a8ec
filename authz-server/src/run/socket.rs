//! The Unix socket of the ext_authz service, for a proxy on the same host. Its file belongs to this server while it runs.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::RunError;

/// Owner and group may connect.
const MODE: u32 = 0o660;

/// The socket's file, which is removed with it. No other server takes the path while it is held.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    _lock: File,
}

/// Binds the socket. The file of a server that was killed is replaced; any other file, and a socket that is served, is left alone.
/// Connections are refused as soon as the listener and its clones are dropped.
///
/// # Errors
/// [`RunError::Socket`] where the path is taken or cannot be used.
pub(super) fn bind(path: &Path) -> Result<(SocketFile, UnixListener), RunError> {
    bound(path).map_err(|error| RunError::Socket { path: path.to_owned(), error })
}

fn bound(path: &Path) -> io::Result<(SocketFile, UnixListener)> {
    if path.file_name().is_none() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "name a file, as /run/sluice/authz.sock"));
    }
    let taken = || io::Error::new(ErrorKind::AddrInUse, "another server listens on it");
    let lock = File::options().create(true).truncate(false).write(true).open(beside(path, "lock"))?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => return Err(taken()),
        Err(TryLockError::Error(error)) => return Err(error),
        Ok(()) => {}
    }
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(taken()),
        Ok(_) | Err(_) => {}
    }
    // It has its permissions before anyone can find it.
    let fresh = beside(path, "new");
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(MODE))?;
    listener.set_nonblocking(true)?;
    fs::rename(&fresh, path)?;
    Ok((SocketFile { path: path.to_owned(), _lock: lock }, listener))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_where_a_killed_server_left_it() {
        let dir = std::env::temp_dir().join(format!("sluice-socket-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("authz.sock");
        let refused = |expected: &str| {
            let error = bind(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(&path.display().to_string()), "{error}");
        };

        let (file, listener) = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        refused("another server listens on it");
        assert!(UnixStream::connect(&path).is_ok());
        // A server that stops takes no more connections, and keeps the path until its end.
        drop(listener);
        assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        refused("another server listens on it");
        drop(file);
        assert!(!path.exists());

        // A killed server removes nothing.
        drop(UnixListener::bind(&path).unwrap());
        drop(bind(&path).unwrap());

        let other = UnixListener::bind(&path).unwrap();
        refused("another server listens on it");
        drop(other);
        fs::remove_file(&path).unwrap();

        for (path, expected) in [("", "name a file"), ("/", "name a file"), ("/no/such/folder/a.sock", "No such file")]
        {
            let error = bind(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains(expected), "{path}: {error}");
        }

        fs::write(&path, "a file").unwrap();
        refused("no socket");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
        fs::remove_dir_all(&dir).unwrap();
    }
}
