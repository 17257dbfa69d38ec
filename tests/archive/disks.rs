//! Disks that are not ext4: that are wrong about holes, or keep less of a file.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use super::installed::program;
use super::stage::{Stage, said, whole, write_job};

#[test]
fn a_file_system_that_calls_data_a_hole_makes_no_zeros_of_it() {
    if program("strace").is_none() {
        return;
    }
    let stage = Stage::new(&["move"]);
    write_job(&stage.job());
    // Data that is as large as the file, and some in a file of holes.
    fs::write(stage.job().join("model.bin"), [9; 100_000]).unwrap();
    let sparse = File::create(stage.job().join("sparse.bin")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    sparse.write_all_at(&[8; 5000], 3 << 20).unwrap();
    drop(sparse);
    let before = ["model.bin", "sparse.bin"].map(|name| fs::read(stage.job().join(name)).unwrap());
    let tree = whole(&stage.job());
    let log = stage.top().join("strace").to_str().unwrap().to_owned();
    let strace = [
        "--trace=lseek".to_owned(),
        "--inject=lseek:error=ENXIO".to_owned(),
        "-o".to_owned(),
        log,
    ];
    let output = stage.by_one_thread("archive", &strace).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(stage.job().is_symlink());
    let after = ["model.bin", "sparse.bin"].map(|name| fs::read(stage.job().join(name)).unwrap());
    assert!(before == after, "bytes that nobody read");
    let blocks = fs::metadata(stage.archived("move").join("sparse.bin"))
        .unwrap()
        .blocks();
    assert!(blocks <= 32, "zeros that were read are holes: {blocks}");
    stage.verify();
    assert_eq!(whole(&stage.job()), tree);
}
