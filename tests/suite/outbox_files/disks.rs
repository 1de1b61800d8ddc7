//! The file system of the outbox goes away, or takes no writes any more.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::site::{Site, config};
use crate::support::{DEADLINE, Setup};

/// A file system in a file, mounted; `None`, loudly, where that may not be.
struct Disk {
    image: PathBuf,
    folder: TempDir,
}

impl Disk {
    fn mounted() -> Option<Self> {
        let folder = TempDir::with_prefix("payrelay-disk-").expect("a folder");
        let image = folder.path().join("image");
        let file = File::create(&image).expect("an image");
        file.set_len(32 << 20).expect("an image");
        fs::create_dir(folder.path().join("at")).expect("a place");
        let disk = Self { image, folder };
        let made = run("mkfs.ext4", &["-q", &disk.image.to_string_lossy()]);
        if made && disk.mount() {
            return Some(disk);
        }
        eprintln!(
            "NOT TESTED: no ext4 in a file can be made and mounted here; run as root, with mkfs.ext4 and loop devices"
        );
        None
    }

    fn at(&self) -> PathBuf {
        self.folder.path().join("at")
    }

    fn mount(&self) -> bool {
        run(
            "mount",
            &[
                "-o",
                "loop",
                &self.image.to_string_lossy(),
                &self.at().to_string_lossy(),
            ],
        )
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l", &self.at().to_string_lossy()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).status();
    status.is_ok_and(|status| status.success())
}

/// A relay whose outbox is on a disk of its own.
fn on_a_disk(disk: &Disk) -> Site {
    let folder = TempDir::new_in(disk.at()).expect("a folder");
    Site::with(folder, Setup::with)
}

#[test]
fn a_file_system_that_is_unmounted_takes_nothing_and_has_everything_when_it_is_mounted_again() {
    let Some(disk) = Disk::mounted() else {
        return;
    };
    let mut site = on_a_disk(&disk);
    assert!(run("umount", &["-l", &disk.at().to_string_lossy()]));
    site.refuses(&["its file system is not mounted any more"]);
    // What lies there then is another file.
    fs::create_dir_all(site.directory()).expect("a folder");
    fs::write(&site.database, b"").expect("written");
    site.refuses(&["outbox.db is not the file that the relay has open"]);
    site.relay.process().signal(Signal::KILL);
    assert_eq!(site.relay.wait_exit(DEADLINE), None);
    assert!(disk.mount());
    site.relay.restart_with(&config(&site.database));
    site.all_is_delivered();
    site.relay.signal(Signal::TERM);
    assert_eq!(site.relay.wait_exit(DEADLINE), Some(0));
}

/// A file system with open files cannot be made read-only by hand; the kernel does it after an error, which `abort` feigns.
#[test]
fn a_file_system_that_takes_no_writes_any_more_is_noticed_before_something_is_stored() {
    let Some(disk) = Disk::mounted() else {
        return;
    };
    let mut site = on_a_disk(&disk);
    assert!(run(
        "mount",
        &["-o", "remount,abort", &disk.at().to_string_lossy()]
    ));
    site.refuses(&["a file system that takes no writes", "dmesg"]);
    site.all_is_found();
}
