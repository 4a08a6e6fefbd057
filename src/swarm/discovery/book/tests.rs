use proptest::prelude::*;

use super::entry::{BACKOFF_MOST, LEFT_ALONE};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn book() -> Book {
    Book::new(false, 3, 1)
}

fn address(n: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::from([198, 18, (n >> 8) as u8, n as u8]), 6881)
}

fn addresses(dials: &[Dial]) -> Vec<SocketAddr> {
    dials.iter().map(|dial| dial.address).collect()
}

fn connect(book: &mut Book, now: Instant, address: SocketAddr) {
    assert_eq!(addresses(&book.next(now, 1, false)), [address]);
    book.connected(now, address);
}

#[test]
fn what_cannot_be_a_peer_is_refused() {
    let mut book = book();
    let now = Instant::now();
    for refused in [
        "0.0.0.0:1",
        "0.1.2.3:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "240.0.0.1:1",
        "[::]:1",
        "[ff02::1]:1",
        "[::ffff:0.0.0.0]:1",
        "[::ffff:224.0.0.1]:1",
        "203.0.113.1:0",
    ] {
        assert_eq!(book.add(now, [refused.parse().unwrap()], Source::Given), 0, "{refused}");
    }
    for taken in [
        "127.0.0.1:1",
        "[::1]:1",
        "192.168.0.1:1",
        "[fe80::1%3]:1",
        "203.0.113.1:1",
    ] {
        let taken: SocketAddr = taken.parse().unwrap();
        assert_eq!(book.add(now, [taken], Source::Peer), 1, "{taken}");
        assert_eq!(book.add(now, [taken], Source::Tracker), 0, "{taken} again");
    }
    assert_eq!(
        book.add(now, ["[::ffff:203.0.113.1]:1".parse().unwrap()], Source::Peer),
        0
    );
    assert_eq!(book.counts().known, 5);
}

#[test]
fn what_is_named_by_better_sources_is_dialled_first() {
    let mut book = book();
    let now = Instant::now();
    for (n, source) in [
        Source::Peer,
        Source::Dht,
        Source::Tracker,
        Source::Remembered,
        Source::Given,
    ]
    .into_iter()
    .enumerate()
    {
        book.add(now, [address(n as u32)], source);
    }
    let dials = book.next(now, 4, false);
    assert_eq!(addresses(&dials), [address(4), address(3), address(2), address(1)]);
    assert_eq!(book.counts().dialing, 4);
    assert_eq!(addresses(&book.next(now, 4, false)), [address(0)]);
    assert!(book.next(now, 4, true).is_empty(), "all are being dialled");
    assert_eq!(book.next_due(true), None);
}

#[test]
fn failures_double_the_pause_up_to_ten_minutes() {
    let mut book = book();
    let mut now = Instant::now();
    book.add(now, [address(1)], Source::Tracker);
    let mut pauses = Vec::new();
    for _ in 0..14 {
        assert_eq!(book.next(now, 1, false).len(), 1);
        book.failed(now, address(1));
        let due = book.next_due(false).unwrap();
        assert!(book.next(due - SECOND / 100, 1, false).is_empty());
        pauses.push(due - now);
        now = due;
    }
    for (n, pause) in pauses.iter().enumerate() {
        let middle = (2.0 * f64::powi(2.0, n as i32)).min(600.0);
        assert!(
            (0.75..=1.25).contains(&(pause.as_secs_f64() / middle)),
            "{n}: {pause:?}"
        );
        assert!(*pause <= BACKOFF_MOST);
    }
    // A read that waits cuts it to ten seconds: this one has never been connected.
    assert_eq!(book.next(now, 1, false).len(), 1);
    book.failed(now, address(1));
    assert_eq!(book.next_due(true), Some(now + URGENT_STRANGER));
}

/// The seeder is gone for `outage` and a read waits all the time; each dial is answered after `answer` while it is gone
/// (`None`: never), and at once when it is back. How long after its return is it connected?
fn reconnected(outage: Duration, answer: Option<Duration>) -> Duration {
    let mut book = book();
    let start = Instant::now();
    book.add(start, [address(1)], Source::Tracker);
    connect(&mut book, start, address(1));
    let mut now = start + 100 * SECOND;
    let back = now + outage;
    book.ended(now, address(1), Ended::Lost);
    loop {
        now = now.max(book.next_due(true).expect("there is one to dial"));
        let dials = book.next(now, 10, true);
        assert_eq!(addresses(&dials), [address(1)]);
        if now >= back {
            return now - back;
        }
        now += answer.unwrap_or(dials[0].patience);
        book.failed(now, address(1));
    }
}

