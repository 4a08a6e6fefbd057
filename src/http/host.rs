//! Hosts as they are compared, however they were written.

use std::net::IpAddr;

use axum::http::uri::Authority;

/// The name or the address of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// One of IPv4 that is written as one of IPv6 is itself.
    Address(IpAddr),
    /// In lower case, without the dot of the root at its end.
    Name(String),
}

impl Host {
    /// Of `media.lan`, `192.0.2.7`, `[2001:db8::7]`, or the last without its brackets.
    pub(super) fn of(text: &str) -> Host {
        let text = text.strip_suffix('.').unwrap_or(text);
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        match bare.unwrap_or(text).parse::<IpAddr>() {
            Ok(address) => Host::Address(address.to_canonical()),
            Err(_) => Host::Name(text.to_ascii_lowercase()),
        }
    }
}

/// A host, and the port that stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: Host,
    /// `None` stands for the scheme's own.
    pub(super) port: Option<u16>,
}

impl Place {
    /// `None` where a user is named before the host, or what stands behind it is no port.
    pub(super) fn of(authority: &Authority) -> Option<Place> {
        let behind = authority.as_str().strip_prefix(authority.host())?;
        let port = match behind.strip_prefix(':') {
            Some("") => None,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
            None if behind.is_empty() => None,
            _ => return None,
        };
        Some(Place {
            host: Host::of(authority.host()),
            port,
        })
    }

    /// Whether both are the same for who speaks a scheme with this port of its own.
    pub(super) fn is(&self, other: &Place, usual_port: u16) -> bool {
        self.host == other.host && self.port.unwrap_or(usual_port) == other.port.unwrap_or(usual_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_the_same_however_it_is_written() {
        for (one, other) in [
            ("media.lan", "MEDIA.Lan."),
            ("192.0.2.7", "192.0.2.7."),
            ("192.0.2.7", "[::FFFF:192.0.2.7]"),
            ("2001:db8::9", "[2001:0DB8:0:0::9]"),
            ("[::ffff:c000:207]", "192.0.2.7"),
        ] {
            assert_eq!(Host::of(one), Host::of(other), "{one} {other}");
        }
        for (one, other) in [
            ("media.lan", "media.lan.."),
            ("media.lan", ".media.lan"),
            ("media.lan", "media.lan.evil.example"),
            ("media.lan", "[media.lan]"),
            ("2001:db8::9", "[2001:db8::9].evil.example"),
            ("192.0.2.7", "192.0.2.007"),
            ("192.0.2.7", "3221225991"),
        ] {
            assert_ne!(Host::of(one), Host::of(other), "{one} {other}");
        }
    }

    #[test]
    fn a_place_has_a_port_or_none() {
        let place = |text: &str| text.parse().ok().and_then(|authority| Place::of(&authority));
        let port = |text: &str| place(text).map(|place| place.port);
        assert_eq!(port("media.lan"), Some(None));
        assert_eq!(port("media.lan:"), Some(None));
        assert_eq!(port("media.lan:0443"), Some(Some(443)));
        assert_eq!(port("[2001:db8::9]:1"), Some(Some(1)));
        for nothing in [
            "media.lan:x",
            "media.lan:+1",
            "media.lan:65536",
            "media.lan:1:2",
            "[::1]x",
            "[::1]1",
            "a@media.lan",
            "media.lan@evil.example",
            "media.lan:1@evil.example",
        ] {
            assert_eq!(port(nothing), None, "{nothing}");
        }
        let same = |one: &str, other: &str| place(one).unwrap().is(&place(other).unwrap(), 443);
        assert!(same("media.lan", "Media.lan.:443"));
        assert!(same("media.lan:8642", "media.lan:8642"));
        assert!(!same("media.lan", "media.lan:80"));
        assert!(!same("media.lan:443", "evil.example:443"));
    }
}
