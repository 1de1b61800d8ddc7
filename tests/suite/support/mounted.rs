//! A small file system of a test's own, which can be full or read-only.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A file system of `size` at a folder of its own; `None`, loudly, where one may not be mounted.
pub struct Mounted(TempDir);

impl Mounted {
    /// One of so many bytes, such as `3m`.
    pub fn of(size: &str) -> Option<Self> {
        let folder = TempDir::with_prefix("payrelay-disk-").expect("a folder");
        let options = format!("size={size},mode=0700");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder.path());
        match mount.status() {
            Ok(status) if status.success() => Some(Self(folder)),
            other => {
                eprintln!(
                    "NOT TESTED: a file system cannot be mounted here ({other:?}); run as root"
                );
                None
            }
        }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Changes its options.
    pub fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        let mut mount = Command::new("mount");
        mount.args(["-o", &options]).arg(self.0.path());
        assert!(mount.status().expect("mount").success(), "{options}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