#[test]
fn a_peer_that_comes_back_while_a_read_waits_is_met_within_two_seconds() {
    for outage in [0, 1, 19, 20, 300, 3_600] {
        for answer in [Some(Duration::ZERO), Some(SECOND / 3), None] {
            for part in [0, 333, 500, 999] {
                let outage = Duration::from_millis(outage * 1000 + part);
                let took = reconnected(outage, answer);
                assert!(took <= 2 * SECOND, "{outage:?} {answer:?}: {took:?}");
            }
        }
    }
}

#[test]
fn many_known_peers_are_not_all_dialled_every_second() {
    let mut book = book();
    let start = Instant::now();
    book.add(start, (0..320).map(address), Source::Given);
    let mut dials = [0; 60];
    for tenth in 0..600 {
        let now = start + tenth * SECOND / 10;
        for dial in book.next(now, 50, true) {
            dials[tenth as usize / 10] += 1;
            book.failed(now, dial.address);
        }
    }
    // The usual pauses are shorter at first.
    let later: u32 = dials[20..].iter().sum();
    assert!((40 * 30..=40 * 33).contains(&later), "{dials:?}");
}

#[test]
fn a_peer_that_is_not_needed_or_misbehaves_is_left_alone_even_by_a_waiting_read() {
    for how in [Ended::Unneeded, Ended::Misbehaved] {
        let mut book = book();
        let now = Instant::now();
        book.add(now, [address(1)], Source::Given);
        connect(&mut book, now, address(1));
        book.ended(now, address(1), how);
        assert_eq!(book.next_due(true), Some(now + LEFT_ALONE));
        assert!(book.next(now + 599 * SECOND, 1, true).is_empty());
        assert_eq!(book.next(now + 600 * SECOND, 1, true).len(), 1);
    }
}

#[test]
fn few_connections_are_begun_with_one_address() {
    let mut book = book();
    let now = Instant::now();
    let ports = |ip: [u8; 4]| (1..=6u16).map(move |port| SocketAddr::new(ip.into(), port));
    book.add(now, ports([198, 51, 100, 1]), Source::Tracker);
    book.add(now, ports([198, 51, 100, 2]), Source::Tracker);
    let dials = book.next(now, 100, true);
    let to = |last: u8| {
        let ip = IpAddr::from([198, 51, 100, last]);
        dials.iter().filter(|dial| dial.address.ip() == ip).count()
    };
    assert_eq!((to(1), to(2), dials.len()), (3, 3, 6));
    assert!(book.next(now, 100, true).is_empty());
    let first = dials[0].address;
    book.failed(now, first);
    let next = book.next(now, 100, true);
    assert!(
        next.len() == 1 && next[0].address.ip() == first.ip(),
        "one place is free: {next:?}"
    );
}

#[test]
fn ourselves_are_met_once() {
    let mut book = book();
    let now = Instant::now();
    book.add(now, [address(1)], Source::Tracker);
    connect(&mut book, now, address(1));
    book.ended(now, address(1), Ended::Ourselves);
    assert_eq!(book.add(now, [address(1)], Source::Tracker), 0);
    assert_eq!(book.counts(), Counts::default());
}

#[test]
fn a_private_torrent_takes_trackers_and_the_user_only() {
    let mut book = Book::new(true, 3, 1);
    let now = Instant::now();
    for source in [Source::Dht, Source::Peer, Source::Local, Source::Remembered] {
        assert_eq!(book.add(now, [address(1)], source), 0, "{source:?}");
    }
    assert_eq!(book.add(now, [address(1)], Source::Tracker), 1);
    assert_eq!(book.add(now, [address(2)], Source::Given), 1);
    assert!(book.remembered().is_empty());

    // A magnet that turns out to be private.
    let mut book = Book::new(false, 3, 1);
    book.add(now, [address(1), address(2), address(3)], Source::Dht);
    book.add(now, [address(1)], Source::Tracker);
    book.add(now, [address(4)], Source::Peer);
    for dial in book.next(now, 3, false) {
        book.connected(now, dial.address);
    }
    let mut closing = book.set_private();
    closing.sort();
    assert_eq!(closing, [address(2), address(3)]);
    assert_eq!(book.counts().known, 3, "the peer's own is forgotten at once");
    for address in closing {
        book.ended(now, address, Ended::Unneeded);
    }
    assert_eq!(
        book.counts(),
        Counts {
            known: 1,
            dialing: 0,
            connected: 1
        }
    );
}

