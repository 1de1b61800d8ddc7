//! The configuration file: which one it is, what is said when it is not there, and who may read it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use payrelay::config::Config;
use rustix::fs::{Gid, fchown};

use super::Failure;

/// The file that is read when none is named.
pub const DEFAULT_CONFIG: &str = "relay.toml";

/// The file of the package, which is read when none is named and there is none in the current directory.
pub const SYSTEM_CONFIG: &str = "/etc/payrelay/relay.toml";

/// The configuration file, named or not.
#[derive(Debug)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// By `-c`; otherwise it is the default, which a client can do without.
    pub named: bool,
}

impl ConfigFile {
    /// The file that was named, or else the default.
    pub fn new(named: Option<PathBuf>) -> Self {
        let is_named = named.is_some();
        let default =
            || match Path::new(DEFAULT_CONFIG).exists() || !Path::new(SYSTEM_CONFIG).exists() {
                true => DEFAULT_CONFIG.into(),
                false => SYSTEM_CONFIG.into(),
            };
        Self {
            path: named.unwrap_or_else(default),
            named: is_named,
        }
    }

    /// The configuration, which must be there.
    pub fn load(&self) -> Result<Config, Failure> {
        Config::load(&self.path).map_err(|errors| Failure::config_lines(errors.to_string()))
    }

    /// The configuration, which must be there; `instead` is what can be said in its place.
    ///
    /// # Errors
    /// It is not there, or wrong.
    pub fn load_or(&self, instead: &str) -> Result<Config, Failure> {
        if !self.named && !self.path.exists() {
            return Err(Failure::config(format_args!(
                "there is no configuration: neither {DEFAULT_CONFIG} in this folder nor {SYSTEM_CONFIG}; name yours with -c FILE{instead}, or write \
                 one with payrelay init"
            )));
        }
        self.load()
    }

    /// The configuration; `None` if it was not named and the default is not there.
    pub fn load_if_there(&self) -> Result<Option<Config>, Failure> {
        if !self.named && !self.path.exists() {
            return Ok(None);
        }
        self.load().map(Some)
    }
}

/// The packages' folder for the configuration, if the file at `path` is in it; its group is the relay's.
pub fn system_folder_of(path: &Path) -> Option<&'static Path> {
    let folder = Path::new(SYSTEM_CONFIG).parent();
    folder.filter(|_| {
        path.canonicalize()
            .is_ok_and(|path| path.parent() == folder)
    })
}

/// Lets the relay's group read `file`, which is new at `path`, if that is in the packages' folder.
pub fn share(file: &File, path: &Path) -> io::Result<()> {
    let Some(folder) = system_folder_of(path) else {
        return Ok(());
    };
    let group = Gid::from_raw(fs::metadata(folder)?.gid());
    fchown(file, None, Some(group))?;
    file.set_permissions(Permissions::from_mode(0o640))
}
