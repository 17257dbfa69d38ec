//! A file that one program writes while another one changes it through a map, both through the same mount.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::{Side, common, with_sides};

const PAGE: usize = 4096;
const PAGES: usize = 4096;

/// Where in each page the map is changed.
const MAPPED: usize = PAGE / 2;

fn long() -> Duration {
    Duration::from_secs(if common::soak() { 600 } else { 8 })
}

/// All pages of a file, mapped for writing.
struct Map(*mut core::ffi::c_void);

// SAFETY: one thread at a time uses it.
#[allow(unsafe_code)]
unsafe impl Send for Map {}

impl Map {
    #[allow(unsafe_code)]
    fn of(file: &File) -> Map {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let (shared, fd) = (libc::MAP_SHARED, file.as_raw_fd());
        // SAFETY: the kernel chooses the address, and only this type uses it.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), PAGES * PAGE, access, shared, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Map(at)
    }

    #[allow(unsafe_code)]
    fn set(&self, at: usize, byte: u8) {
        assert!(at < PAGES * PAGE);
        // SAFETY: within the map of a file that is never shorter.
        unsafe { self.0.cast::<u8>().add(at).write_volatile(byte) };
    }
}

impl Drop for Map {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and used by nothing any more.
        unsafe { libc::munmap(self.0, PAGES * PAGE) };
    }
}

/// Writes a byte of each page, and another one through a map, at the same time; returns the first page that lacks one of them.
fn race(side: &Side, name: &str) -> Option<usize> {
    let file = side.open(name, OFlags::RDWR | OFlags::CREATE);
    rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::empty(),
        0,
        (PAGES * PAGE) as u64,
    )
    .unwrap();
    let map = Map::of(&file);
    std::thread::scope(|scope| {
        scope.spawn(move || (0..PAGES).for_each(|page| map.set(page * PAGE + MAPPED, 2)));
        for page in 0..PAGES {
            file.write_all_at(&[1], (page * PAGE) as u64).unwrap();
        }
    });
    file.sync_all().unwrap();
    let mut contents = vec![0; PAGES * PAGE];
    file.read_exact_at(&mut contents, 0).unwrap();
    let mut pages = contents.chunks(PAGE);
    pages.position(|page| page[0] != 1 || page[MAPPED] != 2)
}

#[test]
fn nothing_is_lost_that_is_written_beside_a_map() {
    with_sides(|[_, elsewhere, _]| {
        let began = Instant::now();
        let mut round = 0;
        while began.elapsed() < long() {
            let name = format!("mapped-{}", round % 2);
            let lost = race(elsewhere, &name);
            assert_eq!(lost, None, "round {round}: a page lacks what was written");
            let _ = rustix::fs::unlinkat(&elsewhere.0, &name, rustix::fs::AtFlags::empty());
            round += 1;
        }
        common::say(&format!("{round} rounds"));
    });
}
