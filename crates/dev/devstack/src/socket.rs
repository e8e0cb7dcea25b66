//! The file of MySQL's socket. It is outside the server's folder if the folder's path is too long.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Path of the Unix socket. It is in `dir`, or in the temp folder if the path would exceed the kernel's 107
/// bytes. The name in the temp folder is derived from `dir`.
pub(crate) fn path(dir: &Path) -> PathBuf {
    const LONGEST: usize = 107;
    let near = dir.join("mysql.sock");
    if near.as_os_str().len() <= LONGEST {
        return near;
    }
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    std::env::temp_dir().join(format!("tandem-{:016x}.sock", hasher.finish()))
}

/// Removes what a killed server left: the socket and its lock.
pub(crate) fn remove(dir: &Path) {
    let socket = path(dir);
    let mut lock = socket.clone().into_os_string();
    lock.push(".lock");
    for file in [socket, PathBuf::from(lock)] {
        let _ = fs::remove_file(file); // usually it does not exist
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_in_its_folder_unless_the_path_is_too_long() {
        assert_eq!(path(Path::new("/a/mysql")), Path::new("/a/mysql/mysql.sock"));
        let long = PathBuf::from(format!("/{}", "x".repeat(120)));
        let other = PathBuf::from(format!("/{}", "y".repeat(120)));
        assert!(path(&long).as_os_str().len() <= 107);
        assert_eq!(path(&long), path(&long));
        assert_ne!(path(&long), path(&other));
    }
}
