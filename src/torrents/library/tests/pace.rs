//! Readers that work ahead of their viewer, through a real mount, on a swarm that is slow.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use super::*;

const PIECE: u32 = 256 * 1024;
/// Of the only seeder: a piece takes a second.
const RATE: u32 = 256 * 1024;

/// A process that reads a page of a piece once it is let go.
struct Viewer(Child);

impl Viewer {
    fn new(mountpoint: &Path, piece: u32) -> Viewer {
        let skip = piece * PIECE / 4096;
        let script = format!("read go; exec dd if=Film.mkv bs=4096 count=1 skip={skip} status=none");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(mountpoint);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        Viewer(command.spawn().unwrap())
    }

    fn go(&mut self) {
        self.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }

    fn is_answered(&mut self) -> bool {
        let ended = self.0.try_wait().unwrap();
        assert!(ended.is_none_or(|status| status.success()), "{ended:?}");
        ended.is_some()
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn answered(viewers: &mut [Viewer]) -> usize {
    viewers
        .iter_mut()
        .filter_map(|one| one.is_answered().then_some(()))
        .count()
}

/// Lets a reader that works ahead begin, then four that viewers wait for; `test` sees who is answered when.
async fn scene(test: impl AsyncFnOnce(&Library, Viewer, Vec<Viewer>)) {
    let folder = tempfile::tempdir().unwrap();
    let (_, seeder) = film_of(&folder, "Film.mkv", PIECE, RATE).await;
    let library = open(&folder).await;
    library.add(metainfo(&seeder), with_peer(&seeder)).await.unwrap();
    let (mount, mountpoint) = mounted(&library, &folder, LIMIT);
    let mut viewers: Vec<Viewer> = (1..=4).map(|place| Viewer::new(&mountpoint, 8 * place)).collect();
    let mut ahead = Viewer::new(&mountpoint, 1);
    library.pace(ahead.0.id(), false);
    ahead.go();
    let waiting = || library.all()[0].swarm().map_or(0, |swarm| swarm.waiting());
    until(|| waiting() > 0).await;
    viewers.iter_mut().for_each(Viewer::go);
    until(|| waiting() > 4).await;
    test(&library, ahead, viewers).await;
    mount.stop().unwrap();
    library.stop().await;
    seeder.stop().await;
}

#[test]
fn a_reader_that_works_ahead_of_its_viewer_comes_after_those_that_are_waited_for() {
    run(scene(async |_, mut ahead, mut viewers| {
        until(|| answered(&mut viewers) == 4 || ahead.is_answered()).await;
        assert!(
            !ahead.is_answered(),
            "it was served before {}",
            4 - answered(&mut viewers)
        );
        until(|| ahead.is_answered()).await;
    }));
}

#[test]
fn a_read_that_waits_becomes_urgent_at_once_when_its_viewer_needs_it() {
    run(scene(async |library, mut ahead, mut viewers| {
        until(|| answered(&mut viewers) > 0).await;
        assert!(!ahead.is_answered());
        library.pace(ahead.0.id(), true);
        until(|| ahead.is_answered()).await;
        assert!(
            answered(&mut viewers) <= 2,
            "it had to wait for the others all the same"
        );
        library.forget_pace(ahead.0.id());
    }));
}
