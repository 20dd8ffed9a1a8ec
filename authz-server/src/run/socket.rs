//! The Unix socket of the ext_authz service, for a proxy on the same host. Its file belongs to this server while it runs.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::RunError;

/// Owner and group may connect.
const MODE: u32 = 0o660;

/// The bound socket. Its file is removed with it.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// Binds the socket. The file of a server that was killed is replaced; any other file, and a socket that is served, is left alone.
    pub(super) fn bind(path: &Path) -> Result<Self, RunError> {
        let failed = |error| RunError::Socket { path: path.to_owned(), error };
        // A connection to a file that is no socket is refused as well.
        if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            match UnixStream::connect(path) {
                Ok(_) => return Err(failed(io::Error::new(ErrorKind::AddrInUse, "another server listens on it"))),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed)?,
                Err(error) => return Err(failed(error)),
            }
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let socket = Self { path: path.to_owned(), listener };
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed)?;
        socket.listener.set_nonblocking(true).map_err(failed)?;
        Ok(socket)
    }

    /// A listener for one of the threads.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for Socket {
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

        let served = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert!(Socket::bind(&path).unwrap_err().to_string().contains("another server listens on it"));
        assert!(UnixStream::connect(&path).is_ok());
        drop(served);
        assert!(!path.exists());

        // A killed server removes nothing.
        drop(UnixListener::bind(&path).unwrap());
        drop(Socket::bind(&path).unwrap());

        fs::write(&path, "a file").unwrap();
        let error = Socket::bind(&path).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
        fs::remove_dir_all(&dir).unwrap();
    }
}
