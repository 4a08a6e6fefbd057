//! The fetcher of metadata under any sequence of offers, parts, refusals and losses: never a panic, no part is asked of a
//! peer twice at a time, nothing but the right dictionary comes out, and nobody is blamed who only sent right parts.
#![no_main]

use std::collections::BTreeSet;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use magnetfs_fuzz::swarm::extension::{METADATA_PART, part_length};
use magnetfs_fuzz::swarm::metadata::{Fetcher, Progress};
use sha1::{Digest, Sha1};

fuzz_target!(|data: &[u8]| {
    let mut input = data.iter().copied();
    let mut next = || input.next();
    let Some(parts) = next() else { return };
    let size = u32::from(parts % 4) * METADATA_PART + 100;
    let truth: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
    let mut fetcher: Fetcher<u8> = Fetcher::new(Sha1::digest(&truth).into());
    let mut now = Duration::ZERO;
    let (mut requests, mut open) = (Vec::new(), BTreeSet::new());
    let mut liars = BTreeSet::new();
    while let (Some(operation), Some(argument)) = (next(), next()) {
        let peer = argument % 8;
        let part = u32::from(argument / 8) % 4;
        match operation % 8 {
            0 => fetcher.offered(peer, size),
            1 => fetcher.offered(peer, size.wrapping_add(u32::from(argument) << (operation % 24))),
            2 => {
                fetcher.gone(peer);
                open.retain(|(other, _)| *other != peer);
            }
            3 => fetcher.refused(now, peer, part),
            4 => now += Duration::from_millis(u64::from(argument) * 50),
            5 => {
                requests.clear();
                fetcher.decide(now, &mut requests);
                let asked: BTreeSet<_> = requests.iter().copied().collect();
                assert_eq!(asked.len(), requests.len());
                open.extend(asked);
            }
            kind => {
                let lies = kind == 7;
                if lies {
                    liars.insert(peer);
                }
                let Some(length) = part_length(part, size) else { continue };
                let begin = (part * METADATA_PART) as usize;
                let mut bytes = truth[begin..begin + length as usize].to_vec();
                if lies {
                    bytes[usize::from(operation) % length as usize] ^= 1;
                }
                match fetcher.data(now, peer, part, size, &bytes) {
                    Progress::Whole(assembly) => {
                        let verdict = fetcher.checked(assembly.check());
                        assert!(verdict.liars.iter().all(|liar| liars.contains(liar)));
                        if let Some(info) = verdict.info {
                            assert_eq!(info, truth);
                            return;
                        }
                    }
                    Progress::Kept => assert!(open.contains(&(peer, part))),
                    Progress::Ignored | Progress::Contradicted => {}
                }
            }
        }
    }
});
