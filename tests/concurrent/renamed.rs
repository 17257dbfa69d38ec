//! A process stands in a directory, or has a file of it open, while others rename the directory.

use std::path::Path;

use crate::common::{Workspace, run};

/// Stands in a directory of a mount while it, one above it, or the one beside it gets another name elsewhere: `$1` is the
/// mount, `$2` where the renaming is done, `$3` what lies beneath, `$4` what its
/// names begin with.
const SCRIPT: &str = r#"
set -eu
mount=$1; by=$2; disk=$3; tag=$4
go_on() {
    # Relative paths, as on a disk: $1 is where the directory is now.
    ls >/dev/null
    test "$(cat file)" = contents
    test "$(stat -c %F .)" = directory
    stat file >/dev/null
    echo new >made; test "$(cat "$disk/$1/made")" = new
    mkdir sub; echo x >sub/x; test -f "$disk/$1/sub/x"
    mv made sub/moved; test -f "$disk/$1/sub/moved"
    rm sub/x sub/moved; rmdir sub
    test ! -e sub
    # The open file, by its descriptor.
    echo more >&3; test "$(cat "$disk/$1/open")" = more
    exec 3>&-
    chmod 0750 .; test "$(stat -c %a .)" = 750
}
for case in \
    "$tag-1 $tag-1 $tag-2" \
    "$tag-up/3 $tag-up/3 $tag-up/4" \
    "$tag-up/5/below $tag-up/5/below $tag-up/other" \
    "$tag-6/below $tag-6 $tag-7" \
    "$tag-8/below/deep $tag-8 $tag-unseen/9" \
    "$tag-seen/10 $tag-seen/10 $tag-unseen/11" \
    "jobs/$tag/h jobs/$tag/h jobs/$tag/i" \
    "jobs/$tag/j/below jobs/$tag/j jobs/$tag/k"
do
    set -- $case
    mkdir -p "$disk/$1" "$disk/$(dirname "$3")"
    echo contents >"$disk/$1/file"
    (
        cd "$mount/$1"
        exec 3>open
        ls >/dev/null
        mv "$by/$2" "$by/$3"
        # The kernel believes names and attributes for a second.
        sleep 1.1
        now=$3${1#"$2"}
        trap 'test $? = 0 || echo "in $case" >&2' EXIT
        go_on "$now"
        # Found by its new name, it is the same directory. The kernel, which moves it there, fails with ESTALE while
        # another process renames something from directory to directory.
        for attempt in 1 2 3 4 5 6 7 8 9; do stat "$mount/$now" >/dev/null 2>&1 && break; sleep 0.1; done
        test "$(stat -c %i .)" = "$(stat -c %i "$mount/$now")"
        cd "$mount/$now"; test "$(pwd -P)" = "$mount/$now"
        cd ..; test "$(pwd -P)" = "$(dirname "$mount/$now")"
    ) &
    pids="${pids:-} $!"
done
for pid in $pids; do wait "$pid"; done
"#;

fn rename_under(workspace: &Workspace) {
    let at = workspace.mountpoint("mnt");
    let other = workspace.mountpoint("other");
    let (mounted, by_other) = (workspace.mount_at(&at), workspace.mount_at(&other));
    let beneath = workspace.primary();
    go_on(workspace, [&at, &other, &beneath], "mount");
    go_on(workspace, [&at, &beneath, &beneath], "disk");
    mounted.unmount();
    let in_place = workspace.mount_in_place();
    go_on(workspace, [in_place.path(), &other, &other], "place");
    in_place.unmount();
    by_other.unmount();
}

fn go_on(workspace: &Workspace, places: [&Path; 3], tag: &str) {
    let mut command = workspace.command("sh");
    command.args(["-c", SCRIPT, "sh"]).args(places);
    run(command.arg(tag));
}

#[test]
fn a_process_goes_on_in_a_directory_that_is_renamed() {
    rename_under(&Workspace::new());
}

#[test]
fn an_ordinary_users_process_goes_on_in_a_directory_that_is_renamed() {
    rename_under(&Workspace::of_ordinary_user());
}