#[test]
fn who_connected_to_us_can_be_dialled_at_the_port_it_named() {
    let mut book = book();
    let start = Instant::now();
    let from: SocketAddr = "[::ffff:198.51.100.7]:50123".parse().unwrap();
    let listens: SocketAddr = "198.51.100.7:6881".parse().unwrap();
    assert!(book.incoming(from));
    book.listens(start, from, 6881);
    assert_eq!(
        book.counts(),
        Counts {
            known: 1,
            dialing: 0,
            connected: 1
        }
    );
    assert!(book.next(start, 10, true).is_empty(), "it is connected");
    assert_eq!(book.remembered(), [listens]);
    let now = start + 60 * SECOND;
    book.ended(now, from, Ended::Lost);
    assert_eq!(addresses(&book.next(now, 10, true)), [listens]);
    book.failed(now, listens);
    assert_eq!(
        book.counts(),
        Counts {
            known: 1,
            dialing: 0,
            connected: 0
        }
    );
    // The port of a connection that is not there, or port 0, names nobody.
    book.listens(now, from, 6882);
    assert!(book.incoming(from));
    book.listens(now, from, 0);
    assert_eq!(
        book.counts(),
        Counts {
            known: 1,
            dialing: 0,
            connected: 1
        }
    );
}

#[test]
fn a_ban_is_for_the_address_and_on_loopback_for_the_port() {
    let mut book = book();
    let now = Instant::now();
    book.add(now, [address(1)], Source::Tracker);
    connect(&mut book, now, address(1));
    let mut other_port = address(1);
    other_port.set_port(7000);
    book.add(now, [other_port], Source::Tracker);
    book.ban(address(1));
    assert_eq!(book.counts().known, 1, "the connection's end is still to be reported");
    book.ended(now, address(1), Ended::Misbehaved);
    assert_eq!(book.counts(), Counts::default());
    assert_eq!(book.add(now, [address(1), other_port], Source::Given), 0);
    assert!(!book.incoming(SocketAddr::new(address(1).ip(), 55_555)));

    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    assert!(book.incoming(local(50_000)));
    book.listens(now, local(50_000), 1);
    book.ban(local(50_000));
    book.ended(now, local(50_000), Ended::Misbehaved);
    assert_eq!(
        book.add(now, [local(1)], Source::Given),
        0,
        "the port it listens at is banned too"
    );
    assert_eq!(book.add(now, [local(2)], Source::Given), 1);
    assert!(book.is_banned(local(1)) && !book.is_banned(local(2)));
}

#[test]
fn a_flood_from_peers_displaces_nobody_and_one_victims_ports_are_few() {
    let mut book = book();
    let now = Instant::now();
    assert_eq!(book.add(now, (0..5_000).map(address), Source::Peer), ENTRIES_FROM_PEERS);
    assert_eq!(book.add(now, (10_000..15_000).map(address), Source::Tracker), ENTRIES);
    assert_eq!(book.counts().known, ENTRIES);
    assert_eq!(book.add(now, (20_000..25_000).map(address), Source::Peer), 0);
    assert_eq!(book.add(now, (20_000..20_010).map(address), Source::Given), 10);
    assert_eq!(book.counts().known, ENTRIES);

    let mut book = self::book();
    let ports = |ip: IpAddr| (1..=65_535).map(move |port| SocketAddr::new(ip, port));
    assert_eq!(
        book.add(now, ports([198, 51, 100, 1].into()), Source::Peer),
        PORTS_PER_ADDRESS
    );
    let subscriber = (0..1_000u16).map(|n| SocketAddr::new(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]), 1));
    assert_eq!(book.add(now, subscriber, Source::Peer), PORTS_PER_ADDRESS);
}

