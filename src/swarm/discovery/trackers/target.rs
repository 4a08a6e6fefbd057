//! A tracker's URL, checked; and what is said to it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use url::{Host, Url};

use crate::swarm::discovery::{DiscoveryError, InfoHash};

/// A URL longer than this is no tracker's.
const URL_LIMIT: usize = 2048;

/// What an announce is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Regular,
    Started,
    Completed,
    Stopped,
}

/// What is said in an announce.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) info_hash: InfoHash,
    pub(super) peer_id: [u8; 20],
    pub(super) port: u16,
    /// Lets a tracker know us again when our address has changed.
    pub(super) key: u32,
    pub(super) uploaded: u64,
    pub(super) downloaded: u64,
    pub(super) left: u64,
    pub(super) event: Event,
    /// How many peers we would like.
    pub(super) want: u32,
    pub(super) tracker_id: Option<Vec<u8>>,
}

/// An IP version. A tracker is asked over each that we have, as it tells peers of that one only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub(super) fn unspecified(self) -> SocketAddr {
        match self {
            Family::V4 => ([0, 0, 0, 0], 0).into(),
            Family::V6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
        }
    }
}

/// A tracker that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Http(Url),
    Udp {
        host: String,
        port: u16,
        /// Path and query, which some trackers read a key from (BEP 41).
        path: String,
    },
}

impl Target {
    /// Checks a tracker's URL as a torrent or the user gives it.
    pub(super) fn parse(text: &str) -> Result<Self, DiscoveryError> {
        if text.len() > URL_LIMIT {
            return Err(DiscoveryError::Unusable("the URL is too long"));
        }
        let url = Url::parse(text.trim()).map_err(|_| DiscoveryError::Unusable("not a URL"))?;
        let Some(host) = url.host() else {
            return Err(DiscoveryError::Unusable("no host in the URL"));
        };
        match url.scheme() {
            "http" | "https" => {
                // A torrent must not make us ask a service of this machine for a page of its choice.
                if is_loopback(&host) && !url.path().ends_with("/announce") {
                    return Err(DiscoveryError::Unusable(
                        "on this machine, and its path is not /announce",
                    ));
                }
                Ok(Target::Http(url))
            }
            "udp" => {
                let port = url.port().filter(|port| *port != 0);
                let path = match (url.path(), url.query()) {
                    ("" | "/", None) => String::new(),
                    (path, None) => path.to_owned(),
                    (path, Some(query)) => format!("{path}?{query}"),
                };
                Ok(Target::Udp {
                    host: match host {
                        Host::Ipv6(ip) => ip.to_string(),
                        host => host.to_string(),
                    },
                    port: port.ok_or(DiscoveryError::Unusable("no port in the URL"))?,
                    path,
                })
            }
            _ => Err(DiscoveryError::Unusable("only http, https and udp are spoken")),
        }
    }

    /// The IP versions to ask it over.
    pub(super) fn families(&self) -> Vec<Family> {
        let literal = match self {
            Target::Http(url) => match url.host() {
                Some(Host::Ipv4(ip)) => Some(ip.into()),
                Some(Host::Ipv6(ip)) => Some(ip.into()),
                _ => None,
            },
            Target::Udp { host, .. } => host.parse::<IpAddr>().ok(),
        };
        match literal {
            Some(ip) => vec![Family::of(ip)],
            None if has_v6() => vec![Family::V4, Family::V6],
            None => vec![Family::V4],
        }
    }
}

/// Whether the kernel has a way to IPv6 addresses of the internet. Sends nothing.
fn has_v6() -> bool {
    const SOMEWHERE: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1)), 9);
    UdpSocket::bind(Family::V6.unspecified()).is_ok_and(|socket| socket.connect(SOMEWHERE).is_ok())
}

pub(super) fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => IpAddr::from(*ip).to_canonical().is_loopback(),
    }
}

/// On this machine or its own network, as far as the URL tells.
pub(super) fn is_local(host: &Host<&str>) -> bool {
    is_loopback(host)
        || match host {
            Host::Domain(_) => false,
            Host::Ipv4(ip) => ip.is_private() || ip.is_link_local() || ip.is_unspecified(),
            Host::Ipv6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let udp = |text| match Target::parse(text) {
            Ok(Target::Udp { host, port, path }) => format!("{host} {port} {path}"),
            other => format!("{other:?}"),
        };
        assert_eq!(udp("udp://tracker.example.org:6969"), "tracker.example.org 6969 ");
        assert_eq!(udp("udp://[2001:db8::1]:6969/"), "2001:db8::1 6969 ");
        assert_eq!(
            udp(" udp://192.0.2.1:6969/announce?key=1 "),
            "192.0.2.1 6969 /announce?key=1"
        );
        assert!(matches!(
            Target::parse("https://t.example.org/a?key=1"),
            Ok(Target::Http(_))
        ));
        for refused in [
            "",
            "tracker.example.org",
            "udp://tracker.example.org",
            "udp://tracker.example.org:0",
            "udp:///announce",
            "wss://tracker.example.org:1/announce",
            "http://",
            "file:///etc/passwd",
            "http://localhost:631/printers?delete=1",
            "http://127.0.0.1/",
            "http://[::ffff:127.0.0.1]/",
        ] {
            let target = Target::parse(refused);
            assert!(
                matches!(target, Err(DiscoveryError::Unusable(_))),
                "{refused}: {target:?}"
            );
        }
        assert!(Target::parse(&format!("http://example.org/{}", "a".repeat(URL_LIMIT))).is_err());
        assert!(Target::parse("http://127.0.0.1:6969/key/announce").is_ok());
    }

    #[test]
    fn an_address_is_asked_over_its_own_family_only() {
        let families = |text| Target::parse(text).unwrap().families();
        assert_eq!(families("udp://127.0.0.1:1"), [Family::V4]);
        assert_eq!(families("udp://[::1]:1"), [Family::V6]);
        assert_eq!(families("http://[::1]:1/announce"), [Family::V6]);
        assert_eq!(families("http://example.org/announce")[0], Family::V4);
    }
}
