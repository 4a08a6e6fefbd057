//! A read whose piece nobody has, while others get theirs.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::*;

const DEADLINE: Duration = Duration::from_secs(3);
/// Bytes a second of the only seeder, which has this much of the film.
const RATE: u32 = 128 * 1024;
const PART: usize = 20 * PIECE_LENGTH as usize;

fn read_in_child(mountpoint: &Path, from: usize, bytes: usize) -> Child {
    let (skip, count) = (format!("skip={from}"), format!("count={bytes}"));
    let mut command = Command::new("dd");
    command.args(["if=Film.mkv", "bs=64K", "iflag=skip_bytes,count_bytes", &skip, &count]);
    command
        .current_dir(mountpoint)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

/// A library that has the beginning of a film and gives it, slowly.
async fn partial_seeder(folder: &TempDir, source: &Seeder) -> Arc<Library> {
    let mut options = options(folder.path());
    options.engine.listen = Some((Ipv4Addr::LOCALHOST, 0).into());
    options.engine.upload_limit = std::num::NonZeroU64::new(RATE.into());
    let library = Library::open(options).await.unwrap();
    library.add(metainfo(source), with_peer(source)).await.unwrap();
    for offset in (0..PART).step_by(PIECE_LENGTH as usize) {
        read(&library, "Film.mkv", offset as u64, PIECE_LENGTH as usize)
            .await
            .unwrap();
    }
    library
}

/// "Another reader's progress must not keep a hopeless read alive."
#[test]
fn a_read_that_nobody_can_answer_ends_at_its_deadline_while_another_makes_progress() {
    run(async {
        let (near, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_, seeder) = film(&far, "Film.mkv").await;
        let partial = partial_seeder(&far, &seeder).await;
        let source = metainfo(&seeder);
        seeder.stop().await;
        let lacking = (0..41)
            .rev()
            .find(|piece| !partial.all()[0].contents().unwrap().store.has(*piece));
        let lacking = lacking.expect("what was not read was not fetched") as usize * PIECE_LENGTH as usize;

        let library = open(&near).await;
        let peer = AddOptions {
            peers: vec![(Ipv4Addr::LOCALHOST, partial.engine.listen_port().unwrap()).into()],
            ..AddOptions::default()
        };
        library.add(source, peer).await.unwrap();
        let (mount, mountpoint) = mounted(&library, &near, DEADLINE);
        let mut healthy = read_in_child(&mountpoint, 0, PART);
        let begun = Instant::now();
        let mut hopeless = read_in_child(&mountpoint, lacking, 4096);
        let mut ended = None;
        until(|| {
            ended = hopeless.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        assert!(!ended.unwrap().success());
        let took = begun.elapsed();
        assert!(
            (DEADLINE..DEADLINE + Duration::from_secs(3)).contains(&took),
            "{took:?}"
        );
        assert!(
            healthy.try_wait().unwrap().is_none(),
            "the other was done too early to matter"
        );
        until(|| {
            ended = healthy.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        assert!(ended.unwrap().success(), "the other was kept from its bytes");
        mount.stop().unwrap();
        library.stop().await;
        partial.stop().await;
    });
}