#[test]
fn those_that_worked_are_remembered_the_connected_ones_first() {
    let mut book = book();
    let now = Instant::now();
    book.add(now, (0..400).map(address), Source::Tracker);
    for dial in book.next(now, 300, false) {
        book.connected(now, dial.address);
    }
    for n in 0..300 {
        book.ended(now, address(n), Ended::Lost);
    }
    let connected = book.counts().connected;
    let remembered = book.remembered();
    assert_eq!(remembered.len(), REMEMBERED);
    assert!(connected > 0 && connected < REMEMBERED);
    let text = serde_json::to_string(&remembered).unwrap();
    let read: Vec<SocketAddr> = serde_json::from_str(&text).unwrap();
    let mut next_run = self::book();
    assert_eq!(next_run.add(now, read, Source::Remembered), REMEMBERED);
}

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<u32>, Source),
    Next(usize, bool),
    Outcome(usize, u8),
    Ended(usize, u8),
    Incoming(u32, u16),
    Ban(u32),
    Private,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let source = prop_oneof![
        Just(Source::Given),
        Just(Source::Local),
        Just(Source::Remembered),
        Just(Source::Tracker),
        Just(Source::Peer)
    ];
    prop_oneof![
        4 => (proptest::collection::vec(0u32..40, 0..8), source).prop_map(|(n, source)| Step::Add(n, source)),
        4 => (0usize..6, any::<bool>()).prop_map(|(want, urgent)| Step::Next(want, urgent)),
        6 => (0usize..100, 0u8..3).prop_map(|(index, how)| Step::Outcome(index, how)),
        4 => (0usize..100, 0u8..4).prop_map(|(index, how)| Step::Ended(index, how)),
        2 => (0u32..40, 0u16..3).prop_map(|(n, port)| Step::Incoming(n, port)),
        1 => (0u32..40).prop_map(Step::Ban),
        1 => Just(Step::Private),
        4 => (0u64..20_000).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Four ports at each of ten IPs, whatever happens to them.
    #[test]
    fn the_book_agrees_with_its_owner(steps in proptest::collection::vec(step(), 0..120)) {
        let address = |n: u32| SocketAddr::new(IpAddr::from([198, 51, 100, (n / 4) as u8]), 1000 + (n % 4) as u16);
        let mut book = Book::new(false, 2, 3);
        let mut now = Instant::now();
        let (mut dialing, mut connected): (Vec<SocketAddr>, Vec<SocketAddr>) = (Vec::new(), Vec::new());
        let mut guest_port = 50_000;
        for step in steps {
            match step {
                Step::Add(numbers, source) => {
                    book.add(now, numbers.into_iter().map(address), source);
                }
                Step::Next(want, urgent) => {
                    let promised = book.next_due(urgent).is_some_and(|due| due <= now);
                    let dials = book.next(now, want, urgent);
                    prop_assert!(dials.len() <= want);
                    prop_assert_eq!(promised && want > 0, !dials.is_empty());
                    for dial in dials {
                        prop_assert!(!dialing.contains(&dial.address) && !connected.contains(&dial.address));
                        prop_assert!(!book.is_banned(dial.address));
                        dialing.push(dial.address);
                        let ip = |a: &&SocketAddr| a.ip() == dial.address.ip();
                        let guests = connected.iter().filter(ip).filter(|a| a.port() >= 50_000).count();
                        let active = dialing.iter().filter(ip).count() + connected.iter().filter(ip).count();
                        prop_assert!(active <= 2.max(guests));
                    }
                }
                Step::Outcome(index, how) if !dialing.is_empty() => {
                    let address = dialing.swap_remove(index % dialing.len());
                    match how {
                        0 => {
                            book.connected(now, address);
                            connected.push(address);
                        }
                        1 => book.failed(now, address),
                        _ => book.put_off(now, address),
                    }
                }
                Step::Ended(index, how) if !connected.is_empty() => {
                    let address = connected.swap_remove(index % connected.len());
                    let how = [Ended::Lost, Ended::Unneeded, Ended::Misbehaved, Ended::Ourselves][usize::from(how)];
                    book.ended(now, address, how);
                }
                Step::Incoming(n, port) => {
                    guest_port += 1;
                    let from = SocketAddr::new(address(n).ip(), guest_port);
                    let banned = book.is_banned(from);
                    prop_assert_eq!(book.incoming(from), !banned);
                    if !banned {
                        connected.push(from);
                        book.listens(now, from, 1000 + port);
                    }
                }
                Step::Ban(n) => book.ban(address(n)),
                Step::Private => {
                    for address in book.set_private() {
                        prop_assert!(dialing.contains(&address) || connected.contains(&address));
                    }
                }
                Step::Pass(milliseconds) => now += Duration::from_millis(milliseconds),
                Step::Outcome(..) | Step::Ended(..) => {}
            }
            let counts = book.counts();
            prop_assert_eq!(counts.dialing, dialing.len());
            prop_assert_eq!(counts.connected, connected.len());
        }
        for address in dialing {
            book.failed(now, address);
        }
        for address in connected {
            book.ended(now, address, Ended::Lost);
        }
        prop_assert_eq!((book.counts().dialing, book.counts().connected), (0, 0));
        for n in 0..40 {
            prop_assert_eq!(book.active.count(address(n).ip()), 0);
        }
        for address in book.entries.keys().copied().collect::<Vec<_>>() {
            book.remove(address);
        }
        prop_assert!((0..40).all(|n| book.ports.count(address(n).ip()) == 0));
    }
}
