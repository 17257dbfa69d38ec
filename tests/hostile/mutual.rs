//! Workspaces that are each other's folders, all mounted in place: each is asked beneath the others' mounts.

use super::*;

/// How long the daemons are watched: each looks at its folders every second.
const WATCHED: Duration = Duration::from_secs(3);

/// Asks every workspace for jobs that none has, and for the job of the workspace that is its folder.
fn assert_answered(workspaces: &[Workspace]) {
    let began = Instant::now();
    let mut round = 0;
    while began.elapsed() < WATCHED {
        std::thread::scope(|scope| {
            for (number, workspace) in workspaces.iter().enumerate() {
                let next = (number + 1) % workspaces.len();
                let primary = workspace.primary();
                scope.spawn(move || {
                    let none = job(&primary, &format!("none{round}"));
                    let (there, said) = promptly(workspace, "ls \"$1\"", &none);
                    assert!(!there && said.contains("No such file"), "{said}");
                    let theirs = job(&primary, &format!("job{next}"));
                    let (there, said) = promptly(workspace, "cat \"$1/train.out\"", &theirs);
                    assert!(there, "{said}: {}", workspace.log());
                });
            }
        });
        round += 1;
    }
    // What a folder of a folder has does not show: nothing goes through the other's mount.
    if workspaces.len() > 2 {
        let third = job(&workspaces[0].primary(), "job2");
        assert!(!promptly(&workspaces[0], "ls \"$1\"", &third).0);
    }
}

fn ring(count: usize, ordinary: bool) -> Vec<Workspace> {
    let workspaces: Vec<Workspace> = (0..count)
        .map(|_| match ordinary {
            true => Workspace::of_ordinary_user(),
            false => Workspace::new(),
        })
        .collect();
    for (number, workspace) in workspaces.iter().enumerate() {
        workspace.finished("primary", TASK, &format!("job{number}"));
        workspace.with_folders(&[]);
        workspace.give_away();
    }
    workspaces
}

/// Mounts all in place, asks them, and unmounts all but the last while that is mounted.
fn play(workspaces: &[Workspace]) {
    let mounts: Vec<_> = workspaces
        .iter()
        .map(|workspace| workspace.mount_beside(&workspaces[0].top()))
        .collect();
    assert_answered(workspaces);
    for mounted in mounts {
        mounted.unmount();
    }
}

#[test]
fn workspaces_that_are_each_others_folders_hang_nobody() {
    for (count, ordinary) in [(2, false), (3, true)] {
        let workspaces = ring(count, ordinary);
        for (number, workspace) in workspaces.iter().enumerate() {
            workspace.attach("use", &workspaces[(number + 1) % count].primary());
        }
        play(&workspaces);
    }
}

#[test]
fn a_folder_is_served_beneath_a_mount_that_a_symlink_or_a_bind_mount_leads_to() {
    let workspaces = ring(2, false);
    let [first, second] = workspaces.as_slice() else {
        unreachable!()
    };
    let link = first.top().join("link");
    symlink(second.top(), &link).unwrap();
    first.attach("use", &link.join("primary"));
    second.attach("use", &first.primary());
    play(&workspaces);

    first.with_folders(&[]);
    let bound = first.mountpoint("bound");
    first.attach("use", &bound);
    let mounted = second.mount_beside(&first.top());
    let mut bind = Command::new("mount");
    run(bind.arg("--bind").arg(second.primary()).arg(&bound));
    let other = first.mount_beside(&first.top());
    assert_answered(&workspaces);
    other.unmount();
    run(Command::new("umount").arg(&bound));
    mounted.unmount();
}

#[test]
fn a_folder_inside_the_mount_of_another_workspace_is_served_beneath_it() {
    let workspaces = ring(2, false);
    let [first, second] = workspaces.as_slice() else {
        unreachable!()
    };
    let inside = second.primary().join("inside");
    fs::create_dir(&inside).unwrap();
    fs::rename(second.primary().join("jobs"), inside.join("jobs")).unwrap();
    first.attach("use", &inside);
    second.attach("use", &first.primary());
    let mounts = [second, first].map(|workspace| workspace.mount_beside(&first.top()));
    let theirs = job(&first.primary(), "job1");
    assert!(promptly(first, "cat \"$1/train.out\"", &theirs).0);
    let none = job(&first.primary(), "none");
    assert!(!promptly(first, "ls \"$1\"", &none).0);
    let _ = mounts.map(Mounted::unmount);
}
